// The forward pass over stacks.
#include "nn/model.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"

namespace statera {

std::pair<at::Tensor, std::vector<int64_t>> Model::positions(const ModelInputs& inputs) const {
  std::vector<at::Tensor> parts;
  std::vector<int64_t> next;
  for (size_t s = 0; s + 1 < inputs.bounds.size(); ++s) {
    int64_t n = inputs.bounds[s + 1] - inputs.bounds[s];
    parts.push_back(at::arange(n, at::kLong));
    next.push_back(n);
  }
  return {parts.empty() ? at::zeros({0}, at::kLong) : at::cat(parts, 0), next};
}

std::string Model::expand_placeholders(const std::string& prompt, const MediaSizes& media) const {
  if (!media.images.empty() || !media.videos.empty()) {
    throw Error(ErrorKind::usage, "this model reads text only; it cannot be given images or videos");
  }
  return prompt;
}

at::Tensor Model::token_kinds(const at::Tensor& input_ids) const { return at::zeros({input_ids.size(0)}, at::kChar); }

std::optional<VisualFeatures> Model::see(const ModelInputs& inputs, Tap*) const {
  if (inputs.pixel_values.defined() || inputs.pixel_values_videos.defined()) {
    throw Error(ErrorKind::usage, "this model reads text only; it cannot be given pixel values");
  }
  return std::nullopt;
}

at::Tensor VisionStack::tapped(size_t, const at::Tensor&, const Pass&) const { throw Bug("a vision stack without taps"); }

Pass make_pass(const Model& model, ModelInputs& inputs) {
  check(inputs.input_ids.dim() == 1, "input_ids lie in one row");
  if (inputs.bounds.empty()) inputs.bounds = one_sequence(inputs.input_ids.size(0));
  check(inputs.bounds.back() == inputs.input_ids.size(0), "bounds do not cover input_ids");
  int64_t vocab = model.limits().vocab_size;
  if (inputs.input_ids.numel() > 0) {
    int64_t low = inputs.input_ids.min().item<int64_t>(), high = inputs.input_ids.max().item<int64_t>();
    if (low < 0 || high >= vocab) {
      throw Error(ErrorKind::mismatch, "token id " + std::to_string(low < 0 ? low : high) + " is outside the model's vocabulary of " + std::to_string(vocab));
    }
  }
  if (!inputs.position_ids.defined()) inputs.position_ids = model.positions(inputs).first;
  Pass pass;
  pass.positions = inputs.position_ids;
  pass.bounds = inputs.bounds;
  pass.kinds = model.token_kinds(inputs.input_ids);
  return pass;
}

at::Tensor run_blocks(const Stack& stack, at::Tensor h, Pass& pass) {
  for (int64_t i = 0; i < stack.blocks(); ++i) {
    h = stack.block(i, h, pass);
    if (pass.tap) pass.tap->block(stack, i, h, pass);
  }
  return h;
}

at::Tensor forward_hidden(const Model& model, ModelInputs& inputs, Pass& pass) {
  auto visual = model.see(inputs, pass.tap);
  at::Tensor h = model.language().enter(inputs.input_ids, visual ? &*visual : nullptr, pass);
  return model.language().leave(run_blocks(model.language(), h, pass), pass);
}

}  // namespace statera
