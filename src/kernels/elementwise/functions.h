// Functions of one vector for body.h: exp and the activations, in terms of its V.
#pragma once

namespace statera::kernels::elementwise {
namespace {

#define STATERA_INLINE inline __attribute__((always_inline))

using R = V::R;

// x = n ln 2 + r with |r| <= ln 2 / 2, exp(r) by a polynomial (its own error 3e-9), times 2^n. The bounds let infinities through as
// infinity and 0, a NaN stays one. Below 2^-126 it is 0: numbers that are not normal cost processors of Intel hundreds of cycles.
STATERA_INLINE R exp_of(R of) {
  const R least = V::set(-87.336f), x = V::min(V::set(89.0f), V::max(least, of));
  const R n = V::round(V::mul(x, V::set(1.44269504f)));
  const R r = V::fnma(n, V::set(-2.12194440e-4f), V::fnma(n, V::set(0.693359375f), x));
  R p = V::set(0.0013814594f);
  p = V::fma(p, r, V::set(0.0083687175f));
  p = V::fma(p, r, V::set(0.041668389f));
  p = V::fma(p, r, V::set(0.16666521f));
  p = V::fma(p, r, V::set(0.49999994f));
  p = V::fma(p, r, V::set(1.0f));
  p = V::fma(p, r, V::set(1.0f));
  return V::unless_below(of, least, V::times_power_of_two(p, n));
}

// x * logistic(u)
STATERA_INLINE R gated(R x, R u) { return V::div(x, V::add(V::set(1.0f), exp_of(V::sub(V::set(0.0f), u)))); }

// max(x, 0) - |x| Q(|x|) with the normal tail Q(a) = exp(-a^2/2) g(1 / (1 + 0.3 a)), g a polynomial (relative error of Q 1.5e-7).
STATERA_INLINE R gelu(R x) {
  const R a = V::min(V::set(40.0f), V::max(x, V::sub(V::set(0.0f), x)));
  const R t = V::div(V::set(1.0f), V::fma(a, V::set(0.3f), V::set(1.0f)));
  R g = V::set(0.035675015f);
  g = V::fma(g, t, V::set(-0.157204047f));
  g = V::fma(g, t, V::set(0.20635511f));
  g = V::fma(g, t, V::set(-0.053685043f));
  g = V::fma(g, t, V::set(0.1285623163f));
  g = V::fma(g, t, V::set(0.099913299f));
  g = V::fma(g, t, V::set(0.120753981f));
  g = V::fma(g, t, V::set(0.1196292937f));
  const R tail = V::mul(V::mul(g, t), exp_of(V::mul(V::mul(a, a), V::set(-0.5f))));
  return V::fnma(a, tail, V::max(V::set(0.0f), x));
}

template <Act A>
STATERA_INLINE R act_of(R x) {
  if constexpr (A == Act::silu) return gated(x, x);
  if constexpr (A == Act::gelu) return gelu(x);
  if constexpr (A == Act::quick_gelu) return gated(x, V::mul(x, V::set(1.702f)));
  if constexpr (A == Act::relu) return V::max(V::set(0.0f), x);
  return gated(x, V::mul(x, V::fma(V::mul(x, x), V::set(0.0713548163f), V::set(1.59576912f))));
}

}  // namespace
}  // namespace statera::kernels::elementwise
