// Encoding, copying and the accounting of one unit.
#include "quant/unit.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace statera {
namespace {

constexpr uint64_t kCopyPiece = 8u << 20;

void check_scales(const QTensor& q, const std::string& place) {
  const at::Tensor s = q.scale.to(at::kFloat).contiguous();
  const float* v = s.const_data_ptr<float>();
  for (int64_t i = 0; i < s.numel(); ++i) {
    if (!std::isfinite(v[i]) || v[i] == 0) throw Error(ErrorKind::bad_file, place + ": rounding gave a scale that is no positive number");
  }
}

}  // namespace

UnitWriter::UnitWriter(const UnitContext& context, const UnitPlan& unit) : context_(context), unit_(unit) {
  entry_.unit = unit.name;
  for (size_t i : unit.layers) {
    const LayerPlan& l = context.plan.layers[i];
    sites_.push_back(l.site);
    open_.insert(l.site->path);
  }
}

JournalEntry UnitWriter::run(Recipe& recipe) {
  if (calibrated()) save_block();
  for (auto& step : recipe) apply(*step);
  check(open_.empty(), "a step left a layer unfinished: " + (open_.empty() ? std::string() : *open_.begin()));
  if (calibrated()) {
    if (context_.propagate_original) restore_block();
    context_.calibrator->advance(unit_.block);
    restore_block();
  }
  for (const std::string& name : unit_.kept) copy(name);
  settle();
  // Small tensors share pages with their neighbours, so they are let go together.
  for (const std::string& name : unit_.kept) context_.source.checkpoint().release(name);
  for (const auto& [name, value] : rewritten_) {
    const std::string disk = context_.source.disk_tensor(name);
    check(std::find(unit_.kept.begin(), unit_.kept.end(), disk) != unit_.kept.end(),
          "rewritten tensor is no kept one of this block: " + name);
  }
  entry_.rewrote = rewrote();
  return std::move(entry_);
}

UnitWriter::~UnitWriter() { restore_block(); }

void UnitWriter::apply(Step& step) {
  for (auto& phase : phases(step)) {
    phase_ = std::move(phase);
    if (calibrated() && step.needs_data()) observe(step);
    step.apply(*this);
    statistics_.clear();
  }
}

// The layers still to be finished, in one piece or as the topology orders them.
std::vector<std::vector<std::shared_ptr<LinearSite>>> UnitWriter::phases(const Step& step) const {
  std::vector<std::vector<std::shared_ptr<LinearSite>>> out;
  std::set<std::string> placed;
  auto add = [&](const auto& sites) {
    std::vector<std::shared_ptr<LinearSite>> phase;
    for (const std::shared_ptr<LinearSite>& site : sites) {
      if (open_.count(site->path) && placed.insert(site->path).second) phase.push_back(site);
    }
    if (!phase.empty()) out.push_back(std::move(phase));
  };
  if (calibrated() && step.phased()) {
    for (const auto& linears : stack()->topology(unit_.block).phases) {
      std::vector<std::shared_ptr<LinearSite>> sites;
      for (const Linear& l : linears) sites.push_back(l.handle());
      add(sites);
    }
  }
  add(sites_);
  return out;
}

void UnitWriter::observe(Step& step) {
  // A block calls a layer once per sample, so a sample is done with when every watched layer was called. Layers that some samples do not
  // reach (experts) let the block run to its end.
  struct Collector : Tap {
    std::map<const LinearSite*, std::unique_ptr<Accumulator>>& into;
    size_t seen = 0;
    std::shared_ptr<Side> sample;  // held, so that the next one has another address
    explicit Collector(std::map<const LinearSite*, std::unique_ptr<Accumulator>>& to) : into(to) {}
    void linear(const LinearSite& site, const at::Tensor& x, const at::Tensor& y, const Pass& pass) override {
      auto it = into.find(&site);
      if (it == into.end()) return;
      it->second->add(x, y, pass);
      if (std::exchange(sample, pass.side) != pass.side) seen = 0;
      if (++seen == into.size()) {
        seen = 0;
        throw Calibrator::Enough();
      }
    }
  } collector(statistics_);
  for (const auto& site : phase_) {
    if (auto a = step.watch(*site)) statistics_[site.get()] = std::move(a);
  }
  if (!statistics_.empty()) context_.calibrator->observe(unit_.block, collector);
}

void UnitWriter::save_block() {
  const std::string prefix = unit_.name + ".";
  for (const auto& [path, site] : context_.model.params.linears) {
    if (path.starts_with(prefix)) saved_linears_[site] = {site->weight, site->bias};
  }
  for (const auto& [path, site] : context_.model.params.tensors) {
    if (path.starts_with(prefix)) saved_tensors_[site] = site->value;
  }
}

void UnitWriter::restore_block() {
  for (const auto& [site, was] : saved_linears_) std::tie(site->weight, site->bias) = was;
  for (const auto& [site, was] : saved_tensors_) site->value = was;
}

Accumulator* UnitWriter::statistics(const LinearSite& site) {
  auto it = statistics_.find(&site);
  return it == statistics_.end() ? nullptr : it->second.get();
}

void UnitWriter::measured(const LinearSite& site, const OutputLoss& loss) { losses_[site.path] = loss; }

const LayerPlan& UnitWriter::layer_of(const LinearSite& site) const {
  for (size_t i : unit_.layers) {
    if (context_.plan.layers[i].site.get() == &site) return context_.plan.layers[i];
  }
  throw Bug("layer of another block: " + site.path);
}

void UnitWriter::finish(const LinearSite& site, QTensor q, std::optional<RoundingError> error) {
  const LayerPlan& layer = layer_of(site);
  check(open_.erase(site.path) == 1, "layer finished twice: " + site.path);
  const Checkpoint& ckpt = context_.source.checkpoint();
  check_scales(q, ckpt.place(layer.source));
  if (!error) error = rounding_error(site.weight->dense(), q);
  write_later(context_.format.encode(layer.stored, q));
  JournalEntry::Layer line{layer.stored.path, *error, {}};
  if (auto loss = losses_.find(site.path); loss != losses_.end()) line.loss = loss->second;
  entry_.layers.push_back(std::move(line));
  if (calibrated()) const_cast<LinearSite&>(site).weight = make_calibrated(q);
  context_.progress.advance(static_cast<double>(ckpt.find(layer.source)->bytes), unit_.name);
  ckpt.release(layer.source);
  check_cancelled();
}

// Copying into the page cache is one core's work; the next layer is rounded meanwhile. One layer at a time, so memory stays bounded.
void UnitWriter::write_later(NamedTensors tensors) {
  std::vector<ShardFile*> shards;
  for (const auto& [name, tensor] : tensors) shards.push_back(&shard_of(name));
  settle();
  pending_ = std::async(std::launch::async, [shards = std::move(shards), tensors = std::move(tensors)] {
    for (size_t i = 0; i < tensors.size(); ++i) shards[i]->write(tensors[i].first, tensors[i].second);
  });
}

void UnitWriter::settle() {
  if (pending_.valid()) pending_.get();
}

void UnitWriter::refuse(const LinearSite& site, std::string_view reason) const {
  throw Error(ErrorKind::bad_file, context_.source.checkpoint().place(layer_of(site).source) + ": " + std::string(reason));
}

void UnitWriter::scaled(ScaleRecord record) { entry_.scales.push_back(std::move(record)); }

void UnitWriter::rewrite(const std::string& name, const at::Tensor& value) { rewritten_[name] = value; }

ShardFile& UnitWriter::shard_of(const std::string& name) {
  const size_t i = context_.plan.shards.file_of.at(name);
  touched_.insert(i);
  return context_.shards[i];
}

void UnitWriter::copy(const std::string& name) {
  const Checkpoint& ckpt = context_.source.checkpoint();
  const SafetensorsFile& file = ckpt.file_of(name);
  const TensorInfo& info = *ckpt.find(name);
  ShardFile& shard = shard_of(name);
  auto internal = context_.plan.internal_of.find(name);
  auto changed = internal == context_.plan.internal_of.end() ? rewritten_.end() : rewritten_.find(internal->second);
  if (changed != rewritten_.end()) {
    check(changed->second.sizes().vec() == info.shape, "rewritten tensor of another shape: " + name);
    shard.write(name, changed->second.to(info.dtype));
    context_.progress.advance(static_cast<double>(info.bytes), unit_.name);
    return;
  }
  const MappedFile& map = file.mapping();
  map.check_not_truncated();
  for (uint64_t at = 0; at < info.bytes; at += kCopyPiece) {
    const uint64_t size = std::min(kCopyPiece, info.bytes - at);
    shard.write_bytes(name, at, map.data() + info.offset + at, size);
    // Only whole pieces of large tensors: small neighbours share pages, and are read next.
    if (info.bytes >= kCopyPiece) map.release(info.offset + at, size);
    context_.progress.advance(static_cast<double>(size), unit_.name);
    check_cancelled();
  }
}

void UnitWriter::check_cancelled() const {
  if (context_.cancel && context_.cancel->load()) throw Error(ErrorKind::interrupted, "stopped at " + unit_.name);
}

void prefetch_unit(const CheckpointSource& source, const OutputPlan& plan, const UnitPlan& unit) {
  const Checkpoint& ckpt = source.checkpoint();
  auto ask = [&](const std::string& name) { ckpt.file_of(name).prefetch(*ckpt.find(name)); };
  for (size_t i : unit.layers) ask(plan.layers[i].source);
  for (const std::string& name : unit.kept) ask(name);
}

}  // namespace statera
