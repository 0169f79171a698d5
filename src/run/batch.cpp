// See batch.h.
#include "run/batch.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "base/error.h"

namespace statera {
namespace {

class CancelTap : public Tap {
 public:
  explicit CancelTap(const std::vector<Sequence*>& batch) : batch_(batch) {}
  bool hears_layers() const override { return false; }
  void block(const Stack&, int64_t, const at::Tensor&, const Pass&) override {
    if (std::all_of(batch_.begin(), batch_.end(), [](const Sequence* s) { return s->cancelled(); })) {
      throw Error(ErrorKind::interrupted, "cancelled");
    }
  }

 private:
  const std::vector<Sequence*>& batch_;
};

at::Tensor cat_defined(std::vector<at::Tensor> parts) {
  std::erase_if(parts, [](const at::Tensor& t) { return !t.defined(); });
  if (parts.empty()) return {};
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

at::Tensor indices(const std::vector<int64_t>& values) { return at::tensor(values, at::TensorOptions(at::kLong)); }

}  // namespace

ModelInputs concatenate(const std::vector<ModelInputs>& inputs) {
  check(!inputs.empty(), "concatenate: nothing");
  if (inputs.size() == 1) return inputs[0];
  ModelInputs out;
  out.bounds = {0};
  std::vector<at::Tensor> ids, positions, images, videos;
  bool three = std::any_of(inputs.begin(), inputs.end(), [](const ModelInputs& in) { return in.position_ids.dim() == 2; });
  for (const ModelInputs& in : inputs) {
    ids.push_back(in.input_ids);
    at::Tensor p = in.position_ids;
    positions.push_back(three && p.dim() == 1 ? p.unsqueeze(0).expand({3, -1}) : p);
    images.push_back(in.pixel_values);
    videos.push_back(in.pixel_values_videos);
    out.image_grid_thw.insert(out.image_grid_thw.end(), in.image_grid_thw.begin(), in.image_grid_thw.end());
    out.video_grid_thw.insert(out.video_grid_thw.end(), in.video_grid_thw.begin(), in.video_grid_thw.end());
    out.second_per_grid_ts.insert(out.second_per_grid_ts.end(), in.second_per_grid_ts.begin(), in.second_per_grid_ts.end());
    out.bounds.push_back(out.bounds.back() + in.input_ids.size(0));
  }
  out.input_ids = at::cat(ids, 0);
  out.position_ids = at::cat(positions, -1);
  out.pixel_values = cat_defined(images);
  out.pixel_values_videos = cat_defined(videos);
  return out;
}

at::Tensor prefill(const Model& model, const std::vector<Sequence*>& batch) {
  std::vector<ModelInputs> parts;
  for (Sequence* s : batch) parts.push_back(s->all_inputs());
  ModelInputs inputs = concatenate(parts);
  Pass pass = make_pass(model, inputs);
  CancelTap cancel(batch);
  pass.tap = &cancel;
  std::vector<int64_t> last;
  for (size_t i = 0; i < batch.size(); ++i) {
    check(batch[i]->cache().length() == 0, "prefill: the cache is not empty");
    pass.caches.push_back(&batch[i]->cache());
    last.push_back(inputs.bounds[i + 1] - 1);
  }
  at::Tensor h = forward_hidden(model, inputs, pass);
  return model.language().head(at::index_select(h, 0, indices(last)), pass);
}

at::Tensor decode(const Model& model, const std::vector<Sequence*>& batch) {
  std::vector<int64_t> ids, positions;
  Pass pass;
  pass.bounds = {0};
  for (Sequence* s : batch) {
    check(s->cache().length() + 1 == s->tokens(), "decode: the cache does not end before the last token");
    ids.push_back(s->ids().back());
    positions.push_back(s->last_position());
    pass.caches.push_back(&s->cache());
    pass.bounds.push_back(pass.bounds.back() + 1);
  }
  pass.positions = indices(positions);
  if (batch[0]->three_rows()) pass.positions = pass.positions.unsqueeze(0).expand({3, -1});
  const LanguageStack& language = model.language();
  at::Tensor h = language.enter(indices(ids), nullptr, pass);
  return language.head(language.leave(run_blocks(language, h, pass), pass), pass);
}

}  // namespace statera
