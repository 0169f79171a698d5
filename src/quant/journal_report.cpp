// Square roots and quotients.
#include "quant/journal_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/strings.h"

namespace statera {
namespace {

double relative(double error, double of) { return std::sqrt(std::max(0.0, error) / of); }

std::optional<QuantizeReport::Kind> kind_of(const KindLoss& k) {
  if (k.rows == 0 || !(k.output > 0)) return std::nullopt;
  return QuantizeReport::Kind{relative(k.error, k.output), relative(k.rtn, k.output), k.rows, k.seen};
}

QuantizeReport::Layer layer_of(const JournalEntry::Layer& l) {
  QuantizeReport::Layer out{.name = l.name, .error = l.error.relative(), .output_error = {}, .rtn_output_error = {}, .text = {}, .vision = {}, .input = {}};
  if (const auto& e = l.evidence) {
    out.text = kind_of(e->text);
    out.vision = kind_of(e->vision);
    out.input = QuantizeReport::Input{e->input.median, e->input.top.empty() ? 0 : e->input.top.front().second, e->input.outliers, e->input.top};
    if (const KindLoss all = e->total(); all.output > 0) {
      out.output_error = relative(all.error, all.output);
      out.rtn_output_error = relative(all.rtn, all.output);
    }
  }
  if (l.loss && l.loss->output > 0) {
    out.all_rows = true;
    out.output_error = relative(l.loss->loss, l.loss->output);
    out.rtn_output_error = relative(l.loss->rtn, l.loss->output);
  }
  return out;
}

}  // namespace

std::vector<QuantizeReport::Layer> reported_layers(const std::vector<JournalEntry>& units) {
  std::vector<QuantizeReport::Layer> out;
  for (const JournalEntry& unit : units) {
    for (const JournalEntry::Layer& l : unit.layers) out.push_back(layer_of(l));
  }
  return out;
}

std::optional<QuantizeReport::Experts> reported_experts(const std::vector<JournalEntry>& units, const OutputPlan& plan) {
  std::set<std::string> experts;  // paths of layers
  for (const LayerPlan& l : plan.layers) {
    if (l.site->role == Role::expert) experts.insert(l.stored.path);
  }
  if (experts.empty()) return std::nullopt;
  QuantizeReport::Experts out;
  std::vector<int64_t> seen;
  for (const JournalEntry& unit : units) {
    for (const JournalEntry::Layer& l : unit.layers) {
      if (!experts.count(l.name)) continue;
      seen.push_back(l.evidence ? l.evidence->text.seen + l.evidence->vision.seen : 0);
      if (seen.back() == 0) out.unreached.push_back(l.name);
    }
  }
  std::sort(seen.begin(), seen.end());
  out.layers = static_cast<int64_t>(seen.size());
  out.least = seen.front();
  out.median = seen[seen.size() / 2];
  out.most = seen.back();
  return out;
}

std::string unreached_warning(const QuantizeReport::Experts& experts) {
  constexpr size_t kNamed = 6;
  std::vector<std::string> names(experts.unreached.begin(), experts.unreached.begin() + static_cast<ptrdiff_t>(std::min(kNamed, experts.unreached.size())));
  return fmt::format("{} of {} layers of experts were reached by no calibration token and are rounded to nearest, without scales of their own: {}{}",
                     experts.unreached.size(), experts.layers, join(names, ", "), experts.unreached.size() > kNamed ? ", ... (report.json has all)" : "");
}

std::vector<QuantizeReport::Scale> reported_scales(const std::vector<JournalEntry>& units) {
  std::vector<QuantizeReport::Scale> out;
  for (const JournalEntry& unit : units) {
    for (const ScaleRecord& r : unit.scales) {
      out.push_back({unit.unit, r.group, r.readers, r.ratio, r.scale_C.min().item<double>(), r.scale_C.max().item<double>(), r.losses, r.rho});
    }
  }
  return out;
}

}  // namespace statera
