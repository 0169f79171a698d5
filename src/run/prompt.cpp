// See prompt.h.
#include "run/prompt.h"

#include <ATen/ops/tensor.h>

#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace statera {
namespace {

std::string raw_text(const Conversation& conversation) {
  std::string out;
  for (const Json& message : conversation.messages().as_array()) {
    const Json& content = message.at("content");
    if (content.is_string()) {
      out += content.as_string();
    } else {
      throw Error(ErrorKind::usage, "a raw prompt takes text only, no list of items");
    }
  }
  return out;
}

MediaInputs load(const std::vector<const Json*>& items, const PromptParts& parts, const PromptOptions& options) {
  if (items.empty()) return {};
  if (!parts.model->vision())
    throw Error(ErrorKind::usage, parts.directory + ": this model reads text only; it cannot be given images or videos");
  if (!parts.processor)
    throw Error(ErrorKind::not_found, parts.directory + ": the checkpoint has no preprocessor_config.json, which images and videos need");
  return load_media(items, *parts.processor, options.media);
}

MediaSizes sizes_of(const MediaInputs& media) { return {media.image_grid_thw, media.video_grid_thw, media.timestamps}; }

// Rows that the vision tower will give for the media.
int64_t features_of(const MediaInputs& media, const QwenProcessor& processor) {
  int64_t rows = 0;
  for (const auto& [t, h, w] : media.image_grid_thw)
    rows += t * h * w / (processor.image.layout.merge_size * processor.image.layout.merge_size);
  for (const auto& [t, h, w] : media.video_grid_thw)
    rows += t * h * w / (processor.video.layout.merge_size * processor.video.layout.merge_size);
  return rows;
}

void check_placeholders(const Prompt& prompt, const MediaInputs& media, const PromptParts& parts) {
  if (!parts.model->vision()) return;
  int64_t held = parts.model->token_kinds(prompt.inputs.input_ids).sum().item<int64_t>();
  int64_t given = parts.processor ? features_of(media, *parts.processor) : 0;
  if (held == given) return;
  throw Error(ErrorKind::mismatch, "the prompt holds " + std::to_string(held) + " image and video placeholder tokens, the media need " +
                                       std::to_string(given) + " (is a placeholder written out in the text?)");
}

}  // namespace

std::optional<Tokenizer> read_tokenizer(const std::string& directory) {
  for (const char* name : {"tokenizer.json", "vocab.json", "tokenizer_config.json"}) {
    if (is_file(directory + "/" + name)) return Tokenizer::from_directory(directory);
  }
  return std::nullopt;
}

PromptParts read_prompt_parts(const std::string& directory, const Model& model) { return read_prompt_parts(directory, model, read_tokenizer(directory)); }

PromptParts read_prompt_parts(const std::string& directory, const Model& model, std::optional<Tokenizer> tokenizer) {
  PromptParts parts;
  parts.directory = directory;
  parts.model = &model;
  parts.tokenizer = std::move(tokenizer);
  auto holds = [&](const char* name) { return is_file(directory + "/" + name); };
  if (ChatTemplate::in_directory(directory)) parts.chat_template = ChatTemplate::from_directory(directory);
  if (model.vision() && (holds("preprocessor_config.json") || holds("processor_config.json")))
    parts.processor = QwenProcessor::load(directory);
  return parts;
}

Prompt make_prompt(const Conversation& conversation, const PromptParts& parts, const PromptOptions& options) {
  if (!parts.tokenizer) throw Error(ErrorKind::not_found, parts.directory + ": the checkpoint has no tokenizer");
  if (!options.raw && !parts.chat_template)
    throw Error(ErrorKind::not_found, parts.directory + ": the checkpoint has no chat template; only raw prompts are possible");
  MediaInputs media = load(conversation.media(), parts, options);
  Prompt prompt;
  prompt.text = options.raw ? raw_text(conversation) : parts.chat_template->render(conversation.messages(), options.render);
  prompt.text = parts.model->expand_placeholders(prompt.text, sizes_of(media));
  // A chat template writes the special tokens itself.
  auto ids = parts.tokenizer->encode(prompt.text, /*add_special_tokens=*/options.raw);
  ModelInputs& in = prompt.inputs;
  in.input_ids = at::tensor(ids, at::TensorOptions(at::kLong));
  in.bounds = one_sequence(in.input_ids.size(0));
  in.pixel_values = media.pixel_values;
  in.image_grid_thw = media.image_grid_thw;
  in.pixel_values_videos = media.pixel_values_videos;
  in.video_grid_thw = media.video_grid_thw;
  in.second_per_grid_ts = media.second_per_grid_ts;
  check_placeholders(prompt, media, parts);
  in.position_ids = parts.model->positions(in).first;
  return prompt;
}

}  // namespace statera
