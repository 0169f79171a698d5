// See sharding.h.
#include "train/sharding.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"

namespace statera {
namespace {

constexpr int64_t kBucket = 25'000'000;  // bytes of gradients or weights exchanged at once

// A tensor of this shape that occupies one element.
at::Tensor stand_in(at::IntArrayRef sizes, at::ScalarType dtype) { return at::zeros({}, dtype).expand(sizes).requires_grad_(true); }

at::Tensor flat(const at::Tensor& t) { return t.detach().reshape({-1}); }

at::Tensor part(const at::Tensor& flat, Slice s) { return flat.slice(0, s.begin, s.end); }

const std::string_view kSuffixes[] = {".lora_A.weight", ".lora_B.weight", ".weight", ".bias"};

// Index of the block that a parameter belongs to; -1 outside of blocks.
int64_t block_of(const Params& params, const std::string& name) {
  if (auto it = params.tensors.find(name); it != params.tensors.end()) return it->second->block;
  for (std::string_view suffix : kSuffixes) {
    if (!name.ends_with(suffix)) continue;
    auto it = params.linears.find(name.substr(0, name.size() - suffix.size()));
    if (it != params.linears.end()) return it->second->block;
  }
  throw Bug("no site of parameter " + name);
}

template <class F>
void in_buckets(const std::vector<at::Tensor>& tensors, F f) {
  std::vector<int64_t> bytes;
  for (const at::Tensor& t : tensors) bytes.push_back(static_cast<int64_t>(t.nbytes()));
  for (const auto& [first, last] : buckets(bytes, kBucket)) f(first, last);
}

}  // namespace

at::Tensor Shards::keep_slice(const at::Tensor& value, at::ScalarType dtype) const {
  const at::Tensor all = flat(value);
  return part(all, slice_of(all.numel(), ranks_.rank(), ranks_.world())).to(dtype, /*non_blocking=*/false, /*copy=*/true);
}

LeafMaker Shards::leaf_maker() {
  if (level_ < 3) return {};
  return [this](const std::string& name, const at::Tensor& value, at::ScalarType dtype) {
    early_[name] = keep_slice(value, dtype);
    return stand_in(value.sizes(), dtype);
  };
}

void Shards::attach(Model& model, std::vector<Parameter>& parameters) {
  model_ = &model;
  for (size_t p = 0; p < parameters.size(); ++p) {
    Parameter& parameter = parameters[p];
    Parameter mine = parameter;
    if (level_ == 3) {
      const auto kept = early_.find(parameter.name);
      mine.leaf = kept != early_.end() ? kept->second : keep_slice(parameter.leaf, parameter.leaf.scalar_type());
      if (kept == early_.end()) {
        parameter.leaf = stand_in(parameter.leaf.sizes(), parameter.leaf.scalar_type());
        put_leaf(model, parameter.name, parameter.leaf);
      }
    } else if (level_ > 0) {
      check(parameter.leaf.is_contiguous(), "leaves lie in one piece");
      mine.leaf = part(flat(parameter.leaf), slice_of(parameter.leaf.numel(), ranks_.rank(), ranks_.world()));
    }
    owned_.push_back(std::move(mine));
    const int64_t block = block_of(model.params, parameter.name);
    const bool vision = parameter.part == Part::vision, language = parameter.part == Part::language;
    Unit& unit = block >= 0 && (vision || language) ? blocks_[{vision, block}] : rest_;
    unit.members.push_back(p);
  }
  early_.clear();
  parameters_ = parameters;
  grads_.resize(parameters.size());
  arrived_.assign(parameters.size(), false);
  if (level_ == 3) tie_head(model);
}

Slice Shards::held(size_t p, int64_t rank) const { return level_ == 0 ? Slice{0, parameters_[p].leaf.numel()} : slice(p, rank); }

Ranks::Pieces Shards::pieces(const std::vector<at::Tensor>& flats, const std::vector<size_t>& members) const {
  Ranks::Pieces out(static_cast<size_t>(ranks_.world()));
  for (size_t r = 0; r < out.size(); ++r) {
    for (size_t i = 0; i < members.size(); ++i) out[r].push_back(part(flats[i], slice(members[i], static_cast<int64_t>(r))));
  }
  return out;
}

std::vector<at::Tensor> Shards::whole_leaves(const std::vector<size_t>& members, bool first_only) const {
  std::vector<at::Tensor> out, flats;
  Ranks::Pieces all(static_cast<size_t>(ranks_.world()));
  if (first_only && !ranks_.first()) {
    for (size_t p : members) all[static_cast<size_t>(ranks_.rank())].push_back(owned_[p].leaf);
    ranks_.to_first(all);
    return out;
  }
  for (size_t p : members) {
    const at::Tensor& own = owned_[p].leaf;
    out.push_back(at::empty(parameters_[p].leaf.sizes(), own.options().requires_grad(false)));
    flats.push_back(out.back().view({-1}));
    part(flats.back(), slice(p, ranks_.rank())).copy_(own);
  }
  all = pieces(flats, members);
  if (first_only) ranks_.to_first(all);
  else ranks_.all_gather(all);
  return out;
}

Shards::Unit* Shards::unit_of(const Stack& stack, int64_t block) {
  const auto it = blocks_.find({dynamic_cast<const VisionStack*>(&stack) != nullptr, block});
  return it == blocks_.end() ? nullptr : &it->second;
}

void Shards::gather(Unit& unit) {
  if (level_ < 3) return;
  at::NoGradGuard no_graph;
  unit.leaves = whole_leaves(unit.members, false);
  for (size_t i = 0; i < unit.members.size(); ++i) put_leaf(*model_, parameters_[unit.members[i]].name, unit.leaves[i].requires_grad_(true));
}

void Shards::release(Unit& unit) {
  if (level_ < 3) return;
  for (size_t p : unit.members) put_leaf(*model_, parameters_[p].name, parameters_[p].leaf);
  unit.leaves.clear();
}

void Shards::open() {
  gather(rest_);
  if (level_ == 3) tie_head(*model_);
}

void Shards::close() {
  release(rest_);
  if (level_ == 3) tie_head(*model_);
}

void Shards::before(const Stack& stack, int64_t block, bool) {
  if (Unit* unit = unit_of(stack, block)) gather(*unit);
}

void Shards::after(const Stack& stack, int64_t block, bool backward) {
  Unit* unit = unit_of(stack, block);
  if (!unit) return;
  if (backward) reduce_unit(*unit);
  release(*unit);
}

// This rank's slices of the sums of all ranks' flat tensors, f32.
std::vector<at::Tensor> Shards::sums(const std::vector<at::Tensor>& flats, const std::vector<size_t>& members) const {
  std::vector<at::Tensor> out;
  in_buckets(flats, [&](size_t first, size_t last) {
    const auto from = static_cast<ptrdiff_t>(first), to = static_cast<ptrdiff_t>(last);
    const std::vector<at::Tensor> some(flats.begin() + from, flats.begin() + to);
    const std::vector<size_t> whose(members.begin() + from, members.begin() + to);
    for (at::Tensor& sum : ranks_.reduce_scatter(pieces(some, whose))) out.push_back(std::move(sum));
  });
  return out;
}

void Shards::reduce_unit(Unit& unit) {
  at::NoGradGuard no_graph;
  std::vector<at::Tensor> flats;
  for (size_t i = 0; i < unit.members.size(); ++i) {
    const size_t p = unit.members[i];
    at::Tensor leaf = level_ == 3 ? unit.leaves[i] : parameters_[p].leaf;
    at::Tensor& g = leaf.mutable_grad();
    arrived_[p] = arrived_[p] || g.defined();
    flats.push_back(g.defined() ? flat(g).contiguous() : at::zeros({leaf.numel()}, leaf.options().requires_grad(false)));
    g = at::Tensor();
  }
  std::vector<at::Tensor> sum = sums(flats, unit.members);
  for (size_t i = 0; i < unit.members.size(); ++i) {
    at::Tensor& kept = grads_[unit.members[i]];
    if (kept.defined()) kept.add_(sum[i]);
    else kept = std::move(sum[i]);
  }
}

std::vector<bool> Shards::anywhere(const std::vector<bool>& here) const {
  std::vector<double> counts(here.begin(), here.end());
  counts = ranks_.sum(counts);
  std::vector<bool> out;
  for (double n : counts) out.push_back(n > 0);
  return out;
}

std::vector<at::Tensor> Shards::reduce(std::vector<at::Tensor> grads) {
  at::NoGradGuard no_graph;
  std::vector<bool> here;
  for (const at::Tensor& g : grads) here.push_back(g.defined());
  const std::vector<bool> there = anywhere(here);
  std::vector<size_t> members;
  std::vector<at::Tensor> flats, out(grads.size());
  for (size_t p = 0; p < grads.size(); ++p) {
    if (!there[p]) continue;
    const at::Tensor& leaf = parameters_[p].leaf;
    members.push_back(p);
    flats.push_back(here[p] ? flat(grads[p]).contiguous() : at::zeros({leaf.numel()}, leaf.options().requires_grad(false)));
  }
  const std::vector<at::Tensor> sum = sums(flats, members);
  if (level_ > 0) {
    for (size_t i = 0; i < members.size(); ++i) out[members[i]] = sum[i];
    return out;
  }
  for (size_t i = 0; i < members.size(); ++i) {
    if (flats[i].scalar_type() != at::kFloat) flats[i] = at::empty(flats[i].sizes(), flats[i].options().dtype(at::kFloat));
    part(flats[i], slice(members[i], ranks_.rank())).copy_(sum[i]);
    out[members[i]] = flats[i].view(parameters_[members[i]].leaf.sizes());
  }
  in_buckets(flats, [&](size_t first, size_t last) {
    const auto from = static_cast<ptrdiff_t>(first), to = static_cast<ptrdiff_t>(last);
    ranks_.all_gather(pieces({flats.begin() + from, flats.begin() + to}, {members.begin() + from, members.begin() + to}));
  });
  return out;
}

std::vector<at::Tensor> Shards::take() {
  reduce_unit(rest_);
  const std::vector<bool> there = anywhere(arrived_);
  std::vector<at::Tensor> out(grads_.size());
  for (size_t p = 0; p < grads_.size(); ++p) {
    if (there[p]) out[p] = std::move(grads_[p]);
    grads_[p] = at::Tensor();
  }
  arrived_.assign(arrived_.size(), false);
  return out;
}

double Shards::norm(const std::vector<at::Tensor>& grads) const {
  // The same additions at every level: squares within a slice, over slices by rank, over parameters.
  const int64_t slices = level_ == 0 ? ranks_.world() : 1;
  std::vector<double> squares(grads.size(), 0);
  parallel_for(static_cast<int64_t>(grads.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto p = static_cast<size_t>(i);
      if (!grads[p].defined()) continue;
      for (int64_t r = 0; r < slices; ++r) squares[p] += square_sum(level_ == 0 ? part(flat(grads[p]), slice(p, r)) : grads[p]);
    }
  });
  if (level_ > 0) squares = ranks_.sum(squares);
  return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}

void Shards::spread() const {
  if (level_ == 0 || level_ == 3) return;
  at::NoGradGuard no_graph;
  std::vector<at::Tensor> flats;
  std::vector<size_t> members(parameters_.size());
  std::iota(members.begin(), members.end(), size_t{0});
  for (const Parameter& p : parameters_) flats.push_back(flat(p.leaf));
  in_buckets(flats, [&](size_t first, size_t last) {
    const auto from = static_cast<ptrdiff_t>(first), to = static_cast<ptrdiff_t>(last);
    ranks_.all_gather(pieces({flats.begin() + from, flats.begin() + to}, {members.begin() + from, members.begin() + to}));
  });
}

void Shards::gather_states(const std::vector<AdamW::State>& states, const TakeState& take) const {
  at::NoGradGuard no_graph;
  for (size_t p = 0; p < states.size(); ++p) {
    const AdamW::State& s = states[p];
    const AdamW::State own{s.m, s.v, {}, {}, s.master.defined() ? s.master : owned_[p].leaf.detach()};
    if (level_ == 0) {
      if (ranks_.first()) take(p, own);
      continue;
    }
    Ranks::Pieces all(static_cast<size_t>(ranks_.world()));
    AdamW::State whole;
    if (ranks_.first()) {
      const auto options = own.m.options().dtype(at::kFloat).requires_grad(false);
      for (at::Tensor* t : {&whole.m, &whole.v, &whole.master}) *t = at::empty({parameters_[p].leaf.numel()}, options);
      for (int64_t r = 0; r < ranks_.world(); ++r) {
        for (const at::Tensor& t : {whole.m, whole.v, whole.master}) all[static_cast<size_t>(r)].push_back(part(t, slice(p, r)));
      }
      all[0][0].copy_(own.m);
      all[0][1].copy_(own.v);
      all[0][2].copy_(own.master);
    } else {
      all[static_cast<size_t>(ranks_.rank())] = {own.m, own.v, own.master};
    }
    ranks_.to_first(all);
    if (!ranks_.first()) continue;
    for (at::Tensor* t : {&whole.m, &whole.v, &whole.master}) *t = t->view(parameters_[p].leaf.sizes());
    take(p, whole);
  }
}

std::vector<AdamW::State> Shards::scatter_states(const ReadState& read) const {
  at::NoGradGuard no_graph;
  std::vector<AdamW::State> out;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const at::Tensor& leaf = owned_[p].leaf;
    Ranks::Pieces all(static_cast<size_t>(ranks_.world()));
    auto& own = all[static_cast<size_t>(ranks_.rank())];
    if (ranks_.first()) {
      const AdamW::State whole = read(p);
      for (int64_t r = 0; r < ranks_.world(); ++r) {
        for (const at::Tensor& t : {whole.m, whole.v, whole.master}) all[static_cast<size_t>(r)].push_back(part(flat(t), held(p, r)));
      }
      for (at::Tensor& t : own) t = t.clone();
    } else {
      for (int i = 0; i < 3; ++i) own.push_back(at::empty({held(p, ranks_.rank()).size()}, leaf.options().dtype(at::kFloat).requires_grad(false)));
    }
    ranks_.from_first(all);
    for (at::Tensor& t : own) t = t.view(leaf.sizes());
    AdamW::State s{own[0], own[1], {}, {}, {}};
    if (leaf.scalar_type() == at::kFloat) leaf.detach().copy_(own[2]);
    else s.master = own[2];
    out.push_back(std::move(s));
  }
  return out;
}

void Shards::with_whole_weights(const std::function<void(const std::vector<Parameter>&)>& f) {
  if (level_ < 3) {
    if (ranks_.first()) f(parameters_);
    return;
  }
  at::NoGradGuard no_graph;
  std::vector<Parameter> whole = parameters_;
  for (size_t p = 0; p < whole.size(); ++p) {
    const std::vector<at::Tensor> leaf = whole_leaves({p}, true);
    if (!ranks_.first()) continue;
    whole[p].leaf = leaf[0];
    put_leaf(*model_, whole[p].name, leaf[0]);
  }
  if (!ranks_.first()) return;
  tie_head(*model_);
  f(whole);
  for (const Parameter& p : parameters_) put_leaf(*model_, p.name, p.leaf);
  tie_head(*model_);
}

}  // namespace statera
