// Order: which item of which data file comes k-th in a training run: files by their shares, shuffled anew in each epoch. A function of
// the seed and k alone, so a resumed run goes on where it was.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace statera {

struct OrderSource {
  std::string name;      // seeds the choice of a share
  size_t items = 0;
  double percent = 100;  // of the items in an epoch: 50 every other one by chance, 250 all twice and half of them once more
};

class Order {
 public:
  Order(std::vector<OrderSource> sources, uint64_t seed, bool shuffle = true);
  // Items of one epoch.
  uint64_t size() const { return items_.size(); }
  // Number of the source, and of the item in it. Not for several threads at once.
  std::pair<uint32_t, uint32_t> at(uint64_t k);

 private:
  std::vector<std::pair<uint32_t, uint32_t>> items_, epoch_items_;
  uint64_t seed_, epoch_ = ~uint64_t{0};
  bool shuffle_;
};

}  // namespace statera
