// What bench says, as JSON and as text.
#include <fmt/format.h>

#include "api/bench.h"
#include "base/strings.h"

namespace statera {
namespace {

double gflops(double flop, double seconds) { return seconds > 0 ? flop / seconds * 1e-9 : 0; }

Json optional_json(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

std::string rates(const char* name, const BenchPhase& p, const char* unit) {
  return fmt::format("{:<28}{:>10.2f}{:>10.2f}{:>10.2f}  {:<10}", name, p.rate.min, p.rate.median, p.rate.max, unit);
}

std::string milliseconds(const char* name, const BenchPhase& p) {
  return fmt::format("{:<28}{:>10.1f}{:>10.1f}{:>10.1f}  {:<10}", name, 1e3 * p.seconds.min, 1e3 * p.seconds.median, 1e3 * p.seconds.max, "ms");
}

std::string compute_share(const BenchPhase& p, const MachineLimits& limits) {
  const double rate = gflops(p.work.flop, p.seconds.median);
  std::string t = fmt::format("{:>5.0f}% of the limit ({:.0f} GFLOP/s:", 100 * p.share_of_limit(), rate);
  const char* separator = " ";
  for (const MachineLimits::Compute& c : limits.compute) {
    t += fmt::format("{}{:.0f}% of the {} peak", separator, 100e9 * rate / c.flop.best(), c.kind);
    separator = ", ";
  }
  return t + ")\n";
}

std::string limits_text(const MachineLimits& l) {
  std::string t = fmt::format("limits measured here           1 thread  {} threads\n", l.threads);
  t += fmt::format("  {:<26}{:>10.1f}{:>11.1f}  GB/s, {} in 4 MiB pieces\n", "read", l.read.one.max * 1e-9, l.read.all.max * 1e-9,
                   human_bytes(static_cast<double>(l.buffer_bytes)));
  for (const MachineLimits::Compute& c : l.compute)
    t += fmt::format("  {:<26}{:>10.1f}{:>11.1f}  {}, {}\n", c.kind, c.flop.one.max * 1e-9, c.flop.all.max * 1e-9, c.kind == "int8" ? "GOP/s" : "GFLOP/s", c.instruction);
  return t;
}

std::string energy_text(const BenchReport& r) {
  if (!r.prefill.joules || !r.decode.joules) return "energy                      not available: this machine shows no RAPL counters\n";
  return fmt::format("energy                      {:.3f} J a prompt token, {:.3f} J a decoded token\n", *r.prefill.joules / static_cast<double>(r.prefill.tokens),
                     *r.decode.joules / static_cast<double>(r.decode.tokens));
}

}  // namespace

Json BenchPhase::to_json(const MachineLimits& limits) const {
  Json j = Json::object();
  j.set("tokens", tokens);
  j.set("seconds", seconds.to_json());
  j.set("tokens_per_second", rate.to_json());
  j.set("flop", work.flop);
  j.set("bytes", work.bytes);
  j.set("weight_bytes", work.weight_bytes);
  j.set("flop_per_second", seconds.median > 0 ? work.flop / seconds.median : 0.0);
  j.set("weight_bytes_per_second", seconds.median > 0 ? work.weight_bytes / seconds.median : 0.0);
  j.set("limit_seconds", limit_seconds);
  j.set("share_of_limit", share_of_limit());
  Json shares = Json::object();
  for (const MachineLimits::Compute& c : limits.compute) shares.set(c.kind, seconds.median > 0 ? work.flop / seconds.median / c.flop.best() : 0.0);
  j.set("share_of_peak", shares);
  j.set("joules", optional_json(joules));
  return j;
}

Json BenchReport::to_json() const {
  Json j = Json::object();
  j.set("model", model);
  j.set("random_weights", random);
  j.set("precision", precision);
  j.set("activations", activations);
  j.set("cpu", cpu);
  j.set("threads", limits.threads);
  j.set("repeats", repeats);
  j.set("parameters", parameters);
  j.set("weight_bytes_per_token", weight_bytes);
  Json load = Json::object();
  load.set("mapped_seconds", random ? Json() : Json(mapped_seconds));
  load.set("packed_seconds", packed_seconds);
  load.set("resident_bytes", loaded_rss);
  j.set("load", load);
  j.set("prefill", prefill.to_json(limits));
  j.set("decode", decode.to_json(limits));
  if (vision) {
    j.set("image", image);
    j.set("image_tokens", image_tokens);
    j.set("vision", vision->to_json(limits));
    j.set("first_token", first_token->to_json(limits));
  }
  j.set("peak_memory_bytes", peak_rss);
  Json overhead = Json::object();
  overhead.set("decode_outside_operators", outside_operators);
  overhead.set("decode_outside_loops", outside_loops);
  j.set("overhead", overhead);
  j.set("energy", decode.joules ? "processors, by RAPL" : "not available");
  j.set("limits", limits.to_json());
  if (profile) {
    Json list = Json::array();
    for (const StageProfile& s : stages) list.push(s.to_json());
    j.set("profile", list);
  }
  if (!trace.empty()) j.set("trace", trace);
  j.set("seconds", seconds);
  return j;
}

std::string BenchReport::to_text() const {
  std::string t = fmt::format("{}: {} parameters{}, {}, {} activations, {} thread{}\n{}\n\n", model, human_count(static_cast<double>(parameters)),
                              random ? " (random)" : "", precision, activations, limits.threads, limits.threads == 1 ? "" : "s", cpu);
  t += fmt::format("{:<28}{:>10}{:>10}{:>10}\n", fmt::format("{} run{} after one to warm up", repeats, repeats == 1 ? "" : "s"), "min", "median", "max");
  t += rates(fmt::format("prefill of {}", prefill.tokens).c_str(), prefill, "tokens/s") + compute_share(prefill, limits);
  t += rates(fmt::format("decode of {} after them", decode.tokens).c_str(), decode, "tokens/s") +
       fmt::format("{:>5.0f}% of the limit ({:.1f} GB/s of weights, {} a token)\n", 100 * decode.share_of_limit(),
                   decode.work.weight_bytes / decode.seconds.median * 1e-9, human_bytes(static_cast<double>(weight_bytes)));
  if (vision) {
    t += milliseconds(fmt::format("vision of {}", image).c_str(), *vision) + compute_share(*vision, limits);
    t += milliseconds(fmt::format("first token, prompt of {}", first_token->tokens).c_str(), *first_token) + compute_share(*first_token, limits);
  }
  t += "\n";
  t += random ? fmt::format("weights drawn in            {:.2f} s\n", packed_seconds)
              : fmt::format("load                        mapped in {:.3f} s, packed in {:.2f} s\n", mapped_seconds, packed_seconds);
  t += fmt::format("memory                      {} loaded, {} at the peak\n", human_bytes(static_cast<double>(loaded_rss)), human_bytes(static_cast<double>(peak_rss)));
  t += energy_text(*this);
  t += fmt::format("a decode step               {:.1f}% between operators, {:.1f}% outside parallel loops\n\n", 100 * outside_operators, 100 * outside_loops);
  t += limits_text(limits);
  if (profile) {
    for (const StageProfile& s : stages) t += "\n" + s.to_text();
  }
  if (!trace.empty()) t += fmt::format("\ntrace in {}\n", trace);
  return t;
}

}  // namespace statera
