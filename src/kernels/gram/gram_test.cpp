// gram against sums in double, on every instruction set, for ragged sizes.
#include "kernels/gram/gram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/isa_test.h"

namespace statera::kernels::gram {
namespace {

struct Sizes {
  int64_t rows, columns;
};

std::vector<float> product(const std::vector<float>& x, const Sizes& s, const float* weight, int64_t pieces, int64_t splits) {
  std::vector<float> packed(static_cast<size_t>(packed_size(s.columns)), NAN), g(static_cast<size_t>(s.columns * s.columns), 0.5f);
  for (int64_t p = 0; p < pieces; ++p) {
    const int64_t from = s.rows * p / pieces, to = s.rows * (p + 1) / pieces, middle = panels(s.columns) / 2;
    pack(x.data() + from * s.columns, s.columns, s.columns, from, to - from, packed.data(), 0, middle);
    pack(x.data() + from * s.columns, s.columns, s.columns, from, to - from, packed.data(), middle, panels(s.columns));
  }
  for (int64_t i = 0; i < splits; ++i)
    add(packed.data(), s.rows, s.columns, weight, g.data(), s.columns, strips(s.columns) * i / splits, strips(s.columns) * (i + 1) / splits);
  return g;
}

TEST(Gram, TheLowerTriangleIsTheSumOverRows) {
  for_each_isa([] {
    for (const Sizes s : {Sizes{1, 1}, {3, 16}, {255, 33}, {256, 96}, {300, 130}, {1024, 97}, {1000, 200}}) {
      const auto x = normal(static_cast<size_t>(s.rows * s.columns), 1), w = normal(static_cast<size_t>(s.rows), 2);
      for (const float* weight : {static_cast<const float*>(nullptr), w.data()}) {
        const auto g = product(x, s, weight, 1, 1);
        for (int64_t i = 0; i < s.columns; ++i)
          for (int64_t j = 0; j <= i; ++j) {
            double sum = 0.5, size = 0.5;
            for (int64_t t = 0; t < s.rows; ++t) {
              const double one = static_cast<double>(weight ? weight[t] : 1) * x[static_cast<size_t>(t * s.columns + i)] * x[static_cast<size_t>(t * s.columns + j)];
              sum += one;
              size += std::abs(one);
            }
            ASSERT_NEAR(g[static_cast<size_t>(i * s.columns + j)], sum, size * 1e-6 + 1e-6) << s.rows << "x" << s.columns << " at " << i << "," << j;
          }
      }
    }
  });
}

TEST(Gram, NeitherTheSplitOfRowsNorOfStripsChangesABit) {
  for_each_isa([] {
    const Sizes s{777, 310};
    const auto x = normal(static_cast<size_t>(s.rows * s.columns), 3);
    const auto whole = product(x, s, nullptr, 1, 1), parts = product(x, s, nullptr, 5, 3);
    for (int64_t i = 0; i < s.columns; ++i)
      for (int64_t j = 0; j <= i; ++j) ASSERT_EQ(whole[static_cast<size_t>(i * s.columns + j)], parts[static_cast<size_t>(i * s.columns + j)]);
  });
}

}  // namespace
}  // namespace statera::kernels::gram
