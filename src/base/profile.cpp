// One list behind a lock: a decode step has some hundred spans, and the lock is held for a move.
#include "base/profile.h"

#include <chrono>
#include <mutex>

#include "base/error.h"

namespace statera::profile {
namespace {

std::mutex guard;  // of the list
std::vector<Event> events;

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int this_thread() {
  static std::atomic<int> threads{0};
  thread_local const int number = threads.fetch_add(1);
  return number;
}

}  // namespace

std::atomic<bool> recording{false};

Recorder::Recorder() {
  check(!recording.exchange(true), "two recorders at once");
  std::lock_guard lock(guard);
  events.clear();
}

Recorder::~Recorder() { recording.store(false); }

std::vector<Event> Recorder::take() {
  std::lock_guard lock(guard);
  return std::exchange(events, {});
}

void Span::start(const char* kind, Description description) {
  kind_ = kind;
  description_ = std::move(description);
  begin_ = now();
}

void Span::finish() {
  const int64_t end = now();
  Event event{kind_, std::move(description_.name), description_.work, this_thread(), begin_, end};
  std::lock_guard lock(guard);
  if (on()) events.push_back(std::move(event));
}

}  // namespace statera::profile
