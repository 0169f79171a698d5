// The loops of the elementwise kernels, once for every vector width: an ISA file defines `V`, its vectors, in an anonymous namespace and
// includes this. V: W lanes; load, store (whole, or the first n < W), load_as (a type's), arithmetic, reductions and power_of_two.
#pragma once

#include "kernels/elementwise/functions.h"

namespace statera::kernels::elementwise {
namespace {

// Calls f(i, n) for every W elements of [0, count), n of them there.
template <class F>
STATERA_INLINE void by_lanes(int64_t count, F&& f) {
  int64_t i = 0;
  for (; i + V::W <= count; i += V::W) f(i, V::W);
  if (i < count) f(i, count - i);
}

STATERA_INLINE R load(const float* p, int64_t n) { return n == V::W ? V::load(p) : V::load(p, n); }
STATERA_INLINE void store(float* p, R x, int64_t n) {
  if (n == V::W) return V::store(p, x);
  V::store(p, x, n);
}

template <Act A>
void activate_as(const float* x, int64_t ldx, const float* times, int64_t ldt, int64_t rows, int64_t n, float* y, int64_t ldy) {
  for (int64_t r = 0; r < rows; ++r, x += ldx, y += ldy, times += times ? ldt : 0) {
    if (times) {
      by_lanes(n, [&](int64_t i, int64_t k) { store(y + i, V::mul(act_of<A>(load(x + i, k)), load(times + i, k)), k); });
    } else {
      by_lanes(n, [&](int64_t i, int64_t k) { store(y + i, act_of<A>(load(x + i, k)), k); });
    }
  }
}

void activate(Act act, const float* x, int64_t ldx, const float* times, int64_t ldt, int64_t rows, int64_t n, float* y, int64_t ldy) noexcept {
  switch (act) {
    case Act::silu: return activate_as<Act::silu>(x, ldx, times, ldt, rows, n, y, ldy);
    case Act::gelu: return activate_as<Act::gelu>(x, ldx, times, ldt, rows, n, y, ldy);
    case Act::gelu_tanh: return activate_as<Act::gelu_tanh>(x, ldx, times, ldt, rows, n, y, ldy);
    case Act::quick_gelu: return activate_as<Act::quick_gelu>(x, ldx, times, ldt, rows, n, y, ldy);
    case Act::relu: return activate_as<Act::relu>(x, ldx, times, ldt, rows, n, y, ldy);
  }
}

// The sum of f(i, n) over a row, in four chains.
template <class F>
STATERA_INLINE float row_sum(int64_t count, F&& f) {
  R s[4] = {V::set(0.0f), V::set(0.0f), V::set(0.0f), V::set(0.0f)};
  int64_t i = 0;
  for (; i + 4 * V::W <= count; i += 4 * V::W)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) s[c] = V::add(s[c], f(i + c * V::W, V::W));
  for (; i < count; i += V::W) s[0] = V::add(s[0], f(i, count - i < V::W ? count - i : V::W));
  return V::sum(V::add(V::add(s[0], s[1]), V::add(s[2], s[3])));
}

template <Type T>
void rms_norm_as(const float* x, int64_t ldx, int64_t rows, int64_t n, const void* w, float eps, float* y) {
  for (int64_t r = 0; r < rows; ++r, x += ldx, y += n) {
    const float squares = row_sum(n, [&](int64_t i, int64_t k) {
      const R v = load(x + i, k);
      return V::mul(v, v);
    });
    const R scale = V::set(1 / __builtin_sqrtf(squares / static_cast<float>(n) + eps));
    by_lanes(n, [&](int64_t i, int64_t k) { store(y + i, V::mul(V::mul(load(x + i, k), scale), V::load_as<T>(w, i, k)), k); });
  }
}

void rms_norm(const float* x, int64_t ldx, int64_t rows, int64_t n, Vector w, float eps, float* y) noexcept {
  if (w.type == Type::f32) return rms_norm_as<Type::f32>(x, ldx, rows, n, w.data, eps, y);
  if (w.type == Type::f16) return rms_norm_as<Type::f16>(x, ldx, rows, n, w.data, eps, y);
  rms_norm_as<Type::bf16>(x, ldx, rows, n, w.data, eps, y);
}

template <Type T>
STATERA_INLINE R element_of(Vector v, int64_t i, int64_t k) {
  return V::load_as<T>(v.data, i, k);
}
STATERA_INLINE R element(Vector v, int64_t i, int64_t k) {
  return v.type == Type::f32 ? element_of<Type::f32>(v, i, k) : v.type == Type::f16 ? element_of<Type::f16>(v, i, k) : element_of<Type::bf16>(v, i, k);
}

void layer_norm(const float* x, int64_t ldx, int64_t rows, int64_t n, Vector w, Vector b, float eps, float* y) noexcept {
  for (int64_t r = 0; r < rows; ++r, x += ldx, y += n) {
    const R mean = V::set(row_sum(n, [&](int64_t i, int64_t k) { return load(x + i, k); }) / static_cast<float>(n));
    const float squares = row_sum(n, [&](int64_t i, int64_t k) {
      const R v = V::sub(load(x + i, k), mean);
      return k == V::W ? V::mul(v, v) : V::first(V::mul(v, v), k);
    });
    const R scale = V::set(1 / __builtin_sqrtf(squares / static_cast<float>(n) + eps));
    by_lanes(n, [&](int64_t i, int64_t k) {
      store(y + i, V::fma(V::mul(V::sub(load(x + i, k), mean), scale), element(w, i, k), element(b, i, k)), k);
    });
  }
}

void add(const float* a, const float* b, int64_t n, float* y) noexcept {
  by_lanes(n, [&](int64_t i, int64_t k) { store(y + i, V::add(load(a + i, k), load(b + i, k)), k); });
}

void add_bias(float* y, int64_t ldy, int64_t rows, int64_t n, Vector bias) noexcept {
  for (int64_t r = 0; r < rows; ++r, y += ldy)
    by_lanes(n, [&](int64_t i, int64_t k) { store(y + i, V::add(load(y + i, k), element(bias, i, k)), k); });
}

void rope(const float* x, int64_t ldx, int64_t heads, int64_t d, int64_t r, const float* cos, const float* sin, float* y) noexcept {
  const int64_t half = r / 2;
  for (int64_t h = 0; h < heads; ++h, x += ldx, y += d) {
    by_lanes(half, [&](int64_t j, int64_t k) {
      const R a = load(x + j, k), b = load(x + half + j, k);
      store(y + j, V::fnma(b, load(sin + j, k), V::mul(a, load(cos + j, k))), k);
      store(y + half + j, V::fma(a, load(sin + half + j, k), V::mul(b, load(cos + half + j, k))), k);
    });
    by_lanes(d - r, [&](int64_t j, int64_t k) { store(y + r + j, load(x + r + j, k), k); });
  }
}

// f over the vectors of [begin, end) of a row, in four chains from `start` on.
template <class F>
STATERA_INLINE R in_chains(int64_t begin, int64_t end, R start, R (*join)(R, R), F&& f) {
  R c[4] = {start, start, start, start};
  int64_t j = begin;
  for (; j + 4 * V::W <= end; j += 4 * V::W)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) c[i] = join(c[i], f(j + i * V::W));
  for (; j < end; j += V::W) c[0] = join(c[0], f(j));
  return join(join(c[0], c[1]), join(c[2], c[3]));
}

void softmax(float* s, int64_t lds, int64_t rows, int64_t count, const int64_t* begin, const int64_t* end, float* maximum, float* total,
             float* factor) noexcept {
  const int64_t width = (count + V::W - 1) / V::W * V::W;
  for (int64_t r = 0; r < rows; ++r, s += lds) {
    const int64_t last = end[r] < 0 ? 0 : end[r] < count ? end[r] : count, first = begin[r] < 0 ? 0 : begin[r] < last ? begin[r] : last;
    const int64_t from = first / V::W * V::W, to = first < last ? (last + V::W - 1) / V::W * V::W : from;  // vectors with a visible score
    for (int64_t j = 0; j < from; j += V::W) V::store(s + j, V::set(0.0f));
    for (int64_t j = to; j < width; j += V::W) V::store(s + j, V::set(0.0f));
    for (int64_t j = from; j < first && from < to; ++j) s[j] = kHidden;
    for (int64_t j = last; j < to; ++j) s[j] = kHidden;
    const float raised = V::most(in_chains(from, to, V::set(maximum[r]), V::max, [&](int64_t j) { return V::load(s + j); }));
    const R top = V::set(raised);
    const R sum = in_chains(from, to, V::set(0.0f), V::add, [&](int64_t j) {
      const R e = exp_of(V::sub(V::load(s + j), top));
      V::store(s + j, e);
      return e;
    });
    const float f = V::lane(exp_of(V::set(maximum[r] - raised)));
    factor[r] = f;
    total[r] = total[r] * f + V::sum(sum);
    maximum[r] = raised;
  }
}

void scale_rows(const float* x, int64_t ldx, int64_t rows, int64_t n, const float* factor, float* y, int64_t ldy) noexcept {
  for (int64_t r = 0; r < rows; ++r, x += ldx, y += ldy) {
    if (x == y && factor[r] == 1) continue;
    const R f = V::set(factor[r]);
    by_lanes(n, [&](int64_t i, int64_t k) { store(y + i, V::mul(load(x + i, k), f), k); });
  }
}

#undef STATERA_INLINE

}  // namespace
}  // namespace statera::kernels::elementwise
