// bench_profile: noted spans to a table: what each operator took, did and could have taken at best, stage by stage. Pure functions; times
// of operators that ran side by side are shared out, so that a stage's operators and the rest add up to the stage.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/bench_limits.h"
#include "base/profile.h"

namespace statera {

struct OperatorRow {
  std::string name;  // a class of layers, "mlp.down_proj", or a kind, "attention"
  int64_t calls = 0;
  double seconds = 0;
  profile::Work work;
  double limit_seconds = 0;  // the longer of computing and reading at the machine's limits; 0: nothing counted
  bool compute_bound = false;
};

// All runs of one stage: "prefill", "decode" (one run a token), "vision".
struct StageProfile {
  std::string stage;
  int64_t runs = 0;
  double seconds = 0;
  double operators = 0;  // seconds in which an operator ran
  double loops = 0;      // seconds in which a parallel loop ran, which is where kernels run
  profile::Work work;
  std::vector<OperatorRow> rows;  // longest first
  // What computing alone, and reading weights alone, would take at the machine's limits.
  double compute_seconds(const MachineLimits& limits) const;
  double weight_seconds(const MachineLimits& limits) const { return work.weight_bytes / limits.bandwidth(); }
  Json to_json() const;
  std::string to_text() const;
};

// Spans of kind "stage" are the stages, by their names, in the order of their first run; "pool" the parallel loops; all others operators.
// Operators outside stages are left out.
std::vector<StageProfile> profile_stages(const std::vector<profile::Event>& events, const MachineLimits& limits);

// "model.layers.3.self_attn.q_proj" -> "self_attn.q_proj", "...experts.17.up_proj" -> "experts.up_proj": the last two names of a path.
std::string operator_class(std::string_view path);

// The events as chrome://tracing and Perfetto read them.
Json chrome_trace(const std::vector<profile::Event>& events);

}  // namespace statera
