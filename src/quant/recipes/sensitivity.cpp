// One pass over the weights, every candidate of a layer while its pages are there.
#include "quant/recipes/sensitivity.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "base/error.h"
#include "base/threads.h"
#include "quant/calib/block_runs.h"
#include "quant/calib/forward.h"
#include "quant/recipes/bit_budget.h"
#include "quant/recipes/trial.h"

namespace statera {
namespace {

// Sums of squares of the energy-weighted columns, in pieces that do not depend on the number of threads.
double weighted_square(const at::Tensor& D_NK, const at::Tensor& energy_K) {
  constexpr int64_t kRows = 64;
  const int64_t N = D_NK.size(0), chunks = (N + kRows - 1) / kRows;
  std::vector<double> parts(static_cast<size_t>(chunks));
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const at::Tensor rows = D_NK.slice(0, c * kRows, std::min(N, (c + 1) * kRows)).to(at::kDouble);
      parts[static_cast<size_t>(c)] = (at::sum(rows * rows, {0}) * energy_K).sum().item<double>();
    }
  });
  double sum = 0;
  for (double part : parts) sum += part;
  return sum;
}

// Sums of squares of what the layers read, by channel.
class Energies {
 public:
  void add(const LinearSite& site, const at::Tensor& x) {
    const at::Tensor wide = x.to(at::kDouble);
    const at::Tensor sum = at::sum(wide * wide, {0});
    auto& [total, rows] = sums_[&site];
    total = total.defined() ? total + sum : sum;
    rows += x.size(0);
  }
  InputEnergies result() const {
    InputEnergies out;
    for (const auto& [site, sum] : sums_) out[site] = sum.first / static_cast<double>(sum.second);
    return out;
  }

 private:
  std::map<const LinearSite*, std::pair<at::Tensor, int64_t>> sums_;
};

class Chooser {
 public:
  Chooser(const CheckpointSource& source, const std::vector<LayerChoice>& layers, const PlanOptions& options)
      : source_(source), layers_(layers), options_(options), format_(format_named(options.format)) {}

  BitChoice choose(double target_bits, const InputEnergies& energies, const ProgressSink& sink, const std::atomic<bool>* cancel) {
    gather(sink, energies, cancel);
    uint64_t least = fixed_bytes_;
    for (const BitLevels& levels : levels_) least += levels[0].bytes;
    out_.budget = static_cast<uint64_t>(std::floor(target_bits * static_cast<double>(weights_) / 8));
    if (least > out_.budget) {
      throw Error(ErrorKind::usage, fmt::format("--target-bits {}: scales and zero points included, no less than {:.3f} bits per weight are possible "
                                                "here (larger groups take fewer)", target_bits, 8.0 * static_cast<double>(least) / static_cast<double>(weights_)));
    }
    const std::vector<size_t> chosen = spend_bits(levels_, out_.budget - fixed_bytes_);
    out_.bytes = fixed_bytes_;
    out_.weighted = !energies.empty();
    for (size_t s = 0; s < chosen.size(); ++s) {
      const BitLevel& level = levels_[s][chosen[s]];
      out_.sets[s].bits = level.bits;
      out_.sets[s].bytes = level.bytes;
      out_.bytes += level.bytes;
      for (const std::string& layer : out_.sets[s].layers) out_.bits[layer] = level.bits;
    }
    return std::move(out_);
  }

 private:
  void gather(const ProgressSink& sink, const InputEnergies& energies, const std::atomic<bool>* cancel) {
    std::vector<LayerChoice> open;
    double bytes = 0;
    for (const LayerChoice& l : layers_) {
      if (!l.quantized) continue;
      weights_ += l.site->out * l.site->in;
      if (l.own_bits) {
        fixed_bytes_ += stored_bytes(l, l.spec.bits);
      } else {
        open.push_back(l);
        bytes += static_cast<double>(l.site->out * l.site->in);
      }
    }
    if (open.empty()) throw Error(ErrorKind::usage, "--target-bits: overrides fix the bits of every layer");
    Progress progress("sensitivity", bytes, "weights", sink);
    for (const std::vector<size_t>& set : fused_sets(open)) {
      BitLevels levels;
      for (int bits : kBitChoices) levels.push_back({bits, 0, 0});
      BitChoice::Set names;
      int64_t weights = 0;
      for (size_t i : set) {
        if (cancel && cancel->load()) throw Error(ErrorKind::interrupted, "stopped while measuring " + open[i].disk_path);
        names.layers.push_back(open[i].disk_path);
        weights += open[i].site->out * open[i].site->in;
        add_layer(open[i], energies, levels);
        progress.advance(static_cast<double>(open[i].site->out * open[i].site->in), open[i].disk_path);
      }
      for (const BitLevel& level : levels) names.errors.push_back(level.error / static_cast<double>(weights));
      out_.sets.push_back(std::move(names));
      levels_.push_back(std::move(levels));
    }
    progress.finish();
  }

  void add_layer(const LayerChoice& layer, const InputEnergies& energies, BitLevels& levels) const {
    const at::Tensor W = layer.site->weight->dense().contiguous();
    auto energy = energies.find(layer.site.get());
    const double weights = static_cast<double>(W.numel());
    for (BitLevel& level : levels) {
      QSpec spec = layer.spec;
      spec.bits = level.bits;
      const Trial r = round_to_nearest(layer.site, spec, source_.checkpoint().place(source_.stored_tensor(*layer.site)));
      double error = r.error.error, whole = r.error.weight;
      if (energy != energies.end()) {
        const at::Tensor wide = W.to(at::kFloat);
        error = weighted_square(r.q.dequantize() - wide, energy->second);
        whole = weighted_square(wide, energy->second);
      }
      level.error += whole > 0 ? weights * error / whole : 0;
      level.bytes += stored_bytes(layer, level.bits);
    }
    source_.release(*layer.site);
  }

  uint64_t stored_bytes(const LayerChoice& layer, int bits) const {
    const std::string tensor = source_.stored_tensor(*layer.site);
    const TensorInfo* info = source_.checkpoint().find(tensor);
    if (!info) throw Error(ErrorKind::bad_file, source_.checkpoint().place(tensor) + ": missing");
    StoredLinear l{layer.disk_path, layer.site->out, layer.site->in, layer.spec, options_.act, info->dtype};
    l.spec.bits = bits;
    uint64_t bytes = 0;
    for (const TensorPlan& t : format_.plan(l)) bytes += t.bytes();
    return bytes;
  }

  const CheckpointSource& source_;
  const std::vector<LayerChoice>& layers_;
  const PlanOptions& options_;
  const Format& format_;
  int64_t weights_ = 0;
  uint64_t fixed_bytes_ = 0;
  std::vector<BitLevels> levels_;
  BitChoice out_;
};

}  // namespace

InputEnergies measure_energies(const Model& model, const std::vector<LayerChoice>& layers, Calibrator& calibrator, const ProgressSink& sink) {
  calibrator.start(0, sink);
  Energies energies;
  const Stack& stack = model.language();
  for (int64_t block = 0; block < stack.blocks(); ++block) {
    std::vector<const LinearSite*> wanted;
    for (const LayerChoice& l : layers) {
      if (l.quantized && l.site->block == block && l.site->role != Role::vision && l.site->role != Role::projector) wanted.push_back(l.site.get());
    }
    BlockRuns runs(calibrator, block, {});
    if (!wanted.empty()) runs.observe(wanted, [&](const LinearSite& site, const at::Tensor& x, const Pass&) { energies.add(site, x); });
    if (block + 1 < stack.blocks()) runs.advance();
    calibrator.forget_before(block);
  }
  calibrator.remove_files();
  return energies.result();
}

BitChoice choose_bits(const CheckpointSource& source, const std::vector<LayerChoice>& layers, const PlanOptions& options, double target_bits,
                      const InputEnergies& energies, const ProgressSink& sink, const std::atomic<bool>* cancel) {
  if (!(target_bits > 0 && target_bits <= 16)) throw Error(ErrorKind::usage, "--target-bits must be between 0 and 16");
  if (options.act) throw Error(ErrorKind::usage, "--target-bits: beside 8-bit activations the codes of any number of bits take a byte each");
  return Chooser(source, layers, options).choose(target_bits, energies, sink, cancel);
}

Json BitChoice::to_json() const {
  Json j = Json::object(), list = Json::array();
  j.set("budget_bytes", budget);
  j.set("bytes", bytes);
  j.set("weighted_by_data", weighted);
  for (const Set& set : sets) {
    Json one = Json::object(), errors = Json::object();
    one.set("layers", Json(set.layers));
    one.set("bits", set.bits);
    one.set("bytes", set.bytes);
    for (size_t i = 0; i < set.errors.size(); ++i) errors.set(std::to_string(kBitChoices[i]), set.errors[i]);
    one.set("relative_errors", std::move(errors));
    list.push(std::move(one));
  }
  j.set("sets", std::move(list));
  return j;
}

}  // namespace statera
