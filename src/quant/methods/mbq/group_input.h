// GroupInput: what is gathered of the input of a scale group: mean |x| over all rows, and rows to try candidates on, or their gram.
#pragma once

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "quant/calib/accumulators.h"
#include "quant/methods/mbq/search_step.h"

namespace statera {

// A piece of a group's input: rows of any samples, or one sample with its pass.
struct InputPart {
  at::Tensor x_TK, kinds_T;
  Pass pass;
};

// The same rows are kept of two runs over the same samples, as long as every row reaches the group.
class GroupInput : public Accumulator {
 public:
  // sequences: whole samples with their passes. gram_allowed: in place of rows where it is the cheaper one. s must outlive this.
  GroupInput(const ScaleSearch& s, bool sequences, bool gram_allowed) : settings_(s), sequences_(sequences), gram_allowed_(gram_allowed) {}
  void add(const at::Tensor& x_TK, const Pass& pass) override;
  int64_t rows() const { return rows_; }
  // f32 [K]; after the first row.
  at::Tensor mean_abs() const { return (sum_K_ / static_cast<double>(rows_)).to(at::kFloat); }
  std::vector<InputPart> take_parts();
  std::unique_ptr<Gram> gram;  // nullptr where rows are kept

 private:
  void begin(int64_t width);
  void add_sequence(const at::Tensor& x_TK, const Pass& pass);
  const ScaleSearch& settings_;
  bool sequences_, gram_allowed_;
  at::Tensor sum_K_;
  int64_t rows_ = 0;
  std::unique_ptr<InputKeeper> keeper_;
  std::array<std::pair<double, double>, 2> tokens_{};  // seen and kept, of samples without and with pictures
  std::vector<InputPart> parts_;
};

}  // namespace statera
