// gptq() against a float64 solution in the inverse-Hessian form of the paper (tools/golden/gptq.py, tests/golden/gptq.safetensors).
#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/matmul.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "base/json.h"
#include "ckpt/safetensors.h"
#include "quant/methods/gptq/algo.h"

namespace statera {
namespace {

std::string meta(const SafetensorsFile& file, std::string_view key) {
  for (const auto& [name, value] : file.metadata()) {
    if (name == key) return value;
  }
  ADD_FAILURE() << "no " << key;
  return "[]";
}

// tr(dW G dW^T) in float64.
double loss(const at::Tensor& W_NK, const QTensor& q, const at::Tensor& gram_KK) {
  const at::Tensor off = q.dequantize().to(at::kDouble) - W_NK.to(at::kDouble);
  return (at::matmul(off, gram_KK) * off).sum().item<double>();
}

TEST(GptqGolden, CodesAndLossesAreThoseOfTheInverseHessianFormInDoublePrecision) {
  const SafetensorsFile file("tests/golden/gptq.safetensors");
  const Json cases = Json::parse(meta(file, "cases"), "cases"), losses = Json::parse(meta(file, "losses"), "losses");
  ASSERT_GE(cases.as_array().size(), 8u);
  int64_t weights = 0, far = 0, other = 0;
  for (size_t i = 0; i < cases.as_array().size(); ++i) {
    const Json& c = cases.as_array()[i];
    const std::string layer = c.at("layer").as_string();
    const at::Tensor W = file.tensor(layer + ".w"), x = file.tensor(layer + ".x").to(at::kDouble);
    const at::Tensor gram = at::matmul(x.t(), x);
    const QSpec spec{static_cast<int>(c.at("bits").as_int()), c.at("group").as_int(), c.at("symmetric").as_bool()};
    GptqOptions options;
    options.act_order = c.at("act_order").as_bool();
    const GptqResult r = gptq(W, gram.to(at::kFloat), spec, options);
    SCOPED_TRACE(c.dump());
    const at::Tensor steps = at::abs(r.q.q.to(at::kInt) - file.tensor("case" + std::to_string(i) + ".q").to(at::kInt));
    weights += steps.numel();
    other += (steps > 0).sum().item<int64_t>();
    far += (steps > 1).sum().item<int64_t>();
    const double want = losses.as_array()[i].as_double();
    EXPECT_NEAR(loss(W, r.q, gram) / want, 1, 1e-3);
    EXPECT_NEAR(r.loss / want, 1, 1e-3);
    EXPECT_EQ(r.dead, 1);
  }
  EXPECT_LE(static_cast<double>(far), 1e-4 * static_cast<double>(weights)) << far << " of " << weights;
  RecordProperty("weights", std::to_string(weights));
  RecordProperty("other_code", std::to_string(other));
  RecordProperty("further_than_one", std::to_string(far));
  RecordProperty("share_other", std::to_string(static_cast<double>(other) / static_cast<double>(weights)));
}

}  // namespace
}  // namespace statera
