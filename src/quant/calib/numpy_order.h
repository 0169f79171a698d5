// numpy_order: the order in which the reference implementations read their calibration items, so that the same items can be compared.
#pragma once

#include <cstddef>
#include <vector>

namespace statera {

// numpy.random.default_rng(42).permutation(count), which is also what its shuffle makes of a list and a Hugging Face dataset's
// shuffle(seed=42) (MBQ 3.2). count < 2^32.
std::vector<size_t> numpy_order(size_t count);

}  // namespace statera
