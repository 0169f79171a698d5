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

bool in_language_block(Role role) { return role == Role::attention || role == Role::mlp || role == Role::expert; }

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

void check_requests(const std::vector<LayerChoice>& layers, const SelectOptions& o) {
  auto has = [&](Role role) {
    return std::any_of(layers.begin(), layers.end(), [&](const LayerChoice& l) { return l.site->role == role; });
  };
  if (o.head && !has(Role::head))
    throw Error(ErrorKind::usage, "--quantize-head: the head of this model is its embedding (tied), which stays floating");
  if (o.vision && !has(Role::vision)) throw Error(ErrorKind::usage, "--quantize-vision: this model has no vision tower");
  if (o.projector && !has(Role::projector)) throw Error(ErrorKind::usage, "--quantize-projector: this model has no projector");
}

void check_group(const LayerChoice& layer, const QSpec& spec) {
  if (spec.group <= 0 || layer.site->in % spec.group == 0) return;
  throw Error(ErrorKind::usage, "layer " + layer.disk_path + ": its " + std::to_string(layer.site->in) +
                                    " input channels do not divide into groups of " + std::to_string(spec.group) +
                                    "; choose another --w-group, --w-group -1 (one scale per row) or --ignore it");
}

}  // namespace

std::vector<LayerChoice> select_layers(const Model& model, const CheckpointSource& source, const SelectOptions& options,
                                       const QSpec& spec) {
  std::vector<LayerChoice> layers;
  for (const auto& [path, site] : model.params.linears)
    layers.push_back({site, source.disk_name(path), false, reason_by_role(*site, options)});
  // Language blocks last, each stack by index: the order of work.
  auto place = [](const LayerChoice& l) {
    return std::tuple(l.site->block >= 0, in_language_block(l.site->role), l.site->block, l.disk_path);
  };
  std::sort(layers.begin(), layers.end(), [&](const LayerChoice& a, const LayerChoice& b) { return place(a) < place(b); });
  check_requests(layers, options);
  std::vector<Ignore> ignores;
  for (const std::string& text : options.ignore) ignores.push_back({Pattern(text, "--ignore \"" + text + "\"")});
  bool any = false;
  for (LayerChoice& layer : layers) {
    for (Ignore& i : ignores) {
      if (!i.pattern.found_in(layer.disk_path)) continue;
      i.found = true;
      if (layer.reason.empty()) layer.reason = "--ignore " + i.pattern.expression();
    }
    layer.quantized = layer.reason.empty();
    any |= layer.quantized;
    if (layer.quantized) check_group(layer, spec);
  }
  for (const Ignore& i : ignores) {
    if (i.found) continue;
    throw Error(ErrorKind::usage, "--ignore \"" + i.pattern.expression() + "\" finds no linear layer (names are those in the files, e.g. " +
                                      (layers.empty() ? "none here" : layers.back().disk_path) + ")");
  }
  if (!any) throw Error(ErrorKind::usage, "nothing to quantize: no linear layer is left by the selection");
  return layers;
}

std::vector<std::string> split_fusions(const std::vector<LayerChoice>& layers) {
  static const std::vector<std::vector<std::string>> fused = {{"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}};
  std::map<std::string, bool> quantized;
  for (const LayerChoice& l : layers) quantized[l.disk_path] = l.quantized;
  std::vector<std::string> out;
  for (const LayerChoice& l : layers) {
    for (const auto& names : fused) {
      auto dot = l.disk_path.rfind('.');
      if (dot == l.disk_path.npos || l.disk_path.substr(dot + 1) != names.front()) continue;
      const std::string parent = l.disk_path.substr(0, dot + 1);
      bool split = std::any_of(names.begin(), names.end(), [&](const std::string& n) {
        auto it = quantized.find(parent + n);
        return it != quantized.end() && it->second != l.quantized;
      });
      if (split) out.push_back(parent + join(names, "/") + ": engines that fuse these layers need all of them quantized or none");
    }
  }
  return out;
}

}  // namespace statera
