// The report as JSON and as the lines a person reads.
#include "quant/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/strings.h"

namespace statera {
namespace {

struct Spread {
  double sum = 0, worst = 0;
  int64_t count = 0;
  std::string worst_layer;
};

// Errors by the layer's own name ("down_proj"), in order of names.
std::map<std::string, Spread> by_name(const std::vector<QuantizeReport::Layer>& layers) {
  std::map<std::string, Spread> out;
  for (const auto& l : layers) {
    Spread& s = out[l.name.substr(l.name.rfind('.') + 1)];
    s.sum += l.error;
    ++s.count;
    if (l.error >= s.worst) {
      s.worst = l.error;
      s.worst_layer = l.name;
    }
  }
  return out;
}

// Output errors beside round-to-nearest's, and the layers that came out worse.
std::string output_lines(const std::vector<QuantizeReport::Layer>& layers) {
  double sum = 0, rtn = 0;
  int64_t count = 0, worse = 0;
  std::string t;
  for (const auto& l : layers) {
    if (!l.output_error || !l.rtn_output_error) continue;
    sum += *l.output_error;
    rtn += *l.rtn_output_error;
    ++count;
    if (*l.output_error <= *l.rtn_output_error * (1 + 1e-4)) continue;
    if (++worse <= 5) t += fmt::format("  worse than round-to-nearest: {} ({:.4f}, not {:.4f})\n", l.name, *l.output_error, *l.rtn_output_error);
  }
  if (count == 0) return "";
  const double n = static_cast<double>(count);
  return fmt::format("relative error of the outputs on the calibration data, mean: {:.4f}; round-to-nearest: {:.4f}; worse in {} of {} layers\n",
                     sum / n, rtn / n, worse, count) + t;
}

Json object(std::initializer_list<Json::Member> members) {
  Json j = Json::object();
  j.members().assign(members.begin(), members.end());
  return j;
}

Json kind_json(const QuantizeReport::Kind& k) {
  return object({{"output_error", k.output_error}, {"rtn_output_error", k.rtn_output_error}, {"rows", k.rows}, {"seen", k.seen}});
}

Json layers_json(const std::vector<QuantizeReport::Layer>& layers) {
  Json out = Json::array();
  for (const auto& l : layers) {
    Json one = object({{"name", l.name}, {"error", l.error}});
    if (l.output_error) one.set("output_error", *l.output_error);
    if (l.rtn_output_error) one.set("rtn_output_error", *l.rtn_output_error);
    if (l.output_error) one.set("all_rows", l.all_rows);
    if (l.text) one.set("text", kind_json(*l.text));
    if (l.vision) one.set("vision", kind_json(*l.vision));
    if (l.input) {
      Json top = Json::array();
      for (const auto& [channel, value] : l.input->top) top.push(object({{"channel", channel}, {"largest", value}}));
      one.set("input", object({{"median", l.input->median}, {"largest", l.input->largest}, {"outliers", l.input->outliers}, {"top", std::move(top)}}));
    }
    out.push(std::move(one));
  }
  return out;
}

Json scales_json(const std::vector<QuantizeReport::Scale>& scales) {
  Json out = Json::array();
  for (const auto& s : scales) {
    Json one = object({{"block", s.block},
                       {"group", s.group},
                       {"readers", Json(s.readers)},
                       {"ratio", s.ratio},
                       {"smallest", s.smallest},
                       {"largest", s.largest},
                       {"losses", Json(s.losses)}});
    if (s.rho) one.set("rho", *s.rho);
    out.push(std::move(one));
  }
  return out;
}

Json experts_json(const QuantizeReport::Experts& e) {
  return object({{"layers", e.layers}, {"least_tokens", e.least}, {"median_tokens", e.median}, {"most_tokens", e.most}, {"unreached", Json(e.unreached)}});
}

Json worse_json(const std::vector<QuantizeReport::Worse>& worse) {
  Json out = Json::array();
  for (const auto& w : worse)
    out.push(object({{"layer", w.layer}, {"rows", w.rows}, {"output_error", w.output_error}, {"rtn_output_error", w.rtn_output_error}}));
  return out;
}

std::string size(uint64_t bytes) { return human_bytes(static_cast<double>(bytes)); }

}  // namespace

uint64_t QuantizeReport::disk_bytes() const {
  uint64_t total = 0;
  for (const auto& [name, bytes] : files) total += bytes;
  return total;
}

double QuantizeReport::bits_per_weight() const {
  return quantized_weights ? 8.0 * static_cast<double>(quantized_bytes) / static_cast<double>(quantized_weights) : 0;
}

std::vector<QuantizeReport::Worse> QuantizeReport::worse_than_rtn() const {
  std::vector<Worse> out;
  // Sums in fp32 stand behind both: what is less than this apart is the same.
  auto check = [&](const std::string& layer, const char* rows, double error, double rtn) {
    if (error > rtn * (1 + 1e-4)) out.push_back({layer, rows, error, rtn});
  };
  for (const Layer& l : layers) {
    if (l.output_error && l.rtn_output_error) check(l.name, "all", *l.output_error, *l.rtn_output_error);
    if (l.text) check(l.name, "text", l.text->output_error, l.text->rtn_output_error);
    if (l.vision) check(l.name, "vision", l.vision->output_error, l.vision->rtn_output_error);
  }
  return out;
}

Json QuantizeReport::record() const {
  Json j = object({{"planned_only", planned_only},
                   {"method", method},
                   {"source", source},
                   {"format", format},
                   {"w_bits", w_bits},
                   {"w_group", w_group},
                   {"symmetric", symmetric},
                   {"a_bits", a_bits},
                   {"a_static", a_static},
                   {"source_bytes", source_bytes},
                   {"result_bytes", result_bytes},
                   {"disk_bytes", disk_bytes()},
                   {"quantized_weights", quantized_weights},
                   {"quantized_bytes", quantized_bytes},
                   {"bits_per_weight", bits_per_weight()},
                   {"units", units},
                   {"expected_ram", expected_ram}});
  Json file_list = Json::array(), role_list = Json::array();
  for (const auto& [name, bytes] : files) file_list.push(object({{"name", name}, {"bytes", bytes}}));
  for (const Role& r : roles) {
    role_list.push(object({{"role", r.role},
                           {"quantized_layers", r.quantized_layers},
                           {"kept_layers", r.kept_layers},
                           {"kept_tensors", r.kept_tensors},
                           {"source_bytes", r.source_bytes},
                           {"result_bytes", r.result_bytes}}));
  }
  if (data) {
    j.set("data", object({{"hash", data->hash},
                          {"bundled", data->bundled},
                          {"samples", data->samples},
                          {"tokens", data->tokens},
                          {"vision_tokens", data->vision_tokens},
                          {"answer_tokens", data->answer_tokens}}));
  }
  j.set("files", std::move(file_list));
  j.set("roles", std::move(role_list));
  j.set("warnings", Json(warnings));
  j.set("recipe", recipe);
  if (!bits.is_null()) j.set("bits", bits);
  if (plan) j.set("plan", plan->to_json());
  if (planned_only) return j;
  j.set("layers", layers_json(layers));
  if (experts) j.set("experts", experts_json(*experts));
  j.set("worse_than_rtn", worse_json(worse_than_rtn()));
  j.set("scales", scales_json(scales));
  if (!scales_sha256.empty()) j.set("scales_sha256", scales_sha256);
  if (!scales_reused.empty()) j.set("scales_reused", scales_reused);
  j.set("verified", object({{"tensors", verified.tensors},
                            {"scales", verified.scales},
                            {"layers_decoded", verified.layers_decoded},
                            {"worst_difference", verified.worst_difference},
                            {"logits", verified.logits},
                            {"worst_logit_difference", verified.worst_logit},
                            {"allowed_logit_difference", verified.allowed_logit},
                            {"largest_logit", verified.largest_logit}}));
  return j;
}

Json QuantizeReport::this_run() const {
  Json phases = Json::object();
  for (const auto& [phase, time] : phase_seconds) phases.set(phase, time);
  return object({{"out", out},
                 {"resumed_units", resumed_units},
                 {"seconds", seconds},
                 {"rounding_seconds", rounding_seconds},
                 {"checking_seconds", checking_seconds},
                 {"phase_seconds", std::move(phases)},
                 {"gigabytes_per_second", gigabytes_per_second},
                 {"quick_ram", quick_ram},
                 {"peak_rss", peak_rss}});
}

Json QuantizeReport::to_json() const {
  Json j = record();
  j.set("this_run", planned_only ? object({{"out", out}, {"quick_ram", quick_ram}}) : this_run());
  return j;
}

std::string spoken_activations(int64_t bits, bool is_static) {
  return bits < 16 ? fmt::format(", {}-bit activations{}", bits, is_static ? " with static scales" : "") : "";
}

std::string QuantizeReport::to_text() const {
  std::string t = fmt::format("{} {}: {}, {} bits, {}, {}{}\n", planned_only ? "would write" : "wrote", out, method, w_bits,
                              w_group > 0 ? fmt::format("groups of {}", w_group) : "one scale per row",
                              symmetric ? "symmetric" : "asymmetric", spoken_activations(a_bits, a_static));
  t += fmt::format("tensors {} -> {} ({:.1f} %), files {} bytes in {}; quantized layers take {:.3f} bits per weight\n", size(source_bytes),
                   size(result_bytes), source_bytes ? 100.0 * static_cast<double>(result_bytes) / static_cast<double>(source_bytes) : 0.0,
                   disk_bytes(), files.size(), bits_per_weight());
  t += fmt::format("{:<12}{:>10}{:>8}{:>10}{:>14}{:>14}\n", "role", "quantized", "kept", "tensors", "before", "after");
  for (const Role& r : roles) {
    t += fmt::format("{:<12}{:>10}{:>8}{:>10}{:>14}{:>14}\n", r.role, r.quantized_layers, r.kept_layers, r.kept_tensors,
                     size(r.source_bytes), size(r.result_bytes));
  }
  if (data) {
    t += fmt::format("calibration: {} samples{}, {} tokens ({} of pictures, {} of answers), data {}\n", data->samples,
                     data->bundled ? " of the bundled set" : "", data->tokens, data->vision_tokens, data->answer_tokens,
                     data->hash.substr(0, 12));
  }
  if (planned_only) {
    for (const auto& [name, bytes] : files) t += fmt::format("  {:>14}  {}\n", bytes, name);
    t += fmt::format("memory needed: about {}", size(expected_ram)) + (quick_ram ? fmt::format(", and {} that make it faster\n", size(quick_ram)) : "\n");
    if (plan) t += plan->to_text();
  } else {
    t += "relative error of the weights, mean and worst:\n";
    for (const auto& [name, s] : by_name(layers)) {
      t += fmt::format("  {:<16}{:.4f}  {:.4f} ({})\n", name, s.sum / static_cast<double>(s.count), s.worst, s.worst_layer);
    }
    t += output_lines(layers);
    if (experts)
      t += fmt::format("tokens that reached an expert: {} to {}, median {}; {} of {} layers were reached by none\n", experts->least, experts->most, experts->median,
                       experts->unreached.size(), experts->layers);
    t += fmt::format("checked: {} tensors, {} scales, {} layers decoded (error as when rounding within {:.1e})\n", verified.tensors,
                     verified.scales, verified.layers_decoded, verified.worst_difference);
    if (verified.logits > 0)
      t += fmt::format("loaded and run on a calibration sample: {} logits as the run held them, within {:.1e} of {:.3g}\n", verified.logits,
                       verified.worst_logit, verified.largest_logit);
    t += fmt::format("{} ({:.2f} GB/s rounding, {} checking), peak memory {}{}\n", human_seconds(seconds), gigabytes_per_second,
                     human_seconds(checking_seconds), size(peak_rss),
                     resumed_units ? fmt::format(", {} of {} blocks were done already", resumed_units, units) : "");
  }
  for (const std::string& w : warnings) t += "note: " + w + "\n";
  return t;
}

}  // namespace statera
