// Packed weights: products in integers equal the simulation of quantized activations, layers that share an input equal layers called alone,
// and what --compute sets.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/threads.h"
#include "nn/compute.h"
#include "nn/linear.h"
#include "nn/weight.h"

namespace statera {
namespace {

QTensor rounded_weight(int64_t N, int64_t K, int bits, int64_t group, bool symmetric) {
  return rtn(at::randn({N, K}), {.bits = bits, .group = group, .symmetric = symmetric});
}

std::shared_ptr<LinearSite> site_of(const QTensor& q, const std::string& path, Role role = Role::mlp) {
  auto site = std::make_shared<LinearSite>();
  site->path = path;
  site->out = q.rows();
  site->in = q.columns();
  site->role = role;
  site->weight = make_packed(q);
  return site;
}

TEST(PackedWeights, IntegerProductsEqualTheirSimulation) {
  const at::NoGradGuard none;
  for (int bits : {2, 3, 4, 5, 6, 7, 8}) {
    for (int64_t group : {-1, 32, 128}) {
      for (bool symmetric : {true, false}) {
        const int64_t K = 300;
        const QTensor q = rounded_weight(37, K, bits, group, symmetric);
        const Weight packed = make_packed(q), simulated = make_rounded(q);
        for (const ActQuant& act : {ActQuant{8, -1}, ActQuant{8, 32}, ActQuant{8, 64}, ActQuant{8, -1, true, 0.01f}}) {
          for (int64_t T : {1, 5, 8, 9, 30}) {
            const at::Tensor x = at::randn({T, K});
            // What both round of the same products: the sums of the simulation K times, those of integers once a segment, and the factors.
            const at::Tensor size = at::linear(at::abs(fake_quantize(x, act)), at::abs(q.dequantize()));
            const at::Tensor bound = size * (static_cast<double>(2 * K) + 8) * 0x1p-24;
            const at::Tensor error = at::abs(packed->apply(x, &act) - simulated->apply(x, &act));
            EXPECT_TRUE((error <= bound).all().item<bool>()) << bits << " bits, groups " << group << "/" << act.group << ", " << T << " rows";
          }
        }
      }
    }
  }
}

TEST(FakeQuantize, StaticScalesSaturate) {
  const ActQuant act{.bits = 8, .is_static = true, .scale = 0.5f};
  const at::Tensor x = at::tensor({0.24f, 0.26f, 0.75f, 100.0f, -100.0f, 0.0f}).reshape({1, 6});
  EXPECT_TRUE(at::equal(fake_quantize(x, act), at::tensor({0.0f, 0.5f, 1.0f, 63.5f, -64.0f, 0.0f}).reshape({1, 6})));
}

TEST(PackedWeights, GroupsThatDoNotFitIntegersAreSimulated) {
  const at::NoGradGuard none;
  const QTensor q = rounded_weight(20, 96, 4, 16, true);
  const ActQuant act{8, 16};
  const at::Tensor x = at::randn({6, 96});
  EXPECT_FALSE(integer_activations(*make_packed(q)));
  EXPECT_LT((make_packed(q)->apply(x, &act) - make_rounded(q)->apply(x, &act)).abs().max().item<double>(), 1e-4);
}

TEST(PackedWeights, ARowDoesNotDependOnTheOthersOrOnThreads) {
  const at::NoGradGuard none;
  const Weight w = make_packed(rounded_weight(150, 320, 4, 64, false));
  const ActQuant act{8, 64};
  const at::Tensor x = at::randn({21, 320}), all = w->apply(x, &act);
  for (int threads : {1, 2, 5}) {
    const int before = num_threads();
    set_num_threads(threads);
    EXPECT_TRUE(w->apply(x, &act).equal(all)) << threads;
    EXPECT_TRUE(w->apply(x.slice(0, 7, 8), &act).equal(all.slice(0, 7, 8))) << threads;
    EXPECT_TRUE(w->apply(x.slice(0, 3, 9), &act).equal(all.slice(0, 3, 9))) << threads;
    set_num_threads(before);
  }
}

TEST(PackedWeights, IntegerActivationsFollowTheGroupsOfTheWeight) {
  auto group = [](int64_t K, int64_t weight_group) {
    const auto act = integer_activations(*make_packed(rounded_weight(4, K, 4, weight_group, true)));
    return act ? act->group : 0;
  };
  EXPECT_EQ(group(512, 32), 32);
  EXPECT_EQ(group(512, 96), 96);
  EXPECT_EQ(group(512, 128), 128);
  EXPECT_EQ(group(512, 256), 128);
  EXPECT_EQ(group(512, -1), 128);
  EXPECT_EQ(group(512, 16), 0);
  EXPECT_EQ(group(512, 40), 0);
  EXPECT_FALSE(integer_activations(*make_dense(at::randn({4, 8}))));
}

TEST(Together, LayersOfOneInputEqualLayersCalledAlone) {
  const at::NoGradGuard none;
  const QTensor a = rounded_weight(70, 256, 4, 128, true), b = rounded_weight(16, 256, 3, 128, false), c = rounded_weight(33, 256, 8, 128, true);
  std::vector<std::shared_ptr<LinearSite>> sites{site_of(a, "a"), site_of(b, "b"), site_of(c, "c")};
  sites[1]->bias = at::randn({16});
  sites[2]->adapter = std::make_shared<Adapter>(Adapter{at::randn({2, 256}), at::randn({33, 2}), 0.5});
  const Linear la{sites[0]}, lb{sites[1]}, lc{sites[2]};
  const at::Tensor x = at::randn({2, 6, 256});
  const Pass pass;
  for (const std::optional<ActQuant>& act : {std::optional<ActQuant>{}, std::optional<ActQuant>{ActQuant{8, 128}}, std::optional<ActQuant>{ActQuant{8, -1}}}) {
    for (auto& site : sites) site->act = act;
    const auto together_y = together({&la, &lb, &lc}, x, pass);
    ASSERT_TRUE(together_y);
    EXPECT_TRUE((*together_y)[0].equal(la(x, pass)));
    EXPECT_TRUE((*together_y)[1].equal(lb(x, pass)));
    EXPECT_TRUE((*together_y)[2].equal(lc(x, pass)));
    EXPECT_EQ((*together_y)[2].sizes(), (at::IntArrayRef{2, 6, 33}));
  }
}

TEST(Together, LayersThatCannotShareAnInputAreLeftAlone) {
  const at::NoGradGuard none;
  auto one = site_of(rounded_weight(16, 64, 4, 32, true), "one"), two = site_of(rounded_weight(16, 64, 4, 32, true), "two");
  const Linear a{one}, b{two};
  const at::Tensor x = at::randn({3, 64});
  Pass pass;
  ASSERT_TRUE(together({&a, &b}, x, pass));
  Tap tap;
  pass.tap = &tap;
  EXPECT_FALSE(together({&a, &b}, x, pass));  // it may stop the second one
  class Blocks : public Tap {
    bool hears_layers() const override { return false; }
  } blocks;
  pass.tap = &blocks;
  EXPECT_TRUE(together({&a, &b}, x, pass));
  pass.tap = nullptr;
  two->act = ActQuant{};
  EXPECT_FALSE(together({&a, &b}, x, pass));
  two->act.reset();
  two->weight = make_dense(at::randn({16, 64}));
  EXPECT_FALSE(together({&a, &b}, x, pass));
}

// Rows from one to more than two stretches of them, few left over included; columns that end within a block.
TEST(Activated, ColumnsFinishedInTheCacheEqualWholeProductsBitForBit) {
  const at::NoGradGuard none;
  constexpr int64_t K = 256;
  const Pass pass;
  for (const ActQuant& act : {ActQuant{8, 128}, ActQuant{8, -1}, ActQuant{8, -1, true, 0.02f}}) {
    for (int64_t F : {16, 70, 200}) {
      auto gate = site_of(rounded_weight(F, K, 4, 128, true), "gate"), up = site_of(rounded_weight(F, K, 8, 128, false), "up");
      gate->act = up->act = act;
      gate->bias = at::randn({F}).to(at::kBFloat16);
      const Linear g{gate}, u{up};
      for (int64_t T : {1, 3, 8, 9, 64, 256, 261, 270, 600}) {
        const at::Tensor x = at::randn({T, K});
        const auto alone = activated_together(Activation::gelu, {&g, 0, F}, {}, x, pass), both = activated_together(Activation::silu, {&g, 0, F}, {&u, 0, F}, x, pass);
        ASSERT_TRUE(alone && both);
        EXPECT_TRUE(alone->equal(activate(Activation::gelu, g(x, pass)))) << F << " columns, " << T << " rows";
        EXPECT_TRUE(both->equal(activate_times(Activation::silu, g(x, pass), u(x, pass)))) << F << " columns, " << T << " rows";
      }
    }
  }
}

TEST(Activated, HalvesOfOneLayerAndThreadsMakeNoDifference) {
  const at::NoGradGuard none;
  constexpr int64_t F = 208, K = 192;
  auto site = site_of(rounded_weight(2 * F, K, 4, 32, true), "gate_up");
  site->act = ActQuant{8, 32};
  site->bias = at::randn({2 * F});
  const Linear layer{site};
  const Pass pass;
  const at::Tensor x = at::randn({2, 150, K}), y = layer(x, pass), want = activate_times(Activation::relu, y.slice(-1, 0, F), y.slice(-1, F, 2 * F));
  const int before = num_threads();
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    const auto got = activated_together(Activation::relu, {&layer, 0, F}, {&layer, F, F}, x, pass);
    ASSERT_TRUE(got);
    EXPECT_TRUE(got->equal(want)) << threads << " threads";
  }
  set_num_threads(before);
}

// The quantized input of the last layer is the one that it makes of the same floats.
TEST(FedForward, AnInputThatIsNeverWrittenDownGivesTheSameBits) {
  const at::NoGradGuard none;
  constexpr int64_t K = 256;
  const Pass pass;
  const int before = num_threads();
  const ActQuant act{8, -1, true, 0.02f};
  for (int bits : {4, 8}) {
    for (int64_t F : {288, 600, 1200}) {
      auto gate = site_of(rounded_weight(F, K, 4, 128, true), "gate"), up = site_of(rounded_weight(F, K, 8, 128, false), "up");
      auto down = site_of(rounded_weight(48, F, bits, -1, true), "down");
      gate->act = up->act = ActQuant{8, 128};
      down->act = act;
      down->bias = at::randn({48});
      const Linear g{gate}, u{up}, d{down};
      for (int64_t T : {25, 64, 261, 600}) {
        const at::Tensor x = at::randn({T, K});
        const at::Tensor gated = d(activate_times(Activation::silu, g(x, pass), u(x, pass)), pass), alone = d(activate(Activation::gelu, u(x, pass)), pass);
        for (int threads : {1, 2, 5}) {
          set_num_threads(threads);
          const auto both = fed_forward(Activation::silu, {&g, 0, F}, {&u, 0, F}, d, x, pass), one = fed_forward(Activation::gelu, {&u, 0, F}, {}, d, x, pass);
          ASSERT_TRUE(both && one);
          EXPECT_TRUE(both->equal(gated)) << F << " columns, " << T << " rows, " << threads << " threads";
          EXPECT_TRUE(one->equal(alone)) << F << " columns, " << T << " rows, " << threads << " threads";
        }
        set_num_threads(before);
      }
    }
  }
}

TEST(FedForward, ReadersWhoseInputNeedsWholeRowsOrFloatsAreLeftAlone) {
  const at::NoGradGuard none;
  constexpr int64_t F = 288;
  auto up = site_of(rounded_weight(F, 64, 4, 32, true), "up"), down = site_of(rounded_weight(64, F, 4, -1, true), "down");
  up->act = ActQuant{8, 32};
  down->act = ActQuant{8, -1, true, 0.02f};
  const Linear u{up}, d{down};
  const Pass pass;
  const auto goes = [&](int64_t T) { return fed_forward(Activation::relu, {&u, 0, F}, {}, d, at::randn({T, 64}), pass).has_value(); };
  ASSERT_TRUE(goes(40));
  EXPECT_FALSE(goes(8));  // decoded
  down->act = ActQuant{8, -1};
  EXPECT_FALSE(goes(40));  // a scale per token
  down->act.reset();
  EXPECT_FALSE(goes(40));  // exact
  down->act = ActQuant{8, -1, true, 0.02f};
  down->weight = make_packed(rounded_weight(64, F, 4, 96, true));
  EXPECT_FALSE(goes(40));  // groups
  down->weight = make_packed(rounded_weight(64, F, 4, -1, true));
  ASSERT_TRUE(goes(40));
  down->adapter = std::make_shared<Adapter>(Adapter{at::randn({2, F}), at::randn({64, 2}), 0.5});
  EXPECT_FALSE(goes(40));
  down->adapter = nullptr;
  down->input_rotation = at::randn({F, F});
  EXPECT_FALSE(goes(40));
  down->input_rotation = at::Tensor();
  down->weight = make_dense(at::randn({64, F}));
  EXPECT_FALSE(goes(40));
}

TEST(Activated, WhatCannotBeIsLeftToTheLayers) {
  const at::NoGradGuard none;
  auto one = site_of(rounded_weight(72, 64, 4, 32, true), "one"), two = site_of(rounded_weight(72, 64, 4, 32, true), "two");
  one->act = two->act = ActQuant{8, 32};
  const Linear a{one}, b{two};
  const at::Tensor x = at::randn({3, 64});
  Pass pass;
  const auto goes = [&](const at::Tensor& in) { return activated_together(Activation::silu, {&a, 0, 72}, {&b, 0, 72}, in, pass).has_value(); };
  ASSERT_TRUE(goes(x));
  EXPECT_FALSE(goes(x.to(at::kBFloat16)));
  EXPECT_FALSE(activated_together(Activation::silu, {&a, 0, 36}, {&a, 36, 36}, x, pass));  // a half that begins within a block
  Tap tap;
  pass.tap = &tap;
  EXPECT_FALSE(goes(x));
  pass.tap = nullptr;
  two->adapter = std::make_shared<Adapter>(Adapter{at::randn({2, 64}), at::randn({72, 2}), 0.5});
  EXPECT_FALSE(goes(x));
  two->adapter = nullptr;
  one->act.reset();
  EXPECT_FALSE(goes(x));
  two->act.reset();
  EXPECT_FALSE(goes(x));  // exact
  one->act = two->act = ActQuant{8, 32};
  one->weight = make_dense(at::randn({72, 64}));
  EXPECT_FALSE(goes(x));
}

// Of the checkpoint: nothing, an activation quantizer of its own, a router, a floating layer.
Params some_params() {
  Params p;
  p.linears["plain"] = site_of(rounded_weight(16, 128, 4, 32, true), "plain");
  p.linears["own"] = site_of(rounded_weight(16, 128, 8, -1, true), "own");
  p.linears["own"]->act = ActQuant{};
  p.linears["router"] = site_of(rounded_weight(16, 128, 4, 32, true), "router", Role::router);
  p.linears["dense"] = site_of(rounded_weight(16, 128, 4, 32, true), "dense");
  p.linears["dense"]->weight = make_dense(at::randn({16, 128}));
  return p;
}

TEST(Compute, IntegersAreForPackedLayersThatTheCheckpointLeavesOpen) {
  for (Compute compute : {Compute::automatic, Compute::int8}) {
    Params p = some_params();
    set_compute(p, compute);
    EXPECT_EQ(p.linears["plain"]->act, (ActQuant{8, 32}));
    EXPECT_EQ(p.linears["own"]->act, ActQuant{});
    EXPECT_FALSE(p.linears["router"]->act);
    EXPECT_FALSE(p.linears["dense"]->act);
  }
  Params p = some_params();
  set_compute(p, Compute::exact);
  EXPECT_FALSE(p.linears["plain"]->act);
  EXPECT_EQ(p.linears["own"]->act, ActQuant{});
}

TEST(Compute, Int8IsAnErrorWhereALayerCannot) {
  Params p = some_params();
  p.linears["odd"] = site_of(rounded_weight(16, 128, 4, 16, true), "odd");
  EXPECT_THROW(set_compute(p, Compute::int8), Error);
  set_compute(p, Compute::automatic);
  EXPECT_FALSE(p.linears["odd"]->act);
  Params dense;
  dense.linears["dense"] = some_params().linears["dense"];
  EXPECT_THROW(set_compute(dense, Compute::int8), Error);
  set_compute(dense, Compute::automatic);
  EXPECT_THROW(parse_compute("int4"), Error);
}

}  // namespace
}  // namespace statera
