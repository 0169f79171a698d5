// Pass: what travels with every call through a model. At most eight members; narrowing copies share the tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "nn/tap.h"

namespace statera {

class KvCache;

// Cumulative row counts of sequences that lie one after another without padding: {0, T1, T1+T2, ...}.
using SequenceBounds = std::vector<int64_t>;
inline SequenceBounds one_sequence(int64_t rows) { return {0, rows}; }

// What a stack's enter prepares once for all of its blocks.
struct Side {
  at::Tensor cos_TR, sin_TR;            // rotary tables of the rows, fp32, R = rotated width (halves duplicated)
  SequenceBounds full_bounds;           // vision: frames (window blocks use Pass::bounds of their windows)
  at::Tensor order;                     // vision: permutation of merged units that undoes windowing, i64
  at::Tensor visual_rows;               // language: indices of visual rows in h, i64
  std::vector<at::Tensor> deepstack_VH; // language: features added to the visual rows after block j
};

struct Pass {
  at::Tensor positions;                 // i64 [T] or [3, T]
  SequenceBounds bounds;                // sequences among the T rows
  std::vector<KvCache*> caches;         // one per sequence, or empty: no cache
  at::Tensor kinds;                     // i8 [T], TokenKind; undefined: all text
  at::Tensor row_weight;                // f32 [T], routing affinity of rows; undefined: 1
  Tap* tap = nullptr;
  bool training = false;
  std::shared_ptr<Side> side;           // made by enter

  int64_t sequences() const { return static_cast<int64_t>(bounds.size()) - 1; }
  // The pass seen by a subset of rows (made by moe): index i64 [R], weight f32 [R]. Sequences and caches do not apply to it; side stays
  // that of the whole, as the mark of one forward pass.
  Pass rows(const at::Tensor& index, const at::Tensor& weight) const;
};

// kAnswer is text that the assistant speaks; only calibration and training passes tell it from other text.
enum TokenKind : int8_t { kText = 0, kVision = 1, kAnswer = 2 };

}  // namespace statera
