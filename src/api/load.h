// load: how a checkpoint is opened for use. No torch here; the opened model itself is seen by the .cpp files of api/ (loaded.h).
#pragma once

#include <string>
#include <string_view>

namespace statera {

struct LoadOptions {
  std::string dtype = "fp32";  // of activations: "fp32", "bf16", "fp16"; weights keep the precision they are stored in
  std::string compute = "exact";  // "exact", "int8", "auto": nn/compute.h
  std::string vision_attention = "exact";  // "exact", "int8", "auto": nn/compute.h
  bool own_head = false;  // a head that is tied to the embedding as a layer of its own, for sources that round it as it is read
  template <class V>
  void fields(V& v) {
    v("dtype", dtype, "of activations: fp32, bf16 or fp16; weights keep their stored precision");
    v("compute", compute, "how low-bit weights meet activations: exact, int8 (rounded to 8 bits, products in integers), or auto: int8 for layers that can");
    v("vision_attention", vision_attention, "how patches of a picture attend to each other: exact, int8 (rounded to 8 bits, both products in integers), or auto: int8 where layers of the tower compute in integers, too");
  }
};

}  // namespace statera
