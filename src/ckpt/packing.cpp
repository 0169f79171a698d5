// A bit buffer of 64 bits per row, eight codes at a time where they are of 4 bits; rows in parallel.
#include "ckpt/packing.h"

#include <ATen/ops/empty.h>

#include <cstring>

#include "base/error.h"
#include "base/threads.h"

namespace statera {
namespace {

int64_t grain(int64_t columns) { return std::max<int64_t>(1, 65536 / std::max<int64_t>(1, columns)); }

// Codes of 4 bits that fill whole words: as bytes of a 64-bit word, whose low halves are pushed together. Returns how many they were.
int64_t pack_nibbles(const int8_t* q, int64_t columns, uint32_t* out) {
  const int64_t whole = columns / 8 * 8;
  for (int64_t i = 0; i < whole; i += 8) {
    uint64_t v;
    std::memcpy(&v, q + i, 8);
    v = (v ^ 0x0808080808080808) & 0x0f0f0f0f0f0f0f0f;
    v = (v | v >> 4) & 0x00ff00ff00ff00ff;
    v = (v | v >> 8) & 0x0000ffff0000ffff;
    *out++ = static_cast<uint32_t>(v | v >> 16);
  }
  return whole;
}

// The inverse.
int64_t unpack_nibbles(const uint32_t* words, int64_t columns, int8_t* q) {
  const int64_t whole = columns / 8 * 8;
  for (int64_t i = 0; i < whole; i += 8) {
    uint64_t v = *words++;
    v = (v | v << 16) & 0x0000ffff0000ffff;
    v = (v | v << 8) & 0x00ff00ff00ff00ff;
    v = (v | v << 4) & 0x0f0f0f0f0f0f0f0f;
    v ^= 0x0808080808080808;  // two's complement in the low halves,
    v |= (v & 0x0808080808080808) * 0x1e;  // and its sign in the high ones
    std::memcpy(q + i, &v, 8);
  }
  return whole;
}

void pack_row(const int8_t* q, int64_t columns, int bits, uint32_t* out) {
  if (bits == 4) {
    const int64_t packed = pack_nibbles(q, columns, out);
    q += packed;
    out += packed / 8;
    columns -= packed;
  }
  const auto offset = static_cast<unsigned>(1 << (bits - 1));
  const unsigned mask = (1u << bits) - 1;
  uint64_t buffer = 0;
  int held = 0;
  for (int64_t i = 0; i < columns; ++i) {
    buffer |= static_cast<uint64_t>((static_cast<unsigned>(q[i]) + offset) & mask) << held;
    held += bits;
    if (held >= 32) {
      *out++ = static_cast<uint32_t>(buffer);
      buffer >>= 32;
      held -= 32;
    }
  }
  if (held > 0) *out = static_cast<uint32_t>(buffer);
}

void unpack_row(const uint32_t* words, int64_t columns, int bits, int8_t* q) {
  if (bits == 4) {
    const int64_t unpacked = unpack_nibbles(words, columns, q);
    words += unpacked / 8;
    q += unpacked;
    columns -= unpacked;
  }
  const int offset = 1 << (bits - 1);
  const unsigned mask = (1u << bits) - 1;
  uint64_t buffer = 0;
  int held = 0;
  for (int64_t i = 0; i < columns; ++i) {
    if (held < bits) {
      buffer |= static_cast<uint64_t>(*words++) << held;
      held += 32;
    }
    q[i] = static_cast<int8_t>(static_cast<int>(buffer & mask) - offset);
    buffer >>= bits;
    held -= bits;
  }
}

void unpack_row_sparse(const uint32_t* words, int64_t columns, int bits, int8_t* q) {
  const int offset = 1 << (bits - 1), per_word = 32 / bits;
  const unsigned mask = (1u << bits) - 1;
  for (int64_t i = 0; i < columns; ++i) {
    q[i] = static_cast<int8_t>(static_cast<int>(words[i / per_word] >> (i % per_word * bits) & mask) - offset);
  }
}

}  // namespace

int64_t packed_words(int64_t columns, int bits, Packing packing) {
  const int64_t per_word = 32 / bits;
  return packing == Packing::dense ? (columns * bits + 31) / 32 : (columns + per_word - 1) / per_word;
}

at::Tensor pack_codes(const at::Tensor& q_NK, int bits) {
  check(q_NK.dim() == 2 && q_NK.scalar_type() == at::kChar && bits >= 2 && bits <= 8, "pack_codes wants an i8 matrix and 2 to 8 bits");
  const at::Tensor q = q_NK.contiguous();
  const int64_t N = q.size(0), K = q.size(1), W = packed_words(K, bits);
  at::Tensor out = at::empty({N, W}, q.options().dtype(at::kInt));
  const int8_t* from = q.const_data_ptr<int8_t>();
  auto* to = reinterpret_cast<uint32_t*>(out.mutable_data_ptr<int32_t>());
  parallel_for(N, grain(K), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) pack_row(from + n * K, K, bits, to + n * W);
  });
  return out;
}

at::Tensor unpack_codes(const at::Tensor& packed_NW, int64_t columns, int bits, Packing packing) {
  check(packed_NW.dim() == 2 && packed_NW.scalar_type() == at::kInt && bits >= 2 && bits <= 8, "unpack_codes wants an i32 matrix");
  check(packed_NW.size(1) == packed_words(columns, bits, packing), "packed width does not fit");
  const at::Tensor packed = packed_NW.contiguous();
  const int64_t N = packed.size(0), W = packed.size(1);
  at::Tensor out = at::empty({N, columns}, packed.options().dtype(at::kChar));
  const auto* from = reinterpret_cast<const uint32_t*>(packed.const_data_ptr<int32_t>());
  int8_t* to = out.mutable_data_ptr<int8_t>();
  auto row = packing == Packing::dense ? unpack_row : unpack_row_sparse;
  parallel_for(N, grain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) row(from + n * W, columns, bits, to + n * columns);
  });
  return out;
}

}  // namespace statera
