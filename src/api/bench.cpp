// The runs go through the scheduler, as generation does; limits are measured after them, so that their buffer is not in the peak of memory.
#include "api/bench.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "api/bench_model.h"
#include "api/guard.h"
#include "api/paths.h"
#include "api/quantize.h"
#include "base/energy.h"
#include "base/error.h"
#include "base/file.h"
#include "base/profile.h"
#include "base/threads.h"
#include "kernels/cpu.h"
#include "nn/buffers.h"
#include "nn/kv_cache.h"
#include "run/scheduler.h"

namespace statera {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Seconds and joules of the measured runs of one kind.
struct Samples {
  std::vector<double> seconds, joules;
};

void check_options(const BenchOptions& o) {
  if (o.model.has_value() == o.preset.has_value()) throw Error(ErrorKind::usage, "give either a checkpoint folder or --preset");
  auto positive = [](int64_t value, const char* flag) {
    if (value < 1) throw Error(ErrorKind::usage, std::string(flag) + " must be 1 or more, is " + std::to_string(value));
  };
  positive(o.pp, "--pp");
  positive(o.tg, "--tg");
  positive(o.repeats, "--repeats");
  if (o.seed < 0) throw Error(ErrorKind::usage, "--seed must not be negative");
  if (o.a_bits != 8 && o.a_bits != 16) throw Error(ErrorKind::usage, "--a-bits must be 16 (floating) or 8, is " + std::to_string(o.a_bits));
  if (o.w_bits && (*o.w_bits < 2 || *o.w_bits > 8)) throw Error(ErrorKind::usage, "--w-bits must be between 2 and 8, is " + std::to_string(*o.w_bits));
  if (o.head_bits && (*o.head_bits < 2 || *o.head_bits > 8)) throw Error(ErrorKind::usage, "--head-bits must be between 2 and 8, is " + std::to_string(*o.head_bits));
  if (o.a_static && o.a_bits != 8) throw Error(ErrorKind::usage, "--a-static is about quantized activations: give --a-bits 8");
  const bool more = o.w_group || o.asym || o.a_bits == 8 || o.quantize_vision || o.quantize_projector || o.quantize_head || o.head_bits;
  if (more && !o.w_bits) throw Error(ErrorKind::usage, "--w-group, --asym, --a-bits, --head-bits and --quantize-... say how weights are rounded: --w-bits must say to what");
  parse_kv_form(o.kv_cache);
  if (!o.trace.empty()) require_folder_of(o.trace);
}

class Runs {
 public:
  Runs(const Model& model, const BenchOptions& options, Progress& progress, const std::atomic<bool>* cancel)
      : model_(model), options_(options), inputs_(model, options), progress_(progress), cancel_(cancel) {
    const int64_t most = std::max(options.pp, inputs_.picture() ? static_cast<int64_t>(inputs_.picture()->ids.size()) : 0) + options.tg + 1;
    const int64_t limit = model.limits().max_positions;
    if (limit > 0 && most > limit) throw Error(ErrorKind::usage, fmt::format("--pp and --tg: {} tokens are more than the {} that the model reads", most, limit));
  }
  const std::optional<BenchPicture>& picture() const { return inputs_.picture(); }
  static constexpr int64_t kStages = 4;  // progress of one round

  // One prefill and its decoding; one picture through the tower; one first token after a picture.
  void round(bool counts) {
    text(counts);
    if (!picture()) return;
    see(counts);
    first_token(counts);
  }
  Samples prefill, decode, vision, first;

 private:
  // run() is timed, as stage `name` where a recorder lives.
  void timed(const char* name, Samples* samples, const std::function<void()>& run) {
    meter_.lap();
    const auto start = Clock::now();
    {
      const profile::Span span("stage", [&] { return profile::Description{name, {}}; });
      run();
    }
    const double seconds = since(start);
    const auto joules = meter_.lap();
    if (samples) {
      samples->seconds.push_back(seconds);
      if (joules) samples->joules.push_back(*joules);
    }
    if (cancel_ && *cancel_) throw Error(ErrorKind::interrupted, "interrupted");
  }

  // A scheduler of its own for every run: the caches of the last one are gone.
  struct Generation {
    Scheduler scheduler;
    std::optional<Answer> answer;
    Generation(const Model& model, const BenchOptions& options) : scheduler(model, std::nullopt, {}, {.kv_cache = options.kv_cache}) {}
    void submit(ModelInputs inputs, int64_t tokens, const std::atomic<bool>* cancel) {
      GenerateRequest request;
      request.inputs = std::move(inputs);
      request.max_new_tokens = tokens;
      request.sampling.temperature = 0;
      request.ignore_eos = true;
      request.cancel = cancel;
      request.on_done = [this](int64_t, Answer a) { answer = std::move(a); };
      scheduler.submit(std::move(request));
    }
    void step() {
      scheduler.step();
      if (answer && answer->error) throw *answer->error;
      if (answer && answer->finish == FinishReason::cancelled) throw Error(ErrorKind::interrupted, "interrupted");
    }
  };

  void text(bool counts) {
    Generation g(model_, options_);
    g.submit(inputs_.text(), options_.tg + 1, cancel_);
    timed("prefill", counts ? &prefill : nullptr, [&] { g.step(); });
    progress_.advance(1, "prefill");
    if (profile::on()) {  // a stage a token
      for (int64_t i = 0; i < options_.tg; ++i) timed("decode", nullptr, [&] { g.step(); });
    } else {
      timed("decode", counts ? &decode : nullptr, [&] {
        for (int64_t i = 0; i < options_.tg; ++i) g.step();
      });
    }
    check(g.answer.has_value(), "decoding ended with its last token");
    progress_.advance(1, "decode");
  }

  void see(bool counts) {
    const ModelInputs inputs = picture()->inputs();
    timed("vision", counts ? &vision : nullptr, [&] { model_.see(inputs); });
    progress_.advance(1, "vision");
  }

  void first_token(bool counts) {
    Generation g(model_, options_);
    timed("first token", counts ? &first : nullptr, [&] {
      g.submit(picture()->inputs(), 1, cancel_);
      g.step();
    });
    progress_.advance(1, "first token");
  }

  const Model& model_;
  const BenchOptions& options_;
  BenchInputs inputs_;
  Progress& progress_;
  const std::atomic<bool>* cancel_;
  EnergyMeter meter_;
};

BenchPhase phase_of(const Samples& samples, int64_t tokens) {
  BenchPhase p;
  p.tokens = tokens;
  p.seconds = summary_of(samples.seconds);
  std::vector<double> rates;
  for (double s : samples.seconds) rates.push_back(static_cast<double>(tokens) / std::max(s, 1e-9));
  p.rate = summary_of(std::move(rates));
  if (!samples.joules.empty()) p.joules = summary_of(samples.joules).median;
  return p;
}

// What one more run with clocks around its operators says about the phases: their work, their limits, and what lies between operators.
void fill_work(BenchReport& r, int64_t tg) {
  for (const StageProfile& s : r.stages) {
    const auto runs = static_cast<double>(s.runs);
    auto fill = [&](BenchPhase& p, double limit) {
      p.work = s.work;
      p.limit_seconds = limit;
    };
    if (s.stage == "prefill") fill(r.prefill, s.compute_seconds(r.limits));
    if (s.stage == "vision" && r.vision) fill(*r.vision, s.compute_seconds(r.limits));
    if (s.stage == "first token" && r.first_token) fill(*r.first_token, s.compute_seconds(r.limits));
    if (s.stage != "decode") continue;
    check(s.runs == tg, "a decode stage a token");
    fill(r.decode, s.weight_seconds(r.limits));
    r.outside_operators = std::clamp(1 - s.operators / s.seconds, 0.0, 1.0);
    r.outside_loops = std::clamp(1 - s.loops / s.seconds, 0.0, 1.0);
    r.weight_bytes = static_cast<int64_t>(s.work.weight_bytes / runs);
  }
}

void describe_model(BenchReport& r, const BenchModel& m, const BenchOptions& o) {
  r.model = m.name;
  r.precision = m.precision;
  r.random = m.random;
  r.activations = o.dtype;
  r.repeats = o.repeats;
  r.mapped_seconds = m.loaded.mapped_seconds;
  r.packed_seconds = m.loaded.made_seconds;
  r.cpu = kernels::cpu_description();
  const Params& params = m.loaded.model->params;
  r.parameters = params.count();
  r.loaded_rss = resident_bytes();
}

BenchReport run(const BenchOptions& o, const ProgressSink& sink, const std::atomic<bool>* cancel) {
  const auto start = Clock::now();
  check_options(o);
  const int64_t buffer = o.read_buffer.empty() ? 0 : static_cast<int64_t>(parse_bytes(o.read_buffer, "--read-buffer"));
  c10::InferenceMode no_gradients;
  BenchReport r;
  const KeptBuffers kept;  // as the engine
  const BenchModel m = open_bench_model(o);
  const Model& model = *m.loaded.model;
  describe_model(r, m, o);
  const int64_t stages = model.vision() && o.image != "none" ? Runs::kStages : 2;
  Progress progress("bench", static_cast<double>((o.repeats + 2) * stages + 1), "runs", sink);
  Runs runs(model, o, progress, cancel);
  for (int64_t i = 0; i <= o.repeats; ++i) runs.round(i > 0);
  std::vector<profile::Event> events;
  {
    profile::Recorder recorder;
    runs.round(false);
    events = recorder.take();
  }
  r.peak_rss = peak_resident_bytes();
  r.prefill = phase_of(runs.prefill, o.pp);
  r.decode = phase_of(runs.decode, o.tg);
  if (const auto& picture = runs.picture()) {
    r.image = picture->size();
    r.image_tokens = picture->tokens;
    r.vision = phase_of(runs.vision, picture->patches);
    r.first_token = phase_of(runs.first, static_cast<int64_t>(picture->ids.size()));
  }
  r.limits = measure_limits(buffer);
  progress.advance(1, "limits");
  r.stages = profile_stages(events, r.limits);
  fill_work(r, o.tg);
  r.profile = o.profile;
  if (!o.trace.empty()) {
    write_file_atomic(o.trace, chrome_trace(events).dump() + "\n");
    r.trace = o.trace;
  }
  progress.finish();
  r.seconds = since(start);
  return r;
}

}  // namespace

BenchReport bench(const BenchOptions& options, const ProgressSink& progress, const std::atomic<bool>* cancel) {
  return guarded([&] { return run(options, progress, cancel); });
}

}  // namespace statera
