// --parity own-ranges: rounding as MBQ's code does, from the search to the stored tensors, and where it means nothing.
#include <gtest/gtest.h>

#include "api/quantize.h"
#include "base/json.h"
#include "ckpt/checkpoint_source.h"
#include "ckpt/test_files.h"
#include "quant/calib/test_samples.h"
#include "quant/scales_file.h"
#include "quant/sha256.h"

namespace statera {
namespace {
using namespace calib_test;

const std::string kExample = root("examples/tiny-qwen3-vl");

QuantizeOptions options(const std::string& out, const std::string& method, bool own) {
  QuantizeOptions o;
  o.model = kExample;
  o.out = out;
  o.method = method;
  o.w_bits = 3;
  o.w_group = 4;  // some groups are of one sign
  o.asym = true;
  o.n_samples = 3;
  o.max_seq_len = 96;
  o.search_tokens = 128;
  if (own) o.parity = {"own-ranges"};
  return o;
}

TEST(OwnRanges, StoredLayersAreThoseOfTheSpecification) {
  TempDir dir;
  const QuantizeReport report = quantize(options(dir / "out", "rtn", true));
  const Opened from(kExample), to(dir / "out");
  int64_t layers = 0, widened = 0;
  for (const auto& [path, site] : to.model->params.linears) {
    const std::optional<QTensor> stored = site->weight->unpack();
    if (!stored) continue;
    ++layers;
    QSpec spec = stored->spec;
    const at::Tensor W = from.model->params.linears.at(path)->weight->dense();
    widened += stored->scale.equal(rtn(W, spec).scale);
    spec.own_range = true;
    const QTensor wanted = rtn(W, spec);
    EXPECT_TRUE(stored->q.equal(wanted.q)) << path;
    EXPECT_TRUE(stored->scale.equal(wanted.scale)) << path;
    EXPECT_TRUE(stored->zero.equal(wanted.zero)) << path;
  }
  EXPECT_EQ(layers, static_cast<int64_t>(report.layers.size()));
  EXPECT_EQ(widened, 0);
  EXPECT_EQ(report.recipe.at("parity"), Json("own-ranges"));
}

class OwnRangesSearch : public ::testing::TestWithParam<const char*> {};

// Candidate 0 is rounding without scales; its loss knows the ranges.
TEST_P(OwnRangesSearch, CandidatesAreJudgedWithThemAndScalesFoundOtherwiseAreRefused) {
  TempDir dir;
  const QuantizeReport own = quantize(options(dir / "own", GetParam(), true)), widened = quantize(options(dir / "widened", GetParam(), false));
  ASSERT_EQ(own.scales.size(), widened.scales.size());
  ASSERT_FALSE(own.scales.empty());
  for (size_t i = 0; i < own.scales.size(); ++i) EXPECT_NE(own.scales[i].losses.at(0), widened.scales[i].losses.at(0)) << own.scales[i].group;
  QuantizeOptions again = options(dir / "again", GetParam(), true);
  again.scales = (dir / "own/") + kScalesName;
  quantize(again);
  EXPECT_EQ(sha256_file(dir / "own/model.safetensors"), sha256_file(dir / "again/model.safetensors"));
  again.overwrite = true;
  again.scales = (dir / "widened/") + kScalesName;
  EXPECT_NE(message_of([&] { quantize(again); }).find("parity is nothing there, \"own-ranges\" in this run"), std::string::npos) << message_of([&] { quantize(again); });
}

INSTANTIATE_TEST_SUITE_P(Methods, OwnRangesSearch, ::testing::Values("awq", "mbq"));

TEST(OwnRanges, AreRefusedWhereAllWeightsAreSymmetricAndAreNoDataSwitch) {
  TempDir dir;
  QuantizeOptions o = options(dir / "out", "rtn", true);
  o.plan = true;
  quantize(o);
  o.asym = false;
  EXPECT_NE(message_of([&] { quantize(o); }).find("usage: --parity own-ranges is about asymmetric weights"), std::string::npos);
  o.override = {"asym:down_proj"};
  quantize(o);
  o.parity = {"own-ranges,numpy-shuffle"};
  EXPECT_NE(message_of([&] { quantize(o); }).find("looks at no data"), std::string::npos);
  o.parity = {"own-range"};
  EXPECT_NE(message_of([&] { quantize(o); }).find("did you mean \"own-ranges\"?"), std::string::npos);
}

}  // namespace
}  // namespace statera
