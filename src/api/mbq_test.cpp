// MBQ on the bundled tiny model: gradients against finite differences, what the search records, threads, recipes without pictures.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <mutex>

#include "api/quantize.h"
#include "api/test_checkpoints.h"
#include "base/error.h"
#include "base/threads.h"
#include "ckpt/checkpoint_source.h"
#include "ckpt/test_files.h"
#include "quant/calib/forward.h"
#include "quant/calib/test_samples.h"
#include "quant/pipeline.h"
#include "quant/sha256.h"

namespace statera {
namespace {
using namespace calib_test;


// Two questions about pictures with answers, and a text.
std::string write_items(const TempDir& dir) {
  std::string text;
  for (const char* picture : {"chart.png", "shapes_a.png"}) {
    text += R"({"messages": [{"role": "user", "content": [{"type": "image", "image": ")" + root(std::string("examples/pictures/") + picture) +
            R"("}, {"type": "text", "text": "What is this?"}]}, {"role": "assistant", "content": "Something drawn by a program."}]})" + "\n";
  }
  write_text(dir / "m.jsonl", text);
  return dir / "m.jsonl";
}

// Mean cross-entropy of the answers of a sample, from a full forward pass.
double loss_of(const Model& model, const CalibData& data, size_t i) {
  const at::NoGradGuard no_graph;
  ModelInputs in = data.inputs(i);
  Pass pass = make_pass(model, in);
  const at::Tensor answers = data.samples[i].answers_T;
  const at::Tensor rows = (answers.slice(0, 1, answers.size(0)) == 1).nonzero().squeeze(1);
  const at::Tensor logits = model.language().head(at::index_select(forward_hidden(model, in, pass), 0, rows), pass).to(at::kDouble);
  const at::Tensor labels = at::index_select(data.samples[i].ids_T, 0, rows + 1).unsqueeze(1);
  return -at::log_softmax(logits, -1).gather(1, labels).mean().item<double>();
}

// By path: the gradient at each residual writer's output for sample 0, summed over rows; and its largest magnitude at vision rows.
struct Gradients {
  std::map<std::string, std::vector<double>> column_sums;
  std::map<std::string, double> at_vision, at_answers;
};
Gradients gradients_of(const Model& model, const CalibData& data, const std::string& folder) {
  Calibrator calibrator(model, data, folder, nullptr);
  calibrator.start(0, {});
  auto measure = [](const LinearSite&, const at::Tensor& G, const Pass& pass) {
    const at::Tensor sums = G.sum(0).to(at::kDouble).contiguous();
    std::vector<double> out(sums.const_data_ptr<double>(), sums.const_data_ptr<double>() + sums.numel());
    const at::Tensor rows = G.abs().amax({1});
    out.push_back((rows * (pass.kinds == static_cast<int64_t>(kVision))).max().item<double>());
    out.push_back((rows * (pass.kinds == static_cast<int64_t>(kAnswer))).max().item<double>());
    return out;
  };
  Gradients g;
  auto take = [&](const LinearSite& site, size_t, const std::vector<double>& v) {
    if (g.column_sums.count(site.path)) return;  // of the first sample
    g.column_sums[site.path] = {v.begin(), v.end() - 2};
    g.at_vision[site.path] = v[v.size() - 2];
    g.at_answers[site.path] = v.back();
  };
  EXPECT_EQ(calibrator.gradients(measure, take, {}), 2);
  return g;
}

TEST(MbqGradients, AgreeWithFiniteDifferencesOfTheLossAtEveryResidualWriter) {
  TempDir dir;
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.data = {write_items(dir)}, .n_samples = 2});
  const Gradients g = gradients_of(*tiny.model, data, dir / ".");
  const int64_t L = tiny.model->language().blocks();
  ASSERT_EQ(g.column_sums.size(), static_cast<size_t>(2 * L));
  for (const auto& [path, sums] : g.column_sums) {
    LinearSite& site = *tiny.model->params.linears.at(path);
    ASSERT_EQ(sums.size(), static_cast<size_t>(site.out));
    const at::Tensor was = site.bias;
    for (int64_t channel : {int64_t{0}, site.out / 2, site.out - 1}) {
      auto shifted = [&](double by) {
        site.bias = was.defined() ? was.to(at::kFloat).clone() : at::zeros({site.out});
        site.bias[channel] += by;
        return loss_of(*tiny.model, data, 0);
      };
      const double step = 2e-3, numeric = (shifted(step) - shifted(-step)) / (2 * step);
      site.bias = was;
      EXPECT_NEAR(sums[static_cast<size_t>(channel)], numeric, 2e-3 * std::abs(numeric) + 2e-4) << path << " channel " << channel;
    }
  }
}

TEST(MbqGradients, LayersAreSaidToBeThroughOnceASampleHasPassedThem) {
  TempDir dir;
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.data = {write_items(dir)}, .n_samples = 2});
  Calibrator calibrator(*tiny.model, data, dir / ".", nullptr);
  std::mutex lock;
  std::map<const LinearSite*, int> counts;
  calibrator.when_through([&](const LinearSite& site) {
    const std::lock_guard hold(lock);
    ++counts[&site];
  });
  auto expect = [&](int tower, int blocks) {
    for (const auto& [path, site] : tiny.model->params.linears) {
      const bool in_tower = site->role == Role::vision || site->role == Role::projector;
      EXPECT_EQ(counts[site.get()], in_tower ? tower : blocks) << path;
    }
  };
  calibrator.start(0, {});
  expect(2, 0);
  calibrator.gradients([](const LinearSite&, const at::Tensor&, const Pass&) { return std::vector<double>{}; },
                       [](const LinearSite&, size_t, const std::vector<double>&) {}, {});
  expect(2, 4);  // forward and backward, two samples
}

TEST(MbqGradients, TheLastBlocksVisionTokensHaveNoneAndThreadsChangeNothing) {
  TempDir dir;
  const Opened tiny(root("examples/tiny-qwen3-vl"));
  const CalibData data = tiny.data({.data = {write_items(dir)}, .n_samples = 2});
  const int before = num_threads();
  set_num_threads(1);
  const Gradients one = gradients_of(*tiny.model, data, dir / ".");
  set_num_threads(3);
  const Gradients three = gradients_of(*tiny.model, data, dir / ".");
  set_num_threads(before);
  EXPECT_EQ(one.column_sums, three.column_sums);
  const int64_t last = tiny.model->language().blocks() - 1;
  for (const auto& [path, site] : tiny.model->params.linears) {
    if (!one.at_vision.count(path)) continue;
    EXPECT_EQ(one.at_vision.at(path) == 0, site->block == last) << path;
    EXPECT_GT(one.at_answers.at(path), 0) << path;
  }
}

QuantizeOptions options_of(const std::string& out, const std::string& method) {
  QuantizeOptions o;
  o.model = root("examples/tiny-qwen3-vl");
  o.out = out;
  o.method = method;
  o.w_bits = 3;
  o.w_group = 32;
  o.n_samples = 6;
  o.max_seq_len = 256;
  return o;
}

std::map<std::string, std::string> weights_of(const std::string& folder) {
  std::map<std::string, std::string> out;
  for (const auto& e : std::filesystem::directory_iterator(folder)) {
    if (e.path().extension() == ".safetensors") out[e.path().filename().string()] = sha256_file(e.path().string());
  }
  return out;
}

TEST(Mbq, ResultsDoNotDependOnThreadsAndDifferFromAwqs) {
  TempDir dir;
  const int before = num_threads();
  set_num_threads(1);
  quantize(options_of(dir / "one", "mbq"));
  set_num_threads(3);
  quantize(options_of(dir / "three", "mbq"));
  set_num_threads(before);
  quantize(options_of(dir / "awq", "awq"));
  EXPECT_EQ(weights_of(dir / "one"), weights_of(dir / "three"));
  EXPECT_NE(weights_of(dir / "one"), weights_of(dir / "awq"));
}

// Whether the output layer of every block has the codes that round-to-nearest gives it; some other layer has not.
bool outputs_are_rounded_to_nearest(const std::string& folder, const std::string& rtn) {
  const Checkpoint a = Checkpoint::open(folder), b = Checkpoint::open(rtn);
  bool same = true, others = true;
  for (const std::string& name : a.names()) {
    if (!name.ends_with(".weight_packed")) continue;
    (name.find("o_proj") != name.npos ? same : others) &= at::equal(a.tensor(name), b.tensor(name));
  }
  EXPECT_FALSE(others);
  return same;
}

// Groups of each block in their order, each never worse than no scale at all.
void expect_groups(const QuantizeReport& report, const std::vector<std::string>& groups) {
  ASSERT_EQ(report.scales.size() % groups.size(), 0u);
  ASSERT_GE(report.scales.size(), 2 * groups.size());
  for (size_t i = 0; i < report.scales.size(); ++i) {
    const auto& s = report.scales[i];
    EXPECT_EQ(s.group, groups[i % groups.size()]);
    EXPECT_EQ(s.block, report.scales[i / groups.size() * groups.size()].block);
    ASSERT_EQ(s.losses.size(), 20u);
    const size_t best = static_cast<size_t>(std::min_element(s.losses.begin(), s.losses.end()) - s.losses.begin());
    EXPECT_DOUBLE_EQ(s.ratio, static_cast<double>(best) / 20) << s.block << " " << s.group;
    EXPECT_NEAR(s.smallest * s.largest, 1, 1e-5);
    if (s.group == "v_proj") { EXPECT_TRUE(s.readers.size() == 1 && s.readers[0].ends_with(".o_proj")) << s.readers[0]; }
    if (report.method != "mbq") continue;
    ASSERT_TRUE(s.rho.has_value());
    EXPECT_GT(*s.rho, 0);
  }
}

const std::vector<std::string> kThree{"input_layernorm", "post_attention_layernorm", "up_proj"},
    kFour{"input_layernorm", "v_proj", "post_attention_layernorm", "up_proj"};

// Checks 5, 7 and 12 of mbq.md: three groups a block where heads are grouped; what no group touches is round-to-nearest. Tied, there are four.
TEST(Mbq, GroupedHeadsHaveThreeGroupsAndFourWhenTied) {
  TempDir dir;
  quantize(options_of(dir / "rtn", "rtn"));
  for (const std::string method : {"mbq", "awq"}) {
    QuantizeOptions o = options_of(dir / method, method);
    expect_groups(quantize(o), kThree);
    EXPECT_TRUE(outputs_are_rounded_to_nearest(o.out, dir / "rtn"));
    (method == "mbq" ? o.mbq_tie_heads : o.awq_tie_heads) = true;
    o.out = dir / (method + "-tied");
    const QuantizeReport tied = quantize(o);
    expect_groups(tied, kFour);
    EXPECT_FALSE(outputs_are_rounded_to_nearest(o.out, dir / "rtn"));
    EXPECT_TRUE(std::any_of(tied.scales.begin(), tied.scales.end(), [](const auto& s) { return s.group == "v_proj" && s.ratio > 0; }));
    EXPECT_EQ(tied.recipe.at("steps").as_array().at(0).at(method).at("tie_heads"), Json(true));
  }
}

TEST(Mbq, HeadsThatAreNotGroupedHaveFourGroupsWithoutTying) {
  TempDir dir;
  make_checkpoint("qwen2_vl", dir / ".", [](Json& text) { text.set("num_key_value_heads", text.at("num_attention_heads").as_int()); });
  for (const std::string method : {"mbq", "awq"}) {
    QuantizeOptions o = options_of(dir / method, method);
    o.model = dir / "model";
    o.w_group = 16;
    expect_groups(quantize(o), kFour);
    const std::string untied = sha256_file(o.out + "/model.safetensors");
    (method == "mbq" ? o.mbq_tie_heads : o.awq_tie_heads) = true;
    o.out = dir / (method + "-tied");
    quantize(o);
    EXPECT_EQ(sha256_file(o.out + "/model.safetensors"), untied) << "there is nothing to tie";
  }
}

// Tied scales must be neutral: at 8 bits a wrong fold would show, and rounding hardly does.
TEST(Mbq, TiedScalesLeaveTheModelAsItIs) {
  TempDir dir;
  const Opened whole(root("examples/tiny-qwen3-vl"));
  const CalibData data = whole.data({.data = {write_items(dir)}, .n_samples = 2});
  std::map<bool, double> off;
  for (bool tied : {false, true}) {
    QuantizeOptions o = options_of(dir / (tied ? "tied" : "plain"), "awq");
    o.w_bits = 8;
    o.awq_tie_heads = tied;
    quantize(o);
    off[tied] = std::abs(loss_of(*Opened(o.out).model, data, 0) - loss_of(*whole.model, data, 0));
  }
  EXPECT_LT(off[true], 3 * off[false] + 1e-3);
}

TEST(Mbq, WithoutPicturesVisionIsNotWeighedAndTheReportSaysSo) {
  TempDir dir;
  write_text(dir / "t.jsonl", R"({"messages": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A very small model."}]})");
  QuantizeOptions o = options_of(dir / "out", "mbq");
  o.data = {dir / "t.jsonl"};
  const QuantizeReport report = quantize(o);
  EXPECT_TRUE(std::any_of(report.warnings.begin(), report.warnings.end(), [](const std::string& w) { return w.find("rho = 1") != w.npos; }));
}

}  // namespace
}  // namespace statera
