// Training runs of tiny checkpoints as tools/golden/train.py starts them, shared by the tests beside it.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "support/tiny.h"
#include "train/lora.h"
#include "train/trainer.h"

namespace statera::training {

inline constexpr double kTolerance = 1e-4;
inline constexpr Part kAll[] = {Part::vision, Part::merger, Part::language, Part::embeddings};

struct Golden {
  SafetensorsFile file;
  explicit Golden(const std::string& name) : file("tests/golden/train_" + name + ".safetensors") {}
  std::vector<float> floats(const char* name) const {
    const at::Tensor t = file.tensor(name);
    return {t.const_data_ptr<float>(), t.const_data_ptr<float>() + t.numel()};
  }
  double number(const std::string& name) const {
    for (const auto& [key, value] : file.metadata()) {
      if (key == name) return std::stod(value);
    }
    throw Bug("no " + name);
  }
  TrainSample sample(const Model& model, const std::string& prefix) const {
    TrainSample s;
    s.where = prefix;
    s.inputs.input_ids = file.tensor(prefix + "input_ids").reshape({-1}).clone();
    s.inputs.bounds = one_sequence(s.tokens());
    if (file.find(prefix + "pixel_values")) s.inputs.pixel_values = file.tensor(prefix + "pixel_values");
    s.inputs.image_grid_thw = tiny::grids(file, prefix + "image_grid_thw");
    s.inputs.position_ids = model.positions(s.inputs).first;
    s.learned_T = file.tensor(prefix + "learned").to(at::kChar);
    return s;
  }
  std::vector<TrainSample> samples(const Model& model) const {
    return {sample(model, "sample0."), sample(model, "sample1."), sample(model, "sample2.")};
  }
};

// What differs from the reference's run; adapters when lora.r is not 0.
struct How {
  int64_t lanes = 1;
  bool checkpointing = false;
  at::ScalarType dtype = at::kFloat;
  RouterLoss routers = {};
  StateBits states = StateBits::fp32;
  LoraSettings lora = {.r = 0};
  double rate = 0;  // 0: the reference's
};

struct Started {
  tiny::Opened opened;
  std::unique_ptr<Trainer> trainer;
  std::vector<TrainSample> samples;
  // One forward pass each.
  std::vector<std::vector<TrainSample>> alone() const {
    std::vector<std::vector<TrainSample>> out;
    for (const TrainSample& s : samples) out.push_back({s});
    return out;
  }
  std::vector<std::vector<TrainSample>> packed() const { return {samples}; }
};

// The samples of a golden and the settings they were trained with.
inline void prepare(Started& run, const Golden& golden, const How& how) {
  Model& model = *run.opened.model;
  model.dtype = how.dtype;
  run.samples = golden.samples(model);
  TrainSettings s;
  for (double& rate : s.rates) rate = how.rate > 0 ? how.rate : golden.number("lr");
  s.weight_decay = golden.number("weight_decay");
  s.max_grad_norm = golden.number("clip");
  s.schedule = {"cosine", static_cast<int64_t>(golden.number("warmup")), 10};
  s.lanes = how.lanes;
  s.checkpointing = how.checkpointing;
  s.adamw.states = how.states;
  s.lora_dropout = how.lora.dropout;
  s.routers = how.routers;
  std::vector<Parameter> learned = how.lora.r > 0 ? make_adapters(model, how.lora, how.dtype) : make_parameters(model, {std::begin(kAll), std::end(kAll)}, how.dtype);
  run.trainer = std::make_unique<Trainer>(model, std::move(learned), s);
}

inline Started start(const std::string& name, const Golden& golden, const How& how = {}) {
  Started run;
  run.opened = tiny::open(tiny::folder(name));
  prepare(run, golden, how);
  return run;
}

inline double error_of(const at::Tensor& got, const at::Tensor& wanted) {
  return (at::abs(got - wanted).max() / at::abs(wanted).max().clamp_min(1e-12)).item<double>();
}

// The name that a parameter has in transformers' model.
inline std::string golden_name(const SafetensorsFile& file, const std::string& name) {
  if (file.find("grad." + name)) return "grad." + name;
  return "grad.model." + name;
}

}  // namespace statera::training
