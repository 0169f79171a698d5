// Parameters come from the model constructed without weights; bytes from the headers of the files.
#include "api/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "api/guard.h"
#include "api/loaded.h"
#include "base/error.h"
#include "base/strings.h"
#include "ckpt/checkpoint_source.h"
#include "nn/kv_cache.h"

namespace statera {
namespace {

std::string describe(const StoredLinear& l) {
  std::string out = fmt::format("{}-bit {}, {}", l.spec.bits, l.spec.group > 0 ? fmt::format("groups of {}", l.spec.group) : "channels",
                                l.spec.symmetric ? "symmetric" : "asymmetric");
  if (l.act) out += fmt::format(", {}-bit activations {}", l.act->bits, l.act->is_static ? "with static scales" : "per token");
  return out;
}

// Knows no weights, but answers whether optional ones are in the files.
class Shapes : public ShapesOnly {
 public:
  explicit Shapes(const CheckpointSource& source) : source_(source) {}
  bool has(const std::string& name) const override { return source_.has(name); }

 private:
  const CheckpointSource& source_;
};

int64_t stored_bytes(const Checkpoint& c, const std::string& name) {
  const TensorInfo* info = c.find(name);
  return info ? static_cast<int64_t>(info->bytes) : 0;
}

// What a layer takes of a tensor that it shares with other experts.
int64_t shared_bytes(const CheckpointSource& source, const LinearSite& site) {
  const std::string tensor = source.stored_tensor(site);
  if (tensor == source.disk_name(site.path) + ".weight") return 0;
  return site.out * site.in * static_cast<int64_t>(c10::elementSize(source.checkpoint().find(tensor)->dtype));
}

void add_parts(const Model& model, const CheckpointSource& source, InspectReport& report) {
  const Checkpoint& c = source.checkpoint();
  std::map<std::string, InspectPart> parts;
  auto add = [&](Role role, int64_t parameters, int64_t bytes) {
    InspectPart& part = parts[std::string(to_string(role))];
    part.parameters += parameters;
    part.bytes += bytes;
    report.parameters += parameters;
  };
  double active = 0;
  for (const auto& [path, site] : model.params.linears) {
    const std::string disk = source.disk_name(path);
    active += site->row_share * static_cast<double>(site->out * site->in);
    int64_t bytes = shared_bytes(source, *site);
    for (const char* suffix : {".weight", ".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point"})
      bytes += stored_bytes(c, disk + suffix);
    add(site->role, site->out * site->in, bytes);
  }
  for (const auto& [path, site] : model.params.tensors) {
    int64_t n = 1;
    for (int64_t d : site->shape) n *= d;
    add(site->role, n, stored_bytes(c, source.disk_tensor(path)));
    active += static_cast<double>(n);
  }
  report.active_parameters = std::llround(active);
  for (auto& [name, part] : parts) {
    part.name = name;
    report.parts.push_back(part);
  }
  std::stable_sort(report.parts.begin(), report.parts.end(), [](const auto& a, const auto& b) { return a.parameters > b.parameters; });
}

void add_quantization(const Model& model, const CheckpointSource& source, InspectReport& report) {
  if (!source.format()) return;
  const Checkpoint& c = source.checkpoint();
  report.format = source.format()->name;
  std::map<std::string, int64_t> kinds;
  for (const auto& [path, site] : model.params.linears) {
    try {
      auto l = source.format()->describe(c, *c.quantization_config(), source.disk_name(path), site->out, site->in);
      if (l) ++kinds[describe(*l)];
    } catch (const Error&) {
      ++kinds["unreadable"];  // listed among the misshapen
    }
  }
  report.quantization.assign(kinds.begin(), kinds.end());
}

void add_tensors(const Checkpoint& c, bool list, InspectReport& report) {
  std::map<std::string, int64_t> dtypes;
  for (const std::string& name : c.names()) {
    const TensorInfo* info = c.find(name);
    dtypes[info->type->name] += static_cast<int64_t>(info->bytes);
    if (!list) continue;
    Json t = Json::object();
    t.set("name", name);
    t.set("dtype", info->type->name);
    t.set("shape", Json(info->shape));
    t.set("bytes", info->bytes);
    const std::string& path = c.file_of(name).path();
    t.set("file", path.substr(c.directory().size() + 1));
    report.tensor_list.push(std::move(t));
  }
  report.dtypes.assign(dtypes.begin(), dtypes.end());
  std::stable_sort(report.dtypes.begin(), report.dtypes.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  report.tensors = static_cast<int64_t>(c.names().size());
  report.files = static_cast<int64_t>(c.files().size());
  report.bytes = static_cast<int64_t>(c.bytes());
}

Json pairs_json(const std::vector<std::pair<std::string, int64_t>>& pairs) {
  Json j = Json::object();
  for (const auto& [name, value] : pairs) j.set(name, value);
  return j;
}

std::string some(const std::vector<std::string>& names) {
  std::vector<std::string> first(names.begin(), names.begin() + static_cast<ptrdiff_t>(std::min<size_t>(names.size(), 8)));
  return join(first, "\n    ") + (names.size() > 8 ? fmt::format("\n    ... ({} in all)", names.size()) : "");
}

}  // namespace

InspectReport inspect(const InspectOptions& options) {
  return guarded([&] {
    if (options.context < 1) throw Error(ErrorKind::usage, "--context must be positive");
    const KvForm kv_form = parse_kv_form(options.kv_cache);
    const Checkpoint c = Checkpoint::open(options.model);
    const std::string config = c.directory() + "/config.json";
    const ModelType& type = with_context(config, [&]() -> const ModelType& { return model_type(c.config()); });
    const CheckpointSource source(c, type);
    Shapes shapes(source);
    const auto model = type.make(c.config(), shapes);
    InspectReport r;
    r.model = c.directory();
    r.model_type = c.config().get_string("model_type", "");
    if (const Json* names = c.config().get("architectures"); names && names->is_array() && !names->as_array().empty()) {
      r.architecture = names->as_array()[0].as_string("architectures");
    }
    r.dtype = stored_type(stored_dtype(c)).name;
    add_tensors(c, options.tensors, r);
    add_parts(*model, source, r);
    add_quantization(*model, source, r);
    const ModelLimits limits = model->limits();
    r.layers = limits.layers;
    r.hidden_size = limits.hidden_size;
    r.vocab_size = limits.vocab_size;
    r.kv_heads = limits.kv_heads;
    r.head_dim = limits.head_dim;
    r.max_positions = limits.max_positions;
    r.context = options.context;
    // Of activations as open_model makes them by default, not of what the weights are stored in.
    r.kv_bytes = r.layers * r.kv_heads * 2 * kv_row_bytes(kv_form, r.head_dim, parse_dtype(LoadOptions{}.dtype)) * r.context;
    r.memory_bytes = r.bytes + r.kv_bytes;
    CheckpointProblems problems = find_problems(c, type);
    r.missing = std::move(problems.missing);
    r.unexpected = std::move(problems.unexpected);
    r.misshapen = std::move(problems.misshapen);
    return r;
  });
}

Json InspectReport::to_json() const {
  Json j = Json::object();
  j.set("model", model);
  j.set("model_type", model_type);
  j.set("architecture", architecture);
  j.set("dtype", dtype);
  j.set("parameters", parameters);
  j.set("active_parameters", active_parameters);
  j.set("bytes", bytes);
  j.set("tensors", tensors);
  j.set("files", files);
  Json list = Json::array();
  for (const InspectPart& part : parts) {
    Json p = Json::object();
    p.set("part", part.name);
    p.set("parameters", part.parameters);
    p.set("bytes", part.bytes);
    list.push(std::move(p));
  }
  j.set("parts", std::move(list));
  j.set("dtypes", pairs_json(dtypes));
  j.set("format", format.empty() ? Json() : Json(format));
  j.set("quantization", pairs_json(quantization));
  j.set("layers", layers);
  j.set("hidden_size", hidden_size);
  j.set("vocab_size", vocab_size);
  j.set("kv_heads", kv_heads);
  j.set("head_dim", head_dim);
  j.set("max_positions", max_positions);
  j.set("context", context);
  j.set("kv_bytes", kv_bytes);
  j.set("memory_bytes", memory_bytes);
  j.set("missing", Json(missing));
  j.set("unexpected", Json(unexpected));
  j.set("misshapen", Json(misshapen));
  if (!tensor_list.is_null()) j.set("tensor_list", tensor_list);
  return j;
}

std::string InspectReport::to_text() const {
  auto bytes_of = [](int64_t n) { return human_bytes(static_cast<double>(n)); };
  std::string out = fmt::format("{}\n  {} ({}), {}\n", model, architecture.empty() ? model_type : architecture, model_type, dtype);
  const std::string active = active_parameters < parameters ? fmt::format(" ({} active for a token)", human_count(static_cast<double>(active_parameters))) : "";
  out += fmt::format("  {} parameters{}, {} in {} tensors, {} file{}\n", human_count(static_cast<double>(parameters)), active, bytes_of(bytes), tensors, files,
                     files == 1 ? "" : "s");
  for (const InspectPart& p : parts)
    out += fmt::format("    {:<10} {:>10}  {:>11}\n", p.name, human_count(static_cast<double>(p.parameters)), bytes_of(p.bytes));
  out += "  stored as ";
  for (size_t i = 0; i < dtypes.size(); ++i) out += fmt::format("{}{} {}", i ? ", " : "", dtypes[i].first, bytes_of(dtypes[i].second));
  out += format.empty() ? "\n  not quantized\n" : fmt::format("\n  quantized: {}\n", format);
  for (const auto& [kind, count] : quantization) out += fmt::format("    {} layers: {}\n", count, kind);
  out += fmt::format("  {} layers, hidden size {}, vocabulary {}, {} key/value heads of {}, up to {} positions\n", layers, hidden_size,
                     vocab_size, kv_heads, head_dim, max_positions);
  out += fmt::format("  memory for {} tokens: {} ({} of keys and values)\n", context, bytes_of(memory_bytes), bytes_of(kv_bytes));
  for (const Json& t : tensor_list.is_null() ? Json::Array{} : tensor_list.as_array()) out += "  " + t.dump() + "\n";
  if (missing.empty() && unexpected.empty() && misshapen.empty()) return out + "  no problems found";
  if (!missing.empty()) out += "  missing:\n    " + some(missing) + "\n";
  if (!misshapen.empty()) out += "  misshapen:\n    " + some(misshapen) + "\n";
  if (!unexpected.empty()) out += "  unexpected:\n    " + some(unexpected) + "\n";
  out.pop_back();
  return out;
}

}  // namespace statera
