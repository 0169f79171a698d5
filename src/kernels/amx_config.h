// amx_config: how ISA files set up AMX's tiles: all eight as large as they can be. Its names are local to each of them.
#pragma once

#include <cstdint>

namespace statera::kernels {
namespace {

// The layout of Intel's tile configuration, palette 1: 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
constexpr TileConfig kTileConfig;  // static: the compiler does not see that more than its first bytes are read

}  // namespace
}  // namespace statera::kernels
