// Experts against the definition, one token and expert at a time; what a tap is told; gradients; threads.
#include "nn/moe.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "base/threads.h"

namespace statera {
namespace {

constexpr int64_t kH = 24, kI = 20, kE = 8, kK = 3;

class RandomSource : public ShapesOnly {
 public:
  explicit RandomSource(bool leaves) : leaves_(leaves) {}
  Weight linear(const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>&) override {
    return make_dense(weights[path] = at::randn({out, in}).mul_(0.3).requires_grad_(leaves_));
  }
  std::map<std::string, at::Tensor> weights;

 private:
  bool leaves_;
};

struct Block {
  explicit Block(bool normalise, int64_t shared = 0, bool leaves = false) : source(leaves), normalised(normalise) {
    MoeConfig c;
    c.hidden_size = kH;
    c.num_experts = kE;
    c.num_experts_per_tok = kK;
    c.moe_intermediate_size = kI;
    c.norm_topk_prob = normalise;
    c.shared_expert_intermediate_size = shared;
    moe = Moe(Scope(source, params) / "mlp", c);
  }
  const at::Tensor& W(const std::string& name) const { return source.weights.at("mlp." + name); }
  at::Tensor mlp(const std::string& name, const at::Tensor& x) const {
    return at::linear(at::silu(at::linear(x, W(name + ".gate_proj"))) * at::linear(x, W(name + ".up_proj")), W(name + ".down_proj"));
  }
  // The definition: every expert on every token, weighed by what the router gives it there, which is mostly nothing.
  at::Tensor plain(const at::Tensor& x) const {
    const at::Tensor probs = at::softmax(at::linear(x, W("gate")), -1);
    auto [top, chosen] = at::topk(probs.detach(), kK, -1);
    const at::Tensor mask = at::zeros(probs.sizes()).scatter_(1, chosen, 1.0);
    at::Tensor weight = probs * mask;
    if (normalised) weight = weight / weight.sum(-1, true);
    at::Tensor y = at::zeros_like(x);
    for (int64_t e = 0; e < kE; ++e) y = y + mlp("experts." + std::to_string(e), x) * weight.slice(1, e, e + 1);
    if (source.weights.count("mlp.shared_expert_gate")) y = y + at::sigmoid(at::linear(x, W("shared_expert_gate"))) * mlp("shared_expert", x);
    return y;
  }
  RandomSource source;
  Params params;
  Moe moe;
  bool normalised;
};

double difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(Route, SortsByExpertAndKeepsTheOrderOfRowsWithTheirWeights) {
  const at::Tensor probs = at::tensor({.1, .2, .7, .0, .5, .3, .1, .1, .0, .4, .0, .6}, at::kFloat).reshape({3, 4});
  const Routing r = route(probs, 2, false);
  EXPECT_TRUE(r.rows.equal(at::tensor({1, 0, 1, 2, 0, 2}, at::kLong))) << r.rows;
  EXPECT_TRUE(r.weights.equal(at::tensor({.5, .2, .3, .4, .7, .6}, at::kFloat))) << r.weights;
  EXPECT_EQ(r.bounds, (std::vector<int64_t>{0, 1, 4, 5, 6}));
  EXPECT_EQ(r.active, (std::vector<int64_t>{0, 1, 2, 3}));
  const Routing n = route(probs.slice(0, 0, 1), 2, true);
  EXPECT_EQ(n.active, (std::vector<int64_t>{1, 2}));
  EXPECT_LT(difference(n.weights, at::tensor({.2 / .9, .7 / .9}, at::kFloat)), 1e-6);
}

TEST(Moe, EqualsTheDefinitionForOneRowAndMany) {
  at::NoGradGuard no_graph;
  for (const bool normalise : {false, true}) {
    for (const int64_t shared : {0, 28}) {
      const Block b(normalise, shared);
      for (const int64_t rows : {0, 1, 3, 50}) {
        const at::Tensor x = at::randn({rows, kH});
        const at::Tensor y = b.moe(x, Pass{});
        ASSERT_EQ(y.sizes(), x.sizes());
        if (rows == 0) continue;
        EXPECT_LT(difference(y, b.plain(x)), 1e-5) << normalise << shared << rows;
      }
    }
  }
}

TEST(Moe, ResultsDoNotDependOnThreads) {
  at::NoGradGuard no_graph;
  const Block b(true, 28);
  const at::Tensor x = at::randn({40, kH});
  const int before = num_threads();
  std::vector<at::Tensor> outputs;
  for (const int threads : {1, 2, 7}) {  // experts spread over threads, and shared by them
    set_num_threads(threads);
    outputs.push_back(b.moe(x, Pass{}));
  }
  set_num_threads(before);
  EXPECT_TRUE(outputs[1].equal(outputs[0]));
  EXPECT_TRUE(outputs[2].equal(outputs[0]));
}

TEST(Moe, GradientsAreThoseOfTheDefinition) {
  const Block b(true, 28, true);
  at::Tensor x = at::randn({9, kH}).requires_grad_(true), to = at::randn({9, kH});
  auto gradients = [&](const at::Tensor& y) {
    std::map<std::string, at::Tensor> out;
    (y * to).sum().backward();
    auto take = [&](const std::string& name, at::Tensor t) {
      out[name] = t.grad().defined() ? t.grad().clone() : at::zeros_like(t);
      t.mutable_grad() = at::Tensor();
    };
    take("x", x);
    for (const auto& [path, W] : b.source.weights) take(path, W);
    return out;
  };
  const auto ours = gradients(b.moe(x, Pass{})), expected = gradients(b.plain(x));
  for (const auto& [name, g] : expected) EXPECT_LT(difference(ours.at(name), g), 1e-4) << name;
  EXPECT_GT(expected.at("mlp.gate").abs().max().item<double>(), 1e-3);  // the router learns, too
}

class Listener : public Tap {
 public:
  at::Tensor logits, probs;
  std::vector<int64_t> bounds;
  std::map<std::string, std::pair<at::Tensor, Pass>> inputs;
  void router(const LinearSite& site, const at::Tensor& l, const at::Tensor& p, const Routing& routing, const Pass&) override {
    EXPECT_EQ(site.role, Role::router);
    logits = l;
    probs = p;
    bounds = routing.bounds;
  }
  void linear(const LinearSite& site, const at::Tensor& x, const at::Tensor&, const Pass& pass) override { inputs[site.path] = {x, pass}; }
};

TEST(Moe, ATapHearsTheRouterAndOfEveryExpertItsRowsWithKindsAndAffinity) {
  at::NoGradGuard no_graph;
  const Block b(true, 28);
  const at::Tensor x = at::randn({4, kH});  // 12 places among 8 experts
  Listener tap;
  Pass pass;
  pass.tap = &tap;
  pass.kinds = at::tensor({0, 1, 2, 1}, at::kChar);
  pass.positions = at::arange(4, at::kLong);
  pass.side = std::make_shared<Side>();
  b.moe(x, pass);
  const at::Tensor W = b.W("gate"), bound = at::linear(at::abs(x), at::abs(W)) * (2 * kH * 0x1p-24);  // of two orders of summation
  EXPECT_TRUE((at::abs(tap.logits - at::linear(x, W)) <= bound).all().item<bool>());
  EXPECT_LT(difference(tap.probs, at::softmax(tap.logits, -1)), 1e-6);
  const Routing r = route(tap.probs, kK, true);
  EXPECT_EQ(tap.bounds, r.bounds);
  for (int64_t e = 0; e < kE; ++e) {
    const auto it = tap.inputs.find("mlp.experts." + std::to_string(e) + ".up_proj");
    ASSERT_EQ(it != tap.inputs.end(), r.count(e) > 0) << e;  // idle experts do nothing
    if (it == tap.inputs.end()) continue;
    const at::Tensor rows = r.rows.slice(0, r.bounds[static_cast<size_t>(e)], r.bounds[static_cast<size_t>(e) + 1]);
    const auto& [seen, p] = it->second;
    EXPECT_TRUE(seen.equal(at::index_select(x, 0, rows)));
    EXPECT_TRUE(p.kinds.equal(at::index_select(pass.kinds, 0, rows)));
    EXPECT_TRUE(p.positions.equal(rows));
    EXPECT_TRUE(p.row_weight.equal(r.weights.slice(0, r.bounds[static_cast<size_t>(e)], r.bounds[static_cast<size_t>(e) + 1])));
    EXPECT_EQ(p.side, pass.side);  // one forward pass, for taps that count samples
  }
  EXPECT_LT(difference(tap.inputs.at("mlp.shared_expert.down_proj").second.row_weight, at::sigmoid(at::linear(x, b.W("shared_expert_gate"))).squeeze(1)), 1e-6);
  EXPECT_FALSE(tap.inputs.at("mlp.gate").second.row_weight.defined());
}

TEST(Moe, RolesPathsAndSharesOfRowsAreSetAndGroupsCoverEveryExpert) {
  const Block b(true, 28);
  EXPECT_EQ(b.params.linears.size(), 1u + 3 * kE + 3 + 1);
  EXPECT_EQ(b.params.linears.at("mlp.experts.7.gate_proj")->role, Role::expert);
  EXPECT_EQ(b.params.linears.at("mlp.experts.0.down_proj")->row_share, static_cast<double>(kK) / kE);
  EXPECT_EQ(b.params.linears.at("mlp.shared_expert.up_proj")->role, Role::mlp);
  EXPECT_EQ(b.params.linears.at("mlp.shared_expert.up_proj")->row_share, 1);
  EXPECT_EQ(b.params.linears.at("mlp.shared_expert_gate")->role, Role::router);
  EXPECT_EQ(b.moe.readers().size(), 1u + 2 * kE + 2 + 1);
  EXPECT_EQ(b.moe.writers().size(), static_cast<size_t>(kE + 1));
  EXPECT_EQ(b.moe.inner_groups().size(), static_cast<size_t>(kE + 1));
  EXPECT_EQ(b.moe.inner_groups()[3].name, "experts.3.up_proj");
}

// Fused experts lie with inputs as rows.
TEST(DenseWeight, AMatrixThatLiesTheOtherWayGivesTheSameProducts) {
  at::NoGradGuard no_graph;
  for (const auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
    for (const int64_t rows : {1, 9, 40}) {
      const at::Tensor stored = at::randn({50, 2 * 150}).to(dtype), x = at::randn({rows, 50});
      const at::Tensor W = stored.t().slice(0, 150, 300);
      EXPECT_TRUE(make_dense(W)->apply(x, nullptr).equal(make_dense(W.contiguous())->apply(x, nullptr))) << rows;
    }
  }
}

}  // namespace
}  // namespace statera
