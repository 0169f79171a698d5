// StackWalk: the samples on their way through the blocks of one stack. Hidden states lie in one mapped file per block end in the staging
// folder, written in full precision and synced before the block counts as done, so memory holds one sample at a time and a killed run
// goes on from the file. A sample that does not reach the stack has no rows and takes no part.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <functional>
#include <optional>
#include <string>

#include "ckpt/shards.h"
#include "quant/calib/sample.h"

namespace statera {

class StackWalk {
 public:
  virtual ~StackWalk() = default;
  StackWalk(const StackWalk&) = delete;
  StackWalk& operator=(const StackWalk&) = delete;
  // Thrown by a tap that has seen all it wants of a sample: the rest of the block is not computed. Caught by run().
  struct Enough {};
  // One sample through the block, told to the tap: what comes out, undefined after Enough. blocks(): through the layers behind the last one,
  // of which nothing comes out. For several threads at once.
  at::Tensor run(int64_t block, size_t sample, Tap* tap) const;
  // What the block makes of each sample, asked for in order, are the inputs of block + 1: on disk when this returns.
  void advance(int64_t block, const std::function<at::Tensor(size_t sample)>& outputs);
  // Pages of a sample's state that were read; they are read again when they are needed.
  void release(size_t sample) const;
  // For another walk over the same samples, which this one starts beside: makes the state before block `next` available, the other's for 0, left by an
  // earlier run otherwise (Error(mismatch) when it is not there).
  void start_beside(const StackWalk& other, int64_t next);
  // Drops the state before `block`, and what is older and not needed behind the last block.
  void forget_before(int64_t block) const;
  // Drops all states of this stack.
  void forget() const;
  // Of every stack in the folder, whole or not.
  void remove_files() const;
  const CalibData& data() const { return data_; }
  // Rows of a sample in this stack; 0: it takes no part.
  virtual int64_t rows_of(size_t sample) const = 0;
  int64_t width() const { return width_; }
  void check_cancelled() const;
  int64_t blocks() const { return stack_.blocks(); }
  // Hidden states of a sample before the block that comes next: behind the last one, those of the whole stack. [T, H]
  at::Tensor state(size_t sample) const { return hidden(sample).clone(); }
  // Of all samples.
  int64_t rows() const;

 protected:
  // prefix: of the names of its files. width: of hidden states.
  StackWalk(const Model& model, const Stack& stack, int64_t width, const CalibData& data, std::string folder, std::string prefix,
            const std::atomic<bool>* cancel)
      : model_(model), stack_(stack), data_(data), folder_(std::move(folder)), cancel_(cancel), prefix_(std::move(prefix)), width_(width) {}
  // What enter() leaves in a sample's pass.
  virtual Pass pass_of(size_t sample) const = 0;
  // Runs the layers behind the last block.
  virtual void behind(size_t sample, Pass& pass) const = 0;
  // Whether behind() reads the inputs of this block.
  virtual bool needed_behind(int64_t) const { return false; }

  // The file of what enter() made besides states. Samples are named by their numbers in both kinds of files.
  std::string entered_path() const { return folder_ + "/" + prefix_ + "entered.state"; }
  std::string state_path(int64_t block) const { return folder_ + "/" + prefix_ + std::to_string(block) + ".state"; }
  // The state before `block` of samples with rows: made, synced, and the one that is read from now on.
  void write_state(int64_t block, const std::function<at::Tensor(size_t sample)>& make);
  // Error(mismatch) when a file is not there or of other data.
  void open_state(int64_t block);
  // In the mapped file: not to be written to.
  at::Tensor hidden(size_t sample) const;

  const Model& model_;
  const Stack& stack_;
  const CalibData& data_;
  std::string folder_;
  const std::atomic<bool>* cancel_;
  std::optional<SafetensorsFile> state_, entered_;
  int64_t at_ = 0;  // block that reads state_

 private:
  std::string prefix_;
  int64_t width_;
};

}  // namespace statera
