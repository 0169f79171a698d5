// Every tiny checkpoint, in every layout, against transformers in fp32: each hidden state and the logits within 1e-4, ragged batches,
// and 64 greedy tokens. A checkpoint added under tests/tiny is picked up by itself.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/matmul.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "nn/compute.h"
#include "nn/topology.h"
#include "support/tiny.h"

namespace statera {
namespace {

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  if (a.sizes() != b.sizes()) return INFINITY;
  return at::abs(a.to(at::kFloat) - b.to(at::kFloat)).max().item<double>();
}

bool in_block(Role role) { return role == Role::attention || role == Role::mlp || role == Role::expert; }

class Collect : public Tap {
 public:
  std::vector<at::Tensor> outputs;
  void block(const Stack& stack, int64_t, const at::Tensor& h, const Pass&) override {
    if (stack.name() == "language") outputs.push_back(h.clone());
  }
};

class TinyCheckpoint : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { opened_ = tiny::open(tiny::folder(GetParam())); }
  std::vector<std::string> golden_files() const {
    std::vector<std::string> out;
    for (const auto& e : std::filesystem::directory_iterator(tiny::golden_folder(GetParam()))) {
      if (e.path().filename().string().starts_with("golden") && e.path().extension() == ".safetensors") out.push_back(e.path());
    }
    std::sort(out.begin(), out.end());
    return out;
  }
  tiny::Opened opened_;
  at::NoGradGuard no_grad_;
};

TEST_P(TinyCheckpoint, HiddenStatesAndLogitsEqualTransformers) {
  const Model& model = *opened_.model;
  ASSERT_FALSE(golden_files().empty());
  for (const auto& path : golden_files()) {
    SafetensorsFile golden(path);
    ModelInputs in = tiny::inputs(golden);
    Pass pass = make_pass(model, in);
    Collect collect;
    pass.tap = &collect;
    auto visual = model.see(in);
    at::Tensor entered = model.language().enter(in.input_ids, visual ? &*visual : nullptr, pass);
    at::Tensor last = model.language().leave(run_blocks(model.language(), entered, pass), pass);
    at::Tensor logits = model.language().head(last, pass);
    EXPECT_LT(largest_difference(entered, golden.tensor("hidden_0").squeeze(0)), 1e-4) << path << " hidden_0";
    for (size_t i = 0; i + 1 < collect.outputs.size(); ++i) {
      std::string name = "hidden_" + std::to_string(i + 1);
      EXPECT_LT(largest_difference(collect.outputs[i], golden.tensor(name).squeeze(0)), 1e-4) << path << " " << name;
    }
    std::string name = "hidden_" + std::to_string(model.language().blocks());
    EXPECT_LT(largest_difference(last, golden.tensor(name).squeeze(0)), 1e-4) << path << " " << name;
    EXPECT_LT(largest_difference(logits, golden.tensor("logits").squeeze(0)), 1e-4) << path << " logits";
  }
}

TEST_P(TinyCheckpoint, GreedyTokensEqualTransformersFor64Steps) {
  SafetensorsFile golden(tiny::golden_folder(GetParam()) + "/golden.safetensors");
  if (!golden.find("greedy")) return;
  at::Tensor expected = golden.tensor("greedy").contiguous();
  std::vector<int64_t> want(expected.const_data_ptr<int64_t>(), expected.const_data_ptr<int64_t>() + expected.numel());
  EXPECT_EQ(tiny::greedy(*opened_.model, tiny::inputs(golden), expected.numel()), want);
}

TEST_P(TinyCheckpoint, ARaggedBatchEqualsItsPromptsAlone) {
  SafetensorsFile golden(tiny::golden_folder(GetParam()) + "/golden.safetensors");
  if (!golden.find("batch_input_ids")) return;
  ModelInputs in;
  in.input_ids = golden.tensor("batch_input_ids").clone();
  at::Tensor lengths = golden.tensor("batch_lengths").contiguous();
  in.bounds = {0};
  for (int64_t i = 0; i < lengths.numel(); ++i) in.bounds.push_back(in.bounds.back() + lengths[i].item<int64_t>());
  EXPECT_LT(largest_difference(tiny::logits(*opened_.model, in), golden.tensor("batch_logits")), 1e-4);
}

TEST_P(TinyCheckpoint, NothingIsMissingOrUnexpected) {
  Checkpoint checkpoint = Checkpoint::open(tiny::folder(GetParam()));
  CheckpointProblems problems = find_problems(checkpoint, model_type(checkpoint.config()));
  EXPECT_TRUE(problems.empty()) << (problems.missing.empty() ? "" : problems.missing[0]) << " " << (problems.unexpected.empty() ? "" : problems.unexpected[0]);
}

// ---- laws over every model
TEST_P(TinyCheckpoint, CachedDecodingEqualsAFullPass) {
  SafetensorsFile golden(tiny::golden_folder(GetParam()) + "/golden.safetensors");
  const Model& model = *opened_.model;
  ModelInputs in = tiny::inputs(golden);
  at::Tensor whole = tiny::logits(model, in);
  // prefill all but the last four tokens, then one at a time (the tail is text in every golden)
  const int64_t T = in.input_ids.size(0), head = T - 4;
  auto at_length = [&](int64_t n) { return model.language().cache_valid(head, n); };
  if (!at_length(T)) return;  // longrope across its boundary: the engine prefills again
  ModelInputs part = in;
  at::Tensor positions = in.position_ids.defined() ? in.position_ids : model.positions(in).first;
  part.input_ids = in.input_ids.slice(0, 0, head);
  part.position_ids = positions.slice(-1, 0, head);
  part.bounds = one_sequence(head);
  KvCache cache(model.language().blocks());
  Pass pass = make_pass(model, part);
  pass.caches = {&cache};
  forward_hidden(model, part, pass);
  bool grows = model.config.get("rope_scaling") && model.config.at("rope_scaling").get_string("type", model.config.at("rope_scaling").get_string("rope_type", "")) == "dynamic";
  for (int64_t t = head; t < T; ++t) {
    ModelInputs step;
    step.input_ids = in.input_ids.slice(0, t, t + 1);
    step.position_ids = positions.slice(-1, t, t + 1);
    step.bounds = one_sequence(1);
    Pass p = make_pass(model, step);
    p.caches = {&cache};
    at::Tensor row = model.language().head(forward_hidden(model, step, p), p);
    // dynamic NTK changes theta with the length: cached keys keep the old one by design
    if (!grows) {
      EXPECT_LT(largest_difference(row[0], whole[t]), 1e-5) << t;
    }
  }
  EXPECT_EQ(cache.length(), T);
}

// Rounds by the definition and keeps floats.
class RoundedCache : public KvCache {
 public:
  RoundedCache(int64_t layers, KvForm to) : KvCache(layers), to_(to) {}
  void append(int64_t layer, const at::Tensor& k, const at::Tensor& v) override { KvCache::append(layer, rounded(k), rounded(v)); }

 protected:
  at::Tensor rounded(const at::Tensor& x) const {
    if (to_ == KvForm::fp16) return x.to(at::kHalf).to(at::kFloat);
    return fake_quantize(x.flatten(0, 1), ActQuant{8}).view_as(x);
  }
  KvForm to_;
};

// The first `length` rows of another cache as floats. What is appended behind them must be the next row of it, before rounding, and that row is kept:
// float noise in front of a layer would be rounded to another code now and then.
class GivenCache : public RoundedCache {
 public:
  GivenCache(int64_t layers, KvForm to, const KvCache& of, int64_t length) : RoundedCache(layers, to), of_(of), length_(length) {
    for (int64_t layer = 0; layer < layers; ++layer) keep(layer, 0, length);
  }
  void append(int64_t layer, const at::Tensor& k, const at::Tensor& v) override {
    const auto [K, V] = of_.rows(layer, at::kFloat);
    for (const auto& [given, kept] : {std::pair(k, K), std::pair(v, V)}) {
      const double code = given.abs().max().item<double>() / (to_ == KvForm::fp16 ? 1024 : 127.5);
      EXPECT_LT(largest_difference(rounded(given), kept.slice(0, length_, length_ + 1)), 1.01 * code) << "layer " << layer;
    }
    keep(layer, length_, length_ + 1);
  }

 private:
  void keep(int64_t layer, int64_t begin, int64_t end) {
    const auto [k, v] = of_.rows(layer, at::kFloat);
    KvCache::append(layer, k.slice(0, begin, end), v.slice(0, begin, end));
  }
  const KvCache& of_;
  int64_t length_;
};

TEST_P(TinyCheckpoint, ACacheOfFewerBitsGivesTheLogitsOfRoundedKeysAndValues) {
  SafetensorsFile golden(tiny::golden_folder(GetParam()) + "/golden.safetensors");
  const Model& model = *opened_.model;
  const ModelInputs in = tiny::inputs(golden);
  const at::Tensor whole = tiny::logits(model, in), positions = in.position_ids.defined() ? in.position_ids : model.positions(in).first;
  const int64_t T = in.input_ids.size(0), head = T - 4, layers = model.language().blocks();
  auto run = [&](ModelInputs part, int64_t begin, int64_t end, KvCache& cache) {
    part.input_ids = in.input_ids.slice(0, begin, end);
    part.position_ids = positions.slice(-1, begin, end);
    part.bounds = one_sequence(end - begin);
    Pass pass = make_pass(model, part);
    pass.caches = {&cache};
    return model.language().head(forward_hidden(model, part, pass), pass);
  };
  for (KvForm form : {KvForm::fp16, KvForm::int8}) {
    KvCache cache(layers, form);
    RoundedCache expected(layers, form);
    const at::Tensor prompt = run(in, 0, head, cache);
    EXPECT_LT(largest_difference(prompt, run(in, 0, head, expected)), 1e-5);
    if (model.language().cache_valid(head, T)) {
      EXPECT_GT(largest_difference(prompt, whole.slice(0, 0, head)), 0) << "nothing was rounded";
    }
    for (int64_t t = head; t < T; ++t) {
      const at::Tensor step = run({}, t, t + 1, cache);
      GivenCache same(layers, form, cache, t);
      EXPECT_LT(largest_difference(step, run({}, t, t + 1, same)), 1e-5) << t;
    }
  }
}

TEST_P(TinyCheckpoint, FoldingARandomScaleThroughEveryGroupLeavesTheLogitsUnchanged) {
  SafetensorsFile golden(tiny::golden_folder(GetParam()) + "/golden.safetensors");
  Model& model = *opened_.model;
  ModelInputs in = tiny::inputs(golden);
  at::Tensor before = tiny::logits(model, in);
  int folded = 0;
  auto fold_all = [&](const Stack& stack) {
    for (int64_t i = 0; i < stack.blocks(); ++i) {
      for (const ScaleGroup& group : stack.topology(i).groups) {
        at::Tensor scale = before.new_empty({group.channels}).uniform_(0.5, 2.0);
        fold_scale(group, scale);
        ++folded;
      }
    }
  };
  fold_all(model.language());
  if (model.vision()) fold_all(*model.vision());
  EXPECT_GE(folded, 4 * model.language().blocks());
  EXPECT_LT(largest_difference(tiny::logits(model, in), before), 1e-4);
}

TEST_P(TinyCheckpoint, RotatingTheResidualByARandomOrthogonalMatrixLeavesTheLogitsUnchanged) {
  SafetensorsFile golden(tiny::golden_folder(GetParam()) + "/golden.safetensors");
  Model& model = *opened_.model;
  ModelInputs in = tiny::inputs(golden);
  at::Tensor before = tiny::logits(model, in);
  const int64_t H = model.limits().hidden_size;
  at::Tensor R = std::get<0>(at::linalg_qr(before.new_empty({H, H}).normal_()));
  ResidualEnds ends = model.residual_ends();
  fold_norm(ends.final_norm, {ends.head});
  rotate_reader(ends.head, R);
  ends.embedding->value = at::matmul(ends.embedding->value.to(at::kFloat), R);
  for (const Linear& w : ends.writers) rotate_writer(w, R);
  for (int64_t i = 0; i < model.language().blocks(); ++i) {
    Topology t = model.language().topology(i);
    for (auto& [norm, readers] : t.residual_norms) fold_norm(norm, readers);
    for (const Linear& r : t.residual_readers) rotate_reader(r, R);
    for (const Linear& w : t.residual_writers) rotate_writer(w, R);
  }
  EXPECT_LT(largest_difference(tiny::logits(model, in), before), 1e-4);
}

TEST_P(TinyCheckpoint, PackedWeightsComputeWhatRoundedOnesDo) {
  SafetensorsFile golden(tiny::golden_folder(GetParam()) + "/golden.safetensors");
  Model& model = *opened_.model;
  ModelInputs in = tiny::inputs(golden);
  for (int bits : {2, 3, 4, 5, 6, 7, 8}) {
    for (bool symmetric : {true, false}) {
      std::map<std::string, QTensor> quantized;
      for (auto& [path, site] : model.params.linears) {
        if (in_block(site->role)) {
          quantized[path] = rtn(site->weight->dense(), {.bits = bits, .group = 32, .symmetric = symmetric});
        }
      }
      auto with = [&](auto make) {
        for (auto& [path, q] : quantized) model.params.linears[path]->weight = make(q);
        return tiny::logits(model, in);
      };
      at::Tensor rounded = with([](const QTensor& q) { return make_rounded(q); });
      at::Tensor packed = with([](const QTensor& q) { return make_packed(q); });
      EXPECT_LT(largest_difference(packed, rounded), 2e-4) << bits;
      for (auto& [path, q] : quantized) {
        QTensor back = *model.params.linears[path]->weight->unpack();
        ASSERT_TRUE(back.q.equal(q.q) && back.scale.equal(q.scale));
        if (!symmetric) {
          ASSERT_TRUE(back.zero.equal(q.zero));
        }
      }
    }
  }
}

TEST_P(TinyCheckpoint, Int8ActivationsInIntegersEqualTheirSimulation) {
  SafetensorsFile golden(tiny::golden_folder(GetParam()) + "/golden.safetensors");
  Model& model = *opened_.model;
  ModelInputs in = tiny::inputs(golden);
  std::map<std::string, QTensor> quantized;
  for (auto& [path, site] : model.params.linears) {
    if (!in_block(site->role)) continue;
    quantized[path] = rtn(site->weight->dense(), {.bits = 8, .group = -1, .symmetric = true});
    site->act = ActQuant{};
  }
  // One layer at a time on the same input: through a whole model, a rounding tie may fall either way.
  for (auto& [path, q] : quantized) {
    auto site = model.params.linears[path];
    at::Tensor x = q.scale.new_empty({5, site->in}, at::kFloat).normal_();
    Pass pass;
    site->weight = make_rounded(q);
    at::Tensor simulated = Linear{site}(x, pass);
    site->weight = make_packed(q);
    EXPECT_LT(largest_difference(Linear{site}(x, pass), simulated), 1e-3 * simulated.abs().max().item<double>()) << path;
  }
  EXPECT_TRUE(tiny::logits(model, in).isfinite().all().item<bool>());
}

TEST_P(TinyCheckpoint, ComputingInIntegersStaysNearTheExactLogits) {
  SafetensorsFile golden(tiny::golden_folder(GetParam()) + "/golden.safetensors");
  Model& model = *opened_.model;
  ModelInputs in = tiny::inputs(golden);
  for (auto& [path, site] : model.params.linears) {
    if (in_block(site->role)) site->weight = make_packed(rtn(site->weight->dense(), {.bits = 8, .group = 32, .symmetric = true}));
  }
  const at::Tensor exact = tiny::logits(model, in);
  set_compute(model.params, Compute::int8);
  const at::Tensor integers = tiny::logits(model, in);
  EXPECT_FALSE(integers.equal(exact));
  // In a mixture a token at the border of two experts may go to the other one.
  EXPECT_LT((integers - exact).norm().item<double>(), 0.1 * exact.norm().item<double>());
}

// ---- placeholder expansion of each generation
std::string times(int count, const std::string& token) {
  std::string out;
  for (int i = 0; i < count; ++i) out += token;
  return out;
}

TEST(PlaceholderExpansion, Qwen3VideosBecomeTimedFramesInPlaceOfTheWholeTriple) {
  auto opened = tiny::open(tiny::folder("qwen3_vl"));
  const std::string start = "<|vision_start|>", end = "<|vision_end|>", pad = "<|video_pad|>";
  MediaSizes media;
  media.videos = {{2, 4, 6}};
  media.video_timestamps = {{(0.0 + 1.6) / 2, (3.3 + 4.9) / 2}};
  std::string expected = "x<0.8 seconds>" + start + times(6, pad) + end + "<4.1 seconds>" + start + times(6, pad) + end + "y";
  EXPECT_EQ(opened.model->expand_placeholders("x" + start + pad + end + "y", media), expected);
  EXPECT_EQ(opened.model->expand_placeholders("x" + pad + "y", media), expected);  // a bare placeholder
  media.video_timestamps = {{0.25, 0.35}};                                          // as printf("%.1f") rounds
  EXPECT_NE(opened.model->expand_placeholders(pad, media).find("<0.2 seconds>"), std::string::npos);
}

TEST(PlaceholderExpansion, ImagesAndOlderVideosBecomeRunsOfTheirPlaceholder) {
  auto opened = tiny::open(tiny::folder("qwen2_5_vl"));
  const std::string image = "<|image_pad|>", video = "<|video_pad|>";
  MediaSizes media;
  media.images = {{1, 4, 4}, {1, 2, 6}};
  media.videos = {{3, 2, 4}};
  media.video_timestamps = {{0, 1, 2}};
  EXPECT_EQ(opened.model->expand_placeholders("a" + image + "b" + video + "c" + image, media), "a" + times(4, image) + "b" + times(6, video) + "c" + times(3, image));
  EXPECT_THROW(opened.model->expand_placeholders("a" + image, media), Error);
  EXPECT_THROW(opened.model->expand_placeholders(image + image + image + video, media), Error);
  EXPECT_THROW(tiny::open(tiny::folder("llama")).model->expand_placeholders("a", media), Error);
}

INSTANTIATE_TEST_SUITE_P(All, TinyCheckpoint, testing::ValuesIn(tiny::checkpoints()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace statera
