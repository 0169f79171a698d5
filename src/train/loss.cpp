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
#include "train/lora.h"

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
    add(part);
  }
  // A scalar; undefined: nothing.
  void add(const at::Tensor& part) {
    if (part.defined()) sum_ = sum_.defined() ? sum_ + part : part;
  }
  void backward() {
    if (sum_.defined()) sum_.backward();
  }

 private:
  at::Tensor sum_;
};

// The router losses of one pass, weighted by its share of the step.
class Routers {
 public:
  Routers(const TrainBatch& batch, const LossOptions& o)
      : on_(o.routers.any()), share_(static_cast<double>(batch.inputs.input_ids.size(0)) / o.tokens), weights_{o.routers.aux * share_, o.routers.z * share_} {}
  Tap* tap() { return on_ ? &heard_ : nullptr; }
  // All blocks have run.
  void settle() {
    const RouterLoss all = heard_.settle();
    losses_ = {all.aux * share_, all.z * share_};
  }
  const RouterLoss& losses() const { return losses_; }
  at::Tensor term() { return on_ ? heard_.term(weights_) : at::Tensor(); }

 private:
  bool on_;
  double share_;
  RouterLoss weights_, losses_;
  RouterLosses heard_;
};

// The blocks of a stack without a graph, and block by block with one when going back.
class Replayed {
 public:
  Replayed(const Stack& stack, Pass pass, BlockWatch* watch, Routers* routers) : stack_(stack), pass_(std::move(pass)), watch_(watch), routers_(routers) {}
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
    if (routers_) roots.add(routers_->term());
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
  Routers* routers_;
  std::vector<at::Tensor> inputs_;
};

void pass_by_blocks(const Stack& stack, BlockWatch& watch, bool backward) {
  for (int64_t k = 0; k < stack.blocks(); ++k) {
    const int64_t i = backward ? stack.blocks() - 1 - k : k;
    watch.before(stack, i, backward);
    watch.after(stack, i, backward);
  }
}

// Cross-entropies of the rows, a few at a time: logits are wide. With `labels` > 0 their gradients go to the head's leaves and n_RH's.
double head_loss(const Model& model, const at::Tensor& n_RH, const at::Tensor& targets_R, const Pass& pass, double labels) {
  const int64_t R = n_RH.size(0), step = std::max<int64_t>(1, kLogits / std::max<int64_t>(1, model.limits().vocab_size));
  Adapter* adapter = model.residual_ends().head.site().adapter.get();
  double sum = 0;
  for (int64_t from = 0; from < R; from += step) {
    const int64_t to = std::min(R, from + step);
    if (adapter && from > 0) ++adapter->draw;  // other rows, another mask
    at::Tensor logits = model.language().head(n_RH.slice(0, from, to), pass);
    at::Tensor loss = at::cross_entropy_loss(logits, targets_R.slice(0, from, to), {}, at::Reduction::Sum);
    sum += loss.item<double>();
    if (labels > 0 && loss.requires_grad()) (loss / labels).backward();
  }
  return sum;
}

// Images and then videos into a tower.
at::Tensor enter_tower(const VisionStack& stack, const ModelInputs& in, Pass& pass) {
  std::vector<at::Tensor> pixels;
  for (const at::Tensor& t : {in.pixel_values, in.pixel_values_videos}) {
    if (t.defined()) pixels.push_back(t);
  }
  std::vector<Grid> grids = in.image_grid_thw;
  grids.insert(grids.end(), in.video_grid_thw.begin(), in.video_grid_thw.end());
  return stack.enter(at::cat(pixels), grids, pass);
}

// One tower run over images and then videos, replayed when going back.
class Tower {
 public:
  Tower(const Model& model, const ModelInputs& in, BlockWatch* watch) : model_(model), stack_(*model.vision()) {
    Pass pass;
    entered_ = enter_tower(stack_, in, pass);
    replayed_.emplace(stack_, pass, watch, nullptr);
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

// forward_hidden, with images and videos in one run of the tower as Tower has them: rows keep their places and so their dropout.
at::Tensor hidden_rows(const Model& model, ModelInputs& in, Pass& pass) {
  if (!model.vision() || !in.pixel_values.defined() || !in.pixel_values_videos.defined()) return forward_hidden(model, in, pass);
  const VisionStack& tower = *model.vision();
  Pass seen;
  const at::Tensor entered = enter_tower(tower, in, seen), last = run_blocks(tower, entered, seen);
  const VisualFeatures features = model.arrange(in.input_ids, tower.leave(last, seen));
  return model.language().leave(run_blocks(model.language(), model.language().enter(in.input_ids, &features, pass), pass), pass);
}

double whole(const Model& model, const TrainBatch& batch, ModelInputs& in, Pass& pass, double labels, Routers& routers) {
  const at::Tensor n = at::index_select(hidden_rows(model, in, pass), 0, batch.rows_R);
  routers.settle();
  const at::Tensor n_leaf = leaf_of(n, n.requires_grad());
  const double sum = head_loss(model, n_leaf, batch.targets_R, pass, labels);
  Roots roots;
  roots.add(n, n_leaf.grad());
  roots.add(routers.term());
  roots.backward();
  return sum;
}

// labels 0: the loss alone.
double replayed(const Model& model, const TrainBatch& batch, ModelInputs& in, Pass& pass, double labels, const BlockRuns& runs, Routers* routers) {
  const LanguageStack& stack = model.language();
  std::optional<Tower> tower;
  if (sees(in)) {
    if (!model.vision()) throw Error(ErrorKind::usage, "this model reads text only; it cannot be given pixel values");
    tower.emplace(model, in, runs.watch);
  } else if (runs.watch && runs.vision) {
    pass_by_blocks(*model.vision(), *runs.watch, false);
  }
  const at::Tensor entered = stack.enter(in.input_ids, tower ? &tower->given() : nullptr, pass);
  Replayed blocks(stack, pass, runs.watch, routers);
  const at::Tensor last = leaf_of(blocks.forward(entered.detach()));
  if (routers) routers->settle();
  const at::Tensor n = at::index_select(stack.leave(last, pass), 0, batch.rows_R);
  const at::Tensor n_leaf = leaf_of(n);
  const double sum = head_loss(model, n_leaf, batch.targets_R, pass, labels);
  if (labels == 0) return sum;
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
  if (runs.watch) return replayed(model, batch, in, pass, 0, runs, nullptr);
  const at::Tensor n = at::index_select(forward_hidden(model, in, pass), 0, batch.rows_R);
  return head_loss(model, n, batch.targets_R, pass, 0);
}

PassLoss backpropagate(const Model& model, const TrainBatch& batch, const LossOptions& o) {
  PassLoss out;
  if (batch.rows_R.size(0) == 0) {
    if (o.runs.watch) pass_by(model, o.runs, true);
    return out;
  }
  at::AutoGradMode graphs(true);
  const DropoutScope dropping(model, o.dropout, o.draw);
  Routers routers(batch, o);
  ModelInputs in = batch.inputs;
  Pass pass = make_pass(model, in);
  pass.training = true;
  pass.tap = routers.tap();
  out.sum = o.runs.checkpointing || o.runs.watch ? replayed(model, batch, in, pass, o.labels, o.runs, &routers) : whole(model, batch, in, pass, o.labels, routers);
  out.routers = routers.losses();
  return out;
}

}  // namespace statera
