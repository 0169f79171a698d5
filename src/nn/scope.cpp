// Naming, reading, checking and registering parameters.
#include "nn/scope.h"

#include "base/error.h"
#include "base/strings.h"

namespace statera {

std::string_view to_string(Role role) {
  switch (role) {
    case Role::attention: return "attention";
    case Role::mlp: return "mlp";
    case Role::expert: return "expert";
    case Role::router: return "router";
    case Role::norm: return "norm";
    case Role::embedding: return "embedding";
    case Role::head: return "head";
    case Role::vision: return "vision";
    case Role::projector: return "projector";
    case Role::other: return "other";
  }
  throw Bug("unnamed Role");
}

Scope Scope::operator/(std::string_view name) const {
  Scope s = *this;
  s.path_ = join(name);
  return s;
}

Scope Scope::as(Role role) const {
  Scope s = *this;
  s.role_ = role;
  return s;
}

Scope Scope::at_block(int64_t index) const {
  Scope s = *this;
  s.block_ = index;
  return s;
}

Linear Scope::linear(std::string_view name, int64_t out, int64_t in, Bias bias, std::optional<Role> role) const {
  auto site = std::make_shared<LinearSite>();
  site->path = join(name);
  site->out = out;
  site->in = in;
  site->role = role.value_or(role_);
  site->block = block_;
  site->weight = source_->linear(site->path, out, in, site->act);
  return add(std::move(site), bias);
}

Linear Scope::patch_linear(std::string_view name, int64_t out, const std::vector<int64_t>& kernel, Bias bias) const {
  auto site = std::make_shared<LinearSite>();
  site->path = join(name);
  site->out = out;
  site->in = 1;
  site->stored_shape = {out};
  for (int64_t k : kernel) {
    site->in *= k;
    site->stored_shape.push_back(k);
  }
  site->role = role_;
  site->block = block_;
  at::Tensor w = source_->tensor(site->path + ".weight", site->stored_shape);
  if (w.defined()) site->weight = make_dense(w.reshape({out, site->in}));
  return add(std::move(site), bias);
}

Linear Scope::add(std::shared_ptr<LinearSite> site, Bias bias) const {
  if (bias == Bias::yes || (bias == Bias::if_present && source_->has(site->path + ".bias"))) {
    site->bias = source_->tensor(site->path + ".bias", {site->out});
    auto b = std::make_shared<TensorSite>(TensorSite{site->path + ".bias", {site->out}, site->role, block_, site->bias});
    check(params_->tensors.emplace(b->path, b).second, b->path);
  }
  check(params_->linears.emplace(site->path, site).second, site->path);
  return Linear(site);
}

std::shared_ptr<TensorSite> Scope::tensor(std::string_view name, std::vector<int64_t> shape, std::optional<Role> role) const {
  auto site = std::make_shared<TensorSite>();
  site->path = join(name);
  site->shape = shape;
  site->role = role.value_or(role_);
  site->block = block_;
  site->value = source_->tensor(site->path, shape);
  check(params_->tensors.emplace(site->path, site).second, site->path);
  return site;
}

Linear Scope::tied(std::string_view name, const std::shared_ptr<TensorSite>& embedding) const {
  auto site = std::make_shared<LinearSite>();
  site->path = join(name);
  site->out = embedding->shape.at(0);
  site->in = embedding->shape.at(1);
  site->role = Role::head;
  if (embedding->value.defined()) site->weight = make_dense(embedding->value);
  return Linear(site);
}

int64_t Params::count(std::optional<Role> role) const {
  int64_t total = 0;
  for (const auto& [path, site] : linears) {
    if (!role || site->role == *role) total += site->out * site->in;
  }
  for (const auto& [path, site] : tensors) {
    if (role && site->role != *role) continue;
    int64_t n = 1;
    for (int64_t d : site->shape) n *= d;
    total += n;
  }
  return total;
}

int64_t Params::bytes() const {
  int64_t total = 0;
  for (const auto& [path, site] : linears) total += site->weight ? site->weight->bytes() : 0;
  for (const auto& [path, site] : tensors) {
    if (site->value.defined()) total += site->value.numel() * static_cast<int64_t>(site->value.element_size());
  }
  return total;
}

}  // namespace statera
