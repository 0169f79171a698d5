// Links: a connection from each rank to each other, and the one thing done with them: a round in which everybody sends bytes to everybody. What
// a round computes is ranks.h. (LibTorch's wheel holds Gloo, yet not the headers that its process group includes; and a sum whose order
// is known needs no more than this.)
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "train/launch.h"

namespace statera {

class Links {
 public:
  // Connects all ranks. Error(network) when one does not come within `join`, or later does not answer within `wait`.
  Links(const Launch& launch, std::chrono::milliseconds join, std::chrono::milliseconds wait);
  ~Links();
  Links(const Links&) = delete;
  Links& operator=(const Links&) = delete;

  using Parts = std::vector<std::span<const std::byte>>;
  using Rooms = std::vector<std::span<std::byte>>;
  // out[r] goes to rank r, in[r] is filled by rank r; this rank's own entries are not looked at. Both ends must mean the same number of
  // bytes. Error(network) as soon as a rank is gone.
  void exchange(const std::vector<Parts>& out, const std::vector<Rooms>& in);

 private:
  void connect_all(const Launch& launch, std::chrono::milliseconds join);
  void close_all() noexcept;
  int64_t rank_, world_;
  std::chrono::milliseconds wait_;
  std::vector<int> sockets_;  // by rank, -1 for our own
};

}  // namespace statera
