// Static scales of activations, from the samples to the files and back: each is the largest input of its layer over them.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "api/quantize.h"
#include "ckpt/test_files.h"
#include "quant/calib/block_runs.h"
#include "quant/calib/forward.h"
#include "quant/calib/test_samples.h"
#include "quant/scales_file.h"
#include "quant/sha256.h"

namespace statera {
namespace {

using calib_test::message_of;
using calib_test::Opened;
using calib_test::root;

const std::string kExample = root("examples/tiny-qwen3-vl");

QuantizeOptions options(const std::string& method, const std::string& out) {
  QuantizeOptions o;
  o.model = kExample;
  o.out = out;
  o.method = method;
  o.w_bits = o.a_bits = 8;
  o.a_static = true;
  o.n_samples = 4;
  o.max_seq_len = 160;
  return o;
}

std::map<std::string, float> scales_of(const std::string& folder) {
  const Checkpoint c = Checkpoint::open(folder);
  std::map<std::string, float> out;
  for (const std::string& name : c.names()) {
    if (name.ends_with(".input_scale")) out[name.substr(0, name.size() - 12)] = c.tensor(name).to(at::kFloat).item<float>();
  }
  return out;
}

// Of the first block, whose inputs no rounding has touched.
std::map<std::string, float> largest_inputs(const std::string& model) {
  at::NoGradGuard no_gradients;
  TempDir dir;
  const Opened opened(model);
  const CalibData data = opened.data({.n_samples = 4, .max_seq_len = 160});
  Calibrator calibrator(*opened.model, data, dir / "", nullptr);
  calibrator.start(0, {});
  BlockRuns runs(calibrator, 0, {});
  std::vector<const LinearSite*> layers;
  for (const auto& phase : opened.model->language().topology(0).phases)
    for (const Linear& l : phase) layers.push_back(&l.site());
  std::map<std::string, float> out;
  runs.observe(layers, [&](const LinearSite& site, const at::Tensor& x, const Pass&) {
    float& most = out[opened.source.disk_name(site.path)];
    most = std::max(most, x.abs().max().item<float>());
  });
  return out;
}

TEST(StaticScales, AreTheLargestInputsOverTheSamples) {
  TempDir dir;
  const QuantizeReport r = quantize(options("rtn", dir / "q"));
  EXPECT_TRUE(r.a_static && r.data);
  EXPECT_GT(r.verified.logits, 0);
  EXPECT_LE(r.verified.worst_logit, r.verified.allowed_logit);
  const auto scales = scales_of(r.out);
  EXPECT_EQ(scales.size(), r.layers.size());
  const auto largest = largest_inputs(kExample);
  ASSERT_EQ(largest.size(), 7u);
  for (const auto& [layer, most] : largest) {
    ASSERT_EQ(scales.count(layer), 1u) << layer;
    EXPECT_NEAR(scales.at(layer) * 127.5 / most, 1, 0x1p-8) << layer;  // bf16 in the file
  }
  const Json act = Json::read_file(r.out + "/config.json").at("quantization_config").at("config_groups").at("group_0").at("input_activations");
  EXPECT_EQ(act.at("strategy").as_string(), "tensor");
  EXPECT_FALSE(act.at("dynamic").as_bool());
}

TEST(StaticScales, AreOfTheScaledInputsBehindSmoothquant) {
  TempDir dir;
  const QuantizeReport r = quantize(options("smoothquant", dir / "q"));
  EXPECT_LE(r.verified.worst_logit, r.verified.allowed_logit);
  const auto before = largest_inputs(kExample);
  // The folder's own first block over the samples: norms carry the divisors.
  const auto after = largest_inputs(r.out), scales = scales_of(r.out);
  int changed = 0;
  for (const auto& [layer, most] : after) {
    if (!layer.ends_with("q_proj") && !layer.ends_with("gate_proj")) continue;  // others see what rounded layers give
    EXPECT_NEAR(scales.at(layer) * 127.5 / most, 1, layer.ends_with("q_proj") ? 0.02 : 0.1) << layer;
    changed += std::abs(most / before.at(layer) - 1) > 0.1;
  }
  EXPECT_GT(changed, 0);
  QuantizeOptions again = options("smoothquant", dir / "again");
  again.scales = r.out + "/" + kScalesName;
  EXPECT_TRUE(quantize(again).data);  // scales need no samples, static activations do
  EXPECT_EQ(sha256_file(r.out + "/model.safetensors"), sha256_file(again.out + "/model.safetensors"));
}

TEST(StaticScales, WhatTheyNeedIsSaid) {
  TempDir dir;
  QuantizeOptions o = options("rtn", dir / "q");
  o.a_bits = 16;
  EXPECT_NE(message_of([&] { quantize(o); }).find("--a-static is about quantized activations"), std::string::npos);
}

}  // namespace
}  // namespace statera
