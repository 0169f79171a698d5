// Tensors by their Hugging Face names in every form that logits.h lists.
#include "ckpt/forward_inputs.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "ckpt/safetensors_write.h"

namespace statera {
namespace {

at::Tensor ids(int64_t b, int64_t l) { return at::arange(b * l, at::kLong).view({b, l}); }

ForwardInputs read(const NamedTensors& tensors) {
  std::string path = testing::TempDir() + "inputs_" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".safetensors";
  write_safetensors(path, tensors);
  return read_forward_inputs(path);
}

std::string fault(const NamedTensors& tensors) {
  try {
    read(tensors);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_file);
    return e.message();
  }
  return "no error";
}

TEST(ForwardInputs, SequencesLieOneAfterAnother) {
  auto in = read({{"input_ids", ids(2, 3).to(at::kInt)}, {"mm_token_type_ids", ids(2, 3)}, {"logits", at::zeros({1})}});
  EXPECT_TRUE(at::equal(in.inputs.input_ids, at::arange(6, at::kLong)));
  EXPECT_EQ(in.inputs.bounds, (SequenceBounds{0, 3, 6}));
  EXPECT_FALSE(in.inputs.position_ids.defined());
  EXPECT_EQ(in.unflatten(at::zeros({6, 5})).sizes(), at::IntArrayRef({2, 3, 5}));
}

TEST(ForwardInputs, MaskedRowsAreLeftOutOnEitherSideAndComeBackAsZeros) {
  at::Tensor mask = at::tensor({0, 1, 1, 1, 1, 0}, at::TensorOptions(at::kLong)).view({2, 3});
  auto in = read({{"input_ids", ids(2, 3)}, {"attention_mask", mask}, {"position_ids", at::arange(18, at::kLong).view({3, 2, 3})}});
  EXPECT_TRUE(at::equal(in.inputs.input_ids, at::tensor({1, 2, 3, 4}, at::TensorOptions(at::kLong))));
  EXPECT_EQ(in.inputs.bounds, (SequenceBounds{0, 2, 4}));
  EXPECT_TRUE(at::equal(in.inputs.position_ids[1], at::tensor({7, 8, 9, 10}, at::TensorOptions(at::kLong))));
  at::Tensor back = in.unflatten(at::ones({4, 2}));
  EXPECT_TRUE(at::equal(back.sum(2), mask.to(at::kFloat) * 2));
}

TEST(ForwardInputs, PositionsMayHaveEveryPublishedShape) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{4}, {1, 4}, {3, 4}, {3, 1, 4}, {4, 1, 4}}) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    at::Tensor p = at::arange(n, at::kLong).view(shape);
    auto in = read({{"input_ids", ids(1, 4)}, {"position_ids", p}});
    EXPECT_EQ(in.inputs.position_ids.dim(), shape.size() == 1 || shape[0] == 1 ? 1 : 2);
    EXPECT_EQ(in.inputs.position_ids.reshape({-1})[0].item<int64_t>(), shape.size() == 3 && shape[0] == 4 ? 4 : 0);
  }
}

TEST(ForwardInputs, FaultsNameFileTensorAndShape) {
  at::Tensor grid = at::tensor({1, 4, 2}, at::TensorOptions(at::kLong)).view({1, 3}), pixels = at::zeros({8, 12});
  auto with = [](const char* name, const at::Tensor& t) { return NamedTensors{{"input_ids", ids(1, 4)}, {name, t}}; };
  EXPECT_NE(fault({{"x", pixels}}).find("tensor input_ids: missing"), std::string::npos);
  EXPECT_NE(fault({{"input_ids", pixels}}).find("must hold integers"), std::string::npos);
  EXPECT_NE(fault(with("position_ids", ids(2, 4))).find("shape [2, 4]"), std::string::npos);
  EXPECT_NE(fault(with("attention_mask", ids(1, 3))).find("shape [1, 3]"), std::string::npos);
  EXPECT_NE(fault(with("attention_mask", at::zeros({1, 4}, at::kLong))).find("masked whole"), std::string::npos);
  EXPECT_NE(fault(with("pixel_values", pixels)).find("tensor image_grid_thw: missing"), std::string::npos);
  EXPECT_NE(fault(with("image_grid_thw", grid)).find("tensor pixel_values: missing"), std::string::npos);
  EXPECT_NE(fault(with("image_grid_thw", grid.view({3}))).find("expected [n, 3]"), std::string::npos);
  EXPECT_NE(fault({{"input_ids", ids(1, 4)}, {"pixel_values", at::zeros({7, 12})}, {"image_grid_thw", grid}}).find("[8, patch]"),
            std::string::npos);
}

}  // namespace
}  // namespace statera
