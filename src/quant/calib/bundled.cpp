// Pictures of the bundled messages as data: URIs.
#include "quant/calib/bundled.h"

#include "base/error.h"
#include "base/json.h"
#include "base/strings.h"
#include "data/base64.h"

namespace statera {
// Generated: name, bytes, size; ends with a null name.
struct EmbeddedFile {
  const char* name;
  const unsigned char* data;
  unsigned long size;
};
extern const EmbeddedFile kEmbeddedCalibration[];

std::string_view bundled_file(std::string_view name) {
  for (const EmbeddedFile* f = kEmbeddedCalibration; f->name; ++f) {
    if (name == f->name) return {reinterpret_cast<const char*>(f->data), f->size};
  }
  throw Bug("no bundled file " + std::string(name));
}

std::string bundled_messages() {
  std::string out;
  for (const std::string& line : split(bundled_file("messages.jsonl"), '\n')) {
    if (trim(line).empty()) continue;
    Json item = Json::parse(line, "messages.jsonl");
    for (Json& message : item.find("messages")->items()) {
      Json* content = message.find("content");
      if (!content->is_array()) continue;
      for (Json& part : content->items()) {
        const Json* path = part.find("image");
        if (!path) continue;
        const std::string name = path->as_string().substr(std::string("../").size());
        const std::string type = name.ends_with(".jpg") ? "jpeg" : "png";
        part.set("image", "data:image/" + type + ";base64," + encode_base64(bundled_file(name)));
      }
    }
    out += item.dump() + "\n";
  }
  return out;
}

}  // namespace statera
