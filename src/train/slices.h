// slices: which elements of a flattened tensor each rank answers for, and how tensors are grouped for one round of exchange. Arithmetic only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace statera {

struct Slice {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Slice&) const = default;
};

// Slices begin at multiples of this, so that what works by blocks of neighbouring elements does the same in each.
constexpr int64_t kSliceGrain = 256;

// The part of `elements` that `rank` of `world` has: in order, without gaps, equal but for a grain.
Slice slice_of(int64_t elements, int64_t rank, int64_t world);

// Neighbours, [first, last), of at most `limit` bytes together; a single one may be larger.
std::vector<std::pair<size_t, size_t>> buckets(const std::vector<int64_t>& bytes, int64_t limit);

}  // namespace statera
