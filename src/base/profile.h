// profile: where the time of forward passes goes. Layers open a Span around each operator; while a Recorder lives, spans are noted with what
// they computed and read. Without one a span is a load and a branch, and nothing is described. Knows no operator and no tensor.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace statera::profile {

// What an operator does at least, counted from shapes.
struct Work {
  double flop = 0;          // a multiplication with its addition counts two
  double bytes = 0;         // read and written, those of weights included
  double weight_bytes = 0;  // of the weights, as they are held
  double weights = 0;       // how many they are
  double integer_flop = 0;  // of flop, between activations of 8 bits
  Work& operator+=(const Work& other) {
    flop += other.flop;
    bytes += other.bytes;
    weight_bytes += other.weight_bytes;
    weights += other.weights;
    integer_flop += other.integer_flop;
    return *this;
  }
};

struct Event {
  const char* kind = "";  // "linear", "attention", "pool", ...: a literal
  std::string name;       // e.g. the path of the layer; may be empty
  Work work;
  int thread = 0;              // small numbers, one a thread
  int64_t begin = 0, end = 0;  // nanoseconds on one clock
};

// Notes spans of all threads while it lives; one at a time (a second one is a Bug).
class Recorder {
 public:
  Recorder();
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;
  // What was noted since the last call, in the order of ends.
  std::vector<Event> take();
};

extern std::atomic<bool> recording;
inline bool on() { return recording.load(std::memory_order_relaxed); }

// What a span is told about its operator.
struct Description {
  std::string name;
  Work work;
};

// From construction to destruction. `describe` returns a Description and is called only while a Recorder lives, before the clock starts.
class Span {
 public:
  explicit Span(const char* kind) {
    if (on()) [[unlikely]] start(kind, {});
  }
  template <class F>
  Span(const char* kind, F&& describe) {
    if (on()) [[unlikely]] start(kind, describe());
  }
  ~Span() {
    if (kind_) [[unlikely]] finish();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  void start(const char* kind, Description description);
  void finish();
  const char* kind_ = nullptr;
  int64_t begin_ = 0;
  Description description_;
};

}  // namespace statera::profile
