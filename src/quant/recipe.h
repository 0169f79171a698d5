// Step, Recipe, Method: how a quantization method attaches to the pipeline (quant/pipeline.h, the only driver).
// A recipe is a vector of steps; a method is a named recipe, one folder of methods/ each. Steps are thin: they fetch weights and
// statistics, call pure functions of their algo.h and hand results back. They never open, write or plan files.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "nn/pass.h"
#include "nn/qtensor.h"
#include "nn/site.h"
#include "nn/topology.h"
#include "nn/weight.h"

namespace statera {

class Model;
class Stack;
struct ScaleSet;  // scales_file.h

// What a step gathers at one linear layer while a block runs over the samples; it lives for one phase of one block.
class Accumulator {
 public:
  virtual ~Accumulator() = default;
  // As Tap::input: x rotated but not quantized.
  virtual void add(const at::Tensor& x_TK, const Pass& pass) = 0;
};

// Sums over one weight matrix: (dequantized - w)^2 and w^2.
struct RoundingError {
  double error = 0, weight = 0;
  // Frobenius norm of the error over that of the weight; 0 for an all-zero weight.
  double relative() const;
};
RoundingError rounding_error(const at::Tensor& W_NK, const QTensor& q);

// Squared error of a layer's output, summed over the calibration rows: of the result, of round-to-nearest instead, and of the output itself.
struct OutputLoss {
  double loss = 0, rtn = 0, output = 0;
};

// What a search chose for one group of a block.
struct ScaleRecord {
  std::string group;                 // ScaleGroup::name
  std::vector<std::string> readers;  // paths
  at::Tensor scale_C;                // f32, per produced channel; already or about to be folded
  double ratio = 0;                  // smoothquant: its alpha
  std::vector<double> losses = {};   // of every ratio tried, ratio 0 (round-to-nearest) first; empty: nothing was searched
  std::optional<double> rho = {};    // mbq: weight of vision beside answer tokens, floored
  at::Tensor mean_abs_K = {};        // f32, of the readers' input: what the candidates were made of; undefined: nothing was searched
};

// What a search for narrower ranges chose for one layer: of row n, group g magnitudes up to max|w| * (1 - shrink[n, g] / steps) are kept, w with
// the scales folded in.
struct ClipRecord {
  std::string layer;  // path
  at::Tensor shrink_NG;  // u8
  int64_t steps = 0;
};

// One phase of one block, as a step's apply sees it. Layers outside blocks (head; projectors) come as a block of their own with index -1, in one
// phase.
class BlockJob {
 public:
  virtual ~BlockJob() = default;
  virtual const std::string& name() const = 0;  // "model.layers.3"
  virtual const Stack* stack() const = 0;       // nullptr outside blocks
  virtual int64_t index() const = 0;
  // Of the block; empty outside blocks.
  virtual Topology topology() const = 0;
  // The layers of this phase that the user's selection quantizes. Their weights are dense: site.weight->dense() is [N, K].
  virtual std::span<const std::shared_ptr<LinearSite>> layers() const = 0;
  // What a layer's weight is to become: bits, group and symmetry may differ between layers.
  virtual const QSpec& spec(const LinearSite& site) const = 0;
  // Rows that the samples show to a layer of the block, in all; 0 without samples.
  virtual int64_t rows() const = 0;
  // What watch() returned for this layer, filled; nullptr when it returned nothing.
  virtual Accumulator* statistics(const LinearSite& site) = 0;
  // Runs the block as it stands over the samples once more; the accumulators see the inputs of their layers. rounded: on what the blocks before give as they
  // were rounded; original: on what they give unrounded, for steps that ask for it (Step::needs_original).
  enum class Inputs { rounded, original };
  virtual void observe(Inputs inputs, const std::map<const LinearSite*, Accumulator*>& into) = 0;
  // The layer is done: its QTensor is encoded and written, and serves the block's next run. Exactly once per layer. `error` is measured
  // when absent. NaN or zero scales are Error(bad_file) naming the layer.
  virtual void finish(const LinearSite& site, QTensor q, std::optional<RoundingError> error = {}) = 0;
  // What the rounding does to the layer's output on the calibration rows; reported, never acted upon. Before finish().
  virtual void measured(const LinearSite& site, const OutputLoss& loss) = 0;
  // Error(bad_file) naming file and tensor: this weight cannot be quantized.
  [[noreturn]] virtual void refuse(const LinearSite& site, std::string_view reason) const = 0;
  // Scales of a group, for the report and scales.safetensors. Told by fold_group().
  virtual void scaled(ScaleRecord record) = 0;
  // Ranges of a layer's weight, for scales.safetensors.
  virtual void clipped(ClipRecord record) = 0;
  // A parameter of this block that the checkpoint keeps floating gets another value (a norm that took up a scale): same shape, stored
  // in its old dtype. `name` is internal, with ".weight" or ".bias".
  virtual void rewrite(const std::string& name, const at::Tensor& value) = 0;
};

class Step {
 public:
  virtual ~Step() = default;
  // Whether it needs samples run through the model: watch() and the statistics of apply().
  virtual bool needs_data() const { return false; }
  // Whether it also looks at what unrounded blocks give (BlockJob::observe): the samples then run through the stack twice, side by side.
  virtual bool needs_original() const { return false; }
  // Whether apply() sees one phase of Topology::phases at a time, its inputs collected after the earlier phases were rounded; it then changes
  // nothing but the layers that it finishes. Otherwise it sees all layers of the block at once.
  virtual bool phased() const { return false; }
  // Whether all that apply() does is to choose scales and fold them (fold_group): then scales of an earlier run may take its place.
  virtual bool only_scales() const { return false; }
  // Once, before any block.
  virtual void before(Model& model) {}
  // Whether it needs the gradient of the loss on answer tokens at the outputs of layers: a pass over the samples before any block
  // (Calibrator::gradients).
  virtual bool needs_gradients() const { return false; }
  // What a gradient is reduced to, from several threads; then once per sample and residual writer (Topology), in the order of samples.
  virtual std::vector<double> measure_gradient(const LinearSite& site, const at::Tensor& G_TN, const Pass& pass) const { return {}; }
  // Of experts one that no token of the sample reached is left out.
  virtual void gradient(const LinearSite& site, size_t sample, const std::vector<double>& measured) {}
  // What that pass taught, kept so that a resumed run need not learn it again. take_learned() is called in every run before any block,
  // learned() only where the pass ran.
  virtual Json learned() const { return Json(); }
  virtual void take_learned(const Json& learned) {}
  // A block begins, before watch().
  virtual void begin(const BlockJob& job) {}
  // Called for every selected layer of a phase; nullptr: nothing to gather here.
  virtual std::unique_ptr<Accumulator> watch(const LinearSite& site) { return nullptr; }
  // Called for a layer that is not of the phase, but is the one reader of a group that sees all of its rows (ScaleGroup::whole).
  virtual std::unique_ptr<Accumulator> watch_whole(const LinearSite& site) { return nullptr; }
  virtual void apply(BlockJob& job) = 0;
  // After all blocks: what the user should know.
  virtual std::vector<std::string> notes() const { return {}; }
};

using Recipe = std::vector<std::unique_ptr<Step>>;

// How mbq judges and balances (methods/mbq, mbq.md 2.6 and 2.7).
struct MbqSettings {
  bool reweight = true;      // vision tokens count rho times, others that are no answer not at all; off: all tokens the same
  bool squared = false;      // mean squared error instead of mean absolute error
  bool own_mean = false;     // each modality normalised by its own count
  bool median_floor = true;  // no block's rho below the median of all
  bool distort = false;      // candidates run on what the rounded blocks before give, judged against the unrounded block on unrounded inputs
  bool tie_heads = false;    // scales between v and o under grouped-query attention, too: query heads that share a value head share its scales
};

// How awq searches (methods/awq).
struct AwqSettings {
  bool clip = false;       // a search for clipped ranges after the scales
  bool tie_heads = false;  // as mbq's
};

// How gptq rounds (methods/gptq/algo.h).
struct GptqSettings {
  bool act_order = false;  // columns in order of falling activation energy; grids stay those of the original groups
  double damp = 0.01;      // added to the gram's diagonal, a fraction of its mean
  bool clip = false;       // ranges by least error instead of the extremes
};

struct RecipeOptions {
  std::optional<ActQuant> act;
  uint64_t seed = 0;
  int64_t search_tokens = 4096;  // input rows that a searching step keeps per layer; 0: all
  int64_t data_tokens = 0;       // rows that will be shown
  double smooth_alpha = 0.5;     // smoothquant: 0 leaves activations as they are, 1 makes them even
  AwqSettings awq;
  GptqSettings gptq;
  MbqSettings mbq;
  const ScaleSet* stored = nullptr;  // what an earlier run chose is taken over
};

struct Method {
  const char* name;     // --method, the name of the folder
  const char* summary;  // one line
  Recipe (*make_steps)(const RecipeOptions& options);
  bool rounds = false;  // its steps finish layers; others only prepare them for a method that does
};

// Generated from the folders of src/quant/methods/.
std::span<const Method* const> methods();
// Error(usage) naming the nearest method when there is none of that name.
const Method& method_named(std::string_view name);
// Steps of methods in the order of their names joined by '+', "mbq+gptq"; round-to-nearest follows when none of them rounds. Error(usage):
// an unknown method, one named twice, two that round, one behind the rounding.
Recipe make_recipe(std::string_view methods, const RecipeOptions& options);
// The same checks; the names, the last of which rounds.
std::vector<std::string> recipe_methods(std::string_view methods);

}  // namespace statera
