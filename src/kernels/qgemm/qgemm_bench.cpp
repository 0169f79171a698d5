// Decode (bytes of weights per second, beside a plain read of as many bytes) and prefill (FLOP per second) of qgemm.
// Several weight matrices are visited in turn, so that none stays in a cache.
#include <benchmark/benchmark.h>

#include <random>

#include "kernels/bench_support.h"
#include "kernels/cpu.h"
#include "kernels/qgemm/qgemm.h"

namespace statera::kernels::qgemm {
namespace {

using namespace bench;

// Arguments of both: isa, bits, group, zeros, m, threads.
void run(benchmark::State& state, int64_t working_set) {
  const Isa isa = static_cast<Isa>(state.range(0));
  if (!isa_supported(isa)) return state.SkipWithError("instruction set not supported here");
  set_isa(isa);
  const int bits = static_cast<int>(state.range(1));
  const Spec spec{kN, kK, bits, state.range(2), state.range(3) != 0, ScaleType::f16};
  const int64_t m = state.range(4);
  const Matrices weights(packed_bytes(spec), working_set);
  std::vector<uint8_t> codes(kN * kK), zeros(kN * group_count(spec), uint8_t{1});
  std::mt19937 rng(1);
  for (auto& c : codes) c = static_cast<uint8_t>(rng() & ((1u << bits) - 1));
  const std::vector<float> scales(kN * group_count(spec), 0.0078125f);
  pack(spec, codes.data(), scales.data(), spec.zeros ? zeros.data() : nullptr, weights.first);
  weights.repeat();
  std::vector<float> x(m * kK, 0.5f), y(m * kN);
  for (auto _ : state)
    on_rows(static_cast<int>(state.range(5)), [&](int64_t begin, int64_t end) {
      for (int i = 0; i < weights.count; ++i) matmul(x.data(), kK, m, weights.at(i), spec, nullptr, y.data(), kN, begin, end);
    });
  state.SetBytesProcessed(state.iterations() * weights.count * static_cast<int64_t>(weights.bytes));
  state.counters["FLOP"] = benchmark::Counter(2.0 * m * kN * kK * weights.count, benchmark::Counter::kIsIterationInvariantRate);
  set_isa(std::nullopt);
}
void qgemm_decode(benchmark::State& state) { run(state, kWorkingSet); }
void qgemm_prefill(benchmark::State& state) { run(state, 0); }
void qgemm_cached(benchmark::State& state) { run(state, 0); }  // what decoding would give without memory

void cases(benchmark::internal::Benchmark* b) {
  b->ArgNames({"isa", "bits", "group", "zeros", "m", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
}

// What a plain loop reads. Argument: threads.
void read_memory(benchmark::State& state) {
  const std::vector<uint64_t> data(kWorkingSet / 8, 1);
  const int threads = static_cast<int>(state.range(0));
  std::vector<uint64_t> sums(threads);
  for (auto _ : state) {
    on_threads(threads, [&](int t) {
      uint64_t s[8] = {};
      const size_t begin = data.size() / threads * t, end = begin + data.size() / threads;
      for (size_t i = begin; i + 8 <= end; i += 8)
        for (int j = 0; j < 8; ++j) s[j] += data[i + j];
      for (uint64_t v : s) sums[t] += v;
    });
    benchmark::DoNotOptimize(sums.data());
  }
  state.SetBytesProcessed(state.iterations() * kWorkingSet);
}

BENCHMARK(read_memory)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(qgemm_decode)->Apply(cases)->ArgsProduct({{1, 2}, {4, 8}, {32, 64, 128}, {0}, {1}, {1, 2}});
BENCHMARK(qgemm_decode)->Apply(cases)->ArgsProduct({{1, 2}, {2, 3, 4, 5, 6, 8}, {128}, {1}, {1}, {1}});
BENCHMARK(qgemm_decode)->Apply(cases)->ArgsProduct({{1, 2}, {4}, {16}, {0}, {1}, {1}});
BENCHMARK(qgemm_decode)->Apply(cases)->ArgsProduct({{1, 2}, {4, 8}, {128}, {0}, {2, 3, 4, 6, 8}, {1}});
BENCHMARK(qgemm_cached)->Apply(cases)->ArgsProduct({{1, 2}, {4, 8}, {128}, {0}, {1, 2, 3, 4, 6, 8, 9}, {1}});
BENCHMARK(qgemm_prefill)->Apply(cases)->ArgsProduct({{1, 2, 3}, {4, 8}, {128}, {0}, {16, 64, 256, 512}, {1, 2}});

}  // namespace
}  // namespace statera::kernels::qgemm
