// Checkpoints for the tests of calibration: the architectures of tests/tiny with what the example has of tokenizer, template and processor.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "api/init.h"
#include "base/json.h"
#include "ckpt/test_files.h"

namespace statera {

// The architecture of tests/tiny/NAME with random weights in folder/model, and the example's tokenizer, template and processor fitted to it.
// `change`: of the text model's config.
inline void make_checkpoint(const std::string& name, const std::string& folder, const std::function<void(Json& text)>& change = {}) {
  namespace fs = std::filesystem;
  const std::string root = std::string(STATERA_SOURCE_DIR) + "/", example = root + "examples/tiny-qwen3-vl";
  fs::create_directory(folder + "/base");
  Json config = Json::read_file(root + "tests/tiny/" + name + "/config.json");
  const Json ids = Json::read_file(example + "/config.json");
  const bool vision = config.has("vision_config");
  for (const char* id : {"image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"}) {
    if (vision) config.set(id, ids.at(id));
  }
  Json* text = config.has("text_config") ? config.find("text_config") : &config;
  text->set("vocab_size", 1024);
  text->set("max_position_embeddings", 8192);
  if (change) change(*text);
  write_text(folder + "/base/config.json", config.dump());
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) fs::copy_file(example + "/" + file, folder + "/base/" + file);
  if (vision) {
    Json processor = Json::read_file(example + "/preprocessor_config.json");
    processor.set("patch_size", config.at("vision_config").get_int("patch_size", 14));
    write_text(folder + "/base/preprocessor_config.json", processor.dump());
  }
  InitOptions o;
  o.config = folder + "/base";
  o.out = folder + "/model";
  o.dtype = "fp32";
  init(o);
}

}  // namespace statera
