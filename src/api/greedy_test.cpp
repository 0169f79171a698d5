// Generation over the tiny checkpoints: greedy tokens are transformers' (golden "greedy"), alone and beside others; cached logits are
// those of whole passes.
#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "ckpt/forward_inputs.h"
#include "api/loaded.h"
#include "base/file.h"
#include "ckpt/safetensors.h"
#include "run/scheduler.h"

namespace statera {
namespace {

using Ids = std::vector<int64_t>;
const std::string kTiny = std::string(STATERA_SOURCE_DIR) + "/tests/tiny/";

std::vector<std::string> models() {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(kTiny)) {
    std::string golden = entry.path().string() + "/golden.safetensors";
    if (is_file(golden) && SafetensorsFile(golden).find("greedy")) out.push_back(entry.path().filename().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

class Greedy : public testing::TestWithParam<std::string> {
 protected:
  Greedy() : path(kTiny + GetParam()), golden(path + "/golden.safetensors"), loaded(open_model(path, {"fp32"})) {
    at::Tensor ids = golden.tensor("greedy").contiguous();
    expected.assign(ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel());
  }
  GenerateRequest request() {
    GenerateRequest r;
    r.inputs = read_forward_inputs(path + "/golden.safetensors").inputs;
    r.max_new_tokens = static_cast<int64_t>(expected.size());
    r.ignore_eos = true;
    return r;
  }
  // The first `tokens` of the prompt's text part, without media.
  GenerateRequest other(int64_t tokens) {
    GenerateRequest r;
    Ids ids;
    for (int64_t i = 0; i < tokens; ++i) ids.push_back(3 + (7 * i) % 90);
    r.inputs.input_ids = at::tensor(ids, at::TensorOptions(at::kLong));
    r.max_new_tokens = 5 + tokens;
    r.ignore_eos = true;
    return r;
  }
  std::string path;
  SafetensorsFile golden;
  Loaded loaded;
  Ids expected;
};

TEST_P(Greedy, TokensAreThoseOfTransformers) {
  Scheduler alone(*loaded.model, {}, {}, {.max_context = 512});
  EXPECT_EQ(alone.generate(request()).ids, expected);
}

TEST_P(Greedy, TokensDoNotDependOnWhatRunsBeside) {
  Scheduler busy(*loaded.model, {}, {}, {.max_running = 4, .prefill_tokens = 64, .max_context = 512});
  std::vector<Ids> mixed(3);
  for (size_t i = 0; i < 3; ++i) {
    auto r = other(static_cast<int64_t>(3 + 4 * i));
    r.on_done = [&mixed, i](int64_t, Answer a) { mixed[i] = a.ids; };
    busy.submit(std::move(r));
  }
  auto twin = request();
  Ids second;
  twin.on_done = [&](int64_t, Answer a) { second = a.ids; };
  busy.submit(std::move(twin));
  EXPECT_EQ(busy.generate(request()).ids, expected);
  busy.run();
  EXPECT_EQ(second, expected);
  Scheduler alone(*loaded.model, {}, {}, {.max_context = 512});
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(alone.generate(other(static_cast<int64_t>(3 + 4 * i))).ids, mixed[i]) << i;
}

TEST_P(Greedy, TokensFromACacheOfFewerBitsDoNotDependOnWhatRunsBeside) {
  for (const char* form : {"fp16", "int8"}) {
    Scheduler alone(*loaded.model, {}, {}, {.max_context = 512, .kv_cache = form}), busy(*loaded.model, {}, {}, {.max_running = 3, .prefill_tokens = 64, .max_context = 512, .kv_cache = form});
    Ids mixed[2];
    for (int64_t i : {0, 1}) {
      auto r = other(3 + 4 * i);
      r.on_done = [&mixed, i](int64_t, Answer a) { mixed[i] = a.ids; };
      busy.submit(std::move(r));
    }
    EXPECT_EQ(busy.generate(request()).ids, alone.generate(request()).ids) << form;
    busy.run();
    for (int64_t i : {0, 1}) EXPECT_EQ(alone.generate(other(3 + 4 * i)).ids, mixed[i]) << form << " " << i;
  }
}

TEST_P(Greedy, CachedLogitsAreThoseOfAWholePass) {
  if (loaded.checkpoint.config().find("rope_scaling") && loaded.checkpoint.config().find("rope_scaling")->get_string("type", "") == "dynamic") {
    GTEST_SKIP() << "dynamic scaling changes with the length, and the reference keeps the keys it has cached";
  }
  c10::InferenceMode no_gradients;
  std::vector<at::Tensor> cached;
  auto r = request();
  r.max_new_tokens = 24;
  r.choose = [&](std::span<float> logits, int64_t n) {
    cached.push_back(at::tensor(std::vector<float>(logits.begin(), logits.end())));
    return expected[static_cast<size_t>(n)];
  };
  Scheduler scheduler(*loaded.model, {}, {}, {.max_context = 512});
  scheduler.generate(std::move(r));
  for (size_t n : {size_t{1}, size_t{7}, size_t{23}}) {  // after n tokens of the answer
    ModelInputs in = request().inputs;
    int64_t prompt = in.input_ids.size(0);
    Ids ids(in.input_ids.data_ptr<int64_t>(), in.input_ids.data_ptr<int64_t>() + prompt);
    ids.insert(ids.end(), expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(n));
    in.input_ids = at::tensor(ids, at::TensorOptions(at::kLong));
    in.bounds = one_sequence(in.input_ids.size(0));
    Pass pass = make_pass(*loaded.model, in);
    at::Tensor h = forward_hidden(*loaded.model, in, pass);
    at::Tensor whole = loaded.model->language().head(h.slice(0, h.size(0) - 1), pass)[0];
    EXPECT_LT((whole - cached[n]).abs().max().item<float>(), 1e-5) << n;
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, Greedy, testing::ValuesIn(models()), [](const auto& p) { return p.param; });

}  // namespace
}  // namespace statera
