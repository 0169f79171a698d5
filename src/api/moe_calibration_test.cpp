// Models with experts under every method: what is written, experts that no token reaches, gradients, threads, experts in one tensor.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "api/inspect.h"
#include "api/quantize.h"
#include "api/test_checkpoints.h"
#include "base/file.h"
#include "base/threads.h"
#include "quant/calib/forward.h"
#include "quant/calib/test_samples.h"
#include "quant/pipeline.h"
#include "quant/scales_file.h"
#include "quant/test_output.h"

namespace statera {
namespace {
using namespace calib_test;

std::string tiny(const std::string& name) { return root("tests/tiny/" + name); }

QuantizeOptions options_of(const std::string& model, const std::string& out, const std::string& method) {
  QuantizeOptions o;
  o.model = model;
  o.out = out;
  o.method = method;
  o.w_bits = 4;
  o.w_group = 16;
  o.n_samples = 6;
  o.max_seq_len = 256;
  return o;
}

class EveryMethod : public ::testing::TestWithParam<std::pair<std::string, std::string>> {};

TEST_P(EveryMethod, ExpertsAreWrittenOneByOneAndRoutersStayFloating) {
  const auto& [model, method] = GetParam();
  TempDir dir;
  make_checkpoint(model, dir / "");
  QuantizeOptions o = options_of(dir / "model", dir / "out", method);
  const QuantizeReport r = quantize(o);  // runs the written folder against what it held
  EXPECT_GT(r.verified.logits, 0);
  ASSERT_TRUE(r.experts);
  EXPECT_TRUE(r.experts->unreached.empty());
  EXPECT_GT(r.experts->least, 0);
  const Opened from(dir / "model"), to(dir / "out");
  EXPECT_TRUE(find_problems(to.source.checkpoint(), to.source.type()).empty());
  int64_t experts = 0, routers = 0;
  for (const auto& [path, site] : to.model->params.linears) {
    const Role role = site->role;
    EXPECT_EQ(site->weight->unpack().has_value(), role == Role::expert || role == Role::attention || role == Role::mlp) << path;
    experts += role == Role::expert;
    if (role != Role::router) continue;
    ++routers;
    EXPECT_EQ(site->weight->dense().scalar_type(), from.model->params.linears.at(path)->weight->dense().scalar_type()) << path;
  }
  EXPECT_EQ(experts, r.experts->layers);
  EXPECT_GT(routers, 0);
  double error = 0, nearest = 0;
  for (const auto& l : r.layers) {
    if (!l.output_error) continue;
    error += *l.output_error;
    nearest += *l.rtn_output_error;
  }
  EXPECT_LT(error, (method == "gptq" ? 0.95 : 1.05) * nearest);
}

INSTANTIATE_TEST_SUITE_P(All, EveryMethod,
                         ::testing::Values(std::pair("qwen3_vl_moe", "gptq"), std::pair("qwen3_vl_moe", "awq"), std::pair("qwen3_vl_moe", "smoothquant"),
                                           std::pair("qwen3_vl_moe", "mbq"), std::pair("qwen3_vl_moe", "mbq+gptq"), std::pair("qwen2_moe", "gptq"),
                                           std::pair("qwen2_moe", "awq"), std::pair("mixtral", "gptq"), std::pair("mixtral", "smoothquant")),
                         [](const auto& info) {
                           std::string name = info.param.first + "_" + info.param.second;
                           std::replace(name.begin(), name.end(), '+', '_');
                           return name;
                         });

// Forty experts and a handful of tokens.
std::string with_many_experts(const TempDir& dir) {
  make_checkpoint("qwen3_moe", dir / "", [](Json& text) { text.set("num_experts", 40); });
  write_text(dir / "few.jsonl", R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]})");
  return dir / "model";
}

TEST(UnreachedExperts, AreRoundedToNearestAndNamedByEveryMethod) {
  TempDir dir;
  const std::string model = with_many_experts(dir);
  quantize(options_of(model, dir / "rtn", "rtn"));
  const Checkpoint nearest = Checkpoint::open(dir / "rtn");
  for (const std::string method : {"gptq", "awq", "smoothquant"}) {
    QuantizeOptions o = options_of(model, dir / method, method);
    o.data = {dir / "few.jsonl"};
    const QuantizeReport r = quantize(o);
    ASSERT_TRUE(r.experts);
    const auto& unreached = r.experts->unreached;
    ASSERT_GT(unreached.size(), 3u) << method;
    EXPECT_LT(unreached.size(), static_cast<size_t>(r.experts->layers));
    EXPECT_EQ(r.experts->least, 0);
    const std::string start = std::to_string(unreached.size()) + " of " + std::to_string(r.experts->layers) + " layers of experts were reached by no";
    EXPECT_TRUE(std::any_of(r.warnings.begin(), r.warnings.end(), [&](const auto& w) { return w.find(start) == 0 && w.find(unreached[0]) != w.npos; }));
    EXPECT_NE(read_file(dir / method + "/report.json").find("\"unreached\""), std::string::npos);
    const Checkpoint written = Checkpoint::open(dir / method);
    if (method != "gptq") continue;  // the others fold the scales of the norm into all experts
    for (const std::string& path : unreached) {
      for (const char* part : {".weight_packed", ".weight_scale"}) EXPECT_TRUE(written.tensor(path + part).equal(nearest.tensor(path + part))) << path;
    }
    bool differs = false;
    for (const std::string& name : written.names()) {
      if (name.find("experts") != name.npos && name.ends_with("weight_packed")) differs |= !written.tensor(name).equal(nearest.tensor(name));
    }
    EXPECT_TRUE(differs);
  }
}

TEST(UnreachedExperts, HaveTheLargestStaticScaleOfTheOthers) {
  TempDir dir;
  QuantizeOptions o = options_of(with_many_experts(dir), dir / "out", "rtn");
  o.data = {dir / "few.jsonl"};
  o.w_bits = o.a_bits = 8;
  o.w_group = -1;
  o.a_static = true;
  const QuantizeReport r = quantize(o);
  ASSERT_TRUE(r.experts);
  const std::set<std::string> unreached(r.experts->unreached.begin(), r.experts->unreached.end());
  ASSERT_GT(unreached.size(), 3u);
  const Checkpoint written = Checkpoint::open(o.out);
  const auto scale = [&](const std::string& path) { return written.tensor(path + ".input_scale").item<float>(); };
  std::map<std::string, float> largest;  // by block and projection
  const auto place = [](const std::string& path) { return path.substr(0, path.find(".experts")) + path.substr(path.rfind('.')); };
  for (const auto& l : r.layers) {
    if (l.name.find(".experts.") != l.name.npos && !unreached.contains(l.name)) largest[place(l.name)] = std::max(largest[place(l.name)], scale(l.name));
  }
  for (const std::string& path : unreached) EXPECT_EQ(scale(path), largest.at(place(path))) << path;
}

TEST(UnreachedExperts, KeepTheirRangesAlsoWhenTheyAreTakenOver) {
  TempDir dir;
  QuantizeOptions o = options_of(with_many_experts(dir), dir / "found", "awq");
  o.awq_clip = true;
  o.data = {dir / "few.jsonl"};
  const QuantizeReport r = quantize(o);
  ASSERT_TRUE(r.experts);
  const std::set<std::string> unreached(r.experts->unreached.begin(), r.experts->unreached.end());
  EXPECT_GT(unreached.size(), 3u);
  const ScaleSet set = read_scales(o.out + "/" + kScalesName);
  size_t kept = 0, narrowed = 0;
  for (const ScaleSet::Clip& c : set.clips) {
    const bool any = (c.record.shrink_NG > 0).any().item<bool>();
    narrowed += any;
    if (!unreached.count(c.record.layer)) continue;
    EXPECT_FALSE(any) << c.record.layer;
    ++kept;
  }
  EXPECT_EQ(kept, unreached.size());
  EXPECT_GT(narrowed, 0u);
  o.out = dir / "again";
  o.scales = dir / ("found/" + std::string(kScalesName));
  o.data.clear();
  quantize(o);
  EXPECT_TRUE(output_digests(dir / "found").at("model.safetensors") == output_digests(dir / "again").at("model.safetensors"));
}

TEST(UnreachedExperts, KeepTheirScalesUnderDistort) {
  TempDir dir;
  QuantizeOptions o = options_of(with_many_experts(dir), dir / "out", "mbq");
  o.mbq_distort = true;
  o.data = {dir / "few.jsonl"};
  const QuantizeReport r = quantize(o);
  ASSERT_TRUE(r.experts);
  std::set<std::string> scaled;
  for (const auto& s : r.scales) scaled.insert(s.block + ".mlp." + s.group);
  EXPECT_EQ(scaled.count("model.layers.0.mlp.post_attention_layernorm"), 1u);
  size_t without = 0, with = 0;
  for (const auto& l : r.layers) {
    const size_t at = l.name.find(".down_proj");
    if (at != l.name.npos) (scaled.count(l.name.substr(0, at) + ".up_proj") ? with : without) += 1;
  }
  EXPECT_GT(without, 0u);
  EXPECT_GT(with, 0u);
}

TEST(Experts, GramsOfAllOfABlockArePartOfTheMemoryThatIsPlanned) {
  std::map<int64_t, uint64_t> ram;
  for (const int64_t count : {20, 40}) {
    TempDir dir;
    make_checkpoint("qwen3_moe", dir / "", [&](Json& text) { text.set("num_experts", count); });
    QuantizeOptions o = options_of(dir / "model", dir / "out", "gptq");
    o.plan = true;
    ram[count] = quantize(o).expected_ram;
  }
  EXPECT_GE(ram[40], ram[20] + uint64_t{20} * 64 * (64 + 1024) * 4);  // inputs of 64, 1024 rows of each until they are summed
}

TEST(Experts, CalibratedResultsDoNotDependOnThreads) {
  TempDir dir;
  make_checkpoint("qwen3_vl_moe", dir / "");
  const int before = num_threads();
  for (const std::string name : {"gptq", "mbq", "distort"}) {
    for (const int threads : {1, 3}) {
      set_num_threads(threads);
      QuantizeOptions o = options_of(dir / "model", dir / name + std::to_string(threads), name == "gptq" ? name : "mbq");
      o.mbq_distort = name == "distort";
      quantize(o);
    }
    EXPECT_EQ(output_digests(dir / name + "1"), output_digests(dir / name + "3")) << name;
  }
  EXPECT_NE(output_digests(dir / "mbq1").at("model.safetensors"), output_digests(dir / "distort1").at("model.safetensors"));
  set_num_threads(before);
}

TEST(FusedExperts, GiveTheSameCodesAsExpertsInTensorsOfTheirOwn) {
  TempDir dir;
  quantize(options_of(tiny("qwen3_moe"), dir / "own", "rtn"));
  quantize(options_of(tiny("qwen3_moe_native"), dir / "fused", "rtn"));
  const Checkpoint own = Checkpoint::open(dir / "own"), fused = Checkpoint::open(dir / "fused");
  ASSERT_EQ(own.names(), fused.names());
  for (const std::string& name : own.names()) EXPECT_TRUE(own.tensor(name).equal(fused.tensor(name))) << name;
}

TEST(FusedExperts, StayTogetherOrAreRefused) {
  TempDir dir;
  QuantizeOptions o = options_of(tiny("qwen3_vl_moe"), dir / "out", "rtn");
  o.ignore = {"experts.1.up_proj"};
  const std::string message = message_of([&] { quantize(o); });
  EXPECT_EQ(message.find("unsupported: "), 0u) << message;
  EXPECT_NE(message.find("experts.gate_up_proj: holds layers to be quantized and "), std::string::npos) << message;
  o.ignore = {"experts"};
  quantize(o);
  const Opened kept(dir / "out");
  EXPECT_TRUE(kept.source.checkpoint().has("model.language_model.layers.0.mlp.experts.gate_up_proj"));
  EXPECT_FALSE(kept.model->params.linears.at("model.language_model.layers.0.mlp.experts.1.up_proj")->weight->unpack());
  EXPECT_TRUE(kept.model->params.linears.at("model.language_model.layers.0.self_attn.q_proj")->weight->unpack());
}

TEST(FusedExperts, InspectCountsThemLikeOthersAndKnowsWhatATokenUses) {
  const InspectReport own = inspect({.model = tiny("qwen3_moe")}), fused = inspect({.model = tiny("qwen3_moe_native")});
  for (const InspectReport* r : {&own, &fused}) {
    EXPECT_TRUE(r->missing.empty() && r->unexpected.empty() && r->misshapen.empty());
    int64_t bytes = 0, experts = 0;
    for (const InspectPart& p : r->parts) {
      bytes += p.bytes;
      if (p.name == "expert") experts = p.parameters;
    }
    EXPECT_EQ(bytes, r->bytes);
    EXPECT_EQ(experts, 2 * 6 * 3 * 64 * 48);
    EXPECT_EQ(r->active_parameters, r->parameters - experts * 4 / 6);
    EXPECT_NE(r->to_text().find("active for a token"), std::string::npos);
  }
}

// Mean cross-entropy of the answers of a sample.
double loss_of(const Model& model, const CalibData& data) {
  const at::NoGradGuard no_graph;
  ModelInputs in = data.inputs(0);
  Pass pass = make_pass(model, in);
  const at::Tensor answers = data.samples[0].answers_T;
  const at::Tensor rows = (answers.slice(0, 1, answers.size(0)) == 1).nonzero().squeeze(1);
  const at::Tensor logits = model.language().head(at::index_select(forward_hidden(model, in, pass), 0, rows), pass).to(at::kDouble);
  return -at::log_softmax(logits, -1).gather(1, at::index_select(data.samples[0].ids_T, 0, rows + 1).unsqueeze(1)).mean().item<double>();
}

TEST(ExpertGradients, AgreeWithFiniteDifferencesOnTheRowsOfEachExpert) {
  TempDir dir;
  make_checkpoint("qwen3_vl_moe", dir / "");
  write_text(dir / "talk.json", "[" + llava({picture("chart.png")}, {"<image>\nwhat?", "A chart of something."}).dump() + "]");
  const Opened opened(dir / "model");
  const CalibData data = opened.data({.data = {dir / "talk.json"}, .n_samples = 1});
  Calibrator calibrator(*opened.model, data, dir / ".", nullptr);
  calibrator.start(0, {});
  std::map<std::string, std::vector<double>> sums;
  auto measure = [](const LinearSite&, const at::Tensor& G, const Pass& pass) {
    EXPECT_EQ(pass.kinds.size(0), G.size(0));
    const at::Tensor s = G.sum(0).to(at::kDouble).contiguous();
    return std::vector<double>(s.const_data_ptr<double>(), s.const_data_ptr<double>() + s.numel());
  };
  calibrator.gradients(measure, [&](const LinearSite& site, size_t, const std::vector<double>& v) { sums[site.path] = v; }, {});
  int64_t experts = 0;
  for (const auto& [path, expected] : sums) {
    LinearSite& site = *opened.model->params.linears.at(path);
    experts += site.role == Role::expert;
    for (const int64_t channel : {int64_t{0}, site.out - 1}) {
      auto shifted = [&](double by) {
        site.bias = at::zeros({site.out});
        site.bias[channel] += by;
        return loss_of(*opened.model, data);
      };
      const double step = 2e-3, slope = (shifted(step) - shifted(-step)) / (2 * step);
      site.bias = at::Tensor();
      EXPECT_NEAR(slope, expected[static_cast<size_t>(channel)], 1e-3 + 0.03 * std::abs(slope)) << path << " " << channel;
    }
  }
  EXPECT_GE(experts, 4);
}

}  // namespace
}  // namespace statera
