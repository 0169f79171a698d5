// Runs of the samples through blocks of real models: what layers are shown does not depend on which runs waited or went side by side, and a run that
// waited goes on with the weights that its layers have by then.
#include "quant/calib/block_runs.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "api/test_checkpoints.h"
#include "base/threads.h"
#include "ckpt/test_files.h"
#include "quant/calib/forward.h"
#include "quant/calib/test_samples.h"

namespace statera {
namespace {

using calib_test::Opened;
using calib_test::root;

// Every input in the order in which it was shown, then the outputs; each phase's layers get half their weights afterwards.
struct Shown {
  std::vector<std::pair<std::string, at::Tensor>> inputs;
  std::vector<at::Tensor> outputs;
  uint64_t waited = 0;  // most bytes
};

Shown walk(const std::string& model, const RunMemory& memory, bool may_wait) {
  at::NoGradGuard no_gradients;
  TempDir dir;
  const Opened opened(model);
  const CalibData data = opened.data({.n_samples = 5, .max_seq_len = 80});
  Calibrator calibrator(*opened.model, data, dir / "", nullptr);
  calibrator.start(0, {});
  BlockRuns runs(calibrator, 0, memory);
  Shown out;
  std::set<const LinearSite*> open;
  const auto phases = opened.model->language().topology(0).phases;
  for (const auto& phase : phases)
    for (const Linear& l : phase) open.insert(&l.site());
  for (const auto& phase : phases) {
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

TEST(BlockRuns, WaitingChangesNoBit) {
  const int before = num_threads();
  TempDir made;
  make_checkpoint("qwen2_vl", made);
  for (const std::string& model : {root("examples/tiny-qwen3-vl"), made / "model"}) {
    SCOPED_TRACE(model);
    set_num_threads(1);
    const Shown plain = walk(model, {0, false}, false);
    EXPECT_EQ(plain.waited, 0u);
    EXPECT_GT(plain.inputs.size(), 4u);
    struct Case {
      int threads;
      RunMemory memory;
      bool waits;
    };
    const uint64_t all = uint64_t{1} << 30;
    const uint64_t most = walk(model, {all, false}, true).waited;
    EXPECT_GT(most, 0u);
    for (const Case& c : {Case{1, {all, false}, true}, Case{3, {all, true}, true}, Case{2, {most / 2, true}, true}, Case{2, {0, true}, true}}) {
      set_num_threads(c.threads);
      const Shown now = walk(model, c.memory, true);
      EXPECT_LE(now.waited, c.memory.waiting);
      ASSERT_EQ(now.inputs.size(), plain.inputs.size());
      // Shown sample by sample; the layers of a sample in the order of the phase.
      for (size_t i = 0; i < now.inputs.size(); ++i) {
        EXPECT_EQ(now.inputs[i].first, plain.inputs[i].first);
        EXPECT_TRUE(at::equal(now.inputs[i].second, plain.inputs[i].second)) << now.inputs[i].first;
      }
      for (size_t i = 0; i < now.outputs.size(); ++i) EXPECT_TRUE(at::equal(now.outputs[i], plain.outputs[i]));
    }
  }
  set_num_threads(before);
}

}  // namespace
}  // namespace statera
