// Opening tiny checkpoints and reading golden inputs by their Hugging Face forward names; shared by goldens and laws.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "ckpt/checkpoint_source.h"
#include "ckpt/safetensors.h"
#include "nn/kv_cache.h"
#include "nn/model.h"

namespace statera::tiny {

inline std::string folder(const std::string& name) { return "tests/tiny/" + name; }

struct Opened {
  std::unique_ptr<CheckpointSource> source;
  std::unique_ptr<Model> model;
};

inline Opened open(const std::string& directory) {
  Checkpoint checkpoint = Checkpoint::open(directory);
  const ModelType& type = model_type(checkpoint.config());
  Opened o;
  o.source = std::make_unique<CheckpointSource>(checkpoint, type);
  o.model = type.make(checkpoint.config(), *o.source);
  return o;
}

// Every folder under tests/tiny with a config.json and weights.
inline std::vector<std::string> checkpoints() {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator("tests/tiny")) {
    if (std::filesystem::exists(entry.path() / "config.json")) out.push_back(entry.path().filename());
  }
  std::sort(out.begin(), out.end());
  return out;
}

// The folder whose goldens a checkpoint is tested against.
inline std::string golden_folder(const std::string& name) {
  std::string same = folder(name) + "/same_as.json";
  if (!std::filesystem::exists(same)) return folder(name);
  return folder(Json::read_file(same).at("same_as").as_string());
}

inline std::vector<Grid> grids(const SafetensorsFile& file, const std::string& name) {
  std::vector<Grid> out;
  if (!file.find(name)) return out;
  at::Tensor t = file.tensor(name).contiguous();
  const int64_t* v = t.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < t.size(0); ++i) out.push_back({v[3 * i], v[3 * i + 1], v[3 * i + 2]});
  return out;
}

inline ModelInputs inputs(const SafetensorsFile& file) {
  ModelInputs in;
  in.input_ids = file.tensor("input_ids").reshape({-1}).clone();
  in.bounds = one_sequence(in.input_ids.size(0));
  if (file.find("position_ids")) in.position_ids = file.tensor("position_ids").squeeze(1).clone();
  if (file.find("pixel_values")) in.pixel_values = file.tensor("pixel_values");
  if (file.find("pixel_values_videos")) in.pixel_values_videos = file.tensor("pixel_values_videos");
  in.image_grid_thw = grids(file, "image_grid_thw");
  in.video_grid_thw = grids(file, "video_grid_thw");
  if (file.find("second_per_grid_ts")) {
    at::Tensor t = file.tensor("second_per_grid_ts").to(at::kDouble).contiguous();
    in.second_per_grid_ts.assign(t.const_data_ptr<double>(), t.const_data_ptr<double>() + t.numel());
  }
  return in;
}

inline at::Tensor logits(const Model& model, ModelInputs in) {
  Pass pass = make_pass(model, in);
  return model.language().head(forward_hidden(model, in, pass), pass);
}

// Greedy continuation with the cache, one row per step.
inline std::vector<int64_t> greedy(const Model& model, ModelInputs in, int64_t count) {
  KvCache cache(model.language().blocks());
  std::vector<int64_t> out;
  int64_t next_position = model.positions(in).second.at(0);
  at::Tensor prompt = in.input_ids;
  int64_t length = prompt.size(0);
  Pass pass = make_pass(model, in);
  pass.caches = {&cache};
  at::Tensor h = forward_hidden(model, in, pass);
  while (true) {
    at::Tensor row = model.language().head(h.slice(0, h.size(0) - 1), pass);
    out.push_back(row.argmax(-1).item<int64_t>());
    if (static_cast<int64_t>(out.size()) == count) return out;
    ModelInputs step;
    step.input_ids = at::Tensor(prompt.new_empty({1})).fill_(out.back());
    step.position_ids = in.position_ids.dim() == 2 ? prompt.new_empty({3, 1}).fill_(next_position) : prompt.new_empty({1}).fill_(next_position);
    step.bounds = one_sequence(1);
    Pass p = make_pass(model, step);
    p.caches = {&cache};
    ++next_position;
    ++length;
    h = forward_hidden(model, step, p);
  }
}

}  // namespace statera::tiny
