// Scope: path + weight source + registry. Constructing a layer through it names, reads, shape-checks and registers the parameter.
//   Scope attn = block / "self_attn";  q_proj = attn.linear("q_proj", N * d, H, bias);
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/linear.h"
#include "nn/site.h"

namespace statera {

// Where parameters come from. Names are the model's internal ones (native transformers names); a source maps them to its files.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual bool has(const std::string& name) const = 0;
  // A tensor of the given shape (a view of the mapped file where possible); a missing or misshapen one is Error(bad_file) naming file and shape.
  virtual at::Tensor tensor(const std::string& name, const std::vector<int64_t>& shape) = 0;
  // The weight of the linear layer at `path` ("<path>.weight" or a quantized form of it), with its activation quantizer if any.
  virtual Weight linear(const std::string& path, int64_t out, int64_t in, std::optional<ActQuant>& act) = 0;
};

// Weights are not read; sites keep their shapes only.
class ShapesOnly : public WeightSource {
 public:
  bool has(const std::string&) const override { return true; }
  at::Tensor tensor(const std::string&, const std::vector<int64_t>&) override { return {}; }
  Weight linear(const std::string&, int64_t, int64_t, std::optional<ActQuant>&) override { return nullptr; }
};

enum class Bias { none, yes, if_present };

class Scope {
 public:
  Scope(WeightSource& source, Params& params) : source_(&source), params_(&params) {}
  Scope operator/(std::string_view name) const;
  Scope operator/(int64_t index) const { return *this / std::to_string(index); }
  // The same place with a default role / block index for what is made below it.
  Scope as(Role role) const;
  Scope at_block(int64_t index) const;
  // "<path>.<name>" with weight [out, in].
  Linear linear(std::string_view name, int64_t out, int64_t in, Bias bias = Bias::none, std::optional<Role> role = {}) const;
  // A convolution whose stride equals its kernel, as a linear layer on flattened patches: stored [out, kernel...], in = product of kernel.
  Linear patch_linear(std::string_view name, int64_t out, const std::vector<int64_t>& kernel, Bias bias) const;
  // A parameter "<path>.<name>", e.g. "weight" of a norm, in its stored dtype.
  std::shared_ptr<TensorSite> tensor(std::string_view name, std::vector<int64_t> shape, std::optional<Role> role = {}) const;
  // A head tied to an embedding: no parameter of its own.
  Linear tied(std::string_view name, const std::shared_ptr<TensorSite>& embedding) const;
  bool has(std::string_view name) const { return source_->has(join(name)); }
  const std::string& path() const { return path_; }
  Params& params() const { return *params_; }

 private:
  Linear add(std::shared_ptr<LinearSite> site, Bias bias) const;
  std::string join(std::string_view name) const { return path_.empty() ? std::string(name) : path_ + "." + std::string(name); }
  WeightSource* source_;
  Params* params_;
  std::string path_;
  Role role_ = Role::other;
  int64_t block_ = -1;
};

}  // namespace statera
