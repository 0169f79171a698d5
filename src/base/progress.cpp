// See progress.h.
#include "base/progress.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/strings.h"

namespace statera {

uint64_t resident_bytes() {
  unsigned long pages = 0, resident = 0;
  if (std::FILE* f = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(f, "%lu %lu", &pages, &resident) != 2) resident = 0;
    std::fclose(f);
  }
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

uint64_t peak_resident_bytes() {
  struct rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

std::string progress_line(const ProgressEvent& e) {
  std::string amount = e.unit == "bytes" ? human_bytes(e.rate) + "/s" : fmt::format("{:.1f} {}/s", e.rate, e.unit);
  return fmt::format("{} {:3.0f}%  {}  {}  {}  RSS {} (peak {})", e.job, e.total > 0 ? 100 * e.done / e.total : 100.0, amount,
                     e.finished ? "took " + human_seconds(e.seconds) : "ETA " + human_seconds(e.eta_seconds), e.stage,
                     human_bytes(static_cast<double>(e.rss)), human_bytes(static_cast<double>(e.peak_rss)));
}

double ProgressRate::at(double seconds, double done) {
  const double from = seconds - std::max(60.0, seconds / 2);
  while (marks_.size() > 1 && marks_[1].first <= from) marks_.pop_front();
  const auto [time, units] = marks_.front();
  if (seconds - marks_.back().first > std::max(1.0, seconds / 64)) marks_.emplace_back(seconds, done);
  return seconds > time ? (done - units) / (seconds - time) : 0;
}

Progress::Progress(std::string job, double total, std::string unit, ProgressSink sink, double interval)
    : sink_(std::move(sink)), interval_(interval), start_(std::chrono::steady_clock::now()), last_(start_) {
  event_.job = std::move(job);
  event_.total = total;
  event_.unit = std::move(unit);
}

void Progress::resume_at(double done) {
  event_.done = done;
  rate_.begin_at(done);
}

void Progress::advance(double amount, std::string stage) {
  event_.done += amount;
  if (!stage.empty()) event_.stage = std::move(stage);
  auto now = std::chrono::steady_clock::now();
  if (std::chrono::duration<double>(now - last_).count() < interval_) return;
  last_ = now;
  emit(false);
}

void Progress::finish() { emit(true); }

void Progress::emit(bool finished) {
  if (!sink_) return;
  auto& e = event_;
  e.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  e.rate = rate_.at(e.seconds, e.done);
  e.eta_seconds = e.rate > 0 ? (e.total - e.done) / e.rate : 0;
  e.rss = resident_bytes();
  e.peak_rss = peak_resident_bytes();
  e.finished = finished;
  sink_(e);
}

}  // namespace statera
