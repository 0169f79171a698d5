// The vision tower and its projectors under calibrated methods, for every kind of tower: what is gained, what stays neutral, what the language
// stack is entered with, resuming, threads, refusals.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cmath>
#include <filesystem>
#include <map>

#include "api/quantize.h"
#include "api/test_checkpoints.h"
#include "base/threads.h"
#include "quant/calib/block_runs.h"
#include "quant/calib/forward.h"
#include "quant/calib/test_samples.h"
#include "quant/calib/vision.h"
#include "quant/pipeline.h"
#include "quant/test_output.h"

namespace statera {
namespace {
using namespace calib_test;
namespace fs = std::filesystem;

// Three samples: two pictures, none, a picture.
std::string write_talks(const TempDir& dir) {
  Json list = Json::array();
  list.push(llava({picture("shapes_a.png"), picture("chart.png")}, {"<image>\none?", "The first.", "<image> two?", "The second."}));
  list.push(llava({}, {"no picture?", "None."}));
  list.push(llava({picture("words.png")}, {"<image>\nwhat?", "Words."}));
  write_text(dir / "talks.json", list.dump());
  return dir / "talks.json";
}

bool in_tower(const std::string& layer) { return layer.find("visual") != layer.npos; }
bool in_block(const std::string& layer) { return layer.find("visual.blocks") != layer.npos; }

double distance(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

// What the tower of a folder makes of the samples' pictures.
at::Tensor features_of(const std::string& folder, const CalibData& data) {
  const Opened opened(folder);
  std::vector<at::Tensor> all;
  for (size_t i = 0; i < data.samples.size(); ++i) {
    const auto seen = opened.model->see(data.inputs(i));
    if (!seen) continue;
    all.push_back(seen->rows_VH);
    for (const at::Tensor& tap : seen->deepstack_VH) all.push_back(tap);
  }
  return at::cat(all, 0);
}

class VisionCalibration : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "example") {
      model_ = root("examples/tiny-qwen3-vl");
    } else {
      make_checkpoint(GetParam(), dir_ / "");
      model_ = dir_ / "model";
    }
    data_ = write_talks(dir_);
  }
  QuantizeOptions options(const std::string& method, const std::string& out) const {
    QuantizeOptions o;
    o.model = model_;
    o.out = dir_ / out;
    o.method = method;
    o.w_bits = 4;
    o.w_group = -1;
    o.quantize_vision = o.quantize_projector = true;
    o.data = {data_};
    o.n_samples = 3;
    return o;
  }
  TempDir dir_;
  std::string model_, data_;
  at::NoGradGuard no_grad_;
};

TEST_P(VisionCalibration, TheWalkGivesTheFeaturesOfTheTower) {
  // An image and a clip in one sample: their features come in the order of the placeholders.
  write_text(dir_ / "m.jsonl", R"({"messages": [{"role": "user", "content": [{"type": "video", "video": ")" + picture("square.mp4") + R"("}, {"type": "image", "image": ")" +
                                   picture("chart.png") + R"("}, {"type": "text", "text": "What?"}]}, {"role": "assistant", "content": "A chart."}]})" + "\n" +
                                   R"({"messages": [{"role": "user", "content": "hello"}]})");
  const Opened opened(model_);
  const CalibData data = opened.data({.data = {dir_ / "m.jsonl"}, .n_samples = 2});
  fs::create_directory(dir_ / "states");
  size_t with = 0;
  VisionCalibrator walk(*opened.model, data, dir_ / "states", nullptr);
  walk.start(0, {});
  for (int64_t b = 0; b < walk.blocks(); ++b) {
    BlockRuns(walk, b, {}).advance();
    walk.forget_before(b);
    VisionCalibrator(*opened.model, data, dir_ / "states", nullptr).start(b + 1, {});  // a resumed run finds what it needs
  }
  for (size_t i = 0; i < data.samples.size(); ++i) {
    const auto expected = opened.model->see(data.inputs(i)), got = walk.features(i);
    ASSERT_EQ(expected.has_value(), got.has_value());
    if (!got) continue;
    ++with;
    EXPECT_GT(data.inputs(i).video_grid_thw.size(), 0u);
    EXPECT_LT(distance(got->rows_VH, expected->rows_VH), 1e-6);
    ASSERT_EQ(got->deepstack_VH.size(), expected->deepstack_VH.size());
    for (size_t t = 0; t < got->deepstack_VH.size(); ++t) EXPECT_LT(distance(got->deepstack_VH[t], expected->deepstack_VH[t]), 1e-6);
  }
  EXPECT_EQ(with, 1u);
  walk.forget();
  EXPECT_TRUE(fs::is_empty(dir_ / "states"));
}

TEST_P(VisionCalibration, GptqIsNearerThanRoundToNearestInEveryLayerOfTheTower) {
  QuantizeOptions o = options("gptq", "out");
  o.plan = true;
  const QuantizeReport planned = quantize(o);
  o.plan = false;
  const QuantizeReport r = quantize(o);
  EXPECT_EQ(planned.files, r.files);
  size_t blocks = 0, projectors = 0;
  double sum = 0, rtn = 0;
  for (const auto& l : r.layers) {
    if (!in_tower(l.name)) continue;
    ++(in_block(l.name) ? blocks : projectors);
    ASSERT_TRUE(l.output_error && l.rtn_output_error) << l.name;
    EXPECT_LT(*l.output_error, *l.rtn_output_error) << l.name;
    EXPECT_FALSE(l.text) << l.name;
    EXPECT_TRUE(l.vision) << l.name;
    sum += *l.output_error;
    rtn += *l.rtn_output_error;
  }
  RecordProperty("gptq_over_rtn", std::to_string(sum / rtn));
  EXPECT_GE(blocks, 8u);
  EXPECT_GE(projectors, 2u);
  EXPECT_LT(sum, 0.9 * rtn);
  EXPECT_GT(r.verified.logits, 0);
}

TEST_P(VisionCalibration, EveryMethodRunsWithWeightsAndWithActivations) {
  for (const char* method : {"awq", "mbq", "smoothquant", "mbq+gptq"}) {
    for (int64_t a_bits : {16, 8}) {
      QuantizeOptions o = options(method, std::string(method) + std::to_string(a_bits));
      o.a_bits = a_bits;
      if (a_bits == 8) o.w_bits = 8;
      const QuantizeReport r = quantize(o);
      size_t groups = 0;
      for (const auto& s : r.scales) {
        if (!in_tower(s.block)) continue;
        ++groups;
        EXPECT_TRUE(in_block(s.block + ".")) << s.block;
        EXPECT_FALSE(s.rho) << "the tower's rows are of one kind";
        EXPECT_TRUE(std::isfinite(s.smallest) && s.smallest > 0);
      }
      EXPECT_GE(groups, 4u) << method;
      for (const auto& l : r.layers) EXPECT_TRUE(std::isfinite(l.error) && std::isfinite(l.output_error.value_or(0))) << l.name;
      EXPECT_GT(r.verified.logits, 0);
    }
  }
}

TEST_P(VisionCalibration, SmoothingTheTowerIsNeutralBeforeRounding) {
  // Only the tower's blocks, at 8 bits: folded wrongly, the features are far off; folded, they are as far off as rounding makes them.
  const Opened opened(model_);
  const CalibData data = opened.data({.data = {data_}, .n_samples = 3});
  const at::Tensor whole = features_of(model_, data);
  for (int64_t a_bits : {16, 8}) {
    std::map<std::string, double> off;
    for (const char* method : {"rtn", "smoothquant"}) {
      QuantizeOptions o = options(method, std::string(method) + std::to_string(a_bits));
      o.quantize_projector = false;
      o.w_bits = 8;
      o.a_bits = a_bits;
      if (std::string(method) == "rtn") o.data.clear();
      quantize(o);
      off[method] = distance(features_of(o.out, data), whole);
    }
    EXPECT_LT(off["smoothquant"], 2 * off["rtn"]);
    EXPECT_GT(off["rtn"], 0);
    EXPECT_LT(off["smoothquant"], 0.1);
  }
}

TEST_P(VisionCalibration, ResultsDoNotDependOnThreads) {
  const int before = num_threads();
  for (int threads : {1, 3}) {
    set_num_threads(threads);
    quantize(options("awq+gptq", std::to_string(threads)));
  }
  set_num_threads(before);
  EXPECT_EQ(output_digests(dir_ / "1"), output_digests(dir_ / "3"));
}

TEST_P(VisionCalibration, TheLanguageStackSeesTheRoundedTowerUnlessOriginalsArePropagated) {
  std::map<std::string, double> first;  // the first language layer's error, by run
  for (const char* run : {"quantized", "original", "floating"}) {
    QuantizeOptions o = options("gptq", run);
    o.w_bits = 3;
    if (run == std::string("floating")) {
      o.quantize_vision = o.quantize_projector = false;
    } else {
      o.propagate = run;
    }
    const QuantizeReport r = quantize(o);
    for (const auto& l : r.layers) {
      if (!in_tower(l.name) && l.name.find("layers.0.self_attn.q_proj") != l.name.npos) first[run] = l.vision->output_error;
    }
  }
  ASSERT_EQ(first.size(), 3u);
  EXPECT_NEAR(first["original"], first["floating"], 1e-5 * first["floating"]);
  EXPECT_GT(std::abs(first["quantized"] - first["floating"]), 1e-3 * first["floating"]);
}

INSTANTIATE_TEST_SUITE_P(Towers, VisionCalibration, ::testing::Values("example", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"), [](const auto& p) { return p.param; });

TEST(VisionCalibrationOf, TheHeadIsRoundedByWhatReachesIt) {
  TempDir dir;
  make_checkpoint("qwen2_5_vl", dir / "");
  QuantizeOptions o;
  o.model = dir / "model";
  o.out = dir / "out";
  o.method = "gptq";
  o.w_group = 32;
  o.quantize_head = true;
  o.data = {write_talks(dir)};
  const QuantizeReport r = quantize(o);
  ASSERT_EQ(r.layers.back().name, "lm_head");
  EXPECT_LT(*r.layers.back().output_error, *r.layers.back().rtn_output_error);
  EXPECT_TRUE(r.layers.back().text && r.layers.back().vision);
  EXPECT_GT(r.verified.logits, 0);
}

TEST(VisionCalibrationOf, SamplesWithoutPicturesAreRefusedBeforeWork) {
  TempDir dir;
  write_text(dir / "t.jsonl", R"({"messages": [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": "hello"}]})");
  QuantizeOptions o;
  o.model = root("examples/tiny-qwen3-vl");
  o.out = dir / "out";
  o.method = "gptq";
  o.w_group = 32;
  o.data = {dir / "t.jsonl"};
  o.quantize_vision = true;
  EXPECT_EQ(message_of([&] { quantize(o); }).find("usage: method gptq quantizes the vision tower by what it sees"), 0u);
  o.quantize_vision = false;
  o.quantize_projector = true;
  EXPECT_EQ(message_of([&] { quantize(o); }).find("usage: method gptq quantizes the vision tower by what it sees"), 0u);
  EXPECT_EQ(std::distance(fs::directory_iterator(static_cast<const std::string&>(dir)), fs::directory_iterator()), 1);
}

// One run that a signal ends after `stop` units.
QuantizeReport run_killed_after(size_t stop, const std::string& out, const std::string& method) {
  at::set_num_threads(1);  // as the library's entry points do
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.n_samples = 6, .max_seq_len = 256});
  QuantizeSettings s;
  s.method = method;
  s.plan.weights = {4, 32, true};
  s.plan.select.vision = s.plan.select.projector = true;
  s.version = "test";
  s.data = &data;
  s.mbq.distort = method == "mbq";
  QuantizeHooks hooks;
  hooks.after_unit = [&](size_t done) {
    if (done == stop) ::kill(::getpid(), SIGKILL);
  };
  return run_quantization(*tiny.model, tiny.source, s, out, hooks);
}

class VisionCalibrationDeathTest : public ::testing::TestWithParam<std::tuple<const char*, const char*, size_t>> {};

TEST_P(VisionCalibrationDeathTest, KilledAndResumedGivesTheSameBytes) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto& [method, folder, stop] = GetParam();
  const fs::path dir = fs::temp_directory_path() / ("statera_vision_kill_" + std::string(folder) + std::to_string(stop));
  const std::string out = (dir / "out").string(), whole = (dir / "whole").string();
  fs::remove_all(dir);
  fs::create_directory(dir);
  EXPECT_EXIT(run_killed_after(stop, out, method), ::testing::KilledBySignal(SIGKILL), "");
  EXPECT_FALSE(fs::exists(out));
  EXPECT_GE(run_killed_after(0, out, method).resumed_units, static_cast<int64_t>(stop));
  EXPECT_EQ(run_killed_after(0, whole, method).resumed_units, 0);
  EXPECT_EQ(output_digests(out), output_digests(whole));
  fs::remove_all(dir);
}

// After the first and third block of the tower, all of them, its projectors, and the first language block.
INSTANTIATE_TEST_SUITE_P(Units, VisionCalibrationDeathTest,
                         ::testing::Values(std::tuple("gptq", "gptq", 1), std::tuple("mbq+gptq", "mbq", 3), std::tuple("gptq", "gptq", 4), std::tuple("mbq+gptq", "mbq", 5),
                                           std::tuple("gptq", "gptq", 6), std::tuple("mbq", "distort", 2), std::tuple("mbq", "distort", 4), std::tuple("mbq", "distort", 5),
                                           std::tuple("mbq", "distort", 7)));

}  // namespace
}  // namespace statera
