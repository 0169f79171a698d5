// Checking and normalising of messages. Reading requests: requests.cpp.
#include "text/conversation.h"

#include <array>

#include "base/error.h"

namespace statera {
namespace {

[[noreturn]] void fail(std::string_view what) { throw Error(ErrorKind::usage, std::string(what)); }

std::string type_of(const Json& item) {
  const Json* type = item.find("type");
  return type && type->is_string() ? type->as_string() : "";
}

// The media name behind a type: image for image and image_url, video for video and video_url, else "".
std::string_view media_name(std::string_view type) {
  if (type == "image" || type == "image_url") return "image";
  if (type == "video" || type == "video_url") return "video";
  return "";
}

// {image_url: {url: u, detail: d}} -> {type: image, image: u, detail: d}, in place and in order.
void flatten_url(Json& item, std::string_view key, std::string_view name) {
  Json* wrapped = item.find(key);
  if (!wrapped) return;
  const bool is_object = wrapped->is_object();
  // A flat image_url is the pipeline's own spelling; a flat video_url is nobody's key but clear.
  if (!is_object && (name == "image" || !wrapped->is_string())) return;
  const Json inner = *wrapped;
  const Json* url = is_object ? inner.get("url") : &inner;
  if (!url || !url->is_string()) fail(std::string(key) + ": expected {\"url\": text}");
  if (item.has(name)) fail("both " + std::string(name) + " and " + std::string(key));
  Json out = Json::object();
  for (const auto& [k, v] : item.as_object()) {
    if (k == key) {
      out.set(name, *url);
    } else if (k != "type") {
      out.set(k, v);
    } else {
      out.set(k, name);
    }
  }
  out.set("type", name);
  if (is_object) {
    for (const auto& [k, v] : inner.as_object()) {
      if (k != "url" && !out.has(k)) out.set(k, v);
    }
  }
  item = std::move(out);
}

// {type: image, url|path|base64: x} -> {type: image, image: x}.
void name_payload(Json& item) {
  const std::string_view name = media_name(type_of(item));
  if (name.empty()) return;
  for (std::string_view key : {"image", "image_url", "video"}) {
    if (item.has(key)) return;
  }
  for (std::string_view key : {"url", "path", "base64"}) {
    const Json* value = item.get(key);
    if (!value || !value->is_string() || (key == "base64" && name == "video")) continue;
    Json payload = key == "base64" ? Json("data:image;base64," + value->as_string()) : *value;
    item.erase(key);
    item.set(name, std::move(payload));
    return;
  }
}

void check_payload(const Json& item, MediaKind kind) {
  const Json* payload = nullptr;
  std::string_view used;
  for (std::string_view key : {"image", "image_url", "video"}) {
    payload = item.find(key);
    used = key;
    if (payload) break;
  }
  if (!payload) fail("type \"" + type_of(item) + "\" without an image, image_url or video key");
  if (payload->is_string()) {
    if (payload->as_string().empty()) fail(std::string(used) + " is empty");
    return;
  }
  if (kind == MediaKind::image) fail(std::string(used) + ": expected a path, URL or data: text");
  if (!payload->is_array()) fail("video: expected a path or URL, or a list of image sources");
  if (payload->as_array().empty()) fail("video: an empty list of frames");
  for (const Json& frame : payload->as_array()) {
    if (!frame.is_string()) fail("video: a frame is not a path, URL or data: text");
  }
}

Json normal_item(const Json& given) {
  if (!given.is_object()) fail("expected an object");
  Json item = given;
  if (const Json* type = item.find("type"); type && !type->is_string()) fail("type: expected a text");
  flatten_url(item, "image_url", "image");
  flatten_url(item, "video_url", "video");
  name_payload(item);
  const MediaKind kind = media_kind(item);
  if (kind != MediaKind::none || !media_name(type_of(item)).empty()) {
    check_payload(item, kind);
  } else if (const Json* text = item.find("text"); text && !text->is_string()) {
    fail("text: expected a text");
  } else if (!text && type_of(item) == "text") {
    fail("type \"text\" without a text key");
  }
  return item;
}

Json normal_content(const Json& content) {
  if (content.is_string()) return content;
  if (!content.is_array()) fail("content: expected a text or a list of items");
  Json out = Json::array();
  size_t index = 0;
  for (const Json& item : content.as_array()) {
    out.push(with_context("item " + std::to_string(index++), [&] { return normal_item(item); }));
  }
  return out;
}

Json normal_message(const Json& given) {
  if (!given.is_object()) fail("expected an object with role and content");
  Json message = given;
  const Json* role = message.find("role");
  if (!role || !role->is_string()) fail("role: expected a text");
  static constexpr std::array<std::string_view, 5> kRoles = {"system", "user", "assistant", "tool", "developer"};
  bool known = false;
  for (std::string_view name : kRoles) known = known || name == role->as_string();
  if (!known) fail("role \"" + role->as_string() + "\" is none of system, user, assistant, tool");
  if (role->as_string() == "developer") message.set("role", "system");
  const Json* content = message.get("content");
  if (!content && !message.get("tool_calls")) fail("content: missing");
  message.set("content", content ? normal_content(*content) : Json(""));
  return message;
}

Json typed_item(std::string_view name, std::string_view value) {
  Json item = Json::object();
  item.set("type", name);
  item.set(name, value);
  return item;
}

}  // namespace

MediaKind media_kind(const Json& item) {
  if (!item.is_object()) return MediaKind::none;
  if (item.has("image") || item.has("image_url")) return MediaKind::image;
  if (item.has("video")) return MediaKind::video;
  const std::string type = type_of(item);
  if (type == "image" || type == "image_url") return MediaKind::image;
  return type == "video" ? MediaKind::video : MediaKind::none;
}

const Json& media_payload(const Json& item) {
  for (std::string_view key : {"image", "image_url"}) {
    if (const Json* payload = item.find(key)) return *payload;
  }
  return item.at("video", "item");
}

Conversation Conversation::from_json(const Json& messages, std::string_view where) {
  Conversation out;
  if (!messages.is_array()) throw Error(ErrorKind::usage, std::string(where) + ": expected a list of messages");
  for (const Json& message : messages.as_array()) out.add(message, where);
  return out;
}

Conversation Conversation::user(std::string_view text, const std::vector<std::string>& images, const std::vector<std::string>& videos) {
  Json message = Json::object();
  message.set("role", "user");
  if (images.empty() && videos.empty()) {
    message.set("content", text);
  } else {
    Json items = Json::array();
    for (const std::string& image : images) items.push(typed_item("image", image));
    for (const std::string& video : videos) items.push(typed_item("video", video));
    items.push(typed_item("text", text));
    message.set("content", std::move(items));
  }
  Conversation out;
  out.add(message, "prompt");
  return out;
}

void Conversation::add(const Json& message, std::string_view where) {
  const std::string place = std::string(where) + ": message " + std::to_string(messages_.as_array().size());
  messages_.push(with_context(place, [&] { return normal_message(message); }));
}

std::vector<const Json*> Conversation::media() const {
  std::vector<const Json*> out;
  for (const Json& message : messages_.as_array()) {
    const Json* content = message.find("content");
    if (!content || !content->is_array()) continue;
    for (const Json& item : content->as_array()) {
      if (media_kind(item) != MediaKind::none) out.push_back(&item);
    }
  }
  return out;
}

}  // namespace statera
