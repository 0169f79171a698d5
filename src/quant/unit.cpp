// Encoding, copying and the accounting of one unit.
#include "quant/unit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "quant/checksum.h"

namespace statera {
namespace {

constexpr uint64_t kCopyPiece = 8u << 20;

// Adds the time until its end to a phase of the run, for the report.
class Stopwatch {
 public:
  Stopwatch(std::map<std::string, double>* times, const char* phase) : times_(times), phase_(phase), start_(Clock::now()) {}
  ~Stopwatch() {
    if (times_) (*times_)[phase_] += std::chrono::duration<double>(Clock::now() - start_).count();
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  std::map<std::string, double>* times_;
  const char* phase_;
  Clock::time_point start_;
};

void check_scales(const QTensor& q, const std::string& place) {
  const at::Tensor s = q.scale.to(at::kFloat).contiguous();
  const float* v = s.const_data_ptr<float>();
  for (int64_t i = 0; i < s.numel(); ++i) {
    if (!std::isfinite(v[i]) || v[i] == 0) throw Error(ErrorKind::bad_file, place + ": rounding gave a scale that is no positive number");
  }
}

// "down_proj" of "model.layers.3.mlp.experts.7.down_proj".
std::string_view projection(std::string_view path) { return path.substr(path.rfind('.') + 1); }

}  // namespace

UnitWriter::UnitWriter(const UnitContext& context, const UnitPlan& unit) : context_(context), unit_(unit) {
  entry_.unit = unit.name;
  for (size_t i : unit.layers) {
    const LayerPlan& l = context.plan.layers[i];
    sites_.push_back(l.site);
    open_.insert(l.site->path);
  }
  find_walk();
}

const Stack* UnitWriter::stack() const {
  if (unit_.block < 0) return nullptr;
  return unit_.vision ? static_cast<const Stack*>(context_.model.vision()) : &context_.model.language();
}

void UnitWriter::find_walk() {
  if (!context_.calibrator) return;
  const CalibSummary& d = context_.calibrator->data().summary;
  if (unit_.vision) {
    walk_ = context_.vision;
    original_ = context_.original_vision;
    if (walk_) rows_[1] = unit_.block >= 0 ? walk_->rows() : d.vision_tokens;
  } else if (unit_.block >= 0 || !unit_.layers.empty()) {
    walk_ = context_.calibrator;
    original_ = context_.original;
    rows_[0] = d.tokens - d.vision_tokens;
    rows_[1] = d.vision_tokens;
  }
  if (walk_) place_ = unit_.block >= 0 ? unit_.block : walk_->blocks();
}

JournalEntry UnitWriter::run(Recipe& recipe) {
  save_layers();
  if (calibrated()) {
    evidence_.emplace(rows_[0], rows_[1], 0);
    runs_.emplace(*walk_, place_, context_.run_memory);
  }
  for (auto& step : recipe) apply(*step);
  check(open_.empty(), "a step left a layer unfinished: " + (open_.empty() ? std::string() : *open_.begin()));
  if (calibrated()) {
    Stopwatch watch(context_.times, "next inputs");
    if (context_.propagate_original) {
      runs_->forget();
      saved_.restore();
    }
    pass_on(*runs_, *context_.calibrator, context_.vision);
    runs_.reset();
    saved_.restore();
    if (original_) {
      BlockRuns runs(*original_, place_, context_.run_memory);
      pass_on(runs, *context_.original, context_.original_vision);
    }
  }
  Stopwatch watch(context_.times, "copy");
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

// To the next block, or from the projectors to the language stack; behind the head comes nothing.
void UnitWriter::pass_on(BlockRuns& runs, Calibrator& language, const VisionCalibrator* vision) {
  if (unit_.block >= 0) return runs.advance();
  if (!unit_.vision) return;
  language.enter([vision](size_t i) { return vision->features(i); }, context_.samples);
}

void UnitWriter::apply(Step& step) {
  if (runs_) runs_->forget();  // earlier steps may have changed what runs have passed
  for (auto& phase : phases(step)) {
    phase_ = std::move(phase);
    if (calibrated() && step.needs_data()) {
      Stopwatch watch(context_.times, "look at activations");
      observe(step);
    }
    {
      Stopwatch watch(context_.times, "choose and round");
      step.apply(*this);
    }
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
  if (calibrated() && step.phased() && stack()) {
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
  step.begin(*this);
  for (const auto& site : phase_) {
    if (auto a = step.watch(*site)) statistics_[site.get()] = std::move(a);
  }
  for (const ScaleGroup& group : topology().groups) {
    if (!group.whole || statistics_.count(&group.whole.site())) continue;
    if (auto a = step.watch_whole(group.whole.site())) statistics_[&group.whole.site()] = std::move(a);
  }
  if (statistics_.empty()) return;
  std::vector<const LinearSite*> layers;
  std::set<const LinearSite*> watched, fresh, open;  // others that are watched whole; layers whose first inputs these are; that will be rounded
  for (const auto& [site, accumulator] : statistics_) watched.insert(site);
  for (const auto& site : phase_) {
    if (!evidence_->has(*site)) fresh.insert(site.get());
    if (watched.erase(site.get()) || fresh.count(site.get())) layers.push_back(site.get());
  }
  for (const ScaleGroup& group : topology().groups) {
    if (group.whole && watched.erase(&group.whole.site())) layers.push_back(&group.whole.site());
  }
  for (const auto& site : sites_) {
    if (open_.count(site->path)) open.insert(site.get());
  }
  auto take = [&](const LinearSite& site, const at::Tensor& x, const Pass& pass) {
    if (Accumulator* into = statistics(site)) into->add(x, pass);
    if (fresh.count(&site)) evidence_->add(site, x, pass);
  };
  runs_->observe(layers, take, step.phased() ? &open : nullptr);
  evidence_->close();
}

void UnitWriter::observe(Inputs inputs, const std::map<const LinearSite*, Accumulator*>& into) {
  StackWalk* walk = inputs == Inputs::original ? original_ : walk_;
  check(walk != nullptr, "samples that no step has asked for");
  std::vector<const LinearSite*> layers;
  for (const auto& [site, accumulator] : into) layers.push_back(site);
  BlockRuns(*walk, place_, context_.run_memory).observe(layers, [&](const LinearSite& site, const at::Tensor& x, const Pass& pass) { into.at(&site)->add(x, pass); });
}

// Of a block all that steps may change, else the layers that are rounded.
void UnitWriter::save_layers() {
  for (const auto& site : sites_) saved_.keep(site);
  if (!stack()) return;
  const std::string prefix = unit_.name + ".";
  for (const auto& [path, site] : context_.model.params.linears) {
    if (path.starts_with(prefix)) saved_.keep(site);
  }
  for (const auto& [path, site] : context_.model.params.tensors) {
    if (path.starts_with(prefix)) saved_.keep(site);
  }
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
  StoredLinear stored = layer.stored;
  if (stored.act && stored.act->is_static) stored.act->scale = static_scale(site, stored);
  write_later(context_.format.encode(stored, q));
  JournalEntry::Layer line{layer.stored.path, *error, {}, {}};
  if (auto loss = losses_.find(site.path); loss != losses_.end()) line.loss = loss->second;
  if (evidence_) gather_evidence(site, q, stored.act, line);
  entry_.layers.push_back(std::move(line));
  if (calibrated()) {
    const_cast<LinearSite&>(site).weight = make_calibrated(q);
    const_cast<LinearSite&>(site).act = stored.act;
  }
  context_.progress.advance(static_cast<double>(layer.source_bytes()), unit_.name);
  context_.source.release(site);
  check_cancelled();
}

// By the largest input of all samples. An expert that none of them reaches goes by the inputs of the others.
float UnitWriter::static_scale(const LinearSite& site, const StoredLinear& stored) const {
  check(evidence_.has_value(), "static scales without samples");
  std::optional<float> largest;
  for (const auto& other : sites_) {
    const bool counts = evidence_->has(site) ? other.get() == &site : other->role == site.role && projection(other->path) == projection(site.path);
    if (counts && evidence_->has(*other)) largest = std::max(largest.value_or(0), evidence_->largest_input(*other, factor_of(in_, *other)));
  }
  if (!largest) refuse(site, "no sample reaches it: its inputs have no static scale");
  if (!std::isfinite(*largest)) refuse(site, "its inputs on the samples are no finite numbers");
  const double half = (1 << (stored.act->bits - 1)) - 0.5;
  const float scale = at::tensor({*largest / half}, at::kDouble).to(stored.scale_dtype).to(at::kFloat).item<float>();
  return scale > 0 ? scale : 1;  // inputs that are all 0 have their codes with any scale
}

at::Tensor UnitWriter::factor_of(const std::map<const LinearSite*, at::Tensor>& map, const LinearSite& site) {
  auto it = map.find(&site);
  return it == map.end() ? at::Tensor() : it->second;
}

// The layer as the source holds it, against what was rounded with the foldings taken back.
void UnitWriter::gather_evidence(const LinearSite& site, const QTensor& q, const std::optional<ActQuant>& act, JournalEntry::Layer& line) {
  Stopwatch watch(context_.times, "measure");
  line.evidence = evidence_->measure(site, saved_.weight_of(layer_of(site).site)->dense(), q, factor_of(in_, site), factor_of(out_, site), act);
}

void UnitWriter::note(const std::string& name, const at::Tensor& tensor) {
  const at::Tensor flat = contiguous_bytes(tensor);
  Checksum sum;
  sum.add({static_cast<const std::byte*>(flat.const_data_ptr()), static_cast<size_t>(flat.nbytes())});
  entry_.checksums.emplace_back(name, sum.value());
}

// Copying into the page cache is one core's work; the next layer is rounded meanwhile. One layer at a time, so memory stays bounded.
void UnitWriter::write_later(NamedTensors tensors) {
  std::vector<ShardFile*> shards;
  for (const auto& [name, tensor] : tensors) {
    shards.push_back(&shard_of(name));
    note(name, tensor);
  }
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

void UnitWriter::scaled(ScaleRecord record) {
  auto times = [](at::Tensor& into, const at::Tensor& by) { into = into.defined() ? into * by : by; };
  for (const ScaleGroup& group : topology().groups) {
    if (group.name != record.group) continue;
    const at::Tensor scale = record.scale_C.to(at::kFloat);
    const at::Tensor of_reader = group.reader_of.empty() ? scale : at::index_select(scale, 0, at::tensor(group.reader_of, at::kLong));
    for (const Linear& reader : group.readers) times(in_[&reader.site()], of_reader);
    if (!group.linear) continue;
    at::Tensor rows = at::ones({group.linear.site().out}, at::kFloat);
    rows.slice(0, group.linear_begin, group.linear_begin + group.linear_count).copy_(scale);
    times(out_[&group.linear.site()], rows);
  }
  entry_.scales.push_back(std::move(record));
}

void UnitWriter::rewrite(const std::string& name, const at::Tensor& value) {
  if (!context_.source.checkpoint().has(context_.source.disk_tensor(name))) {
    throw Error(ErrorKind::unsupported, context_.source.checkpoint().directory() + ": " + name + " stays floating in one tensor with other experts, into which "
                                            "scales cannot be folded: quantize the experts, too");
  }
  rewritten_[name] = value;
}

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
    const at::Tensor stored = changed->second.to(info.dtype);
    shard.write(name, stored);
    note(name, stored);
    context_.progress.advance(static_cast<double>(info.bytes), unit_.name);
    return;
  }
  const MappedFile& map = file.mapping();
  map.check_not_truncated();
  Checksum sum;
  for (uint64_t at = 0; at < info.bytes; at += kCopyPiece) {
    const uint64_t size = std::min(kCopyPiece, info.bytes - at);
    shard.write_bytes(name, at, map.data() + info.offset + at, size);
    sum.add({map.data() + info.offset + at, static_cast<size_t>(size)});
    // Only whole pieces of large tensors: small neighbours share pages, and are read next.
    if (info.bytes >= kCopyPiece) map.release(info.offset + at, size);
    context_.progress.advance(static_cast<double>(size), unit_.name);
    check_cancelled();
  }
  entry_.checksums.emplace_back(name, sum.value());
}

void UnitWriter::check_cancelled() const {
  if (context_.cancel && context_.cancel->load()) throw Error(ErrorKind::interrupted, "stopped at " + unit_.name);
}

void prefetch_unit(const CheckpointSource& source, const OutputPlan& plan, const UnitPlan& unit) {
  const Checkpoint& ckpt = source.checkpoint();
  auto ask = [&](const std::string& name) { ckpt.file_of(name).prefetch(*ckpt.find(name)); };
  const std::string* last = nullptr;  // experts may lie in one tensor
  for (size_t i : unit.layers) {
    const std::string& name = plan.layers[i].source;
    if (!last || name != *last) ask(name);
    last = &name;
  }
  for (const std::string& name : unit.kept) ask(name);
}

}  // namespace statera
