// Calibrated quantization end to end on the bundled tiny checkpoints: what the samples hold, what gptq gains, resuming, refusals.
#include <ATen/TensorOperators.h>
#include <ATen/Parallel.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <map>

#include "api/quantize.h"
#include "base/error.h"
#include "base/threads.h"
#include "ckpt/checkpoint_source.h"
#include "ckpt/safetensors_write.h"
#include "ckpt/test_files.h"
#include "quant/calib/test_samples.h"
#include "quant/pipeline.h"
#include "quant/test_output.h"

namespace statera {
namespace {
using namespace calib_test;
namespace fs = std::filesystem;

QuantizeOptions gptq(const std::string& model, const std::string& out) {
  QuantizeOptions o;
  o.model = root(model);
  o.out = out;
  o.method = "gptq";
  o.w_group = 32;
  o.n_samples = 6;
  o.max_seq_len = 256;
  return o;
}

TEST(CalibSamples, AnswersArePreciselyWhatTheAssistantSaid) {
  TempDir dir;
  write_text(dir / "m.jsonl", R"({"messages": [{"role": "user", "content": [{"type": "image", "image": ")" + root("examples/pictures/chart.png") +
                                  R"("}, {"type": "text", "text": "What?"}]}, {"role": "assistant", "content": "A chart."},
 {"role": "user", "content": "And?"}, {"role": "assistant", "content": "Bars.\nFive."}]})");
  std::string text = read_file(dir / "m.jsonl");
  text.erase(std::remove(text.begin(), text.end(), '\n'), text.end());
  write_text(dir / "m.jsonl", text);
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.data = {dir / "m.jsonl"}});
  ASSERT_EQ(data.samples.size(), 1u);
  EXPECT_EQ(answers_of(data, data.samples[0]), "A chart.<|im_end|>\nBars.\nFive.<|im_end|>\n");
  EXPECT_GT(data.summary.vision_tokens, 0);
  EXPECT_EQ(data.samples[0].kinds_T.sum().item<int64_t>(), data.summary.vision_tokens);
  EXPECT_EQ(((data.samples[0].kinds_T == 1) & (data.samples[0].answers_T == 1)).sum().item<int64_t>(), 0);
  ASSERT_EQ(data.summary.notes.size(), 1u);  // fewer samples than asked for
}

TEST(CalibSamples, PicturesInTwoTurnsAreBothAccountedFor) {
  TempDir dir;
  const std::string a = root("examples/pictures/shapes_a.png"), b = root("examples/pictures/shapes_b.png");
  write_text(dir / "l.json", R"([{"image": [")" + a + R"(", ")" + b + R"("], "conversations": [{"from": "human", "value": "<image>\none?"},
    {"from": "gpt", "value": "first"}, {"from": "human", "value": "<image>\ntwo?"}, {"from": "gpt", "value": "second"}]}])");
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.data = {dir / "l.json"}});
  EXPECT_EQ(answers_of(data, data.samples.at(0)), "first<|im_end|>\nsecond<|im_end|>\n");
}

TEST(CalibSamples, TextIsJoinedAndCutIntoBlocks) {
  TempDir dir;
  std::string text;
  for (int i = 0; i < 200; ++i) text += "paragraph number " + std::to_string(i) + " of this file\n\n";
  write_text(dir / "t.txt", text);
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.data = {dir / "t.txt"}, .n_samples = 5, .max_seq_len = 64});
  ASSERT_EQ(data.samples.size(), 5u);
  for (const CalibSample& s : data.samples) {
    EXPECT_EQ(s.tokens(), 64);
    EXPECT_EQ(s.answers_T.sum().item<int64_t>(), 0);
  }
  EXPECT_EQ(data.summary.tokens, 320);
  EXPECT_EQ(tiny.data({.data = {dir / "t.txt"}, .n_samples = 5, .max_seq_len = 64}).summary.hash, data.summary.hash);
  EXPECT_NE(tiny.data({.data = {dir / "t.txt"}, .n_samples = 5, .max_seq_len = 64, .seed = 1}).summary.hash, data.summary.hash);
  EXPECT_EQ(message_of([&] { tiny.data({.data = {dir / "t.txt"}, .n_samples = 5, .max_seq_len = 8000}); }).find("usage: the calibration data gives no"), 0u);
  EXPECT_EQ(message_of([&] { tiny.data({.data = {dir / "t.tx"}}); }).find("not_found: "), 0u);
}

TEST(CalibSamples, APictureIsNeverCut) {
  TempDir dir;
  write_text(dir / "m.jsonl", R"({"messages": [{"role": "user", "content": [{"type": "image", "image": ")" + root("examples/pictures/astronaut.jpg") +
                                  R"("}, {"type": "text", "text": "What?"}]}]})" "\n" R"({"messages": [{"role": "user", "content": "hello there"}]})");
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.data = {dir / "m.jsonl"}, .max_seq_len = 40});
  ASSERT_EQ(data.samples.size(), 1u);
  EXPECT_EQ(data.summary.vision_tokens, 0);
  EXPECT_TRUE(std::any_of(data.summary.notes.begin(), data.summary.notes.end(), [](const auto& n) { return n.find("left out") != n.npos; }));
}

TEST(CalibSamples, WithoutDataTheBundledSetIsTakenAndSaysSo) {
  const Opened qwen(root("examples/tiny-qwen3-vl"));
  const CalibData data = qwen.data();
  EXPECT_TRUE(data.summary.bundled);
  EXPECT_GE(data.summary.samples, 15);
  EXPECT_GT(data.summary.vision_tokens, 500);
  EXPECT_GT(data.summary.answer_tokens, 100);
  EXPECT_NE(data.summary.notes.at(0).find("bundled"), std::string::npos);
}

TEST(Gptq, OutputsAreNearerThanRoundToNearestInEveryLayer) {
  TempDir dir;
  QuantizeOptions o = gptq("examples/tiny-qwen3-vl", dir / "out");
  for (int64_t bits : {3, 4}) {
    o.w_bits = bits;
    o.overwrite = true;
    const QuantizeReport r = quantize(o);
    ASSERT_EQ(r.layers.size(), 28u);
    double sum = 0, rtn = 0;
    for (const auto& l : r.layers) {
      ASSERT_TRUE(l.output_error && l.rtn_output_error) << l.name;
      EXPECT_LT(*l.output_error, *l.rtn_output_error) << l.name;
      sum += *l.output_error;
      rtn += *l.rtn_output_error;
    }
    EXPECT_LT(sum, 0.9 * rtn);
    ASSERT_TRUE(r.data);
    EXPECT_EQ(r.data->samples, 6);
    EXPECT_TRUE(r.data->bundled);
    EXPECT_NE(r.to_text().find("bundled set"), std::string::npos);
    EXPECT_NE(read_file(dir / "out/statera.json").find(r.data->hash), std::string::npos);
  }
}

TEST(Gptq, ResultsDoNotDependOnThreads) {
  TempDir dir;
  const int before = num_threads();
  for (int threads : {1, 3}) {
    set_num_threads(threads);
    quantize(gptq("examples/tiny-qwen3-vl", dir / std::to_string(threads)));
  }
  set_num_threads(before);
  EXPECT_EQ(output_digests(dir / "1"), output_digests(dir / "3"));
}

TEST(Gptq, PropagatingOriginalActivationsIsAnotherResult) {
  TempDir dir;
  QuantizeOptions o = gptq("examples/tiny-qwen3-vl", dir / "a");
  const QuantizeReport a = quantize(o);
  o.out = dir / "b";
  o.propagate = "original";
  const QuantizeReport b = quantize(o);
  EXPECT_EQ(a.layers[0].error, b.layers[0].error);  // the first block sees the same
  EXPECT_NE(a.layers.back().error, b.layers.back().error);
}

TEST(Gptq, PlanKnowsTheSizesAndLeavesNothing) {
  TempDir dir;
  QuantizeOptions o = gptq("examples/tiny-qwen3-vl", dir / "out");
  o.plan = true;
  const QuantizeReport planned = quantize(o);
  EXPECT_TRUE(fs::is_empty(static_cast<const std::string&>(dir)));
  o.plan = false;
  const QuantizeReport written = quantize(o);
  EXPECT_EQ(planned.files, written.files);
  EXPECT_EQ(output_digests(dir / "out").size(), planned.files.size() + 2);  // the report; no activations are left behind
}

TEST(Gptq, WhatItCannotDoIsRefusedBeforeWork) {
  TempDir dir;
  QuantizeOptions o = gptq("examples/tiny-qwen3-vl", dir / "out");
  o.propagate = "quantised";
  EXPECT_EQ(message_of([&] { quantize(o); }).find("usage: --propagate"), 0u);
  o.propagate = "quantized";
  o.max_ram = "100MB";
  EXPECT_EQ(message_of([&] { quantize(o); }).find("memory: "), 0u);
  o.max_ram = "";
  o.method = "rtn";
  o.data = {"x.txt"};
  EXPECT_EQ(message_of([&] { quantize(o); }).find("usage: method rtn looks at no data"), 0u);
  EXPECT_TRUE(fs::is_empty(static_cast<const std::string&>(dir)));
}

at::Tensor logits_of(const std::string& folder) {
  const Opened opened(folder);
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < 40; ++i) ids.push_back(17 * i % 900);
  ModelInputs in;
  in.input_ids = at::tensor(ids, at::kLong);
  Pass pass = make_pass(*opened.model, in);
  return opened.model->language().head(forward_hidden(*opened.model, in, pass), pass);
}

double distance(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

TEST(SmoothQuant, FoldedNormsAndWeightsAreStillTheSameModel) {
  TempDir dir;
  QuantizeOptions o = gptq("examples/tiny-qwen3-vl", dir / "out");
  o.method = "smoothquant";
  o.w_bits = 8;
  o.w_group = 32;
  const QuantizeReport r = quantize(o);
  EXPECT_EQ(r.layers.size(), 28u);
  const Checkpoint from = Checkpoint::open(o.model), to = Checkpoint::open(o.out);
  const std::string norm = "model.language_model.layers.1.input_layernorm.weight", kept = "model.language_model.norm.weight";
  EXPECT_FALSE(from.tensor(norm).equal(to.tensor(norm)));
  EXPECT_EQ(from.tensor(norm).scalar_type(), to.tensor(norm).scalar_type());
  EXPECT_TRUE(from.tensor(kept).equal(to.tensor(kept)));
  const at::Tensor whole = logits_of(o.model);
  QuantizeOptions plain = o;
  plain.method = "rtn";
  plain.out = dir / "rtn";
  quantize(plain);
  // Of the size of 8 bits and of folded weights stored in bf16; with one side left unfolded it is near 1.
  const double rounding = distance(logits_of(plain.out), whole);
  EXPECT_LT(distance(logits_of(o.out), whole), 2 * rounding) << rounding;
  o.smooth_alpha = 0.9;
  o.out = dir / "other";
  quantize(o);
  EXPECT_FALSE(Checkpoint::open(o.out).tensor(norm).equal(to.tensor(norm)));
  EXPECT_LT(distance(logits_of(o.out), whole), 2 * rounding);
  o.smooth_alpha = 1.5;
  EXPECT_EQ(message_of([&] { quantize(o); }).find("usage: --smooth-alpha"), 0u);
}

TEST(SmoothQuant, LayersThatStayFloatingTakeTheirPartOfTheScale) {
  TempDir dir;
  QuantizeOptions o = gptq("examples/tiny-qwen3-vl", dir / "out");
  o.method = "smoothquant";
  o.w_bits = 8;
  o.ignore = {"layers\\.1\\.self_attn\\.v_proj"};
  quantize(o);
  const std::string v = "model.language_model.layers.1.self_attn.v_proj.weight";
  EXPECT_FALSE(Checkpoint::open(o.model).tensor(v).equal(Checkpoint::open(o.out).tensor(v)));
  EXPECT_LT(distance(logits_of(o.out), logits_of(o.model)), 0.1);  // near 1 when it does not
}

TEST(Awq, LogitsAreNearerThanRoundToNearestWithOutlierChannels) {
  TempDir dir;
  // Function-preserving rescaling: some input channels of every norm's readers carry 32 times their activations.
  const std::string source = dir / "outliers";
  fs::copy(root("examples/tiny-qwen3-vl"), source);
  const Checkpoint from = Checkpoint::open(root("examples/tiny-qwen3-vl"));
  NamedTensors tensors;
  for (const std::string& name : from.names()) {
    at::Tensor t = from.tensor(name).clone();
    const bool norm = name.ends_with("input_layernorm.weight") || name.ends_with("post_attention_layernorm.weight");
    const bool reader = name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") || name.ends_with("v_proj.weight") ||
                        name.ends_with("gate_proj.weight") || name.ends_with("up_proj.weight");
    if (name.find("language_model.layers") != name.npos && (norm || reader)) {
      for (int64_t c : {3, 40, 77, 101}) t.select(-1, c).mul_(norm ? 32.0 : 1.0 / 32);
    }
    tensors.emplace_back(name, t);
  }
  fs::remove(source + "/model.safetensors");
  write_safetensors(source + "/model.safetensors", tensors);
  const at::Tensor whole = logits_of(source);
  std::map<std::string, double> errors;
  for (const char* method : {"rtn", "awq"}) {
    QuantizeOptions o = gptq("", dir / method);
    o.model = source;
    o.method = method;
    o.w_bits = 4;
    quantize(o);
    errors[method] = distance(logits_of(o.out), whole);
  }
  EXPECT_LT(errors["awq"], 0.9 * errors["rtn"]) << errors["awq"] << " " << errors["rtn"];
}

// One run that a signal ends after `stop` units; the tests below fork into it.
QuantizeReport run_killed_after(size_t stop, const std::string& out, const std::string& method) {
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.n_samples = 6, .max_seq_len = 256});
  QuantizeSettings s;
  s.method = method;
  s.plan.weights = {4, 32, true};
  s.awq.clip = true;
  s.version = "test";
  s.data = &data;
  s.mbq.distort = true;
  QuantizeHooks hooks;
  hooks.after_unit = [&](size_t done) {
    if (done == stop) ::kill(::getpid(), SIGKILL);
  };
  return run_quantization(*tiny.model, tiny.source, s, out, hooks);
}

class CalibratedDeathTest : public ::testing::TestWithParam<std::pair<const char*, size_t>> {};

TEST_P(CalibratedDeathTest, KilledAndResumedGivesTheSameBytes) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";  // a fresh process, which runs this test again up to the line that dies
  const auto& [method, stop] = GetParam();
  const fs::path dir = fs::temp_directory_path() / ("statera_calibration_kill_" + std::string(method) + std::to_string(stop));
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

// After the tower (five units), after the first, third and last language block.
INSTANTIATE_TEST_SUITE_P(Units, CalibratedDeathTest, ::testing::Values(std::pair("gptq", 5), std::pair("gptq", 6), std::pair("gptq", 8), std::pair("gptq", 9),
                                           std::pair("smoothquant", 7), std::pair("awq", 8), std::pair("mbq", 5), std::pair("mbq", 7), std::pair("mbq+gptq", 8),
                                           std::pair("mbq", 9)));

}  // namespace
}  // namespace statera
