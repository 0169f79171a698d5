// sample: from an item of a data file (messages, or a conversation as LLaVA and ShareGPT store them) to what the model is trained on:
// the prompt that generation would read, with the assistant's tokens marked as learned. What is wrong with an item is told by kind.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "image/media.h"
#include "run/prompt.h"
#include "train/batch.h"

namespace statera {

enum class Fault { broken, malformed, empty, no_answer, placeholders, missing_file, unreadable_media, over_long };
constexpr int kFaults = 8;
std::string_view to_string(Fault fault);  // "broken JSON", ...

// An item that cannot be trained on; the message names its place and the reason.
class BadItem : public Error {
 public:
  BadItem(Fault fault, Error error) : Error(std::move(error)), fault_(fault) {}
  Fault fault() const { return fault_; }

 private:
  Fault fault_;
};

struct SampleOptions {
  MediaOptions media;
  int64_t max_len = 2048;  // tokens; text behind is cut off, pictures are not
};

// {"messages": [...]}, a list of messages, or {"conversations": [...], "image": ..., "video": ...}. Opens no pictures. BadItem.
Conversation training_conversation(const Json& item, const std::string& where);

// BadItem for the first local file that the conversation names and that is not there.
void check_media_files(const Conversation& messages, const FetchOptions& fetch, const std::string& where);

// BadItem for whatever keeps the conversation from becoming a sample.
TrainSample make_train_sample(const Conversation& messages, const PromptParts& parts, const SampleOptions& options, const std::string& where);

}  // namespace statera
