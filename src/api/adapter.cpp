// See adapter.h and adapter_files.h.
#include "api/adapter.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "api/adapter_files.h"
#include "api/finetune_files.h"
#include "api/guard.h"
#include "api/loaded.h"
#include "base/error.h"
#include "base/file.h"
#include "ckpt/safetensors_write.h"

namespace statera {
namespace {

constexpr std::string_view kPrefix = "base_model.model.", kA = ".lora_A.weight", kB = ".lora_B.weight";
constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kWeights = "adapter_model.safetensors";

}  // namespace

void write_adapter(const std::string& folder, const std::vector<Parameter>& parameters, const LoraSettings& settings, const std::string& base) {
  NamedTensors tensors;
  Json targets = Json::array();
  for (const Parameter& p : parameters) {
    tensors.emplace_back(std::string(kPrefix) + p.name, p.leaf.detach());
    if (p.name.ends_with(kA)) targets.push(p.name.substr(0, p.name.size() - kA.size()));
  }
  write_safetensors(folder + "/" + kWeights, tensors);
  Json config = Json::object();
  config.set("peft_type", "LORA");
  config.set("task_type", "CAUSAL_LM");
  config.set("base_model_name_or_path", base);
  config.set("r", settings.r);
  config.set("lora_alpha", settings.alpha);
  config.set("lora_dropout", settings.dropout);
  config.set("target_modules", std::move(targets));
  config.set("bias", "none");
  config.set("fan_in_fan_out", false);
  config.set("inference_mode", true);
  config.set("init_lora_weights", true);
  config.set("modules_to_save", Json());
  write_file_atomic(folder + "/" + kConfig, config.dump(2) + "\n");
}

AdapterFile read_adapter(const std::string& folder) {
  const std::string where = folder + "/" + kConfig;
  if (!is_file(where)) throw Error(ErrorKind::not_found, where + ": no such file");
  const Json config = Json::read_file(where);
  if (config.get_string("peft_type", "") != "LORA") throw Error(ErrorKind::unsupported, where + ": peft_type is no LORA");
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias"}) {
    if (config.get_bool(key, false)) throw Error(ErrorKind::unsupported, where + ": " + key + " is not supported");
  }
  for (const char* key : {"modules_to_save", "rank_pattern", "alpha_pattern"}) {
    const Json* v = config.get(key);
    if (v && !((v->is_array() && v->as_array().empty()) || (v->is_object() && v->as_object().empty())))
      throw Error(ErrorKind::unsupported, where + ": " + key + " is not supported");
  }
  const double r = config.at("r", where).as_double(where + ": r");
  const double alpha = config.at("lora_alpha", where).as_double(where + ": lora_alpha");
  const double scale = config.get_bool("use_rslora", false) ? alpha / std::sqrt(r) : alpha / r;
  AdapterFile out;
  out.base = config.get_string("base_model_name_or_path", "");
  const SafetensorsFile file(folder + "/" + kWeights);
  for (const TensorInfo& info : file.tensors()) {
    const bool is_a = info.name.ends_with(kA), is_b = info.name.ends_with(kB);
    if (!info.name.starts_with(kPrefix) || (!is_a && !is_b)) throw Error(ErrorKind::unsupported, file.path() + ": tensor " + info.name + ": no LoRA matrix");
    const std::string path = info.name.substr(kPrefix.size(), info.name.size() - kPrefix.size() - kA.size());
    Adapter& adapter = out.layers[path];
    (is_a ? adapter.A : adapter.B) = file.tensor(info);
    adapter.scale = scale;
  }
  for (const auto& [path, a] : out.layers) {
    if (!a.A.defined() || !a.B.defined() || a.A.dim() != 2 || a.B.dim() != 2 || a.A.size(0) != a.B.size(1))
      throw Error(ErrorKind::bad_file, file.path() + ": " + path + ": its two matrices do not fit");
  }
  return out;
}

MergeReport merge(const MergeOptions& options) {
  return guarded([&] {
    const AdapterFile adapter = read_adapter(options.adapter);
    MergeReport report{options.out, options.base.empty() ? adapter.base : options.base, 0};
    if (report.base.empty()) throw Error(ErrorKind::usage, options.adapter + ": names no base model (--base)");
    Loaded loaded = open_model(report.base, {});
    Model& model = *loaded.model;
    for (const auto& [path, a] : adapter.layers) {
      const auto it = model.params.linears.find(path);
      if (it == model.params.linears.end()) throw Error(ErrorKind::mismatch, options.adapter + ": " + report.base + " has no layer " + path);
      LinearSite& site = *it->second;
      if (site.weight->unpack()) throw Error(ErrorKind::unsupported, report.base + ": " + path + " is quantized; an adapter folds into floating weights only");
      if (a.B.size(0) != site.out || a.A.size(1) != site.in) throw Error(ErrorKind::mismatch, options.adapter + ": " + path + ": is of another shape than the layer");
      const at::Tensor W = site.weight->dense();
      site.weight = make_dense((W.to(at::kFloat) + at::matmul(a.B.to(at::kFloat), a.A.to(at::kFloat)) * a.scale).to(options.dtype.empty() ? W.scalar_type() : at::kFloat));
      ++report.layers;
    }
    if (std::filesystem::exists(options.out) && !(options.overwrite && is_file(options.out + "/config.json")))
      throw Error(ErrorKind::usage, options.out + ": exists already");
    const std::string partial = options.out + ".partial";
    std::filesystem::remove_all(partial);
    std::filesystem::create_directories(partial);
    const at::ScalarType dtype = options.dtype.empty() ? stored_dtype(loaded.checkpoint) : parse_dtype(options.dtype);
    write_checkpoint(partial, model, loaded.checkpoint, choose_layout(loaded.checkpoint, model_type(model.config)), dtype);
    std::filesystem::remove_all(options.out);
    std::filesystem::rename(partial, options.out);
    return report;
  });
}

Json MergeReport::to_json() const {
  Json out_json = Json::object();
  out_json.set("out", out);
  out_json.set("base", base);
  out_json.set("layers", layers);
  return out_json;
}

std::string MergeReport::to_text() const { return fmt::format("{}: {} with adapters folded into {} layers", out, base, layers); }

}  // namespace statera
