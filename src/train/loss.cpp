// Forward and backward over the two stacks. Shapes: T rows, R rows that predict, H hidden, V vocabulary.
#include "train/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "base/error.h"

namespace statera {
namespace {

constexpr int64_t kLogits = int64_t{1} << 23;  // logits that exist at a time, elements

at::Tensor leaf_of(const at::Tensor& x, bool needed = true) { return x.detach().requires_grad_(needed); }

// Backward from several tensors at once, each with its gradient; those that need none are left out.
class Roots {
 public:
  void add(const at::Tensor& x, const at::Tensor& g) {
    if (!x.requires_grad() || !g.defined()) return;
    at::Tensor part = at::dot(x.reshape({-1}), g.reshape({-1}).to(x.scalar_type()));
    sum_ = sum_.defined() ? sum_ + part : part;
  }
  void backward() {
    if (sum_.defined()) sum_.backward();
  }

 private:
  at::Tensor sum_;
};

// The blocks of a stack without a graph, and block by block with one when going back.
class Replayed {
 public:
  Replayed(const Stack& stack, Pass pass, BlockWatch* watch) : stack_(stack), pass_(std::move(pass)), watch_(watch) {}
  at::Tensor forward(at::Tensor h) {
    at::NoGradGuard no_graph;
    for (int64_t i = 0; i < stack_.blocks(); ++i) {
      inputs_.push_back(h);
      if (watch_) watch_->before(stack_, i, false);
      h = stack_.block(i, h, pass_);
      if (watch_) watch_->after(stack_, i, false);
    }
    return h;
  }
  // g: gradient of the last output; taps: of what the blocks tapped. Returns the gradient of the first input.
  at::Tensor backward(at::Tensor g, std::vector<at::Tensor> taps) {
    for (int64_t i = stack_.blocks() - 1; i >= 0; --i) {
      if (watch_) watch_->before(stack_, i, true);
      g = block_backward(i, g, taps);
      if (watch_) watch_->after(stack_, i, true);
    }
    return g;
  }

 private:
  at::Tensor block_backward(int64_t i, const at::Tensor& g, std::vector<at::Tensor>& taps) {
    const at::Tensor in = leaf_of(inputs_.back());
    inputs_.pop_back();
    Pass pass = pass_;
    const size_t before = untapped(pass);
    const at::Tensor out = stack_.block(i, in, pass);
    Roots roots;
    roots.add(out, g);
    for (size_t t = pass.side->deepstack_VH.size(); t > before && !taps.empty(); --t) {
      roots.add(pass.side->deepstack_VH[t - 1], taps.back());
      taps.pop_back();
    }
    roots.backward();
    return in.grad().defined() ? in.grad() : at::zeros_like(in);
  }
  // A tower's taps are gathered anew; what a language stack is given stays.
  size_t untapped(Pass& pass) const {
    pass.side = std::make_shared<Side>(*pass.side);
    if (dynamic_cast<const VisionStack*>(&stack_)) pass.side->deepstack_VH.clear();
    return pass.side->deepstack_VH.size();
  }
  const Stack& stack_;
  Pass pass_;
  BlockWatch* watch_;
  std::vector<at::Tensor> inputs_;
};

void pass_by_blocks(const Stack& stack, BlockWatch& watch, bool backward) {
  for (int64_t k = 0; k < stack.blocks(); ++k) {
    const int64_t i = backward ? stack.blocks() - 1 - k : k;
    watch.before(stack, i, backward);
    watch.after(stack, i, backward);
  }
}

// Cross-entropies of the rows, a few at a time: logits are wide. With `tokens` > 0 their gradients go to the head's leaves and n_RH's.
double head_loss(const Model& model, const at::Tensor& n_RH, const at::Tensor& targets_R, const Pass& pass, double tokens) {
  const int64_t R = n_RH.size(0), step = std::max<int64_t>(1, kLogits / std::max<int64_t>(1, model.limits().vocab_size));
  double sum = 0;
  for (int64_t from = 0; from < R; from += step) {
    const int64_t to = std::min(R, from + step);
    at::Tensor logits = model.language().head(n_RH.slice(0, from, to), pass);
    at::Tensor loss = at::cross_entropy_loss(logits, targets_R.slice(0, from, to), {}, at::Reduction::Sum);
    sum += loss.item<double>();
    if (tokens > 0 && loss.requires_grad()) (loss / tokens).backward();
  }
  return sum;
}

// One tower run over images and then videos, replayed when going back.
class Tower {
 public:
  Tower(const Model& model, const ModelInputs& in, BlockWatch* watch) : model_(model), stack_(*model.vision()) {
    std::vector<at::Tensor> pixels;
    for (const at::Tensor& t : {in.pixel_values, in.pixel_values_videos}) {
      if (t.defined()) pixels.push_back(t);
    }
    std::vector<Grid> grids = in.image_grid_thw;
    grids.insert(grids.end(), in.video_grid_thw.begin(), in.video_grid_thw.end());
    Pass pass;
    entered_ = stack_.enter(at::cat(pixels), grids, pass);
    replayed_.emplace(stack_, pass, watch);
    last_ = leaf_of(replayed_->forward(entered_.detach()));
    for (at::Tensor& tap : pass.side->deepstack_VH) taps_.push_back(tap = leaf_of(tap));
    features_ = model.arrange(in.input_ids, stack_.leave(last_, pass));
    given_.rows_VH = leaf_of(features_.rows_VH);
    for (const at::Tensor& x : features_.deepstack_VH) given_.deepstack_VH.push_back(leaf_of(x));
  }
  // Leaves that the language stack is entered with.
  const VisualFeatures& given() const { return given_; }
  void backward() {
    Roots roots;
    roots.add(features_.rows_VH, given_.rows_VH.grad());
    for (size_t j = 0; j < given_.deepstack_VH.size(); ++j) roots.add(features_.deepstack_VH[j], given_.deepstack_VH[j].grad());
    roots.backward();
    std::vector<at::Tensor> taps;
    for (const at::Tensor& t : taps_) taps.push_back(t.grad().defined() ? t.grad() : at::zeros_like(t));
    const at::Tensor g = replayed_->backward(last_.grad().defined() ? last_.grad() : at::zeros_like(last_), taps);
    if (entered_.requires_grad()) entered_.backward(g);
  }

 private:
  const Model& model_;
  const VisionStack& stack_;
  at::Tensor entered_, last_;
  std::optional<Replayed> replayed_;
  std::vector<at::Tensor> taps_;
  VisualFeatures features_, given_;
};

bool sees(const ModelInputs& in) { return in.pixel_values.defined() || in.pixel_values_videos.defined(); }

// tokens 0: the loss alone.
double replayed(const Model& model, const TrainBatch& batch, ModelInputs& in, Pass& pass, double tokens, const BlockRuns& runs) {
  const LanguageStack& stack = model.language();
  std::optional<Tower> tower;
  if (sees(in)) {
    if (!model.vision()) throw Error(ErrorKind::usage, "this model reads text only; it cannot be given pixel values");
    tower.emplace(model, in, runs.watch);
  } else if (runs.watch && runs.vision) {
    pass_by_blocks(*model.vision(), *runs.watch, false);
  }
  const at::Tensor entered = stack.enter(in.input_ids, tower ? &tower->given() : nullptr, pass);
  Replayed blocks(stack, pass, runs.watch);
  const at::Tensor last = leaf_of(blocks.forward(entered.detach()));
  const at::Tensor n = at::index_select(stack.leave(last, pass), 0, batch.rows_R);
  const at::Tensor n_leaf = leaf_of(n);
  const double sum = head_loss(model, n_leaf, batch.targets_R, pass, tokens);
  if (tokens == 0) return sum;
  n.backward(n_leaf.grad());
  const at::Tensor g = blocks.backward(last.grad(), {});
  if (entered.requires_grad()) entered.backward(g);
  if (tower) tower->backward();
  else if (runs.watch && runs.vision) pass_by_blocks(*model.vision(), *runs.watch, true);
  return sum;
}

}  // namespace

void pass_by(const Model& model, const BlockRuns& runs, bool backward) {
  check(runs.watch != nullptr, "a watch to tell");
  if (runs.vision) pass_by_blocks(*model.vision(), *runs.watch, false);
  pass_by_blocks(model.language(), *runs.watch, false);
  if (!backward) return;
  pass_by_blocks(model.language(), *runs.watch, true);
  if (runs.vision) pass_by_blocks(*model.vision(), *runs.watch, true);
}

double loss_sum(const Model& model, const TrainBatch& batch, const BlockRuns& runs) {
  at::NoGradGuard no_graph;
  ModelInputs in = batch.inputs;
  Pass pass = make_pass(model, in);
  if (runs.watch) return replayed(model, batch, in, pass, 0, runs);
  const at::Tensor n = at::index_select(forward_hidden(model, in, pass), 0, batch.rows_R);
  return head_loss(model, n, batch.targets_R, pass, 0);
}

double backpropagate(const Model& model, const TrainBatch& batch, double tokens, const BlockRuns& runs) {
  if (batch.rows_R.size(0) == 0) {
    if (runs.watch) pass_by(model, runs, true);
    return 0;
  }
  at::AutoGradMode graphs(true);
  ModelInputs in = batch.inputs;
  Pass pass = make_pass(model, in);
  pass.training = true;
  if (runs.checkpointing || runs.watch) return replayed(model, batch, in, pass, tokens, runs);
  const at::Tensor n = at::index_select(forward_hidden(model, in, pass), 0, batch.rows_R);
  const at::Tensor n_leaf = leaf_of(n, n.requires_grad());
  const double sum = head_loss(model, n_leaf, batch.targets_R, pass, tokens);
  if (n.requires_grad()) n.backward(n_leaf.grad());
  return sum;
}

}  // namespace statera
