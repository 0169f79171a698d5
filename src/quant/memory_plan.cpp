// Sums over the layers of the fullest block.
#include "quant/memory_plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "base/heap.h"
#include "base/threads.h"
#include "kernels/gram/gram.h"
#include "nn/buffers.h"
#include "nn/model.h"
#include "quant/calib/sample.h"
#include "quant/evidence.h"

namespace statera {
namespace {

constexpr uint64_t kBaseRam = 256u << 20;  // program, LibTorch and bookkeeping

// Of the experts of a block.
struct ExpertShare {
  int64_t grams = 0;  // elements of the grams and their chunks of rows that are gathered at once: before their down_proj, or behind
  double row = 0;     // what they read and write of one row of the block
};

ExpertShare expert_share(const OutputPlan& plan, const UnitPlan& unit) {
  ExpertShare out;
  std::set<std::pair<std::string, int64_t>> inputs;  // layers of an expert that read the same input have one gram
  std::map<int64_t, int64_t> by_width;
  for (size_t i : unit.layers) {
    const LayerPlan& l = plan.layers[i];
    if (l.site->role != Role::expert) continue;
    out.row += l.site->row_share * static_cast<double>(l.stored.in + l.stored.out);
    if (inputs.emplace(l.site->path.substr(0, l.site->path.rfind('.')), l.stored.in).second) by_width[l.stored.in] += l.stored.in * l.stored.in + kernels::gram::packed_size(l.stored.in);
  }
  for (const auto& [width, elements] : by_width) out.grams = std::max(out.grams, elements);
  return out;
}

// Pages of the head, which gradients and the load test read whole; a tied one is the embedding.
uint64_t head_bytes(const Model& model) {
  int64_t most = 0;
  for (const auto& [path, site] : model.params.linears) {
    if (site->role == Role::head) most = std::max(most, site->weight ? site->weight->bytes() : 4 * site->out * site->in);
  }
  for (const auto& [path, site] : model.params.tensors) {
    if (site->role == Role::embedding && site->value.defined()) most = std::max(most, static_cast<int64_t>(site->value.nbytes()));
  }
  return static_cast<uint64_t>(most);
}

// Pages of the tower, which a picture passes through as a whole.
uint64_t tower_bytes(const Model& model) {
  uint64_t sum = 0;
  for (const auto& [path, site] : model.params.linears) {
    const bool tower = site->role == Role::vision || site->role == Role::projector;
    if (tower) sum += static_cast<uint64_t>(site->weight ? site->weight->bytes() : 4 * site->out * site->in);
  }
  return sum;
}

}  // namespace

CalibrationRam calibration_ram(const OutputPlan& plan, const Model& model, const QuantizeSettings& s, const Recipe& recipe) {
  const CalibData& data = *s.data;
  int64_t weights = 0, width = 0, widest = 0, inputs = 0, activations = 0, grams = 0;
  for (const UnitPlan& unit : plan.units) {
    int64_t sum = 0, both = 0;
    double read = 0;
    const bool head = !unit.vision && unit.block < 0;
    for (size_t i : unit.layers) {
      const StoredLinear& l = plan.layers[i].stored;
      sum += l.out * l.in;
      read += plan.layers[i].site->row_share * static_cast<double>(l.in);
      width = std::max(width, l.in);
      both = std::max(both, l.in + (head ? 0 : l.out));  // logits are made a few rows at a time
    }
    const ExpertShare experts = expert_share(plan, unit);
    grams = std::max(grams, experts.grams);
    weights = std::max(weights, sum);
    inputs = std::max(inputs, static_cast<int64_t>(read));
    widest = std::max(widest, both);
    activations = std::max(activations, (unit.vision ? data.most_patches : data.summary.longest) * (8 * both + static_cast<int64_t>(experts.row)));
  }
  const int64_t rows = std::min(2 * Evidence::kRowsPerKind, data.summary.tokens);
  const bool twice = std::any_of(recipe.begin(), recipe.end(), [](const auto& step) { return step->needs_original(); });
  const bool searches = std::any_of(recipe.begin(), recipe.end(), [](const auto& step) { return step->needs_data() && step->only_scales(); });
  const int64_t kept = s.search_tokens > 0 ? std::min(data.summary.tokens, s.search_tokens) : data.summary.tokens;
  const int64_t search = (searches ? kept * (inputs + 2 * widest) * 4 : 0) + (twice ? weights * 9 + kept * inputs * 4 : 0);
  CalibrationRam ram;
  ram.run = static_cast<uint64_t>(activations) * 4 + static_cast<uint64_t>(data.most_patches) * 4 * 32768;
  ram.least = static_cast<uint64_t>(search + weights * 5 + (s.gptq.act_order ? 4 : 2) * width * (width + 1024) * 4 +
                                    rows * (inputs + 4 * widest) * 4 + grams * 4) + ram.run + kKeptBuffers + head_bytes(model);
  if (data.most_patches > 0) ram.least = std::max(ram.least, tower_bytes(model) + ram.run + kKeptBuffers);  // before any block is searched
  for (size_t i = 0; i < data.samples.size(); ++i)
    ram.waiting += BlockRuns::bytes_of(std::max(data.samples[i].tokens(), data.samples[i].patches), model.limits().hidden_size, width);
  return ram;
}

RunMemory run_memory(const CalibrationRam& ram, uint64_t needed, uint64_t max_ram) {
  uint64_t spare = max_ram ? (max_ram > needed ? max_ram - needed : 0) : memory_of_machine() / 4;
  const uint64_t beside = ram.run * static_cast<uint64_t>(num_threads() - 1);
  RunMemory out;
  out.side_by_side = beside <= spare / 2;
  if (out.side_by_side) spare -= beside;
  out.waiting = std::min(spare, ram.waiting);
  return out;
}

uint64_t rounding_ram(const OutputPlan& plan) {
  uint64_t layer = 0;
  for (const LayerPlan& l : plan.layers) {
    uint64_t encoded = 0;
    for (const TensorPlan& t : l.tensors) encoded += t.bytes();
    layer = std::max(layer, l.source_bytes() + static_cast<uint64_t>(l.stored.out * l.stored.in) + 2 * encoded);
  }
  return kBaseRam + layer;
}

}  // namespace statera
