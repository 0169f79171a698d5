// The training run: options, data, model and folder put together, and the loop over steps.
#include "api/finetune.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>

#include "api/finetune_data.h"
#include "api/finetune_files.h"
#include "api/finetune_options.h"
#include "api/guard.h"
#include "api/loaded.h"
#include "api/quantize.h"
#include "api/tensorboard.h"
#include "base/fields.h"
#include "base/threads.h"
#include "train/deal.h"
#include "train/ranks.h"

namespace statera {
namespace {

constexpr int64_t kSmall = 64'000'000;  // parameters up to which lanes pay: above, matrices are large enough for ATen's threads

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

std::string refusal(const DataReport& report, const TrainData& data) {
  std::string kinds, first;
  const Json json = report.to_json();
  for (const auto& [kind, fault] : json.at("faults").as_object()) {
    kinds += (kinds.empty() ? "" : ", ") + std::to_string(fault.at("count").as_int()) + " " + kind;
    if (first.empty()) first = fault.at("examples").as_array().at(0).as_string();
  }
  return fmt::format("{} of {} items cannot be trained on ({}), the first: {} (--check-only tells more, --on-bad skip leaves them out)", report.count(),
                     data.items(), kinds, first);
}

// Error(usage), the same everywhere, when a rank says something else than the first one.
void agree(const Ranks& ranks, const Json& mine) {
  if (ranks.alone()) return;
  const std::string text = mine.dump(), firsts = ranks.first_says([&] { return text; });
  std::string problem;
  if (text != firsts)
    problem = "rank " + std::to_string(ranks.rank()) + " differs from rank 0: " + first_difference(Json::parse(firsts, "rank 0"), Json::parse(text, "this rank"));
  for (const std::string& said : ranks.gather(problem)) {
    if (!said.empty()) throw Error(ErrorKind::usage, said);
  }
}

class Run {
 public:
  Run(const FinetuneOptions& options, const MediaFlags& media, const ProgressSink& sink, const std::atomic<bool>* cancel, const Ranks& ranks)
      : o_(options), media_(media), sink_(ranks.first() ? sink : ProgressSink{}), cancel_(cancel), ranks_(ranks),
        loaded_(open_model(options.model, {.dtype = options.dtype})) {
    parts_ = read_prompt_parts(loaded_.checkpoint.directory(), *loaded_.model);
    if (!parts_.tokenizer || !parts_.chat_template)
      throw Error(ErrorKind::not_found, options.model + ": training on conversations needs a tokenizer and a chat template");
    max_len_ = o_.max_len;
    if (const int64_t most = loaded_.model->limits().max_positions; most > 0) max_len_ = std::min(max_len_, most);
    data_.emplace(open_data(o_.data, o_.mix, media_.base_dir), parts_, media_, max_len_);
    const uint64_t cache = parse_bytes(o_.cache, "--cache");
    if (sees_items_again()) data_->cache(cache);
    if (!o_.eval_data.empty()) eval_data_.emplace(open_data(o_.eval_data, "", media_.base_dir), parts_, media_, max_len_);
  }

  FinetuneReport go() {
    report_.out = o_.out;
    report_.rank = ranks_.rank();
    report_.ranks = ranks_.world();
    check_data();
    if (o_.check_only) {
      report_.checked_only = true;
      return std::move(report_);
    }
    prepare();
    train();
    return std::move(report_);
  }

 private:
  // Whether keeping made samples can spare anything.
  bool sees_items_again() const {
    for (const DataFile& f : data_->files()) {
      if (f.percent > 100) return true;
    }
    const double steps = static_cast<double>(o_.max_steps) * static_cast<double>(o_.batch * o_.accumulate), items = static_cast<double>(data_->items());
    return o_.check_samples || (o_.max_steps > 0 ? steps > items : o_.epochs > 1);
  }

  void check_data() {
    const std::string found = ranks_.first_says([&] {
      const DataReport report = data_->check(o_.check_samples, sink_, cancel_);
      const bool refused = report.usable() == 0 || (report.count() > 0 && o_.on_bad == "refuse");
      if (refused && !o_.check_only) throw Error(ErrorKind::bad_file, refusal(report, *data_));
      return report.to_json().dump();
    });
    report_.data = Json::parse(found, "report on the data");
    usable_ = static_cast<double>(report_.data.at("usable").as_int()) / static_cast<double>(data_->items());
  }

  void plan_steps() {
    std::vector<OrderSource> sources;
    for (const DataFile& f : data_->files()) sources.push_back({f.path, f.items->size(), f.percent});
    order_.emplace(std::move(sources), static_cast<uint64_t>(o_.seed), o_.shuffle);
    items_ = std::llround(o_.epochs * static_cast<double>(order_->size()));
    const double a_step = static_cast<double>(o_.batch * o_.accumulate);
    total_ = o_.max_steps > 0 ? o_.max_steps : std::max<int64_t>(1, static_cast<int64_t>(std::ceil(static_cast<double>(items_) * usable_ / a_step)));
  }

  std::vector<Parameter> parameters() {
    Model& model = *loaded_.model;
    if (o_.matmul_precision == "medium") take_products_in_bf16(model);
    if (o_.lora_r > 0) {
      lora_ = LoraSettings{o_.lora_r, o_.lora_alpha > 0 ? o_.lora_alpha : 2.0 * static_cast<double>(o_.lora_r), o_.lora_target,
                           static_cast<uint64_t>(o_.seed), o_.lora_dropout};
      std::vector<Parameter> adapters = make_adapters(model, *lora_, model.dtype);
      if (shards_) shards_->attach(model, adapters);
      return adapters;
    }
    std::vector<Part> learn;
    if (o_.train_vision) learn.push_back(Part::vision);
    if (o_.train_merger) learn.push_back(Part::merger);
    if (o_.train_language) learn.push_back(Part::language);
    if (o_.train_embeddings) learn.push_back(Part::embeddings);
    std::vector<Parameter> weights = make_parameters(model, learn, model.dtype, shards_ ? shards_->leaf_maker() : LeafMaker{});
    if (shards_) shards_->attach(model, weights);
    return weights;
  }

  int64_t choose_lanes(bool resumes) const {
    const bool as_before = resumes && state_.ranks == ranks_.world();
    if (as_before && o_.lanes > 0 && o_.lanes != state_.lanes)
      throw Error(ErrorKind::usage, "--lanes was " + std::to_string(state_.lanes) + " when the run began; results depend on it");
    if (as_before && o_.zero >= 2 && state_.lanes > 1)
      throw Error(ErrorKind::usage, "--zero 2 and 3 work in one lane, and the run began with " + std::to_string(state_.lanes));
    if (as_before) return state_.lanes;
    if (o_.lanes > 0) return o_.lanes;
    return o_.zero < 2 && report_.trained <= kSmall ? num_threads() : 1;
  }

  // On the first rank, for all: the folder, and where the run goes on from.
  std::string open_folder() {
    folder_.emplace(o_.out, run_record(o_, media_, order_->size(), o_.dtype), o_.restart, o_.overwrite);
    const at::ScalarType saved = o_.save_dtype.empty() ? stored_dtype(loaded_.checkpoint) : parse_dtype(o_.save_dtype);
    folder_->describe(loaded_.checkpoint, choose_layout(loaded_.checkpoint, model_type(loaded_.model->config)), saved, lora_ ? &*lora_ : nullptr);
    const bool resumes = folder_->latest().has_value();
    if (resumes) state_ = folder_->read_state();
    state_.lanes = choose_lanes(resumes);
    state_.ranks = ranks_.world();
    folder_->cut_log(state_.step);
    Json start = fields_to_json(state_);
    start.set("resumes", resumes);
    return start.dump();
  }

  void prepare() {
    plan_steps();
    if (!ranks_.alone() && o_.optim_states != "fp32")
      throw Error(ErrorKind::usage, "--optim-states " + o_.optim_states + " goes with one process; several spread fp32 moments (--zero 1)");
    if (!ranks_.alone()) shards_ = std::make_unique<Shards>(ranks_, o_.zero);
    std::vector<Parameter> learned = parameters();
    for (const Parameter& p : learned) report_.trained += p.leaf.numel();
    report_.parameters = loaded_.model->params.count();
    Json work = Json::object();
    work.set("items of data", order_->size());
    work.set("trained weights", report_.trained);
    work.set("steps", total_);
    agree(ranks_, work);
    Json start = Json::parse(ranks_.first_says([&] { return open_folder(); }), "start of the run");
    const bool resumes = start.at("resumes").as_bool();
    start.erase("resumes");
    fields_from_json(start, state_, "start of the run");
    // Lanes keep the pool's threads busy; a single one leaves them to ATen.
    at::set_num_threads(state_.lanes > 1 ? 1 : num_threads());
    trainer_ = std::make_unique<Trainer>(*loaded_.model, std::move(learned), settings(), shards_.get());
    if (resumes && folder_) folder_->restore(*trainer_, state_.step);
    else if (resumes) trainer_->restore({}, state_.step);
    if (folder_ && (o_.report_to == "tensorboard" || (o_.report_to.empty() && !o_.tensorboard.empty())))
      board_.emplace(o_.tensorboard.empty() ? folder_->path() + "/runs" : o_.tensorboard, folder_->path(), state_.step);
    report_.resumed_at = state_.step;
    report_.lanes = state_.lanes;
    report_.first_loss = state_.first_loss;
  }

  TrainSettings settings() const {
    TrainSettings s;
    s.adamw = {o_.beta1, o_.beta2, o_.eps, parse_state_bits(o_.optim_states)};
    const int64_t warmup = o_.warmup_steps.value_or(static_cast<int64_t>(std::ceil(o_.warmup_ratio * static_cast<double>(total_))));
    s.schedule = {o_.schedule, warmup, total_};
    s.rates[static_cast<int>(Part::vision)] = o_.vision_lr.value_or(o_.lr);
    s.rates[static_cast<int>(Part::merger)] = o_.merger_lr.value_or(o_.lr);
    s.rates[static_cast<int>(Part::language)] = o_.lr;
    s.rates[static_cast<int>(Part::embeddings)] = o_.embeddings_lr.value_or(o_.lr);
    s.weight_decay = o_.weight_decay;
    s.max_grad_norm = o_.max_grad_norm;
    s.lanes = state_.lanes;
    s.checkpointing = o_.checkpointing;
    s.lora_dropout = o_.lora_dropout;
    s.seed = static_cast<uint64_t>(o_.seed);
    s.routers = {o_.router_aux_loss_coef, o_.router_z_loss_coef};
    return s;
  }

  void skip(const BadItem& item, uint64_t taken) {
    if (o_.on_bad == "refuse") throw item;
    Json line = Json::object();
    line.set("step", state_.step + 1);
    line.set("skipped", item.message());
    log(line);
    ++state_.skipped;
    if (state_.skipped == static_cast<int64_t>(taken) && state_.skipped > static_cast<int64_t>(order_->size()))
      throw Error(ErrorKind::bad_file, "no item of the data can be trained on; the last: " + item.message());
  }

  // This process's samples of one step; fewer at the end of the data.
  std::vector<std::vector<TrainSample>> next_batches(Dealer& dealer) {
    std::vector<std::vector<TrainSample>> out;
    for (int64_t a = 0; a < o_.accumulate; ++a) {
      const uint64_t end = o_.max_steps > 0 ? ~uint64_t{0} : static_cast<uint64_t>(items_);
      Dealer::Batch batch = dealer.next(o_.batch, end, [&](const BadItem& item, uint64_t taken) { skip(item, taken); });
      state_.position = static_cast<int64_t>(dealer.position());
      if (batch.good > 0) out.push_back(std::move(batch.mine));
    }
    return out;
  }

  std::optional<double> evaluate() {
    if (!eval_data_) return std::nullopt;
    // Each process has every world-th of them, and all measure as often as the first.
    if (eval_count_ == 0) {
      for (size_t f = 0; f < eval_data_->files().size(); ++f) {
        for (size_t i = 0; i < eval_data_->files()[f].items->size(); ++i) {
          if (o_.eval_samples > 0 && eval_count_ >= o_.eval_samples) break;
          if (eval_count_++ % ranks_.world() == ranks_.rank()) eval_samples_.push_back(eval_data_->sample(f, i));
        }
      }
    }
    double sum = 0;
    int64_t labels = 0;
    const std::span<const TrainSample> all(eval_samples_);
    const int64_t most = (eval_count_ + ranks_.world() - 1) / ranks_.world();
    for (int64_t from = 0; from < most; from += o_.batch) {
      const size_t at = std::min(all.size(), static_cast<size_t>(from));
      const auto [loss, count] = trainer_->evaluate(all.subspan(at, std::min(static_cast<size_t>(o_.batch), all.size() - at)));
      sum += loss;
      labels += count;
    }
    return labels > 0 ? std::optional(sum / static_cast<double>(labels)) : std::nullopt;
  }

  void log_eval() {
    report_.eval_loss = evaluate();
    if (!report_.eval_loss) return;
    Json line = Json::object();
    line.set("step", state_.step);
    line.set("eval_loss", *report_.eval_loss);
    log(line);
  }

  // The first process keeps the log.
  void log(const Json& line) const {
    if (folder_) folder_->log(line);
    if (board_) board_->add(line);
  }

  void log_step(const Trainer::Step& step, double seconds) {
    Json line = Json::object();
    line.set("step", state_.step);
    line.set("epoch", static_cast<double>(state_.position) / static_cast<double>(order_->size()));
    line.set("loss", step.loss);
    line.set("lr", step.rate);
    line.set("grad_norm", step.grad_norm);
    line.set("tokens", step.tokens);
    line.set("learned_tokens", step.labels);
    line.set("tokens_per_second", static_cast<double>(step.tokens) / std::max(seconds, 1e-9));
    if (o_.router_aux_loss_coef > 0) line.set("router_aux_loss", step.routers.aux);
    if (o_.router_z_loss_coef > 0) line.set("router_z_loss", step.routers.z);
    log(line);
  }

  void save() {
    state_.first_loss = report_.first_loss;
    if (folder_) {
      folder_->save(*loaded_.model, *trainer_, state_, o_.keep);
    } else {
      trainer_->with_whole_weights({});
      trainer_->states({});
    }
    saved_ = state_.step;
  }

  void stop_if_cancelled() {
    if (!ranks_.any(cancel_ && *cancel_)) return;
    if (saved_ != state_.step && state_.step > 0) save();
    throw Error(ErrorKind::interrupted, fmt::format("interrupted after step {} of {}; the same command goes on from there", state_.step, total_));
  }

  void train() {
    const auto start = Clock::now();
    Progress progress("finetune", static_cast<double>(total_), "steps", sink_);
    progress.resume_at(static_cast<double>(state_.step));
    std::mutex order_lock;
    auto make = [&](uint64_t k) {
      std::pair<uint32_t, uint32_t> place;
      {
        const std::lock_guard hold(order_lock);
        place = order_->at(k);
      }
      return data_->sample(place.first, place.second);
    };
    Dealer dealer(make, static_cast<uint64_t>(state_.position), o_.workers, static_cast<uint64_t>(2 * o_.batch * o_.accumulate), ranks_);
    saved_ = state_.step;
    int64_t tokens = 0;
    while (state_.step < total_) {
      stop_if_cancelled();
      const auto step_start = Clock::now();
      const auto batches = next_batches(dealer);
      if (batches.empty()) break;
      const Trainer::Step step = trainer_->step(batches);
      ++state_.step;
      state_.tokens += step.tokens;
      tokens += step.tokens;
      if (state_.step == 1) report_.first_loss = step.loss;
      report_.last_loss = step.loss;
      const double seconds = seconds_since(step_start);
      if (o_.log_every > 0 && state_.step % o_.log_every == 0) log_step(step, seconds);
      progress.advance(1, fmt::format("loss {:.4f} lr {:.2e} {:.0f} tok/s", step.loss, step.rate, static_cast<double>(step.tokens) / seconds));
      if (o_.eval_every > 0 && state_.step % o_.eval_every == 0 && state_.step < total_) log_eval();
      if (o_.save_every > 0 && state_.step % o_.save_every == 0) save();
    }
    log_eval();
    if (saved_ != state_.step) save();
    if (folder_) folder_->finish(*loaded_.model, *trainer_);
    else trainer_->with_whole_weights({});
    progress.finish();
    report_.steps = state_.step;
    report_.tokens = state_.tokens;
    report_.skipped = state_.skipped;
    report_.seconds = seconds_since(start);
    report_.tokens_per_second = static_cast<double>(tokens) / std::max(report_.seconds, 1e-9);
  }

  const FinetuneOptions& o_;
  const MediaFlags& media_;
  ProgressSink sink_;
  const std::atomic<bool>* cancel_;
  const Ranks& ranks_;
  Loaded loaded_;
  PromptParts parts_;
  std::optional<TrainData> data_, eval_data_;
  std::vector<TrainSample> eval_samples_;
  std::optional<Order> order_;
  std::optional<LoraSettings> lora_;
  std::optional<RunFolder> folder_;  // of the first process
  std::optional<EventFile> board_;   // of the first process
  std::unique_ptr<Shards> shards_;   // of several processes
  std::unique_ptr<Trainer> trainer_;
  RunState state_;
  FinetuneReport report_;
  double usable_ = 1;
  int64_t max_len_ = 0, items_ = 0, total_ = 0, saved_ = 0, eval_count_ = 0;
};

}  // namespace

FinetuneReport finetune(const FinetuneOptions& given, const MediaFlags& media, const ProgressSink& progress, const std::atomic<bool>* cancel) {
  return guarded([&] {
    FinetuneOptions options = with_config(given);
    check_finetune(options);
    const Ranks ranks(read_launch(), std::chrono::seconds(options.rank_timeout));
    try {
      agree(ranks, shared_record(options, media));
      return Run(options, media, progress, cancel, ranks).go();
    } catch (const Error& e) {
      if (ranks.first()) throw;
      throw e.within("rank " + std::to_string(ranks.rank()));
    }
  });
}

Json FinetuneReport::to_json() const {
  Json j = Json::object();
  j.set("out", out);
  j.set("data", data);
  if (checked_only) return j;
  j.set("parameters", parameters);
  j.set("trained", trained);
  j.set("steps", steps);
  j.set("resumed_at", resumed_at);
  j.set("tokens", tokens);
  j.set("skipped", skipped);
  j.set("lanes", lanes);
  j.set("ranks", ranks);
  j.set("first_loss", first_loss);
  j.set("last_loss", last_loss);
  if (eval_loss) j.set("eval_loss", *eval_loss);
  j.set("seconds", seconds);
  j.set("tokens_per_second", tokens_per_second);
  return j;
}

std::string FinetuneReport::to_text() const {
  if (checked_only) return data_text(data);
  std::string text = fmt::format("{}: {} steps, loss {:.4f} -> {:.4f}", out, steps, first_loss, last_loss);
  if (eval_loss) text += fmt::format(", held-out {:.4f}", *eval_loss);
  if (skipped > 0) text += fmt::format(", {} bad items skipped", skipped);
  return text + fmt::format(", {} tokens, {:.0f} tokens/s", tokens, tokens_per_second);
}

}  // namespace statera
