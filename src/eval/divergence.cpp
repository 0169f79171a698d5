// See divergence.h.
#include "eval/divergence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "eval/statistics.h"

namespace statera {
namespace {

constexpr size_t kTop = 5;

// Ids of the largest logits, largest first, of equals the lower id first; fewer when the row is shorter.
std::vector<size_t> leading(std::span<const float> row) {
  std::vector<size_t> top;
  for (size_t i = 0; i < row.size(); ++i) {
    if (top.size() == kTop && row[i] <= row[top.back()]) continue;
    auto place = std::find_if(top.begin(), top.end(), [&](size_t j) { return row[i] > row[j]; });
    top.insert(place, i);
    if (top.size() > kTop) top.pop_back();
  }
  return top;
}

double log_sum_exp(std::span<const float> row, size_t largest) {
  const double most = row[largest];
  double sum = 0;
  for (float x : row) sum += std::exp(static_cast<double>(x) - most);
  return most + std::log(sum);
}

double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

}  // namespace

RowDivergence compare_rows(std::span<const float> a, std::span<const float> b) {
  check(!a.empty() && a.size() == b.size(), "compare_rows: rows of equal length");
  const std::vector<size_t> top_a = leading(a), top_b = leading(b);
  RowDivergence out;
  out.log_z_a = log_sum_exp(a, top_a[0]);
  out.log_z_b = log_sum_exp(b, top_b[0]);
  for (size_t i = 0; i < a.size(); ++i) {
    const double log_a = a[i] - out.log_z_a, log_b = b[i] - out.log_z_b;
    if (a[i] != b[i] || log_a != log_b) out.kl += std::exp(log_a) * (log_a - log_b);
    out.logit_max = std::max(out.logit_max, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  out.kl = std::max(out.kl, 0.0);  // rounding may leave a last bit below
  out.top1 = top_a[0] == top_b[0];
  double common = 0;
  for (size_t i : top_a) common += std::count(top_b.begin(), top_b.end(), i);
  out.top5 = common / static_cast<double>(top_a.size());
  return out;
}

void Divergence::add(const RowDivergence& row) {
  kl.push_back(row.kl);
  agreed += row.top1;
  overlap += row.top5;
  logit_max = std::max(logit_max, row.logit_max);
}

void Divergence::add_next(double log_p_a, double log_p_b) {
  ++predicted;
  nll_a -= log_p_a;
  nll_b -= log_p_b;
}

double Divergence::kl_mean() const { return share(std::accumulate(kl.begin(), kl.end(), 0.0), static_cast<double>(positions())); }
double Divergence::kl_max() const { return kl.empty() ? 0 : *std::max_element(kl.begin(), kl.end()); }
double Divergence::kl_99() const { return quantile(kl, 0.99); }
double Divergence::top1() const { return share(static_cast<double>(agreed), static_cast<double>(positions())); }
double Divergence::top5() const { return share(overlap, static_cast<double>(positions())); }
double Divergence::perplexity_a() const { return predicted ? std::exp(nll_a / static_cast<double>(predicted)) : 0; }
double Divergence::perplexity_b() const { return predicted ? std::exp(nll_b / static_cast<double>(predicted)) : 0; }

Json Divergence::to_json() const {
  Json j = Json::object();
  j.set("name", name);
  j.set("positions", positions());
  j.set("kl_mean", kl_mean());
  j.set("kl_99", kl_99());
  j.set("kl_max", kl_max());
  j.set("top1_agreement", top1());
  j.set("top5_agreement", top5());
  j.set("logit_max_difference", logit_max);
  j.set("predicted", predicted);
  j.set("perplexity_a", predicted ? Json(perplexity_a()) : Json());
  j.set("perplexity_b", predicted ? Json(perplexity_b()) : Json());
  return j;
}

int64_t position_bucket(int64_t position) {
  int64_t bucket = 0;
  for (int64_t end = 16; position >= end; end *= 4) ++bucket;
  return bucket;
}

std::string bucket_name(int64_t bucket) {
  const int64_t end = int64_t{16} << (2 * bucket);
  return std::to_string(bucket == 0 ? 0 : end / 4) + "-" + std::to_string(end - 1);
}

}  // namespace statera
