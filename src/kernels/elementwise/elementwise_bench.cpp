// Elements per second of the elementwise kernels, one thread, rows in the first- or second-level cache.
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/elementwise/elementwise.h"

namespace statera::kernels::elementwise {
namespace {

constexpr int64_t kRows = 8, kN = 5120;

void activation(benchmark::State& state) {
  std::vector<float> x(kRows * kN, 0.7f), y(kRows * kN);
  for (auto _ : state) {
    table().activate(static_cast<Act>(state.range(0)), x.data(), kN, state.range(1) ? x.data() : nullptr, kN, kRows, kN, y.data(), kN);
    benchmark::DoNotOptimize(y.data());
  }
  state.SetItemsProcessed(state.iterations() * kRows * kN);
}
BENCHMARK(activation)->ArgNames({"act", "times"})->ArgsProduct({{0, 1, 2, 3, 4}, {0, 1}});

void norm(benchmark::State& state) {
  std::vector<float> x(kRows * kN, 0.7f), w(kN, 1.0f), y(kRows * kN);
  const Vector weight{w.data(), Type::f32};
  for (auto _ : state) {
    if (state.range(0)) {
      table().layer_norm(x.data(), kN, kRows, kN, weight, weight, 1e-6f, y.data());
    } else {
      table().rms_norm(x.data(), kN, kRows, kN, weight, 1e-6f, y.data());
    }
    benchmark::DoNotOptimize(y.data());
  }
  state.SetItemsProcessed(state.iterations() * kRows * kN);
}
BENCHMARK(norm)->ArgName("layer")->Arg(0)->Arg(1);

}  // namespace
}  // namespace statera::kernels::elementwise
