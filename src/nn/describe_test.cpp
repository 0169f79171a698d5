// Counts of operators against worked numbers, and against what a recorded pass notes.
#include "nn/describe.h"

#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "nn/kv_cache.h"
#include "nn/linear.h"

namespace statera {
namespace {

Linear layer(int64_t out, int64_t in) {
  auto site = std::make_shared<LinearSite>();
  site->path = "layers.0.mlp.up_proj";
  site->out = out;
  site->in = in;
  site->weight = make_dense(at::randn({out, in}).to(at::kBFloat16));
  return Linear(site);
}

TEST(Describe, VisibleKeysAreCountedAsAMaskShowsThem) {
  for (int64_t window : {int64_t{0}, int64_t{1}, int64_t{3}, int64_t{100}}) {
    for (int64_t queries : {1, 4, 7}) {
      const int64_t keys = 7;
      int64_t seen = 0;
      for (int64_t i = keys - queries; i < keys; ++i)
        for (int64_t j = 0; j <= i; ++j) seen += window == 0 || j > i - window;
      EXPECT_EQ(visible_keys(queries, keys, true, window), seen) << queries << " " << window;
    }
  }
  EXPECT_EQ(visible_keys(4, 7, false, 0), 28);
}

TEST(Describe, ALinearLayerIsTwoOperationsAWeightAndRow) {
  c10::InferenceMode no_gradients;
  const Linear l = layer(6, 4);
  profile::Recorder recorder;
  l(at::randn({3, 4}), Pass{});
  std::vector<profile::Event> events = recorder.take();
  std::erase_if(events, [](const profile::Event& e) { return e.kind != std::string("linear"); });
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].name, "layers.0.mlp.up_proj");
  EXPECT_EQ(events[0].work.flop, 2 * 3 * 4 * 6);
  EXPECT_EQ(events[0].work.weights, 24);
  EXPECT_EQ(events[0].work.weight_bytes, 48);
  EXPECT_EQ(events[0].work.bytes, 48 + 4 * 3 * (4 + 6));
}

TEST(Describe, AttentionCountsCachedKeysAndWhatCausalityLeaves) {
  c10::InferenceMode no_gradients;
  const int64_t N = 4, K = 2, d = 8;
  KvCache cache(1);
  Pass pass;
  pass.caches = {&cache};
  const AttendSite site;
  profile::Recorder recorder;
  auto run = [&](int64_t rows) {
    pass.bounds = one_sequence(rows);
    attend(at::randn({rows, N, d}), at::randn({rows, K, d}), at::randn({rows, K, d}), site, pass);
    for (const profile::Event& e : recorder.take())
      if (e.kind == std::string("attention")) return e.work;
    return profile::Work{};
  };
  const profile::Work prefill = run(5), step = run(1);
  EXPECT_EQ(prefill.flop, 4 * N * d * (1 + 2 + 3 + 4 + 5));
  EXPECT_EQ(step.flop, 4 * N * d * 6);
  EXPECT_EQ(step.bytes, 4 * 2 * d * (N * 1 + K * 6));
  KvCache codes(1, KvForm::int8);
  pass.caches = {&codes};
  EXPECT_EQ(run(5).flop, prefill.flop);
  EXPECT_EQ(run(1).bytes, 4 * 2 * d * N * 1 + 2 * (d + 4) * K * 6);
}

}  // namespace
}  // namespace statera
