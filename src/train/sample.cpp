// See sample.h.
#include "train/sample.h"

#include <ATen/TensorOperators.h>

#include <algorithm>

#include "base/file.h"
#include "base/log.h"
#include "run/answer_mask.h"
#include "text/llava.h"

namespace statera {
namespace {

bool speaks(const Json& message) {
  if (message.get_string("role", "") != "assistant") return false;
  const Json* content = message.get("content");
  if (message.get("tool_calls")) return true;
  if (!content) return false;
  return content->is_string() ? !content->as_string().empty() : !content->as_array().empty();
}

BadItem bad(Fault fault, const std::string& where, const std::string& what) { return {fault, Error(ErrorKind::bad_file, where + ": " + what)}; }

Fault fault_of(const Error& e) {
  switch (e.kind()) {
    case ErrorKind::mismatch: return Fault::placeholders;
    case ErrorKind::not_found: return Fault::missing_file;
    case ErrorKind::usage: return Fault::malformed;
    default: return Fault::unreadable_media;
  }
}

// Text behind max_len goes; a picture cannot be cut.
void cut(TrainSample& s, const Model& model, int64_t max_len) {
  if (s.tokens() <= max_len) return;
  ModelInputs& in = s.inputs;
  const auto beyond = model.token_kinds(in.input_ids).slice(0, max_len).sum().item<int64_t>();
  if (beyond > 0) throw bad(Fault::over_long, s.where, std::to_string(s.tokens()) + " tokens, and its pictures reach beyond " + std::to_string(max_len));
  in.input_ids = in.input_ids.slice(0, 0, max_len).clone();
  in.position_ids = in.position_ids.slice(-1, 0, max_len).clone();
  in.bounds = one_sequence(max_len);
  s.learned_T = s.learned_T.slice(0, 0, max_len).clone();
}

}  // namespace

std::string_view to_string(Fault fault) {
  switch (fault) {
    case Fault::broken: return "broken JSON";
    case Fault::malformed: return "no conversation";
    case Fault::empty: return "empty conversation";
    case Fault::no_answer: return "nothing to learn";
    case Fault::placeholders: return "marks and media differ";
    case Fault::missing_file: return "missing file";
    case Fault::unreadable_media: return "unreadable media";
    case Fault::over_long: return "over-long";
  }
  throw Bug("unnamed Fault");
}

Conversation training_conversation(const Json& item, const std::string& where) {
  const bool list = item.is_array() || item.has("messages");
  if (!list && !item.has("conversations")) throw bad(Fault::malformed, where, "neither messages nor conversations");
  Conversation out;
  try {
    out = list ? Conversation::from_json(item.is_array() ? item : item.at("messages"), where) : llava_conversation(item, where);
  } catch (const Error& e) {
    throw BadItem(e.kind() == ErrorKind::mismatch ? Fault::placeholders : Fault::malformed, e);
  }
  if (out.empty()) throw bad(Fault::empty, where, "an empty conversation");
  const auto& messages = out.messages().as_array();
  if (!std::any_of(messages.begin(), messages.end(), speaks)) throw bad(Fault::no_answer, where, "the assistant never speaks");
  return out;
}

void check_media_files(const Conversation& messages, const FetchOptions& fetch, const std::string& where) {
  auto look = [&](const std::string& source) {
    if (is_url(source) || is_data_uri(source)) return;
    const std::string path = local_path(source, fetch);
    if (!is_file(path)) throw bad(Fault::missing_file, where, path + ": no such file");
  };
  for (const Json* item : messages.media()) {
    const Json& payload = media_payload(*item);
    if (payload.is_string()) {
      look(payload.as_string());
    } else {
      for (const Json& frame : payload.as_array()) look(frame.as_string());
    }
  }
}

TrainSample make_train_sample(const Conversation& messages, const PromptParts& parts, const SampleOptions& options, const std::string& where) {
  TrainSample s;
  s.where = where;
  try {
    PromptOptions how;
    how.media = options.media;
    how.render.add_generation_prompt = false;
    Prompt prompt = make_prompt(messages, parts, how);
    std::vector<std::string> notes;
    s.learned_T = answer_mask(messages, parts, prompt, notes);
    for (const std::string& note : notes) log_warn_once(where + ": " + note);
    s.inputs = std::move(prompt.inputs);
  } catch (const Error& e) {
    throw BadItem(fault_of(e), e.within(where));
  }
  cut(s, *parts.model, options.max_len);
  if (s.labels() == 0) throw bad(Fault::no_answer, where, "no learned token within " + std::to_string(options.max_len) + " tokens");
  return s;
}

}  // namespace statera
