// See batch.h.
#include "train/batch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace statera {
namespace {

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

int64_t TrainSample::labels() const { return learned_T.slice(0, 1).sum().item<int64_t>(); }

TrainBatch join(std::span<const TrainSample* const> samples) {
  TrainBatch out;
  std::vector<at::Tensor> ids, positions, pixels, clips, rows;
  out.inputs.bounds = {0};
  for (const TrainSample* s : samples) {
    const ModelInputs& in = s->inputs;
    check(in.input_ids.size(0) == s->learned_T.size(0) && in.position_ids.defined(), "a whole training sample");
    ids.push_back(in.input_ids);
    positions.push_back(in.position_ids);
    if (in.pixel_values.defined()) pixels.push_back(in.pixel_values);
    if (in.pixel_values_videos.defined()) clips.push_back(in.pixel_values_videos);
    append(out.inputs.image_grid_thw, in.image_grid_thw);
    append(out.inputs.video_grid_thw, in.video_grid_thw);
    append(out.inputs.second_per_grid_ts, in.second_per_grid_ts);
    rows.push_back((s->learned_T.slice(0, 1) == 1).nonzero().squeeze(1) + out.inputs.bounds.back());
    out.inputs.bounds.push_back(out.inputs.bounds.back() + s->tokens());
  }
  out.inputs.input_ids = at::cat(ids);
  out.inputs.position_ids = at::cat(positions, -1);
  if (!pixels.empty()) out.inputs.pixel_values = at::cat(pixels);
  if (!clips.empty()) out.inputs.pixel_values_videos = at::cat(clips);
  out.rows_R = at::cat(rows);
  out.targets_R = at::index_select(out.inputs.input_ids, 0, out.rows_R + 1);
  return out;
}

int64_t cost_of(const TrainSample& sample) {
  int64_t patches = 0;
  for (const at::Tensor& t : {sample.inputs.pixel_values, sample.inputs.pixel_values_videos}) patches += t.defined() ? t.size(0) : 0;
  return sample.tokens() + patches;
}

std::vector<std::vector<size_t>> share_costs(std::span<const int64_t> costs, int64_t shares) {
  std::vector<size_t> by_size(costs.size());
  std::iota(by_size.begin(), by_size.end(), size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(), [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  const auto count = static_cast<size_t>(std::max<int64_t>(shares, 1));
  std::vector<int64_t> load(count, 0);
  std::vector<std::vector<size_t>> chosen(count);
  for (size_t i : by_size) {
    const auto share = static_cast<size_t>(std::min_element(load.begin(), load.end()) - load.begin());
    chosen[share].push_back(i);
    load[share] += costs[i];
  }
  for (auto& share : chosen) std::sort(share.begin(), share.end());
  return chosen;
}

std::vector<std::vector<const TrainSample*>> share_out(std::span<const TrainSample> samples, int64_t lanes) {
  std::vector<int64_t> costs;
  for (const TrainSample& s : samples) costs.push_back(cost_of(s));
  const auto chosen = share_costs(costs, lanes);
  std::vector<std::vector<const TrainSample*>> out(chosen.size());
  for (size_t lane = 0; lane < chosen.size(); ++lane) {
    for (size_t i : chosen[lane]) out[lane].push_back(&samples[i]);
  }
  return out;
}

}  // namespace statera
