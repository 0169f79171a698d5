// Dealer: the samples of a run, batch by batch, dealt to its ranks by size. Each rank makes every world-th item of the order; what belongs
// to another is sent there. Which items a batch has does not depend on the number of ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/batch.h"
#include "train/loader.h"
#include "train/ranks.h"

namespace statera {

class Dealer {
 public:
  // Items from number `first` on; `ahead` of them may be made before their turn, by all ranks together.
  Dealer(Loader::Make make, uint64_t first, int64_t threads, uint64_t ahead, const Ranks& ranks);

  struct Batch {
    std::vector<TrainSample> mine;  // this rank's, in the order of the items
    int64_t good = 0;               // samples of all ranks
  };
  // The next batch: `wanted` good items over all ranks, fewer where item `end` is reached.
  // `bad` is told of the others in their order, on every rank, with the number of items taken so far in the run.
  using Bad = std::function<void(const BadItem& item, uint64_t taken)>;
  Batch next(int64_t wanted, uint64_t end, const Bad& bad);
  // Number of the next item.
  uint64_t position() const { return position_; }

 private:
  struct Known {
    uint64_t item = 0;
    int64_t cost = 0;
    int64_t here = -1;  // index in the samples made here, -1: made elsewhere
  };
  void round(uint64_t count, std::vector<TrainSample>& made, std::vector<Known>& good, const Bad& bad);
  std::vector<TrainSample> send(std::vector<TrainSample> made, const std::vector<Known>& good) const;
  const Ranks& ranks_;
  uint64_t position_;
  Loader loader_;
};

// A sample as bytes and back, for the processes of one run.
std::string sample_bytes(const TrainSample& sample);
TrainSample sample_from(std::string_view bytes);

}  // namespace statera
