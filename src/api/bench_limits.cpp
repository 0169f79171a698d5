// See bench_limits.h.
#include "api/bench_limits.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "base/heap.h"
#include "base/threads.h"
#include "eval/statistics.h"
#include "kernels/peak/peak.h"

namespace statera {
namespace {

namespace peak = kernels::peak;

constexpr int64_t kPiece = int64_t{4} << 20, kHugePage = int64_t{2} << 20;
constexpr int64_t kPiecesAThread = 8;  // of multiply-adds; each takes about two milliseconds

// Operations a second of run(): once to warm up, then `repeats` times.
template <class F>
Summary rates(double amount, int repeats, F&& run) {
  std::vector<double> out;
  for (int r = 0; r <= repeats; ++r) {
    const auto start = std::chrono::steady_clock::now();
    run();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (r > 0) out.push_back(amount / std::max(seconds, 1e-9));
  }
  return summary_of(std::move(out));
}

int64_t default_buffer() {
  const int64_t cache = std::max<int64_t>(0, ::sysconf(_SC_LEVEL3_CACHE_SIZE)), memory = static_cast<int64_t>(memory_of_machine());
  const int64_t wanted = std::max(int64_t{512} << 20, 4 * cache);
  return memory > 0 ? std::min(wanted, memory / 4) : wanted;
}

struct Free {
  void operator()(char* p) const { std::free(p); }
};

MachineLimits::Rate measure_read(int64_t bytes, int repeats) {
  const std::unique_ptr<char, Free> memory(static_cast<char*>(std::aligned_alloc(kHugePage, static_cast<size_t>(bytes))));
  if (!memory) throw Error(ErrorKind::memory, "--read-buffer: " + std::to_string(bytes) + " bytes cannot be had");
  ::madvise(memory.get(), static_cast<size_t>(bytes), MADV_HUGEPAGE);
  const int64_t pieces = bytes / kPiece;
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) { std::fill(memory.get() + begin * kPiece, memory.get() + end * kPiece, char{1}); });
  std::atomic<uint64_t> sum{0};
  auto read = [&] {
    parallel_for(pieces, 1, [&](int64_t begin, int64_t end) { sum ^= peak::read(memory.get() + begin * kPiece, (end - begin) * kPiece); });
  };
  auto alone = [&] {
    const InlineScope here;
    read();
  };
  const auto amount = static_cast<double>(bytes);
  MachineLimits::Rate out{rates(amount, repeats, alone), rates(amount, repeats, read)};
  check(sum == 0, "reading memory gave other bytes than were written");  // equal words, an even number of them
  return out;
}

MachineLimits::Rate measure_compute(const peak::Peak& p, int repeats) {
  auto run = [&](int64_t pieces) {
    parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        check(p.run(peak::kMaxRounds) == static_cast<double>(peak::kMaxRounds * p.multiply_adds), "a peak kernel did other work than it says");
    });
  };
  auto alone = [&] {
    const InlineScope here;
    run(kPiecesAThread);
  };
  const double piece = 2.0 * static_cast<double>(peak::kMaxRounds) * static_cast<double>(p.multiply_adds);
  const int64_t all = kPiecesAThread * num_threads();
  return {rates(piece * kPiecesAThread, repeats, alone), rates(piece * static_cast<double>(all), repeats, [&] { run(all); })};
}

Json rate_json(const MachineLimits::Rate& rate) {
  Json j = Json::object();
  j.set("one_thread", rate.one.to_json());
  j.set("all_threads", rate.all.to_json());
  return j;
}

}  // namespace

Summary summary_of(std::vector<double> values) {
  if (values.empty()) return {};
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  return {*least, quantile(values, 0.5), *most};
}

Json Summary::to_json() const {
  Json j = Json::object();
  j.set("min", min);
  j.set("median", median);
  j.set("max", max);
  return j;
}

double MachineLimits::peak(std::string_view kind) const {
  for (const Compute& c : compute) {
    if (c.kind == kind) return c.flop.best();
  }
  return 0;
}

double MachineLimits::peak_for(double bits) const {
  const double fp32 = peak("fp32"), half = std::max(peak("bf16"), fp32);
  if (bits <= 0 || bits > 20) return fp32;
  return bits > 10 ? half : std::max(peak("int8"), half);
}

Json MachineLimits::to_json() const {
  Json j = Json::object();
  j.set("threads", threads);
  j.set("read_buffer_bytes", buffer_bytes);
  j.set("read_bytes_per_second", rate_json(read));
  Json kinds = Json::object();
  for (const Compute& c : compute) {
    Json one = rate_json(c.flop);
    one.set("instruction", c.instruction);
    kinds.set(c.kind, one);
  }
  j.set("operations_per_second", kinds);
  return j;
}

MachineLimits measure_limits(int64_t buffer_bytes, int repeats) {
  MachineLimits out;
  out.threads = num_threads();
  const int64_t wanted = buffer_bytes > 0 ? buffer_bytes : default_buffer();
  out.buffer_bytes = std::max(kPiece, wanted / kPiece * kPiece);
  out.read = measure_read(out.buffer_bytes, repeats);
  for (peak::Kind kind : peak::kKinds) {
    if (const peak::Peak* p = peak::find(kind)) out.compute.push_back({peak::kind_name(kind), p->instruction, measure_compute(*p, repeats)});
  }
  return out;
}

}  // namespace statera
