// See finetune_files.h.
#include "api/finetune_files.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "base/fields.h"
#include "base/file.h"
#include "ckpt/safetensors_write.h"
#include "ckpt/shards.h"
#include "quant/side_files.h"

namespace statera {
namespace fs = std::filesystem;
namespace {

constexpr const char* kRun = "run.json";
constexpr const char* kLog = "log.jsonl";
constexpr const char* kState = "training_state.safetensors";
constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::pair<const char*, at::Tensor AdamW::State::*> kMoments[] = {
    {"m.", &AdamW::State::m}, {"v.", &AdamW::State::v}, {"m_scale.", &AdamW::State::m_scale}, {"v_scale.", &AdamW::State::v_scale}};

const char* dtype_name(at::ScalarType dtype) { return dtype == at::kBFloat16 ? "bfloat16" : dtype == at::kHalf ? "float16" : "float32"; }

// The dtype wherever the config states one, or at its top.
Json config_with(Json config, at::ScalarType dtype) {
  config.erase("quantization_config");
  bool stated = false;
  auto set = [&](Json& j) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (!j.has(key)) continue;
      j.set(key, dtype_name(dtype));
      stated = true;
    }
  };
  set(config);
  for (const char* part : {"text_config", "vision_config"}) {
    if (Json* j = config.find(part)) set(*j);
  }
  if (!stated) config.set("torch_dtype", dtype_name(dtype));
  return config;
}

void remove_folder(const std::string& path) {
  std::error_code code;
  fs::remove_all(path, code);
  if (code) throw io_error(path, code.value());
}

void make_folder(const std::string& path) {
  std::error_code code;
  fs::create_directories(path, code);
  if (code) throw io_error(path, code.value());
}

void move_to(const std::string& from, const std::string& to) {
  std::error_code code;
  fs::rename(from, to, code);
  if (code) throw io_error(to, code.value());
}

std::vector<fs::directory_entry> entries_of(const std::string& path) {
  std::vector<fs::directory_entry> out;
  std::error_code code;
  for (fs::directory_iterator it(path, code), end; !code && it != end; it.increment(code)) out.push_back(*it);
  if (code) throw io_error(path, code.value());
  return out;
}

std::string first_difference(const Json& before, const Json& now) {
  for (const auto& [key, value] : now.as_object()) {
    const Json* old = before.find(key);
    if (!old || !(*old == value)) return key + " was " + (old ? old->dump() : "absent") + ", is " + value.dump();
  }
  return "an option is gone";
}

}  // namespace

void write_checkpoint(const std::string& folder, const Model& model, const Checkpoint& source, const Layout& layout, at::ScalarType dtype) {
  struct Piece {
    std::string name;
    std::vector<int64_t> shape;
    at::Tensor value;
  };
  std::vector<Piece> pieces;
  for (const auto& [path, site] : model.params.linears) {
    const std::vector<int64_t> shape = site->stored_shape.empty() ? std::vector<int64_t>{site->out, site->in} : site->stored_shape;
    pieces.push_back({map_name(layout, path + ".weight"), shape, site->weight->dense()});
  }
  for (const auto& [path, site] : model.params.tensors) pieces.push_back({map_name(layout, path), site->shape, site->value});
  std::vector<TensorPlan> plans;
  int64_t parameters = 0;
  for (const Piece& p : pieces) {
    plans.push_back({p.name, dtype, p.shape});
    parameters += p.value.numel();
  }
  const ShardPlan plan = plan_shards(plans, kDefaultShardBytes, torch_metadata(), parameters);
  std::vector<ShardFile> shards;
  for (const ShardPlan::File& file : plan.files) shards.emplace_back(folder, file);
  for (const Piece& p : pieces) shards[plan.file_of.at(p.name)].write(p.name, p.value.detach().to(dtype).reshape(p.shape));
  for (ShardFile& shard : shards) shard.sync();
  if (const std::string index = plan.index_json(); !index.empty()) write_file_atomic(folder + "/model.safetensors.index.json", index);
  copy_side_files(side_files(source.directory()), source.directory(), folder);
  write_file_atomic(folder + "/config.json", config_with(source.config(), dtype).dump(2) + "\n");
}

RunFolder::RunFolder(std::string path, Json run, bool restart, bool overwrite) : path_(std::move(path)) {
  while (path_.size() > 1 && path_.ends_with('/')) path_.pop_back();
  if (is_directory(path_) && !entries_of(path_).empty()) {
    const bool ours = is_file(path_ + "/" + kRun);
    if (!ours && !overwrite) throw Error(ErrorKind::usage, path_ + ": exists already and holds no training run");
    if (!ours && !is_file(path_ + "/config.json")) throw Error(ErrorKind::usage, path_ + ": exists already and is no checkpoint folder");
    const bool finished = ours && (is_file(path_ + "/config.json") || is_file(path_ + "/adapter_config.json"));
    if (finished && !restart && !overwrite) throw Error(ErrorKind::usage, path_ + ": the run is finished (--restart or --overwrite to begin anew)");
    if (ours && !restart && !overwrite) {
      const Json before = Json::read_file(path_ + "/" + kRun);
      if (!(before == run)) throw Error(ErrorKind::usage, path_ + ": holds a run of other options: " + first_difference(before, run) + " (--restart to begin anew)");
    } else {
      remove_folder(path_);
    }
  }
  make_folder(path_);
  if (!is_file(path_ + "/" + kRun)) write_file_atomic(path_ + "/" + kRun, run.dump(2) + "\n");
  const auto found = checkpoints();
  if (!found.empty()) latest_ = found.back().second;
}

void RunFolder::describe(const Checkpoint& source, Layout layout, at::ScalarType save_dtype, const LoraSettings* lora) {
  source_ = &source;
  layout_ = std::move(layout);
  save_dtype_ = save_dtype;
  lora_ = lora;
}

std::vector<std::pair<int64_t, std::string>> RunFolder::checkpoints() const {
  std::vector<std::pair<int64_t, std::string>> out;
  for (const auto& entry : entries_of(path_)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int64_t step = 0;
    const char* end = name.data() + name.size();
    const auto [stop, code] = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (code == std::errc() && stop == end) out.emplace_back(step, entry.path().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

void RunFolder::write_model(const std::string& folder, const Model& model, const Trainer& trainer) const {
  check(source_ != nullptr, "a run folder that knows its source");
  if (lora_) return write_adapter(folder, trainer.parameters(), *lora_, source_->directory());
  write_checkpoint(folder, model, *source_, layout_, save_dtype_);
}

void RunFolder::save(const Model& model, const Trainer& trainer, const RunState& state, int64_t keep) const {
  at::NoGradGuard no_graph;
  const std::string target = path_ + "/" + std::string(kPrefix) + std::to_string(state.step), partial = target + ".partial";
  remove_folder(partial);
  make_folder(partial);
  write_model(partial, model, trainer);
  NamedTensors tensors;
  const auto& states = trainer.optimizer().states();
  for (size_t p = 0; p < states.size(); ++p) {
    const Parameter& parameter = trainer.parameters()[p];
    for (const auto& [kind, member] : kMoments) {
      if (const at::Tensor& t = states[p].*member; t.defined()) tensors.emplace_back(kind + parameter.name, t);
    }
    tensors.emplace_back("weight." + parameter.name, states[p].master.defined() ? states[p].master : parameter.leaf.detach());
  }
  write_safetensors(partial + "/" + kState, tensors, {{"state", fields_to_json(state).dump()}});
  sync_directory(partial);
  remove_folder(target);
  move_to(partial, target);
  sync_directory(path_);
  const auto found = checkpoints();
  for (size_t i = 0; keep > 0 && i + static_cast<size_t>(keep) < found.size(); ++i) remove_folder(found[i].second);
}

RunState RunFolder::read_state() const {
  const SafetensorsFile file(*latest_ + "/" + kState);
  RunState state;
  for (const auto& [key, value] : file.metadata()) {
    if (key == "state") fields_from_json(Json::parse(value, file.path()), state, file.path());
  }
  return state;
}

void RunFolder::restore(Trainer& trainer, int64_t steps) const {
  at::NoGradGuard no_graph;
  const SafetensorsFile file(*latest_ + "/" + kState);
  std::vector<AdamW::State> states = trainer.optimizer().states();
  for (size_t i = 0; i < states.size(); ++i) {
    const Parameter& p = trainer.parameters()[i];
    AdamW::State& s = states[i];
    auto tensor = [&](const std::string& name, const at::Tensor& like) {
      const at::Tensor t = file.tensor(name).clone();
      if (t.sizes() != like.sizes() || t.scalar_type() != like.scalar_type()) throw Error(ErrorKind::mismatch, file.path() + ": tensor " + name + ": is of another model");
      return t;
    };
    for (const auto& [kind, member] : kMoments) {
      if (at::Tensor& t = s.*member; t.defined()) t = tensor(kind + p.name, t);
    }
    const bool fp32 = p.leaf.scalar_type() == at::kFloat;
    const at::Tensor weight = tensor("weight." + p.name, fp32 ? p.leaf : s.master);
    if (fp32) {
      p.leaf.detach().copy_(weight);
    } else {
      s.master = weight;
    }
  }
  trainer.restore(std::move(states), steps);
}

void RunFolder::finish(const Model& model, const Trainer& trainer) const {
  at::NoGradGuard no_graph;
  const std::string partial = path_ + "/model.partial";
  remove_folder(partial);
  make_folder(partial);
  write_model(partial, model, trainer);
  std::vector<std::string> names;
  for (const auto& entry : entries_of(partial)) names.push_back(entry.path().filename().string());
  // config.json says that all is there.
  std::stable_partition(names.begin(), names.end(), [](const std::string& n) { return n != "config.json" && n != "adapter_config.json"; });
  for (const std::string& name : names) move_to(partial + "/" + name, path_ + "/" + name);
  remove_folder(partial);
  sync_directory(path_);
}

void RunFolder::log(const Json& line) const {
  append_to_file(path_ + "/" + kLog, line.dump() + "\n");
}

void RunFolder::cut_log(int64_t step) const {
  const std::string path = path_ + "/" + kLog;
  if (!is_file(path)) return;
  std::string kept;
  const std::string text = read_file(path);
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    if (end == text.npos) break;  // a line that was being written
    const std::string line = text.substr(at, end - at);
    if (Json::parse(line, path).get_int("step", 0) <= step) kept += line + "\n";
    at = end + 1;
  }
  write_file_atomic(path, kept);
}

}  // namespace statera
