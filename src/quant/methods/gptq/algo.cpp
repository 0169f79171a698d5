// The factor of a gram and the sweep over columns. Weights are held transposed ([K, N]: a column of W is a contiguous row), D = dequantized
// - W of the columns done. Three levels: panels of `block` columns get the sum over all earlier columns from one product, tiles of
// kTile columns that over the panel's, single columns that over the tile's. Rows do not depend on each other: chunks of kRows of them run
// in parallel, each with one thread of ATen, so that the number of threads changes nothing.
#include "quant/methods/gptq/algo.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmv.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/where.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/error.h"
#include "base/threads.h"

namespace statera {
namespace {

constexpr int64_t kTile = 32, kRows = 256;

// What a chunk of rows gives.
struct Piece {
  at::Tensor q, scale, zero;
  double loss = 0;
};

// R in the upper triangle of a symmetric matrix, in its place, with A = R R^T: columns from the last to the first, blocks of rows spread over
// our threads. Neither reads nor writes below the diagonal. False: not positive definite.
bool factor_upper(const at::Tensor& A_KK) {
  constexpr int64_t kBlock = 256;
  const int64_t K = A_KK.size(0);
  for (int64_t begin, end = K; end > 0; end = begin) {
    begin = std::max<int64_t>(0, end - kBlock);
    at::Tensor corner = A_KK.slice(0, begin, end).slice(1, begin, end);
    auto [L, info] = at::linalg_cholesky_ex(corner.flip({0, 1}));  // read backwards, the upper triangle is the lower one
    if (info.item<int>() != 0 || !at::isfinite(L.diagonal()).all().item<bool>()) return false;
    const at::Tensor R = L.flip({0, 1});
    corner.copy_(corner.tril(-1).add_(R));
    const int64_t blocks = (begin + kBlock - 1) / kBlock;
    auto rows = [&](int64_t i, int64_t columns_from, int64_t columns_to) {
      return A_KK.slice(0, i * kBlock, std::min(begin, (i + 1) * kBlock)).slice(1, columns_from, columns_to);
    };
    parallel_for(blocks, 1, [&](int64_t first, int64_t last) {
      c10::InferenceMode mode;
      for (int64_t i = first; i < last; ++i) {
        at::Tensor panel = rows(i, begin, end);
        panel.copy_(at::linalg_solve_triangular(R.t(), panel, /*upper=*/false, /*left=*/false));
      }
    });
    parallel_for(blocks, 1, [&](int64_t first, int64_t last) {
      c10::InferenceMode mode;
      for (int64_t i = first; i < last; ++i) {
        const int64_t from = i * kBlock;
        rows(i, from, begin).addmm_(rows(i, begin, end), A_KK.slice(0, from, begin).slice(1, begin, end).t(), 1, -1);
      }
    });
  }
  return true;
}

// The symmetric matrix with this diagonal and what lies below A's.
at::Tensor from_below(const at::Tensor& A_KK, const at::Tensor& diagonal_K) {
  at::Tensor below = A_KK.to(at::kDouble).tril_(-1);
  below.add_(below.t().clone());
  below.diagonal().copy_(diagonal_K);
  return below;
}

// Row by row, so that no copy of a large matrix is made.
bool finite(const at::Tensor& A_KK) {
  std::atomic<bool> all = true;
  parallel_for(A_KK.size(0), 64, [&](int64_t begin, int64_t end) {
    c10::InferenceMode mode;
    if (!at::isfinite(A_KK.slice(0, begin, end)).all().item<bool>()) all = false;
  });
  return all;
}

class Sweep {
 public:
  Sweep(const at::Tensor& W_NK, const GptqFactor& factor, const QSpec& spec, const GptqOptions& options)
      : f_(factor), spec_(spec), options_(options), dtype_(W_NK.scalar_type()), N_(W_NK.size(0)), K_(W_NK.size(1)) {
    group_ = spec.group <= 0 ? K_ : std::min(spec.group, K_);
    whole_grid_ = group_ == K_ || options.act_order;
    W_KN_ = W_NK.to(at::kFloat).t();
    W_KN_ = f_.order.defined() ? W_KN_.index_select(0, f_.order) : W_KN_.contiguous();
    D_KN_ = at::empty({K_, N_}, W_KN_.options());
    q_KN_ = at::empty({K_, N_}, W_KN_.options().dtype(at::kChar));
    error_K_ = at::empty({K_}, W_KN_.options().dtype(at::kDouble));
    if (whole_grid_) add_grid(fit_grid(W_NK, spec, options.clip));
    const int64_t* order = f_.order.defined() ? f_.order.const_data_ptr<int64_t>() : nullptr;
    for (int64_t j = 0; j < K_; ++j) group_of_.push_back((order ? order[j] : j) / group_);
  }

  void run() {
    // Panels begin at groups, so that a group's grid sees all columns before it.
    const int64_t panel = whole_grid_ ? options_.block : std::max(group_, options_.block / group_ * group_);
    for (int64_t begin = 0; begin < K_; begin += panel) run_panel(begin, std::min(begin + panel, K_));
  }

  Piece result() const {
    at::Tensor q = q_KN_;
    if (f_.order.defined()) q = at::empty_like(q_KN_).index_copy_(0, f_.order, q_KN_);
    // |dW R|^2 holds what was added to the gram's diagonal; without it the loss is the caller's.
    at::Tensor damped = (error_K_ * f_.diagonal * f_.diagonal).sum();
    at::Tensor added = (D_KN_.square().sum(1).to(at::kDouble) * f_.added).sum();
    return {q.t().contiguous(), at::cat(scales_, 1), zeros_.empty() ? at::Tensor() : at::cat(zeros_, 1), (damped - added).item<double>()};
  }

 private:
  void add_grid(const WeightGrid& grid) {
    scales_.push_back(grid.scale);
    for (const at::Tensor& s : grid.scale.to(at::kFloat).t().contiguous().unbind(0)) scale_rows_.push_back(s);
    if (!grid.zero.defined()) return;
    zeros_.push_back(grid.zero);
    for (const at::Tensor& z : grid.zero.to(at::kFloat).t().contiguous().unbind(0)) zero_rows_.push_back(z);
  }

  // target = target - sum over columns [from, to) of their error's effect on columns [begin, end).
  void take_off(at::Tensor target, int64_t from, int64_t to, int64_t begin, int64_t end) const {
    if (from == to) return;
    target.addmm_(f_.unit.slice(0, from, to).slice(1, begin, end).t(), D_KN_.slice(0, from, to), 1, -1);
  }

  // The grid of the group that begins at column `begin`, from its best values given all columns before; best = W - (effect of those on
  // it, panel's part included) carried through the group by the unit triangle.
  void fit_group(int64_t begin, const at::Tensor& target_KN, int64_t panel) {
    const int64_t end = std::min(begin + group_, K_);
    at::Tensor now = target_KN.slice(0, begin - panel, end - panel).clone();
    take_off(now, panel, begin, begin, end);
    at::Tensor W = W_KN_.slice(0, begin, end);
    at::Tensor square = f_.unit.slice(0, begin, end).slice(1, begin, end).t();
    at::Tensor best = W + at::linalg_solve_triangular(square, now - W, false, true, true);
    add_grid(fit_grid(best.t().to(dtype_).contiguous(), spec_.whole_rows(), options_.clip));
  }

  void run_panel(int64_t begin, int64_t end) {
    at::Tensor target = W_KN_.slice(0, begin, end).clone();  // best value of each column given the columns before the panel
    take_off(target, 0, begin, begin, end);
    at::Tensor residual = at::empty_like(target);
    for (int64_t tile = begin; tile < end;) {
      if (!whole_grid_ && tile % group_ == 0) fit_group(tile, target, begin);
      int64_t tile_end = std::min(tile + kTile, end);
      if (!whole_grid_) tile_end = std::min(tile_end, (tile / group_ + 1) * group_);
      take_off(target.slice(0, tile - begin, tile_end - begin), begin, tile, tile, tile_end);
      for (int64_t j = tile; j < tile_end; ++j) round_column(j, tile, target[j - begin], residual[j - begin]);
      tile = tile_end;
    }
    error_K_.slice(0, begin, end).copy_(residual.square_().sum(1));
  }

  void round_column(int64_t j, int64_t tile, const at::Tensor& target_N, at::Tensor residual_N) {
    at::Tensor best = target_N;
    if (j > tile) best = at::addmv(target_N, D_KN_.slice(0, tile, j).t(), f_.unit.select(1, j).slice(0, tile, j), 1, -1);
    const auto g = static_cast<size_t>(group_of_[static_cast<size_t>(j)]);
    const at::Tensor zero = zero_rows_.empty() ? at::Tensor() : zero_rows_[g];
    at::Tensor code = nearest_codes(best, scale_rows_[g], zero, spec_);
    q_KN_[j].copy_(code);
    if (zero.defined()) code.sub_(zero);
    code.mul_(scale_rows_[g]);
    residual_N.copy_(code).sub_(best);
    D_KN_[j].copy_(code).sub_(W_KN_[j]);
  }

  const GptqFactor& f_;
  QSpec spec_;
  GptqOptions options_;
  at::ScalarType dtype_;
  int64_t N_, K_, group_ = 0;
  bool whole_grid_ = false;  // all grids from W, before the sweep
  at::Tensor W_KN_, D_KN_, q_KN_, error_K_;
  std::vector<int64_t> group_of_;                   // by step
  std::vector<at::Tensor> scales_, zeros_;          // [N, groups] pieces of the result
  std::vector<at::Tensor> scale_rows_, zero_rows_;  // f32 [N] of each group
};

}  // namespace

GptqFactor gptq_factor(const at::Tensor& gram_KK, const GptqOptions& options) {
  return gptq_factor_in_place(gram_KK.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true), options);
}

GptqFactor gptq_factor_in_place(at::Tensor gram, const GptqOptions& options) {
  check(gram.dim() == 2 && gram.size(0) == gram.size(1) && gram.size(0) > 0 && gram.scalar_type() == at::kFloat, "a gram is square, in fp32");
  if (!(options.damp > 0) || options.block < 1) throw Error(ErrorKind::usage, "gptq needs damp > 0 and block >= 1");
  at::Tensor diagonal = gram.diagonal().to(at::kDouble);
  if (!finite(gram) || diagonal.min().item<double>() < 0) {
    throw Error(ErrorKind::bad_file, "the gram of the calibration data holds NaN, infinity or a negative diagonal");
  }
  GptqFactor f;
  if (options.act_order) {
    f.order = at::argsort(diagonal, /*stable=*/true, 0, /*descending=*/true);
    gram = gram.index_select(0, f.order).index_select(1, f.order);
    diagonal = diagonal.index_select(0, f.order);
  }
  const at::Tensor dead = diagonal == 0;
  f.dead = dead.sum().item<int64_t>();
  const int64_t live = diagonal.size(0) - f.dead;
  const double mean = live > 0 ? diagonal.sum().item<double>() / static_cast<double>(live) : 1;
  at::Tensor R = gram;
  for (f.damp = options.damp;; f.damp *= 10) {
    check(f.damp < 1e6, "a positive diagonal this heavy always factors");
    f.added = at::where(dead, at::full_like(diagonal, mean), at::full_like(diagonal, f.damp * mean));
    R.diagonal().copy_(diagonal + f.added);
    if (factor_upper(R)) break;
    R = from_below(gram, diagonal + f.added);
    if (factor_upper(R)) break;
    R = from_below(gram, diagonal).to(at::kFloat);  // for the next damping
  }
  f.diagonal = R.diagonal().to(at::kDouble);
  f.unit = R.triu_().div_(R.diagonal().clone()).to(at::kFloat);
  return f;
}

GptqResult gptq(const at::Tensor& W_NK, const GptqFactor& factor, const QSpec& spec, const GptqOptions& options) {
  check(W_NK.dim() == 2 && factor.unit.size(0) == W_NK.size(1), "the gram belongs to another input");
  check(factor.order.defined() == options.act_order, "factor and options disagree on act_order");
  check_spec(spec, W_NK.size(1));
  if (options.block < 1) throw Error(ErrorKind::usage, "gptq needs block >= 1");
  const int64_t N = W_NK.size(0);
  std::vector<Piece> pieces(static_cast<size_t>((N + kRows - 1) / kRows));
  parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    c10::InferenceMode mode;
    for (int64_t i = begin; i < end; ++i) {
      Sweep sweep(W_NK.slice(0, i * kRows, std::min((i + 1) * kRows, N)), factor, spec, options);
      sweep.run();
      pieces[static_cast<size_t>(i)] = sweep.result();
    }
  });
  std::vector<at::Tensor> q, scale, zero;
  GptqResult out;
  for (const Piece& piece : pieces) {
    q.push_back(piece.q);
    scale.push_back(piece.scale);
    if (piece.zero.defined()) zero.push_back(piece.zero);
    out.loss += piece.loss;
  }
  out.q = {spec, at::cat(q), at::cat(scale), zero.empty() ? at::Tensor() : at::cat(zero)};
  out.loss = std::max(0.0, out.loss);
  out.damp = factor.damp;
  out.dead = factor.dead;
  return out;
}

GptqResult gptq(const at::Tensor& W_NK, const at::Tensor& gram_KK, const QSpec& spec, const GptqOptions& options) {
  return gptq(W_NK, gptq_factor(gram_KK, options), spec, options);
}

}  // namespace statera
