// Both models over each prompt, the head in pieces of rows (logits of a large vocabulary are the largest tensors here).
#include "api/compare.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "api/guard.h"
#include "api/load.h"
#include "api/loaded.h"
#include "base/error.h"
#include "base/strings.h"
#include "run/prompt.h"

namespace statera {
namespace {

constexpr int64_t kRows = 64;

// Written for this purpose: prose, an explanation, code, numbers, two other languages.
constexpr const char* kTexts[] = {
    "The lighthouse keeper wrote one line a day. On Monday the wind came from the north and the gulls stayed on the rocks; on Tuesday a "
    "ship passed without answering his lamp, and he wondered whether anyone aboard had been awake.",
    "A heat pump does not make heat, it moves it. A fluid that boils at a low temperature takes up warmth outside, is compressed until it "
    "is hotter than the room, and gives the warmth off inside; the compressor pays for the way uphill.",
    "def median(values):\n    ordered = sorted(values)\n    middle = len(ordered) // 2\n    if len(ordered) % 2:\n        return "
    "ordered[middle]\n"
    "    return (ordered[middle - 1] + ordered[middle]) / 2\n",
    "A train leaves at 9:40 and covers 84 km in 56 minutes. Its average speed is 84 / 56 * 60 = 90 km/h, so after another 30 km it is "
    "10:56.",
    "Der Fluss war im Sommer so flach, dass die Kinder hinüberwaten konnten, und im Frühjahr so breit, dass niemand mehr das andere Ufer "
    "erkannte.",
    "Le boulanger ouvre à six heures ; à sept heures il ne reste plus de croissants, mais personne ne s'en plaint, car le pain est encore "
    "chaud.",
};

struct Named {
  std::string name;
  Prompt prompt;
};

std::vector<Named> prompts_of(const CompareOptions& options, const Model& model) {
  const PromptParts parts = read_prompt_parts(options.a, model);
  std::vector<Named> out;
  for (const std::string& file : options.messages) {
    const auto conversations = read_conversations(file);
    PromptOptions how;
    how.media = media_options(options.media, folder_of(file));
    for (size_t i = 0; i < conversations.size(); ++i) {
      const std::string name = file + (conversations.size() > 1 ? " #" + std::to_string(i + 1) : "");
      out.push_back({name, with_context(name, [&] { return make_prompt(conversations[i], parts, how); })});
    }
  }
  if (!out.empty()) return out;
  PromptOptions how;
  how.raw = true;
  for (const char* text : kTexts) {
    const std::string_view start = std::string_view(text).substr(0, 30);
    std::string name(start.substr(0, complete_utf8_prefix(start)));
    std::replace(name.begin(), name.end(), '\n', ' ');
    out.push_back({std::move(name), make_prompt(Conversation::user(text), parts, how)});
  }
  return out;
}

// Normalised hidden rows [T, H].
at::Tensor hidden_of(const Model& model, ModelInputs inputs) {
  Pass pass = make_pass(model, inputs);
  return forward_hidden(model, inputs, pass);
}

Divergence measure(const Model& a, const Model& b, const Named& named) {
  const at::Tensor ha = hidden_of(a, named.prompt.inputs), hb = hidden_of(b, named.prompt.inputs);
  Divergence out;
  out.prompt = named.name;
  out.positions = ha.size(0);
  for (int64_t from = 0; from < out.positions; from += kRows) {
    const int64_t to = std::min(out.positions, from + kRows);
    Pass none;
    const at::Tensor la = a.language().head(ha.slice(0, from, to), none).to(at::kFloat),
                     lb = b.language().head(hb.slice(0, from, to), none).to(at::kFloat);
    if (la.size(1) != lb.size(1))
      throw Error(ErrorKind::mismatch, fmt::format("vocabularies of {} and {} tokens cannot be compared", la.size(1), lb.size(1)));
    const at::Tensor pa = at::log_softmax(la, 1, at::kDouble), pb = at::log_softmax(lb, 1, at::kDouble);
    const at::Tensor kl = (pa.exp() * (pa - pb)).sum(1);
    out.kl_sum += kl.sum().item<double>();
    out.kl_max = std::max(out.kl_max, kl.max().item<double>());
    out.agreed += la.argmax(1).eq(lb.argmax(1)).sum().item<int64_t>();
    out.logit_max = std::max(out.logit_max, (la - lb).abs().max().item<double>());
  }
  return out;
}

CompareReport run(const CompareOptions& options, const ProgressSink& sink) {
  c10::InferenceMode no_gradients;
  const auto start = std::chrono::steady_clock::now();
  const LoadOptions load{options.dtype};
  const Loaded a = open_model(options.a, load), b = open_model(options.b, load);
  const std::vector<Named> prompts = prompts_of(options, *a.model);
  CompareReport report;
  report.a = options.a;
  report.b = options.b;
  int64_t tokens = 0;
  for (const Named& p : prompts) tokens += p.prompt.inputs.input_ids.size(0);
  Progress progress("compare", static_cast<double>(tokens), "tokens", sink);
  for (const Named& p : prompts) {
    report.prompts.push_back(measure(*a.model, *b.model, p));
    report.total.add(report.prompts.back());
    progress.advance(static_cast<double>(report.prompts.back().positions), p.name);
  }
  progress.finish();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace

CompareReport compare(const CompareOptions& options, const ProgressSink& progress) {
  return guarded([&] { return run(options, progress); });
}

void Divergence::add(const Divergence& other) {
  positions += other.positions;
  kl_sum += other.kl_sum;
  kl_max = std::max(kl_max, other.kl_max);
  agreed += other.agreed;
  logit_max = std::max(logit_max, other.logit_max);
}

Json Divergence::to_json() const {
  Json j = Json::object();
  if (!prompt.empty()) j.set("prompt", prompt);
  j.set("positions", positions);
  j.set("kl_mean", kl_mean());
  j.set("kl_max", kl_max);
  j.set("top1_agreement", agreement());
  j.set("logit_max_difference", logit_max);
  return j;
}

Json CompareReport::to_json() const {
  Json j = total.to_json();
  j.set("a", a);
  j.set("b", b);
  Json list = Json::array();
  for (const Divergence& d : prompts) list.push(d.to_json());
  j.set("prompts", std::move(list));
  j.set("seconds", seconds);
  return j;
}

std::string CompareReport::to_text() const {
  std::string t = fmt::format("{:<32}{:>10}{:>12}{:>12}{:>8}{:>14}\n", "prompt", "positions", "KL mean", "KL max", "top-1", "max |dlogit|");
  auto line = [&](const std::string& name, const Divergence& d) {
    t += fmt::format("{:<32}{:>10}{:>12.5f}{:>12.5f}{:>7.1f}%{:>14.4f}\n", name, d.positions, d.kl_mean(), d.kl_max, 100 * d.agreement(),
                     d.logit_max);
  };
  for (const Divergence& d : prompts) line(d.prompt, d);
  line("all", total);
  return t + fmt::format("KL({} || {}) in nats; {}\n", a, b, human_seconds(seconds));
}

}  // namespace statera
