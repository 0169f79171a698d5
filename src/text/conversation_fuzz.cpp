// Fuzz target of the message and request readers: any bytes give conversations or an Error, never a crash; what was read can be
// read again and stays the same.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "text/conversation.h"

namespace {

void read_messages(std::string_view text) {
  using namespace statera;
  for (const Conversation& c : conversations_from_json(Json::parse(text, "fuzz"), "fuzz")) {
    for (const Json* item : c.media()) check(media_payload(*item).is_string() || media_payload(*item).is_array(), "media payload");
    check(Conversation::from_json(c.messages(), "again").messages() == c.messages(), "reading is idempotent");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    read_messages(text);
  } catch (const statera::Error&) {
  }
  try {
    (void)statera::requests_from_text(text, "fuzz");
  } catch (const statera::Error&) {
  }
  return 0;
}
