// Reading message files and JSONL requests into conversations.
#include <set>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "text/conversation.h"

namespace statera {
namespace {

constexpr uint64_t kMaxFileBytes = 1u << 30;  // data: URLs make message files large

const Json& messages_of(const Json& json, std::string_view where) {
  if (!json.is_object()) return json;
  const Json* messages = json.get("messages");
  if (!messages) throw Error(ErrorKind::usage, std::string(where) + ": an object without \"messages\"");
  return *messages;
}

std::vector<std::string> media_list(const Json& line, std::string_view key) {
  std::vector<std::string> out;
  const Json* list = line.get(key);
  if (!list) return out;
  if (!list->is_array()) throw Error(ErrorKind::usage, std::string(key) + ": expected a list");
  for (const Json& item : list->as_array()) {
    if (!item.is_string()) throw Error(ErrorKind::usage, std::string(key) + ": expected a list of paths or URLs");
    out.push_back(item.as_string());
  }
  return out;
}

Conversation conversation_of(const Json& line) {
  const Json* messages = line.get("messages");
  const Json* prompt = line.get("prompt");
  if (!messages == !prompt) throw Error(ErrorKind::usage, messages ? "both messages and prompt" : "neither messages nor prompt");
  const auto images = media_list(line, "images");
  const auto videos = media_list(line, "videos");
  if (prompt) {
    if (!prompt->is_string()) throw Error(ErrorKind::usage, "prompt: expected a text");
    return Conversation::user(prompt->as_string(), images, videos);
  }
  if (!images.empty() || !videos.empty()) throw Error(ErrorKind::usage, "images and videos go with prompt; in messages they are items of the content");
  Conversation out = Conversation::from_json(*messages, "messages");
  if (out.empty()) throw Error(ErrorKind::usage, "messages: an empty list");
  return out;
}

Request request_of(const Json& line, int64_t number) {
  if (!line.is_object()) throw Error(ErrorKind::usage, "expected an object");
  Request out;
  const Json* id = line.get("id");
  if (id && !id->is_string() && !id->is_int()) throw Error(ErrorKind::usage, "id: expected a text or an integer");
  out.id = id ? *id : Json(number);
  out.conversation = conversation_of(line);
  out.options = Json::object();
  for (const auto& [key, value] : line.as_object()) {
    if (key != "id" && key != "messages" && key != "prompt" && key != "images" && key != "videos") out.options.set(key, value);
  }
  return out;
}

}  // namespace

std::vector<Conversation> conversations_from_json(const Json& json, std::string_view where) {
  const Json& list = messages_of(json, where);
  if (!list.is_array() || list.as_array().empty()) {
    throw Error(ErrorKind::usage, std::string(where) + ": expected a list of messages that is not empty");
  }
  const Json& first = list.as_array().front();
  // One conversation or a batch: element 0 decides, as in the reference. A batch may also hold {"messages": [...]} objects.
  if (first.is_object() && !first.has("messages")) return {Conversation::from_json(list, where)};
  std::vector<Conversation> out;
  for (const Json& entry : list.as_array()) {
    const std::string place = std::string(where) + ": conversation " + std::to_string(out.size());
    out.push_back(Conversation::from_json(messages_of(entry, place), place));
    if (out.back().empty()) throw Error(ErrorKind::usage, place + ": an empty list");
  }
  return out;
}

std::vector<Conversation> read_conversations(const std::string& path) {
  return conversations_from_json(Json::read_file(path, kMaxFileBytes), path);
}

std::vector<Request> requests_from_text(std::string_view text, std::string_view where) {
  std::vector<Request> out;
  std::set<std::string> seen;
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == text.npos ? std::string_view() : text.substr(end + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const std::string place = "line " + std::to_string(number);
    Request request = with_context(where, [&] {
      const Json json = Json::parse(line, place);
      return with_context(place, [&] { return request_of(json, number); });
    });
    if (!seen.insert(request.id.dump()).second) {
      throw Error(ErrorKind::usage, std::string(where) + ": " + place + ": id " + request.id.dump() + " occurs twice");
    }
    out.push_back(std::move(request));
  }
  return out;
}

std::vector<Request> read_requests(const std::string& path) { return requests_from_text(read_file(path, kMaxFileBytes), path); }

}  // namespace statera
