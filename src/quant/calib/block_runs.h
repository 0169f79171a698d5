// BlockRuns: the samples' runs through one block, or through what lies behind the last one. Layers are looked at phase by phase; where the layers of a
// phase read one input, a run waits there until they are rounded and then goes on with them, as long as memory allows: each layer is then
// computed once a sample. Runs that could not wait begin anew. Numbers are the same either way, and for any number of threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "nn/pass.h"
#include "nn/site.h"
#include "quant/calib/sample_run.h"
#include "quant/calib/walk.h"

namespace statera {

// Bytes that runs may hold.
struct RunMemory {
  uint64_t waiting = 0;  // of runs that wait
  bool side_by_side = true;  // one run per thread; else one run at a time on all threads
};

class BlockRuns {
 public:
  BlockRuns(StackWalk& walk, int64_t block, const RunMemory& memory);
  ~BlockRuns();
  // What a layer reads, as Tap::input. On the calling thread, sample by sample in order.
  using Take = std::function<void(const LinearSite& site, const at::Tensor& x_TK, const Pass& pass)>;
  // Every sample until it has been at all of these layers; one that does not reach them all (experts to which none of its tokens go) to the block's end.
  // With `open`, runs may wait: until the next call nothing changes but `open` layers, these among them, else forget() comes first. A run that has
  // passed an open layer of a later phase does not wait, and none waits among the layers of several experts.
  void observe(const std::vector<const LinearSite*>& layers, const Take& take, const std::set<const LinearSite*>* open = nullptr);
  // To the block's end: what comes out is the next block's input (StackWalk::advance).
  void advance();
  // Runs that wait are given up.
  void forget();
  // Of runs that wait now.
  uint64_t waiting_bytes() const;
  // What a sample's run holds at most while it waits at a layer of this width, about: rows of hidden states, of what attention made, of the input.
  static uint64_t bytes_of(int64_t rows, int64_t hidden, int64_t width) { return static_cast<uint64_t>(rows * (4 * hidden + width)) * 4; }

 private:
  struct Run;
  std::unique_ptr<Run> run_of(size_t sample);
  // The next samples from `next` on that have rows, as many as go on side by side; moves `next` behind them.
  std::vector<std::unique_ptr<Run>> take_wave(size_t& next, size_t most);
  static void go_on(std::vector<std::unique_ptr<Run>>& wave);
  size_t side_by_side() const;

  StackWalk& walk_;
  int64_t block_;
  RunMemory memory_;
  std::map<size_t, std::unique_ptr<Run>> waiting_;
};

}  // namespace statera
