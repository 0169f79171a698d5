// See prompt_parts.h.
#include "api/prompt_parts.h"

#include "base/error.h"
#include "base/file.h"

namespace statera {

PromptParts prompt_parts(const std::string& directory, const Model& model) {
  PromptParts parts;
  parts.model = &model;
  auto holds = [&](const char* name) { return is_file(directory + "/" + name); };
  if (holds("tokenizer.json") || holds("vocab.json") || holds("tokenizer_config.json"))
    parts.tokenizer = Tokenizer::from_directory(directory);
  if (ChatTemplate::in_directory(directory)) parts.chat_template = ChatTemplate::from_directory(directory);
  if (model.vision() && (holds("preprocessor_config.json") || holds("processor_config.json")))
    parts.processor = QwenProcessor::load(directory);
  return parts;
}

MediaOptions media_options(const MediaFlags& flags, const std::string& base_dir) {
  if (flags.media_style != "hf" && flags.media_style != "qwen-vl-utils") {
    throw Error(ErrorKind::usage, "media_style: \"" + flags.media_style + "\" is neither hf nor qwen-vl-utils");
  }
  MediaOptions out;
  out.style = flags.media_style;
  out.apply_exif = flags.exif;
  out.fetch.allow_urls = flags.allow_urls;
  out.fetch.allow_private_addresses = flags.allow_private_addresses;
  out.fetch.base_dir = flags.base_dir.empty() ? base_dir : flags.base_dir;
  out.min_pixels = flags.min_pixels;
  out.max_pixels = flags.max_pixels;
  out.fps = flags.fps;
  out.num_frames = flags.num_frames;
  return out;
}

std::string folder_of(const std::string& path) {
  auto slash = path.rfind('/');
  return slash == path.npos ? "" : path.substr(0, slash == 0 ? 1 : slash);
}

}  // namespace statera
