// Multiply-adds per second in registers, and bytes per second out of memory, by instruction set.
#include <benchmark/benchmark.h>

#include "kernels/bench_support.h"
#include "kernels/cpu.h"
#include "kernels/peak/peak.h"

namespace statera::kernels::peak {
namespace {

// Arguments: isa, kind.
void peak_run(benchmark::State& state) {
  const Isa isa = static_cast<Isa>(state.range(0));
  if (!isa_supported(isa)) return state.SkipWithError("instruction set not supported here");
  set_isa(isa);
  const Peak* p = find(static_cast<Kind>(state.range(1)));
  set_isa(std::nullopt);
  if (!p) return state.SkipWithError("no such instruction here");
  state.SetLabel(p->instruction);
  for (auto _ : state) benchmark::DoNotOptimize(p->run(kMaxRounds));
  state.counters["FLOP"] = benchmark::Counter(2.0 * kMaxRounds * static_cast<double>(p->multiply_adds), benchmark::Counter::kIsIterationInvariantRate);
}

// Arguments: isa, threads.
void peak_read(benchmark::State& state) {
  const Isa isa = static_cast<Isa>(state.range(0));
  if (!isa_supported(isa)) return state.SkipWithError("instruction set not supported here");
  set_isa(isa);
  const bench::Matrices memory(size_t{1} << 20, 4 * bench::kWorkingSet);
  memory.repeat();
  const int threads = static_cast<int>(state.range(1));
  for (auto _ : state)
    bench::on_threads(threads, [&](int t) {
      for (int i = memory.count * t / threads; i < memory.count * (t + 1) / threads; ++i) benchmark::DoNotOptimize(read(memory.at(i), static_cast<int64_t>(memory.bytes)));
    });
  state.SetBytesProcessed(state.iterations() * memory.count * static_cast<int64_t>(memory.bytes));
  set_isa(std::nullopt);
}

BENCHMARK(peak_run)->ArgNames({"isa", "kind"})->ArgsProduct({{0, 1, 2, 3}, {0, 1, 2}});
BENCHMARK(peak_read)->ArgNames({"isa", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond)->ArgsProduct({{0, 1, 2}, {1, 2}});

}  // namespace
}  // namespace statera::kernels::peak
