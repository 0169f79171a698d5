// The gradient pass of the Calibrator: forward once without a graph, every block's input kept in a file; then backward from the last block
// to the first, each block run again with a graph of its own. What the loss says about the last hidden rows is written out by hand, a
// few rows and a slice of the vocabulary at a time, so that neither logits nor the head's weights are ever whole in fp32.
#include <ATen/ThreadLocalState.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <filesystem>
#include <map>
#include <mutex>

#include "base/error.h"
#include "base/threads.h"
#include "quant/calib/forward.h"

namespace statera {

struct Calibrator::Measured {
  const LinearSite* site;
  std::vector<double> values;
};

namespace {

// Keeps the outputs of some layers, with their gradients once backward() has run, and the pass of their rows (experts see some).
struct OutputKeeper : Tap {
  std::map<const LinearSite*, std::pair<at::Tensor, Pass>> outputs;  // undefined until seen
  void linear(const LinearSite& site, const at::Tensor&, const at::Tensor& y, const Pass& pass) override {
    auto it = outputs.find(&site);
    if (it == outputs.end()) return;
    y.retain_grad();
    it->second = {y, pass};
  }
};

// Rows whose next token is an answer, and that token. i64 [R] each
std::pair<at::Tensor, at::Tensor> predictors(const CalibSample& s) {
  const int64_t T = s.tokens();
  const at::Tensor rows = (s.answers_T.slice(0, 1, T) == 1).nonzero().squeeze(1);
  return {rows, at::index_select(s.ids_T, 0, rows + 1)};
}

// Gradient of the mean cross-entropy of labels under softmax(n W^T) with respect to n. n [R, H] f32, W [V, H]; -> [R, H]
at::Tensor loss_gradient(const Model& model, const Linear& head, const at::Tensor& n_RH, const at::Tensor& labels_R, const Pass& pass) {
  constexpr int64_t kRows = 64, kVocabulary = 8192;
  const at::Tensor W = head.site().weight->dense();
  const int64_t R = n_RH.size(0), V = W.size(0);
  at::Tensor out = at::zeros_like(n_RH);
  Pass plain = pass;
  plain.tap = nullptr;
  for (int64_t from = 0; from < R; from += kRows) {
    const int64_t to = std::min(R, from + kRows);
    at::Tensor d = at::softmax(model.language().head(n_RH.slice(0, from, to), plain), -1);
    check(d.size(1) == V, "the head gives as many logits as its weight has rows");
    const at::Tensor label = labels_R.slice(0, from, to).unsqueeze(1);
    d.scatter_add_(1, label, at::zeros_like(label, at::kFloat) - 1);
    d.div_(static_cast<double>(R));
    for (int64_t v = 0; v < V; v += kVocabulary) {
      const int64_t end = std::min(V, v + kVocabulary);
      out.slice(0, from, to).add_(at::matmul(d.slice(1, v, end), W.slice(0, v, end).to(at::kFloat)));
    }
  }
  return out;
}

}  // namespace

std::vector<Calibrator::Measured> Calibrator::differentiate(size_t i, const Measure& measure) const {
  const CalibSample& sample = data_.samples[i];
  const LanguageStack& stack = model_.language();
  const int64_t L = stack.blocks(), T = sample.tokens(), H = model_.limits().hidden_size;
  check_cancelled();
  Pass pass = pass_of(i);
  std::vector<TensorPlan> plans;
  for (int64_t l = 0; l < L; ++l) plans.push_back({std::to_string(l), model_.dtype, {T, H}});
  const ShardPlan::File planned{"gradient-" + std::to_string(i) + ".state", plan_file(plans, {})};
  struct Scratch {
    std::string path;
    ~Scratch() { std::error_code ec; std::filesystem::remove(path, ec); }
  } scratch{folder_ + "/" + planned.name};
  at::Tensor h = hidden(i);
  {
    at::NoGradGuard no_graph;
    ShardFile file(folder_, planned);
    for (int64_t l = 0; l < L; ++l) {
      file.write(std::to_string(l), h);
      h = stack.block(l, h, pass);
      if (through_) through(of_block_[static_cast<size_t>(l)]);
    }
  }
  at::AutoGradMode graphs(true);
  auto leaf = [](const at::Tensor& t) { return t.detach().clone().requires_grad_(true); };
  const auto [rows, labels] = predictors(sample);
  at::Tensor last = leaf(h), g;
  {
    const at::Tensor n = at::index_select(stack.leave(last, pass), 0, rows).to(at::kFloat);
    at::Tensor gn;
    {
      at::NoGradGuard no_graph;
      gn = loss_gradient(model_, model_.residual_ends().head, n.detach(), labels, pass);
    }
    n.backward(gn);
    g = last.grad();
  }
  const SafetensorsFile states(scratch.path);
  std::vector<Measured> out;
  for (int64_t l = L - 1; l >= 0; --l) {
    OutputKeeper keeper;
    const Topology topology = stack.topology(l);
    for (const Linear& writer : topology.residual_writers) keeper.outputs[&writer.site()];
    pass.tap = &keeper;
    const TensorInfo& info = *states.find(std::to_string(l));
    const at::Tensor in = leaf(states.tensor(info));
    states.release(info);
    stack.block(l, in, pass).backward(g);
    for (const Linear& writer : topology.residual_writers) {
      const auto& [y, rows] = keeper.outputs.at(&writer.site());
      if (y.defined() && y.grad().defined()) out.push_back({&writer.site(), measure(writer.site(), y.grad(), rows)});
    }
    g = in.grad();
    if (through_) through(of_block_[static_cast<size_t>(l)]);
  }
  return out;
}

int64_t Calibrator::gradients(const Measure& measure, const Take& take, const ProgressSink& sink) const {
  check(at_ == 0, "gradients are taken before any block is rounded");
  std::vector<size_t> chosen;
  for (size_t i = 0; i < data_.samples.size(); ++i) {
    const CalibSample& s = data_.samples[i];
    // The first token is predicted by none.
    if (s.kinds_T.sum().item<int64_t>() > 0 && s.answers_T.slice(0, 1, s.tokens()).sum().item<int64_t>() > 0) chosen.push_back(i);
  }
  Progress progress("sensitivities", static_cast<double>(chosen.size()), "samples", sink);
  std::vector<std::vector<Measured>> results(chosen.size());
  std::mutex lock;
  at::ThreadLocalState state;
  parallel_for(static_cast<int64_t>(chosen.size()), 1, [&](int64_t begin, int64_t end) {
    at::ThreadLocalStateGuard same(state);
    for (int64_t c = begin; c < end; ++c) {
      const size_t i = chosen[static_cast<size_t>(c)];
      results[static_cast<size_t>(c)] = differentiate(i, measure);
      const std::lock_guard hold(lock);
      progress.advance(1, data_.samples[i].where);
    }
  });
  progress.finish();
  for (size_t c = 0; c < results.size(); ++c) {
    for (const Measured& m : results[c]) take(*m.site, chosen[c], m.values);
  }
  return static_cast<int64_t>(chosen.size());
}

}  // namespace statera
