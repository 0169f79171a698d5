// Scheduling, caches, positions, stops and endings of the scheduler over a model whose answers can be computed by hand.
#include "run/scheduler.h"

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <map>

#include "base/file.h"
#include "run/batch.h"
#include "run/fake_model.h"

namespace statera {

// The table of models lies above this layer; nothing here looks a model up.
std::span<const ModelType* const> model_types() { return {}; }

namespace {

using Ids = std::vector<int64_t>;

GenerateRequest request(const Ids& prompt, int64_t tokens) {
  GenerateRequest r;
  r.inputs.input_ids = at::tensor(prompt, at::TensorOptions(at::kLong));
  r.max_new_tokens = tokens;
  return r;
}

// All answers, by prompt number.
std::vector<Answer> answers(Scheduler& scheduler, const std::vector<Ids>& prompts, int64_t tokens) {
  std::vector<Answer> out(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    auto r = request(prompts[i], tokens + static_cast<int64_t>(i));
    r.on_done = [&out, i](int64_t, Answer a) { out[i] = std::move(a); };
    scheduler.submit(std::move(r));
  }
  scheduler.run();
  return out;
}

const std::vector<Ids> kPrompts{{3, 1, 4}, {1}, {5, 9, 2, 6, 5, 3, 5}, {8, 9}, {7, 9, 3, 2, 3}};

TEST(Scheduler, BatchedAnswersAreThoseOfTheModelAlone) {
  for (int64_t shift : {0, 7}) {
    for (int64_t budget : {1, 8, 100}) {
      for (int64_t together : {1, 2, 16}) {
        FakeModel model;
        model.shift = shift;
        Scheduler scheduler(model, {}, {}, {.max_running = together, .prefill_tokens = budget});
        auto out = answers(scheduler, kPrompts, 6);
        for (size_t i = 0; i < kPrompts.size(); ++i) {
          EXPECT_EQ(out[i].ids, fake_answer(model, kPrompts[i], 6 + static_cast<int64_t>(i))) << shift << " " << budget << " " << together;
          EXPECT_EQ(out[i].finish, FinishReason::length);
          EXPECT_EQ(out[i].usage.prompt_tokens, static_cast<int64_t>(kPrompts[i].size()));
          EXPECT_EQ(out[i].usage.completion_tokens, 6 + static_cast<int64_t>(i));
        }
      }
    }
  }
}

TEST(Scheduler, PromptsShareAPassWithinTheTokenBudgetAndThenAdvanceTogether) {
  FakeModel model;
  Scheduler scheduler(model, {}, {}, {.max_running = 16, .prefill_tokens = 11});
  answers(scheduler, kPrompts, 2);
  // 3 + 1 + 7 rows, then 2 + 5; the answers have 2..6 tokens, the first comes from the prompt
  EXPECT_EQ(model.stack.rows, (Ids{11, 7, 5, 4, 3, 2, 1}));
  EXPECT_EQ(scheduler.stats().prefill_tokens, 18);
  EXPECT_EQ(scheduler.stats().decode_tokens, 15);
  EXPECT_EQ(scheduler.kv_bytes(), 0);
}

TEST(Scheduler, TheCacheLimitHoldsRequestsBack) {
  FakeModel model;
  Scheduler scheduler(model, {}, {}, {.max_running = 16, .prefill_tokens = 100, .max_kv_tokens = 12});
  auto out = answers(scheduler, {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}, 3);
  EXPECT_EQ(out[2].ids, fake_answer(model, {7, 8, 9}, 5));
  // 6 + 7 and 7 + 8 tokens do not fit 12: one after another
  EXPECT_EQ(model.stack.rows, (Ids{3, 1, 1, 3, 1, 1, 1, 3, 1, 1, 1, 1}));
}

TEST(Scheduler, CachesAreKeptInTheFormThatIsAskedFor) {
  int64_t bytes[3], i = 0;
  for (const char* form : {"auto", "fp16", "int8"}) {
    FakeModel model;
    Scheduler scheduler(model, {}, {}, {.kv_cache = form});
    scheduler.submit(request({3, 1, 4}, 3));
    scheduler.step();
    bytes[i++] = scheduler.kv_bytes();
  }
  EXPECT_EQ(bytes[0], 64 * 2 * 8);  // the fake's rows are one double for keys and one for values
  EXPECT_EQ(bytes[1], 64 * 2 * 2);
  EXPECT_EQ(bytes[2], 64 * 2 * (1 + 4));
  FakeModel model;
  EXPECT_THROW(Scheduler(model, {}, {}, {.kv_cache = "int4"}), Error);
}

TEST(Scheduler, ACacheThatBecameInvalidIsBuiltAnew) {
  FakeModel model;
  model.stack.switch_at = 6;
  model.shift = 3;
  Scheduler scheduler(model, {}, {}, {});
  auto r = request({3, 1, 4}, 6);
  EXPECT_EQ(scheduler.generate(std::move(r)).ids.size(), 6u);
  EXPECT_EQ(model.stack.rows, (Ids{3, 1, 1, 6, 1, 1}));
  FakeModel plain;
  plain.shift = 3;
  FakeModel at_once = plain;
  EXPECT_EQ(Scheduler(at_once, {}, {}, {}).generate(request({3, 1, 4}, 3)).ids, fake_answer(plain, {3, 1, 4}, 3));
}

TEST(Scheduler, AnEosIdEndsTheAnswerAndBelongsToIt) {
  FakeModel model;
  Ids all = fake_answer(model, {3, 1, 4}, 8);
  Scheduler scheduler(model, {}, {{}, {999, all[3]}}, {});
  Answer a = scheduler.generate(request({3, 1, 4}, 8));
  auto first = static_cast<size_t>(std::find(all.begin(), all.end(), all[3]) - all.begin());
  EXPECT_EQ(a.ids, Ids(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(first) + 1));
  EXPECT_EQ(a.finish, FinishReason::stop);
  auto ignoring = request({3, 1, 4}, 8);
  ignoring.ignore_eos = true;
  EXPECT_EQ(scheduler.generate(std::move(ignoring)).ids, all);
  auto longer = request({3, 1, 4}, 8);
  longer.min_new_tokens = 6;
  EXPECT_GE(scheduler.generate(std::move(longer)).ids.size(), 6u);
}

TEST(Scheduler, TheContextEndsAnAnswerAndRefusesAPromptThatFillsIt) {
  FakeModel model;
  model.max_positions = 5;
  Scheduler scheduler(model, {}, {}, {});
  EXPECT_EQ(scheduler.generate(request({3, 1, 4}, 100)).ids.size(), 2u);
  EXPECT_THROW(scheduler.submit(request({1, 2, 3, 4, 5}, 1)), Error);
  EXPECT_THROW(scheduler.submit(request({}, 1)), Error);
  EXPECT_THROW(scheduler.submit(request({99}, 1)), Error);
  EXPECT_THROW(scheduler.submit(request({1}, 0)), Error);
  auto stopping = request({1}, 2);
  stopping.stop = {"x"};
  EXPECT_THROW(scheduler.submit(std::move(stopping)), Error);
}

TEST(Scheduler, CancelledRequestsEndAndTheOthersGoOn) {
  FakeModel model;
  Scheduler scheduler(model, {}, {}, {});
  std::map<int64_t, Answer> out;
  std::atomic<bool> flag{false};
  auto keep = [&](int64_t id, Answer a) { out[id] = std::move(a); };
  for (int i = 0; i < 3; ++i) {
    auto r = request({3, 1, 4}, 9);
    r.on_done = keep;
    if (i == 0) r.cancel = &flag;
    scheduler.submit(std::move(r));
  }
  scheduler.step();
  scheduler.step();
  flag = true;
  scheduler.cancel(1);
  scheduler.run();
  EXPECT_EQ(out[0].finish, FinishReason::cancelled);
  EXPECT_EQ(out[0].ids.size(), 2u);
  EXPECT_EQ(out[1].finish, FinishReason::cancelled);
  EXPECT_EQ(out[2].ids, fake_answer(model, {3, 1, 4}, 9));
  auto late = request({3, 1, 4}, 9);
  late.cancel = &flag;
  EXPECT_EQ(scheduler.generate(std::move(late)).finish, FinishReason::cancelled);
}

TEST(Scheduler, AFailedPassFailsItsRequestsAndNotTheEngine) {
  FakeModel model;
  Scheduler scheduler(model, {}, {}, {});
  model.stack.broken = true;
  try {
    scheduler.generate(request({3, 1, 4}, 9));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::memory);
  }
  model.stack.broken = false;
  EXPECT_EQ(scheduler.generate(request({3, 1, 4}, 9)).ids, fake_answer(model, {3, 1, 4}, 9));
}

TEST(Scheduler, SampledAnswersDoNotDependOnWhatRunsBeside) {
  FakeModel model;
  auto hot = [&](const Ids& prompt, int64_t seed) {
    auto r = request(prompt, 8);
    r.sampling.temperature = 3;
    r.sampling.seed = seed;
    return r;
  };
  Scheduler alone(model, {}, {}, {}), busy(model, {}, {}, {});
  Answer first = alone.generate(hot({3, 1, 4}, 11));
  for (int i = 0; i < 4; ++i) busy.submit(hot(kPrompts[static_cast<size_t>(i)], i));
  EXPECT_EQ(busy.generate(hot({3, 1, 4}, 11)).ids, first.ids);
  EXPECT_EQ(first.seed, 11u);
  EXPECT_NE(alone.generate(hot({3, 1, 4}, 12)).ids, first.ids);
}

TEST(Scheduler, LogprobsComeFromTheUntouchedLogits) {
  FakeModel model;
  Scheduler scheduler(model, {}, {}, {});
  auto r = request({3, 1, 4}, 2);
  r.logprobs = 1;
  r.sampling.repetition_penalty = 50;
  Answer a = scheduler.generate(std::move(r));
  ASSERT_EQ(a.logprobs.size(), 2u);
  EXPECT_NEAR(a.logprobs[0].top.at(0).second, 5 - std::log(std::exp(5) + 49), 1e-6);
}

TEST(GenerationDefaults, EosIsOneIdOrAListAndFallsBackToTheConfig) {
  auto parse = [](const char* text) { return Json::parse(text, "test"); };
  Json config = parse(R"({"eos_token_id": 2})"), nested = parse(R"({"text_config": {"eos_token_id": 9}})");
  EXPECT_EQ(read_generation_defaults(parse(R"({"eos_token_id": [5, 6]})"), config).eos, (Ids{5, 6}));
  EXPECT_EQ(read_generation_defaults(parse(R"({"eos_token_id": 7})"), config).eos, (Ids{7}));
  EXPECT_EQ(read_generation_defaults(Json(), config).eos, (Ids{2}));
  EXPECT_EQ(read_generation_defaults(Json(), nested).eos, (Ids{9}));
  EXPECT_TRUE(read_generation_defaults(Json(), parse("{}")).eos.empty());
}

class SchedulerText : public testing::Test {
 protected:
  SchedulerText() : tokenizer(Tokenizer::from_directory(std::string(STATERA_SOURCE_DIR) + "/src/text/testdata/byte_level")) {
    model.stack.vocabulary = 400;  // below the special tokens
  }
  FakeModel model;
  Tokenizer tokenizer;
};

TEST_F(SchedulerText, StreamedTextIsTheDecodedAnswer) {
  Scheduler scheduler(model, tokenizer, {}, {});
  auto r = request({3, 1, 4}, 40);
  std::string streamed;
  r.on_token = [&](const TokenEvent& e) { streamed += e.text; };
  Answer a = scheduler.generate(std::move(r));
  EXPECT_EQ(a.text, tokenizer.decode(a.ids));
  EXPECT_EQ(streamed, a.text);
  EXPECT_FALSE(a.text.empty());
}

TEST_F(SchedulerText, AStopStringAcrossTokensEndsTheAnswerBeforeIt) {
  Scheduler scheduler(model, tokenizer, {}, {});
  Answer whole = scheduler.generate(request({3, 1, 4}, 40));
  ASSERT_GT(whole.text.size(), 20u);
  std::string stop = whole.text.substr(7, 6);
  size_t at = whole.text.find(stop);
  auto r = request({3, 1, 4}, 40);
  r.stop = {stop};
  Answer a = scheduler.generate(std::move(r));
  EXPECT_EQ(a.text, whole.text.substr(0, at));
  EXPECT_EQ(a.stop, stop);
  EXPECT_EQ(a.finish, FinishReason::stop);
  EXPECT_LT(a.ids.size(), 40u);
}

}  // namespace
}  // namespace statera
