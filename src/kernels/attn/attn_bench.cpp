// FLOP per second of attention over whole sequences (two products, packing included, causal ones counted by what is visible), and bytes of
// keys and values per second of a step over a long cache.
#include <benchmark/benchmark.h>

#include <cmath>

#include "kernels/attn/attn.h"
#include "kernels/bench_support.h"

namespace statera::kernels::attn {
namespace {

struct Heads {
  Shape shape;
  std::vector<float> q, k, v, out;
  Sequence s;
  Heads(int64_t queries, int64_t keys, const Shape& of)
      : shape(of), q(queries * of.heads * of.d, 0.1f), k(keys * of.key_heads * of.d, 0.2f), v(keys * of.key_heads * of.dv, 0.3f), out(queries * of.heads * of.dv) {
    s = {.q = {q.data(), of.heads * of.d, of.d}, .k = {k.data(), of.key_heads * of.d, of.d}, .v = {v.data(), of.key_heads * of.dv, of.dv}, .out = out.data(),
         .out_row = of.heads * of.dv, .queries = queries, .keys = keys};
  }
};

void attn_tiles(benchmark::State& state) {
  const int64_t T = state.range(0), d = state.range(1), threads = state.range(3);
  const Shape shape{.heads = 16, .key_heads = 16, .d = d, .dv = d, .scale = 1 / std::sqrt(static_cast<float>(d)), .causal = state.range(2) != 0, .window = 0};
  Heads h(T, T, shape);
  std::vector<float> packed(blocks(T) * packed_size(shape) * shape.key_heads);
  for (auto _ : state) {
    bench::on_threads(static_cast<int>(threads), [&](int t) {
      for (int64_t head = t; head < shape.heads; head += threads) {
        float* to = packed.data() + head * blocks(T) * packed_size(shape);
        for (int64_t b = 0; b < blocks(T); ++b) pack(h.s, shape, head, b, to + b * packed_size(shape));
        for (int64_t i = 0; i < tiles(T); ++i) run_tile(h.s, shape, head, i, to);
      }
    });
  }
  const double pairs = static_cast<double>(T) * static_cast<double>(shape.causal ? (T + 1) / 2 : T);
  state.counters["FLOP"] = benchmark::Counter(4 * pairs * static_cast<double>(shape.heads * d), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(attn_tiles)->ArgNames({"rows", "d", "causal", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond)->ArgsProduct({{512, 1024, 5329}, {64, 80, 128}, {0, 1}, {1, 2}});

void attn_step(benchmark::State& state) {
  const int64_t T = state.range(0), threads = state.range(2);
  const Shape shape{.heads = state.range(1), .key_heads = 2, .d = 128, .dv = 128, .scale = 0.1f, .causal = true, .window = 0};
  Heads h(1, T, shape);
  const int64_t count = parts(T), size = part_size(1, shape);
  std::vector<float> to(2 * count * size);
  for (auto _ : state) {
    bench::on_threads(static_cast<int>(threads), [&](int t) {
      for (int64_t i = t; i < 2 * count; i += threads) run_part(h.s, shape, i / count, i % count, to.data() + i * size);
    });
    for (int64_t head = 0; head < 2; ++head) merge(h.s, shape, head, to.data() + head * count * size);
  }
  state.SetBytesProcessed(state.iterations() * T * 2 * 2 * 128 * 4);
}
BENCHMARK(attn_step)->ArgNames({"keys", "heads", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond)->ArgsProduct({{512, 8192, 131072}, {2, 12}, {1, 2}});

}  // namespace
}  // namespace statera::kernels::attn
