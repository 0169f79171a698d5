// cpu: which instruction sets this process may use, and which one the kernels use now.
// Detection covers CPUID, what the operating system saves (XCR0) and the AMX permission call. Nothing is chosen at compile
// time. Not a topology or cache query.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace statera::kernels {

// In rising order; each contains the ones before it. avx512 means F, BW, VL, DQ, VNNI and VBMI (with AVX2, FMA, F16C).
enum class Isa { scalar, avx2, avx512, amx };
inline constexpr Isa kAllIsas[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::amx};

std::string_view isa_name(Isa isa);
bool isa_supported(Isa isa);
// Whether this process may use one more feature, as cpu_description() spells it ("avx_vnni", "avx512_bf16"); false for an unknown name.
bool cpu_has(std::string_view feature);
// The set in use: set_isa, else STATERA_ISA, else the best supported. Throws std::runtime_error when STATERA_ISA names an
// unknown or unsupported set; call it once at start-up, before any kernel (kernels are noexcept and use what it returns).
Isa active_isa();
// The table of an op for the active set. Ops without tile kernels pass their AVX-512 table for amx too.
template <class Table>
const Table& table_of(const Table& scalar, const Table& avx2, const Table& avx512, const Table& amx) {
  switch (active_isa()) {
    case Isa::scalar:
      return scalar;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    case Isa::amx:
      return amx;
  }
  return scalar;
}
// Forces a set (std::runtime_error when unsupported); nullopt goes back to STATERA_ISA or the best. Not while kernels run.
void set_isa(std::optional<Isa> isa);
// For logs and reports: "AMD EPYC ...: avx2 fma ... avx512_vnni; using avx512".
std::string cpu_description();

}  // namespace statera::kernels
