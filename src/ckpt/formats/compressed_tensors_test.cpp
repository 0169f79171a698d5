// Tensors of compressed-tensors layers: worked examples, goldens of the package, and files that do not fit.
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "ckpt/format.h"
#include "ckpt/test_files.h"

namespace statera {
namespace {

const Format& format() { return format_named("compressed-tensors"); }

at::Tensor worked_matrix() {
  return at::tensor({-.8, -.4, 0., .7, .1, .2, .3, 1.5, .75, -.75, .3, -.3, .05, -.05, 0., 0.}, at::kDouble).to(at::kFloat).reshape({2, 8});
}

std::map<std::string, at::Tensor> encoded(const at::Tensor& w, const QSpec& spec, std::optional<ActQuant> act = {}) {
  StoredLinear l{"m", w.size(0), w.size(1), spec, act, w.scalar_type()};
  std::map<std::string, at::Tensor> out;
  const NamedTensors tensors = format().encode(l, rtn(w, spec));
  const auto plan = format().plan(l);
  EXPECT_EQ(plan.size(), tensors.size());
  for (size_t i = 0; i < plan.size(); ++i) {
    EXPECT_EQ(plan[i].name, tensors[i].first);
    EXPECT_EQ(plan[i].shape, tensors[i].second.sizes().vec()) << plan[i].name;
    EXPECT_EQ(plan[i].dtype, tensors[i].second.scalar_type()) << plan[i].name;
    out[tensors[i].first.substr(2)] = tensors[i].second;
  }
  return out;
}

std::vector<uint32_t> words(const at::Tensor& t) {
  const at::Tensor c = t.contiguous();
  const auto* p = reinterpret_cast<const uint32_t*>(c.const_data_ptr<int32_t>());
  return {p, p + c.numel()};
}

TEST(CompressedTensors, TheWorkedSymmetricGroupsAreByteEqual) {
  auto t = encoded(worked_matrix(), {4, 4, true});
  EXPECT_EQ(words(t["weight_packed"]), (std::vector<uint32_t>{0xfa98f840, 0x880f5b0f}));
  const float* s = t["weight_scale"].const_data_ptr<float>();
  EXPECT_NEAR(s[0], .106667, 1e-6);
  EXPECT_NEAR(s[3], .00666667, 1e-8);
  EXPECT_EQ(t.count("weight_zero_point"), 0u);
  EXPECT_TRUE(at::equal(t["weight_shape"], at::tensor({2, 8}, at::kLong)));
}

TEST(CompressedTensors, TheWorkedAsymmetricGroupsAreByteEqual) {
  auto t = encoded(worked_matrix(), {4, 4, false});
  EXPECT_EQ(words(t["weight_packed"])[0], 0xf321f840u);
  EXPECT_EQ(t["weight_zero_point"].sizes().vec(), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(words(t["weight_zero_point"]), (std::vector<uint32_t>{0x88, 0x80}));
}

TEST(CompressedTensors, TheWorkedChannelIsByteEqual) {
  EXPECT_EQ(words(encoded(worked_matrix(), {4, -1, true})["weight_packed"])[0], 0xfa98c864u);
}

TEST(CompressedTensors, TheWorkedInt8LayerHasPlainCodes) {
  auto t = encoded(worked_matrix(), {8, -1, true}, ActQuant{8});
  EXPECT_TRUE(at::equal(t["weight"][0], at::tensor({-68, -34, 0, 59, 8, 17, 26, 127}, at::kInt).to(at::kChar)));
  EXPECT_EQ(t["weight"][1][0].item<int>(), 127);
  EXPECT_EQ(t["weight"][1][1].item<int>(), -128);
  EXPECT_NEAR(t["weight_scale"][0][0].item<float>(), .01176471, 1e-8);
  EXPECT_EQ(t.count("weight_packed"), 0u);
}

TEST(CompressedTensors, ZeroPointsArePackedAlongTheOutputs) {
  QTensor q{{4, 4, false}, at::zeros({16, 8}, at::kChar), at::ones({16, 2}), at::zeros({16, 2}, at::kChar)};
  for (int r = 0; r < 16; ++r) {
    q.zero[r][0] = r - 8;
    q.zero[r][1] = 7 - r;
  }
  for (auto& [name, t] : format().encode({"m", 16, 8, q.spec, {}, at::kFloat}, q)) {
    if (name != "m.weight_zero_point") continue;
    EXPECT_EQ(t.sizes().vec(), (std::vector<int64_t>{2, 2}));
    EXPECT_EQ(words(t), (std::vector<uint32_t>{0x76543210, 0x89abcdef, 0xfedcba98, 0x01234567}));
  }
}

// tests/golden/formats.safetensors: what compressed-tensors 0.20.0 stores for random matrices (tools/golden/formats.py).
TEST(CompressedTensors, RandomMatricesEqualThePackageBitForBit) {
  SafetensorsFile golden(std::string(STATERA_SOURCE_DIR) + "/tests/golden/formats.safetensors");
  std::string cases;
  for (const auto& [key, value] : golden.metadata()) {
    if (key == "cases") cases = value;
  }
  int checked = 0, values = 0;
  const Json parsed = Json::parse(cases, "cases");
  for (const auto& [name, j] : parsed.as_object()) {
    const QSpec spec{static_cast<int>(j.at("bits").as_int()), j.at("group").as_int(), j.at("symmetric").as_bool()};
    std::optional<ActQuant> act;
    if (j.at("int8").as_bool()) act = ActQuant{8};
    const at::Tensor w = golden.tensor(j.at("weight").as_string());
    for (const auto& [field, t] : encoded(w, spec, act)) {
      EXPECT_TRUE(at::equal(t, golden.tensor(name + "." + field))) << name << "." << field;
      ++checked;
    }
    if (golden.find(name + ".dequantized")) {
      EXPECT_TRUE(at::equal(rtn(w, spec).dequantize(w.scalar_type()), golden.tensor(name + ".dequantized"))) << name;
      ++values;
    }
  }
  EXPECT_GT(checked, 200);
  EXPECT_GT(values, 40);
}

// A checkpoint of one layer "m" as `tensors` and `config` say.
struct OneLayer {
  TempDir dir;
  Checkpoint open(const NamedTensors& tensors, const Json& quantization) {
    Json config = Json::object();
    config.set("quantization_config", quantization);
    write_text(dir / "config.json", config.dump());
    write_safetensors(dir / "model.safetensors", tensors);
    return Checkpoint::open(dir);
  }
};

TEST(CompressedTensors, WhatIsWrittenIsReadBackExactly) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (int64_t group : {16, -1}) {
      for (bool symmetric : {true, false}) {
        for (const std::optional<ActQuant>& activations : {std::optional<ActQuant>(), std::optional(ActQuant{8}), std::optional(ActQuant{8, -1, true, 0.0625f})}) {
          const QSpec spec{bits, group, symmetric};
          const QTensor q = rtn(at::randn({24, 48}).to(at::kBFloat16), spec);
          StoredLinear l{"m", 24, 48, spec, activations, at::kBFloat16};
          OneLayer one;
          Checkpoint c = one.open(format().encode(l, q), format().quantization_config({l}, {}));
          auto described = format().describe(c, *c.quantization_config(), "m", 24, 48);
          ASSERT_TRUE(described);
          EXPECT_EQ(described->spec, spec);
          EXPECT_EQ(described->scale_dtype, at::kBFloat16);
          std::optional<ActQuant> act;
          Weight w = format().read(c, *c.quantization_config(), "m", 24, 48, act);
          EXPECT_EQ(act, l.act);
          std::optional<QTensor> back = w->unpack();
          ASSERT_TRUE(back);
          EXPECT_TRUE(at::equal(back->q, q.q)) << bits << " " << group;
          EXPECT_TRUE(at::equal(back->dequantize(), q.dequantize())) << bits << " " << group << " " << symmetric;
          for (const std::string& name : c.names()) EXPECT_TRUE(c.used(name)) << name;
        }
      }
    }
  }
}

TEST(CompressedTensors, AFloatingLayerIsNotQuantizedWhateverTheConfigTargets) {
  StoredLinear l{"m", 4, 8, {4, 4, true}, {}, at::kFloat};
  OneLayer one;
  Checkpoint c = one.open({{"m.weight", at::ones({4, 8})}}, format().quantization_config({l}, {}));
  EXPECT_FALSE(format().describe(c, *c.quantization_config(), "m", 4, 8));
}

TEST(CompressedTensors, OlderFilesWithUnusedBitsAreReadByVersion) {
  StoredLinear l{"m", 1, 12, {3, -1, true}, {}, at::kFloat};
  Json config = format().quantization_config({l}, {});
  config.set("version", "0.17.0");
  const at::Tensor packed = at::tensor({0x38fac688, 0x33}, at::kInt).reshape({1, 2});
  OneLayer one;
  Checkpoint c = one.open(
      {{"m.weight_packed", packed}, {"m.weight_scale", at::ones({1, 1})}, {"m.weight_shape", at::tensor({1, 12}, at::kLong)}}, config);
  std::optional<ActQuant> act;
  const at::Tensor expected = at::tensor({-4, -3, -2, -1, 0, 1, 2, 3, -4, 3, -1, 2}, at::kInt).to(at::kFloat).reshape({1, 12});
  EXPECT_TRUE(at::equal(format().read(c, config, "m", 1, 12, act)->unpack()->dequantize(), expected));
}

TEST(CompressedTensors, AScaleOfTheWholeTensorServesEveryRow) {
  StoredLinear l{"m", 2, 4, {8, -1, true}, ActQuant{8}, at::kFloat};
  OneLayer one;
  Checkpoint c =
      one.open({{"m.weight", at::ones({2, 4}, at::kChar)}, {"m.weight_scale", at::ones({1}) * 0.5}}, format().quantization_config({l}, {}));
  std::optional<ActQuant> act;
  EXPECT_TRUE(at::equal(format().read(c, *c.quantization_config(), "m", 2, 4, act)->unpack()->dequantize(), at::ones({2, 4}) * 0.5));
}

TEST(CompressedTensors, StaticScalesOfInputsMustBePositiveNumbers) {
  const StoredLinear l{"m", 8, 16, {8, -1, true}, ActQuant{8, -1, true, 0.5f}, at::kFloat};
  const QTensor q = rtn(at::randn({8, 16}), l.spec);
  for (const auto& [value, says] : std::vector<std::pair<at::Tensor, const char*>>{
           {at::zeros({1}), "expected a positive number"}, {at::ones({1}) / 0, "expected a positive number"}, {at::ones({2}), "shape [2]"}, {{}, "missing"}}) {
    NamedTensors tensors = format().encode(l, q);
    ASSERT_EQ(tensors.back().first, "m.input_scale");
    EXPECT_EQ(tensors.back().second.item<float>(), 0.5f);
    tensors.pop_back();
    if (value.defined()) tensors.emplace_back("m.input_scale", value);
    OneLayer one;
    Checkpoint c = one.open(tensors, format().quantization_config({l}, {}));
    try {
      format().describe(c, *c.quantization_config(), "m", 8, 16);
      ADD_FAILURE() << says;
    } catch (const Error& e) {
      EXPECT_NE(e.message().find("tensor m.input_scale"), std::string::npos) << e.message();
      EXPECT_NE(e.message().find(says), std::string::npos) << e.message();
    }
  }
  StoredLinear odd = l;
  odd.scale_dtype = at::kBFloat16;
  odd.act->scale = 0.1f;
  EXPECT_THROW(format().encode(odd, q), Bug);
}

TEST(CompressedTensors, TensorsThatDoNotFitAreNamed) {
  const StoredLinear l{"m", 8, 16, {4, 8, false}, {}, at::kFloat};
  const QTensor q = rtn(at::randn({8, 16}), l.spec);
  struct Change {
    const char* tensor;
    at::Tensor value;  // undefined: left out
    const char* says;
  };
  const Change changes[] = {
      {"m.weight_packed", at::zeros({8, 3}, at::kInt), "I32 [8, 3], expected I32 [8, 2]"},
      {"m.weight_packed", at::zeros({8, 2}, at::kLong), "I64 [8, 2], expected I32 [8, 2]"},
      {"m.weight_scale", at::ones({8, 1}), "shape [8, 1], expected [8, 2]"},
      {"m.weight_scale", at::ones({8, 2}, at::kInt), "scales of dtype I32"},
      {"m.weight_scale", at::ones({8, 2}) / 0, "infinite or NaN"},
      {"m.weight_scale", {}, "missing"},
      {"m.weight_shape", at::tensor({8, 15}, at::kLong), "says [8, 15], expected [8, 16]"},
      {"m.weight_shape", {}, "missing"},
      {"m.weight_zero_point", at::zeros({8, 2}, at::kInt), "expected I32 [1, 2]"},
      {"m.weight_zero_point", {}, "missing"},
  };
  for (const Change& change : changes) {
    NamedTensors tensors;
    for (auto& [name, t] : format().encode(l, q)) {
      if (name != change.tensor) tensors.emplace_back(name, t);
    }
    if (change.value.defined()) tensors.emplace_back(change.tensor, change.value);
    OneLayer one;
    Checkpoint c = one.open(tensors, format().quantization_config({l}, {}));
    std::optional<ActQuant> act;
    try {
      format().read(c, *c.quantization_config(), "m", 8, 16, act);
      ADD_FAILURE() << change.tensor << ": " << change.says;
    } catch (const Error& e) {
      EXPECT_NE(e.message().find(std::string("tensor ") + change.tensor), std::string::npos) << e.message();
      EXPECT_NE(e.message().find(change.says), std::string::npos) << e.message();
    }
  }
}

TEST(CompressedTensors, CodesOutsideTheirBitsAreRefused) {
  StoredLinear l{"m", 2, 4, {4, -1, true}, ActQuant{8}, at::kFloat};
  OneLayer one;
  Checkpoint c = one.open({{"m.weight", at::ones({2, 4}, at::kChar) * 8}, {"m.weight_scale", at::ones({2, 1})}},
                          format().quantization_config({l}, {}));
  std::optional<ActQuant> act;
  EXPECT_THROW(format().read(c, *c.quantization_config(), "m", 2, 4, act), Error);
}

TEST(CompressedTensors, ZeroPointsOutsideTheirBitsAreNotWritten) {
  const StoredLinear l{"m", 2, 8, {3, 4, false}, {}, at::kFloat};
  QTensor q = rtn(worked_matrix(), l.spec);
  q.zero.fill_(3);
  format().encode(l, q);
  q.zero[1][0] = 4;
  try {
    format().encode(l, q);
    FAIL() << "written";
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "m: zero points from 3 to 4 do not fit 3 bits");
  }
}

TEST(CompressedTensors, OwnRangesAreReadBackExactly) {
  for (int bits : {2, 3, 4, 8}) {
    const StoredLinear l{"m", 2, 8, {.bits = bits, .group = 4, .symmetric = false, .own_range = true}, {}, at::kFloat};
    const QTensor q = rtn(worked_matrix() + 0.5, l.spec);
    OneLayer one;
    Checkpoint c = one.open(format().encode(l, q), format().quantization_config({l}, {}));
    std::optional<ActQuant> act;
    EXPECT_TRUE(at::equal(format().read(c, *c.quantization_config(), "m", 2, 8, act)->dense(), q.dequantize()));
  }
}

TEST(CompressedTensors, UnknownSchemesAndMethodsAreUnsupportedByName) {
  OneLayer one;
  Json config = Json::parse(R"({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups": {"group_0":
    {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float", "group_size": 16}}}})",
                            "config");
  Checkpoint c = one.open({{"m.weight_packed", at::zeros({4, 8}, at::kByte)}}, config);
  std::optional<ActQuant> act;
  try {
    format().read(c, config, "m", 4, 16, act);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::unsupported);
    EXPECT_NE(e.message().find("format nvfp4-pack-quantized"), std::string::npos) << e.message();
  }
  try {
    format_of(Json::parse(R"({"quant_method": "gptq"})", "config"), "DIR/config.json");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::unsupported);
    EXPECT_NE(e.message().find("\"gptq\""), std::string::npos) << e.message();
  }
}

TEST(CompressedTensors, GroupsThatDoNotDivideTheRowCannotBeWritten) {
  EXPECT_THROW(format().plan({"m", 8, 100, {4, 32, true}, {}, at::kFloat}), Error);
  EXPECT_NO_THROW(format().plan({"m", 8, 96, {4, 32, true}, {}, at::kFloat}));
}

}  // namespace
}  // namespace statera
