// Conversation: the messages of a request as Json, checked and with their media items found; and readers for message files and
// for the JSONL requests of `generate`. Values of media keys (fps, max_pixels, ...) are the image layer's business.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace statera {

class Conversation {
 public:
  Conversation() : messages_(Json::array()) {}
  // A list of {role, content}. role: system, user, assistant, tool (or developer, which becomes system). content: a string, or a list of
  // items; null or absent only beside tool_calls, and becomes "". Every other key is kept. Spellings of other interfaces become one:
  //   {type: image_url, image_url: {url, detail}} -> {type: image, image: url, detail};  video_url alike;
  //   {type: image, url|path: p} -> {type: image, image: p};  base64: b -> image: "data:image;base64,b".
  // Error(usage) reads "WHERE: message 2: item 0: what" (both counted from 0).
  static Conversation from_json(const Json& messages, std::string_view where);
  // One user turn: images, then videos, then the text, as the Qwen examples order them. Without media the content is the text itself.
  static Conversation user(std::string_view text, const std::vector<std::string>& images = {}, const std::vector<std::string>& videos = {});

  const Json& messages() const { return messages_; }
  bool empty() const { return messages_.as_array().empty(); }
  // Appends one message, checked alike.
  void add(const Json& message, std::string_view where);

  // The vision items in order of appearance, tool messages included. Pointers live as long as this is not changed.
  std::vector<const Json*> media() const;

 private:
  Json messages_;
};

// What an item is to the vision pipeline. The key decides: image or image_url, then video; `type` only says that one must be there.
enum class MediaKind { none, image, video };
MediaKind media_kind(const Json& item);
// The payload of a vision item: `image`, else `image_url`, else `video`. A string, or for videos a list of strings.
const Json& media_payload(const Json& item);

// A message file: a list of messages, {"messages": [...]}, or a list of such lists (a batch). At least one conversation.
std::vector<Conversation> read_conversations(const std::string& path);
std::vector<Conversation> conversations_from_json(const Json& json, std::string_view where);

struct Request {
  Json id;                    // the "id" of the line (string or integer), else the line's number
  Conversation conversation;
  Json options;               // object: the other keys of the line
};

// One request a line: {"id"?, "messages": [...]} or {"id"?, "prompt": text, "images"?: [...], "videos"?: [...]}, and options beside.
// Empty lines are skipped. Errors read "PATH: line 3: what"; an id may occur once.
std::vector<Request> read_requests(const std::string& path);
std::vector<Request> requests_from_text(std::string_view text, std::string_view where);

}  // namespace statera
