// Means, ratios and quantiles with their standard errors. Plain numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace statera {

// A value and its standard error; none from a single observation.
struct Estimate {
  double value = 0;
  std::optional<double> standard_error;
};

// Arithmetic mean; standard error s / sqrt(n) with the sample's deviation s (n - 1). Of nothing: 0.
Estimate mean_of(const std::vector<double>& values);

// sum(amount) / sum(weight) over clusters of unequal weight, e.g. log-likelihoods over tokens by document. Its standard error treats the
// clusters as the independent observations (linearised ratio): sqrt(n / (n - 1) * sum((amount_i - ratio * weight_i)^2)) / sum(weight).
struct Cluster {
  double amount = 0, weight = 0;
};
Estimate ratio_of(const std::vector<Cluster>& clusters);

// Quantile q in [0, 1], interpolated linearly between the neighbours as NumPy does. Of nothing: 0.
double quantile(std::vector<double> values, double q);

}  // namespace statera
