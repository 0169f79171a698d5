// See statistics.h.
#include "eval/statistics.h"

#include <algorithm>
#include <cmath>

namespace statera {

Estimate mean_of(const std::vector<double>& values) {
  Estimate out;
  const auto n = static_cast<double>(values.size());
  if (values.empty()) return out;
  for (double v : values) out.value += v;
  out.value /= n;
  if (values.size() < 2) return out;
  double squares = 0;
  for (double v : values) squares += (v - out.value) * (v - out.value);
  out.standard_error = std::sqrt(squares / (n - 1) / n);
  return out;
}

Estimate ratio_of(const std::vector<Cluster>& clusters) {
  Estimate out;
  double amount = 0, weight = 0, squares = 0;
  for (const Cluster& c : clusters) amount += c.amount, weight += c.weight;
  if (weight == 0) return out;
  out.value = amount / weight;
  if (clusters.size() < 2) return out;
  for (const Cluster& c : clusters) squares += std::pow(c.amount - out.value * c.weight, 2);
  const auto n = static_cast<double>(clusters.size());
  out.standard_error = std::sqrt(n / (n - 1) * squares) / weight;
  return out;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const double place = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(place);
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(low);
  std::nth_element(values.begin(), at, values.end());
  const double below = *at;
  if (low + 1 == values.size()) return below;
  return below + (place - static_cast<double>(low)) * (*std::min_element(at + 1, values.end()) - below);
}

}  // namespace statera
