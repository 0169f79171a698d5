// compare() on the bundled example: a checkpoint with itself, with coarser and finer roundings of it, split by context and position.
#include "api/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "api/evaluate.h"
#include "api/quantize.h"
#include "base/error.h"
#include "ckpt/test_files.h"

namespace statera {
namespace {

const std::string kRoot = STATERA_SOURCE_DIR, kModel = kRoot + "/examples/tiny-qwen3-vl", kVlm = kRoot + "/examples/tiny-vlm";

CompareOptions with(const std::string& other) {
  CompareOptions o;
  o.a = kModel;
  o.b = other;
  o.dtype = "fp32";
  return o;
}

std::string quantized(const TempDir& dir, int64_t bits) {
  QuantizeOptions q;
  q.model = kModel;
  q.out = dir / std::to_string(bits);
  q.w_bits = bits;
  q.w_group = -1;
  quantize(q);
  return q.out;
}

std::string fault(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return std::string(to_string(e.kind())) + ": " + e.message();
  }
  return "no error";
}

void expect_equal(const Divergence& d) {
  EXPECT_GT(d.positions(), 0) << d.name;
  EXPECT_EQ(d.kl_max(), 0) << d.name;
  EXPECT_EQ(d.kl_99(), 0) << d.name;
  EXPECT_EQ(d.logit_max, 0) << d.name;
  EXPECT_EQ(d.top1(), 1) << d.name;
  EXPECT_EQ(d.top5(), 1) << d.name;
  EXPECT_EQ(d.nll_a, d.nll_b) << d.name;
}

TEST(Compare, CheckpointWithItselfDivergesByNothing) {
  TempDir dir;
  const CompareReport r = compare(with(kModel));
  EXPECT_GE(r.prompts.size(), 5u);
  EXPECT_GT(r.total.positions(), 100);
  expect_equal(r.total);
  // Packed weights are freed and made again.
  const std::string w4 = quantized(dir, 4);
  CompareOptions o = with(w4);
  o.a = w4;
  expect_equal(compare(o).total);
}

TEST(Compare, IntegersOfActivationsCostLittleBesideTheRoundingOfWeights) {
  TempDir dir;
  const std::string w4 = quantized(dir, 4);
  CompareOptions o = with(w4);
  const double weights = compare(o).total.kl_mean();
  o.a = w4;
  o.compute = "int8";
  const double activations = compare(o).total.kl_mean();
  EXPECT_GT(activations, 0);
  EXPECT_LT(activations, weights / 10);
  o.compute = "auto";
  EXPECT_EQ(compare(o).total.kl_mean(), activations);
}

TEST(Compare, IntegersNeedLowBitWeights) {
  CompareOptions o = with(kModel);
  o.compute = "int8";
  EXPECT_EQ(fault([&] { compare(o); }).find("unsupported: " + kModel + ": no layer has low-bit weights"), 0u) << fault([&] { compare(o); });
  o.compute = "int4";
  EXPECT_EQ(fault([&] { compare(o); }), "usage: unknown compute \"int4\" (auto, exact or int8)");
  o.compute = "auto";
  expect_equal(compare(o).total);
}

TEST(Compare, KeysAndValuesInFewerBitsCostLittle) {
  CompareOptions o = with(kModel);
  o.kv_cache = "fp16";
  const double half = compare(o).total.kl_mean();
  o.kv_cache = "int8";
  const double codes = compare(o).total.kl_mean();
  EXPECT_GT(half, 0);
  EXPECT_GT(codes, half);
  EXPECT_LT(codes, 1e-3);
  o.kv_cache = "int4";
  EXPECT_EQ(fault([&] { compare(o); }), "usage: unknown form of keys and values \"int4\" (auto, fp16 or int8)");
}

TEST(Compare, AttentionOfPatchesInIntegersCostsLittle) {
  CompareOptions o = with(kVlm);
  o.a = kVlm;
  o.data = {kVlm + "/calibration.jsonl"};
  o.limit = 4;
  expect_equal(compare(o).total);
  o.vision_attention = "auto";  // nothing else is in integers
  expect_equal(compare(o).total);
  o.vision_attention = "int8";
  const double kl = compare(o).total.kl_mean();
  EXPECT_GT(kl, 1e-7);
  EXPECT_LT(kl, 1e-3);
  o.vision_attention = "int4";
  EXPECT_EQ(fault([&] { compare(o); }), "usage: unknown vision attention \"int4\" (auto, exact or int8)");
}

TEST(Compare, CoarserRoundingDivergesMore) {
  TempDir dir;
  double before = 0;
  for (int64_t bits : {8, 4, 2}) {
    const CompareReport r = compare(with(quantized(dir, bits)));
    EXPECT_GT(r.total.kl_mean(), before) << bits;
    EXPECT_GT(r.total.logit_max, 0);
    EXPECT_GE(r.total.kl_99(), r.total.kl_mean());
    EXPECT_LE(r.total.kl_99(), r.total.kl_max());
    EXPECT_NE(r.total.perplexity_a(), r.total.perplexity_b());
    before = r.total.kl_mean();
  }
}

TEST(Compare, PositionsAreSplitByPictureAndByPlace) {
  TempDir dir;
  CompareOptions o = with(quantized(dir, 4));
  write_text(
      dir / "data.jsonl",
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image", "image": ")" + kRoot +
          R"(/examples/pictures/chart.png"}, {"type": "text", "text": "What is it?"}]}, {"role": "assistant", "content": "A chart with bars."}]})"
          "\n"
          R"({"text": "Only words here, and rather few of them."})"
          "\n");
  o.data = {dir / "data.jsonl"};
  const CompareReport r = compare(o);
  ASSERT_EQ(r.prompts.size(), 2u);
  EXPECT_TRUE(r.prompts[0].name.ends_with("data.jsonl: line 1"));
  EXPECT_GT(r.vision.positions(), 5);
  EXPECT_GT(r.text.positions(), r.prompts[1].positions()) << "the words before the picture are text, too";
  EXPECT_EQ(r.text.positions() + r.vision.positions(), r.total.positions());
  EXPECT_NEAR(r.text.nll_b + r.vision.nll_b, r.total.nll_b, 1e-9);
  // One row after another, each but the last of a sequence followed by a token that is to be predicted.
  EXPECT_EQ(r.total.predicted, r.total.positions() - 2);
  int64_t sum = 0;
  for (const Divergence& d : r.by_position) sum += d.positions();
  EXPECT_EQ(sum, r.total.positions());
  EXPECT_EQ(r.by_position.at(0).name, "0-15");
  // Rows before a placeholder are left out: the picture's tokens are no choice of the model.
  EXPECT_LT(r.vision.positions(), 40);
}

TEST(Compare, PerplexityIsThatOfEvaluate) {
  TempDir dir;
  const std::string w4 = quantized(dir, 4), text = kRoot + "/examples/calibration/text.txt";
  CompareOptions o = with(w4);
  o.data = {text};
  o.max_length = 200;
  const CompareReport r = compare(o);
  EXPECT_EQ(r.prompts.size(), 29u);
  EvaluateOptions e;
  e.tasks = "perplexity";
  e.data = {text};
  e.max_length = e.stride = 200;
  for (const auto& [model, perplexity] : {std::pair{kModel, r.total.perplexity_a()}, {w4, r.total.perplexity_b()}}) {
    e.model = model;
    EXPECT_NEAR(evaluate(e).results[0].scores[0].value / perplexity, 1, 1e-5);
  }
  o.limit = 3;
  EXPECT_EQ(compare(o).prompts.size(), 3u);
}

TEST(Compare, MessagesWithAPictureAreTakenThroughTheTower) {
  CompareOptions o = with(kModel);
  o.messages = {kRoot + "/examples/messages/describe.json"};
  const CompareReport r = compare(o);
  EXPECT_EQ(r.prompts.size(), 1u);
  expect_equal(r.total);
  expect_equal(r.vision);
}

TEST(Compare, FaultsAreSaidInOneLine) {
  TempDir dir;
  EXPECT_NE(fault([&] { compare(with(kRoot + "/tests/tiny/llama")); }).find("mismatch: vocabularies"), std::string::npos);
  EXPECT_NE(fault([&] { compare(with(dir / "gone")); }).find("not_found"), std::string::npos);
  CompareOptions o = with(kModel);
  o.scratch = dir / "gone";
  EXPECT_NE(fault([&] { compare(o); }).find("not_found: " + (dir / "gone")), std::string::npos);
  o.scratch.clear();
  o.data = {dir / "gone.jsonl"};
  EXPECT_NE(fault([&] { compare(o); }).find("gone.jsonl"), std::string::npos);
  write_text(dir / "bad.jsonl", "{\"text\": \"x\"}\n{\"text\"\n");
  o.data = {dir / "bad.jsonl"};
  EXPECT_NE(fault([&] { compare(o); }).find("bad.jsonl: line 2"), std::string::npos);
}

}  // namespace
}  // namespace statera
