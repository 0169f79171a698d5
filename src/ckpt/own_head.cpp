// See own_head.h.
#include "ckpt/own_head.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "ckpt/checkpoint_source.h"

namespace statera {
namespace {

bool same_bytes(const Checkpoint& checkpoint, const std::string& a, const std::string& b) {
  const TensorInfo &one = *checkpoint.find(a), &other = *checkpoint.find(b);
  if (one.type != other.type || one.bytes != other.bytes) return false;
  const std::byte *x = checkpoint.file_of(a).mapping().data() + one.offset, *y = checkpoint.file_of(b).mapping().data() + other.offset;
  return std::memcmp(x, y, one.bytes) == 0;
}

}  // namespace

Json untied(Json config) {
  config.set("tie_word_embeddings", false);
  for (const char* part : {"text_config", "llm_config"}) {
    if (Json* text = config.find(part); text && text->is_object()) text->set("tie_word_embeddings", false);
  }
  return config;
}

Checkpoint with_own_head(const Checkpoint& checkpoint, const ModelType& type) {
  const CheckpointSource source(checkpoint, type);
  const auto has = [&](const std::string& name) { return source.has(name); };
  const auto with = [&](const Json& config) { return expected_parameters(type, config, has); };
  const std::vector<Expected> tied = with(checkpoint.config());
  Json config = untied(checkpoint.config());
  for (const Expected& head : with(config)) {
    const auto same = [&](const Expected& e) { return e.name == head.name; };
    if (!head.linear || std::any_of(tied.begin(), tied.end(), same)) continue;
    const auto embedding = std::find_if(tied.begin(), tied.end(), [&](const Expected& e) { return !e.linear && e.shape == head.shape; });
    check(embedding != tied.end(), "a tied head without an embedding: " + head.name);
    const std::string from = source.disk_tensor(embedding->name), name = source.disk_tensor(head.name);
    if (!checkpoint.has(from)) throw Error(ErrorKind::bad_file, checkpoint.place(from) + ": missing");
    if (!checkpoint.has(name)) return checkpoint.with_config(std::move(config), {{name, from}});
    // Some releases store the tied head, too, which readers pass over.
    if (!same_bytes(checkpoint, name, from)) throw Error(ErrorKind::bad_file, checkpoint.place(name) + ": differs from " + from + ", to which the config ties it");
    return checkpoint.with_config(std::move(config));
  }
  return checkpoint;
}

}  // namespace statera
