// See ranks.h. All of it is rounds of links.h.
#include "train/ranks.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "train/links.h"

namespace statera {
namespace {

constexpr std::chrono::milliseconds kJoin{300'000};  // in which all ranks must have come

std::span<const std::byte> bytes(const at::Tensor& t) {
  check(t.is_contiguous(), "what ranks exchange lies in one piece");
  return {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()};
}

std::span<std::byte> room(const at::Tensor& t) {
  check(t.is_contiguous(), "what ranks exchange lies in one piece");
  return {static_cast<std::byte*>(t.mutable_data_ptr()), t.nbytes()};
}

template <class Spans, class F>
Spans each(const std::vector<at::Tensor>& tensors, F f) {
  Spans out;
  for (const at::Tensor& t : tensors) out.push_back(f(t));
  return out;
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text.data(), text.size())); }

}  // namespace

Ranks::Ranks() = default;
Ranks::~Ranks() = default;
Ranks::Ranks(Ranks&&) noexcept = default;
Ranks& Ranks::operator=(Ranks&&) noexcept = default;

Ranks::Ranks(const Launch& launch, std::chrono::milliseconds wait) : rank_(launch.rank), world_(launch.world) {
  if (world_ > 1) links_ = std::make_unique<Links>(launch, std::min(wait, kJoin), wait);
}

std::vector<std::string> Ranks::deal(const std::vector<std::string>& out) const {
  const auto world = static_cast<size_t>(world_), self = static_cast<size_t>(rank_);
  check(out.size() == world, "something for each rank");
  std::vector<std::string> in(world);
  in[self] = out[self];
  if (alone()) return in;
  std::vector<uint64_t> sizes(world), coming(world);
  std::vector<Links::Parts> send(world);
  std::vector<Links::Rooms> receive(world);
  for (size_t r = 0; r < world; ++r) {
    sizes[r] = out[r].size();
    send[r] = {std::as_bytes(std::span(&sizes[r], 1))};
    receive[r] = {std::as_writable_bytes(std::span(&coming[r], 1))};
  }
  links_->exchange(send, receive);
  for (size_t r = 0; r < world; ++r) {
    if (r != self) in[r].resize(coming[r]);
    send[r] = {bytes_of(out[r])};
    receive[r] = {std::as_writable_bytes(std::span(in[r].data(), in[r].size()))};
  }
  links_->exchange(send, receive);
  return in;
}

std::vector<std::string> Ranks::gather(const std::string& mine) const { return deal(std::vector<std::string>(static_cast<size_t>(world_), mine)); }

std::string Ranks::first_says(const std::function<std::string()>& f) const {
  if (alone()) return f();
  std::string text;  // 'k' and what f makes, or 'e', the kind of the error as one character, and its message
  if (first()) {
    try {
      text = "k" + f();
    } catch (const Error& e) {
      text = std::string("e") + static_cast<char>(e.kind()) + e.message();
    }
  }
  text = deal(std::vector<std::string>(static_cast<size_t>(world_), text)).front();
  check(!text.empty(), "the first rank says something");
  if (text[0] == 'e') throw Error(static_cast<ErrorKind>(text[1]), text.substr(2));
  return text.substr(1);
}

std::vector<double> Ranks::sum(const std::vector<double>& mine) const {
  if (alone()) return mine;
  const auto world = static_cast<size_t>(world_), self = static_cast<size_t>(rank_);
  std::vector<std::vector<double>> all(world, std::vector<double>(mine.size()));
  all[self] = mine;
  std::vector<Links::Rooms> receive(world);
  for (size_t r = 0; r < world; ++r) receive[r] = {std::as_writable_bytes(std::span(all[r]))};
  links_->exchange(std::vector<Links::Parts>(world, {std::as_bytes(std::span(mine))}), receive);
  std::vector<double> out(mine.size(), 0);
  for (const auto& of_rank : all) {
    for (size_t i = 0; i < out.size(); ++i) out[i] += of_rank[i];
  }
  return out;
}

bool Ranks::any(bool mine) const { return sum({mine ? 1.0 : 0.0})[0] > 0; }

std::vector<at::Tensor> Ranks::reduce_scatter(const Pieces& pieces) const {
  at::NoGradGuard no_graph;
  const auto world = static_cast<size_t>(world_), self = static_cast<size_t>(rank_);
  check(pieces.size() == world, "pieces for each rank");
  Pieces terms(world);
  std::vector<Links::Parts> send(world);
  std::vector<Links::Rooms> receive(world);
  for (size_t r = 0; r < world; ++r) {
    if (r == self) {
      terms[r] = pieces[r];
      continue;
    }
    send[r] = each<Links::Parts>(pieces[r], bytes);
    for (const at::Tensor& t : pieces[self]) terms[r].push_back(at::empty(t.sizes(), t.options().requires_grad(false)));
    receive[r] = each<Links::Rooms>(terms[r], room);
  }
  if (!alone()) links_->exchange(send, receive);
  std::vector<at::Tensor> out;
  for (size_t i = 0; i < pieces[self].size(); ++i) {
    at::Tensor sum = terms[0][i].detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    for (size_t r = 1; r < world; ++r) sum.add_(terms[r][i]);
    out.push_back(std::move(sum));
  }
  return out;
}

void Ranks::all_gather(const Pieces& pieces) const {
  if (alone()) return;
  const auto world = static_cast<size_t>(world_);
  check(pieces.size() == world, "pieces of each rank");
  std::vector<Links::Rooms> receive(world);
  for (size_t r = 0; r < world; ++r) receive[r] = each<Links::Rooms>(pieces[r], room);
  links_->exchange(std::vector<Links::Parts>(world, each<Links::Parts>(pieces[static_cast<size_t>(rank_)], bytes)), receive);
}

void Ranks::to_first(const Pieces& pieces) const {
  if (alone()) return;
  const auto world = static_cast<size_t>(world_);
  std::vector<Links::Parts> send(world);
  std::vector<Links::Rooms> receive(world);
  if (!first()) send[0] = each<Links::Parts>(pieces[static_cast<size_t>(rank_)], bytes);
  for (size_t r = 1; first() && r < world; ++r) receive[r] = each<Links::Rooms>(pieces[r], room);
  links_->exchange(send, receive);
}

void Ranks::from_first(const Pieces& pieces) const {
  if (alone()) return;
  const auto world = static_cast<size_t>(world_);
  std::vector<Links::Parts> send(world);
  std::vector<Links::Rooms> receive(world);
  for (size_t r = 1; first() && r < world; ++r) send[r] = each<Links::Parts>(pieces[r], bytes);
  if (!first()) receive[0] = each<Links::Rooms>(pieces[static_cast<size_t>(rank_)], room);
  links_->exchange(send, receive);
}

}  // namespace statera
