// Positions, windows and interpolation of the Qwen-VL generations against worked examples (docs/models.md).
#include "models/parts/qwen_vl.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace statera {
namespace {

constexpr QwenVlIds kIds{.image = 100, .video = 101, .vision_start = 102, .vision_end = 103};

std::vector<int64_t> row(const at::Tensor& positions, int64_t r) {
  at::Tensor t = positions[r].contiguous();
  return {t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + t.numel()};
}
std::vector<int64_t> tail(const at::Tensor& positions, int64_t r, size_t count) {
  auto all = row(positions, r);
  return {all.end() - static_cast<long>(count), all.end()};
}

struct Prompt {
  std::vector<int64_t> ids;
  Prompt& text(int n) { ids.insert(ids.end(), static_cast<size_t>(n), 5); return *this; }
  Prompt& start() { ids.push_back(102); return *this; }
  Prompt& end() { ids.push_back(103); return *this; }
  Prompt& image(int n) { ids.insert(ids.end(), static_cast<size_t>(n), 100); return *this; }
  Prompt& video(int n) { ids.insert(ids.end(), static_cast<size_t>(n), 101); return *this; }
  ModelInputs inputs(std::vector<Grid> images, std::vector<Grid> videos, std::vector<double> seconds = {}) const {
    ModelInputs in;
    in.input_ids = at::tensor(ids, at::kLong);
    in.bounds = one_sequence(in.input_ids.size(0));
    in.image_grid_thw = std::move(images);
    in.video_grid_thw = std::move(videos);
    in.second_per_grid_ts = std::move(seconds);
    return in;
  }
};

// 3 text, start, 6 image, end, text, start, 12 video, end, 2 text
Prompt sample() { return Prompt().text(3).start().image(6).end().text(1).start().video(12).end().text(2); }

TEST(MropePositions, Qwen2AdvancesByTheLargestOfAllThreeRows) {
  auto [p, next] = mrope_positions(sample().inputs({{1, 4, 6}}, {{3, 4, 4}}), kIds, VlGeneration::qwen2, 2, 1);
  EXPECT_EQ(row(p, 0), (std::vector<int64_t>{0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 7, 8, 9, 10, 10, 10, 10, 11, 11, 11, 11, 12, 12, 12, 12, 13, 14, 15}));
  EXPECT_EQ(row(p, 1), (std::vector<int64_t>{0, 1, 2, 3, 4, 4, 4, 5, 5, 5, 7, 8, 9, 10, 10, 11, 11, 10, 10, 11, 11, 10, 10, 11, 11, 13, 14, 15}));
  EXPECT_EQ(next, std::vector<int64_t>{16});  // 28 tokens and a delta of -12
}

TEST(MropePositions, Qwen25ScalesVideoTimeBySecondsPerGrid) {
  auto at_rate = [](double seconds) { return mrope_positions(sample().inputs({{1, 4, 6}}, {{3, 4, 4}}, {seconds}), kIds, VlGeneration::qwen2_5, 2, 2); };
  auto [one, next_one] = at_rate(1.0);
  EXPECT_EQ(tail(one, 0, 15), (std::vector<int64_t>{10, 10, 10, 10, 12, 12, 12, 12, 14, 14, 14, 14, 15, 16, 17}));
  EXPECT_EQ(next_one[0], 18);
  auto [slow, next_slow] = at_rate(2.5);
  EXPECT_EQ(tail(slow, 0, 15), (std::vector<int64_t>{10, 10, 10, 10, 15, 15, 15, 15, 20, 20, 20, 20, 21, 22, 23}));
  EXPECT_EQ(next_slow[0], 24);
}

TEST(MropePositions, Qwen25TruncatesTheProductNotTheSeconds) {
  auto [p, next] = mrope_positions(Prompt().text(1).start().video(4).inputs({}, {{4, 2, 2}}, {0.75}), kIds, VlGeneration::qwen2_5, 2, 2);
  EXPECT_EQ(tail(p, 0, 4), (std::vector<int64_t>{2, 3, 5, 6}));
  EXPECT_EQ(next[0], 7);
}

TEST(MropePositions, Qwen3SplitsAVideoIntoFrames) {
  Prompt prompt = Prompt().text(3).start().image(6).end().text(1);
  for (int frame = 0; frame < 3; ++frame) prompt.text(3).start().video(4).end();
  prompt.text(2);
  auto [p, next] = mrope_positions(prompt.inputs({{1, 4, 6}}, {{3, 4, 4}}), kIds, VlGeneration::qwen3, 2, 1);
  ASSERT_EQ(p.size(1), 41);
  auto t = row(p, 0), h = row(p, 1), w = row(p, 2);
  EXPECT_EQ(std::vector<int64_t>(t.begin() + 10, t.begin() + 21), (std::vector<int64_t>{7, 8, 9, 10, 11, 12, 13, 13, 13, 13, 15}));
  EXPECT_EQ(std::vector<int64_t>(h.begin() + 16, h.begin() + 20), (std::vector<int64_t>{13, 13, 14, 14}));
  EXPECT_EQ(std::vector<int64_t>(w.begin() + 16, w.begin() + 20), (std::vector<int64_t>{13, 14, 13, 14}));
  EXPECT_EQ(tail(p, 0, 2), (std::vector<int64_t>{30, 31}));
  EXPECT_EQ(next[0], 32);  // delta -9
}

TEST(MropePositions, ALongClipPushesTheTextBehindItsTime) {
  Prompt prompt = Prompt().text(1).start().video(10).end().text(1);
  auto [q2, next2] = mrope_positions(prompt.inputs({}, {{10, 2, 2}}), kIds, VlGeneration::qwen2, 2, 1);
  EXPECT_EQ(row(q2, 0), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}));
  auto [q25, next25] = mrope_positions(prompt.inputs({}, {{10, 2, 2}}, {1.0}), kIds, VlGeneration::qwen2_5, 2, 2);
  EXPECT_EQ(tail(q25, 0, 3), (std::vector<int64_t>{20, 21, 22}));
  EXPECT_EQ(next25[0], 23);
}

TEST(MropePositions, SequencesOfABatchCountFromZeroEach) {
  Prompt prompt = Prompt().text(2).image(1).text(3);
  ModelInputs in = prompt.inputs({{1, 2, 2}}, {});
  in.bounds = {0, 4, 6};
  auto [p, next] = mrope_positions(in, kIds, VlGeneration::qwen3, 2, 1);
  EXPECT_EQ(row(p, 0), (std::vector<int64_t>{0, 1, 2, 3, 0, 1}));
  EXPECT_EQ(next, (std::vector<int64_t>{4, 2}));
}

TEST(MropePositions, PlaceholdersThatDoNotFitTheGridsAreErrors) {
  EXPECT_THROW(mrope_positions(Prompt().image(5).inputs({{1, 4, 6}}, {}), kIds, VlGeneration::qwen2, 2, 1), Error);
  EXPECT_THROW(mrope_positions(Prompt().image(6).inputs({}, {}), kIds, VlGeneration::qwen2, 2, 1), Error);
  EXPECT_THROW(mrope_positions(Prompt().text(6).inputs({{1, 4, 6}}, {}), kIds, VlGeneration::qwen2, 2, 1), Error);
}

TEST(WindowPlan, RaggedGridsGiveSmallerEdgeWindows) {
  WindowPlan plan = plan_windows({{1, 34, 46}}, 2, 4);
  EXPECT_EQ(std::vector<int64_t>(plan.index.begin(), plan.index.begin() + 20),
            (std::vector<int64_t>{0, 1, 2, 3, 23, 24, 25, 26, 46, 47, 48, 49, 69, 70, 71, 72, 4, 5, 6, 7}));
  EXPECT_EQ(plan.bounds.size(), 31u);
  EXPECT_EQ(std::vector<int64_t>(plan.bounds.begin(), plan.bounds.begin() + 8), (std::vector<int64_t>{0, 64, 128, 192, 256, 320, 368, 432}));
  EXPECT_EQ(std::vector<int64_t>(plan.bounds.end() - 3, plan.bounds.end()), (std::vector<int64_t>{1536, 1552, 1564}));
}

TEST(WindowPlan, DivisibleGridsHaveNoEmptyWindows) {
  WindowPlan plan = plan_windows({{1, 16, 16}}, 2, 4);
  EXPECT_EQ(plan.bounds, (SequenceBounds{0, 64, 128, 192, 256}));
  EXPECT_EQ(std::vector<int64_t>(plan.index.begin(), plan.index.begin() + 17), (std::vector<int64_t>{0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27, 4}));
  WindowPlan small = plan_windows({{2, 4, 6}}, 2, 4);
  EXPECT_EQ(small.bounds, (SequenceBounds{0, 24, 48}));
  for (size_t i = 0; i < small.index.size(); ++i) EXPECT_EQ(small.index[i], static_cast<int64_t>(i));
}

TEST(FrameBounds, EveryFrameIsItsOwnSequence) { EXPECT_EQ(frame_bounds({{2, 20, 28}, {1, 4, 6}}), (SequenceBounds{0, 560, 1120, 1144})); }

TEST(Interpolation, TapsOfA30By40GridOnA48SquareTable) {
  auto [rows, weights] = interpolation_taps({{1, 30, 40}}, 48, 2);
  auto patch = [rows = rows, weights = weights](int64_t i) {
    std::vector<std::pair<int64_t, double>> out;
    for (int64_t j = 0; j < 4; ++j) out.emplace_back(rows[j][i].item<int64_t>(), weights[j][i].item<double>());
    return out;
  };
  auto expect = [&](int64_t i, std::vector<std::pair<int64_t, double>> want) {
    auto got = patch(i);
    for (size_t j = 0; j < 4; ++j) {
      EXPECT_EQ(got[j].first, want[j].first) << i;
      EXPECT_NEAR(got[j].second, want[j].second, 1e-5) << i;
    }
  };
  expect(0, {{0, 1}, {1, 0}, {48, 0}, {49, 0}});
  expect(1, {{1, .79487}, {2, .20513}, {49, 0}, {50, 0}});
  expect(2, {{48, .37931}, {49, 0}, {96, .62069}, {97, 0}});
  expect(3, {{49, .30150}, {50, .07781}, {97, .49337}, {98, .12732}});
  for (auto& [r, w] : patch(1199)) EXPECT_EQ(r, 2303);
}

TEST(Interpolation, TheCornersOfATwoByTwoGridAreTheTablesCorners) {
  auto [rows, weights] = interpolation_taps({{1, 2, 2}}, 48, 2);
  std::vector<int64_t> corners{0, 47, 2256, 2303};
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(rows[0][i].item<int64_t>(), corners[static_cast<size_t>(i)]);
}

TEST(PatchCoordinates, BlocksOfTwoByTwoComeFirst) {
  at::Tensor c = patch_coordinates({{1, 4, 4}}, 2);
  std::vector<std::pair<int64_t, int64_t>> want{{0, 0}, {0, 1}, {1, 0}, {1, 1}, {0, 2}};
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(c[static_cast<int64_t>(i)][0].item<int64_t>(), want[i].first);
    EXPECT_EQ(c[static_cast<int64_t>(i)][1].item<int64_t>(), want[i].second);
  }
}

}  // namespace
}  // namespace statera
