// See progress_sink.h.
#include "cli/support/progress_sink.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

constexpr double kPlainInterval = 5;  // seconds between plain lines

void line(const ProgressEvent& event) {
  std::string text = progress_line(event);
  struct winsize window {};
  size_t columns = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 8 ? window.ws_col - 1u : 120u;
  if (text.size() > columns) text.resize(complete_utf8_prefix(std::string_view(text).substr(0, columns)));
  std::fprintf(stderr, "\r%s\x1b[K%s", text.c_str(), event.finished ? "\n" : "");
  std::fflush(stderr);
}

}  // namespace

Json progress_json(const ProgressEvent& e) {
  Json out = Json::object();
  out.set("event", "progress");
  out.set("job", e.job);
  out.set("stage", e.stage);
  out.set("done", e.done);
  out.set("total", e.total);
  out.set("unit", e.unit);
  out.set("seconds", e.seconds);
  out.set("rate", e.rate);
  out.set("eta_seconds", e.eta_seconds);
  out.set("rss", e.rss);
  out.set("peak_rss", e.peak_rss);
  out.set("finished", e.finished);
  return out;
}

ProgressSink make_progress_sink(const std::string& mode) {
  if (mode == "off") return {};
  if (mode == "json") return [](const ProgressEvent& e) { std::fprintf(stderr, "%s\n", progress_json(e).dump().c_str()); };
  if (mode == "line" || (mode == "auto" && ::isatty(STDERR_FILENO))) return line;
  if (mode != "plain" && mode != "auto") {
    throw Error(ErrorKind::usage, "--progress: unknown mode \"" + mode + "\" (auto, line, plain, json, off)");
  }
  using Clock = std::chrono::steady_clock;
  auto last = std::make_shared<Clock::time_point>(Clock::now());
  return [last](const ProgressEvent& e) {
    if (!e.finished && std::chrono::duration<double>(Clock::now() - *last).count() < kPlainInterval) return;
    *last = Clock::now();
    std::fprintf(stderr, "%s\n", progress_line(e).c_str());
  };
}

}  // namespace statera
