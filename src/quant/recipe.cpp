// Looking up methods, and the error of a rounded weight, measured in fp32 over row chunks of fixed size.
#include "quant/recipe.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/strings.h"
#include "base/threads.h"

namespace statera {

double RoundingError::relative() const { return weight > 0 ? std::sqrt(error / weight) : 0; }

RoundingError rounding_error(const at::Tensor& W_NK, const QTensor& q) {
  constexpr int64_t kRows = 64;
  const int64_t N = W_NK.size(0), K = W_NK.size(1), chunks = (N + kRows - 1) / kRows;
  check(q.rows() == N && q.columns() == K, "rounding_error: shapes differ");
  std::vector<RoundingError> parts(static_cast<size_t>(chunks));
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t from = c * kRows, to = std::min(N, from + kRows);
      QTensor rows{q.spec, q.q.slice(0, from, to), q.scale.slice(0, from, to), q.zero.defined() ? q.zero.slice(0, from, to) : at::Tensor()};
      const at::Tensor wide = W_NK.slice(0, from, to).to(at::kFloat).contiguous(), back = rows.dequantize().contiguous();
      const float *w = wide.const_data_ptr<float>(), *d = back.const_data_ptr<float>();
      RoundingError& sum = parts[static_cast<size_t>(c)];
      for (int64_t i = 0; i < wide.numel(); ++i) {
        const double e = static_cast<double>(d[i]) - w[i];
        sum.error += e * e;
        sum.weight += static_cast<double>(w[i]) * w[i];
      }
    }
  });
  RoundingError total;
  for (const RoundingError& part : parts) {
    total.error += part.error;
    total.weight += part.weight;
  }
  return total;
}

const Method& method_named(std::string_view name) {
  std::vector<std::string> names;
  for (const Method* m : methods()) {
    if (name == m->name) return *m;
    names.emplace_back(m->name);
  }
  throw Error(ErrorKind::usage,
              "unknown method \"" + std::string(name) + "\"" + did_you_mean(name, names) + " (known: " + join(names, ", ") + ")");
}

std::vector<std::string> recipe_methods(std::string_view methods) {
  std::vector<std::string> names = split(methods, '+');
  for (auto name = names.begin(); name != names.end(); ++name) {
    const Method& method = method_named(*name);
    if (std::find(names.begin(), name, *name) != name) throw Error(ErrorKind::usage, "method " + *name + " stands twice in the recipe");
    if (!method.rounds || name + 1 == names.end()) continue;
    const std::string next = *(name + 1);
    throw Error(ErrorKind::usage, method_named(next).rounds
                                      ? "both " + *name + " and " + next + " round weights: a recipe rounds once, at its end"
                                      : "method " + next + " comes after " + *name + ", which has rounded the weights: put it before");
  }
  if (!method_named(names.back()).rounds) names.emplace_back("rtn");
  return names;
}

Recipe make_recipe(std::string_view methods, const RecipeOptions& options) {
  Recipe recipe;
  for (const std::string& name : recipe_methods(methods)) {
    for (auto& step : method_named(name).make_steps(options)) recipe.push_back(std::move(step));
  }
  return recipe;
}

}  // namespace statera
