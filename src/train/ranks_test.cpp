// What several processes share: slices, launcher's variables, rounds among ranks (threads of this process over loopback), dealing of samples.
#include "train/ranks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <map>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "train/deal.h"
#include "train/slices.h"

namespace statera {
namespace {

using std::chrono::milliseconds;

Launch launch_of(const std::map<std::string, std::string>& variables) {
  return read_launch([&](const char* name) {
    const auto it = variables.find(name);
    return it == variables.end() ? nullptr : it->second.c_str();
  });
}

std::string refused(const std::map<std::string, std::string>& variables) {
  try {
    launch_of(variables);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::usage);
    return e.message();
  }
  return "";
}

uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&at), size), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size), 0);
  ::close(fd);
  return ntohs(at.sin_port);
}

// Runs f on `world` ranks, a thread each; the messages of the errors that left it, by rank.
std::vector<std::string> on_ranks(int64_t world, const std::function<void(const Ranks&)>& f, milliseconds wait = milliseconds(20'000)) {
  std::vector<std::string> errors(static_cast<size_t>(world));
  std::vector<std::thread> threads;
  const uint16_t port = free_port();
  for (int64_t r = 0; r < world; ++r) {
    threads.emplace_back([&, r] {
      try {
        Launch launch;
        launch.rank = r;
        launch.world = world;
        launch.host = "127.0.0.1";
        launch.port = port;
        const Ranks ranks(launch, wait);
        f(ranks);
      } catch (const Error& e) {
        errors[static_cast<size_t>(r)] = e.message();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  return errors;
}

TEST(Slices, CoverEveryElementOnceAndAreEqualButForAGrain) {
  for (int64_t n : {0, 1, 255, 256, 257, 4096, 100'003}) {
    for (int64_t world : {1, 2, 3, 7}) {
      int64_t at = 0, least = n, most = 0;
      for (int64_t r = 0; r < world; ++r) {
        const Slice s = slice_of(n, r, world);
        EXPECT_EQ(s.begin, at);
        EXPECT_TRUE(s.begin % kSliceGrain == 0 || s.size() == 0) << n << " " << r << " of " << world;
        at = s.end;
        least = std::min(least, s.size());
        most = std::max(most, s.size());
      }
      EXPECT_EQ(at, n);
      EXPECT_LT(most - least, 2 * kSliceGrain);
    }
  }
}

TEST(Slices, BucketsHoldNeighboursUpToTheirLimit) {
  using Buckets = std::vector<std::pair<size_t, size_t>>;
  EXPECT_EQ(buckets({4, 4, 4, 20, 1, 1}, 10), (Buckets{{0, 2}, {2, 3}, {3, 4}, {4, 6}}));
  EXPECT_TRUE(buckets({}, 10).empty());
}

TEST(Launch, NoVariablesMeanOneProcess) {
  EXPECT_EQ(launch_of({}).world, 1);
  EXPECT_EQ(launch_of({{"MASTER_ADDR", "left over"}}).world, 1);
  EXPECT_EQ(launch_of({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).world, 1);
  const Launch two = launch_of({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "localhost"}, {"MASTER_PORT", "29500"}});
  EXPECT_EQ(two.rank, 1);
  EXPECT_EQ(two.port, 29500);
  EXPECT_FALSE(two.agents_store);
}

TEST(Launch, NamesWhatIsMissingOrContradicts) {
  EXPECT_NE(refused({{"RANK", "0"}}).find("WORLD_SIZE is not"), std::string::npos);
  EXPECT_NE(refused({{"WORLD_SIZE", "2"}}).find("RANK is not"), std::string::npos);
  EXPECT_NE(refused({{"RANK", "2"}, {"WORLD_SIZE", "2"}}).find("RANK is 2 of 2"), std::string::npos);
  EXPECT_NE(refused({{"RANK", "x"}, {"WORLD_SIZE", "2"}}).find("RANK must be a number"), std::string::npos);
  EXPECT_NE(refused({{"RANK", "0"}, {"WORLD_SIZE", "2"}}).find("MASTER_ADDR is not set"), std::string::npos);
  EXPECT_NE(refused({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}).find("MASTER_PORT is not set"), std::string::npos);
  EXPECT_NE(refused({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "2"}, {"LOCAL_WORLD_SIZE", "2"}}).find("LOCAL_RANK is 2"), std::string::npos);
  EXPECT_NE(refused({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "70000"}}).find("MASTER_PORT must be"), std::string::npos);
}

TEST(Ranks, SumInTheOrderOfTheRanksAndGiveEachItsPart) {
  // Terms whose sum depends on its order.
  auto term = [](int64_t from, int64_t to) { return at::full({1000}, std::ldexp(1.0f + 0.3f * static_cast<float>(from), static_cast<int>(9 * from - to)), at::kFloat); };
  for (const std::string& error : on_ranks(3, [&](const Ranks& ranks) {
         Ranks::Pieces pieces(3);
         for (int64_t r = 0; r < 3; ++r) pieces[static_cast<size_t>(r)] = {term(ranks.rank(), r), at::zeros({0}, at::kFloat)};
         const at::Tensor sum = ranks.reduce_scatter(pieces)[0];
         EXPECT_TRUE(at::equal(sum, term(0, ranks.rank()) + term(1, ranks.rank()) + term(2, ranks.rank())));
         Ranks::Pieces all(3);
         for (int64_t r = 0; r < 3; ++r) all[static_cast<size_t>(r)] = {r == ranks.rank() ? sum : at::zeros({1000}, at::kFloat)};
         ranks.all_gather(all);
         for (int64_t r = 0; r < 3; ++r) EXPECT_TRUE(at::equal(all[static_cast<size_t>(r)][0], term(0, r) + term(1, r) + term(2, r)));
         EXPECT_EQ(ranks.sum({1, static_cast<double>(ranks.rank())}), (std::vector<double>{3, 3}));
         EXPECT_EQ(ranks.any(ranks.rank() == 2), true);
         EXPECT_EQ(ranks.any(false), false);
       })) {
    EXPECT_EQ(error, "");
  }
}

TEST(Ranks, SumsOfSixteenBitTermsAreTakenInFp32) {
  on_ranks(2, [](const Ranks& ranks) {
    const at::Tensor big = at::full({3}, 256.0, at::kBFloat16), small = at::full({3}, 1.0, at::kBFloat16);
    const at::Tensor sum = ranks.reduce_scatter({{ranks.first() ? big : small}, {ranks.first() ? big : small}})[0];
    EXPECT_TRUE(at::equal(sum, at::full({3}, 257.0, at::kFloat)));
  });
}

TEST(Ranks, MoveTextsAndMegabytesBothWaysAtOnce) {
  for (const std::string& error : on_ranks(4, [](const Ranks& ranks) {
         std::vector<std::string> out;
         for (int64_t r = 0; r < 4; ++r) out.emplace_back(static_cast<size_t>(3'000'000 + r), static_cast<char>('a' + 4 * ranks.rank() + r));
         const auto in = ranks.deal(out);
         for (int64_t r = 0; r < 4; ++r)
           EXPECT_EQ(in[static_cast<size_t>(r)], std::string(static_cast<size_t>(3'000'000 + ranks.rank()), static_cast<char>('a' + 4 * r + ranks.rank())));
         EXPECT_EQ(ranks.first_says([] { return "x"; }), "x");
       })) {
    EXPECT_EQ(error, "");
  }
}

TEST(Ranks, AnErrorOfTheFirstIsEverybodysError) {
  for (const std::string& error : on_ranks(3, [](const Ranks& ranks) {
         ranks.first_says([]() -> std::string { throw Error(ErrorKind::bad_file, "x.json: broken"); });
       })) {
    EXPECT_EQ(error, "x.json: broken");
  }
}

TEST(Ranks, OneThatEndsIsNamedAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  const auto errors = on_ranks(3, [](const Ranks& ranks) {
    if (ranks.rank() != 1) ranks.sum({1});
  });
  EXPECT_NE(errors[0].find("rank 1 of 3 is gone"), std::string::npos) << errors[0];
  EXPECT_NE(errors[2].find("is gone"), std::string::npos) << errors[2];
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(Ranks, ASilentOneIsWaitedForAsLongAsSaid) {
  std::atomic<bool> noticed = false;
  const auto errors = on_ranks(
      2,
      [&](const Ranks& ranks) {
        if (ranks.rank() == 1) {
          while (!noticed) std::this_thread::sleep_for(milliseconds(5));
          return;
        }
        try {
          ranks.sum({1});
        } catch (const Error&) {
          noticed = true;
          throw;
        }
        noticed = true;
      },
      milliseconds(2000));
  EXPECT_NE(errors[0].find("rank 1 of 2 does not answer for 2 s"), std::string::npos) << errors[0];
}

TEST(Ranks, DifferentSizesAreNoticed) {
  const auto errors = on_ranks(2, [](const Ranks& ranks) { ranks.sum(std::vector<double>(ranks.first() ? 1 : 2, 0.0)); });
  EXPECT_NE((errors[0] + errors[1]).find("bytes where"), std::string::npos) << errors[0] << errors[1];
}

TrainSample sample(uint64_t k) {
  TrainSample s;
  s.where = "item " + std::to_string(k);
  s.inputs.input_ids = at::full({static_cast<int64_t>(3 + k % 5)}, static_cast<int64_t>(k), at::kLong);
  s.inputs.position_ids = at::zeros({3, s.tokens()}, at::kLong);
  s.inputs.bounds = {0, s.tokens()};
  s.learned_T = at::full({s.tokens()}, 1, at::kChar);
  if (k % 2) {
    s.inputs.pixel_values = at::full({4, 6}, 0.5 + static_cast<double>(k), at::kFloat);
    s.inputs.image_grid_thw = {{1, 2, 2}};
  }
  return s;
}

TEST(Dealer, SamplesAsBytesComeBackWhole) {
  const TrainSample before = sample(7), after = sample_from(sample_bytes(before));
  EXPECT_EQ(after.where, before.where);
  EXPECT_TRUE(at::equal(after.inputs.input_ids, before.inputs.input_ids));
  EXPECT_TRUE(at::equal(after.inputs.position_ids, before.inputs.position_ids));
  EXPECT_TRUE(at::equal(after.inputs.pixel_values, before.inputs.pixel_values));
  EXPECT_TRUE(at::equal(after.learned_T, before.learned_T));
  EXPECT_FALSE(after.inputs.pixel_values_videos.defined());
  EXPECT_EQ(after.inputs.image_grid_thw, before.inputs.image_grid_thw);
  EXPECT_EQ(after.inputs.bounds, before.inputs.bounds);
}

TEST(Dealer, GivesTheSameItemsToAnyNumberOfRanksAndTellsAllOfBadOnes) {
  auto make = [](uint64_t k) {
    if (k % 6 == 4) throw BadItem(Fault::empty, Error(ErrorKind::bad_file, "item " + std::to_string(k) + ": empty"));
    return sample(k);
  };
  std::vector<std::vector<std::string>> of_world;
  for (int64_t world : {1, 2, 4}) {
    std::mutex lock;
    std::vector<std::string> names;
    for (const std::string& error : on_ranks(world, [&](const Ranks& ranks) {
           Dealer dealer(make, 3, 1, 8, ranks);
           for (int batch = 0; batch < 4; ++batch) {
             int64_t bad = 0, before = static_cast<int64_t>(dealer.position());
             const Dealer::Batch got = dealer.next(5, 22, [&](const BadItem&, uint64_t) { ++bad; });
             EXPECT_EQ(got.good + bad, static_cast<int64_t>(dealer.position()) - before);
             EXPECT_EQ(got.good, batch < 3 ? 5 : 1);
             const std::lock_guard hold(lock);
             for (const TrainSample& s : got.mine) {
               names.push_back(std::to_string(batch) + " " + s.where);
               EXPECT_EQ(s.where, "item " + std::to_string(s.inputs.input_ids[0].item<int64_t>()));
             }
           }
         })) {
      EXPECT_EQ(error, "");
    }
    std::sort(names.begin(), names.end());
    of_world.push_back(names);
  }
  EXPECT_EQ(of_world[0].size(), 16u);  // items 3 to 21 without 4, 10 and 16
  EXPECT_EQ(of_world[1], of_world[0]);
  EXPECT_EQ(of_world[2], of_world[0]);
}

TEST(Dealer, SharesAreAboutEqualInCost) {
  const auto shares = share_costs(std::vector<int64_t>{8, 1, 1, 6, 2, 2, 4}, 3);
  for (const auto& share : shares) {
    int64_t cost = 0;
    for (size_t i : share) cost += std::vector<int64_t>{8, 1, 1, 6, 2, 2, 4}[i];
    EXPECT_EQ(cost, 8);
  }
}

}  // namespace
}  // namespace statera
