// quantize() on the bundled tiny checkpoints of every model type.
#include "api/quantize.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "api/loaded.h"
#include "base/error.h"
#include "ckpt/checkpoint_source.h"
#include "ckpt/fused_experts.h"
#include "ckpt/own_head.h"
#include "ckpt/test_files.h"
#include "nn/qtensor.h"

namespace statera {
namespace {
namespace fs = std::filesystem;

std::string tiny(const std::string& name) {
  std::string path = STATERA_SOURCE_DIR;
  path += "/tests/tiny/";
  return path += name;
}

// Codes and scales of every quantized layer of `out` against rtn() of the source's weight.
void expect_rtn(const std::string& source, const std::string& out, size_t at_least) {
  const Checkpoint from = Checkpoint::open(source), to = Checkpoint::open(out);
  const Json& config = *to.quantization_config();
  const Format& format = format_of(config, out);
  size_t layers = 0;
  for (const std::string& name : to.names()) {
    if (!name.ends_with(".weight_scale")) continue;
    const std::string path = name.substr(0, name.size() - std::string(".weight_scale").size());
    const at::Tensor shape = to.tensor(path + ".weight_shape");
    const int64_t rows = shape[0].item<int64_t>(), columns = shape[1].item<int64_t>();
    const auto expert = find_fused_expert(from, path, rows, columns);
    const at::Tensor w = expert ? fused_expert_weight(from, *expert).contiguous() : from.tensor(path + ".weight", {rows, columns});
    std::optional<ActQuant> act;
    const QTensor q = format.read(to, config, path, w.size(0), w.size(1), act)->unpack().value(), expected = rtn(w, q.spec);
    EXPECT_TRUE(q.q.equal(expected.q)) << path;
    EXPECT_TRUE(q.scale.to(at::kFloat).equal(expected.scale.to(at::kFloat))) << path;
    ++layers;
  }
  EXPECT_GE(layers, at_least);
}

class QuantizeTiny : public ::testing::TestWithParam<const char*> {};

TEST_P(QuantizeTiny, WritesTheCodesOfRtn) {
  TempDir dir;
  QuantizeOptions o;
  o.model = tiny(GetParam());
  o.out = dir / "out";
  o.w_group = -1;
  for (int64_t bits : {3, 4, 8}) {
    o.w_bits = bits;
    o.overwrite = true;
    const QuantizeReport report = quantize(o);
    EXPECT_GT(report.layers.size(), 0u);
    expect_rtn(o.model, o.out, report.layers.size());
  }
}

INSTANTIATE_TEST_SUITE_P(All, QuantizeTiny,
                         ::testing::Values("llama", "llama_sharded", "llama_linear_f16", "llama_linear_f32", "mistral", "qwen2", "qwen3",
                                           "phi3", "mixtral", "qwen2_moe", "qwen3_moe", "qwen3_moe_native", "qwen3_vl_moe", "qwen3_vl_moe_native", "qwen2_vl", "qwen2_vl_native", "qwen2_5_vl", "qwen2_5_vl_native", "qwen3_vl",
                                           "qwen3_vl_native"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Quantize, OptionsThatExcludeEachOtherAreRefused) {
  TempDir dir;
  auto kind_of = [&](auto change) {
    QuantizeOptions o;
    o.model = tiny("llama");
    o.out = dir / "out";
    change(o);
    try {
      quantize(o);
    } catch (const Error& e) {
      return std::string(to_string(e.kind())) + ": " + e.message();
    }
    return std::string("none");
  };
  EXPECT_EQ(kind_of([](auto& o) { o.sym = o.asym = true; }).find("usage: --sym"), 0u);
  EXPECT_EQ(kind_of([](auto& o) { o.w_bits = 9; }).find("usage: --w-bits"), 0u);
  EXPECT_EQ(kind_of([](auto& o) { o.head_bits = 1; }).find("usage: --head-bits"), 0u);
  EXPECT_EQ(kind_of([](auto& o) { o.a_bits = 4; }).find("usage: --a-bits"), 0u);
  EXPECT_EQ(kind_of([](auto& o) { o.a_bits = 8, o.w_group = 32; }).find("usage: --a-bits 8"), 0u);
  EXPECT_EQ(kind_of([](auto& o) { o.method = "rtm"; }).find("usage: unknown method \"rtm\"; did you mean \"rtn\"?"), 0u);
  EXPECT_EQ(kind_of([](auto& o) { o.format = "gguff"; }).find("usage: "), 0u);
  EXPECT_EQ(kind_of([](auto& o) { o.max_shard = "lots"; }).find("usage: --max-shard"), 0u);
  EXPECT_EQ(kind_of([](auto& o) { o.quantize_vision = true, o.w_group = -1; }).find("usage: --quantize-vision"), 0u);
  EXPECT_TRUE(fs::is_empty(static_cast<const std::string&>(dir)));
}

// Both ways of naming: the head beside "model", and above it.
class TiedHead : public ::testing::TestWithParam<const char*> {};

TEST_P(TiedHead, BecomesALayerOfItsOwn) {
  TempDir dir;
  QuantizeOptions o;
  o.model = tiny(GetParam());
  o.out = dir / "out";
  o.w_group = -1;
  o.head_bits = 8;
  o.plan = true;
  const QuantizeReport plan = quantize(o);
  o.plan = false;
  const QuantizeReport r = quantize(o);
  EXPECT_EQ(plan.result_bytes, r.result_bytes);
  ASSERT_EQ(r.layers.back().name, "lm_head");
  EXPECT_GT(r.verified.tensors, 0);
  const Checkpoint from = Checkpoint::open(o.model), to = Checkpoint::open(o.out);
  EXPECT_EQ(to.bytes(), r.result_bytes);
  EXPECT_FALSE(to.config().get_bool("tie_word_embeddings", true));
  const Checkpoint own = with_own_head(from, model_type(from.config()));
  ASSERT_EQ(own.aliases().size(), 1u);
  const TensorInfo& head = own.aliases()[0];
  for (const std::string& name : from.names()) {
    if (!from.tensor(name).is_same_size(own.tensor(head.name)) || !from.tensor(name).equal(own.tensor(head.name))) continue;
    EXPECT_TRUE(to.tensor(name).equal(from.tensor(name))) << "the embedding stays";
  }
  const Loaded loaded = open_model(o.out, {});
  const auto q = loaded.model->residual_ends().head.site().weight->unpack();
  ASSERT_TRUE(q);
  EXPECT_EQ(q->spec.bits, 8);
  const QTensor expected = rtn(own.tensor(head.name), q->spec);
  EXPECT_TRUE(q->q.equal(expected.q));
}

INSTANTIATE_TEST_SUITE_P(Names, TiedHead, ::testing::Values("qwen3", "qwen2_vl", "qwen2_vl_native", "qwen3_vl_moe", "llama_rope3"), [](const auto& p) { return std::string(p.param); });

TEST(Quantize, SizesAreReadWithDecimalAndBinaryUnits) {
  EXPECT_EQ(parse_bytes("5GB", "x"), 5'000'000'000u);
  EXPECT_EQ(parse_bytes("1.5 MiB", "x"), 1'572'864u);
  EXPECT_EQ(parse_bytes("123", "x"), 123u);
  for (const char* bad : {"", "GB", "-1", "5 parsecs", "nan", "1e30"}) EXPECT_THROW(parse_bytes(bad, "x"), Error) << bad;
}

}  // namespace
}  // namespace statera
