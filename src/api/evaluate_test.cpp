// evaluate() on the bundled example: perplexity against transformers and against logits(), questions, logs that are continued, broken
// inputs.
#include "api/evaluate.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <thread>

#include "api/engine.h"
#include "api/logits.h"
#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"
#include "ckpt/safetensors.h"
#include "ckpt/safetensors_write.h"
#include "ckpt/test_files.h"
#include "eval/task.h"
#include "run/fake_model.h"
#include "text/tokenizer.h"

namespace statera {
namespace {

const std::string kRoot = STATERA_SOURCE_DIR, kModel = kRoot + "/examples/tiny-qwen3-vl", kText = kRoot + "/examples/calibration/text.txt",
                  kPicture = kRoot + "/examples/pictures/chart.png";

EvaluateOptions perplexity(const std::string& data, int64_t length, int64_t stride) {
  EvaluateOptions o;
  o.model = kModel;
  o.tasks = "perplexity";
  o.data = {data};
  o.max_length = length;
  o.stride = stride;
  return o;
}

double score(const EvaluateReport& r, const std::string& name) {
  for (const EvaluateScore& s : r.results.at(0).scores) {
    if (s.name == name) return s.value;
  }
  ADD_FAILURE() << "no score " << name;
  return 0;
}

std::string fault(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return std::string(to_string(e.kind())) + ": " + e.message();
  }
  return "no error";
}

// transformers 5.23 (torch 2.15, fp32, eager loop): log-softmax in double of Qwen3VLForConditionalGeneration(input_ids = the window), the
// mean -log p of the tokens scored under the windows of transformers' page on perplexity (but each token weighing the same).
TEST(Evaluate, PerplexityEqualsTransformers) {
  const struct {
    int64_t length, stride, tokens;
    double nll;
  } cases[] = {{64, 32, 5686, 7.171266337894032}, {128, 128, 5642, 7.1730555468124555}};
  for (const auto& c : cases) {
    const EvaluateReport r = evaluate(perplexity(kText, c.length, c.stride));
    EXPECT_NEAR(score(r, "nll_per_token"), c.nll, 1e-5);
    EXPECT_NEAR(score(r, "perplexity"), std::exp(c.nll), 1e-2);
    EXPECT_NEAR(score(r, "bits_per_byte"), c.nll * 5687 / 10456 / std::log(2.0), 1e-5);
    EXPECT_NEAR(std::log(score(r, "word_perplexity")), c.nll * 5687 / 1847, 1e-4);
    const Json& counts = r.results[0].counts;
    EXPECT_EQ(counts.at("tokens").as_int(), c.tokens);
    EXPECT_EQ(counts.at("bytes").as_int(), 10456);
    EXPECT_EQ(counts.at("words").as_int(), 1847);
    EXPECT_EQ(r.results[0].error_over, "windows");
    EXPECT_GT(*r.results[0].scores[0].standard_error, 0);
  }
}

TEST(Evaluate, PerplexityEqualsTheLogitsOfOneForwardPass) {
  TempDir dir;
  const std::string text = "Two lines of text,\nwritten for this test: 1 2 3. Déjà vu.";
  write_text(dir / "a.txt", text);
  EvaluateOptions e = perplexity(dir / "a.txt", 512, 512);
  const double exact = score(evaluate(e), "perplexity");
  e.kv_cache = "int8";
  const EvaluateReport r = evaluate(e);
  EXPECT_NE(score(r, "perplexity"), exact);
  EXPECT_EQ(r.results[0].settings.at("kv_cache").as_string(), "int8");
  const std::vector<int64_t> ids = Tokenizer::from_directory(kModel).encode(text);
  const auto n = static_cast<int64_t>(ids.size());
  write_safetensors(dir / "in.safetensors", {{"input_ids", at::tensor(ids, at::TensorOptions(at::kLong))}});
  LogitsOptions l;
  l.model = kModel;
  l.inputs = dir / "in.safetensors";
  l.out = dir / "out.safetensors";
  l.kv_cache = "int8";
  logits(l);
  const SafetensorsFile file(l.out);
  const at::Tensor log_p = at::log_softmax(file.tensor("logits").view({n, -1}), 1, at::kDouble);
  double nll = 0;
  for (int64_t t = 1; t < n; ++t) nll -= log_p[t - 1][ids[static_cast<size_t>(t)]].item<double>();
  const double mean = nll / static_cast<double>(n - 1);
  EXPECT_NEAR(score(r, "perplexity") / std::exp(mean), 1, 1e-6);
  EXPECT_NEAR(score(r, "bits_per_byte"), mean * static_cast<double>(n) / static_cast<double>(text.size()) / std::log(2.0), 1e-5);
  EXPECT_NEAR(score(r, "word_perplexity") / std::exp(mean * static_cast<double>(n) / 13), 1, 1e-4);
  EXPECT_FALSE(r.results[0].scores[0].standard_error) << "one window has none";
  EXPECT_EQ(r.results[0].counts.at("tokens").as_int(), n - 1);
}

TEST(Evaluate, StandardErrorIsTakenOverDocumentsWhereThereAreSeveral) {
  TempDir dir;
  write_text(dir / "a.jsonl",
             "{\"body\": \"The first text of three.\"}\n{\"body\": \"2 + 2 = 4\"}\n{\"body\": \"Ein dritter Text, etwas länger als die "
             "anderen.\"}\n");
  EvaluateOptions o = perplexity(dir / "a.jsonl:body", 8, 4);
  const EvaluateReport together = evaluate(o);
  EXPECT_EQ(together.results[0].error_over, "documents");
  EXPECT_EQ(together.results[0].counts.at("documents").as_int(), 3);
  EXPECT_GT(*together.results[0].scores[0].standard_error, 0);
  o.prefill_tokens = 1;  // a pass for each window
  EXPECT_NEAR(score(evaluate(o), "nll_per_token"), score(together, "nll_per_token"), 1e-5);
}

EvaluateOptions questions(const std::string& folder, const std::string& lines) {
  write_text(folder + "/q.jsonl", lines);
  EvaluateOptions o;
  o.model = kModel;
  o.tasks = "vqa";
  o.data = {folder + "/q.jsonl"};
  o.max_new_tokens = 4;
  o.max_running = 2;
  return o;
}

std::string six_questions() {
  std::string out;
  for (int i = 0; i < 6; ++i) {
    out += "{\"image\": " + (i % 2 ? "\"" + kPicture + "\"" : "[\"" + kPicture + "\", \"" + kPicture + "\"]") +
           ", \"question\": \"What is bar " + std::to_string(i) + "?\", \"answers\": [\"4\", \"four\"]}\n";
  }
  return out;
}

TEST(Evaluate, AKilledRunGoesOnWithIdenticalBytes) {
  for (const char* task : {"vqa", "perplexity"}) {
    TempDir dir;
    EvaluateOptions o = questions(dir, six_questions());
    if (std::string(task) == "perplexity") {
      o.tasks = task;
      write_text(dir / "t.txt", read_file(kText).substr(0, 1500));
      o.data = {dir / "t.txt"};
      o.max_length = 32;
      o.stride = 20;
      o.prefill_tokens = 100;
    }
    o.out = dir / "out";
    evaluate(o);
    const std::string log = o.out + "/" + task + ".jsonl", whole = read_file(log), report = read_file(o.out + "/report.json");
    ASSERT_GE(split(whole, '\n').size(), 8u);
    for (size_t cut :
         {size_t{0}, size_t{10}, whole.find('\n') + 1, whole.size() / 3, whole.size() * 2 / 3, whole.size() - 1, whole.size()}) {
      write_text(log, whole.substr(0, cut));
      const EvaluateReport again = evaluate(o);
      EXPECT_EQ(read_file(log), whole) << task << " cut at " << cut;
      EXPECT_EQ(read_file(o.out + "/report.json"), report);
      if (cut == whole.size()) { EXPECT_EQ(again.results[0].resumed, again.results[0].samples); }
    }
    o.prefill_tokens += 7;
    EXPECT_NE(fault([&] { evaluate(o); }).find("mismatch: " + log + ": made with other settings (prefill_tokens: "), std::string::npos);
  }
}

TEST(Evaluate, AClipIsAskedAboutAsAMessageWithTheClipIs) {
  TempDir dir;
  const std::string pictures = kRoot + "/examples/pictures/", a = "\"" + pictures + "shapes_a.png\"", b = "\"" + pictures + "shapes_b.png\"";
  const std::string clip = "\"video\": \"" + pictures + "square.mp4\"", image = "\"image\": \"" + kPicture + "\"",
                    frames = "\"video\": [" + a + ", " + b + ", " + a + ", " + b + "], \"sample_fps\": 1";
  EvaluateOptions o = questions(dir, "{" + clip + R"(, "question": "Where to?", "answer": "right"})" + "\n{" + image + ", " + frames +
                                         R"(, "question": "What?", "answer": "x"})" + "\n");
  o.prompt = "{question}";
  o.out = dir / "out";
  evaluate(o);
  const auto lines = split(read_file(o.out + "/vqa.jsonl"), '\n');
  EngineOptions open;
  open.model = kModel;
  Engine engine = Engine::open(open);
  GenerateOptions how;
  how.sampling.temperature = 0;
  how.max_new_tokens = o.max_new_tokens;
  const std::string contents[] = {"{" + clip + R"(}, {"text": "Where to?"})", "{" + image + "}, {" + frames + R"(}, {"text": "What?"})"};
  for (size_t i = 0; i < 2; ++i) {
    const Json messages = Json::parse(R"([{"role": "user", "content": [)" + contents[i] + "]}]", "messages");
    const Answer answer = engine.chat(Conversation::from_json(messages, "messages"), how, {});
    EXPECT_EQ(Json::parse(lines.at(i + 1), "log").at("prediction").as_string(), trim(answer.text)) << i;
  }
}

TEST(Evaluate, AnInterruptIsSaidAndTheLogGoesOn) {
  TempDir dir;
  constexpr int kQuestions = 200;
  std::string text;
  for (int i = 0; i < kQuestions; ++i) text += "{\"question\": \"What is " + std::to_string(i) + "?\", \"answer\": \"x\"}\n";
  EvaluateOptions o = questions(dir, text);
  o.out = dir / "out";
  const std::string log = o.out + "/vqa.jsonl";
  std::atomic<bool> stop = false, over = false;
  std::thread watcher([&] {  // stops it as soon as an answer stands in the log
    while (!stop && !over) {
      stop = is_file(log) && split(read_file(log), '\n').size() > 2;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  const std::string said = fault([&] { evaluate(o, {}, &stop); });
  over = true;
  watcher.join();
  EXPECT_NE(said.find("interrupted: "), std::string::npos);
  EXPECT_LT(split(read_file(log), '\n').size(), static_cast<size_t>(kQuestions));
  EXPECT_EQ(evaluate(o).results[0].samples, kQuestions);
  stop = true;
  EXPECT_NE(fault([&] { evaluate(perplexity(kText, 64, 64), {}, &stop); }).find("interrupted: "), std::string::npos);
}

TEST(Evaluate, AnswersAreScoredAndLogged) {
  TempDir dir;
  EvaluateOptions o = questions(dir, six_questions());
  o.out = dir / "out";
  o.limit = 3;
  EXPECT_EQ(evaluate(o).results[0].samples, 3);
  const auto lines = split(read_file(o.out + "/vqa.jsonl"), '\n');
  ASSERT_EQ(lines.size(), 5u);  // settings, three, and nothing after the last newline
  const Json first = Json::parse(lines[1], "log");
  EXPECT_EQ(first.at("prompt").as_string(), "What is bar 0?\nAnswer the question using a single word or phrase.");
  EXPECT_EQ(first.at("score").as_double(), 0);
  // Asked again with that prediction among the answers, the first question is right.
  TempDir other;
  Json line = Json::parse(split(six_questions(), '\n')[0], "line");
  line.erase("answers");
  line.set("answer", first.at("prediction"));
  const EvaluateReport r = evaluate(questions(other, line.dump() + "\n" + split(six_questions(), '\n')[1] + "\n"));
  EXPECT_DOUBLE_EQ(r.results[0].scores[0].value, 0.5);
  EXPECT_DOUBLE_EQ(*r.results[0].scores[0].standard_error, 0.5);
}

TEST(Evaluate, FaultsAreSaidInOneLineWithFileAndLine) {
  TempDir dir;
  const std::string good = R"({"question": "?", "answer": "x"})";
  const auto with = [&](const std::function<void(EvaluateOptions&)>& change, const std::string& lines) {
    EvaluateOptions o = questions(dir, lines);
    change(o);
    return fault([&] { evaluate(o); });
  };
  const auto as_is = [](EvaluateOptions&) {};
  EXPECT_EQ(with(as_is, good + "\n{\"image\": \"gone.png\", \"question\": \"?\", \"answer\": \"x\"}\n"),
            "not_found: " + (dir / "q.jsonl") + ": line 2: " + (dir / "gone.png") + ": no such picture");
  EXPECT_NE(with(as_is, good + "\n{broken\n").find("q.jsonl: line 2"), std::string::npos);
  write_text(dir / "not.png", "no picture");
  EXPECT_NE(with(as_is, "{\"image\": \"not.png\", \"question\": \"?\", \"answer\": \"x\"}\n").find("q.jsonl: line 1"), std::string::npos);
  EXPECT_NE(with([](auto& o) { o.tasks = "perplexty"; }, good).find("did you mean \"perplexity\""), std::string::npos);
  EXPECT_NE(with([](auto& o) { o.tasks = "vqa,perplexity"; }, good).find("TASK=PATH"), std::string::npos);
  EXPECT_NE(with([](auto& o) { o.metric = "bleu"; }, good).find("usage: metric"), std::string::npos);
  EXPECT_NE(with([](auto& o) { o.prompt = "Say something"; }, good).find("{question}"), std::string::npos);
  EXPECT_NE(with([&](auto& o) { o.data = {dir / "gone.jsonl"}; }, good).find("not_found"), std::string::npos);
  EXPECT_NE(fault([&] { evaluate(perplexity(kText, 8, 9)); }).find("usage: stride"), std::string::npos);
  EXPECT_NE(fault([&] { evaluate(perplexity(kText, int64_t{1} << 40, 0)); }).find("usage: max_length"), std::string::npos);
  write_text(dir / "image.txt", "text <|image_pad|> text");
  EXPECT_NE(fault([&] { evaluate(perplexity(dir / "image.txt", 0, 0)); }).find("picture placeholder"), std::string::npos);
}

// Predicts token (sum over (id + 1) * (position + 1)) % 50 with a logit of 5 and all others with 0 (run/fake_model.h).
TEST(PerplexityTask, OfAModelThatCanBeComputedByHand) {
  const Task* task = nullptr;
  for (const Task* t : eval_tasks()) {
    if (std::string(t->name) == "perplexity") task = t;
  }
  ASSERT_NE(task, nullptr);
  TempDir dir;
  FakeModel model;
  model.stack.vocabulary = 100000;  // as many as the tokenizer may give
  PromptParts parts;
  parts.directory = kModel;
  parts.model = &model;
  parts.tokenizer = Tokenizer::from_directory(kModel);
  write_text(dir / "a.txt", "one two three four five six seven eight nine ten eleven twelve");
  const std::vector<int64_t> ids = parts.tokenizer->encode(read_file(dir / "a.txt"));
  const auto n = static_cast<int64_t>(ids.size());
  ASSERT_GE(n, 12);
  for (int64_t stride : {5, 2}) {
    TaskJob job{model, parts, {}, {}, {}, {}, dir / "a.txt", "", nullptr, {}, nullptr};
    job.options.max_length = 5;
    job.options.stride = stride;
    double nll = 0;
    int64_t tokens = 0, reached = 0;
    const double V = static_cast<double>(model.stack.vocabulary), log_z = std::log(std::exp(5.0) + V - 1);
    for (int64_t begin = 0; reached < n; begin += stride) {
      const int64_t end = std::min(begin + 5, n);
      int64_t sum = 0;
      for (int64_t t = begin; t < end; ++t) {  // positions begin anew in each window
        if (t > begin && t >= reached) {
          nll += log_z - (sum % model.stack.vocabulary == ids[static_cast<size_t>(t)] ? 5 : 0);
          ++tokens;
        }
        sum += (ids[static_cast<size_t>(t)] + 1) * (t - begin + 1);
      }
      reached = end;
    }
    const TaskResult r = task->run(job);
    EXPECT_NEAR(r.scores.at(1).value, nll / static_cast<double>(tokens), 1e-6) << stride;
    EXPECT_EQ(r.counts.at("tokens").as_int(), tokens);
    EXPECT_EQ(tokens, stride == 5 ? n - (n + 4) / 5 : n - 1);
  }
}

}  // namespace
}  // namespace statera
