// AMX's tiles in plain C++, in place of <immintrin.h>'s intrinsics: what Intel's SDM, volume 2, says of LDTILECFG, TILERELEASE, TILEZERO,
// TILELOADD, TILESTORED, TDPBSUD and TDPBF16PS (numbers below 2^-126 kept, unlike there). Where the processor would raise an exception, this traps. One state a thread, as there.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace statera::kernels {
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

  void require_product(int to, int a, int b) const {
    require_tile(to);
    require_tile(a);
    require_tile(b);
    require(to != a && to != b && a != b);
    require(rows[to] == rows[a] && row_bytes[to] == row_bytes[b] && row_bytes[a] == 4 * rows[b] && row_bytes[to] % 4 == 0);
  }

  // to[m][n] += the sum over k of four signed bytes of a[m][k] times four unsigned ones of b[k][n].
  void dpbsud(int to, int a, int b) {
    require_product(to, a, b);
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

  static float upper_half(uint32_t word) {
    word &= 0xffff0000;
    float number;
    __builtin_memcpy(&number, &word, sizeof number);
    return number;
  }

  // to[m][n] += the sum over k of two bf16 of a[m][k] times two of b[k][n]: first and second ones are summed by themselves.
  void dpbf16ps(int to, int a, int b) {
    require_product(to, a, b);
    for (int m = 0; m < rows[to]; ++m)
      for (int n = 0; n < row_bytes[to] / 4; ++n) {
        float first = 0, second = 0, sum;
        for (int k = 0; k < rows[b]; ++k) {
          uint32_t left, right;
          __builtin_memcpy(&left, data[a][m] + 4 * k, sizeof left);
          __builtin_memcpy(&right, data[b][k] + 4 * n, sizeof right);
          first += upper_half(left << 16) * upper_half(right << 16);
          second += upper_half(left) * upper_half(right);
        }
        __builtin_memcpy(&sum, data[to][m] + 4 * n, sizeof sum);
        sum += first + second;
        __builtin_memcpy(data[to][m] + 4 * n, &sum, sizeof sum);
      }
    for (int m = rows[to]; m < kMaxRows; ++m) __builtin_memset(data[to][m], 0, kRowBytes);
  }
};

thread_local EmulatedTiles emulated;

}  // namespace
}  // namespace statera::kernels

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#undef _tile_dpbf16ps
#define _tile_loadconfig(memory) emulated.load_config(memory)
#define _tile_release() emulated.release()
#define _tile_zero(t) emulated.zero(t)
#define _tile_loadd(t, base, stride) emulated.load(t, base, stride)
#define _tile_stored(t, base, stride) emulated.store(t, base, stride)
#define _tile_dpbsud(to, a, b) emulated.dpbsud(to, a, b)
#define _tile_dpbf16ps(to, a, b) emulated.dpbf16ps(to, a, b)
