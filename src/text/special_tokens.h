// The special tokens of a checkpoint as its side files name them: tokenizer_config.json, then special_tokens_map.json for
// what the first leaves out. Not the tokenizer's own list of added tokens.
#pragma once

#include <string>

#include "base/json.h"

namespace statera {

// {"bos_token": "<s>", ...}: every member "*_token" that is a string or an object with "content", and
// "additional_special_tokens" as a list of strings, in the order of the file. An explicit null is left out.
Json special_tokens(const Json& tokenizer_config);
// The same for a directory; files that are not there count as empty.
Json special_tokens_of_directory(const std::string& directory);
// DIR/tokenizer_config.json, or an empty object when there is none.
Json read_tokenizer_config(const std::string& directory);

}  // namespace statera
