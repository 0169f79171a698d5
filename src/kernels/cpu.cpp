// Detection by CPUID and XGETBV, choice by STATERA_ISA or set_isa. Leaf and bit numbers: Intel SDM volume 2, CPUID.
#include "kernels/cpu.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace statera::kernels {
namespace {

enum Register { kEax, kEbx, kEcx, kEdx };
enum SavedState : uint64_t { kYmm = 0x6, kZmm = 0xe6, kTiles = 0x60000 };  // XCR0 bits

struct Feature {
  const char* name;
  uint32_t leaf, subleaf;
  Register reg;
  int bit;
  uint64_t state;  // XCR0 bits that must all be set
};
constexpr Feature kFeatures[] = {
    {"avx", 1, 0, kEcx, 28, kYmm},        {"fma", 1, 0, kEcx, 12, kYmm},         {"f16c", 1, 0, kEcx, 29, kYmm},
    {"avx2", 7, 0, kEbx, 5, kYmm},        {"avx_vnni", 7, 1, kEax, 4, kYmm},     {"avx512f", 7, 0, kEbx, 16, kZmm},
    {"avx512dq", 7, 0, kEbx, 17, kZmm},   {"avx512bw", 7, 0, kEbx, 30, kZmm},    {"avx512vl", 7, 0, kEbx, 31, kZmm},
    {"avx512_vbmi", 7, 0, kEcx, 1, kZmm}, {"avx512_vnni", 7, 0, kEcx, 11, kZmm}, {"avx512_vbmi2", 7, 0, kEcx, 6, kZmm},
    {"avx512_bf16", 7, 1, kEax, 5, kZmm}, {"avx512_fp16", 7, 0, kEdx, 23, kZmm}, {"amx_tile", 7, 0, kEdx, 24, kTiles},
    {"amx_int8", 7, 0, kEdx, 25, kTiles}, {"amx_bf16", 7, 0, kEdx, 22, kTiles},
};

uint64_t saved_state() {
  uint32_t r[4];
  if (!__get_cpuid(1, &r[0], &r[1], &r[2], &r[3]) || !(r[kEcx] >> 27 & 1)) return 0;  // no OSXSAVE: XGETBV would fault
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool has(const Feature& f, uint64_t state) {
  uint32_t r[4];
  if (f.leaf == 7 && f.subleaf == 1) {  // EAX of subleaf 0 says how many subleaves exist
    if (!__get_cpuid_count(7, 0, &r[0], &r[1], &r[2], &r[3]) || r[kEax] < 1) return false;
  }
  return __get_cpuid_count(f.leaf, f.subleaf, &r[0], &r[1], &r[2], &r[3]) && (r[f.reg] >> f.bit & 1) && (state & f.state) == f.state;
}

bool has(std::string_view name, uint64_t state) {
  for (const Feature& f : kFeatures)
    if (name == f.name) return has(f, state);
  return false;
}

// Linux hands out the 8 KiB tile state only to processes that ask (ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
bool tiles_permitted() { return ::syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

Isa detect() {
  const uint64_t state = saved_state();
  auto all = [&](std::initializer_list<const char*> names) {
    for (const char* name : names)
      if (!has(name, state)) return false;
    return true;
  };
  if (!all({"avx", "avx2", "fma", "f16c"})) return Isa::scalar;
  if (!all({"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni", "avx512_vbmi"})) return Isa::avx2;
  if (!all({"avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"}) || !tiles_permitted()) return Isa::avx512;
  return Isa::amx;
}

Isa best() {
  static const Isa isa = detect();
  return isa;
}

std::atomic<int> forced{-1};

Isa from_environment() {
  const char* wanted = std::getenv("STATERA_ISA");
  if (!wanted || !*wanted) return best();
  for (Isa isa : kAllIsas) {
    if (isa_name(isa) != wanted) continue;
    if (isa_supported(isa)) return isa;
    throw std::runtime_error("STATERA_ISA=" + std::string(wanted) +
                             ": this machine does not support it (best: " + std::string(isa_name(best())) + ")");
  }
  throw std::runtime_error("STATERA_ISA=" + std::string(wanted) + ": unknown instruction set (scalar, avx2, avx512 or amx)");
}

std::string brand() {
  uint32_t r[12] = {};
  uint32_t top = __get_cpuid_max(0x80000000, nullptr);
  if (top < 0x80000004) return "unknown CPU";
  for (uint32_t i = 0; i < 3; ++i) __get_cpuid(0x80000002 + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]);
  char text[49] = {};
  std::memcpy(text, r, 48);
  std::string name = text;
  while (!name.empty() && name.back() == ' ') name.pop_back();
  return name;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::amx:
      return "amx";
  }
  return "unknown";
}

bool cpu_has(std::string_view feature) { return has(feature, saved_state()); }

bool isa_supported(Isa isa) { return isa <= best(); }

Isa active_isa() {
  int isa = forced.load(std::memory_order_relaxed);
  if (isa >= 0) return static_cast<Isa>(isa);
  static const Isa chosen = from_environment();  // a throw leaves it unset: the next call throws again
  return chosen;
}

void set_isa(std::optional<Isa> isa) {
  if (isa && !isa_supported(*isa)) throw std::runtime_error("set_isa: this machine does not support " + std::string(isa_name(*isa)));
  forced.store(isa ? static_cast<int>(*isa) : -1, std::memory_order_relaxed);
}

std::string cpu_description() {
  const uint64_t state = saved_state();
  std::string text = brand() + ":";
  for (const Feature& f : kFeatures)
    if (has(f, state)) text += std::string(" ") + f.name;
  return text + "; using " + std::string(isa_name(active_isa()));
}

}  // namespace statera::kernels
