// Words of packed codes against the worked examples of docs/formats.md.
#include "ckpt/packing.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <initializer_list>

namespace statera {
namespace {

at::Tensor codes(std::initializer_list<int> values) {
  return at::tensor(std::vector<int>(values), at::kInt).to(at::kChar).reshape({1, -1});
}
at::Tensor words(std::initializer_list<uint32_t> values) {
  std::vector<int> out;
  for (uint32_t v : values) out.push_back(static_cast<int>(v));
  return at::tensor(out, at::kInt).reshape({1, -1});
}

TEST(Packing, FourBitsAreNibblesInOrder) {
  EXPECT_TRUE(at::equal(pack_codes(codes({-8, -7, -1, 0, 1, 2, 6, 7, 3, 3, 3, 3, -4, -4, -4, -4}), 4), words({0xfea98710, 0x4444bbbb})));
  EXPECT_TRUE(at::equal(pack_codes(codes({0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1}), 4), words({0xfedcba98, 0x76543210})));
}

TEST(Packing, EightBitsAreBytesWithTheSignFlipped) {
  EXPECT_TRUE(at::equal(pack_codes(codes({-128, -1, 0, 127}), 8), words({0xff807f00})));
}

TEST(Packing, ThreeBitsStraddleWords) {
  const at::Tensor q = codes({-4, -3, -2, -1, 0, 1, 2, 3, -4, 3, -1, 2});
  EXPECT_TRUE(at::equal(pack_codes(q, 3), words({0xf8fac688, 0x0000000c})));
  EXPECT_TRUE(at::equal(unpack_codes(words({0xf8fac688, 0x0000000c}), 12, 3), q));
}

TEST(Packing, OlderFilesKeepTenThreeBitCodesInAWord) {
  const at::Tensor q = codes({-4, -3, -2, -1, 0, 1, 2, 3, -4, 3, -1, 2});
  EXPECT_TRUE(at::equal(unpack_codes(words({0x38fac688, 0x00000033}), 12, 3, Packing::sparse), q));
}

TEST(Packing, UnpackingUndoesPackingForEveryWidth) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (int64_t columns : {1, 2, 5, 31, 32, 33, 257}) {
      const at::Tensor q = at::randint(-(1 << (bits - 1)), 1 << (bits - 1), {7, columns}, at::kChar);
      const at::Tensor packed = pack_codes(q, bits);
      EXPECT_EQ(packed.size(1), (columns * bits + 31) / 32);
      EXPECT_TRUE(at::equal(unpack_codes(packed, columns, bits), q)) << bits << " bits, " << columns << " columns";
    }
  }
}

}  // namespace
}  // namespace statera
