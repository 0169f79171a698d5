// AMX's tiles in plain C++, in place of <immintrin.h>'s intrinsics: what Intel's SDM, volume 2, says of LDTILECFG, TILERELEASE, TILEZERO,
// TILELOADD, TILESTORED and TDPBSUD. Where the processor would raise an exception, this traps. One state a thread, as there.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace statera::kernels::i8gemm {
namespace {

struct EmulatedTiles {
  static constexpr int kNames = 8, kMaxRows = 16, kRowBytes = 64;  // of palette 1
  bool configured;
  uint8_t rows[kNames];
  uint16_t row_bytes[kNames];
  alignas(64) uint8_t data[kNames][kMaxRows][kRowBytes];

  static void require(bool condition) {
    if (!condition) __builtin_trap();
  }
  void require_tile(int t) const { require(configured && t >= 0 && t < kNames && rows[t] > 0 && row_bytes[t] > 0); }

  void release() { *this = EmulatedTiles{}; }

  void load_config(const void* memory) {
    uint8_t bytes[64];
    __builtin_memcpy(bytes, memory, 64);
    release();
    if (bytes[0] == 0) return;  // palette 0: as released
    require(bytes[0] == 1);
    for (int i = 1; i < 16; ++i) require(bytes[i] == 0);  // the row to start at (we never stop in between), then reserved
    for (int t = 0; t < 16; ++t) {
      const int width = bytes[16 + 2 * t] | bytes[17 + 2 * t] << 8, count = bytes[48 + t];
      require(t < kNames ? width <= kRowBytes && count <= kMaxRows : width == 0 && count == 0);
      if (t >= kNames) continue;
      rows[t] = static_cast<uint8_t>(count);
      row_bytes[t] = static_cast<uint16_t>(width);
    }
    configured = true;
  }

  void zero(int t) {
    require_tile(t);
    __builtin_memset(data[t], 0, sizeof data[t]);
  }

  void load(int t, const void* base, int64_t stride) {
    zero(t);
    for (int r = 0; r < rows[t]; ++r) __builtin_memcpy(data[t][r], static_cast<const char*>(base) + r * stride, row_bytes[t]);
  }

  void store(int t, void* base, int64_t stride) const {
    require_tile(t);
    for (int r = 0; r < rows[t]; ++r) __builtin_memcpy(static_cast<char*>(base) + r * stride, data[t][r], row_bytes[t]);
  }

  // to[m][n] += the sum over k of four signed bytes of a[m][k] times four unsigned ones of b[k][n].
  void dpbsud(int to, int a, int b) {
    require_tile(to);
    require_tile(a);
    require_tile(b);
    require(to != a && to != b && a != b);
    require(rows[to] == rows[a] && row_bytes[to] == row_bytes[b] && row_bytes[a] == 4 * rows[b] && row_bytes[to] % 4 == 0);
    for (int m = 0; m < rows[to]; ++m) {
      int32_t sums[kRowBytes / 4];
      __builtin_memcpy(sums, data[to][m], kRowBytes);
      for (int k = 0; k < rows[b]; ++k)
        for (int n = 0; n < row_bytes[to] / 4; ++n)
          for (int i = 0; i < 4; ++i)
            sums[n] = static_cast<int32_t>(static_cast<uint32_t>(sums[n]) +
                                           static_cast<uint32_t>(static_cast<int8_t>(data[a][m][4 * k + i]) * data[b][k][4 * n + i]));
      __builtin_memcpy(data[to][m], sums, kRowBytes);
    }
    for (int m = rows[to]; m < kMaxRows; ++m) __builtin_memset(data[to][m], 0, kRowBytes);
  }
};

thread_local EmulatedTiles tiles;

}  // namespace
}  // namespace statera::kernels::i8gemm

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#define _tile_loadconfig(memory) tiles.load_config(memory)
#define _tile_release() tiles.release()
#define _tile_zero(t) tiles.zero(t)
#define _tile_loadd(t, base, stride) tiles.load(t, base, stride)
#define _tile_stored(t, base, stride) tiles.store(t, base, stride)
#define _tile_dpbsud(to, a, b) tiles.dpbsud(to, a, b)
