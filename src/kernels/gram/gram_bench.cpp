// FLOP per second of gram, the lower triangle counted, packing included.
#include <benchmark/benchmark.h>

#include "kernels/bench_support.h"
#include "kernels/gram/gram.h"

namespace statera::kernels::gram {
namespace {

void gram_add(benchmark::State& state) {
  const int64_t columns = state.range(0);
  std::vector<float> x(kRows * columns, 0.5f), packed(packed_size(columns)), g(columns * columns);
  for (auto _ : state) {
    pack(x.data(), columns, columns, 0, kRows, packed.data(), 0, panels(columns));
    bench::on_threads(static_cast<int>(state.range(1)), [&](int t) {
      for (int64_t s = strips(columns) - 1 - t; s >= 0; s -= state.range(1)) add(packed.data(), kRows, columns, nullptr, g.data(), columns, s, s + 1);
    });
  }
  state.counters["FLOP"] = benchmark::Counter(static_cast<double>(kRows * columns * (columns + 1)), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(gram_add)->ArgNames({"columns", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond)->ArgsProduct({{1536, 8960}, {1, 2}});

}  // namespace
}  // namespace statera::kernels::gram
