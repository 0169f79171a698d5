// Decode (bytes of weights per second) and prefill (FLOP per second) of hgemm.
#include <benchmark/benchmark.h>

#include "kernels/bench_support.h"
#include "kernels/cpu.h"
#include "kernels/hgemm/hgemm.h"

namespace statera::kernels::hgemm {
namespace {

using namespace bench;

// Arguments: isa, type, m, threads.
void run(benchmark::State& state, int64_t working_set) {
  const Isa isa = static_cast<Isa>(state.range(0));
  if (!isa_supported(isa)) return state.SkipWithError("instruction set not supported here");
  set_isa(isa);
  const Type type = static_cast<Type>(state.range(1));
  const int64_t m = state.range(2);
  const Matrices weights(kN * kK * (type == Type::f32 ? 4 : 2), working_set);
  std::vector<float> x(m * kK, 0.5f), y(m * kN);
  for (auto _ : state)
    on_rows(static_cast<int>(state.range(3)), [&](int64_t begin, int64_t end) {
      for (int i = 0; i < weights.count; ++i) matmul(x.data(), kK, m, {weights.at(i), type, kN, kK, kK}, nullptr, y.data(), kN, begin, end);
    });
  state.SetBytesProcessed(state.iterations() * weights.count * static_cast<int64_t>(weights.bytes));
  state.counters["FLOP"] = benchmark::Counter(2.0 * m * kN * kK * weights.count, benchmark::Counter::kIsIterationInvariantRate);
  set_isa(std::nullopt);
}
void hgemm_decode(benchmark::State& state) { run(state, kWorkingSet); }
void hgemm_prefill(benchmark::State& state) { run(state, 0); }

void cases(benchmark::internal::Benchmark* b) {
  b->ArgNames({"isa", "type", "m", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK(hgemm_decode)->Apply(cases)->ArgsProduct({{1, 2}, {0, 1, 2}, {1}, {1, 2}});
BENCHMARK(hgemm_decode)->Apply(cases)->ArgsProduct({{1, 2}, {1}, {2, 4, 8}, {1, 2}});
BENCHMARK(hgemm_prefill)->Apply(cases)->ArgsProduct({{1, 2, 3}, {1}, {9, 16, 64, 256, 512}, {1, 2}});

}  // namespace
}  // namespace statera::kernels::hgemm
