// See deal.h.
#include "train/deal.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace statera {
namespace {

class Writer {
 public:
  template <class T>
    requires std::is_trivially_copyable_v<T>
  void put(const T& value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view t) {
    put(t.size());
    out_.append(t);
  }
  template <class T>
  void list(const std::vector<T>& values) {
    put(values.size());
    for (const T& v : values) put(v);
  }
  void tensor(const at::Tensor& t) {
    put(t.defined());
    if (!t.defined()) return;
    const at::Tensor flat = t.contiguous();
    put(t.scalar_type());
    list(t.sizes().vec());
    out_.append(static_cast<const char*>(flat.const_data_ptr()), flat.nbytes());
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  template <class T>
  T get() {
    T value;
    std::memcpy(&value, next(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() { return std::string(next(get<size_t>())); }
  template <class T>
  std::vector<T> list() {
    std::vector<T> out(get<size_t>());
    for (T& v : out) v = get<T>();
    return out;
  }
  at::Tensor tensor() {
    if (!get<bool>()) return {};
    const auto dtype = get<at::ScalarType>();
    at::Tensor out = at::empty(list<int64_t>(), dtype);
    const std::string_view data = next(out.nbytes());
    if (!data.empty()) std::memcpy(out.mutable_data_ptr(), data.data(), data.size());
    return out;
  }
  bool done() const { return in_.empty(); }

 private:
  std::string_view next(size_t bytes) {
    check(bytes <= in_.size(), "bytes of a sample");
    const std::string_view out = in_.substr(0, bytes);
    in_.remove_prefix(bytes);
    return out;
  }
  std::string_view in_;
};

// The first item not before `first` that `rank` makes.
uint64_t first_of(uint64_t first, const Ranks& ranks) {
  const auto world = static_cast<uint64_t>(ranks.world()), rank = static_cast<uint64_t>(ranks.rank());
  return first + (rank + world - first % world) % world;
}

}  // namespace

std::string sample_bytes(const TrainSample& s) {
  Writer out;
  const ModelInputs& in = s.inputs;
  for (const at::Tensor& t : {in.input_ids, in.position_ids, in.pixel_values, in.pixel_values_videos, s.learned_T}) out.tensor(t);
  out.list(in.bounds);
  out.list(in.image_grid_thw);
  out.list(in.video_grid_thw);
  out.list(in.second_per_grid_ts);
  out.text(s.where);
  return out.take();
}

TrainSample sample_from(std::string_view bytes) {
  Reader from(bytes);
  TrainSample s;
  ModelInputs& in = s.inputs;
  for (at::Tensor* t : {&in.input_ids, &in.position_ids, &in.pixel_values, &in.pixel_values_videos, &s.learned_T}) *t = from.tensor();
  in.bounds = from.list<SequenceBounds::value_type>();
  in.image_grid_thw = from.list<Grid>();
  in.video_grid_thw = from.list<Grid>();
  in.second_per_grid_ts = from.list<double>();
  s.where = from.text();
  check(from.done(), "bytes of a sample");
  return s;
}

Dealer::Dealer(Loader::Make make, uint64_t first, int64_t threads, uint64_t ahead, const Ranks& ranks)
    : ranks_(ranks), position_(first),
      loader_([make = std::move(make), start = first_of(first, ranks), stride = static_cast<uint64_t>(ranks.world())](uint64_t k) { return make(start + k * stride); },
              0, threads, std::max<uint64_t>(1, ahead / static_cast<uint64_t>(ranks.world()))) {}

// The next `count` items: what each rank made of its own becomes known to all.
void Dealer::round(uint64_t count, std::vector<TrainSample>& made, std::vector<Known>& good, const Bad& bad) {
  const auto world = static_cast<uint64_t>(ranks_.world());
  std::vector<Known> here;
  Writer facts;
  for (uint64_t item = position_; item < position_ + count; ++item) {
    if (item % world != static_cast<uint64_t>(ranks_.rank())) continue;
    Loader::Item got = loader_.next();
    facts.put(got.sample.has_value());
    if (got.sample) {
      here.push_back({item, cost_of(*got.sample), static_cast<int64_t>(made.size())});
      facts.put(here.back().cost);
      made.push_back(std::move(*got.sample));
    } else {
      facts.put(got.bad->fault());
      facts.put(got.bad->kind());
      facts.text(got.bad->message());
    }
  }
  const std::vector<std::string> told = ranks_.gather(facts.take());
  std::vector<Reader> readers(told.begin(), told.end());
  auto own = here.begin();
  for (const uint64_t end = position_ + count; position_ < end;) {
    const uint64_t item = position_++;
    Reader& from = readers[item % world];
    if (from.get<bool>()) {
      const Known known{item, from.get<int64_t>(), -1};
      good.push_back(own != here.end() && own->item == item ? *own++ : known);
    } else {
      const auto fault = from.get<Fault>();
      const auto kind = from.get<ErrorKind>();
      bad(BadItem(fault, Error(kind, from.text())), position_);
    }
  }
}

std::vector<TrainSample> Dealer::send(std::vector<TrainSample> made, const std::vector<Known>& good) const {
  if (ranks_.alone()) return made;
  std::vector<int64_t> costs;
  for (const Known& k : good) costs.push_back(k.cost);
  const auto shares = share_costs(costs, ranks_.world());
  const auto self = static_cast<size_t>(ranks_.rank()), world = static_cast<size_t>(ranks_.world());
  std::vector<std::string> out(world);
  for (size_t r = 0; r < world; ++r) {
    Writer packed;
    for (size_t i : shares[r]) {
      if (good[i].here >= 0 && r != self) packed.text(sample_bytes(made[static_cast<size_t>(good[i].here)]));
    }
    out[r] = packed.take();
  }
  const std::vector<std::string> in = ranks_.deal(out);
  std::vector<Reader> readers(in.begin(), in.end());
  std::vector<TrainSample> mine;
  for (size_t i : shares[self]) {
    if (good[i].here >= 0) mine.push_back(std::move(made[static_cast<size_t>(good[i].here)]));
    else mine.push_back(sample_from(readers[good[i].item % world].text()));
  }
  return mine;
}

Dealer::Batch Dealer::next(int64_t wanted, uint64_t end, const Bad& bad) {
  std::vector<TrainSample> made;
  std::vector<Known> good;
  while (static_cast<int64_t>(good.size()) < wanted && position_ < end)
    round(std::min(static_cast<uint64_t>(wanted) - good.size(), end - position_), made, good, bad);
  return {send(std::move(made), good), static_cast<int64_t>(good.size())};
}

}  // namespace statera
