// Orders that NumPy 2.4 gives for the same seed.
#include "quant/calib/numpy_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace statera {
namespace {

// Every element and its place: a wrong draw anywhere changes it.
uint64_t digest(const std::vector<size_t>& order) {
  uint64_t h = 0;
  for (size_t v : order) h = h * 1000003 + v;
  return h;
}

TEST(NumpyOrder, TenItemsComeInTheKnownOrder) { EXPECT_EQ(numpy_order(10), (std::vector<size_t>{5, 6, 0, 7, 3, 2, 4, 9, 1, 8})); }

TEST(NumpyOrder, LongerListsEqualNumpyInEveryPlace) {
  EXPECT_EQ(numpy_order(2), (std::vector<size_t>{1, 0}));
  EXPECT_EQ(numpy_order(3), (std::vector<size_t>{2, 1, 0}));
  EXPECT_EQ(digest(numpy_order(17)), 0x42c542dc3892b224u);
  EXPECT_EQ(digest(numpy_order(1000)), 0x6889ee13cebc8da2u);
  EXPECT_EQ(digest(numpy_order(65536)), 0x99743ed254d1aa1eu);
  EXPECT_EQ(digest(numpy_order(100000)), 0xe1504dc676e136fau);
  const std::vector<size_t> order = numpy_order(100000), first{45262, 49850, 30394, 90177, 95569, 10900, 193, 98908};
  EXPECT_TRUE(std::equal(first.begin(), first.end(), order.begin()));
}

TEST(NumpyOrder, NothingAndOneItemStayAsTheyAre) {
  EXPECT_TRUE(numpy_order(0).empty());
  EXPECT_EQ(numpy_order(1), std::vector<size_t>{0});
}

}  // namespace
}  // namespace statera
