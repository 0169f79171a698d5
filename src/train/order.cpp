// See order.h.
#include "train/order.h"

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"

namespace statera {
namespace {

template <class T>
void shuffle(std::vector<T>& list, Rng rng) {
  for (size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[rng.next() % i]);
}

}  // namespace

Order::Order(std::vector<OrderSource> sources, uint64_t seed, bool shuffled) : seed_(seed), shuffle_(shuffled) {
  for (size_t s = 0; s < sources.size(); ++s) {
    const OrderSource& source = sources[s];
    check(source.percent > 0 && source.items > 0, "a source with items and a share");
    std::vector<uint32_t> drawn(source.items);
    std::iota(drawn.begin(), drawn.end(), 0u);
    shuffle(drawn, Rng(seed, hash_name(source.name)));
    const auto wanted = static_cast<size_t>(std::llround(static_cast<double>(source.items) * source.percent / 100));
    const size_t rest = wanted % source.items;
    std::vector<uint32_t> times(source.items, static_cast<uint32_t>(wanted / source.items));
    for (size_t i = 0; i < rest; ++i) ++times[drawn[i]];
    for (size_t i = 0; i < source.items; ++i) {
      for (uint32_t n = 0; n < times[i]; ++n) items_.emplace_back(static_cast<uint32_t>(s), static_cast<uint32_t>(i));
    }
  }
}

std::pair<uint32_t, uint32_t> Order::at(uint64_t k) {
  check(!items_.empty(), "an order of nothing");
  if (!shuffle_) return items_[k % size()];
  if (k / size() != epoch_) {
    epoch_ = k / size();
    epoch_items_ = items_;
    shuffle(epoch_items_, Rng(seed_, mix64(epoch_ + 1)));
  }
  return epoch_items_[k % size()];
}

}  // namespace statera
