// What comes k-th: epochs, seeds and shares.

#include "train/order.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace statera {
namespace {

using Place = std::pair<uint32_t, uint32_t>;

TEST(Order, AnEpochHoldsEveryItemOnceInAnOrderOfItsOwn) {
  Order order({{"a", 5, 100}, {"b", 3, 100}}, 7);
  ASSERT_EQ(order.size(), 8u);
  std::vector<Place> first, second;
  for (uint64_t k = 0; k < 8; ++k) first.push_back(order.at(k));
  for (uint64_t k = 8; k < 16; ++k) second.push_back(order.at(k));
  EXPECT_EQ(std::set<Place>(first.begin(), first.end()).size(), 8u);
  EXPECT_EQ(std::set<Place>(second.begin(), second.end()).size(), 8u);
  EXPECT_NE(first, second);
}

TEST(Order, PlaceKDependsOnTheSeedAlone) {
  Order a({{"a", 100, 100}}, 7), b({{"a", 100, 100}}, 7), other({{"a", 100, 100}}, 8);
  EXPECT_EQ(b.at(250), a.at(250));
  a.at(0);
  EXPECT_EQ(b.at(251), a.at(251));
  bool differs = false;
  for (uint64_t k = 0; k < 100; ++k) differs |= a.at(k) != other.at(k);
  EXPECT_TRUE(differs);
}

TEST(Order, SharesTakeAPartOrRepeat) {
  Order order({{"half", 10, 50}, {"more", 4, 250}}, 1);
  EXPECT_EQ(order.size(), 5u + 10u);
  std::map<Place, int> times;
  for (uint64_t k = 0; k < order.size(); ++k) ++times[order.at(k)];
  int twice = 0, thrice = 0;
  for (const auto& [place, n] : times) {
    if (place.first == 0) {
      EXPECT_EQ(n, 1);
    }
    if (place.first == 1) n == 2 ? ++twice : ++thrice;
  }
  EXPECT_EQ(twice, 2);
  EXPECT_EQ(thrice, 2);
}

TEST(Order, AShareIsDrawnByTheNameOfItsFile) {
  auto drawn = [](const std::string& name) {
    Order order({{name, 40, 50}}, 1, false);
    std::set<uint32_t> out;
    for (uint64_t k = 0; k < order.size(); ++k) out.insert(order.at(k).second);
    return out;
  };
  EXPECT_EQ(drawn("a").size(), 20u);
  EXPECT_EQ(drawn("a"), drawn("a"));
  EXPECT_NE(drawn("a"), drawn("b"));
}

}  // namespace
}  // namespace statera
