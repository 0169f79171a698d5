// Keys of quantization_config as compressed-tensors 0.20 spells them; what older releases left out is inferred as that package does.
#include "ckpt/ct_config.h"

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "ckpt/name_pattern.h"

namespace statera {
namespace {

constexpr const char* kVersion = "0.20.0";  // whose layout we write

// Releases before 0.18 left bits of a word unused. No version: the layout of today.
Packing packing_of(const std::string& version) {
  int major = 0, minor = 0;
  if (std::sscanf(version.c_str(), "%d.%d", &major, &minor) != 2) return Packing::dense;
  return major == 0 && minor < 18 ? Packing::sparse : Packing::dense;
}

std::string strategy_of(const Json& args) {
  if (const Json* s = args.get("strategy")) return s->as_string("strategy");
  const int64_t group = args.get_int("group_size", 0);
  return group > 0 ? "group" : group == -1 ? "channel" : "tensor";
}

// "" or why weights of these arguments cannot be read.
std::string read_weights(const Json& args, QSpec& spec) {
  if (std::string type = args.get_string("type", "int"); type != "int") return "weights of type " + type;
  const int64_t bits = args.get_int("num_bits", 8);
  if (bits < 2 || bits > 8) return std::to_string(bits) + "-bit weights";
  spec.bits = static_cast<int>(bits);
  spec.symmetric = args.get_bool("symmetric", true);
  const std::string strategy = strategy_of(args);
  if (strategy == "group") {
    spec.group = args.get_int("group_size", 0);
    if (spec.group <= 0) throw Error(ErrorKind::bad_file, "weights: strategy group needs a positive group_size");
  } else if (strategy == "channel" || strategy == "tensor") {
    spec.group = -1;
  } else {
    return "weight strategy " + strategy;
  }
  if (const Json* order = args.get("actorder"); order && !(order->is_bool() && !order->as_bool())) {
    const std::string name = order->is_string() ? order->as_string() : "group";
    if (name != "weight" && name != "static") return "actorder " + name;
  }
  return "";
}

std::string read_activations(const Json& args, std::optional<ActQuant>& act) {
  const std::string type = args.get_string("type", "int");
  const int64_t bits = args.get_int("num_bits", 8);
  if (type != "int" || bits != 8) return std::to_string(bits) + "-bit " + type + " activations";
  const Json* dynamic = args.get("dynamic");
  if (dynamic && !dynamic->is_bool()) return "activation scales that are partly dynamic";
  const bool is_static = !dynamic || !dynamic->as_bool();
  if (!args.get_bool("symmetric", true)) return "asymmetric activations";
  if (std::string s = strategy_of(args); s != (is_static ? "tensor" : "token")) return (is_static ? "static" : "dynamic") + (" activation strategy " + s);
  act = ActQuant{.bits = 8, .is_static = is_static};
  return "";
}

CtScheme parse_scheme(const Json& j, const std::string& global_format) {
  CtScheme s;
  for (const Json& t : j.at("targets").as_array("targets")) s.targets.push_back(t.as_string("targets"));
  s.format = j.get_string("format", global_format);
  if (s.format == "mixed-precision") s.format.clear();
  auto note = [&](const std::string& reason) {
    if (s.unsupported.empty()) s.unsupported = reason;
  };
  if (s.format != "" && s.format != "pack-quantized" && s.format != "int-quantized" && s.format != "dense" &&
      s.format != "naive-quantized") {
    note("format " + s.format);
  }
  if (const Json* weights = j.get("weights")) {
    note(read_weights(*weights, s.spec));
  } else {
    note("a scheme without weights");
  }
  if (const Json* input = j.get("input_activations")) note(read_activations(*input, s.act));
  if (j.get("output_activations")) note("quantized outputs");
  return s;
}

// Rotations that are not merged into the weights would have to be applied while running.
void check_transforms(const Json& config) {
  const Json* transforms = config.get("transform_config");
  const Json* groups = transforms ? transforms->get("config_groups") : nullptr;
  if (!groups) return;
  for (const auto& [name, group] : groups->as_object("transform_config.config_groups")) {
    for (const Json& apply : group.at("apply", name).as_array(name + ".apply")) {
      const std::string location = apply.get_string("location", "");
      if (location != "weight_input" && location != "weight_output") {
        throw Error(ErrorKind::unsupported, "transform " + name + " at " + location + " (applied while running)");
      }
    }
  }
}

Json arguments(int bits, bool symmetric, Json group_size, const char* strategy, bool dynamic) {
  Json j = Json::object();
  j.set("num_bits", bits);
  j.set("type", "int");
  j.set("symmetric", symmetric);
  j.set("group_size", std::move(group_size));
  j.set("strategy", strategy);
  j.set("dynamic", dynamic);
  return j;
}

Json scheme_json(const StoredLinear& like, Json::Array targets) {
  Json j = Json::object();
  j.set("targets", Json(std::move(targets)));
  const QSpec& spec = like.spec;
  j.set("weights",
        arguments(spec.bits, spec.symmetric, spec.group > 0 ? Json(spec.group) : Json(), spec.group > 0 ? "group" : "channel", false));
  Json act;
  if (like.act) act = arguments(like.act->bits, true, Json(), like.act->is_static ? "tensor" : "token", !like.act->is_static);
  j.set("input_activations", std::move(act));
  j.set("output_activations", Json());
  j.set("format", stored_as_int8(like) ? "int-quantized" : "pack-quantized");
  return j;
}

// One scheme serves both; static scales stand beside each layer.
bool alike(const StoredLinear& a, const StoredLinear& b) {
  if (a.spec != b.spec || a.act.has_value() != b.act.has_value()) return false;
  return !a.act || (a.act->bits == b.act->bits && a.act->is_static == b.act->is_static);
}

}  // namespace

const CtScheme* CtConfig::scheme_of(const std::string& module) const {
  for (int kind = 0; kind < 3; ++kind) {
    for (const CtScheme& s : schemes) {
      for (const std::string& target : s.targets) {
        const bool pattern = target.starts_with("re:");
        if (kind == 0 && !pattern && target == module) return &s;
        if (kind == 1 && pattern && name_matches(target, module)) return &s;
        if (kind == 2 && (target == "Linear" || target == "LinearBase")) return &s;
      }
    }
  }
  return nullptr;
}

CtConfig parse_ct_config(const Json& quantization_config) {
  CtConfig out;
  out.packing = packing_of(quantization_config.get_string("version", ""));
  const std::string format = quantization_config.get_string("format", "");
  check_transforms(quantization_config);
  for (const auto& [name, group] : quantization_config.at("config_groups").as_object("config_groups")) {
    out.schemes.push_back(with_context("config_groups." + name, [&, &g = group] { return parse_scheme(g, format); }));
  }
  return out;
}

bool stored_as_int8(const StoredLinear& linear) { return linear.act && linear.spec.group <= 0 && linear.spec.symmetric; }

Json make_ct_config(const std::vector<StoredLinear>& linears, const std::vector<std::string>& ignore) {
  std::vector<std::vector<const StoredLinear*>> sets;
  for (const StoredLinear& l : linears) {
    auto same = std::find_if(sets.begin(), sets.end(), [&](const auto& set) { return alike(*set[0], l); });
    if (same == sets.end()) same = sets.insert(sets.end(), std::vector<const StoredLinear*>{});
    same->push_back(&l);
  }
  // The largest set last: it takes what the names before it left.
  std::stable_sort(sets.begin(), sets.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  Json groups = Json::object();
  bool packed = false, int8 = false;
  for (size_t i = 0; i < sets.size(); ++i) {
    Json::Array targets;
    if (i + 1 == sets.size()) {
      targets.emplace_back("Linear");
    } else {
      for (const StoredLinear* l : sets[i]) targets.emplace_back(l->path);
    }
    groups.set("group_" + std::to_string(i), scheme_json(*sets[i][0], std::move(targets)));
    (stored_as_int8(*sets[i][0]) ? int8 : packed) = true;
  }
  Json out = Json::object();
  out.set("config_groups", std::move(groups));
  out.set("quant_method", "compressed-tensors");
  out.set("kv_cache_scheme", Json());
  out.set("format", packed && int8 ? "mixed-precision" : int8 ? "int-quantized" : "pack-quantized");
  out.set("quantization_status", "compressed");
  out.set("global_compression_ratio", Json());
  out.set("ignore", Json(ignore));
  out.set("sparsity_config", Json::object());
  out.set("transform_config", Json::object());
  out.set("version", kVersion);
  return out;
}

}  // namespace statera
