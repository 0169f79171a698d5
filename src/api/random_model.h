// random_model: weights that never were in a file: drawn in memory at a model's shapes, and rounded on their way into a model. For
// measuring speed at real sizes; what is written to disk is init's and quantize's matter. For the .cpp files of api/ only: includes torch.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/model.h"
#include "quant/select.h"

namespace statera {

// Every parameter that is asked for, drawn as `statera init` draws it (random_fill.h).
class RandomSource : public WeightSource {
 public:
  RandomSource(uint64_t seed, at::ScalarType dtype) : seed_(seed), dtype_(dtype) {}
  bool has(const std::string&) const override { return true; }
  at::Tensor tensor(const std::string& name, const std::vector<int64_t>& shape) override;
  Weight linear(const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>& act) override;

 private:
  at::Tensor draw(const std::string& name, const std::vector<int64_t>& shape, bool linear) const;
  uint64_t seed_;
  at::ScalarType dtype_;
};

// Which layers are rounded to nearest, and how.
struct Rounding {
  std::optional<ActQuant> act;
  std::map<std::string, QSpec> layers;  // by path
};
// The layers that quantize would choose by their roles, the head with bits of its own where they are given. Error(usage): none, or one whose inputs the groups do not divide.
Rounding plan_rounding(const ModelType& type, const Json& config, const QSpec& spec, std::optional<ActQuant> act, const SelectOptions& select,
                       std::optional<int64_t> head_bits = {});

// Another source's weights, those of the plan rounded and packed as they come: one dense layer is in memory at a time.
class RoundingSource : public WeightSource {
 public:
  RoundingSource(WeightSource& inner, Rounding plan) : inner_(inner), plan_(std::move(plan)) {}
  bool has(const std::string& name) const override { return inner_.has(name); }
  at::Tensor tensor(const std::string& name, const std::vector<int64_t>& shape) override { return inner_.tensor(name, shape); }
  // Error(usage) for a layer that is quantized already.
  Weight linear(const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>& act) override;

 private:
  WeightSource& inner_;
  Rounding plan_;
};

}  // namespace statera
