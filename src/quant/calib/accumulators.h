// What steps gather at a linear layer while a block runs over the samples. All sums are taken sample by sample in order, over tiles of
// fixed size, so results depend on neither threads nor batches. K: input width of the layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>

#include "nn/gram.h"
#include "quant/recipe.h"

namespace statera {

// Layers that read the same tensor (q, k, v; gate, up) share one gram. One pool serves the layers of a phase; it keeps the last input
// alive, so that equal addresses mean equal tensors.
class GramPool {
 public:
  // The gram of x: that of the layer called just before when it read the same tensor, else nullptr.
  std::shared_ptr<Gram> shared(const at::Tensor& x_TK) const;
  void remember(const at::Tensor& x_TK, std::shared_ptr<Gram> gram);

 private:
  at::Tensor x_;
  std::shared_ptr<Gram> gram_;
};

class GramAccumulator : public Accumulator {
 public:
  // weighted: rows count by Pass::row_weight where it is defined.
  explicit GramAccumulator(std::shared_ptr<GramPool> pool, bool weighted = false) : pool_(std::move(pool)), weighted_(weighted) {}
  void add(const at::Tensor& x_TK, const Pass& pass) override;
  // nullptr before the first row.
  const std::shared_ptr<Gram>& gram() const { return gram_; }

 private:
  std::shared_ptr<GramPool> pool_;
  std::shared_ptr<Gram> gram_;
  bool weighted_, owner_ = false;
};

// Largest |x| of each input channel. f32 [K]
class AbsMaxAccumulator : public Accumulator {
 public:
  void add(const at::Tensor& x_TK, const Pass& pass) override;
  const at::Tensor& value() const { return max_K_; }  // undefined before the first row

 private:
  at::Tensor max_K_;
};

// About `limit` rows of the layer's input with their token kinds. Of each kind every so manieth row in the order of the samples is kept,
// so that kinds and samples keep their shares; the same for any batching. 0: all rows.
class InputKeeper : public Accumulator {
 public:
  InputKeeper(int64_t limit, int64_t expected_rows, uint64_t seed);  // the seed decides where counting begins
  void add(const at::Tensor& x_TK, const Pass& pass) override;
  at::Tensor rows() const;   // f32 [R, K]
  at::Tensor kinds() const;  // i8 [R]

 private:
  double share_;                       // of rows that are kept
  std::array<double, 3> owed_;         // by kind: rows owed so far; a whole one is taken
  std::vector<at::Tensor> parts_, kinds_;
};

}  // namespace statera
