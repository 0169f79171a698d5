// Two semaphores pass the turn between the thread that asks and the thread that computes.
#include "quant/calib/sample_run.h"

#include <ATen/ThreadLocalState.h>

#include <exception>
#include <optional>
#include <semaphore>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/threads.h"

namespace statera {
namespace {

struct Unwind {};

}  // namespace

struct SampleRun::State {
  std::binary_semaphore go{0}, back{0};
  bool beside_others = false, unwinding = false, ended = false, running = false;
  at::Tensor result;
  std::exception_ptr fault;
  std::optional<InlineScope> scope;  // of the computing thread
  std::thread thread;
};

SampleRun::SampleRun(Body body) : state_(std::make_unique<State>()) {
  State* s = state_.get();
  s->thread = std::thread([this, s, body = std::move(body), modes = at::ThreadLocalState()]() mutable {
    s->go.acquire();
    if (!s->unwinding) {
      at::ThreadLocalStateGuard same(modes);
      s->scope.emplace(s->beside_others);
      try {
        s->result = body(*this);
      } catch (const Unwind&) {
      } catch (...) {
        s->fault = std::current_exception();
      }
      s->scope.reset();
      body = nullptr;  // what it holds goes with the computation, not with this object
    }
    s->ended = true;
    s->back.release();
  });
}

SampleRun::~SampleRun() {
  State& s = *state_;
  if (s.running) s.back.acquire();
  if (!s.ended) {
    s.unwinding = true;
    s.go.release();
  }
  s.thread.join();
}

void SampleRun::start(bool beside_others) {
  State& s = *state_;
  check(!s.ended && !s.running, "a run goes on only while it waits");
  s.beside_others = beside_others;
  s.running = true;
  s.go.release();
}

bool SampleRun::finish() {
  State& s = *state_;
  check(s.running, "nothing was started");
  s.back.acquire();
  s.running = false;
  if (s.fault) std::rethrow_exception(std::exchange(s.fault, nullptr));
  return s.ended;
}

at::Tensor SampleRun::take_result() {
  check(state_->ended, "a run that has not ended has no result");
  return std::move(state_->result);
}

void SampleRun::wait() {
  State& s = *state_;
  s.scope.reset();
  s.back.release();
  s.go.acquire();
  if (s.unwinding) throw Unwind();
  s.scope.emplace(s.beside_others);
}

}  // namespace statera
