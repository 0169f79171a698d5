// A wave of runs goes on until each of them waits, has seen enough or has ended; then their inputs are handed over in the order of the samples.
#include "quant/calib/block_runs.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/threads.h"

namespace statera {

// One sample's run, and what it looks at now.
struct BlockRuns::Run : Tap {
  struct Seen {
    const LinearSite* site;
    at::Tensor x_TK;
    Pass pass;
  };
  size_t sample = 0;
  std::vector<Seen> seen;
  int64_t width = 0;  // of the layer at which it waits
  bool ended = false;

  // Up to these layers; at_first: it waits at the first one, whose input is theirs, too.
  void look_at(const std::vector<const LinearSite*>& layers, const std::set<const LinearSite*>* open, bool at_first) {
    behind_ = std::exchange(layers_, layers);
    if (waited_for_) {
      expected_.insert(behind_.begin(), behind_.end());
      expected_.erase(std::exchange(waited_for_, nullptr));
    }
    open_ = open ? *open : std::set<const LinearSite*>();
    at_first_ = at_first;
    found_ = 0;
  }
  void input(const LinearSite& site, const at::Tensor& x, const Pass& pass) override {
    if (waited_at_.defined() && has(behind_, site)) check(x.const_data_ptr() == waited_at_.const_data_ptr(), "layers that shared an input read different ones now");
    expected_.erase(&site);
    if (!has(layers_, site)) {
      at_first_ &= open_.count(&site) == 0;
      return;
    }
    seen.push_back({&site, x, pass});
    seen.back().pass.tap = nullptr;
    if (at_first_) {
      width = site.in;
      waited_at_ = x;
      waited_for_ = &site;
      run->wait();
    } else if (++found_ == layers_.size()) {
      found_ = 0;
      throw StackWalk::Enough();
    }
  }
  // Whether it was at each layer for which it waited at another.
  bool met_all() const { return expected_.empty(); }

 private:
  static bool has(const std::vector<const LinearSite*>& layers, const LinearSite& site) {
    return std::find(layers.begin(), layers.end(), &site) != layers.end();
  }
  std::vector<const LinearSite*> layers_, behind_;
  std::set<const LinearSite*> open_;
  bool at_first_ = false;
  size_t found_ = 0;
  at::Tensor waited_at_;
  const LinearSite* waited_for_ = nullptr;  // the layer that read it first, until the run goes on
  std::set<const LinearSite*> expected_;

 public:
  std::optional<SampleRun> run;  // last: ends before what it uses does
};

namespace {

constexpr size_t kMostWaiting = 512;  // each has a thread, of which systems allow some thousands

// Whether they are layers of several experts, or of one and others: each expert reads rows of its own, of some samples none.
bool read_apart(const std::vector<const LinearSite*>& layers) {
  auto owner = [](const LinearSite& site) { return std::string_view(site.path).substr(0, site.path.rfind('.')); };
  const bool some = std::any_of(layers.begin(), layers.end(), [](const LinearSite* l) { return l->row_share < 1; });
  return some && std::any_of(layers.begin(), layers.end(), [&](const LinearSite* l) { return owner(*l) != owner(*layers.front()); });
}

// Whether all layers were seen, at one tensor.
template <class Seens>
bool one_input(const Seens& seen, size_t layers) {
  if (seen.size() != layers) return false;
  const at::Tensor& first = seen.front().x_TK;
  return std::all_of(seen.begin(), seen.end(), [&](const auto& s) {
    return s.x_TK.const_data_ptr() == first.const_data_ptr() && s.x_TK.sizes() == first.sizes() && s.x_TK.strides() == first.strides();
  });
}

}  // namespace

BlockRuns::BlockRuns(StackWalk& walk, int64_t block, const RunMemory& memory) : walk_(walk), block_(block), memory_(memory) {}
BlockRuns::~BlockRuns() = default;
void BlockRuns::forget() { waiting_.clear(); }

uint64_t BlockRuns::waiting_bytes() const {
  uint64_t sum = 0;
  for (const auto& [sample, run] : waiting_) sum += bytes_of(walk_.rows_of(sample), walk_.width(), run->width);
  return sum;
}

size_t BlockRuns::side_by_side() const { return memory_.side_by_side ? static_cast<size_t>(num_threads()) : 1; }

std::unique_ptr<BlockRuns::Run> BlockRuns::run_of(size_t sample) {
  if (auto waits = waiting_.extract(sample)) return std::move(waits.mapped());
  auto run = std::make_unique<Run>();
  run->sample = sample;
  run->run.emplace([this, tap = run.get(), sample](SampleRun&) { return walk_.run(block_, sample, tap); });
  return run;
}

std::vector<std::unique_ptr<BlockRuns::Run>> BlockRuns::take_wave(size_t& next, size_t most) {
  walk_.check_cancelled();
  std::vector<std::unique_ptr<Run>> wave;
  for (; next < walk_.data().samples.size() && wave.size() < most; ++next) {
    if (walk_.rows_of(next) > 0) wave.push_back(run_of(next));
  }
  return wave;
}

void BlockRuns::go_on(std::vector<std::unique_ptr<Run>>& wave) {
  for (auto& run : wave) run->run->start(wave.size() > 1);
  for (auto& run : wave) run->ended = run->run->finish();
}

void BlockRuns::observe(const std::vector<const LinearSite*>& layers, const Take& take, const std::set<const LinearSite*>* open) {
  check(!layers.empty(), "nothing to look at");
  const bool may_wait = open && block_ < walk_.blocks() && !read_apart(layers);
  bool at_first = may_wait && layers.size() == 1, known = !may_wait || at_first;
  std::vector<const LinearSite*> order = layers;  // as the block calls them
  uint64_t held = waiting_bytes();
  for (size_t next = 0;;) {
    const size_t waited = waiting_.size();
    std::vector<std::unique_ptr<Run>> wave = take_wave(next, known ? side_by_side() : 1);  // the first run tells whether there is one input
    if (wave.empty()) return;
    if (waiting_.size() < waited) held = waiting_bytes();
    for (auto& run : wave) run->look_at(layers, open, at_first);
    go_on(wave);
    for (auto& run : wave) {
      if (!known && (at_first = one_input(run->seen, layers.size()))) {
        for (size_t i = 0; i < order.size(); ++i) order[i] = run->seen[i].site;
      }
      known = true;
      const bool waits = !run->ended;
      check(!waits || run->seen.front().site == order.front(), "layers that share an input are called in one order");
      for (const Run::Seen& s : run->seen) {
        if (!waits) take(*s.site, s.x_TK, s.pass);
        for (size_t i = 0; waits && i < order.size(); ++i) take(*order[i], s.x_TK, s.pass);
      }
      run->seen.clear();
      walk_.release(run->sample);
      if (!waits) continue;
      const uint64_t bytes = bytes_of(walk_.rows_of(run->sample), walk_.width(), run->width);
      if (held + bytes > memory_.waiting || waiting_.size() == kMostWaiting) continue;
      held += bytes;
      waiting_[run->sample] = std::move(run);
    }
  }
}

void BlockRuns::advance() {
  std::map<size_t, at::Tensor> ready;
  walk_.advance(block_, [&](size_t sample) {
    if (ready.count(sample) == 0) {
      size_t next = sample;
      std::vector<std::unique_ptr<Run>> wave = take_wave(next, side_by_side());
      for (auto& run : wave) run->look_at({}, nullptr, false);
      go_on(wave);
      for (auto& run : wave) {
        check(run->ended, "a run to the block's end waits nowhere");
        check(run->met_all(), "a sample that reaches one of the layers that share an input reaches all");
        ready[run->sample] = run->run->take_result();
        walk_.release(run->sample);
      }
    }
    return std::move(ready.extract(sample).mapped());
  });
  waiting_.clear();
}

}  // namespace statera
