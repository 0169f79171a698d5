// rtn_rows against compressed-tensors' own arithmetic: digests of codes, scales (as fp32) and zero points (tools/golden/rtn.py).
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "base/rng.h"
#include "quant/methods/rtn/algo.h"
#include "quant/sha256.h"

namespace statera {
namespace {

constexpr int64_t kRows = 24, kColumns = 192;

struct Golden {
  at::ScalarType dtype;
  int bits;
  int64_t group;
  bool symmetric;
  uint64_t seed;
  const char* digest;
};

// torch 2.15.0, compressed-tensors 0.20.0
constexpr Golden kGoldens[] = {
    {at::kFloat, 2, -1, true, 1, "803ed085e681e68c"},     {at::kFloat, 2, -1, false, 2, "831115ceb30a2fe9"},
    {at::kFloat, 2, 32, true, 3, "e309784d080673ac"},     {at::kFloat, 2, 32, false, 4, "fe53d8ada21f8d4d"},
    {at::kFloat, 2, 64, true, 5, "a15fd54c1a32a470"},     {at::kFloat, 2, 64, false, 6, "3acbbefc577b475b"},
    {at::kFloat, 3, -1, true, 7, "6a78c2149600831f"},     {at::kFloat, 3, -1, false, 8, "12e3608660fdf51b"},
    {at::kFloat, 3, 32, true, 9, "8cec920a5d38ec49"},     {at::kFloat, 3, 32, false, 10, "d8de55bdcbdcadf6"},
    {at::kFloat, 3, 64, true, 11, "c5edd37a6a6e11e5"},    {at::kFloat, 3, 64, false, 12, "38cdeed75c13c528"},
    {at::kFloat, 4, -1, true, 13, "ed41ca2bc6762a51"},    {at::kFloat, 4, -1, false, 14, "c433273b2bbcff2e"},
    {at::kFloat, 4, 32, true, 15, "ecdd042531d99e1c"},    {at::kFloat, 4, 32, false, 16, "f5a932b01705b639"},
    {at::kFloat, 4, 64, true, 17, "45902f5a079931bd"},    {at::kFloat, 4, 64, false, 18, "316cf7e146e23b3b"},
    {at::kFloat, 5, -1, true, 19, "64b14de9d92f72e2"},    {at::kFloat, 5, -1, false, 20, "61630eb51fe7d7d4"},
    {at::kFloat, 5, 32, true, 21, "68c0ec56ef0ac5aa"},    {at::kFloat, 5, 32, false, 22, "8d2684c05e90ff08"},
    {at::kFloat, 5, 64, true, 23, "683667a77bf768e3"},    {at::kFloat, 5, 64, false, 24, "a360d42b788ae2fa"},
    {at::kFloat, 6, -1, true, 25, "e8695cb9eebb803d"},    {at::kFloat, 6, -1, false, 26, "0186b413805a0eba"},
    {at::kFloat, 6, 32, true, 27, "d509c73533b7c3f2"},    {at::kFloat, 6, 32, false, 28, "50703ab54a54c57f"},
    {at::kFloat, 6, 64, true, 29, "cde7a0b8b0c531a4"},    {at::kFloat, 6, 64, false, 30, "a92dfddfe96bb350"},
    {at::kFloat, 7, -1, true, 31, "d4aefa53bdf5f844"},    {at::kFloat, 7, -1, false, 32, "6ebb8c640a4415c0"},
    {at::kFloat, 7, 32, true, 33, "79f5df9b8d49e9d4"},    {at::kFloat, 7, 32, false, 34, "0588f8ed2349af39"},
    {at::kFloat, 7, 64, true, 35, "da64ccad3c1ea7fe"},    {at::kFloat, 7, 64, false, 36, "73b5845bf5d5d27d"},
    {at::kFloat, 8, -1, true, 37, "5f6c0f0beb310f0a"},    {at::kFloat, 8, -1, false, 38, "a6077a5b7b0dd83a"},
    {at::kFloat, 8, 32, true, 39, "48caf6ba44e5ca0c"},    {at::kFloat, 8, 32, false, 40, "264459526c15624f"},
    {at::kFloat, 8, 64, true, 41, "c41d5f9451197268"},    {at::kFloat, 8, 64, false, 42, "5bca9a7678184135"},
    {at::kBFloat16, 2, -1, true, 43, "104e87b888808d78"}, {at::kBFloat16, 2, -1, false, 44, "35a9d058187b23c2"},
    {at::kBFloat16, 2, 32, true, 45, "729f831def617c2c"}, {at::kBFloat16, 2, 32, false, 46, "945902c0df921729"},
    {at::kBFloat16, 2, 64, true, 47, "e7f86c4b6bcd7da1"}, {at::kBFloat16, 2, 64, false, 48, "4170318c6494e91f"},
    {at::kBFloat16, 3, -1, true, 49, "165360db95bb647d"}, {at::kBFloat16, 3, -1, false, 50, "998800e74691feef"},
    {at::kBFloat16, 3, 32, true, 51, "6a35ce6d9bd12137"}, {at::kBFloat16, 3, 32, false, 52, "1788353f18c1552c"},
    {at::kBFloat16, 3, 64, true, 53, "276da6c351f90767"}, {at::kBFloat16, 3, 64, false, 54, "e8a8b14ca909531a"},
    {at::kBFloat16, 4, -1, true, 55, "13c9655d90065ce0"}, {at::kBFloat16, 4, -1, false, 56, "16f067c18d8169d7"},
    {at::kBFloat16, 4, 32, true, 57, "c05962e06320baef"}, {at::kBFloat16, 4, 32, false, 58, "e6f46572f0519502"},
    {at::kBFloat16, 4, 64, true, 59, "052caa5ef569c28f"}, {at::kBFloat16, 4, 64, false, 60, "ac1e05ad6813186b"},
    {at::kBFloat16, 5, -1, true, 61, "17e54a529828d748"}, {at::kBFloat16, 5, -1, false, 62, "566fdba14e08aafa"},
    {at::kBFloat16, 5, 32, true, 63, "2efc003443928fc1"}, {at::kBFloat16, 5, 32, false, 64, "096c48d5f6ddf2f9"},
    {at::kBFloat16, 5, 64, true, 65, "9c371fd7e3d7c6e7"}, {at::kBFloat16, 5, 64, false, 66, "6e93930f75d1d75d"},
    {at::kBFloat16, 6, -1, true, 67, "0b043bcdec67bbe5"}, {at::kBFloat16, 6, -1, false, 68, "76c5c11b85947095"},
    {at::kBFloat16, 6, 32, true, 69, "e05d8ad36cb40358"}, {at::kBFloat16, 6, 32, false, 70, "b853328a19c9cd31"},
    {at::kBFloat16, 6, 64, true, 71, "89aaecfc651ff89c"}, {at::kBFloat16, 6, 64, false, 72, "961cf6ce32fb79b2"},
    {at::kBFloat16, 7, -1, true, 73, "dd8b0b74ef027dd5"}, {at::kBFloat16, 7, -1, false, 74, "7739a2acef56697b"},
    {at::kBFloat16, 7, 32, true, 75, "3187248d4e6f3550"}, {at::kBFloat16, 7, 32, false, 76, "a8b9eeeb607417e6"},
    {at::kBFloat16, 7, 64, true, 77, "5de1dbad27de4de8"}, {at::kBFloat16, 7, 64, false, 78, "cede0a7d1e9d74e0"},
    {at::kBFloat16, 8, -1, true, 79, "840b4748504fd365"}, {at::kBFloat16, 8, -1, false, 80, "6e37041a8bd7224f"},
    {at::kBFloat16, 8, 32, true, 81, "323f88bd6cda68be"}, {at::kBFloat16, 8, 32, false, 82, "5244d28de2150470"},
    {at::kBFloat16, 8, 64, true, 83, "7d5178156e436360"}, {at::kBFloat16, 8, 64, false, 84, "749f603d092ad214"},
    {at::kHalf, 2, -1, true, 85, "80697f9656165cb5"},     {at::kHalf, 2, -1, false, 86, "d1a96b78b6c72210"},
    {at::kHalf, 2, 32, true, 87, "1c9523b398f75f6a"},     {at::kHalf, 2, 32, false, 88, "5a12efaed1dab5fb"},
    {at::kHalf, 2, 64, true, 89, "1bcca0a75c55a843"},     {at::kHalf, 2, 64, false, 90, "9b9f3cdb32be1fa7"},
    {at::kHalf, 3, -1, true, 91, "9318464f140fc43e"},     {at::kHalf, 3, -1, false, 92, "7551474a6c407a18"},
    {at::kHalf, 3, 32, true, 93, "98d02dc94eeb61ac"},     {at::kHalf, 3, 32, false, 94, "55d61d5a068f6e2b"},
    {at::kHalf, 3, 64, true, 95, "5f29594155d06157"},     {at::kHalf, 3, 64, false, 96, "5896b6cf3a1a74b8"},
    {at::kHalf, 4, -1, true, 97, "5408576f851d5e87"},     {at::kHalf, 4, -1, false, 98, "0c954f3e06613543"},
    {at::kHalf, 4, 32, true, 99, "b67c8e59b74b7d0f"},     {at::kHalf, 4, 32, false, 100, "1918e2b8e87317c6"},
    {at::kHalf, 4, 64, true, 101, "a10fef4b5e9967d0"},    {at::kHalf, 4, 64, false, 102, "1165dffae791e9d7"},
    {at::kHalf, 5, -1, true, 103, "b5ad7c43de6155e1"},    {at::kHalf, 5, -1, false, 104, "fb239bda323991c5"},
    {at::kHalf, 5, 32, true, 105, "3624d7901fc0c0c0"},    {at::kHalf, 5, 32, false, 106, "5323051b039ae471"},
    {at::kHalf, 5, 64, true, 107, "14edd4effb354c18"},    {at::kHalf, 5, 64, false, 108, "641685e49f96fdcf"},
    {at::kHalf, 6, -1, true, 109, "ce793bba203e94f3"},    {at::kHalf, 6, -1, false, 110, "37d27f4fa3563b08"},
    {at::kHalf, 6, 32, true, 111, "3063b8e2f23f99dd"},    {at::kHalf, 6, 32, false, 112, "28ca2e95db8592dd"},
    {at::kHalf, 6, 64, true, 113, "0614746ab628a0f6"},    {at::kHalf, 6, 64, false, 114, "3dc74a6ede2e3a16"},
    {at::kHalf, 7, -1, true, 115, "8418cded66b98c45"},    {at::kHalf, 7, -1, false, 116, "6f796a377cc475de"},
    {at::kHalf, 7, 32, true, 117, "58dcf8248d4e9653"},    {at::kHalf, 7, 32, false, 118, "1037ac653ecee922"},
    {at::kHalf, 7, 64, true, 119, "2f279e017bfd6f2c"},    {at::kHalf, 7, 64, false, 120, "b4cdc98499ff0de1"},
    {at::kHalf, 8, -1, true, 121, "61b2359160b5ed57"},    {at::kHalf, 8, -1, false, 122, "bc503cab499fbd25"},
    {at::kHalf, 8, 32, true, 123, "0166e8a8372df255"},    {at::kHalf, 8, 32, false, 124, "145250159caf8961"},
    {at::kHalf, 8, 64, true, 125, "8123f325dc86dee7"},    {at::kHalf, 8, 64, false, 126, "f375721da99d322d"},
};

// Uniform weights, of magnitudes that change by row; row 5 is zero, row 7 positive, row 9 negative.
at::Tensor matrix(uint64_t seed, at::ScalarType dtype) {
  Rng rng(seed);
  at::Tensor w = at::zeros({kRows, kColumns}, at::kFloat);
  float* p = w.mutable_data_ptr<float>();
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kColumns; ++c) {
      float v = static_cast<float>((rng.uniform_at(static_cast<uint64_t>(r * kColumns + c)) - 0.5) * std::exp2((12 - r % 12) % 12));
      p[r * kColumns + c] = r == 5 ? 0 : r == 7 ? std::abs(v) : r == 9 ? -std::abs(v) : v;
    }
  }
  return w.to(dtype);
}

std::string_view bytes_of(const at::Tensor& t) {
  return {static_cast<const char*>(t.const_data_ptr()), static_cast<size_t>(t.numel()) * t.element_size()};
}

TEST(RtnGolden, CodesScalesAndZeroPointsAreThoseOfCompressedTensors) {
  for (const Golden& g : kGoldens) {
    const QTensor q = rtn_rows(matrix(g.seed, g.dtype), {g.bits, g.group, g.symmetric}).q;
    std::string all(bytes_of(q.q));
    all += bytes_of(q.scale.to(at::kFloat));
    if (!g.symmetric) all += bytes_of(q.zero);
    EXPECT_EQ(sha256(all).substr(0, 16), g.digest)
        << c10::toString(g.dtype) << " bits " << g.bits << " group " << g.group << " symmetric " << g.symmetric;
  }
}

}  // namespace
}  // namespace statera
