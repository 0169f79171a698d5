// Roles, patterns and the checks on both.
#include "quant/select.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "base/error.h"
#include "base/pattern.h"
#include "base/strings.h"

namespace statera {
namespace {

struct Ignore {
  Pattern pattern;
  bool found = false;
};

// What an override's pattern found.
struct Exception {
  const Override& what;
  Pattern pattern;
  bool found = false, used = false;
};

bool in_language_block(Role role) { return role == Role::attention || role == Role::mlp || role == Role::expert; }

void check_group(const LayerChoice& layer) {
  const QSpec& spec = layer.spec;
  if (spec.group <= 0 || layer.site->in % spec.group == 0) return;
  throw Error(ErrorKind::usage, "layer " + layer.disk_path + ": its " + std::to_string(layer.site->in) +
                                    " input channels do not divide into groups of " + std::to_string(spec.group) +
                                    "; choose another --w-group, --w-group -1 (one scale per row) or --ignore it");
}

void apply_ignores(std::vector<LayerChoice>& layers, const std::vector<std::string>& patterns) {
  std::vector<Ignore> ignores;
  for (const std::string& text : patterns) ignores.push_back({Pattern(text, "--ignore \"" + text + "\"")});
  for (LayerChoice& layer : layers) {
    for (Ignore& i : ignores) {
      if (!i.pattern.found_in(layer.disk_path)) continue;
      i.found = true;
      if (layer.reason.empty()) layer.reason = "--ignore " + i.pattern.expression();
    }
  }
  for (const Ignore& i : ignores) {
    if (i.found) continue;
    throw Error(ErrorKind::usage, "--ignore \"" + i.pattern.expression() + "\" finds no linear layer (names are those in the files, e.g. " +
                                      (layers.empty() ? "none here" : layers.back().disk_path) + ")");
  }
}

void apply_overrides(std::vector<LayerChoice>& layers, const std::vector<Override>& overrides) {
  std::vector<Exception> list;
  for (const Override& o : overrides) list.push_back({o, Pattern(o.pattern, "--override " + o.text())});
  for (LayerChoice& layer : layers) {
    const bool selected = layer.reason.empty();
    for (Exception& e : list) {
      if (!e.pattern.found_in(layer.disk_path)) continue;
      e.found = true;
      e.used |= selected;
      if (e.what.skip && layer.reason.empty()) layer.reason = "--override " + e.what.text();
      if (e.what.bits) layer.spec.bits = static_cast<int>(*e.what.bits);
      if (e.what.group) layer.spec.group = *e.what.group;
      if (e.what.symmetric) layer.spec.symmetric = *e.what.symmetric;
      layer.own_bits |= e.what.bits.has_value();
    }
  }
  for (const Exception& e : list) {
    if (e.used) continue;
    throw Error(ErrorKind::usage, "--override " + e.what.text() +
                                      (e.found ? " finds only layers that stay floating" : " finds no linear layer") +
                                      " (names are those in the files, e.g. " + (layers.empty() ? "none here" : layers.back().disk_path) + ")");
  }
}

// "model.layers.0.self_attn.q_proj/k_proj/v_proj"; of experts the first and their number.
std::string fused_name(const std::vector<LayerChoice>& layers, const std::vector<size_t>& set) {
  const std::string& first = layers[set[0]].disk_path;
  const std::string parent = first.substr(0, first.rfind('.') + 1);
  if (layers[set[0]].site->role == Role::expert) return first + " and the other " + std::to_string(set.size() - 1) + " expert layers";
  static const std::vector<std::string> order = {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "q_a_proj", "kv_a_proj_with_mqa"};
  std::vector<std::string> names;
  for (const std::string& name : order) {
    for (size_t i : set) {
      if (layers[i].disk_path == parent + name) names.push_back(name);
    }
  }
  return parent + join(names, "/");
}

}  // namespace

std::string reason_by_role(const LinearSite& site, const SelectOptions& o) {
  if (!site.stored_shape.empty()) return "stored as a convolution";
  switch (site.role) {
    case Role::attention:
    case Role::mlp:
    case Role::expert:
      return "";
    case Role::vision:
      return o.vision ? "" : "vision tower";
    case Role::projector:
      return o.projector ? "" : "projector";
    case Role::head:
      return o.head ? "" : "head";
    case Role::router:
      return "router";
    case Role::embedding:
      return "embedding";
    case Role::norm:
    case Role::other:
      return "no layer of a block";
  }
  return "no layer of a block";
}

void check_requests(const Model& model, const SelectOptions& o) {
  auto has = [&](Role role) {
    const auto& linears = model.params.linears;
    return std::any_of(linears.begin(), linears.end(), [&](const auto& entry) { return entry.second->role == role; });
  };
  if (o.head && !has(Role::head))
    throw Error(ErrorKind::usage, "--quantize-head: this model has no output head of its own");
  if (o.vision && !has(Role::vision)) throw Error(ErrorKind::usage, "--quantize-vision: this model has no vision tower");
  if (o.projector && !has(Role::projector)) throw Error(ErrorKind::usage, "--quantize-projector: this model has no projector");
}

std::vector<LayerChoice> select_layers(const Model& model, const CheckpointSource& source, const SelectOptions& options,
                                       const QSpec& spec) {
  std::vector<LayerChoice> layers;
  for (const auto& [path, site] : model.params.linears)
    layers.push_back({site, source.disk_name(path), false, reason_by_role(*site, options), spec});
  // Language blocks last, each stack by index: the order of work.
  auto place = [](const LayerChoice& l) {
    return std::tuple(l.site->block >= 0, in_language_block(l.site->role), l.site->block, l.disk_path);
  };
  std::sort(layers.begin(), layers.end(), [&](const LayerChoice& a, const LayerChoice& b) { return place(a) < place(b); });
  check_requests(model, options);
  apply_ignores(layers, options.ignore);
  apply_overrides(layers, options.overrides);
  bool any = false;
  for (LayerChoice& layer : layers) {
    layer.quantized = layer.reason.empty();
    any |= layer.quantized;
    if (layer.quantized) check_group(layer);
  }
  if (!any) throw Error(ErrorKind::usage, "nothing to quantize: no linear layer is left by the selection");
  return layers;
}

std::vector<std::vector<size_t>> fused_sets(const std::vector<LayerChoice>& layers) {
  static const std::vector<std::pair<std::string, std::string>> fused = {
      {"q_proj", "qkv"},      {"k_proj", "qkv"},   {"v_proj", "qkv"},       {"gate_proj", "gate_up"},
      {"up_proj", "gate_up"}, {"q_a_proj", "qkv_a"}, {"kv_a_proj_with_mqa", "qkv_a"}};
  std::map<std::string, size_t> place;
  std::vector<std::vector<size_t>> out;
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string& name = layers[i].disk_path;
    const auto dot = name.rfind('.');
    std::string key = name;
    if (layers[i].site->role == Role::expert) {
      key = "experts of " + name.substr(0, name.find(".experts.")) + "#" + std::to_string(layers[i].site->block);
    } else if (dot != name.npos) {
      for (const auto& [member, whole] : fused) {
        if (name.substr(dot + 1) == member) key = name.substr(0, dot) + ":" + whole;
      }
    }
    auto [it, fresh] = place.try_emplace(key, out.size());
    if (fresh) out.emplace_back();
    out[it->second].push_back(i);
  }
  return out;
}

std::vector<std::string> split_fusions(const std::vector<LayerChoice>& layers) {
  std::vector<std::string> out;
  for (const std::vector<size_t>& set : fused_sets(layers)) {
    const LayerChoice& first = layers[set[0]];
    bool split = false, differ = false;
    for (size_t i : set) {
      split |= layers[i].quantized != first.quantized;
      differ |= layers[i].quantized && first.quantized && !(layers[i].spec == first.spec);
    }
    if (!split && !differ) continue;
    out.push_back(fused_name(layers, set) + (split ? ": engines that fuse these layers need all of them quantized or none"
                                                   : ": engines that fuse these layers need the same bits, group and symmetry for all"));
  }
  return out;
}

}  // namespace statera
