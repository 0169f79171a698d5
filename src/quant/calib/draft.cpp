// Tokenizing one piece, and putting pieces end to end.
#include "quant/calib/draft.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "base/error.h"
#include "quant/sha256.h"

namespace statera {
namespace {

std::string sha256_of(const at::Tensor& t) {
  const at::Tensor c = t.contiguous();
  return sha256({static_cast<const char*>(c.const_data_ptr()), static_cast<size_t>(c.numel()) * c.element_size()});
}

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// Header, answer, end marker and what follows (MBQ 3.3, Qwen2-VL).
at::Tensor from_last_start(const at::Tensor& ids_T, const PromptParts& parts) {
  at::Tensor mask_T = at::zeros_like(ids_T, at::kChar);
  const at::Tensor starts = at::nonzero(ids_T == *parts.tokenizer->token_id("<|im_start|>"));
  if (starts.size(0) > 0) mask_T.slice(0, starts[-1].item<int64_t>()).fill_(1);
  return mask_T;
}

// Ids, grids and times of all drafts; positions by the model's rule.
ModelInputs joined_inputs(std::span<const Draft> drafts, const Model& model) {
  if (drafts.size() == 1) return drafts[0].inputs;
  ModelInputs in;
  std::vector<at::Tensor> ids;
  for (const Draft& d : drafts) {
    ids.push_back(d.inputs.input_ids);
    append(in.image_grid_thw, d.inputs.image_grid_thw);
    append(in.video_grid_thw, d.inputs.video_grid_thw);
    append(in.second_per_grid_ts, d.inputs.second_per_grid_ts);
  }
  in.input_ids = at::cat(ids);
  in.bounds = one_sequence(in.input_ids.size(0));
  in.position_ids = model.positions(in).first;
  return in;
}

}  // namespace

Draft text_draft(const std::vector<int64_t>& ids, bool answers, const Model& model, const std::string& where) {
  Draft d;
  d.where = where;
  d.inputs.input_ids = at::tensor(ids, at::kLong);
  d.inputs.bounds = one_sequence(d.tokens());
  d.inputs.position_ids = model.positions(d.inputs).first;
  d.answers_T = at::full({d.tokens()}, answers ? 1 : 0, at::kChar);
  // Text that happens to spell a placeholder has no picture behind it.
  if (model.token_kinds(d.inputs.input_ids).sum().item<int64_t>() > 0)
    throw Error(ErrorKind::bad_file, where + ": the text spells out a picture placeholder");
  return d;
}

Prompt calibration_prompt(const Conversation& messages, const PromptParts& parts, const std::string& base_dir) {
  PromptOptions options;
  options.media.fetch.base_dir = base_dir;
  const auto& list = messages.messages().as_array();
  options.render.add_generation_prompt = list.empty() || list.back().get_string("role", "") != "assistant";
  return make_prompt(messages, parts, options);
}

Draft conversation_draft(Conversation messages, const PromptParts& parts, const std::string& base_dir, bool last_start,
                         const std::string& where) {
  Prompt prompt = calibration_prompt(messages, parts, base_dir);
  Draft d;
  d.where = where;
  d.answers_T = last_start ? from_last_start(prompt.inputs.input_ids, parts) : answer_mask(messages, parts, prompt, d.notes);
  for (at::Tensor* pixels : {&prompt.inputs.pixel_values, &prompt.inputs.pixel_values_videos}) {
    if (!pixels->defined()) continue;
    d.hashes += sha256_of(*pixels);
    d.patches += pixels->size(0);
    *pixels = at::Tensor();
  }
  d.inputs = std::move(prompt.inputs);
  if (d.patches > 0) d.messages = std::move(messages);
  return d;
}

std::optional<CalibSample> make_sample(std::span<const Draft> drafts, const Model& model, const std::string& base_dir, int64_t length,
                                       bool flat) {
  const ModelInputs in = joined_inputs(drafts, model);
  const int64_t T = std::min(in.input_ids.size(0), length);
  const at::Tensor kinds_T = model.token_kinds(in.input_ids);
  CalibSample s;
  s.kinds_T = kinds_T.slice(0, 0, T).clone();
  // A picture cannot be cut.
  if (s.kinds_T.sum().item<int64_t>() != kinds_T.sum().item<int64_t>()) return std::nullopt;
  s.ids_T = in.input_ids.slice(0, 0, T).clone();
  s.positions = in.position_ids.slice(-1, 0, T).clone();
  if (flat) s.positions.copy_(at::arange(T).expand_as(s.positions));
  std::vector<at::Tensor> answers;
  int64_t begin = 0;
  for (const Draft& d : drafts) {
    answers.push_back(d.answers_T);
    if (!d.messages.empty() && begin == 0) s.messages = d.messages;
    if (!d.messages.empty() && begin > 0) s.more.push_back({d.messages, begin});
    s.where += (begin > 0 ? " + " : "") + d.where;
    begin += d.tokens();
  }
  s.answers_T = at::cat(answers).slice(0, 0, T).clone();
  s.base_dir = base_dir;
  return s;
}

}  // namespace statera
