// Dispatch. The tile file has tiles only; what it lacks is AVX-512's.
#include "kernels/peak/peak.h"

#include "kernels/cpu.h"

namespace statera::kernels::peak {
namespace {

const Peak* find_in(const Table& table, Kind kind) {
  for (int i = 0; i < table.count; ++i) {
    const Peak& p = table.peaks[i];
    if (p.kind == kind && (!p.needs || cpu_has(p.needs))) return &p;
  }
  return nullptr;
}

}  // namespace

const Peak* find(Kind kind) noexcept {
  const Peak* own = find_in(table_of(kScalar, kAvx2, kAvx512, kAmx), kind);
  return own || active_isa() != Isa::amx ? own : find_in(kAvx512, kind);
}

uint64_t read(const void* data, int64_t bytes) noexcept { return table_of(kScalar, kAvx2, kAvx512, kAvx512).read(data, bytes); }

const char* kind_name(Kind kind) noexcept {
  switch (kind) {
    case Kind::fp32:
      return "fp32";
    case Kind::bf16:
      return "bf16";
    case Kind::int8:
      return "int8";
  }
  return "";
}

}  // namespace statera::kernels::peak
