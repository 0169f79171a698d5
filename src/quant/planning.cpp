// See planning.h.
#include "quant/planning.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "base/strings.h"
#include "quant/calib/forward.h"
#include "quant/estimate.h"
#include "quant/report.h"
#include "quant/recipes/targets.h"

namespace statera {
namespace {

struct Scratch {
  explicit Scratch(std::string path) : folder(std::move(path)) {
    std::error_code ec;
    if (!std::filesystem::create_directory(folder, ec)) throw io_error(folder, ec ? ec.value() : EEXIST);
  }
  ~Scratch() {
    std::error_code ec;
    std::filesystem::remove_all(folder, ec);
  }
  std::string folder;
};

std::string precision_of(const StoredLinear& l) {
  return fmt::format("{} bits, {}, {}{}", l.spec.bits, l.spec.group > 0 ? fmt::format("groups of {}", l.spec.group) : "rows",
                     l.spec.symmetric ? "symmetric" : "asymmetric", l.act ? spoken_activations(l.act->bits, l.act->is_static) : "");
}

}  // namespace

std::optional<BitChoice> chosen_bits(const Model& model, const CheckpointSource& source, const QuantizeSettings& s, const std::string& scratch,
                                     const QuantizeHooks& hooks) {
  if (!s.target_bits) return std::nullopt;
  const std::vector<LayerChoice> layers = select_layers(model, source, s.plan.select, s.plan.weights);
  InputEnergies energies;
  if (s.data) {
    Scratch folder(scratch);
    Calibrator calibrator(model, *s.data, folder.folder, hooks.cancel);
    energies = measure_energies(model, layers, calibrator, hooks.progress);
  }
  return choose_bits(source, layers, s.plan, *s.target_bits, energies, hooks.progress, hooks.cancel);
}

std::vector<std::string> check_targets(const OutputPlan& plan, const QuantizeSettings& s) {
  std::vector<std::string> refused, warnings;
  for (const std::string& target : s.targets) {
    for (const Refusal& r : refusals(plan, target)) refused.push_back(r.target + " would refuse it: " + r.reason);
  }
  if (!refused.empty()) throw Error(ErrorKind::unsupported, "--target: " + join(refused, "; "));
  if (!s.targets.empty()) return warnings;
  for (const char* target : {"vllm", "transformers"}) {
    for (const Refusal& r : refusals(plan, target)) warnings.push_back(r.target + " would refuse it: " + r.reason);
  }
  return warnings;
}

PlanDetails plan_details(const OutputPlan& plan, const CheckpointSource& source, const QuantizeSettings& s, uint64_t output_bytes,
                         uint64_t state_bytes) {
  PlanDetails out;
  auto add = [&](const TensorPlan& t, const std::string& from, std::string precision, bool quantized) {
    auto role = plan.role_of.find(from);
    out.tensors.push_back({t.name, std::string(stored_type(t.dtype).name), role == plan.role_of.end() ? "unknown" : role->second, t.shape, t.bytes(),
                           std::move(precision), quantized});
  };
  for (const UnitPlan& unit : plan.units) {
    for (size_t i : unit.layers) {
      for (const TensorPlan& t : plan.layers[i].tensors) add(t, plan.layers[i].source, precision_of(plan.layers[i].stored), true);
    }
    for (const std::string& name : unit.kept) {
      const TensorInfo& info = *source.checkpoint().find(name);
      add({name, info.dtype, info.shape}, name, std::string(info.type->name), false);
    }
  }
  out.disk_bytes = output_bytes + state_bytes;
  out.time = estimate_time(plan, s);
  for (const std::string& target : known_targets()) {
    for (const Refusal& r : refusals(plan, target)) out.refusals.emplace_back(r.target, r.reason);
  }
  return out;
}

}  // namespace statera
