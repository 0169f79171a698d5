// Packing, dispatch, the loop over blocks and the epilogue. With u = w + 128 the kernels' sum is xw + 128 sum(x), so the
// instructions for unsigned times signed bytes are exact; the epilogue takes 128 sum(x) back off.
#include "kernels/i8gemm/i8gemm.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu.h"

namespace statera::kernels::i8gemm {
namespace {

constexpr int kMaxRows = 16;
static_assert(sizeof(Header) <= kHeaderBytes);

// For amx: no tile kernel yet.
const Table& table() { return table_of(kScalar, kAvx2, kAvx512, kAvx512); }

int64_t block_bytes(const Spec& spec) { return kHeaderBytes + (spec.k + 3) / 4 * 4 * kRowBlock; }

const Header& header(const uint8_t* packed, const Spec& spec, int64_t block) {
  return *reinterpret_cast<const Header*>(packed + block * block_bytes(spec));
}

// Calls emit(m, n, count, sums, sum_of_x) with sums[0..count) = x[m] . (w + 128) of rows n.. .
template <class Emit>
void for_each_sum(const Table& t, const int8_t* x, int64_t ldx, int64_t m, const uint8_t* packed, const Spec& spec, int64_t n_begin,
                  int64_t n_end, Emit emit) {
  constexpr int64_t kPanel = 256;  // rows of x whose sums are at hand; their codes stay in the second-level cache
  int32_t x_sums[kPanel];
  alignas(64) int32_t sums[kMaxRows * 2 * kRowBlock];
  for (int64_t m0 = 0; m0 < m; m0 += kPanel) {
    const int64_t m1 = std::min(m, m0 + kPanel);
    for (int64_t i = m0; i < m1; ++i) x_sums[i - m0] = t.sum(x + i * ldx, spec.k);
    for (int64_t n = n_begin; n < n_end; n += 2 * kRowBlock) {
      const int64_t columns = std::min<int64_t>(2 * kRowBlock, n_end - n);
      const int blocks = columns > kRowBlock ? 2 : 1;
      const uint8_t* codes = packed + n / kRowBlock * block_bytes(spec) + kHeaderBytes;
      for (int64_t i = m0; i < m1; i += t.max_rows) {
        const int rows = static_cast<int>(std::min<int64_t>(t.max_rows, m1 - i));
        t.dot(x + i * ldx, ldx, rows, spec.k, codes, block_bytes(spec), blocks, sums);
        for (int r = 0; r < rows; ++r)
          for (int64_t c = 0; c < columns; c += kRowBlock)
            emit(i + r, n + c, std::min<int64_t>(kRowBlock, columns - c), sums + r * kRowBlock * blocks + c, x_sums[i + r - m0]);
      }
    }
  }
}

// Unsigned arithmetic: sums wrap where int32 would be undefined.
int32_t wrapping(uint32_t v) { return static_cast<int32_t>(v); }

}  // namespace

size_t packed_bytes(const Spec& spec) { return static_cast<size_t>((spec.n + kRowBlock - 1) / kRowBlock * block_bytes(spec)); }

void pack(const Spec& spec, const int8_t* w, const float* scales, const int8_t* zeros, void* packed) {
  std::memset(packed, 0, packed_bytes(spec));
  for (int64_t n0 = 0; n0 < spec.n; n0 += kRowBlock) {
    uint8_t* block = static_cast<uint8_t*>(packed) + n0 / kRowBlock * block_bytes(spec);
    uint8_t* codes = block + kHeaderBytes;
    auto& h = *reinterpret_cast<Header*>(block);
    std::memset(codes, 128, block_bytes(spec) - kHeaderBytes);
    for (int64_t n = n0; n < std::min(spec.n, n0 + kRowBlock); ++n) {
      const int64_t row = n - n0;
      uint32_t sum = 0;
      for (int64_t k = 0; k < spec.k; ++k) {
        const int8_t v = w[n * spec.k + k];
        codes[(k / 4 * kRowBlock + row) * 4 + k % 4] = static_cast<uint8_t>(v + 128);
        sum += static_cast<uint32_t>(v);
      }
      h.scale[row] = scales[n];
      h.sum[row] = wrapping(sum);
      h.zero[row] = spec.zeros ? zeros[n] : 0;
    }
  }
}

void unpack(const Spec& spec, const void* packed, int8_t* w, float* scales, int8_t* zeros) {
  for (int64_t n = 0; n < spec.n; ++n) {
    const uint8_t* block = static_cast<const uint8_t*>(packed) + n / kRowBlock * block_bytes(spec);
    const auto& h = *reinterpret_cast<const Header*>(block);
    const int64_t row = n % kRowBlock;
    for (int64_t k = 0; k < spec.k; ++k)
      w[n * spec.k + k] = static_cast<int8_t>(block[kHeaderBytes + (k / 4 * kRowBlock + row) * 4 + k % 4] - 128);
    scales[n] = h.scale[row];
    if (spec.zeros) zeros[n] = static_cast<int8_t>(h.zero[row]);
  }
}

void quantize_rows(const float* x, int64_t ldx, int64_t m, int64_t k, int8_t* q, int64_t ldq, float* scale) noexcept {
  const Table& t = table();
  for (int64_t i = 0; i < m; ++i) {
    scale[i] = t.max_abs(x + i * ldx, k) / 127.5f;
    if (scale[i] > 0)
      t.quantize(x + i * ldx, k, scale[i], 0, -128, 127, q + i * ldq);
    else
      std::memset(q + i * ldq, 0, k);  // also a maximum so small that its scale is 0 in f32
  }
}

void quantize_rows_static(const float* x, int64_t ldx, int64_t m, int64_t k, const float* scale, const int32_t* zero, int8_t* q,
                          int64_t ldq) noexcept {
  const Table& t = table();
  for (int64_t i = 0; i < m; ++i) t.quantize(x + i * ldx, k, scale[i], zero ? zero[i] : 0, -128, 127, q + i * ldq);
}

void matmul_i32(const int8_t* x, int64_t ldx, int64_t m, const void* packed, const Spec& spec, int32_t* y, int64_t ldy, int64_t n_begin,
                int64_t n_end) noexcept {
  for_each_sum(table(), x, ldx, m, static_cast<const uint8_t*>(packed), spec, n_begin, n_end,
               [&](int64_t i, int64_t n, int64_t count, const int32_t* sums, int32_t x_sum) {
                 const uint32_t shift = 128u * static_cast<uint32_t>(x_sum);
                 for (int64_t c = 0; c < count; ++c) y[i * ldy + n + c] = wrapping(static_cast<uint32_t>(sums[c]) - shift);
               });
}

void matmul(const int8_t* x, int64_t ldx, int64_t m, const float* x_scale, const int32_t* x_zero, const void* packed, const Spec& spec,
            const float* bias, float* y, int64_t ldy, int64_t n_begin, int64_t n_end) noexcept {
  const auto* bytes = static_cast<const uint8_t*>(packed);
  const auto k = static_cast<uint32_t>(spec.k);
  for_each_sum(table(), x, ldx, m, bytes, spec, n_begin, n_end,
               [&](int64_t i, int64_t n, int64_t count, const int32_t* sums, int32_t x_sum) {
                 const Header& h = header(bytes, spec, n / kRowBlock);
                 const uint32_t xz = x_zero ? static_cast<uint32_t>(x_zero[i]) : 0, xs = static_cast<uint32_t>(x_sum);
                 for (int64_t c = 0; c < count; ++c) {
                   const auto wz = static_cast<uint32_t>(h.zero[c]), ws = static_cast<uint32_t>(h.sum[c]);
                   const int32_t sum = wrapping(static_cast<uint32_t>(sums[c]) - (128 + wz) * xs - xz * ws + k * xz * wz);
                   y[i * ldy + n + c] = static_cast<float>(sum) * x_scale[i] * h.scale[c] + (bias ? bias[n + c] : 0.0f);
                 }
               });
}

}  // namespace statera::kernels::i8gemm
