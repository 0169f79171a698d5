// Progress: rate, ETA and memory of a long job, as events. Who shows them (a terminal line, --json events) is the sink's matter.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>

namespace statera {

// Resident memory of this process and its peak, bytes (0 where the system does not tell).
uint64_t resident_bytes();
uint64_t peak_resident_bytes();

struct ProgressEvent {
  std::string job;       // "quantize"
  std::string stage;     // what it is at now: "model.layers.3"
  double done = 0, total = 0;  // in `unit`
  std::string unit;      // "bytes", "samples", "tokens"
  double seconds = 0;    // since the job began
  double rate = 0;       // unit per second (ProgressRate)
  double eta_seconds = 0;
  uint64_t rss = 0, peak_rss = 0;
  bool finished = false;
};
using ProgressSink = std::function<void(const ProgressEvent&)>;

// One text line of an event: "quantize model.layers.3  41% 1.2 GiB/s  ETA 12s  RSS 1.1 GiB".
std::string progress_line(const ProgressEvent& event);

// Units per second over the last half of the job, at least a minute of it: work that comes in bursts (a block at a time) has a steady rate, and the
// rate follows changes all the same.
class ProgressRate {
 public:
  // At `seconds` since the job began `done` units are done; both never fall.
  double at(double seconds, double done);
  // Done before the job began.
  void begin_at(double done) { marks_ = {{0, done}}; }

 private:
  std::deque<std::pair<double, double>> marks_ = {{0, 0}};  // seconds and units, seldom enough to stay few
};

class Progress {
 public:
  // sink may be empty (silent). Events are sent at most every `interval` seconds, and at the end.
  Progress(std::string job, double total, std::string unit, ProgressSink sink, double interval = 0.2);
  // Work already done in an earlier run: counts to `done`, not to the rate.
  void resume_at(double done);
  void advance(double amount, std::string stage = "");
  void finish();

 private:
  void emit(bool finished);
  ProgressEvent event_;
  ProgressSink sink_;
  double interval_;
  ProgressRate rate_;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace statera
