// Masks of calibration samples for every registered vision-language model, what a sample without pictures or answers does downstream, and
// that sequences are not touched by what runs beside them (MBQ 8.21 and 8.23).
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "api/quantize.h"
#include "api/test_checkpoints.h"
#include "base/file.h"
#include "ckpt/test_files.h"
#include "nn/linear.h"
#include "quant/calib/accumulators.h"
#include "quant/calib/test_samples.h"

namespace statera {
namespace {
using namespace calib_test;

// Names with a vision tower; a registered model without a tiny checkpoint is a failure here, not one left out.
std::vector<std::string> vision_models() {
  std::vector<std::string> out;
  for (const ModelType* type : model_types()) {
    const std::string path = root(std::string("tests/tiny/") + type->name + "/config.json");
    if (!is_file(path)) {
      out.push_back(type->name);
    } else if (Json::read_file(path).has("vision_config")) {
      out.push_back(type->name);
    }
  }
  return out;
}

class CalibMasks : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    make_checkpoint(GetParam(), dir / "");
    Json list = Json::array();
    list.push(llava({picture("shapes_a.png"), picture("chart.png")}, {"<image>\none?", "The first.", "<image> two?", "The second."}));
    list.push(llava({}, {"no picture?", "None."}));
    list.push(llava({picture("words.png")}, {"<image>\nnot answered?"}));
    list.push(llava({}, {"neither"}));
    write_text(dir / "talks.json", list.dump());
    opened.emplace(dir / "model");
    options.data = {dir / "talks.json"};
    options.n_samples = 4;
  }
  const CalibSample& sample(const CalibData& data, size_t item) const {
    for (const CalibSample& s : data.samples) {
      if (s.where.ends_with("item " + std::to_string(item))) return s;
    }
    throw Bug("no such sample");
  }
  TempDir dir;
  std::optional<Opened> opened;
  CalibOptions options;
  at::NoGradGuard no_grad_;
};

// Lengths of the runs of vision tokens.
std::vector<int64_t> runs(const at::Tensor& kinds_T) {
  std::vector<int64_t> out;
  int64_t before = 0;
  for (int64_t t = 0; t < kinds_T.size(0); ++t) {
    const auto kind = kinds_T[t].item<int64_t>();
    if (kind == kVision && before != kVision) out.push_back(0);
    if (kind == kVision) ++out.back();
    before = kind;
  }
  return out;
}

TEST_P(CalibMasks, AreDisjointInsideAndCountThePicturesTokens) {
  const CalibData data = opened->data(options);
  ASSERT_EQ(data.samples.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const CalibSample& s = data.samples[i];
    EXPECT_EQ(s.kinds_T.sizes(), s.ids_T.sizes());
    EXPECT_EQ(s.answers_T.sizes(), s.ids_T.sizes());
    EXPECT_EQ(s.positions.size(-1), s.tokens());
    EXPECT_TRUE((((s.kinds_T == kText) | (s.kinds_T == kVision)) & ((s.answers_T == 0) | (s.answers_T == 1))).all().item<bool>());
    EXPECT_FALSE(((s.kinds_T == kVision) & (s.answers_T == 1)).any().item<bool>());
    std::vector<int64_t> expected;
    for (const Grid& grid : data.inputs(i).image_grid_thw) expected.push_back(grid[0] * grid[1] * grid[2] / 4);
    EXPECT_EQ(runs(s.kinds_T), expected) << s.where;
  }
  EXPECT_EQ(runs(sample(data, 0).kinds_T).size(), 2u);
  EXPECT_EQ(runs(sample(data, 2).kinds_T).size(), 1u);
  EXPECT_EQ(sample(data, 1).kinds_T.sum().item<int64_t>(), 0);
}

TEST_P(CalibMasks, AnswersAreTheAnswerAndItsEnd) {
  const CalibData data = opened->data(options);
  EXPECT_EQ(answers_of(data, sample(data, 0)), "The first.<|im_end|>\nThe second.<|im_end|>\n");
  EXPECT_EQ(answers_of(data, sample(data, 1)), "None.<|im_end|>\n");
  EXPECT_EQ(answers_of(data, sample(data, 2)), "");
  EXPECT_EQ(answers_of(data, sample(data, 3)), "");
  for (size_t item : {0, 1}) EXPECT_EQ(sample(data, item).answers_T[-1].item<int64_t>(), 1);
  EXPECT_EQ(data.summary.answer_tokens, sample(data, 0).answers_T.sum().item<int64_t>() + sample(data, 1).answers_T.sum().item<int64_t>());
}

// The input statistics that methods gather, by layer.
class Gather : public Tap {
 public:
  std::map<std::string, std::pair<Gram, AbsMaxAccumulator>> layers;
  void linear(const LinearSite& site, const at::Tensor& x_TK, const at::Tensor& y_TN, const Pass& pass) override {
    if (site.path.find("visual") != site.path.npos) return;
    auto at = layers.try_emplace(site.path, Gram(x_TK.size(-1)), AbsMaxAccumulator()).first;
    at->second.first.add(x_TK.to(at::kFloat), {});
    at->second.second.add(x_TK, pass);
  }
};

// Sequences are not padded, so there is no padding to leave out: what is left to show is that a sequence's rows do not depend on what runs
// in the same pass, neither its hidden states nor the sums over them.
TEST_P(CalibMasks, OtherBatchesChangeNothing) {
  const CalibData data = opened->data(options);
  const Model& model = *opened->model;
  Gather singly, together;
  std::vector<at::Tensor> alone, ids, positions, pixels;
  ModelInputs all;
  all.bounds = {0};
  for (size_t i = 0; i < data.samples.size(); ++i) {
    ModelInputs in = data.inputs(i);
    ids.push_back(in.input_ids);
    positions.push_back(in.position_ids);
    if (in.pixel_values.defined()) pixels.push_back(in.pixel_values);
    all.image_grid_thw.insert(all.image_grid_thw.end(), in.image_grid_thw.begin(), in.image_grid_thw.end());
    all.bounds.push_back(all.bounds.back() + in.input_ids.size(0));
    Pass pass = make_pass(model, in);
    pass.tap = &singly;
    alone.push_back(forward_hidden(model, in, pass).to(at::kFloat));
  }
  all.input_ids = at::cat(ids);
  all.position_ids = at::cat(positions, -1);
  all.pixel_values = at::cat(pixels);
  Pass pass = make_pass(model, all);
  pass.tap = &together;
  const at::Tensor packed = forward_hidden(model, all, pass).to(at::kFloat), separate = at::cat(alone);
  const double scale = separate.abs().max().item<double>();
  EXPECT_LT((packed - separate).abs().max().item<double>(), 1e-4 * scale);
  ASSERT_GT(singly.layers.size(), 10u);
  ASSERT_EQ(singly.layers.size(), together.layers.size());
  for (auto& [name, one] : singly.layers) {
    auto& [gram, largest] = together.layers.at(name);
    EXPECT_EQ(gram.rows(), one.first.rows());
    EXPECT_LT(((gram.value() - one.first.value()).norm() / one.first.value().norm()).item<double>(), 1e-4) << name;
    EXPECT_LT(((largest.value() - one.second.value()).abs().max() / one.second.value().max()).item<double>(), 1e-4) << name;
  }
}

TEST_P(CalibMasks, SamplesWithoutPicturesOrAnswersGiveFiniteWeights) {
  for (const char* method : {"gptq", "awq"}) {
    QuantizeOptions o;
    o.model = dir / "model";
    o.out = dir / method;
    o.method = method;
    o.w_group = 16;  // experts are narrow
    o.data = options.data;
    const QuantizeReport report = quantize(o);
    EXPECT_EQ(report.data->samples, 4);
    EXPECT_GT(report.layers.size(), 10u);
    for (const auto& layer : report.layers)
      EXPECT_TRUE(std::isfinite(layer.error) && std::isfinite(layer.output_error.value_or(0))) << layer.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CalibMasks, ::testing::ValuesIn(vision_models()), [](const auto& p) { return p.param; });

TEST(CalibMasksOf, ThreeModelsAtLeast) { EXPECT_GE(vision_models().size(), 3u); }

}  // namespace
}  // namespace statera
