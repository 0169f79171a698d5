// FLOP per second of the three products of a training step, packing included.
#include <benchmark/benchmark.h>

#include "kernels/bench_support.h"
#include "kernels/bgemm/bgemm.h"

namespace statera::kernels::bgemm {
namespace {

void bgemm_product(benchmark::State& state) {
  const int64_t m = state.range(0), n = state.range(1), k = state.range(2), threads = state.range(4);
  const bool turned_a = state.range(3) & 2, turned_b = state.range(3) & 1;
  if (!available()) return state.SkipWithError("no bf16 products here");
  std::vector<float> a(static_cast<size_t>(m * k), 0.5f), b(static_cast<size_t>(n * k), 0.25f), c(static_cast<size_t>(m * n));
  std::vector<uint32_t> packed(static_cast<size_t>(packed_size(n, k)));
  for (auto _ : state) {
    bench::on_threads(static_cast<int>(threads), [&](int t) {
      pack({b.data(), turned_b ? n : k, turned_b}, n, k, packed.data(), panels(n) * t / threads, panels(n) * (t + 1) / threads);
    });
    bench::on_threads(static_cast<int>(threads), [&](int t) {
      matmul({a.data(), turned_a ? m : k, turned_a}, m * t / threads, m * (t + 1) / threads, k, packed.data(), n, c.data(), n);
    });
  }
  state.counters["FLOP"] = benchmark::Counter(2.0 * static_cast<double>(m * n * k), benchmark::Counter::kIsIterationInvariantRate);
}
// Forward, gradient of x, gradient of W of a layer [N, K] and T tokens: of a small model's and of a 1.5B one's.
BENCHMARK(bgemm_product)->ArgNames({"m", "n", "k", "turned", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond)
    ->Args({2600, 448, 192, 0, 1})->Args({2600, 192, 448, 1, 1})->Args({448, 192, 2600, 3, 1})
    ->Args({1024, 8960, 1536, 0, 2})->Args({1024, 1536, 8960, 1, 2})->Args({8960, 1536, 1024, 3, 2});

}  // namespace
}  // namespace statera::kernels::bgemm
