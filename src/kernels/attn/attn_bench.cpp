// FLOP per second of attention over whole sequences (two products, packing included, causal ones counted by what is visible), and bytes of
// keys and values per second of a step over a long cache, by the form they are stored in.
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

void attn_coded(benchmark::State& state) {
  const int64_t T = state.range(0), d = state.range(1), threads = state.range(2);
  const Shape shape{.heads = 16, .key_heads = 16, .d = d, .dv = d, .scale = 1 / std::sqrt(static_cast<float>(d)), .causal = false, .window = 0};
  Heads h(T, T, shape);
  const int64_t size = coded_size(shape);
  std::vector<float> packed((blocks(T) * size * shape.key_heads) / 4 + 16), means(shape.heads * d);
  auto* data = reinterpret_cast<uint8_t*>(packed.data()) + 64 - reinterpret_cast<uintptr_t>(packed.data()) % 64;
  for (auto _ : state) {
    bench::on_threads(static_cast<int>(threads), [&](int t) {
      for (int64_t head = t; head < shape.heads; head += threads) {
        uint8_t* to = data + head * blocks(T) * size;
        mean_key(h.s, shape, head, means.data() + head * d);
        for (int64_t b = 0; b < blocks(T); ++b) pack_coded(h.s, shape, head, b, means.data() + head * d, to + b * size);
        for (int64_t i = 0; i < tiles(T); ++i) run_coded_tile(h.s, shape, head, i, to);
      }
    });
  }
  state.counters["OP"] = benchmark::Counter(4 * static_cast<double>(T) * static_cast<double>(T * shape.heads * d), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(attn_coded)->ArgNames({"rows", "d", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond)->ArgsProduct({{512, 1024, 5329}, {64, 80, 128}, {1, 2}});

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

// Keys and values of 2 heads of 128 of several layers, more than any cache holds, as nn's cache stores them.
struct Layers {
  static constexpr int64_t kHeads = 2, kWidth = 128;
  int64_t keys, scale_bytes, bytes;  // of the keys of a layer
  Form form;
  bench::Matrices memory;  // of each layer keys and their scales, then values and theirs
  Layers(int64_t keys_in, Form form_in)
      : keys(keys_in), scale_bytes(form_in == Form::i8 ? kHeads * keys_in * 4 : 0), bytes(kHeads * keys_in * kWidth * (form_in == Form::f32 ? 4 : form_in == Form::f16 ? 2 : 1)), form(form_in),
        memory(static_cast<size_t>(2 * (bytes + scale_bytes)), 2 * bench::kWorkingSet) {}
  Stored at(int layer, bool values) const {
    const uint8_t* data = memory.at(layer) + (values ? bytes + scale_bytes : 0);
    return {data, kWidth, keys * kWidth, form, reinterpret_cast<const float*>(data + bytes), keys};
  }
};

void attn_step(benchmark::State& state) {
  const int64_t T = state.range(0), threads = state.range(2);
  const Shape shape{.heads = state.range(1), .key_heads = Layers::kHeads, .d = Layers::kWidth, .dv = Layers::kWidth, .scale = 0.1f, .causal = true, .window = 0};
  const Layers layers(T, static_cast<Form>(state.range(3)));
  const int64_t count = parts(T), size = part_size(1, shape);
  std::vector<float> to(static_cast<size_t>(2 * count * size)), q(static_cast<size_t>(shape.heads * shape.d), 0.1f), out(static_cast<size_t>(shape.heads * shape.dv));
  Sequence s{.q = {q.data(), shape.heads * shape.d, shape.d}, .k = {}, .v = {}, .out = out.data(), .out_row = shape.heads * shape.dv, .queries = 1, .keys = T};
  int layer = 0;
  for (auto _ : state) {
    s.k = layers.at(layer, false);
    s.v = layers.at(layer, true);
    layer = (layer + 1) % layers.memory.count;
    bench::on_threads(static_cast<int>(threads), [&](int t) {
      for (int64_t i = t * 2 * count / threads; i < (t + 1) * 2 * count / threads; ++i) run_part(s, shape, i / count, i % count, to.data() + i * size);
    });
    for (int64_t head = 0; head < 2; ++head) merge(s, shape, head, to.data() + head * count * size);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(layers.memory.bytes));
}
BENCHMARK(attn_step)->ArgNames({"keys", "heads", "threads", "form"})->UseRealTime()->Unit(benchmark::kMicrosecond)->ArgsProduct({{4096, 16384}, {2, 12}, {1, 2}, {0, 1, 2}});

}  // namespace
}  // namespace statera::kernels::attn
