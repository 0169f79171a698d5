// See bench_profile.h. Times come from one sweep over the begins and ends of all operators.
#include "api/bench_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "base/strings.h"

namespace statera {
namespace {

using profile::Event;

bool is(const Event& e, std::string_view kind) { return kind == e.kind; }

// Seconds of each event: every instant belongs in equal parts to the events that are under way.
std::vector<double> shared_seconds(const std::vector<const Event*>& events) {
  struct Mark {
    int64_t at;
    bool begins;
    size_t event;
  };
  std::vector<Mark> marks;
  for (size_t i = 0; i < events.size(); ++i) {
    marks.push_back({events[i]->begin, true, i});
    marks.push_back({events[i]->end, false, i});
  }
  // Begins first: an event may end at the instant it began.
  std::sort(marks.begin(), marks.end(), [](const Mark& a, const Mark& b) { return a.at != b.at ? a.at < b.at : a.begins > b.begins; });
  std::vector<double> seconds(events.size(), 0.0);
  std::vector<size_t> under_way;
  int64_t last = 0;
  for (const Mark& m : marks) {
    for (size_t i : under_way) seconds[i] += static_cast<double>(m.at - last) * 1e-9 / static_cast<double>(under_way.size());
    last = m.at;
    if (m.begins) {
      under_way.push_back(m.event);
    } else {
      std::erase(under_way, m.event);
    }
  }
  return seconds;
}

double compute_seconds_of(const profile::Work& work, const MachineLimits& limits) {
  const double bits = work.weights > 0 ? 8 * work.weight_bytes / work.weights : 0;
  return (work.flop - work.integer_flop) / limits.peak_for(bits) + work.integer_flop / limits.peak_for(8);
}

double limit_of(const profile::Work& work, const MachineLimits& limits, bool* compute_bound = nullptr) {
  const double compute = compute_seconds_of(work, limits), read = work.bytes / limits.bandwidth();
  if (compute_bound) *compute_bound = compute > read;
  return std::max(compute, read);
}

// The stage that an event began in; none: the number of stages.
size_t stage_of(const Event& e, const std::vector<const Event*>& stages) {
  auto after = std::upper_bound(stages.begin(), stages.end(), e.begin, [](int64_t at, const Event* s) { return at < s->begin; });
  if (after == stages.begin()) return stages.size();
  const auto it = after - 1;
  return e.begin < (*it)->end ? static_cast<size_t>(it - stages.begin()) : stages.size();
}

struct Collected {
  StageProfile profile;
  std::map<std::string, OperatorRow> rows;
};

}  // namespace

std::string operator_class(std::string_view path) {
  std::vector<std::string> names;
  for (std::string& part : split(path, '.')) {
    if (!part.empty() && !std::all_of(part.begin(), part.end(), [](unsigned char c) { return std::isdigit(c); })) names.push_back(std::move(part));
  }
  if (names.size() > 2) names.erase(names.begin(), names.end() - 2);
  return join(names, ".");
}

std::vector<StageProfile> profile_stages(const std::vector<Event>& events, const MachineLimits& limits) {
  std::vector<const Event*> stages, operators, loops;
  for (const Event& e : events) (is(e, "stage") ? stages : is(e, "pool") ? loops : operators).push_back(&e);
  std::sort(stages.begin(), stages.end(), [](const Event* a, const Event* b) { return a->begin < b->begin; });
  std::vector<Collected> out;
  std::vector<size_t> of_stage;  // index in out, by run
  for (const Event* s : stages) {
    auto it = std::find_if(out.begin(), out.end(), [&](const Collected& c) { return c.profile.stage == s->name; });
    if (it == out.end()) {
      it = out.emplace(out.end());
      it->profile.stage = s->name;
    }
    ++it->profile.runs;
    it->profile.seconds += static_cast<double>(s->end - s->begin) * 1e-9;
    of_stage.push_back(static_cast<size_t>(it - out.begin()));
  }
  auto each = [&](const std::vector<const Event*>& list, auto&& add) {
    const std::vector<double> seconds = shared_seconds(list);
    for (size_t i = 0; i < list.size(); ++i) {
      if (const size_t stage = stage_of(*list[i], stages); stage < stages.size()) add(out[of_stage[stage]], *list[i], seconds[i]);
    }
  };
  each(loops, [](Collected& c, const Event&, double seconds) { c.profile.loops += seconds; });
  each(operators, [](Collected& c, const Event& e, double seconds) {
    OperatorRow& row = c.rows[e.name.empty() ? e.kind : operator_class(e.name)];
    ++row.calls;
    row.seconds += seconds;
    row.work += e.work;
    c.profile.operators += seconds;
    c.profile.work += e.work;
  });
  std::vector<StageProfile> result;
  for (Collected& c : out) {
    for (auto& [name, row] : c.rows) {
      row.name = name;
      row.limit_seconds = limit_of(row.work, limits, &row.compute_bound);
      c.profile.rows.push_back(row);
    }
    std::stable_sort(c.profile.rows.begin(), c.profile.rows.end(), [](const OperatorRow& a, const OperatorRow& b) { return a.seconds > b.seconds; });
    result.push_back(std::move(c.profile));
  }
  return result;
}

double StageProfile::compute_seconds(const MachineLimits& limits) const {
  double seconds = 0;
  for (const OperatorRow& r : rows) seconds += compute_seconds_of(r.work, limits);
  return seconds;
}

Json StageProfile::to_json() const {
  Json list = Json::array();
  for (const OperatorRow& r : rows) {
    Json j = Json::object();
    j.set("name", r.name);
    j.set("calls", r.calls);
    j.set("seconds", r.seconds);
    j.set("share_of_time", r.seconds / seconds);
    j.set("flop", r.work.flop);
    j.set("bytes", r.work.bytes);
    j.set("weight_bytes", r.work.weight_bytes);
    j.set("limit_seconds", r.limit_seconds);
    if (r.limit_seconds > 0) j.set("bound_by", r.compute_bound ? "compute" : "memory");
    list.push(j);
  }
  Json j = Json::object();
  j.set("stage", stage);
  j.set("runs", runs);
  j.set("seconds", seconds);
  j.set("seconds_outside_operators", seconds - operators);
  j.set("seconds_outside_loops", seconds - loops);
  j.set("operators", list);
  return j;
}

std::string StageProfile::to_text() const {
  const auto n = static_cast<double>(runs);
  std::string t = fmt::format("{} ({:.2f} ms a run, {} run{})\n", stage, 1e3 * seconds / n, runs, runs == 1 ? "" : "s");
  t += fmt::format("  {:<32}{:>8}{:>11}{:>8}{:>12}{:>10}{:>16}\n", "operator", "calls", "ms a run", "time", "GFLOP/s", "GB/s", "share of limit");
  for (const OperatorRow& r : rows) {
    t += fmt::format("  {:<32}{:>8.0f}{:>11.3f}{:>7.1f}%", r.name, static_cast<double>(r.calls) / n, 1e3 * r.seconds / n, 100 * r.seconds / seconds);
    const double s = std::max(r.seconds, 1e-12);
    t += r.work.flop > 0 ? fmt::format("{:>12.1f}", r.work.flop / s * 1e-9) : fmt::format("{:>12}", "");
    t += r.work.bytes > 0 ? fmt::format("{:>10.1f}", r.work.bytes / s * 1e-9) : fmt::format("{:>10}", "");
    t += r.limit_seconds > 0 ? fmt::format("{:>7.0f}% {}\n", 100 * r.limit_seconds / s, r.compute_bound ? "compute" : "memory") : "\n";
  }
  const double rest = std::max(0.0, seconds - operators);
  return t + fmt::format("  {:<32}{:>8}{:>11.3f}{:>7.1f}%\n", "between operators", "", 1e3 * rest / n, 100 * rest / seconds);
}

Json chrome_trace(const std::vector<Event>& events) {
  int64_t first = events.empty() ? 0 : events[0].begin;
  for (const Event& e : events) first = std::min(first, e.begin);
  Json list = Json::array();
  for (const Event& e : events) {
    Json j = Json::object();
    j.set("name", e.name.empty() ? std::string(e.kind) : e.name);
    j.set("cat", e.kind);
    j.set("ph", "X");
    j.set("ts", static_cast<double>(e.begin - first) * 1e-3);
    j.set("dur", static_cast<double>(e.end - e.begin) * 1e-3);
    j.set("pid", 1);
    j.set("tid", e.thread);
    if (e.work.bytes > 0 || e.work.flop > 0) {
      Json args = Json::object();
      args.set("flop", e.work.flop);
      args.set("bytes", e.work.bytes);
      j.set("args", args);
    }
    list.push(j);
  }
  Json out = Json::object();
  out.set("traceEvents", list);
  out.set("displayTimeUnit", "ms");
  return out;
}

}  // namespace statera
