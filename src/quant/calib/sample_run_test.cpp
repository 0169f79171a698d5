// Runs that wait and go on, side by side; what they throw; and that giving one up unwinds it.
#include "quant/calib/sample_run.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/error.h"
#include "base/threads.h"

namespace statera {
namespace {

TEST(SampleRun, GoesOnWhereItWaited) {
  std::vector<int> steps;
  SampleRun run([&](SampleRun& self) {
    for (int i = 0; i < 3; ++i) {
      steps.push_back(i);
      self.wait();
    }
    return at::full({1}, 7.0f);
  });
  EXPECT_TRUE(steps.empty());
  for (int i = 0; i < 3; ++i) {
    run.start(false);
    EXPECT_FALSE(run.finish());
    EXPECT_EQ(steps.size(), static_cast<size_t>(i + 1));
  }
  run.start(false);
  EXPECT_TRUE(run.finish());
  EXPECT_EQ(run.take_result().item<float>(), 7);
}

TEST(SampleRun, SeveralGoOnSideBySideEachOnItsOwnThread) {
  std::vector<std::unique_ptr<SampleRun>> runs;
  std::vector<int64_t> pieces(4);
  for (size_t r = 0; r < pieces.size(); ++r) {
    runs.push_back(std::make_unique<SampleRun>([&pieces, r](SampleRun& self) {
      self.wait();
      parallel_for(100, 1, [&](int64_t begin, int64_t end) { pieces[r] += end - begin; });  // inline: no race on the sum
      return at::full({1}, static_cast<float>(r));
    }));
  }
  for (int round = 0; round < 2; ++round) {
    for (auto& run : runs) run->start(true);
    for (auto& run : runs) EXPECT_EQ(run->finish(), round == 1);
  }
  for (size_t r = 0; r < runs.size(); ++r) {
    EXPECT_EQ(runs[r]->take_result().item<float>(), static_cast<float>(r));
    EXPECT_EQ(pieces[r], 100);
  }
}

TEST(SampleRun, WhatTheBodyThrowsReachesTheCallerOnce) {
  SampleRun run([](SampleRun& self) -> at::Tensor {
    self.wait();
    throw Error(ErrorKind::bad_file, "broken");
  });
  run.start(false);
  EXPECT_FALSE(run.finish());
  run.start(false);
  EXPECT_THROW(run.finish(), Error);
}

TEST(SampleRun, ARunThatIsGivenUpIsUnwound) {
  auto held = std::make_shared<int>(1);
  {
    SampleRun never([held](SampleRun&) { return at::full({1}, 0.0f); });
    SampleRun waiting([held](SampleRun& self) {
      const std::shared_ptr<int> more = held;
      self.wait();
      ADD_FAILURE() << "went on";
      return at::full({1}, 0.0f);
    });
    waiting.start(false);
    EXPECT_FALSE(waiting.finish());
    EXPECT_GE(held.use_count(), 4);
  }
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace statera
