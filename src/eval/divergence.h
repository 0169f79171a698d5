// How far two next-token distributions lie apart: one row of logits against another, and sums over many rows. Plain numbers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace statera {

struct RowDivergence {
  double kl = 0;                    // KL(A || B) in nats
  bool top1 = false;                // the most probable token is the same (of equals the one with the lower id)
  double top5 = 0;                  // share of A's five most probable tokens among B's five
  double logit_max = 0;             // largest |A - B|
  double log_z_a = 0, log_z_b = 0;  // log sum exp: log p(token) = logit - log_z
};
// Rows of equal length >= 1. Equal rows give exactly 0 and complete agreement.
RowDivergence compare_rows(std::span<const float> a, std::span<const float> b);

// Over positions (rows of logits).
struct Divergence {
  std::string name;  // what these positions are
  std::vector<double> kl;
  int64_t agreed = 0;
  double overlap = 0;  // sum of top5
  double logit_max = 0;
  // Of the positions whose next token the data holds: how many, and the sum of its -log p under A and B.
  int64_t predicted = 0;
  double nll_a = 0, nll_b = 0;

  void add(const RowDivergence& row);
  void add_next(double log_p_a, double log_p_b);
  int64_t positions() const { return static_cast<int64_t>(kl.size()); }
  double kl_mean() const;
  double kl_max() const;
  double kl_99() const;  // the 99 % quantile
  double top1() const;   // shares, 0 to 1
  double top5() const;
  double perplexity_a() const;  // exp of the mean -log p; 0 when nothing was predicted
  double perplexity_b() const;
  Json to_json() const;
};

// The bucket of a position in its sequence: 0-15, 16-63, 64-255, ... (each four times as far), and its name.
int64_t position_bucket(int64_t position);
std::string bucket_name(int64_t bucket);

}  // namespace statera
