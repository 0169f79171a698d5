// Every sample in its place whatever thread made it; what a bad item and a broken disk do.

#include "train/loader.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

namespace statera {
namespace {

TrainSample named(uint64_t k) {
  TrainSample s;
  s.where = std::to_string(k);
  s.inputs.input_ids = at::zeros({static_cast<int64_t>(k) + 1}, at::kLong);
  return s;
}

TEST(Loader, HandsOutInOrderWhateverThreadIsFirst) {
  Loader loader(
      [](uint64_t k) {
        std::this_thread::sleep_for(std::chrono::milliseconds(k % 3 == 0 ? 5 : 0));
        return named(k);
      },
      10, 3, 4);
  for (uint64_t k = 10; k < 40; ++k) EXPECT_EQ(loader.next().sample->where, std::to_string(k));
}

TEST(Loader, NeverRunsFurtherAheadThanItMay) {
  std::atomic<uint64_t> most = 0;
  Loader loader(
      [&](uint64_t k) {
        for (uint64_t m = most; k > m && !most.compare_exchange_weak(m, k);) {
        }
        return named(k);
      },
      0, 2, 3);
  for (uint64_t k = 0; k < 20; ++k) {
    loader.next();
    EXPECT_LE(most, k + 3);
  }
}

TEST(Loader, GivesBadItemsInTheirPlaceAndThrowsTheRest) {
  for (int64_t threads : {0, 2}) {
    Loader loader(
        [](uint64_t k) -> TrainSample {
          if (k == 1) throw BadItem(Fault::empty, Error(ErrorKind::bad_file, "line 1: empty"));
          if (k == 2) throw Error(ErrorKind::io, "disk");
          return named(k);
        },
        0, threads, 2);
    EXPECT_TRUE(loader.next().sample.has_value());
    EXPECT_EQ(loader.next().bad->fault(), Fault::empty);
    EXPECT_THROW(loader.next(), Error);
    EXPECT_EQ(loader.next().sample->where, "3");
  }
}

TEST(Loader, CanBeDroppedWhileItWorks) {
  for (int i = 0; i < 20; ++i) {
    Loader loader([](uint64_t k) { return named(k); }, 0, 2, 8);
    if (i % 2) loader.next();
  }
}

}  // namespace
}  // namespace statera
