// load: how a checkpoint is opened for use. No torch here; the opened model itself is seen by the .cpp files of api/ (loaded.h).
#pragma once

#include <string>
#include <string_view>

namespace statera {

struct LoadOptions {
  std::string dtype;  // of activations: "fp32", "bf16", "fp16"; empty: the checkpoint's own
  template <class V>
  void fields(V& v) {
    v("dtype", dtype, "of activations: fp32, bf16 or fp16; the checkpoint's when not given");
  }
};

}  // namespace statera
