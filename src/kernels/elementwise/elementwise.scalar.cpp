// The specification of the elementwise kernels; sums of a row run from left to right.
#include "kernels/elementwise/elementwise.h"

#include <cmath>

namespace statera::kernels::elementwise {
namespace {

float element(Vector v, int64_t i) {
  if (v.type == Type::f32) return static_cast<const float*>(v.data)[i];
  float out[hgemm::kRowBlock];
  hgemm::kScalar.convert({v.data, v.type, 0, 1}, i, 1, out);
  return out[0];
}

// 0 where the result would be no normal number.
float exp_of(float x) {
  const float e = std::exp(x);
  return e < 0x1p-126f ? 0.0f : e;
}

void rms_norm(const float* x, int64_t ldx, int64_t rows, int64_t n, Vector w, float eps, float* y) noexcept {
  for (int64_t r = 0; r < rows; ++r, x += ldx, y += n) {
    float sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
    const float k = 1 / std::sqrt(sum / static_cast<float>(n) + eps);
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * k * element(w, i);
  }
}

void layer_norm(const float* x, int64_t ldx, int64_t rows, int64_t n, Vector w, Vector b, float eps, float* y) noexcept {
  for (int64_t r = 0; r < rows; ++r, x += ldx, y += n) {
    float sum = 0, squares = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i];
    const float mean = sum / static_cast<float>(n);
    for (int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const float k = 1 / std::sqrt(squares / static_cast<float>(n) + eps);
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * k * element(w, i) + element(b, i);
  }
}

float act_of(Act act, float x) {
  switch (act) {
    case Act::silu: return x / (1 + std::exp(-x));
    case Act::gelu: return x * 0.5f * std::erfc(-x * 0.70710678f);
    case Act::gelu_tanh: return x / (1 + std::exp(-2 * 0.79788456f * (x + 0.044715f * x * x * x)));
    case Act::quick_gelu: return x / (1 + std::exp(-1.702f * x));
    case Act::relu: return x < 0 ? 0 : x;
  }
  return x;
}

void activate(Act act, const float* x, int64_t ldx, const float* times, int64_t ldt, int64_t rows, int64_t n, float* y, int64_t ldy) noexcept {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i) y[r * ldy + i] = act_of(act, x[r * ldx + i]) * (times ? times[r * ldt + i] : 1);
}

void add(const float* a, const float* b, int64_t n, float* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

void add_bias(float* y, int64_t ldy, int64_t rows, int64_t n, Vector bias) noexcept {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i) y[r * ldy + i] += element(bias, i);
}

void rope(const float* x, int64_t ldx, int64_t heads, int64_t d, int64_t r, const float* cos, const float* sin, float* y) noexcept {
  const int64_t half = r / 2;
  for (int64_t h = 0; h < heads; ++h, x += ldx, y += d) {
    for (int64_t j = 0; j < half; ++j) {
      y[j] = x[j] * cos[j] - x[half + j] * sin[j];
      y[half + j] = x[half + j] * cos[half + j] + x[j] * sin[half + j];
    }
    for (int64_t j = r; j < d; ++j) y[j] = x[j];
  }
}

void softmax(float* s, int64_t lds, int64_t rows, int64_t count, const int64_t* begin, const int64_t* end, float* maximum, float* total,
             float* factor) noexcept {
  for (int64_t r = 0; r < rows; ++r, s += lds) {
    float most = maximum[r], sum = 0;
    const auto visible = [&](int64_t j) { return j >= begin[r] && j < end[r]; };
    for (int64_t j = 0; j < count; ++j) most = visible(j) && s[j] > most ? s[j] : most;
    for (int64_t j = 0; j < count; ++j) {
      s[j] = visible(j) ? exp_of(s[j] - most) : 0.0f;
      sum += s[j];
    }
    factor[r] = exp_of(maximum[r] - most);
    total[r] = total[r] * factor[r] + sum;
    maximum[r] = most;
  }
}

void scale_rows(const float* x, int64_t ldx, int64_t rows, int64_t n, const float* factor, float* y, int64_t ldy) noexcept {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i) y[r * ldy + i] = x[r * ldx + i] * factor[r];
}

}  // namespace

const Table kScalar = {rms_norm, layer_norm, activate, add, add_bias, rope, softmax, scale_rows};

}  // namespace statera::kernels::elementwise
