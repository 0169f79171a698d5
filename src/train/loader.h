// Loader: samples made ahead of their use by threads of its own, handed out in order. What a sample is made of is the caller's function.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "train/sample.h"

namespace statera {

class Loader {
 public:
  // The k-th sample; BadItem for one that cannot be made, which next() then gives. Called from several threads.
  using Make = std::function<TrainSample(uint64_t k)>;
  Loader(Make make, uint64_t first, int64_t threads, uint64_t ahead);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  struct Item {
    std::optional<TrainSample> sample;
    std::optional<BadItem> bad;
  };
  // The next one in order. Other exceptions than BadItem are thrown here.
  Item next();

 private:
  struct Made {
    Item item;
    std::exception_ptr fault;
  };
  void work();
  Made make_one(uint64_t k) const;
  Make make_;
  std::mutex mutex_;
  std::condition_variable room_, ready_;
  std::map<uint64_t, Made> made_;
  uint64_t next_, taken_, ahead_;  // next to be handed out; next to be made
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace statera
