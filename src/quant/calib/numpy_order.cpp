// PCG64 (XSL-RR 128/64) from the state that seed 42 gives; 32-bit draws by masking and rejection; Fisher-Yates from the end.
#include "quant/calib/numpy_order.h"

#include <cstdint>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace statera {
namespace {

__extension__ typedef unsigned __int128 U128;
constexpr U128 wide(uint64_t high, uint64_t low) { return static_cast<U128>(high) << 64 | low; }

class Pcg64 {
 public:
  // Halves of a 64-bit draw, the low one first.
  uint32_t next32() {
    if (held_) {
      held_ = false;
      return high_;
    }
    const uint64_t x = next64();
    high_ = static_cast<uint32_t>(x >> 32);
    held_ = true;
    return static_cast<uint32_t>(x);
  }

 private:
  uint64_t next64() {
    state_ = state_ * wide(0x2360ED051FC65DA4, 0x4385DF649FCCF645) + wide(0xfa505436c9a8416e, 0x66caf2e28d25abff);
    const uint64_t x = static_cast<uint64_t>(state_ >> 64) ^ static_cast<uint64_t>(state_);
    const auto turn = static_cast<unsigned>(state_ >> 122);
    return x >> turn | x << (-turn & 63);
  }
  U128 state_ = wide(0xcea44f6798798f2a, 0xacbc7c9d68860ac8);
  uint32_t high_ = 0;
  bool held_ = false;
};

}  // namespace

std::vector<size_t> numpy_order(size_t count) {
  check(count <= UINT32_MAX, "numpy_order: 32-bit draws only");
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  Pcg64 rng;
  for (size_t i = count; i-- > 1;) {
    uint32_t mask = static_cast<uint32_t>(i);
    for (unsigned shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
    uint32_t j = 0;
    do {
      j = rng.next32() & mask;
    } while (j > i);
    std::swap(order[i], order[j]);
  }
  return order;
}

}  // namespace statera
