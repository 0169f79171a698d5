// bench_model: the model that a benchmark runs and the inputs it is given: tokens and pixels drawn from the seed, so no tokenizer and no
// processor is needed. For the .cpp files of api/ only: includes torch.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "api/bench.h"
#include "api/loaded.h"
#include "image/patchify.h"

namespace statera {

struct BenchModel {
  Loaded loaded;  // the checkpoint of random weights is empty
  std::string name, precision;
  bool random = false;
};
// Error(usage) for options that do not fit each other or the model; memory when drawn weights would not fit; and open_model's.
BenchModel open_bench_model(const BenchOptions& options);

// A picture of random pixels and the prompt around it.
struct BenchPicture {
  at::Tensor pixels;  // u8 [H, W, 3]
  PatchLayout layout;
  std::vector<int64_t> ids;
  int64_t patches = 0, tokens = 0;  // tokens: of the picture alone
  std::string size() const;         // "448x448"
  // The inputs, patches made anew.
  ModelInputs inputs() const;
};

class BenchInputs {
 public:
  BenchInputs(const Model& model, const BenchOptions& options);
  // pp tokens, none a placeholder of a picture.
  ModelInputs text() const;
  const std::optional<BenchPicture>& picture() const { return picture_; }

 private:
  std::vector<int64_t> draw(int64_t count, uint64_t stream) const;
  const Model& model_;
  const BenchOptions& options_;
  std::vector<int64_t> words_;  // ids that are text
  std::optional<BenchPicture> picture_;
};

}  // namespace statera
