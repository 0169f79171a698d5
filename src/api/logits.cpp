// See logits.h.
#include "api/logits.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <chrono>

#include "api/guard.h"
#include "api/load.h"
#include "api/loaded.h"
#include "api/paths.h"
#include "base/error.h"
#include "base/strings.h"
#include "ckpt/forward_inputs.h"
#include "ckpt/safetensors_write.h"
#include "nn/kv_cache.h"
#include "run/prompt.h"

namespace statera {
namespace {

// Outputs of the language blocks; the last one is left out (it is followed by the final norm).
class HiddenTap : public Tap {
 public:
  HiddenTap(const LanguageStack& stack, std::vector<at::Tensor>& out) : stack_(stack), out_(out) {}
  void block(const Stack& stack, int64_t i, const at::Tensor& h, const Pass&) override {
    if (&stack == &stack_ && i + 1 < stack.blocks()) out_.push_back(h);
  }

 private:
  const LanguageStack& stack_;
  std::vector<at::Tensor>& out_;
};

struct Forward {
  at::Tensor logits;               // f32 [T, V]
  std::vector<at::Tensor> hidden;  // [T, H]
};

Forward forward(const Model& model, ModelInputs& inputs, KvForm kv_form, bool keep_hidden) {
  Forward out;
  const LanguageStack& language = model.language();
  HiddenTap tap(language, out.hidden);
  Pass pass = make_pass(model, inputs);
  const std::vector<KvCache> caches = caches_for(pass, language.blocks(), kv_form);
  auto visual = model.see(inputs);
  if (keep_hidden) pass.tap = &tap;
  at::Tensor h = language.enter(inputs.input_ids, visual ? &*visual : nullptr, pass);
  if (keep_hidden) out.hidden.push_back(h);
  h = language.leave(run_blocks(language, h, pass), pass);
  if (keep_hidden) out.hidden.push_back(h);
  out.logits = language.head(h, pass);
  return out;
}

ForwardInputs inputs_of(const LogitsOptions& options, const Model& model) {
  if (options.messages.empty() == options.inputs.empty()) throw Error(ErrorKind::usage, "give either --messages or --inputs");
  if (!options.inputs.empty()) return read_forward_inputs(options.inputs);
  auto conversations = read_conversations(options.messages);
  if (conversations.size() != 1) {
    throw Error(ErrorKind::usage, fmt::format("{}: holds {} conversations; one is expected", options.messages, conversations.size()));
  }
  PromptOptions how;
  how.media = media_options(options.media, folder_of(options.messages));
  ForwardInputs out;
  out.inputs =
      with_context(options.messages, [&] { return make_prompt(conversations[0], read_prompt_parts(options.model, model), how).inputs; });
  out.length = out.inputs.input_ids.size(0);
  return out;
}

LogitsReport run(const LogitsOptions& options) {
  require_folder_of(options.out);
  const KvForm kv_form = parse_kv_form(options.kv_cache);
  c10::InferenceMode no_gradients;
  LoadOptions load;
  load.dtype = options.dtype;
  load.compute = options.compute;
  load.vision_attention = options.vision_attention;
  Loaded loaded = open_model(options.model, load);
  const Model& model = *loaded.model;
  ForwardInputs in = inputs_of(options, model);
  auto start = std::chrono::steady_clock::now();
  Forward result = forward(model, in.inputs, kv_form, options.hidden);
  LogitsReport report;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  NamedTensors tensors{{"logits", in.unflatten(result.logits.to(at::kFloat))}};
  for (size_t i = 0; i < result.hidden.size(); ++i) {
    tensors.emplace_back("hidden_" + std::to_string(i), in.unflatten(result.hidden[i].to(at::kFloat)));
  }
  write_safetensors(options.out, tensors);
  report.out = options.out;
  report.sequences = in.batch;
  report.tokens = result.logits.size(0);
  report.vocabulary = result.logits.size(1);
  for (size_t s = 0; s + 1 < in.inputs.bounds.size(); ++s) {
    report.next.push_back(result.logits[in.inputs.bounds[s + 1] - 1].argmax().item<int64_t>());
  }
  return report;
}

}  // namespace

LogitsReport logits(const LogitsOptions& options) {
  return guarded([&] { return run(options); });
}

Json LogitsReport::to_json() const {
  Json out = Json::object();
  out.set("out", this->out);
  out.set("sequences", sequences);
  out.set("tokens", tokens);
  out.set("vocabulary", vocabulary);
  out.set("next", Json(next));
  out.set("seconds", seconds);
  return out;
}

std::string LogitsReport::to_text() const {
  return fmt::format("{}\n{} tokens in {} sequence{}, vocabulary {}, {:.3f} s; next token {}", out, tokens, sequences,
                     sequences == 1 ? "" : "s", vocabulary, seconds, shape_string(next));
}

}  // namespace statera
