// See preprocess.h.
#include "api/preprocess.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include "api/guard.h"
#include "api/paths.h"
#include "base/error.h"
#include "base/strings.h"
#include "ckpt/safetensors_write.h"
#include "run/prompt.h"

namespace statera {
namespace {

at::Tensor grid_tensor(const std::vector<Grid>& grids) {
  std::vector<int64_t> flat;
  for (const Grid& g : grids) flat.insert(flat.end(), g.begin(), g.end());
  return at::tensor(flat, at::TensorOptions(at::kLong)).view({static_cast<int64_t>(grids.size()), 3});
}

// By their Hugging Face names, with the batch dimension.
NamedTensors tensors_of(const ModelInputs& in) {
  NamedTensors out{{"input_ids", in.input_ids.unsqueeze(0)}};
  out.emplace_back("position_ids", in.position_ids.dim() == 2 ? in.position_ids.unsqueeze(1) : in.position_ids.unsqueeze(0));
  if (in.pixel_values.defined()) {
    out.emplace_back("pixel_values", in.pixel_values);
    out.emplace_back("image_grid_thw", grid_tensor(in.image_grid_thw));
  }
  if (in.pixel_values_videos.defined()) {
    out.emplace_back("pixel_values_videos", in.pixel_values_videos);
    out.emplace_back("video_grid_thw", grid_tensor(in.video_grid_thw));
  }
  if (!in.second_per_grid_ts.empty()) {
    out.emplace_back("second_per_grid_ts", at::tensor(in.second_per_grid_ts, at::TensorOptions(at::kDouble)).to(at::kFloat));
  }
  return out;
}

PreprocessReport run(const PreprocessOptions& options) {
  require_folder_of(options.out);
  Json config = Json::read_file(options.model + "/config.json");
  ShapesOnly shapes;
  auto model = model_type(config).make(config, shapes);
  auto conversations = read_conversations(options.messages);
  if (conversations.size() != 1) {
    throw Error(ErrorKind::usage, fmt::format("{}: holds {} conversations; one is expected", options.messages, conversations.size()));
  }
  PromptOptions how;
  how.render.add_generation_prompt = options.add_generation_prompt;
  how.render.add_vision_id = options.add_vision_id;
  how.media = media_options(options.media, folder_of(options.messages));
  Prompt prompt =
      with_context(options.messages, [&] { return make_prompt(conversations[0], read_prompt_parts(options.model, *model), how); });
  NamedTensors tensors = tensors_of(prompt.inputs);
  Metadata metadata = torch_metadata();
  metadata.emplace_back("prompt", prompt.text);
  write_safetensors(options.out, tensors, metadata);
  PreprocessReport report{prompt.text, options.out, prompt.inputs.input_ids.size(0), {}};
  for (const auto& [name, t] : tensors) report.tensors.push_back(name + " " + shape_string(t.sizes()));
  return report;
}

}  // namespace

PreprocessReport preprocess(const PreprocessOptions& options) {
  return guarded([&] { return run(options); });
}

Json PreprocessReport::to_json() const {
  Json out = Json::object();
  out.set("out", this->out);
  out.set("tokens", tokens);
  out.set("tensors", Json(tensors));
  out.set("prompt", prompt);
  return out;
}

std::string PreprocessReport::to_text() const { return fmt::format("{}\n{} tokens, {}", out, tokens, join(tensors, ", ")); }

}  // namespace statera
