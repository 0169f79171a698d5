// Decode (bytes of weights per second) and prefill (integer operations per second) of i8gemm, and the quantization of x.
#include <benchmark/benchmark.h>

#include "kernels/bench_support.h"
#include "kernels/cpu.h"
#include "kernels/i8gemm/i8gemm.h"

namespace statera::kernels::i8gemm {
namespace {

using namespace bench;

// Arguments: isa, m, threads.
void run(benchmark::State& state, int64_t working_set) {
  const Isa isa = static_cast<Isa>(state.range(0));
  if (!isa_supported(isa)) return state.SkipWithError("instruction set not supported here");
  set_isa(isa);
  const Spec spec{kN, kK, false};
  const int64_t m = state.range(1);
  const Matrices weights(packed_bytes(spec), working_set);
  const std::vector<int8_t> w(kN * kK, 3), x(m * kK, 5);
  const std::vector<float> scales(kN, 0.01f), x_scale(m, 0.02f);
  pack(spec, w.data(), scales.data(), nullptr, weights.first);
  weights.repeat();
  std::vector<float> y(m * kN);
  for (auto _ : state)
    on_rows(static_cast<int>(state.range(2)), [&](int64_t begin, int64_t end) {
      for (int i = 0; i < weights.count; ++i)
        matmul(x.data(), kK, m, x_scale.data(), nullptr, weights.at(i), spec, nullptr, y.data(), kN, begin, end);
    });
  state.SetBytesProcessed(state.iterations() * weights.count * static_cast<int64_t>(weights.bytes));
  state.counters["OP"] = benchmark::Counter(2.0 * m * kN * kK * weights.count, benchmark::Counter::kIsIterationInvariantRate);
  set_isa(std::nullopt);
}
void i8gemm_decode(benchmark::State& state) { run(state, kWorkingSet); }
void i8gemm_prefill(benchmark::State& state) { run(state, 0); }

void quantize(benchmark::State& state) {
  const Isa isa = static_cast<Isa>(state.range(0));
  if (!isa_supported(isa)) return state.SkipWithError("instruction set not supported here");
  set_isa(isa);
  const int64_t m = 64;
  const std::vector<float> x(m * kK, 0.3f);
  std::vector<int8_t> q(m * kK);
  std::vector<float> scale(m);
  for (auto _ : state) quantize_rows(x.data(), kK, m, kK, q.data(), kK, scale.data());
  state.SetBytesProcessed(state.iterations() * m * kK * 4);
  set_isa(std::nullopt);
}

void cases(benchmark::internal::Benchmark* b) { b->ArgNames({"isa", "m", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond); }
BENCHMARK(i8gemm_decode)->Apply(cases)->ArgsProduct({{1, 2}, {1, 4, 8}, {1, 2}});
BENCHMARK(i8gemm_prefill)->Apply(cases)->ArgsProduct({{1, 2}, {16, 64, 256}, {1}});
BENCHMARK(quantize)->ArgName("isa")->Arg(0)->Arg(1)->Arg(2);

}  // namespace
}  // namespace statera::kernels::i8gemm
