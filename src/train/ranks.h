// Ranks: the processes of one training run and what they do together. Every call is made by all of them in the same order. Sums are taken in
// the order of the ranks, element by element, so results depend on the number of ranks and on nothing else.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "train/launch.h"

namespace statera {

class Links;

class Ranks {
 public:
  // One process, nobody to talk to.
  Ranks();
  // Connects to the others. `wait`: how long a silent rank is waited for; a dead one is noticed at once. Errors of links.h.
  Ranks(const Launch& launch, std::chrono::milliseconds wait);
  ~Ranks();
  Ranks(Ranks&&) noexcept;
  Ranks& operator=(Ranks&&) noexcept;
  int64_t rank() const { return rank_; }
  int64_t world() const { return world_; }
  bool first() const { return rank_ == 0; }
  bool alone() const { return world_ == 1; }

  // out[r] goes to rank r; what comes back is by sender, our own entry included.
  std::vector<std::string> deal(const std::vector<std::string>& out) const;
  // Everybody's text, by rank.
  std::vector<std::string> gather(const std::string& mine) const;
  // What f makes on the first rank, which alone calls it. An Error that leaves it there is thrown everywhere.
  std::string first_says(const std::function<std::string()>& f) const;
  // Sums, number by number; the same at all ranks.
  std::vector<double> sum(const std::vector<double>& mine) const;
  bool any(bool mine) const;

  // Lists of contiguous tensors by rank; the lists of a rank have the same sizes everywhere.
  using Pieces = std::vector<std::vector<at::Tensor>>;
  // pieces[r] are this rank's terms of what rank r gets. Returns the sums of everybody's terms for this rank, in f32.
  std::vector<at::Tensor> reduce_scatter(const Pieces& pieces) const;
  // pieces[rank()] goes to everybody, the other entries are filled.
  void all_gather(const Pieces& pieces) const;
  // pieces[r] of rank r goes to the first rank, whose entries are filled; or the other way round.
  void to_first(const Pieces& pieces) const;
  void from_first(const Pieces& pieces) const;

 private:
  int64_t rank_ = 0, world_ = 1;
  std::unique_ptr<Links> links_;
};

}  // namespace statera
