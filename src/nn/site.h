// LinearSite: one linear layer as it stands in a model: path, shape, weight, bias, input plan, adapter. TensorSite: any other parameter.
// Params: the flat ordered registry path -> site. Save, move, count, freeze, pack and LoRA iterate it, never a tree.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/weight.h"

namespace statera {

// What a parameter is for; decides what quantizes by default (never a substring of its name).
enum class Role { attention, mlp, expert, router, norm, embedding, head, vision, projector, other };
std::string_view to_string(Role role);

// A low-rank adapter: y += scale * (drop(x) A^T) B^T. A [r, K], B [N, r].
struct Adapter {
  at::Tensor A, B;
  double scale = 1;
  double dropout = 0;  // of elements of x; other than 0 in training steps only
  uint64_t draw = 0;   // seeds the mask, together with the layer's path
};

struct LinearSite {
  std::string path;       // as in the checkpoint, without ".weight"
  int64_t out = 0, in = 0;
  std::vector<int64_t> stored_shape;  // of "<path>.weight" in the checkpoint when not [out, in] (patch convolutions)
  Role role = Role::other;
  int64_t block = -1;     // index in its stack, -1 outside blocks
  double row_share = 1;   // of the rows that reach it: of E experts each token chooses k
  Weight weight;          // null in shapes-only models
  at::Tensor bias;        // [N], undefined: none
  at::Tensor input_rotation;        // [K, K] orthogonal, x <- x R; undefined: none
  std::optional<ActQuant> act;      // none: floating activations
  std::shared_ptr<Adapter> adapter;
};

struct TensorSite {
  std::string path;
  std::vector<int64_t> shape;
  Role role = Role::other;
  int64_t block = -1;
  at::Tensor value;       // undefined in shapes-only models
};

struct AttendSite;

struct Params {
  std::map<std::string, std::shared_ptr<LinearSite>> linears;
  std::map<std::string, std::shared_ptr<TensorSite>> tensors;
  std::vector<std::shared_ptr<AttendSite>> picture_attentions;  // of vision towers: patches that see each other
  // Parameters (weights and biases) of a role, or of all.
  int64_t count(std::optional<Role> role = {}) const;
  // Bytes held by the sites.
  int64_t bytes() const;
};

}  // namespace statera
