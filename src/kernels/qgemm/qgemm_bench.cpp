// Decode (bytes of weights per second, beside a plain read of as many bytes) and prefill (FLOP per second) of qgemm.
// Several weight matrices are visited in turn, so that none stays in a cache.
#include <benchmark/benchmark.h>

#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/qgemm/qgemm.h"

namespace statera::kernels::qgemm {
namespace {

constexpr int64_t kN = 4096, kK = 4096, kWorkingSet = int64_t{256} << 20;

template <class F>
void on_threads(int threads, F body) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(body, t);
  body(0);
  for (auto& t : others) t.join();
}

struct Weights {
  Spec spec;
  size_t bytes;
  int count;
  std::unique_ptr<uint8_t[]> storage;
  uint8_t* first;

  Weights(int bits, int64_t group, bool zeros, int64_t working_set) : spec{kN, kK, bits, group, zeros, ScaleType::f16} {
    bytes = packed_bytes(spec);
    count = static_cast<int>(std::max<int64_t>(1, working_set / static_cast<int64_t>(bytes)));
    storage = std::make_unique_for_overwrite<uint8_t[]>(bytes * count + 64);
    first = storage.get() + (64 - reinterpret_cast<uintptr_t>(storage.get()) % 64) % 64;
    std::vector<uint8_t> codes(kN * kK), zero(kN * group_count(spec), static_cast<uint8_t>(1));
    std::mt19937 rng(1);
    for (auto& c : codes) c = static_cast<uint8_t>(rng() & ((1u << bits) - 1));
    const std::vector<float> scales(kN * group_count(spec), 0.0078125f);
    for (int i = 0; i < count; ++i) {
      if (i == 0)
        pack(spec, codes.data(), scales.data(), zeros ? zero.data() : nullptr, first);
      else
        std::copy(first, first + bytes, first + i * bytes);
    }
  }
};

void sweep(const Weights& w, const float* x, int64_t m, float* y, int threads) {
  const int64_t share = kN / threads / kRowBlock * kRowBlock;
  on_threads(threads, [&](int t) {
    const int64_t begin = t * share, end = t == threads - 1 ? kN : begin + share;
    for (int i = 0; i < w.count; ++i) matmul(x, kK, m, w.first + i * w.bytes, w.spec, nullptr, y, kN, begin, end);
  });
}

// Arguments: isa, bits, group, zeros, m, threads.
void decode(benchmark::State& state) {
  const Isa isa = static_cast<Isa>(state.range(0));
  if (!isa_supported(isa)) return state.SkipWithError("instruction set not supported here");
  set_isa(isa);
  const Weights w(static_cast<int>(state.range(1)), state.range(2), state.range(3) != 0, kWorkingSet);
  const int64_t m = state.range(4);
  std::vector<float> x(m * kK, 0.5f), y(m * kN);
  for (auto _ : state) sweep(w, x.data(), m, y.data(), static_cast<int>(state.range(5)));
  state.SetBytesProcessed(state.iterations() * w.count * static_cast<int64_t>(w.bytes));
  set_isa(std::nullopt);
}

// Arguments: isa, bits, group, zeros, m, threads.
void prefill(benchmark::State& state) {
  const Isa isa = static_cast<Isa>(state.range(0));
  if (!isa_supported(isa)) return state.SkipWithError("instruction set not supported here");
  set_isa(isa);
  const Weights w(static_cast<int>(state.range(1)), state.range(2), state.range(3) != 0, 0);
  const int64_t m = state.range(4);
  std::vector<float> x(m * kK, 0.5f), y(m * kN);
  for (auto _ : state) sweep(w, x.data(), m, y.data(), static_cast<int>(state.range(5)));
  state.counters["FLOP"] = benchmark::Counter(2.0 * m * kN * kK, benchmark::Counter::kIsIterationInvariantRate);
  set_isa(std::nullopt);
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

void cases(benchmark::internal::Benchmark* b) {
  b->ArgNames({"isa", "bits", "group", "zeros", "m", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(read_memory)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(decode)->Apply(cases)->ArgsProduct({{1, 2}, {4, 8}, {32, 64, 128}, {0}, {1}, {1, 2}});
BENCHMARK(decode)->Apply(cases)->ArgsProduct({{1, 2}, {2, 3, 4, 5, 6, 8}, {128}, {1}, {1}, {1}});
BENCHMARK(decode)->Apply(cases)->ArgsProduct({{1, 2}, {4}, {16}, {0}, {1}, {1}});
BENCHMARK(decode)->Apply(cases)->ArgsProduct({{1, 2}, {4, 8}, {128}, {0}, {2, 4, 8}, {1, 2}});
BENCHMARK(prefill)->Apply(cases)->ArgsProduct({{1, 2}, {4, 8}, {128}, {0}, {9, 16, 64, 256}, {1, 2}});

}  // namespace
}  // namespace statera::kernels::qgemm
