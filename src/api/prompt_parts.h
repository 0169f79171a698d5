// prompt_parts: what a checkpoint folder holds for making prompts, as the .cpp files of api/ need it. Includes tensors: not for users.
#pragma once

#include <string>

#include "api/media_flags.h"
#include "run/prompt.h"

namespace statera {

// Tokenizer, template and processor of a folder, as far as they are there. A file that is there and broken is its reader's Error.
PromptParts prompt_parts(const std::string& directory, const Model& model);
// base_dir: for relative paths when the flags name none.
MediaOptions media_options(const MediaFlags& flags, const std::string& base_dir = "");
// The folder of a file; "" for the working folder.
std::string folder_of(const std::string& path);

}  // namespace statera
