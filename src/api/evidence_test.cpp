// What a calibrated run leaves beside its checkpoint: report, scales that give the same bytes without data, and the load test.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include "api/quantize.h"
#include "base/error.h"
#include "ckpt/safetensors_write.h"
#include "ckpt/test_files.h"
#include "ckpt/checkpoint_source.h"
#include "quant/calib/block_runs.h"
#include "quant/calib/test_samples.h"
#include "quant/calib/sample.h"
#include "quant/load_check.h"
#include "quant/scales_file.h"
#include "quant/test_output.h"

namespace statera {
namespace {
using calib_test::message_of;
namespace fs = std::filesystem;

const std::string kExample = std::string(STATERA_SOURCE_DIR) + "/examples/tiny-qwen3-vl";

QuantizeOptions options(const std::string& method, const std::string& out) {
  QuantizeOptions o;
  o.model = kExample;
  o.out = out;
  o.method = method;
  o.n_samples = 4;
  o.max_seq_len = 160;
  o.search_tokens = 256;
  if (method.starts_with("smoothquant")) {
    o.w_bits = o.a_bits = 8;
  } else {
    o.w_group = 32;
  }
  return o;
}

class Scales : public ::testing::TestWithParam<const char*> {};

TEST_P(Scales, TakenOverGiveTheSameBytesWithoutData) {
  TempDir dir;
  const QuantizeOptions found = options(GetParam(), dir / "found");
  const QuantizeReport first = quantize(found);
  QuantizeOptions again = options(GetParam(), dir / "again");
  again.scales = found.out + "/" + kScalesName;
  const QuantizeReport second = quantize(again);
  EXPECT_FALSE(second.data);
  EXPECT_EQ(second.scales_reused, first.scales_sha256);
  for (const char* name : {"/model.safetensors", "/config.json"}) EXPECT_EQ(sha256_file(found.out + name), sha256_file(again.out + name)) << name;
  ASSERT_FALSE(first.scales.empty());
  ASSERT_EQ(second.scales.size(), first.scales.size());
  for (size_t i = 0; i < first.scales.size(); ++i) {
    EXPECT_EQ(second.scales[i].ratio, first.scales[i].ratio);
    EXPECT_EQ(second.scales[i].readers, first.scales[i].readers);
    EXPECT_EQ(second.scales[i].losses, first.scales[i].losses);
  }
  // Each refusal names what differs.
  auto refused = [&](const std::function<void(QuantizeOptions&)>& change) {
    QuantizeOptions other = again;
    other.out = dir / "other";
    change(other);
    return message_of([&] { quantize(other); });
  };
  EXPECT_NE(refused([](QuantizeOptions& o) { o.w_bits = o.w_bits == 8 ? 4 : 3; }).find("mismatch: "), std::string::npos);
  EXPECT_NE(refused([](QuantizeOptions& o) { o.w_bits = o.w_bits == 8 ? 4 : 3; }).find("w_bits is"), std::string::npos);
  EXPECT_NE(refused([](QuantizeOptions& o) { o.w_group = 64, o.a_bits = 16; }).find("w_group is"), std::string::npos);
  EXPECT_NE(refused([](QuantizeOptions& o) { o.model = std::string(STATERA_SOURCE_DIR) + "/tests/tiny/qwen3_vl"; }).find("tensors is"), std::string::npos);
  const char* elsewhere = std::string(GetParam()) == "awq" ? "smoothquant" : "awq";
  EXPECT_NE(refused([&](QuantizeOptions& o) { o.method = elsewhere; }).find("method is"), std::string::npos);
  EXPECT_NE(refused([](QuantizeOptions& o) { o.method = "rtn"; }).find("chooses no scales"), std::string::npos);
  EXPECT_FALSE(fs::exists(dir / "other"));
}

INSTANTIATE_TEST_SUITE_P(Methods, Scales, ::testing::Values("awq", "smoothquant", "mbq"));

TEST(ScalesOfTwoMethods, AreKeptBothAndFoldedInTheirOrder) {
  TempDir dir;
  QuantizeOptions found = options("smoothquant+awq", dir / "found");
  found.w_bits = 4;
  found.w_group = 32;
  found.a_bits = 16;
  quantize(found);
  QuantizeOptions again = found;
  again.out = dir / "again";
  again.scales = found.out + "/" + kScalesName;
  quantize(again);
  EXPECT_EQ(sha256_file(found.out + "/model.safetensors"), sha256_file(again.out + "/model.safetensors"));
  const ScaleSet set = read_scales(again.scales);
  const auto of_both = [&](const ScaleSet::Entry& e) {
    return std::count_if(set.entries.begin(), set.entries.end(), [&](const auto& o) { return o.block == e.block && o.record.group == e.record.group; }) == 2;
  };
  EXPECT_TRUE(std::any_of(set.entries.begin(), set.entries.end(), of_both));
}

TEST(ClippedRanges, TakenOverGiveTheSameBytesWithoutDataAndAreRefusedWhereTheyDoNotFit) {
  TempDir dir;
  QuantizeOptions found = options("awq", dir / "found");
  found.awq_clip = true;
  found.w_bits = 3;
  const QuantizeReport first = quantize(found);
  QuantizeOptions again = found;
  again.out = dir / "again";
  again.n_samples = 128;
  again.scales = found.out + "/" + kScalesName;
  EXPECT_FALSE(quantize(again).data);
  for (const char* name : {"/model.safetensors", "/config.json"}) EXPECT_EQ(sha256_file(found.out + name), sha256_file(again.out + name)) << name;
  // Every quantized layer but queries and keys.
  const ScaleSet set = read_scales(again.scales), passed_on = read_scales(again.out + "/" + kScalesName);
  EXPECT_EQ(passed_on.clips.size(), set.clips.size());
  size_t clipped = 0;
  for (const auto& l : first.layers) clipped += !l.name.ends_with("q_proj") && !l.name.ends_with("k_proj");
  EXPECT_EQ(set.clips.size(), clipped);
  int64_t narrowed = 0;
  for (const ScaleSet::Clip& c : set.clips) narrowed += (c.record.shrink_NG > 0).sum().item<int64_t>();
  EXPECT_GT(narrowed, 0);

  auto refused = [&](const std::function<void(QuantizeOptions&)>& change) {
    QuantizeOptions other = again;
    other.out = dir / "other";
    change(other);
    return message_of([&] { quantize(other); });
  };
  EXPECT_NE(refused([](QuantizeOptions& o) { o.awq_clip = false; }).find("awq_clip is true there, false in this run"), std::string::npos);
  QuantizeOptions plain = options("awq", dir / "plain");
  plain.w_bits = 3;
  quantize(plain);
  EXPECT_NE(refused([&](QuantizeOptions& o) { o.scales = plain.out + "/" + kScalesName; }).find("awq_clip is false there"), std::string::npos);
  const std::string layer = "down_proj, which is not quantized in this run";
  EXPECT_NE(refused([](QuantizeOptions& o) { o.ignore = {"layers\\.1\\.mlp\\.down_proj"}; }).find(layer), std::string::npos);
  EXPECT_FALSE(fs::exists(dir / "other"));
}

TEST(ClippedRanges, LayersThatTheFileDoesNotHoldAreNamed) {
  TempDir dir;
  QuantizeOptions found = options("awq", dir / "found");
  found.awq_clip = true;
  found.ignore = {"layers\\.1\\.mlp\\.down_proj"};
  quantize(found);
  QuantizeOptions again = found;
  again.out = dir / "again";
  again.ignore.clear();
  again.scales = found.out + "/" + kScalesName;
  const std::string message = message_of([&] { quantize(again); });
  EXPECT_NE(message.find("mismatch: "), std::string::npos) << message;
  EXPECT_NE(message.find("holds no ranges for layer"), std::string::npos) << message;
}

TEST(Evidence, EveryLayerHasItsErrorsByKindAndTheReportIsInTheFolder) {
  TempDir dir;
  for (const char* method : {"gptq", "awq", "smoothquant"}) {
    const QuantizeReport r = quantize(options(method, dir / method));
    ASSERT_EQ(r.layers.size(), 28u);
    for (const auto& l : r.layers) {
      ASSERT_TRUE(l.output_error && l.rtn_output_error && l.text && l.vision && l.input) << l.name;
      EXPECT_GT(l.text->rows, 0);
      EXPECT_GT(*l.rtn_output_error, 0);
      EXPECT_GE(l.input->largest, l.input->median);
      // With the gram over all rows or with a sample of them, the same thing is measured.
      const double sampled = (l.text->rtn_output_error + l.vision->rtn_output_error) / 2;
      EXPECT_NEAR(*l.rtn_output_error / sampled, 1, 0.5) << l.name;
    }
    EXPECT_GT(r.verified.logits, 0);
    EXPECT_LE(r.verified.worst_logit, r.verified.allowed_logit);
    EXPECT_LT(r.verified.allowed_logit, r.verified.largest_logit * 0.011);
    const Json file = Json::read_file(r.out + "/report.json");
    EXPECT_EQ(without_this_run("report.json", file.dump()), without_this_run("report.json", r.to_json().dump()));
    EXPECT_EQ(read_file(r.out + "/report.json").find(std::string(dir)), std::string::npos);
    EXPECT_EQ(read_file(r.out + "/report.html").find(std::string(dir)), std::string::npos);
  }
}

TEST(LoadTest, LogitsOfTheFolderAreThoseHeldAndAnyChangedTensorOfAPathShows) {
  TempDir dir;
  at::set_num_threads(1);
  const std::string copy = dir / "copy", states = dir / "states";
  fs::copy(kExample, copy);
  fs::create_directory(states);
  const Checkpoint from = Checkpoint::open(kExample);
  CheckpointSource source(from, model_type(from.config()));
  const auto model = source.type().make(from.config(), source);
  const CalibData data = read_calibration({.n_samples = 2, .max_seq_len = 96}, read_prompt_parts(kExample, *model));
  Calibrator calibrator(*model, data, states, nullptr);
  calibrator.start(0, {});
  for (int64_t b = 0; b < model->language().blocks(); ++b) BlockRuns(calibrator, b, {}).advance();
  auto checked = [&] { return check_logits(*model, source.type(), calibrator, copy, false); };
  const LogitCheck same = checked();
  EXPECT_GT(same.logits, 0);
  EXPECT_LE(same.worst, same.allowed);
  for (const char* changed : {"model.language_model.norm.weight", "model.language_model.layers.2.input_layernorm.weight", "model.language_model.layers.0.self_attn.k_norm.weight",
                              "model.language_model.layers.3.mlp.down_proj.weight"}) {
    NamedTensors tensors;
    for (const std::string& name : from.names()) {
      at::Tensor t = from.tensor(name).clone();
      if (name == changed) t.select(0, 1).mul_(1.1);
      tensors.emplace_back(name, t);
    }
    fs::remove(copy + "/model.safetensors");
    write_safetensors(copy + "/model.safetensors", tensors);
    EXPECT_NE(message_of(checked).find("logits differ"), std::string::npos) << changed;
    std::erase_if(tensors, [&](const auto& t) { return t.first == changed; });
    write_safetensors(copy + "/model.safetensors", tensors);
    EXPECT_NE(message_of(checked).find(changed), std::string::npos) << changed;
  }
}

}  // namespace
}  // namespace statera
