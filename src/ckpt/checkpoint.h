// Checkpoint: one Hugging Face checkpoint directory: its configs and every tensor of its safetensors files by name, opened lazily.
// Knows no model and no internal names (checkpoint_source.h), decodes no quantization (format.h), never loads a pickle.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "ckpt/safetensors.h"

namespace statera {

// "weight_map" of a model.safetensors.index.json: (tensor, shard file name). Refuses names that are absolute or leave the folder.
std::vector<std::pair<std::string, std::string>> parse_shard_index(const Json& index, std::string_view where);

// Copyable handle. Safe to read from several threads.
class Checkpoint {
 public:
  // Error(not_found) for no such directory, no config.json or no weights; Error(unsupported) for pickled weights;
  // Error(bad_file) for missing shards, tensors that the index lists and no shard holds, and tensors that stand in two shards.
  static Checkpoint open(const std::string& directory);

  const std::string& directory() const;
  const Json& config() const;
  // generation_config.json; null when absent.
  const Json& generation_config() const;
  // quantization_config of config.json (also where older writers put it); nullptr when there is none.
  const Json* quantization_config() const;

  const std::vector<SafetensorsFile>& files() const;
  // All tensor names, sorted.
  const std::vector<std::string>& names() const;
  const TensorInfo* find(std::string_view name) const;  // nullptr when absent. O(1)
  bool has(std::string_view name) const { return find(name) != nullptr; }
  // File that holds a tensor; the name must exist.
  const SafetensorsFile& file_of(std::string_view name) const;
  // A view of the mapped file; records the tensor as used. Error(bad_file) naming the directory when absent.
  at::Tensor tensor(std::string_view name) const;
  // The same, and Error(bad_file) when its shape differs.
  at::Tensor tensor(std::string_view name, const std::vector<int64_t>& shape) const;
  // Drops resident pages of a tensor.
  void release(std::string_view name) const;
  // The same files under another config, with more tensors: (new name, name of the tensor, which must exist, whose bytes it has).
  Checkpoint with_config(Json config, const std::vector<std::pair<std::string, std::string>>& aliases = {}) const;
  // Tensors that with_config added; in names(), in no file's list.
  const std::vector<TensorInfo>& aliases() const;
  // Bytes of all tensors in files.
  uint64_t bytes() const;
  bool used(std::string_view name) const;
  void mark_used(std::string_view name) const;
  // "DIR/model-00001-of-00002.safetensors: tensor NAME" (or "DIR: tensor NAME" when no file holds it): how errors begin.
  std::string place(std::string_view name) const;

 private:
  struct State;
  std::shared_ptr<State> s_;
};

}  // namespace statera
