// Rotary position tables: half rotation over the first r of d dimensions, with every scaling of docs/architecture (default, linear, dynamic,
// llama3, yarn, longrope) and one or three position rows (M-RoPE, contiguous or interleaved sections).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace statera {

struct RopeConfig {
  std::string kind = "default";      // default, linear, dynamic, llama3, yarn, longrope
  double theta = 10000;
  int64_t head_dim = 0;
  double partial_rotary_factor = 1;
  int64_t max_position_embeddings = 0;
  int64_t original_max_position_embeddings = 0;  // 0: max_position_embeddings
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;              // llama3
  double beta_fast = 32, beta_slow = 1, mscale = 0, mscale_all_dim = 0;  // yarn
  double attention_factor = 0;                                   // 0: by the kind's rule
  bool truncate = true;                                          // yarn: whole correction bounds
  std::vector<double> short_factor, long_factor;                 // longrope
  std::vector<int64_t> mrope_section;                            // sizes over the r/2 frequencies; empty: one row
  bool mrope_interleaved = false;

  // Reads rope_theta, rope_scaling, rope_parameters, partial_rotary_factor of a Hugging Face text config, old and new spellings.
  static RopeConfig from_config(const Json& config, int64_t head_dim, double default_theta);
};

class Rope {
 public:
  Rope() = default;
  explicit Rope(RopeConfig config);
  // positions i64 [T] or [3, T]; bounds give the sequences (the length-dependent kinds look at each one's own length).
  // Returns cos and sin, fp32 [T, r] with duplicated halves.
  std::pair<at::Tensor, at::Tensor> tables(const at::Tensor& positions, const std::vector<int64_t>& bounds) const;
  // Whether keys cached while the sequence had `before` tokens stay valid at `after` (longrope changes its factors once).
  bool cache_valid(int64_t before, int64_t after) const;
  int64_t rotated() const { return rotated_; }

 private:
  at::Tensor frequencies(int64_t length) const;  // f32 [r/2]
  RopeConfig c_;
  int64_t rotated_ = 0;
  double multiplier_ = 1;   // of cos and sin
  at::Tensor fixed_;        // frequencies of the kinds that do not depend on length
  at::Tensor row_of_;       // M-RoPE: position row of each frequency, i64 [r/2]
};

// x [T, heads, d] with its first r dims rotated by cos/sin [T, r] (cast to x's dtype first, as the reference does).
at::Tensor apply_rope(const at::Tensor& x_TNd, const at::Tensor& cos_TR, const at::Tensor& sin_TR);
// The same computed in fp32 and cast back (vision towers).
at::Tensor apply_rope_fp32(const at::Tensor& x_TNd, const at::Tensor& cos_TR, const at::Tensor& sin_TR);

}  // namespace statera
