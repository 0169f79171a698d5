// Conversations as ShareGPT4V and LLaVA store them: {"image": path or paths, "conversations": [{"from": "human", "value": "<image>\n..."},
// {"from": "gpt", "value": "..."}, ...]}; clips alike under "video" and <video>, plural keys too. No template, no tokenizer.
#pragma once

#include <string>

#include "base/json.h"
#include "text/conversation.h"

namespace statera {

// All turns; each <image> (<video>) of a human turn becomes the next picture (clip), and those without any marks stand before the first
// turn's words. Error(mismatch) when marks and media differ in number.
// Error(bad_file) naming `where`.
Conversation llava_conversation(const Json& item, const std::string& where);

// The reading of MBQ's Qwen2-VL adapter (MBQ 3.3): one user turn, which is all pictures and then the words of the last human turn without
// <image> and line breaks (nothing in their place), and the last gpt turn as it stands. Error(bad_file) when one of the two is absent.
Conversation llava_last_turn(const Json& item, const std::string& where);

}  // namespace statera
