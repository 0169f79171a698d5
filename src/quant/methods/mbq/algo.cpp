// Sensitivities to ratios, ratios to row weights, and the search over trials.
#include "quant/methods/mbq/algo.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/methods/awq/algo.h"

namespace statera {
namespace {

std::optional<double> masked_mean(const at::Tensor& row_mean_T, const at::Tensor& mask_T) {
  const int64_t count = mask_T.sum().item<int64_t>();
  if (count == 0) return std::nullopt;
  return (row_mean_T * mask_T).sum().item<double>() / static_cast<double>(count);
}

}  // namespace

Sensitivity modality_sensitivity(const at::Tensor& gradient_TC, const at::Tensor& vision_T, const at::Tensor& answer_T) {
  check(gradient_TC.dim() == 2 && vision_T.size(0) == gradient_TC.size(0) && answer_T.size(0) == gradient_TC.size(0),
        "one mask entry per row");
  check(vision_T.scalar_type() == at::kBool && answer_T.scalar_type() == at::kBool, "masks are bool");
  const at::Tensor rows = at::mean(at::abs(gradient_TC.to(at::kFloat)), {1}).to(at::kDouble);
  return {masked_mean(rows, vision_T), masked_mean(rows, answer_T)};
}

std::optional<double> modality_ratio(std::span<const Sensitivity> sequences) {
  double vision = 0, answer = 0;
  for (const Sensitivity& s : sequences) {
    if (!s.vision || !s.answer) continue;
    vision += *s.vision;
    answer += *s.answer;
  }
  if (!(answer > 0)) return std::nullopt;
  const double rho = vision / answer;
  return std::isfinite(rho) ? std::optional(rho) : std::nullopt;
}

std::vector<double> floor_at_median(std::span<const std::optional<double>> rho_L, bool floor) {
  std::vector<double> known, out;
  for (const auto& rho : rho_L) {
    if (rho) known.push_back(*rho);
  }
  double least = 0;
  if (floor && !known.empty()) {
    std::sort(known.begin(), known.end());
    least = (known[(known.size() - 1) / 2] + known[known.size() / 2]) / 2;
  }
  for (const auto& rho : rho_L) out.push_back(rho ? std::max(*rho, least) : 1);
  return out;
}

at::Tensor mbq_row_weight(const at::Tensor& vision_T, const at::Tensor& answer_T, const TokenCounts& counts, const MbqLoss& loss,
                          double rho) {
  check(vision_T.scalar_type() == at::kBool && answer_T.scalar_type() == at::kBool && vision_T.sizes() == answer_T.sizes(),
        "masks are bool [T]");
  check(rho >= 0, "a sensitivity ratio is not negative");
  const int64_t both = counts.vision + counts.answer;
  if (!loss.reweight || both == 0) {
    check(counts.all >= vision_T.size(0), "counts are over all data");
    return at::ones({vision_T.size(0)}).div_(static_cast<double>(counts.all));
  }
  auto share = [&](int64_t own) { return 1 / static_cast<double>(std::max<int64_t>(1, loss.own_mean ? own : both)); };
  return answer_T.to(at::kFloat) * share(counts.answer) + vision_T.to(at::kFloat) * (rho * share(counts.vision));
}

MbqTrial mbq_trial(std::span<const at::Tensor> readers_NK, const at::Tensor& scale_K, std::span<const QSpec> specs,
                   const std::optional<ActQuant>& act) {
  check(specs.size() == readers_NK.size(), "a spec for every reader");
  MbqTrial trial;
  for (size_t i = 0; i < readers_NK.size(); ++i) {
    const at::Tensor& W = readers_NK[i];
    trial.weights.push_back(act ? awq_trial(W.to(at::kFloat) * scale_K, {}, specs[i]) : awq_trial(W, scale_K, specs[i]));
  }
  if (act) trial.divisor = scale_K;
  trial.act = act;
  return trial;
}

at::Tensor trial_output(const MbqTrial& trial, size_t reader, const at::Tensor& x_TK) {
  at::Tensor x = x_TK.to(at::kFloat);
  if (trial.divisor.defined()) x = x / trial.divisor;
  if (trial.act) x = fake_quantize(x, *trial.act);
  return at::linear(x, trial.weights[reader]);
}

ScaleChoice mbq_search(std::span<const at::Tensor> readers_NK, const at::Tensor& mean_abs_K, std::span<const QSpec> specs,
                       const std::optional<ActQuant>& act, const MbqReplay& replay, const ScaleGridOptions& options) {
  return search_scale(mean_abs_K, options, [&](const at::Tensor& scale_K) { return replay(mbq_trial(readers_NK, scale_K, specs, act)); });
}

ScaleChoice mbq_search(std::span<const at::Tensor> readers_NK, const at::Tensor& x_TK, const at::Tensor& x_trial_TK,
                       const at::Tensor& row_weight_T, const QSpec& spec, const std::optional<ActQuant>& act, ErrorNorm norm,
                       const ScaleGridOptions& options) {
  check(x_TK.sizes() == x_trial_TK.sizes(), "clean and distorted input are of one shape");
  std::vector<at::Tensor> target;
  double channels = 0;
  for (const at::Tensor& W : readers_NK) {
    target.push_back(at::linear(x_TK.to(at::kFloat), W.to(at::kFloat)));
    channels += static_cast<double>(W.size(0));
  }
  const at::Tensor mean_abs = at::mean(at::abs(x_trial_TK.to(at::kFloat)), {0});
  auto replay = [&](const MbqTrial& trial) {
    double loss = 0;
    for (size_t i = 0; i < target.size(); ++i) {
      const double share = static_cast<double>(target[i].size(1)) / channels;
      loss += share * weighted_error(target[i], trial_output(trial, i, x_trial_TK), row_weight_T, norm);
    }
    return loss;
  };
  return mbq_search(readers_NK, mean_abs, std::vector<QSpec>(readers_NK.size(), spec), act, replay, options);
}

}  // namespace statera
