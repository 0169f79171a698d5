// GPTQ: exact laws (identity gram, row order, weighted grams), the inequality against round-to-nearest, and an independent reference that
// solves the conditional optimum anew for every column in double precision.
#include "quant/methods/gptq/algo.h"

#include <ATen/Parallel.h>
#include <ATen/ops/diag_embed.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "quant/search/test_tensors.h"

namespace statera {
namespace {

// As the program runs: ATen single-threaded, our pool over rows.
class Gptq : public testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

void expect_same(const QTensor& a, const QTensor& b) {
  EXPECT_TRUE(at::equal(a.q, b.q)) << a.q.ne(b.q).sum().item<int64_t>() << " codes of " << a.q.numel();
  EXPECT_TRUE(at::equal(a.scale, b.scale));
  EXPECT_EQ(a.zero.defined(), b.zero.defined());
  if (a.zero.defined() && b.zero.defined()) {
    EXPECT_TRUE(at::equal(a.zero, b.zero));
  }
}

double output_loss(const at::Tensor& W, const QTensor& q, const at::Tensor& gram) {
  return gram_loss(q.dequantize() - W.to(at::kFloat), gram);
}

const std::vector<QSpec> kSpecs{{4, -1, true}, {4, -1, false}, {4, 32, true}, {3, 32, false},
                                {2, 24, true}, {8, 50, false}, {3, 200, true}, {3, 32, false, true}};

std::vector<GptqOptions> variants() {
  GptqOptions plain, small, order, clip;
  small.block = 17;
  order.act_order = true;
  clip.clip = ClipSearch{};
  return {plain, small, order, clip};
}

TEST_F(Gptq, WithIdentityGramEqualsRtn) {
  const at::Tensor W = weight_matrix(21, 200, 1);
  for (const QSpec& spec : kSpecs) {
    for (const GptqOptions& options : variants()) {
      const GptqResult r = gptq(W, at::eye(200) * 3, spec, options);
      if (options.clip) {
        expect_same(r.q, round_on(W, fit_grid(W, spec, options.clip), spec));
      } else {
        expect_same(r.q, rtn(W, spec));
      }
      EXPECT_NEAR(r.loss / (3 * (r.q.dequantize() - W).square().sum().item<double>()), 1, 1e-4);
    }
  }
}

TEST_F(Gptq, WithIdentityGramHasRtnsGridsForSixteenBitWeights) {
  for (auto dtype : {at::kBFloat16, at::kHalf}) {
    const at::Tensor W = weight_matrix(21, 200, 1).to(dtype);
    for (const QSpec& spec : kSpecs) {
      const QTensor q = gptq(W, at::eye(200), spec).q, plain = rtn(W, spec);
      expect_same(q, round_on(W, fit_grid(W, spec), spec));
      EXPECT_TRUE(at::equal(q.scale, plain.scale));
      EXPECT_LE((q.q.to(at::kInt) - plain.q.to(at::kInt)).abs().max().item<int>(), 1);
    }
  }
}

TEST_F(Gptq, WithoutAnyInputEqualsRtn) {
  const at::Tensor W = weight_matrix(9, 96, 2);
  for (const GptqOptions& options : {GptqOptions{}, variants()[2]}) {
    const GptqResult r = gptq(W, at::zeros({96, 96}), {4, 32, true}, options);
    expect_same(r.q, rtn(W, {4, 32, true}));
    EXPECT_EQ(r.dead, 96);
    EXPECT_EQ(r.loss, 0);
  }
}

// Gaussian elimination without pivots: H is positive definite.
std::vector<double> solve(std::vector<std::vector<double>> H, std::vector<double> b) {
  const size_t n = b.size();
  for (size_t p = 0; p < n; ++p) {
    for (size_t r = p + 1; r < n; ++r) {
      const double f = H[r][p] / H[p][p];
      for (size_t c = p; c < n; ++c) H[r][c] -= f * H[p][c];
      b[r] -= f * b[p];
    }
  }
  for (size_t p = n; p-- > 0;) {
    for (size_t c = p + 1; c < n; ++c) b[p] -= H[p][c] * b[c];
    b[p] /= H[p][p];
  }
  return b;
}

struct RowGrid {
  float scale = 0;
  double zero = 0;
};

RowGrid row_grid(const std::vector<double>& w, const QSpec& spec) {
  float low = 0, high = 0;
  for (double v : w) low = std::min(low, static_cast<float>(v)), high = std::max(high, static_cast<float>(v));
  const float steps = static_cast<float>(spec.qmax() - spec.qmin());
  if (spec.symmetric) return {std::max(-low, high) / (steps / 2), 0};
  const float scale = (high - low) / steps;
  return {scale, std::clamp<double>(std::nearbyint(spec.qmin() - low / scale), spec.qmin(), spec.qmax())};
}

struct ReferenceRow {
  std::vector<int> codes;
  std::vector<double> margin;  // distance of each quotient from the nearest place where its code changes
};

// One row by the definition: after each column, the values of all later ones that minimise d H d^T with the done ones fixed.
ReferenceRow reference_row(const std::vector<double>& w, const std::vector<std::vector<double>>& H, const std::vector<size_t>& order,
                           const QSpec& spec, bool fixed_grids) {
  const size_t K = w.size(), group = spec.group <= 0 ? K : static_cast<size_t>(spec.group);
  std::vector<RowGrid> grids((K + group - 1) / group);
  for (size_t g = 0; g < grids.size(); ++g) {
    const auto end = static_cast<int64_t>(std::min(K, (g + 1) * group));
    grids[g] = row_grid({w.begin() + static_cast<int64_t>(g * group), w.begin() + end}, spec);
  }
  ReferenceRow out{std::vector<int>(K), std::vector<double>(K)};
  std::vector<double> d(K, 0);
  for (size_t step = 0; step < K; ++step) {
    const std::vector<size_t> rest(order.begin() + static_cast<int64_t>(step), order.end());
    std::vector<std::vector<double>> part(rest.size(), std::vector<double>(rest.size()));
    std::vector<double> pull(rest.size(), 0);
    for (size_t a = 0; a < rest.size(); ++a) {
      for (size_t b = 0; b < rest.size(); ++b) part[a][b] = H[rest[a]][rest[b]];
      for (size_t done = 0; done < step; ++done) pull[a] -= d[order[done]] * H[order[done]][rest[a]];
    }
    const std::vector<double> move = solve(part, pull);
    const size_t j = rest[0];
    if (!fixed_grids && group < K && j % group == 0) {
      std::vector<double> now;
      for (size_t a = 0; a < std::min(group, rest.size()); ++a) now.push_back(w[rest[a]] + move[a]);
      grids[j / group] = row_grid(now, spec);
    }
    const RowGrid& g = grids[j / group];
    const double value = (w[j] + move[0]) / g.scale + g.zero;
    const double code = std::clamp<double>(std::nearbyint(value), spec.qmin(), spec.qmax());
    out.codes[j] = static_cast<int>(code);
    out.margin[j] = std::abs(value - std::floor(value) - 0.5);
    d[j] = (code - g.zero) * g.scale - w[j];
  }
  return out;
}

std::vector<std::vector<double>> damped_matrix(const at::Tensor& gram, double damp) {
  const int64_t K = gram.size(0);
  const double mean = gram.diagonal().to(at::kDouble).mean().item<double>();
  std::vector<std::vector<double>> H(static_cast<size_t>(K), std::vector<double>(static_cast<size_t>(K)));
  for (int64_t i = 0; i < K; ++i) {
    for (int64_t j = 0; j < K; ++j) {
      H[static_cast<size_t>(i)][static_cast<size_t>(j)] = gram[i][j].item<double>() + (i == j ? damp * mean : 0);
    }
  }
  return H;
}

struct Agreement {
  int64_t rows = 0, ties = 0, wrong = 0;
};

// A row agrees when its codes are equal up to a column whose quotient is a tie (the extreme weight of a symmetric group is one by
// construction: max|w| / scale = 7.5), which fp32 and double may resolve differently and after which both go their own way.
void compare(const at::Tensor& W, const at::Tensor& codes, const std::vector<std::vector<double>>& H, const std::vector<size_t>& order,
             const QSpec& spec, bool fixed_grids, Agreement& sum) {
  for (int64_t n = 0; n < W.size(0); ++n, ++sum.rows) {
    const float* w = W[n].const_data_ptr<float>();
    const ReferenceRow expected = reference_row({w, w + W.size(1)}, H, order, spec, fixed_grids);
    for (size_t j : order) {
      if (codes[n][static_cast<int64_t>(j)].item<int>() == expected.codes[j]) continue;
      ++(expected.margin[j] < 1e-5 ? sum.ties : sum.wrong);
      break;
    }
  }
}

TEST_F(Gptq, AgreesWithTheConditionalOptimumSolvedForEveryColumn) {
  constexpr int64_t N = 8, K = 40;
  Agreement sum;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const at::Tensor W = weight_matrix(N, K, seed).contiguous(), gram = gram_of(activations(seed % 2 ? 24 : 100, K, seed + 50));
    const std::vector<std::vector<double>> H = damped_matrix(gram, 0.01);
    std::vector<size_t> plain(K);
    std::iota(plain.begin(), plain.end(), size_t{0});
    std::vector<size_t> falling = plain;
    std::stable_sort(falling.begin(), falling.end(), [&](size_t a, size_t b) { return H[a][a] > H[b][b]; });
    for (const QSpec& spec : {QSpec{4, -1, true}, QSpec{3, -1, false}, QSpec{3, 8, true}, QSpec{4, 12, false}, QSpec{2, 16, false}}) {
      for (bool act_order : {false, true}) {
        for (int64_t block : {int64_t{128}, int64_t{16}, int64_t{5}}) {
          GptqOptions options;
          options.block = block;
          options.act_order = act_order;
          compare(W, gptq(W, gram, spec, options).q.q, H, act_order ? falling : plain, spec, act_order, sum);
        }
      }
    }
  }
  RecordProperty("rows", std::to_string(sum.rows));
  RecordProperty("ties", std::to_string(sum.ties));
  EXPECT_EQ(sum.wrong, 0) << "of " << sum.rows;
  EXPECT_LT(sum.ties, sum.rows / 50);
}

TEST_F(Gptq, LosesLessThanRtnOnEveryCorrelatedGram) {
  double worst = 0, sum = 0, sum2 = 0;
  int count = 0, count2 = 0;
  for (uint64_t seed = 0; seed < 24; ++seed) {
    const at::Tensor W = weight_matrix(32, 128, seed), gram = gram_of(activations(seed % 3 ? 400 : 64, 128, seed + 100));
    for (const QSpec& spec : kSpecs) {
      if (spec.group > 128) continue;
      const double plain = output_loss(W, rtn(W, spec), gram);
      for (bool act_order : {false, true}) {
        GptqOptions options;
        options.act_order = act_order;
        const double ratio = output_loss(W, gptq(W, gram, spec, options).q, gram) / plain;
        // Two symmetric bits clip a third of the range on one side; there it holds on average only.
        if (spec.bits > 2) worst = std::max(worst, ratio);
        (spec.bits > 2 ? sum : sum2) += ratio;
        ++(spec.bits > 2 ? count : count2);
      }
    }
  }
  RecordProperty("worst", std::to_string(worst));
  RecordProperty("mean", std::to_string(sum / count));
  RecordProperty("mean_2_bits", std::to_string(sum2 / count2));
  EXPECT_LT(worst, 1);
  EXPECT_LT(sum / count, 0.3);
  EXPECT_LT(sum2 / count2, 0.8);
}

TEST_F(Gptq, ThreadsDoNotChangeAnything) {
  const at::Tensor W = weight_matrix(600, 700, 3), gram = gram_of(activations(300, 700, 4));
  const int threads = num_threads();
  set_num_threads(1);
  const GptqResult one = gptq(W, gram, {4, 32, false});
  for (int t : {2, 3}) {
    set_num_threads(t);
    const GptqResult many = gptq(W, gram, {4, 32, false});
    expect_same(one.q, many.q);
    EXPECT_EQ(one.loss, many.loss);
  }
  set_num_threads(threads);
}

TEST_F(Gptq, ReportsTheLossThatItsResultHas) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const at::Tensor W = weight_matrix(40, 96, seed), gram = gram_of(activations(300, 96, seed + 7));
    for (const GptqOptions& options : variants()) {
      const GptqResult r = gptq(W, gram, {3, 32, false}, options);
      EXPECT_NEAR(r.loss / output_loss(W, r.q, gram), 1, 1e-3);
    }
  }
}

TEST_F(Gptq, DoesNotDependOnTheOrderOfRows) {
  const at::Tensor W = weight_matrix(50, 160, 3), gram = gram_of(activations(300, 160, 4));
  const at::Tensor backwards = at::flip(W, {0});
  for (const GptqOptions& options : variants()) {
    const QTensor a = gptq(W, gram, {4, 48, false}, options).q, b = gptq(backwards, gram, {4, 48, false}, options).q;
    EXPECT_TRUE(at::equal(a.q, at::flip(b.q, {0})));
    EXPECT_TRUE(at::equal(a.zero, at::flip(b.zero, {0})));
    EXPECT_LT((a.scale - at::flip(b.scale, {0})).abs().max().item<double>(), 1e-7);
  }
}

TEST_F(Gptq, GramOfEqualAffinitiesEqualsThePlainGram) {
  const at::Tensor W = weight_matrix(24, 128, 5), x = activations(200, 128, 6);
  const GptqResult plain = gptq(W, gram_of(x), {4, 32, true});
  expect_same(gptq(W, gram_of(x, at::zeros({200}).fill_(0.25)), {4, 32, true}).q, plain.q);
  const GptqResult third = gptq(W, gram_of(x, at::zeros({200}).fill_(0.3)), {4, -1, true});
  expect_same(third.q, gptq(W, gram_of(x), {4, -1, true}).q);
}

TEST_F(Gptq, EachOfWeightedAndPlainIsBestAtItsOwnLoss) {
  double own_weighted = 0, own_plain = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const at::Tensor W = weight_matrix(32, 128, seed), x = activations(256, 128, seed + 30);
    const at::Tensor c = normal_matrix(1, 256, seed + 60)[0].mul(2).exp();
    const at::Tensor weighted = gram_of(x, c), plain = gram_of(x);
    const QTensor qw = gptq(W, weighted, {4, -1, true}).q, qp = gptq(W, plain, {4, -1, true}).q;
    own_weighted += output_loss(W, qw, weighted) / output_loss(W, qp, weighted);
    own_plain += output_loss(W, qp, plain) / output_loss(W, qw, plain);
  }
  RecordProperty("weighted", std::to_string(own_weighted / 12));
  RecordProperty("plain", std::to_string(own_plain / 12));
  EXPECT_LT(own_weighted / 12, 1);
  EXPECT_LT(own_plain / 12, 1);
}

TEST_F(Gptq, DeadColumnsKeepTheirRoundedValueAndDisturbNothing) {
  const at::Tensor W = weight_matrix(16, 64, 8);
  at::Tensor x = activations(200, 64, 9);
  x.slice(1, 10, 13).zero_();
  const GptqResult r = gptq(W, gram_of(x), {4, -1, true});
  EXPECT_EQ(r.dead, 3);
  EXPECT_TRUE(at::equal(r.q.q.slice(1, 10, 13), rtn(W, {4, -1, true}).q.slice(1, 10, 13)));
  EXPECT_NEAR(r.loss / output_loss(W, r.q, gram_of(x)), 1, 1e-3);
}

TEST_F(Gptq, DampingGrowsUntilTheGramFactors) {
  // Rounding errors of a sum in 16 bits leave small negative eigenvalues; a damping far below them must grow.
  const at::Tensor W = weight_matrix(16, 96, 10);
  at::Tensor gram = gram_of(activations(8, 96, 11)).to(at::kBFloat16).to(at::kFloat);
  GptqOptions options;
  options.damp = 1e-8;
  const GptqResult r = gptq(W, gram, {4, -1, true}, options);
  EXPECT_GT(r.damp, 1e-7);
  EXPECT_LT(r.damp, 1);
  EXPECT_LE(r.q.q.to(at::kInt).abs().max().item<int>(), 8);
  EXPECT_EQ(gptq(W, gram_of(activations(300, 96, 11)), {4, -1, true}).damp, 0.01);
}

TEST_F(Gptq, FactorMultipliesBackToTheDampedGram) {
  for (int64_t K : {int64_t{1}, int64_t{255}, int64_t{256}, int64_t{257}, int64_t{600}}) {
    at::Tensor x = activations(2 * K, K, 14);
    if (K > 1) x.select(1, K / 2).zero_();
    const at::Tensor gram = gram_of(x);
    for (bool act_order : {false, true}) {
      GptqOptions options;
      options.act_order = act_order;
      const GptqFactor f = gptq_factor(gram, options);
      const at::Tensor R = f.unit.to(at::kDouble) * f.diagonal;
      at::Tensor expected = gram.to(at::kDouble);
      if (act_order) expected = expected.index_select(0, f.order).index_select(1, f.order);
      expected = expected + at::diag_embed(f.added);
      EXPECT_LT((at::matmul(R, R.t()) - expected).abs().max().item<double>() / expected.abs().max().item<double>(), 1e-6) << K;
      EXPECT_EQ(f.unit.tril(-1).abs().max().item<double>(), 0);
      EXPECT_LT((f.unit.diagonal() - 1).abs().max().item<double>(), 1e-7);
    }
  }
}

TEST_F(Gptq, FactorIsSharedByLayersOfOneInput) {
  const at::Tensor gram = gram_of(activations(200, 64, 12)), W = weight_matrix(30, 64, 13);
  const GptqFactor factor = gptq_factor(gram);
  const QSpec spec{4, 16, true};
  const QTensor all = gptq(W, gram, spec).q;
  EXPECT_TRUE(at::equal(gptq(W.slice(0, 0, 10), factor, spec).q.q, all.q.slice(0, 0, 10)));
  EXPECT_TRUE(at::equal(gptq(W.slice(0, 10, 30), factor, spec).q.q, all.q.slice(0, 10, 30)));
}

TEST_F(Gptq, RefusesGramsThatAreNoneAndBadOptions) {
  const at::Tensor W = weight_matrix(4, 8, 1);
  at::Tensor gram = at::eye(8);
  gram[2][3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(gptq(W, gram, {4, -1, true}), Error);
  EXPECT_THROW(gptq(W, at::eye(8) * -1, {4, -1, true}), Error);
  EXPECT_THROW(gptq(W, at::eye(9), {4, -1, true}), Bug);
  GptqOptions none;
  none.damp = 0;
  EXPECT_THROW(gptq(W, at::eye(8), {4, -1, true}, none), Error);
  EXPECT_THROW(gptq(W, at::eye(8), {1, -1, true}), Error);
}

}  // namespace
}  // namespace statera
