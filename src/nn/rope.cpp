// Frequencies of every rope scaling, the cos/sin tables, and the half rotation.
#include "nn/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "nn/describe.h"
#include "nn/elementwise.h"
#include "nn/fused.h"

namespace statera {
namespace {

std::vector<double> numbers(const Json* j, const char* what) {
  std::vector<double> out;
  if (j) {
    for (const Json& v : j->as_array(what)) out.push_back(v.as_double(what));
  }
  return out;
}

void read_scaling(const Json& s, RopeConfig& c) {
  std::string kind = s.get_string("rope_type", s.get_string("type", "default"));
  if (kind == "mrope") kind = "default";
  if (kind == "su") kind = "longrope";
  static const std::vector<std::string> known{"default", "linear", "dynamic", "llama3", "yarn", "longrope"};
  if (std::find(known.begin(), known.end(), kind) == known.end()) {
    throw Error(ErrorKind::unsupported, "config.json: rope_scaling type \"" + kind + "\" is not known (default, linear, dynamic, llama3, yarn, longrope)");
  }
  c.kind = kind;
  c.theta = s.get_double("rope_theta", c.theta);
  c.partial_rotary_factor = s.get_double("partial_rotary_factor", c.partial_rotary_factor);
  c.factor = s.get_double("factor", c.factor);
  c.original_max_position_embeddings = s.get_int("original_max_position_embeddings", c.original_max_position_embeddings);
  c.low_freq_factor = s.get_double("low_freq_factor", c.low_freq_factor);
  c.high_freq_factor = s.get_double("high_freq_factor", c.high_freq_factor);
  c.beta_fast = s.get_double("beta_fast", c.beta_fast);
  c.beta_slow = s.get_double("beta_slow", c.beta_slow);
  c.mscale = s.get_double("mscale", c.mscale);
  c.mscale_all_dim = s.get_double("mscale_all_dim", c.mscale_all_dim);
  c.attention_factor = s.get_double("attention_factor", c.attention_factor);
  c.truncate = s.get_bool("truncate", c.truncate);
  c.short_factor = numbers(s.get("short_factor"), "rope_scaling.short_factor");
  c.long_factor = numbers(s.get("long_factor"), "rope_scaling.long_factor");
  for (double v : numbers(s.get("mrope_section"), "rope_scaling.mrope_section")) c.mrope_section.push_back(static_cast<int64_t>(v));
  c.mrope_interleaved = s.get_bool("mrope_interleaved", false);
}

double yarn_correction(double rotations, double d, double theta, double length) {
  return d * std::log(length / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

// cos/sin multiplier of the kinds that have one.
double table_multiplier(const RopeConfig& c) {
  if (c.attention_factor > 0 && (c.kind == "yarn" || c.kind == "longrope")) return c.attention_factor;
  if (c.kind == "yarn") {
    if (c.mscale != 0 && c.mscale_all_dim != 0) return yarn_mscale(c.factor, c.mscale) / yarn_mscale(c.factor, c.mscale_all_dim);
    return yarn_mscale(c.factor, 1);
  }
  if (c.kind == "longrope") {
    double L0 = static_cast<double>(c.original_max_position_embeddings);
    double s = static_cast<double>(c.max_position_embeddings) / L0;
    return s <= 1 ? 1.0 : std::sqrt(1 + std::log(s) / std::log(L0));
  }
  return 1;
}

}  // namespace

RopeConfig RopeConfig::from_config(const Json& config, int64_t head_dim, double default_theta) {
  RopeConfig c;
  c.head_dim = head_dim;
  c.theta = config.get_double("rope_theta", default_theta);
  c.partial_rotary_factor = config.get_double("partial_rotary_factor", 1);
  c.max_position_embeddings = config.get_int("max_position_embeddings", 0);
  c.original_max_position_embeddings = config.get_int("original_max_position_embeddings", 0);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (const Json* s = config.get(key)) with_context(std::string("config.json: ") + key, [&] { read_scaling(*s, c); });
  }
  // Longrope's factor is the ratio of the two lengths; a config with only `factor` gives the original length by division.
  if (c.original_max_position_embeddings == 0) c.original_max_position_embeddings = c.max_position_embeddings;
  return c;
}

Rope::Rope(RopeConfig config) : c_(std::move(config)) {
  rotated_ = static_cast<int64_t>(static_cast<double>(c_.head_dim) * c_.partial_rotary_factor);
  if (rotated_ <= 0 || rotated_ % 2) throw Error(ErrorKind::bad_file, "config.json: rotary width " + std::to_string(rotated_) + " is not even and positive");
  const int64_t half = rotated_ / 2;
  if (c_.kind == "longrope") {
    for (const auto* f : {&c_.short_factor, &c_.long_factor}) {
      if (static_cast<int64_t>(f->size()) != half) {
        throw Error(ErrorKind::bad_file, "config.json: rope_scaling: longrope factors have " + std::to_string(f->size()) + " entries, " + std::to_string(half) + " are needed");
      }
    }
  }
  if ((c_.kind == "yarn" || c_.kind == "llama3" || c_.kind == "longrope") && c_.original_max_position_embeddings <= 0) {
    throw Error(ErrorKind::bad_file, "config.json: rope_scaling: " + c_.kind + " needs original_max_position_embeddings");
  }
  multiplier_ = table_multiplier(c_);
  if (c_.kind != "dynamic" && c_.kind != "longrope") fixed_ = frequencies(0);
  if (!c_.mrope_section.empty()) {
    int64_t total = 0;
    for (int64_t s : c_.mrope_section) total += s;
    if (c_.mrope_section.size() != 3 || total != half) {
      throw Error(ErrorKind::bad_file, "config.json: mrope_section must hold three sizes that add up to " + std::to_string(half));
    }
    std::vector<int64_t> row(static_cast<size_t>(half), 0);
    for (int64_t j = 0; j < half; ++j) {
      auto& r = row[static_cast<size_t>(j)];
      if (c_.mrope_interleaved) {
        r = j % 3 == 1 && j < 3 * c_.mrope_section[1] ? 1 : j % 3 == 2 && j < 3 * c_.mrope_section[2] ? 2 : 0;
      } else {
        r = j < c_.mrope_section[0] ? 0 : j < c_.mrope_section[0] + c_.mrope_section[1] ? 1 : 2;
      }
    }
    row_of_ = at::tensor(row, at::kLong);
  }
}

at::Tensor Rope::frequencies(int64_t length) const {
  const int64_t half = rotated_ / 2;
  const double d = static_cast<double>(rotated_), s = c_.factor;
  double theta = c_.theta;
  if (c_.kind == "dynamic" && length > c_.max_position_embeddings) {
    double ratio = s * static_cast<double>(length) / static_cast<double>(c_.max_position_embeddings) - (s - 1);
    theta *= std::pow(ratio, d / (d - 2));
  }
  // The reference computes in fp32: theta ** (2j/d), then 1/x.
  std::vector<float> f(static_cast<size_t>(half));
  for (int64_t j = 0; j < half; ++j) {
    float exponent = static_cast<float>(2 * j) / static_cast<float>(d);
    f[static_cast<size_t>(j)] = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
  }
  if (c_.kind == "linear") {
    for (float& w : f) w = static_cast<float>(w / s);
  } else if (c_.kind == "llama3") {
    double L0 = static_cast<double>(c_.original_max_position_embeddings);
    for (float& w : f) {
      double wavelength = 2 * std::numbers::pi / w;
      if (wavelength > L0 / c_.low_freq_factor) {
        w = static_cast<float>(w / s);
      } else if (wavelength >= L0 / c_.high_freq_factor) {
        double t = (L0 / wavelength - c_.low_freq_factor) / (c_.high_freq_factor - c_.low_freq_factor);
        w = static_cast<float>((1 - t) * w / s + t * w);
      }
    }
  } else if (c_.kind == "yarn") {
    double L0 = static_cast<double>(c_.original_max_position_embeddings);
    double low = yarn_correction(c_.beta_fast, d, theta, L0), high = yarn_correction(c_.beta_slow, d, theta, L0);
    if (c_.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, d - 1);
    if (low == high) high += 0.001;
    for (int64_t j = 0; j < half; ++j) {
      double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
      float& w = f[static_cast<size_t>(j)];
      w = static_cast<float>(w / s * ramp + w * (1 - ramp));
    }
  } else if (c_.kind == "longrope") {
    const auto& factor = length > c_.original_max_position_embeddings ? c_.long_factor : c_.short_factor;
    for (int64_t j = 0; j < half; ++j) {
      double power = std::pow(theta, static_cast<double>(static_cast<float>(2 * j) / static_cast<float>(d)));
      f[static_cast<size_t>(j)] = static_cast<float>(1.0 / (factor[static_cast<size_t>(j)] * power));
    }
  }
  return at::tensor(f, at::kFloat);
}

std::pair<at::Tensor, at::Tensor> Rope::tables(const at::Tensor& positions, const std::vector<int64_t>& bounds) const {
  at::Tensor angles;  // [T, r/2]
  auto angles_of = [&](const at::Tensor& pos, const at::Tensor& freq) {
    if (pos.dim() == 1) return pos.to(at::kFloat).unsqueeze(1) * freq.unsqueeze(0);
    check(pos.size(0) == 3, "positions have one or three rows");
    if (!row_of_.defined()) return pos[0].to(at::kFloat).unsqueeze(1) * freq.unsqueeze(0);
    at::Tensor per_frequency = at::index_select(pos, 0, row_of_).to(at::kFloat);  // [r/2, T]
    return per_frequency.t() * freq.unsqueeze(0);
  };
  if (fixed_.defined()) {
    angles = angles_of(positions, fixed_);
  } else {
    std::vector<at::Tensor> parts;
    for (size_t s = 0; s + 1 < bounds.size(); ++s) {
      if (bounds[s] == bounds[s + 1]) continue;
      at::Tensor pos = positions.slice(-1, bounds[s], bounds[s + 1]);
      parts.push_back(angles_of(pos, frequencies(pos.max().item<int64_t>() + 1)));
    }
    angles = at::cat(parts, 0);
  }
  at::Tensor both = at::cat({angles, angles}, 1);
  at::Tensor cos = at::cos(both), sin = at::sin(both);
  if (multiplier_ != 1) return {cos * multiplier_, sin * multiplier_};
  return {cos, sin};
}

bool Rope::cache_valid(int64_t before, int64_t after) const {
  if (c_.kind != "longrope") return true;
  return (before > c_.original_max_position_embeddings) == (after > c_.original_max_position_embeddings);
}

at::Tensor apply_rope(const at::Tensor& x, const at::Tensor& cos_TR, const at::Tensor& sin_TR) {
  const profile::Span span("rotary", [&] { return describe_elementwise(x); });
  const int64_t r = cos_TR.size(1), d = x.size(2);
  if (r == d && trains_in_fp32(x, cos_TR)) return fused_rope(x, cos_TR, sin_TR);
  if (kernel_reads(x) && kernel_reads(cos_TR) && kernel_reads(sin_TR)) return kernel_rope(x, cos_TR, sin_TR);
  at::Tensor cos = cos_TR.to(x.scalar_type()).unsqueeze(1), sin = sin_TR.to(x.scalar_type()).unsqueeze(1);
  at::Tensor part = r == d ? x : x.slice(2, 0, r);
  at::Tensor turned = at::cat({-part.slice(2, r / 2, r), part.slice(2, 0, r / 2)}, 2);
  at::Tensor out = part * cos + turned * sin;
  return r == d ? out : at::cat({out, x.slice(2, r, d)}, 2);
}

at::Tensor apply_rope_fp32(const at::Tensor& x, const at::Tensor& cos_TR, const at::Tensor& sin_TR) {
  return apply_rope(x.to(at::kFloat), cos_TR, sin_TR).to(x.scalar_type());
}

}  // namespace statera
