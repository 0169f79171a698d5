// What the tests of calibration data share: an opened checkpoint, items in the spelling of LLaVA, answers as text.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/masked_select.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "ckpt/checkpoint_source.h"
#include "quant/calib/sample.h"

namespace statera::calib_test {

inline std::string root(const std::string& path) { return std::string(STATERA_SOURCE_DIR) + "/" + path; }
inline std::string picture(const std::string& name) { return root("examples/pictures/" + name); }

struct Opened {
  explicit Opened(const std::string& folder)
      : source(Checkpoint::open(folder), model_type(Checkpoint::open(folder).config())),
        model(model_type(source.checkpoint().config()).make(source.checkpoint().config(), source)) {
    at::set_num_threads(1);  // as quantize() does
  }
  PromptParts parts() const { return read_prompt_parts(source.checkpoint().directory(), *model); }
  CalibData data(const CalibOptions& options = {}) const { return read_calibration(options, parts()); }
  CheckpointSource source;
  std::unique_ptr<Model> model;
};

// turns: human, gpt, human, ...
inline Json llava(const std::vector<std::string>& pictures, const std::vector<std::string>& turns) {
  Json item = Json::object(), list = Json::array();
  for (size_t i = 0; i < turns.size(); ++i) {
    Json turn = Json::object();
    turn.set("from", i % 2 == 0 ? "human" : "gpt");
    turn.set("value", turns[i]);
    list.push(std::move(turn));
  }
  if (!pictures.empty()) item.set("image", pictures);
  item.set("conversations", std::move(list));
  return item;
}

inline std::string answers_of(const CalibData& data, const CalibSample& s) {
  const at::Tensor ids = at::masked_select(s.ids_T, s.answers_T == 1).contiguous();
  return data.parts.tokenizer->decode({ids.const_data_ptr<int64_t>(), static_cast<size_t>(ids.numel())}, false);
}

inline std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return std::string(to_string(e.kind())) + ": " + e.message();
  }
  return "no error";
}

}  // namespace statera::calib_test
