// Files to texts, texts to the trainer of text/, its result to a folder.
#include "api/tokenizer_train.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "api/guard.h"
#include "api/output_folder.h"
#include "base/embedded.h"
#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"
#include "eval/documents.h"
#include "quant/calib/items.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tokenizer_trainer.h"

namespace statera {

extern const EmbeddedFile kEmbeddedChatTemplate[];  // generated from examples/tiny-qwen3-vl

namespace {

constexpr size_t kSampleBytes = 1 << 20;  // of text that shows how well the vocabulary fits

std::string template_source(const TokenizerTrainOptions& o) {
  if (!o.chat_template.empty()) return read_file(o.chat_template, 16u << 20);
  for (const char* token : {"<|im_start|>", "<|im_end|>"}) {
    if (!o.special.empty() && std::find(o.special.begin(), o.special.end(), token) == o.special.end())
      throw Error(ErrorKind::usage, std::string("--special: without ") + token + " the chat template must be your own (--chat-template)");
  }
  return std::string(embedded_file(kEmbeddedChatTemplate, "chat_template.jinja"));
}

TokenizerSpec spec_of(const TokenizerTrainOptions& o) {
  TokenizerSpec spec;
  spec.vocab_size = o.vocab_size.value_or(0);  // 0 is refused below
  spec.min_frequency = o.min_frequency;
  if (!o.special.empty()) spec.special = o.special;
  for (const auto& [flag, token] : {std::pair("--eos", o.eos), std::pair("--pad", o.pad)}) {
    if (std::find(spec.special.begin(), spec.special.end(), token) == spec.special.end()) {
      throw Error(ErrorKind::usage,
                  std::string(flag) + ": \"" + token + "\" is none of the special tokens" + did_you_mean(token, spec.special));
    }
  }
  return spec;
}

struct Job {
  ChatTemplate chat;
  TokenizerTrainer trainer;
  TokenizerTrainReport report;
  std::string sample;
};

void read_file_into(Job& job, const std::string& given, Progress& progress, const std::atomic<bool>* cancel) {
  const auto [path, field] = split_field(given);
  const ItemReading how{field, false};
  const ItemFile file(path, how);
  const double bytes_each = static_cast<double>(file_size(path)) / static_cast<double>(file.size());
  RenderOptions render;
  render.add_generation_prompt = false;
  for (size_t i = 0; i < file.size(); ++i) {
    if (cancel && *cancel) throw Error(ErrorKind::interrupted, "interrupted");
    const std::string where = file.where(i);
    const auto item = read_item(file.item(i), how, where);
    const auto* conversation = std::get_if<Conversation>(&item);
    ++(conversation ? job.report.conversations : job.report.texts);
    const std::string text =
        conversation ? with_context(where, [&] { return job.chat.render(conversation->messages(), render); }) : std::get<std::string>(item);
    with_context(where, [&] { job.trainer.add(text); });
    const std::string_view head = std::string_view(text).substr(0, kSampleBytes - std::min(kSampleBytes, job.sample.size()));
    job.sample += head.substr(0, complete_utf8_prefix(head));
    progress.advance(bytes_each, path);
  }
  ++job.report.files;
}

}  // namespace

TokenizerTrainReport tokenizer_train(const TokenizerTrainOptions& options, const ProgressSink& sink, const std::atomic<bool>* cancel) {
  return guarded([&] {
    const auto start = std::chrono::steady_clock::now();
    const TokenizerSpec spec = spec_of(options);
    const std::string source = template_source(options);
    const Json config = trained_tokenizer_config(spec, options.eos, options.pad);
    const std::string name = options.chat_template.empty() ? "chat_template.jinja" : options.chat_template;
    Job job{ChatTemplate::from_source(source, name, Json::object()), TokenizerTrainer(spec), {}, {}};
    OutputFolder folder(options.out, options.overwrite, "tokenizer.json", "tokenizer");
    double total = 0;
    for (const std::string& file : options.files) total += static_cast<double>(file_size(split_field(file).first));
    Progress progress("tokenizer train", total, "bytes", sink);
    for (const std::string& file : options.files) read_file_into(job, file, progress, cancel);
    const std::string json = job.trainer.finish();
    const Tokenizer tokenizer = Tokenizer::from_blob(json, config);
    write_file_atomic(folder.path() + "/tokenizer.json", json);
    write_file_atomic(folder.path() + "/tokenizer_config.json", config.dump(2) + "\n");
    write_file_atomic(folder.path() + "/chat_template.jinja", source);
    folder.commit();
    progress.finish();
    TokenizerTrainReport& r = job.report;
    r.out = options.out;
    r.vocab_size = tokenizer.vocab_size();
    r.bytes = job.trainer.bytes();
    const size_t tokens = tokenizer.encode(job.sample, false).size();
    r.bytes_per_token = static_cast<double>(job.sample.size()) / static_cast<double>(std::max<size_t>(tokens, 1));
    for (const std::string& token : spec.special) r.special.emplace_back(token, *tokenizer.token_id(token));
    r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return r;
  });
}

Json TokenizerTrainReport::to_json() const {
  Json j = Json::object(), ids = Json::object();
  for (const auto& [token, id] : special) ids.set(token, id);
  j.set("out", out);
  j.set("vocab_size", vocab_size);
  j.set("files", files);
  j.set("texts", texts);
  j.set("conversations", conversations);
  j.set("bytes", bytes);
  j.set("bytes_per_token", bytes_per_token);
  j.set("special", std::move(ids));
  j.set("seconds", seconds);
  return j;
}

std::string TokenizerTrainReport::to_text() const {
  std::string text = fmt::format("{}: {} tokens from {} texts and {} conversations ({}) in {}, {:.2f} bytes a token\n", out, vocab_size, texts,
                                 conversations, human_bytes(static_cast<double>(bytes)), human_seconds(seconds), bytes_per_token);
  for (const auto& [token, id] : special) text += fmt::format("{:>8} {}\n", id, token);
  return text;
}

}  // namespace statera
