// prompt: from a conversation to what the model reads: template, media, placeholder expansion, ids, positions. No generation.
#pragma once

#include <optional>
#include <string>

#include "image/media.h"
#include "nn/model.h"
#include "text/chat_template.h"
#include "text/conversation.h"
#include "text/tokenizer.h"

namespace statera {

// What turns a conversation into inputs; what a checkpoint does not have is absent.
struct PromptParts {
  std::string directory;  // names the checkpoint in errors
  const Model* model = nullptr;
  std::optional<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::optional<QwenProcessor> processor;
};

// Tokenizer, template and processor of a checkpoint folder, as far as they are there. A file that is there and broken is its reader's
// Error.
PromptParts read_prompt_parts(const std::string& directory, const Model& model);
// The same with what read_tokenizer() gave, which needs no model: for whoever reads both at a time.
PromptParts read_prompt_parts(const std::string& directory, const Model& model, std::optional<Tokenizer> tokenizer);
std::optional<Tokenizer> read_tokenizer(const std::string& directory);

struct PromptOptions {
  RenderOptions render;
  MediaOptions media;
  bool raw = false;  // no template: the texts of the messages one after another, with the tokenizer's own BOS
};

struct Prompt {
  std::string text;    // rendered and expanded
  ModelInputs inputs;  // one sequence, position_ids filled
};

// Errors: usage for media given to a text model or a conversation the template refuses; not_found when tokenizer, template or
// processor are needed and absent; mismatch when the placeholders of the prompt are not those of the media; and those of load_media.
Prompt make_prompt(const Conversation& conversation, const PromptParts& parts, const PromptOptions& options = {});

}  // namespace statera
