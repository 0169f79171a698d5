// SampleRun: a computation that can be left in the middle and gone on with later, what it holds staying where it is. It has a thread of its own
// that sleeps while it waits; several may go on side by side, each then with one core.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

namespace statera {

class SampleRun {
 public:
  using Body = std::function<at::Tensor(SampleRun& self)>;
  // Nothing runs before start(). ATen's modes are those of the calling thread.
  explicit SampleRun(Body body);
  // A waiting body is unwound first.
  ~SampleRun();
  SampleRun(const SampleRun&) = delete;
  SampleRun& operator=(const SampleRun&) = delete;
  // Lets the body begin or go on; beside_others: with one core, else with all threads of the pool.
  void start(bool beside_others);
  // Until the body waits (false) or has ended (true). What it threw is thrown here, once.
  bool finish();
  // Of a body that has ended.
  at::Tensor take_result();
  // Called by the body: lets finish() return, and returns itself at the next start().
  void wait();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace statera
