// Runs of the samples through blocks of real models: what layers are shown does not depend on which runs waited or went side by side, and a run that
// waited goes on with the weights that its layers have by then. Experts are shown the rows that reach them, of samples that do.
#include "quant/calib/block_runs.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>

#include "api/test_checkpoints.h"
#include "base/threads.h"
#include "ckpt/test_files.h"
#include "quant/calib/forward.h"
#include "quant/calib/test_samples.h"

namespace statera {
namespace {

using calib_test::Opened;
using calib_test::root;

using Selected = std::function<bool(const LinearSite&)>;
bool all(const LinearSite&) { return true; }

// Every input in the order in which it was shown, then the outputs; each phase's layers get half their weights afterwards.
struct Shown {
  std::vector<std::pair<std::string, at::Tensor>> inputs;
  std::vector<at::Tensor> outputs;
  uint64_t waited = 0;  // most bytes
};

Shown walk(const std::string& model, const RunMemory& memory, bool may_wait, const Selected& selected = all) {
  at::NoGradGuard no_gradients;
  TempDir dir;
  const Opened opened(model);
  const CalibData data = opened.data({.n_samples = 5, .max_seq_len = 80});
  Calibrator calibrator(*opened.model, data, dir / "", nullptr);
  calibrator.start(0, {});
  BlockRuns runs(calibrator, 0, memory);
  Shown out;
  std::set<const LinearSite*> open;
  auto phases = opened.model->language().topology(0).phases;
  for (auto& phase : phases) {
    std::erase_if(phase, [&](const Linear& l) { return !selected(l.site()); });
    for (const Linear& l : phase) open.insert(&l.site());
  }
  for (const auto& phase : phases) {
    if (phase.empty()) continue;
    std::vector<const LinearSite*> layers;
    for (const Linear& l : phase) layers.push_back(&l.site());
    runs.observe(layers, [&](const LinearSite& site, const at::Tensor& x, const Pass& pass) {
      EXPECT_EQ(pass.kinds.size(0), x.size(0));
      out.inputs.emplace_back(site.path, x.clone());
    }, may_wait ? &open : nullptr);
    out.waited = std::max(out.waited, runs.waiting_bytes());
    for (const Linear& l : phase) {
      l.site().weight = make_dense(l.site().weight->dense().to(at::kFloat) * 0.5);
      open.erase(&l.site());
    }
  }
  runs.advance();
  for (size_t i = 0; i < data.samples.size(); ++i) out.outputs.push_back(calibrator.state(i));
  return out;
}

// Returns what is shown when no run waits.
Shown same_for_any_memory(const std::string& model, const Selected& selected = all) {
  const int before = num_threads();
  set_num_threads(1);
  Shown plain = walk(model, {0, false}, false, selected);
  EXPECT_EQ(plain.waited, 0u);
  struct Case {
    int threads;
    RunMemory memory;
    bool waits;
  };
  const uint64_t enough = uint64_t{1} << 30;
  const uint64_t most = walk(model, {enough, false}, true, selected).waited;
  EXPECT_GT(most, 0u);
  for (const Case& c : {Case{1, {enough, false}, true}, Case{3, {enough, true}, true}, Case{2, {most / 2, true}, true}, Case{2, {0, true}, true}}) {
    set_num_threads(c.threads);
    const Shown now = walk(model, c.memory, true, selected);
    EXPECT_LE(now.waited, c.memory.waiting);
    EXPECT_EQ(now.inputs.size(), plain.inputs.size());
    // Shown sample by sample; the layers of a sample in the order of the phase.
    for (size_t i = 0; i < std::min(now.inputs.size(), plain.inputs.size()); ++i) {
      EXPECT_EQ(now.inputs[i].first, plain.inputs[i].first);
      EXPECT_TRUE(at::equal(now.inputs[i].second, plain.inputs[i].second)) << now.inputs[i].first;
    }
    for (size_t i = 0; i < now.outputs.size(); ++i) EXPECT_TRUE(at::equal(now.outputs[i], plain.outputs[i]));
  }
  set_num_threads(before);
  return plain;
}

TEST(BlockRuns, WaitingChangesNoBit) {
  TempDir made;
  make_checkpoint("qwen2_vl", made);
  for (const std::string& model : {root("examples/tiny-qwen3-vl"), made / "model"}) {
    SCOPED_TRACE(model);
    EXPECT_GT(same_for_any_memory(model).inputs.size(), 4u);
  }
}

// With many experts each sample reaches some. Of all layers together no run may wait among them; of one expert's those runs do that reach it.
TEST(BlockRuns, ExpertsAreShownTheirRowsWhicheverSamplesReachThem) {
  TempDir made;
  make_checkpoint("qwen3_moe", made, [](Json& text) { text.set("num_experts", 120); });
  const std::string model = made / "model";
  std::map<std::string, int> times;
  same_for_any_memory(model);
  const Shown shown = walk(model, {0, false}, false, [](const LinearSite& site) { return site.role == Role::expert; });
  for (const auto& [path, x] : shown.inputs) ++times[path];
  std::vector<std::string> partly;  // experts that some of the five samples reach and others do not
  for (const auto& [path, n] : times) {
    if (path.ends_with("down_proj") && n < 5) partly.push_back(path.substr(0, path.rfind('.') + 1));
  }
  ASSERT_GE(partly.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    SCOPED_TRACE(partly[i]);
    const Shown alone = same_for_any_memory(model, [&](const LinearSite& site) { return site.path.starts_with(partly[i]); });
    EXPECT_EQ(alone.inputs.size(), static_cast<size_t>(3 * times.at(partly[i] + "down_proj")));
  }
  // Two of them beside the layers before: gate and up of one are seen at one input, those of both are not.
  same_for_any_memory(model, [&](const LinearSite& site) {
    return site.role != Role::expert || site.path.starts_with(partly[0]) || site.path.starts_with(partly[1]);
  });
}

}  // namespace
}  // namespace statera
