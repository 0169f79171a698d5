// Counts against a model small enough to count by hand, times that add up, limits, and options that do not fit.
#include "api/bench.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>

#include "api/bench_model.h"
#include "api/random_model.h"
#include "base/error.h"
#include "base/test_files.h"

namespace statera {
namespace {

const std::string kTiny = std::string(STATERA_SOURCE_DIR) + "/tests/tiny/";

BenchOptions small(const std::string& name) {
  BenchOptions o;
  o.preset = kTiny + name + "/config.json";
  o.pp = 7;
  o.tg = 3;
  o.repeats = 2;
  o.image = name.ends_with("vl") ? "64x64" : "";
  o.read_buffer = "8MB";
  return o;
}

MachineLimits limits_of(double read, double fp32, double int8) {
  MachineLimits l;
  l.read.all.max = read;
  l.compute = {{"fp32", "", {{}, {0, 0, fp32}}}, {"int8", "", {{}, {0, 0, int8}}}};
  return l;
}

profile::Event event(const char* kind, const std::string& name, int thread, int64_t begin, int64_t end, profile::Work work = {}) {
  return {kind, name, work, thread, begin, end};
}

void expect_usage(const BenchOptions& o, const std::string& says) {
  try {
    bench(o);
    FAIL() << "no error: " << says;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::usage) << e.message();
    EXPECT_NE(e.message().find(says), std::string::npos) << e.message();
  }
}

TEST(Summaries, HoldTheLeastTheMiddleAndTheMost) {
  const Summary s = summary_of({3, 1, 2, 10});
  EXPECT_EQ(s.min, 1);
  EXPECT_EQ(s.median, 2.5);
  EXPECT_EQ(s.max, 10);
  EXPECT_EQ(summary_of({}).median, 0);
}

TEST(MachineLimits, WeightsMeetTheWidestKindTheirBitsAllow) {
  const MachineLimits l = limits_of(1, 100, 400);
  EXPECT_EQ(l.peak_for(0), 100);
  EXPECT_EQ(l.peak_for(32), 100);
  EXPECT_EQ(l.peak_for(16), 100);  // no bf16 here
  EXPECT_EQ(l.peak_for(4.2), 400);
  EXPECT_EQ(l.peak("bf16"), 0);
}

TEST(MachineLimits, AreMeasuredForOneThreadAndForAll) {
  const MachineLimits l = measure_limits(int64_t{16} << 20, 2);
  EXPECT_GT(l.read.one.min, 0);
  EXPECT_GE(l.read.all.max, l.read.all.median);
  EXPECT_GT(l.peak("fp32"), 0);
  EXPECT_GT(l.peak("int8"), 0);
  EXPECT_EQ(l.buffer_bytes, int64_t{16} << 20);
}

TEST(BenchProfile, LayersAreNamedByTheEndOfTheirPath) {
  EXPECT_EQ(operator_class("model.layers.3.self_attn.q_proj"), "self_attn.q_proj");
  EXPECT_EQ(operator_class("model.layers.3.mlp.experts.17.up_proj"), "experts.up_proj");
  EXPECT_EQ(operator_class("lm_head"), "lm_head");
}

TEST(BenchProfile, OperatorsSideBySideShareTheirTimeAndStagesAddUp) {
  const int64_t s = 1000000000;
  const std::vector<profile::Event> events = {
      event("linear", "a.0.up", 0, 1 * s, 3 * s, {40, 8, 4, 1}), event("linear", "a.1.up", 1, 2 * s, 4 * s, {40, 8, 4, 1}),
      event("pool", "", 0, 1 * s, 5 * s),                        event("attention", "", 0, 4 * s, 5 * s, {10, 90, 0, 0}),
      event("stage", "decode", 0, 0, 6 * s),                     event("norm", "", 0, 7 * s, 7 * s),
      event("stage", "decode", 0, 6 * s, 8 * s),                 event("linear", "outside", 0, 9 * s, 10 * s)};
  const std::vector<StageProfile> stages = profile_stages(events, limits_of(100, 20, 40));
  ASSERT_EQ(stages.size(), 1u);
  const StageProfile& d = stages[0];
  EXPECT_EQ(d.runs, 2);
  EXPECT_DOUBLE_EQ(d.seconds, 8);
  EXPECT_DOUBLE_EQ(d.operators, 4);
  EXPECT_DOUBLE_EQ(d.loops, 4);
  ASSERT_EQ(d.rows.size(), 3u);
  EXPECT_EQ(d.rows[0].name, "a.up");
  EXPECT_EQ(d.rows[0].calls, 2);
  EXPECT_DOUBLE_EQ(d.rows[0].seconds, 3);
  EXPECT_DOUBLE_EQ(d.rows[0].limit_seconds, 80.0 / 20);  // 32 bits a weight
  EXPECT_TRUE(d.rows[0].compute_bound);
  EXPECT_DOUBLE_EQ(d.rows[1].limit_seconds, 0.9);
  EXPECT_FALSE(d.rows[1].compute_bound);
  EXPECT_EQ(d.rows[2].name, "norm");
  EXPECT_DOUBLE_EQ(d.weight_seconds(limits_of(100, 20, 40)), 8.0 / 100);
}

TEST(BenchProfile, ProductsOfCodesAreHeldAgainstTheIntegerPeak) {
  const int64_t s = 1000000000;
  const std::vector<profile::Event> events = {event("stage", "vision", 0, 0, 2 * s), event("attention", "", 0, 0, s, {80, 1, 0, 0, 40})};
  const StageProfile v = profile_stages(events, limits_of(100, 20, 40)).at(0);
  EXPECT_DOUBLE_EQ(v.rows.at(0).limit_seconds, 40.0 / 20 + 40.0 / 40);
  EXPECT_DOUBLE_EQ(v.compute_seconds(limits_of(100, 20, 40)), 3);
}

// L layers, hidden H, N and K heads of d, feed-forward F, vocabulary V.
struct Sizes {
  double L, H, N, K, d, F, V;
  double block() const { return H * (N + 2 * K) * d + N * d * H + 3 * H * F; }
};
Sizes sizes_of(const Json& c) {
  auto number = [&](const char* key) { return static_cast<double>(c.at(key).as_int()); };
  const double head = c.has("head_dim") ? number("head_dim") : number("hidden_size") / number("num_attention_heads");
  return {number("num_hidden_layers"), number("hidden_size"), number("num_attention_heads"), number("num_key_value_heads"), head, number("intermediate_size"), number("vocab_size")};
}

TEST(Bench, OperationsAndBytesAreThoseOfTheModel) {
  const BenchOptions o = small("qwen2");
  const Sizes s = sizes_of(Json::read_file(*o.preset));
  const BenchReport r = bench(o);
  const double T = static_cast<double>(o.pp), pairs = T * (T + 1) / 2;
  EXPECT_DOUBLE_EQ(r.prefill.work.flop, 2 * T * s.L * s.block() + 2 * s.H * s.V + s.L * 4 * s.N * s.d * pairs);
  double keys = 0;
  for (int64_t i = 1; i <= o.tg; ++i) keys += T + static_cast<double>(i);
  const double tokens = static_cast<double>(o.tg), weights = s.L * s.block() + s.H * s.V;
  EXPECT_DOUBLE_EQ(r.decode.work.flop, tokens * 2 * weights + s.L * 4 * s.N * s.d * keys);
  EXPECT_DOUBLE_EQ(r.decode.work.weights, tokens * weights);
  EXPECT_DOUBLE_EQ(r.decode.work.weight_bytes, tokens * 2 * weights);  // bf16
  EXPECT_DOUBLE_EQ(static_cast<double>(r.weight_bytes) * tokens, r.decode.work.weight_bytes);
  EXPECT_DOUBLE_EQ(r.decode.limit_seconds, r.decode.work.weight_bytes / r.limits.bandwidth());
  EXPECT_FALSE(r.vision.has_value());
}

TEST(Bench, AnExpertModelReadsTheChosenExpertsOnly) {
  BenchOptions o = small("qwen3_moe");
  o.pp = 1;
  const BenchReport r = bench(o);
  const Json c = Json::read_file(*o.preset);
  double experts = 0;
  for (const StageProfile& s : r.stages) {
    if (s.stage != "decode") continue;
    for (const OperatorRow& row : s.rows)
      if (row.name == "experts.up_proj") experts += static_cast<double>(row.calls);
  }
  EXPECT_GT(experts, 0);
  EXPECT_EQ(std::fmod(experts, static_cast<double>(c.at("num_experts_per_tok").as_int() * o.tg)), 0);
}

TEST(Bench, EveryFigureOfAVisionModelIsPositiveAndTheTraceReads) {
  TempDir dir;
  BenchOptions o = small("qwen3_vl");
  o.trace = dir / "trace.json";
  o.profile = true;
  const BenchReport r = bench(o);
  for (const BenchPhase* p : {&r.prefill, &r.decode, &*r.vision, &*r.first_token}) {
    EXPECT_GT(p->rate.min, 0);
    EXPECT_LE(p->rate.min, p->rate.median);
    EXPECT_LE(p->rate.median, p->rate.max);
    EXPECT_GT(p->work.flop, 0);
    EXPECT_GT(p->share_of_limit(), 0);
  }
  EXPECT_EQ(r.image, "64x64");
  EXPECT_GT(r.outside_operators, 0);
  EXPECT_LT(r.outside_operators, 1);
  const Json trace = Json::read_file(o.trace);
  std::set<std::string> kinds;
  for (const Json& e : trace.at("traceEvents").as_array()) kinds.insert(e.at("cat").as_string());
  for (const char* kind : {"stage", "linear", "attention", "norm", "rotary", "activation", "embedding", "sampling"}) EXPECT_TRUE(kinds.contains(kind)) << kind;
  EXPECT_TRUE(r.to_json().has("profile"));
  EXPECT_NE(r.to_text().find("between operators"), std::string::npos);
}

TEST(Bench, WeightsRoundedInMemoryAreThoseThatRoundToNearestGives) {
  BenchOptions o = small("qwen2");
  o.w_bits = 4;
  o.w_group = 16;
  o.asym = true;
  const BenchModel m = open_bench_model(o);
  RandomSource random(0, *stated_dtype(m.loaded.model->config));
  int64_t rounded = 0;
  for (const auto& [path, site] : m.loaded.model->params.linears) {
    const auto q = site->weight->unpack();
    EXPECT_EQ(q.has_value(), path.find("layers.") != path.npos) << path;
    if (!q) continue;
    ++rounded;
    std::optional<ActQuant> act;
    const QTensor expected = rtn(random.linear(path, site->out, site->in, act)->dense(), {4, 16, false});
    EXPECT_TRUE(q->q.equal(expected.q)) << path;
    EXPECT_TRUE(q->scale.equal(expected.scale)) << path;
    EXPECT_TRUE(q->zero.equal(expected.zero)) << path;
  }
  EXPECT_GT(rounded, 0);
}

TEST(Bench, ATiedHeadIsRoundedApartFromTheEmbedding) {
  BenchOptions o = small("qwen3");
  o.w_bits = 4;
  o.w_group = 16;
  o.head_bits = 8;
  const BenchModel drawn = open_bench_model(o);
  EXPECT_EQ(drawn.loaded.model->params.linears.at("lm_head")->weight->unpack()->spec.bits, 8);
  EXPECT_NE(drawn.precision.find("the head with 8 bits"), std::string::npos);
  o.model = kTiny + "qwen3";
  o.preset.reset();
  const BenchModel read = open_bench_model(o);
  const auto q = read.loaded.model->params.linears.at("lm_head")->weight->unpack();
  ASSERT_TRUE(q);
  const at::Tensor table = read.loaded.model->params.tensors.at("model.embed_tokens.weight")->value;
  EXPECT_TRUE(q->q.equal(rtn(table, {8, 16, true}).q));
}

TEST(Bench, ACheckpointIsRoundedAsItIsLoaded) {
  BenchOptions o;
  o.model = std::string(STATERA_SOURCE_DIR) + "/examples/tiny-qwen3-vl";
  o.w_bits = 8;
  o.a_bits = 8;
  const BenchModel m = open_bench_model(o);
  const auto& q_proj = *m.loaded.model->params.linears.at("model.language_model.layers.0.self_attn.q_proj");
  EXPECT_EQ(q_proj.act->bits, 8);
  EXPECT_EQ(q_proj.weight->unpack()->spec.bits, 8);
  EXPECT_GT(m.loaded.mapped_seconds, 0);
}

TEST(Bench, OptionsThatDoNotFitAreNamed) {
  BenchOptions o = small("qwen2");
  o.image = "64x64";
  expect_usage(o, "--image: this model reads text only");
  o = small("qwen2");
  o.model = "somewhere";
  expect_usage(o, "either");
  o = small("qwen2");
  o.w_group = 32;
  expect_usage(o, "--w-bits");
  o.w_bits = 4;
  o.w_group = 7;
  expect_usage(o, "--w-group: layer");
  o.w_group = 16;
  o.quantize_vision = true;
  expect_usage(o, "--quantize-vision");
  o = small("qwen2");
  o.pp = 1 << 20;
  expect_usage(o, "--pp and --tg");
  o = small("qwen3_vl");
  o.image = "64";
  expect_usage(o, "--image must be");
  o = small("qwen2");
  o.repeats = 0;
  expect_usage(o, "--repeats");
}

TEST(Bench, CancellingEndsIt) {
  const std::atomic<bool> cancel{true};
  try {
    bench(small("qwen2"), {}, &cancel);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::interrupted);
  }
}

}  // namespace
}  // namespace statera
