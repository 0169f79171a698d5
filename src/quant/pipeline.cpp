// Plan, staging, units, finishing touches, checking, publishing.
#include "quant/pipeline.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <future>
#include <map>

#include "base/error.h"
#include "base/strings.h"
#include "base/threads.h"
#include "quant/calib/forward.h"
#include "quant/calib/vision.h"
#include "quant/journal_report.h"
#include "quant/load_check.h"
#include "quant/manifest.h"
#include "quant/memory_plan.h"
#include "quant/planning.h"
#include "quant/recipes/resolved.h"
#include "quant/report_html.h"
#include "quant/scales_file.h"
#include "quant/sha256.h"
#include "quant/side_files.h"
#include "quant/staging.h"
#include "quant/unit.h"
#include "quant/verify.h"

namespace statera {
namespace {

constexpr const char* kLearned = "learned.json.state";  // what steps learned from gradients

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Json options_json(const QuantizeSettings& s) {
  Json j = Json::object();
  j.set("w_bits", s.plan.weights.bits);
  j.set("w_group", s.plan.weights.group);
  j.set("symmetric", s.plan.weights.symmetric);
  j.set("a_bits", s.plan.act ? s.plan.act->bits : 16);
  j.set("a_static", s.plan.act && s.plan.act->is_static);
  j.set("recipe", resolved_recipe(s));
  j.set("format", s.plan.format);
  j.set("max_shard_bytes", s.plan.max_shard_bytes);
  j.set("quantize_vision", s.plan.select.vision);
  j.set("quantize_projector", s.plan.select.projector);
  j.set("quantize_head", s.plan.select.head);
  j.set("ignore", Json(s.plan.select.ignore));
  j.set("seed", s.seed);
  if (s.data) {
    j.set("propagate", s.propagate_original ? "original" : "quantized");
    j.set("search_tokens", s.search_tokens);
    if (s.method == "smoothquant") j.set("smooth_alpha", s.smooth_alpha);
    Json data = Json::object();
    data.set("hash", s.data->summary.hash);
    data.set("bundled", s.data->summary.bundled);
    data.set("samples", s.data->summary.samples);
    data.set("tokens", s.data->summary.tokens);
    data.set("vision_tokens", s.data->summary.vision_tokens);
    data.set("answer_tokens", s.data->summary.answer_tokens);
    j.set("data", std::move(data));
  }
  if (s.scales) j.set("scales", s.scales->sha256);
  return j;
}

// What scales were found for: on these a run that takes them over must agree.
const std::vector<std::string> kScaleKeys = {"method", "model_type", "tensors", "w_bits", "w_group", "symmetric", "a_bits", "a_static", "overrides", "target_bits", "parity", "awq_clip"};

Json scale_settings(const CheckpointSource& source, const QuantizeSettings& s) {
  std::string shapes;
  const Checkpoint& ckpt = source.checkpoint();
  for (const std::string& name : ckpt.names()) shapes += name + " " + ckpt.find(name)->type->name + shape_string(ckpt.find(name)->shape) + "\n";
  const Json options = options_json(s);
  Json j = Json::object();
  j.set("statera", s.version);
  j.set("method", s.method);
  j.set("model_type", ckpt.config().get_string("model_type", ""));
  j.set("tensors", sha256(shapes));
  for (const char* key : {"w_bits", "w_group", "symmetric", "a_bits", "a_static", "seed", "search_tokens", "propagate", "smooth_alpha", "data"}) {
    if (const Json* value = options.find(key)) j.set(key, *value);
  }
  const std::vector<std::string> methods = recipe_methods(s.method);
  if (std::find(methods.begin(), methods.end(), "awq") != methods.end()) j.set("awq_clip", s.awq.clip);
  const Json recipe = resolved_recipe(s);
  for (const char* key : {"steps", "overrides", "target_bits", "parity"}) {
    if (const Json* value = recipe.find(key)) j.set(key, *value);
  }
  return j;
}

// The manifest without its list of files.
Json run_json(const Model& model, const CheckpointSource& source, const QuantizeSettings& s, const OutputPlan& plan) {
  const Checkpoint& ckpt = source.checkpoint();
  std::error_code ec;
  Json from = Json::object();
  from.set("name", std::filesystem::weakly_canonical(ckpt.directory(), ec).filename().string());
  from.set("model_type", model.config.get_string("model_type", ""));
  from.set("tensors", static_cast<int64_t>(ckpt.names().size()));
  from.set("bytes", plan.source_bytes);
  Json j = Json::object();
  j.set("statera", s.version);
  j.set("method", s.method);
  j.set("options", options_json(s));
  j.set("source", std::move(from));
  j.set("quantized_layers", static_cast<int64_t>(plan.layers.size()));
  int64_t kept = 0;
  for (const UnitPlan& unit : plan.units) kept += static_cast<int64_t>(unit.kept.size());
  j.set("kept_tensors", kept);
  return j;
}

// What makes two runs the same work: program version, options, and the source as far as it shows without reading weights.
std::string plan_identity(const CheckpointSource& source, const QuantizeSettings& s) {
  Json j = options_json(s);
  j.set("version", s.version);
  j.set("method", s.method);
  j.set("config", source.checkpoint().config());
  Json files = Json::array();
  for (const SafetensorsFile& f : source.checkpoint().files()) {
    struct stat st {};
    if (::stat(f.path().c_str(), &st) != 0) throw io_error(f.path(), errno);
    const uint64_t header = f.tensors().empty() ? f.mapping().size() : f.tensors().front().offset;
    Json one = Json::object();
    one.set("bytes", f.mapping().size());
    one.set("header", sha256({reinterpret_cast<const char*>(f.mapping().data()), header}));
    one.set("seconds", static_cast<int64_t>(st.st_mtim.tv_sec));
    one.set("nanoseconds", static_cast<int64_t>(st.st_mtim.tv_nsec));
    files.push(std::move(one));
  }
  j.set("files", std::move(files));
  return sha256(j.dump());
}

// Everything but the weights: (name, text) of files made here.
std::vector<std::pair<std::string, std::string>> small_files(const OutputPlan& plan) {
  std::vector<std::pair<std::string, std::string>> out;
  const std::string index = plan.shards.index_json();
  if (!index.empty()) out.emplace_back("model.safetensors.index.json", index);
  out.emplace_back("config.json", plan.config.dump(2) + "\n");
  return out;
}

bool wants_data(const Recipe& recipe) {
  return std::any_of(recipe.begin(), recipe.end(), [](const auto& step) { return step->needs_data(); });
}

// For static activations behind steps that look at no data: the evidence of every layer is gathered, and nothing else.
class LookAtInputs : public Step {
 public:
  bool needs_data() const override { return true; }
  std::unique_ptr<Accumulator> watch(const LinearSite&) override { return std::make_unique<Nothing>(); }
  void apply(BlockJob&) override {}

 private:
  struct Nothing : Accumulator {
    void add(const at::Tensor&, const Pass&) override {}
  };
};

Recipe recipe_of(const QuantizeSettings& s) {
  RecipeOptions options;
  options.act = s.plan.act;
  options.seed = s.seed;
  options.search_tokens = s.search_tokens;
  options.data_tokens = s.data ? s.data->summary.tokens : 0;
  options.smooth_alpha = s.smooth_alpha;
  options.awq = s.awq;
  options.gptq = s.gptq;
  options.mbq = s.mbq;
  options.stored = s.scales;
  Recipe recipe = make_recipe(s.method, options);
  if (s.scales) recipe = reuse_scales(std::move(recipe), *s.scales);
  if (s.plan.act && s.plan.act->is_static && !wants_data(recipe)) recipe.insert(recipe.begin(), std::make_unique<LookAtInputs>());
  return recipe;
}

bool wants_original(const Recipe& recipe) {
  return std::any_of(recipe.begin(), recipe.end(), [](const auto& step) { return step->needs_original(); });
}

bool is_block(const UnitPlan& unit) { return unit.language && unit.block >= 0; }

// Whether pictures are run through the tower: its blocks or projectors are quantized by what they see.
bool looks_at_tower(const OutputPlan& plan, const QuantizeSettings& s) {
  return s.data && std::any_of(plan.units.begin(), plan.units.end(), [](const UnitPlan& u) { return u.vision && !u.layers.empty(); });
}

// Of samples in the staging folder: two block ends and what the tower adds to blocks; with the tower its own, too; all of it twice beside a
// walk on unrounded blocks.
uint64_t sample_bytes(const Model& model, const OutputPlan& plan, const QuantizeSettings& s) {
  if (!s.data) return 0;
  const uint64_t walks = wants_original(recipe_of(s)) ? 2 : 1;
  return walks * (3 * Calibrator::state_bytes(model, *s.data) + (looks_at_tower(plan, s) ? VisionCalibrator::disk_bytes(model, *s.data) : 0));
}

class Run {
 public:
  Run(const Model& model, const CheckpointSource& source, const QuantizeSettings& settings, const std::string& out,
      const QuantizeHooks& hooks = {})
      : source_(source), settings_(settings), start_(std::chrono::steady_clock::now()) {
    check_settings(settings);
    recipe_ = recipe_of(settings);
    check(wants_data(recipe_) == (settings.data != nullptr), "calibration data for a method without, or the other way round");
    target_ = check_target(out, source.checkpoint().directory(), settings.overwrite);
    PlanOptions options = settings.plan;
    bits_ = chosen_bits(model, source, settings, target_ + ".measuring", hooks);
    if (bits_) options.bits = bits_->bits;
    plan_ = plan_output(model, source, options);
    for (std::string& line : check_targets(plan_, settings)) plan_.warnings.push_back(std::move(line));
    check_pictures();
    if (settings.scales) check_scales_fit(*settings.scales, scale_settings(source, settings), kScaleKeys);
    sides_ = side_files(source.checkpoint().directory());
    run_ = run_json(model, source, settings, plan_);
    describe(model, out);
    if (settings.max_ram && report_.expected_ram > settings.max_ram) {
      throw Error(ErrorKind::memory, "about " + human_bytes(static_cast<double>(report_.expected_ram)) + " of memory are needed, --max-ram allows " +
                                         human_bytes(static_cast<double>(settings.max_ram)) + ": the smallest that holds is --max-ram " +
                                         std::to_string(report_.expected_ram));
    }
  }

  // A tower is calibrated with pictures.
  void check_pictures() const {
    if (!looks_at_tower(plan_, settings_) || settings_.data->most_patches > 0) return;
    throw Error(ErrorKind::usage, "method " + settings_.method + " quantizes the vision tower by what it sees, and none of the " +
                                      std::to_string(settings_.data->summary.samples) + " calibration samples has a picture: give --data with "
                                      "pictures, leave out --quantize-vision and --quantize-projector, or use --method rtn without --a-static");
  }

  QuantizeReport planned(const Model& model) {
    report_.planned_only = true;
    report_.plan = plan_details(plan_, source_, settings_, report_.disk_bytes(), sample_bytes(model, plan_, settings_));
    return report_;
  }

  QuantizeReport execute(Model& model, const QuantizeHooks& hooks) {
    Staging staging(target_, plan_identity(source_, settings_), settings_.restart);
    try {
      check_space(model, staging);
      round_units(model, staging, hooks);
      finish(model, staging);
    } catch (const Error& e) {
      // Worth keeping is what the same command can finish: not a bad source or bad files.
      const bool passing = e.kind() == ErrorKind::io || e.kind() == ErrorKind::interrupted || e.kind() == ErrorKind::memory;
      const size_t kept = staging.done().size();
      if (!passing || kept == 0) {
        staging.discard();
        throw;
      }
      throw Error(e.kind(), e.message() + " (" + std::to_string(kept) + " of " + std::to_string(plan_.units.size()) +
                                " blocks are kept: the same command goes on from there)");
    }
    return report_;
  }

 private:
  void describe(const Model& model, const std::string& out) {
    QuantizeReport& r = report_;
    r.out = out;
    r.method = settings_.method;
    r.source = run_.at("source").at("name").as_string();
    if (settings_.scales) r.scales_reused = settings_.scales->sha256;
    r.format = settings_.plan.format;
    r.w_bits = settings_.plan.weights.bits;
    r.w_group = settings_.plan.weights.group;
    r.symmetric = settings_.plan.weights.symmetric;
    r.a_bits = settings_.plan.act ? settings_.plan.act->bits : 16;
    r.a_static = settings_.plan.act && settings_.plan.act->is_static;
    r.source_bytes = plan_.source_bytes;
    r.result_bytes = plan_.result_bytes;
    r.quantized_weights = static_cast<uint64_t>(plan_.weights);
    r.quantized_bytes = plan_.quantized_bytes;
    r.units = static_cast<int64_t>(plan_.units.size());
    for (const auto& [name, c] : plan_.roles)
      r.roles.push_back({name, c.quantized_layers, c.kept_layers, c.kept_tensors, c.source_bytes, c.result_bytes});
    r.recipe = resolved_recipe(settings_);
    if (bits_) r.bits = bits_->to_json();
    r.warnings = settings_.notes;
    r.warnings.insert(r.warnings.end(), plan_.warnings.begin(), plan_.warnings.end());
    for (const std::string& name : sides_.left_out) r.warnings.push_back(name + " is not carried over (a pickle or too large)");
    r.expected_ram = rounding_ram(plan_);
    if (const CalibData* data = settings_.data) {
      const CalibrationRam ram = calibration_ram(plan_, model, settings_, recipe_);
      r.expected_ram += ram.least;
      run_memory_ = run_memory(ram, r.expected_ram, settings_.max_ram);
      const bool waits = std::any_of(recipe_.begin(), recipe_.end(), [](const auto& step) { return step->phased(); });
      r.quick_ram = (waits ? run_memory_.waiting : 0) + (run_memory_.side_by_side ? ram.run * static_cast<uint64_t>(num_threads() - 1) : 0);
      const CalibSummary& d = data->summary;
      r.data = QuantizeReport::Data{d.hash, d.bundled, d.samples, d.tokens, d.vision_tokens, d.answer_tokens};
      r.warnings.insert(r.warnings.end(), d.notes.begin(), d.notes.end());
    }
    for (const auto& f : plan_.shards.files) r.files.emplace_back(f.name, f.plan.bytes);
    for (const auto& [name, text] : small_files(plan_)) r.files.emplace_back(name, text.size());
    for (const auto& f : sides_.carried) r.files.push_back(f);
    std::sort(r.files.begin(), r.files.end());
    std::vector<FileDigest> digests;
    for (const auto& [name, bytes] : r.files) digests.push_back({name, bytes, std::string(64, '0')});
    r.files.emplace_back("statera.json", manifest_text(run_, digests).size());
  }

  // One clear line before hours of work; what an earlier run reserved counts as available.
  void check_space(const Model& model, const Staging& staging) const {
    const uint64_t needed = report_.disk_bytes() + sample_bytes(model, plan_, settings_);
    struct statvfs fs {};
    if (::statvfs(staging.folder().c_str(), &fs) != 0) return;
    uint64_t available = static_cast<uint64_t>(fs.f_bavail) * fs.f_frsize;
    for (const auto& entry : std::filesystem::directory_iterator(staging.folder())) {
      struct stat st {};
      if (::stat(entry.path().c_str(), &st) == 0) available += static_cast<uint64_t>(st.st_blocks) * 512;
    }
    if (available < needed) {
      throw Error(ErrorKind::io, staging.folder() + ": no space: " + human_bytes(static_cast<double>(needed)) +
                                     " are needed, " + human_bytes(static_cast<double>(available)) + " are free");
    }
  }

  void round_units(Model& model, Staging& staging, const QuantizeHooks& hooks) {
    std::vector<ShardFile> shards;
    for (const auto& file : plan_.shards.files) shards.emplace_back(staging.folder(), file);
    Progress progress("quantize", static_cast<double>(plan_.source_bytes), "bytes", hooks.progress);
    const size_t resumed = resume(staging, progress);
    calibrate(model, staging, hooks, resumed);
    for (auto& step : recipe_) step->before(model);
    if (calibrator_) learn(*calibrator_, staging, hooks, resumed);
    times_["prepare"] = seconds_since(start_);
    const auto begin = std::chrono::steady_clock::now();
    uint64_t bytes = 0;
    UnitContext context{model, source_, plan_, format_named(settings_.plan.format), shards, progress, hooks.cancel,
                        calibrator_ ? &*calibrator_ : nullptr, vision_ ? &*vision_ : nullptr,
                        original_ ? &*original_ : nullptr, original_vision_ ? &*original_vision_ : nullptr, hooks.progress, run_memory_, settings_.propagate_original, &times_};
    std::future<void> pending;  // the previous unit on its way to disk
    auto settle = [&] {
      if (!pending.valid()) return;
      pending.get();
      if (hooks.after_unit) hooks.after_unit(staging.done().size());
    };
    for (size_t i = resumed; i < plan_.units.size(); ++i) {
      const UnitPlan& unit = plan_.units[i];
      if (i + 1 < plan_.units.size()) prefetch_unit(source_, plan_, plan_.units[i + 1]);
      UnitWriter writer(context, unit);
      JournalEntry entry = writer.run(recipe_);
      bytes += unit.source_bytes;
      settle();
      forget_before(unit);
      pending = std::async(std::launch::async, [&shards, &staging, touched = writer.touched(), entry = std::move(entry)] {
        for (size_t s : touched) shards[s].sync();
        staging.add(entry);
      });
    }
    settle();
    progress.finish();
    for (const auto& step : recipe_) {
      for (std::string& note : step->notes()) report_.warnings.push_back(std::move(note));
    }
    report_.rounding_seconds = seconds_since(begin);
    report_.gigabytes_per_second = report_.rounding_seconds > 0 ? static_cast<double>(bytes) / report_.rounding_seconds / 1e9 : 0;
  }

  // The samples, ready for the first block that is not done, or behind the last one; none for data-free recipes. When the tower is calibrated,
  // it comes first, and the language stack is entered behind it; before that only where gradients are asked for.
  void calibrate(const Model& model, const Staging& staging, const QuantizeHooks& hooks, size_t resumed) {
    if (!settings_.data) return;
    calibrator_.emplace(model, *settings_.data, staging.folder(), hooks.cancel);
    calibrator_->when_through([this](const LinearSite& site) { source_.release(site); });
    if (run_memory_.side_by_side) calibrator_->enter_side_by_side(static_cast<size_t>(num_threads()));
    if (wants_original(recipe_)) original_.emplace(model, *settings_.data, staging.folder(), hooks.cancel, "original-activations-");
    const UnitPlan* next = resumed < plan_.units.size() ? &plan_.units[resumed] : nullptr;
    if (looks_at_tower(plan_, settings_)) {
      check(std::any_of(plan_.units.begin(), plan_.units.end(), [](const UnitPlan& u) { return u.vision && u.block < 0; }), "a tower without projector");
      vision_.emplace(model, *settings_.data, staging.folder(), hooks.cancel);
      if (original_) original_vision_.emplace(model, *settings_.data, staging.folder(), hooks.cancel, "original-pictures-");
      const bool learns = std::any_of(recipe_.begin(), recipe_.end(), [](const auto& step) { return step->needs_gradients(); });
      if (next && next->vision) {
        if (learns && !is_file(staging.folder() + "/" + kLearned)) calibrator_->start(0, hooks.progress);
        const int64_t place = next->block >= 0 ? next->block : vision_->blocks();
        vision_->start(place, hooks.progress);
        if (original_vision_) original_vision_->start_beside(*vision_, place);
        return;
      }
      const int64_t place = next && is_block(*next) ? next->block : calibrator_->blocks();
      calibrator_->resume(place);
      if (original_) original_->resume(place);
      return;
    }
    int64_t block = calibrator_->blocks();
    for (size_t i = resumed; i < plan_.units.size() && block == calibrator_->blocks(); ++i) {
      if (is_block(plan_.units[i])) block = plan_.units[i].block;
    }
    calibrator_->start(block, hooks.progress);
    if (original_) original_->start_beside(*calibrator_, block);
  }

  // Of activations, what neither this unit nor a later one reads; the units before it are in the journal.
  void forget_before(const UnitPlan& unit) const {
    auto forget = [&](const std::optional<Calibrator>& language, const std::optional<VisionCalibrator>& vision) {
      if (vision && unit.vision) return vision->forget_before(unit.block >= 0 ? unit.block : vision->blocks());
      if (vision) vision->forget();
      if (language && is_block(unit)) language->forget_before(unit.block);
    };
    forget(calibrator_, vision_);
    forget(original_, original_vision_);
  }

  // Lets steps that ask for it see gradients, once per output: what they learned lies in the staging folder.
  void learn(const Calibrator& calibrator, const Staging& staging, const QuantizeHooks& hooks, size_t resumed) {
    const std::string path = staging.folder() + "/" + kLearned;
    std::vector<Step*> learners;
    for (auto& step : recipe_) {
      if (step->needs_gradients()) learners.push_back(step.get());
    }
    if (learners.empty()) return;
    Json all = Json::array();
    if (is_file(path)) {
      all = Json::parse(read_file(path), path);
    } else {
      if (resumed > 0) throw Error(ErrorKind::mismatch, path + ": what the unfinished work learned is gone; --restart begins anew");
      for (Step* step : learners) {
        calibrator.gradients([step](const LinearSite& site, const at::Tensor& G, const Pass& pass) { return step->measure_gradient(site, G, pass); },
                             [step](const LinearSite& site, size_t sample, const std::vector<double>& values) { step->gradient(site, sample, values); }, hooks.progress);
        all.push(step->learned());
      }
      write_file_atomic(path, all.dump());
    }
    for (size_t i = 0; i < learners.size(); ++i) learners[i]->take_learned(all.as_array(path).at(i));
  }

  // Takes over the journal's units, which are the plan's first ones.
  size_t resume(const Staging& staging, Progress& progress) {
    uint64_t bytes = 0;
    check(staging.done().size() <= plan_.units.size(), "a journal longer than its plan");
    for (size_t i = 0; i < staging.done().size(); ++i) {
      const JournalEntry& entry = staging.done()[i];
      if (entry.unit != plan_.units[i].name)
        throw Error(ErrorKind::mismatch, staging.folder() + ": its journal does not fit the plan; --restart removes it");
      bytes += plan_.units[i].source_bytes;
    }
    progress.resume_at(static_cast<double>(bytes));
    report_.resumed_units = static_cast<int64_t>(staging.done().size());
    return staging.done().size();
  }

  void finish(const Model& model, Staging& staging) {
    const auto begin = std::chrono::steady_clock::now();
    copy_side_files(sides_, source_.checkpoint().directory(), staging.folder());
    for (const auto& [name, text] : small_files(plan_)) write_file_atomic(staging.folder() + "/" + name, text);
    std::vector<std::string> names;
    for (const auto& [name, bytes] : report_.files) {
      if (name != "statera.json") names.push_back(name);
    }
    Digests digests(staging.folder(), std::move(names));
    check_output(model, staging);
    const std::string manifest = manifest_text(run_, digests.finish());
    write_file_atomic(staging.folder() + "/statera.json", manifest);
    for (const auto& [name, bytes] : report_.files) {
      const uint64_t written = file_size(staging.folder() + "/" + name);
      if (written != bytes)
        throw Error(ErrorKind::io,
                    staging.folder() + "/" + name + ": " + std::to_string(written) + " bytes, planned were " + std::to_string(bytes));
    }
    if (calibrator_) calibrator_->remove_files();
    report_.checking_seconds = times_["check"] = seconds_since(begin);
    write_evidence(staging);
    staging.publish();
  }

  // What was written, read again: tensor by tensor, and as a model.
  void check_output(const Model& model, const Staging& staging) {
    Written written;
    bool rewritten = false;
    for (const JournalEntry& entry : staging.done()) {
      for (const JournalEntry::Layer& l : entry.layers) written.errors.emplace_back(l.name, l.error);
      written.checksums.insert(written.checksums.end(), entry.checksums.begin(), entry.checksums.end());
      rewritten |= entry.rewrote;
    }
    report_.verified = verify_output(staging.folder(), plan_, source_, written, rewritten);
    // What the run holds behind the last block is what the files give only when rounded results were passed on.
    if (!calibrator_ || settings_.propagate_original) return;
    const LogitCheck logits = check_logits(model, source_.type(), *calibrator_, staging.folder(), settings_.plan.act.has_value());
    report_.verified.logits = logits.logits;
    report_.verified.worst_logit = logits.worst;
    report_.verified.allowed_logit = logits.allowed;
    report_.verified.largest_logit = logits.largest;
  }

  // Scales and report. Not part of the plan: their size depends on figures, the report's on times.
  void write_evidence(const Staging& staging) {
    report_.layers = reported_layers(staging.done());
    if (settings_.data) report_.experts = reported_experts(staging.done(), plan_);
    if (report_.experts && !report_.experts->unreached.empty()) report_.warnings.push_back(unreached_warning(*report_.experts));
    report_.scales = reported_scales(staging.done());
    const auto& done = staging.done();
    if (!report_.scales.empty() || std::any_of(done.begin(), done.end(), [](const JournalEntry& e) { return !e.clips.empty(); })) {
      std::filesystem::create_directory(staging.folder() + "/" + kScalesFolder);
      const std::string path = staging.folder() + "/" + kScalesName;
      write_scales(path, scale_settings(source_, settings_), staging.done());
      report_.scales_sha256 = sha256_file(path);
    }
    report_.seconds = seconds_since(start_);
    report_.peak_rss = peak_resident_bytes();
    report_.phase_seconds.assign(times_.begin(), times_.end());
    Json json = report_.to_json();
    json.find("this_run")->erase("out");
    write_file_atomic(staging.folder() + "/report.json", json.dump(2) + "\n");
    write_file_atomic(staging.folder() + "/report.html", report_html(report_));
  }

  const CheckpointSource& source_;
  const QuantizeSettings& settings_;
  std::chrono::steady_clock::time_point start_;
  Recipe recipe_;
  std::string target_;
  std::optional<BitChoice> bits_;
  OutputPlan plan_;
  SideFiles sides_;
  Json run_;
  QuantizeReport report_;
  std::optional<Calibrator> calibrator_, original_;  // the second: on unrounded blocks, for steps that ask for it
  std::optional<VisionCalibrator> vision_, original_vision_;  // when the tower is calibrated
  std::map<std::string, double> times_;  // seconds by phase
  RunMemory run_memory_;
};

}  // namespace

bool needs_data(const QuantizeSettings& settings) { return wants_data(recipe_of(settings)); }

void check_settings(const QuantizeSettings& s) {
  const QSpec& w = s.plan.weights;
  if (w.bits < 2 || w.bits > 8) throw Error(ErrorKind::usage, "--w-bits must be between 2 and 8, is " + std::to_string(w.bits));
  if (w.group == 0 || w.group < -1)
    throw Error(ErrorKind::usage, "--w-group must be positive, or -1 for one scale per row; is " + std::to_string(w.group));
  const auto& overrides = s.plan.select.overrides;
  if (w.own_range && w.symmetric && std::none_of(overrides.begin(), overrides.end(), [](const Override& o) { return o.symmetric == false; }))
    throw Error(ErrorKind::usage, "--parity own-ranges is about asymmetric weights, and all are symmetric: give --asym");
  if (s.propagate_original && wants_original(recipe_of(s)))
    throw Error(ErrorKind::usage, "--mbq-distort tries scales on what quantized blocks give: leave out --propagate original");
  if (!s.plan.act) return;
  if (s.plan.act->bits != 8) throw Error(ErrorKind::usage, "--a-bits must be 16 (floating) or 8, is " + std::to_string(s.plan.act->bits));
  if (w.group != -1) throw Error(ErrorKind::usage, "--a-bits 8 takes one scale per row of the weights: give --w-group -1");
  if (!w.symmetric) throw Error(ErrorKind::usage, "--a-bits 8 takes symmetric weights: give --sym");
}

QuantizeReport plan_quantization(const Model& model, const CheckpointSource& source, const QuantizeSettings& settings,
                                 const std::string& out) {
  return Run(model, source, settings, out).planned(model);
}

QuantizeReport run_quantization(Model& model, const CheckpointSource& source, const QuantizeSettings& settings, const std::string& out,
                                const QuantizeHooks& hooks) {
  return Run(model, source, settings, out, hooks).execute(model, hooks);
}

}  // namespace statera
