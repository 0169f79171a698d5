// Decode (bytes of weights per second) and prefill (integer operations per second) of i8gemm, and the quantization of x, at the shapes of a
// 2B model: W [8960, 1536] (gate, up) and [1536, 8960] (down).
#include <benchmark/benchmark.h>

#include <random>

#include "kernels/bench_support.h"
#include "kernels/cpu.h"
#include "kernels/i8gemm/i8gemm.h"

namespace statera::kernels::i8gemm {
namespace {

using namespace bench;

constexpr int64_t kHidden = 1536, kInner = 8960;

struct Input {
  std::vector<float> x, scale;
  std::vector<int8_t> q;
  std::vector<int32_t> minus_sum;
  Rows rows;
  Input(int64_t m, int64_t k, int64_t segment, int bits) : rows(rows_of(m, k, segment, bits)) {
    std::mt19937 rng(2);
    std::normal_distribution<float> d;
    x.resize(m * k);
    for (auto& v : x) v = d(rng);
    q.resize(rows.padded * rows.stride);
    scale.resize(rows.padded * rows.segments);
    minus_sum.resize(scale.size());
    rows.q = q.data();
    rows.scale = scale.data();
    rows.minus_sum = minus_sum.data();
  }
};

// Arguments of both: isa (0 scalar, 1 avx2, 2 avx512, 3 amx), bits, group (0: the row), group of x (0: the token), zeros, m, down, threads.
void run(benchmark::State& state, int64_t working_set) {
  const Isa isa = static_cast<Isa>(state.range(0));
  if (!isa_supported(isa)) return state.SkipWithError("instruction set not supported here");
  set_isa(isa);
  const int bits = static_cast<int>(state.range(1));
  const bool down = state.range(6) != 0;
  const int64_t n = down ? kHidden : kInner, k = down ? kInner : kHidden, m = state.range(5);
  const qgemm::Spec spec{n, k, bits, state.range(2), state.range(4) != 0, qgemm::ScaleType::f16};
  const Matrices weights(qgemm::packed_bytes(spec), working_set);
  std::vector<uint8_t> codes(n * k), zeros(n * qgemm::group_count(spec), uint8_t{1});
  std::mt19937 rng(1);
  for (auto& c : codes) c = static_cast<uint8_t>(rng() & ((1u << bits) - 1));
  const std::vector<float> scales(zeros.size(), 0.0078125f);
  qgemm::pack(spec, codes.data(), scales.data(), spec.zeros ? zeros.data() : nullptr, weights.first);
  weights.repeat();
  Input in(m, k, segment_of(spec, state.range(3)), bits);
  quantize(in.x.data(), k, m, state.range(3), in.rows, 0);
  std::vector<float> y(m * n);
  const int threads = static_cast<int>(state.range(7));
  const int64_t units = n / 32;
  for (auto _ : state)
    on_threads(threads, [&](int t) {
      for (int i = 0; i < weights.count; ++i)
        matmul(in.rows, m, weights.at(i), spec, nullptr, y.data(), n, units * t / threads * 32, units * (t + 1) / threads * 32);
    });
  state.SetBytesProcessed(state.iterations() * weights.count * static_cast<int64_t>(weights.bytes));
  state.counters["OP"] = benchmark::Counter(2.0 * m * n * k * weights.count, benchmark::Counter::kIsIterationInvariantRate);
  set_isa(std::nullopt);
}
void i8gemm_decode(benchmark::State& state) { run(state, kWorkingSet); }
void i8gemm_prefill(benchmark::State& state) { run(state, 0); }
void i8gemm_prefill_cold(benchmark::State& state) { run(state, kWorkingSet); }  // as in a model: every matrix comes from memory

// Arguments: isa, m, group (0: the row).
void i8gemm_quantize(benchmark::State& state) {
  const Isa isa = static_cast<Isa>(state.range(0));
  if (!isa_supported(isa)) return state.SkipWithError("instruction set not supported here");
  set_isa(isa);
  const int64_t m = state.range(1), group = state.range(2);
  Input in(m, kHidden, group > 0 ? group : kMaxSegment, 4);
  for (auto _ : state) quantize(in.x.data(), kHidden, m, group, in.rows, 0);
  state.SetBytesProcessed(state.iterations() * m * kHidden * 4);
  set_isa(std::nullopt);
}

void cases(benchmark::internal::Benchmark* b) {
  b->ArgNames({"isa", "bits", "group", "xgroup", "zeros", "m", "down", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK(i8gemm_decode)->Apply(cases)->ArgsProduct({{1, 2}, {4, 8}, {128}, {128}, {0}, {1, 8}, {0}, {1, 2}});
BENCHMARK(i8gemm_decode)->Apply(cases)->ArgsProduct({{2}, {4}, {128}, {128}, {0}, {2, 4}, {0}, {1, 2}});
BENCHMARK(i8gemm_decode)->Apply(cases)->ArgsProduct({{2}, {2, 3, 5, 6, 8}, {128}, {128}, {1}, {1}, {0}, {2}});
BENCHMARK(i8gemm_decode)->Apply(cases)->ArgsProduct({{2}, {8}, {0}, {0}, {0}, {1, 8}, {0}, {1, 2}});
BENCHMARK(i8gemm_prefill)->Apply(cases)->ArgsProduct({{1, 2, 3}, {4}, {128}, {128}, {0}, {512}, {0, 1}, {1, 2}});
BENCHMARK(i8gemm_prefill)->Apply(cases)->ArgsProduct({{2}, {4}, {32, 64, 128}, {32, 128}, {1}, {512}, {0}, {1}});
BENCHMARK(i8gemm_prefill)->Apply(cases)->ArgsProduct({{1, 2, 3}, {4, 8}, {0}, {0}, {0}, {512}, {0, 1}, {1, 2}});
BENCHMARK(i8gemm_prefill)->Apply(cases)->ArgsProduct({{1, 2, 3}, {4}, {128}, {128}, {0}, {9, 16, 24, 25, 32, 64}, {0, 1}, {1}});
BENCHMARK(i8gemm_prefill_cold)->Apply(cases)->ArgsProduct({{2, 3}, {4}, {128}, {128}, {0}, {16, 64, 256, 512}, {0}, {1, 2}});
BENCHMARK(i8gemm_quantize)->ArgNames({"isa", "m", "group"})->ArgsProduct({{1, 2}, {1, 512}, {0, 128}});

}  // namespace
}  // namespace statera::kernels::i8gemm
