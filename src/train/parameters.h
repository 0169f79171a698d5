// parameters: the weights of a model that learn, as autograd leaves put into its sites, and which part of the model each belongs to.
// Frozen weights stay without gradient. A replica is a second model over the same memory whose leaves gather gradients of their own.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nn/model.h"

namespace statera {

// merger: the projectors between tower and language model, those of deepstack taps included. embeddings: token table and output head.
enum class Part { vision, merger, language, embeddings };
constexpr Part kParts[] = {Part::vision, Part::merger, Part::language, Part::embeddings};
std::string_view to_string(Part part);

struct Parameter {
  std::string name;  // internal, "<path>.weight"; "<path>.lora_A.weight" of an adapter
  Part part = Part::language;
  bool decays = true;  // weight decay applies: no norms, no biases
  at::Tensor leaf;     // requires grad; matrices of linear layers are [out, in] whatever the checkpoint's shape
};

// The part of a parameter by its role and the nearest module around it that holds linear layers.
Part part_of(const Params& params, const std::string& path, Role role);

// From here on the products of linear layers that are not quantized, the tied head's too, are taken of bf16 and summed in fp32 (make_mixed). An fp32
// model, before make_parameters() and make_replica().
void take_products_in_bf16(Model& model);

// Makes the leaf that goes into the model for a weight; it may be one without memory whose elements lie elsewhere.
using LeafMaker = std::function<at::Tensor(const std::string& name, const at::Tensor& value, at::ScalarType dtype)>;

// Copies every weight of the chosen parts into a leaf of `dtype` (or what `make` makes of it) and puts it into its site; dense weights of the other parts are brought
// to `dtype`, quantized ones stay. Order: linear layers by path, then the others by path. Error(unsupported) for a quantized weight that
// should learn.
std::vector<Parameter> make_parameters(Model& model, const std::vector<Part>& learn, at::ScalarType dtype, const LeafMaker& make = {});

// Another model of the same type over the same memory: frozen sites are shared, `leaves` gets one leaf per parameter, in order.
std::unique_ptr<Model> make_replica(const Model& model, const std::vector<Parameter>& parameters, std::vector<at::Tensor>& leaves);

// Puts a leaf where the parameter of this name lives.
void put_leaf(Model& model, const std::string& name, const at::Tensor& leaf);
// A head that reuses the token table is no parameter of its own: its weight becomes the table's. After a leaf was put there.
void tie_head(Model& model);

}  // namespace statera
