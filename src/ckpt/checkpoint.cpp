// Finding and cross-checking the files of a checkpoint directory.
#include "ckpt/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// A shard lies in the checkpoint's folder or below it.
void check_shard_name(const std::string& name, std::string_view where) {
  if (name.empty()) throw Error(ErrorKind::bad_file, std::string(where) + ": empty shard name");
  const std::filesystem::path path(name);
  bool bad = path.is_absolute() || name.find('\0') != name.npos || name.find('\\') != name.npos;
  for (const auto& part : path) bad |= part == "..";
  if (bad) throw Error(ErrorKind::denied, std::string(where) + ": shard \"" + name + "\" lies outside the checkpoint");
}

[[noreturn]] void no_weights(const std::string& dir) {
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth", "model.ckpt.index", "tf_model.h5"}) {
    if (is_file(dir + "/" + name)) {
      throw Error(ErrorKind::unsupported, dir + ": the weights are in " + name +
                                              " only; that format can run code when it is loaded: convert the checkpoint to safetensors");
    }
  }
  throw Error(ErrorKind::not_found, dir + ": no weights (" + kSingle + " or " + kIndex + ")");
}

// Whether anything can be reached under this name (dangling and looping links cannot).
bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

Json read_optional(const std::string& path) { return is_file(path) ? Json::read_file(path) : Json(); }

}  // namespace

std::vector<std::pair<std::string, std::string>> parse_shard_index(const Json& index, std::string_view where) {
  std::vector<std::pair<std::string, std::string>> out;
  std::unordered_set<std::string> checked;
  const std::string map = std::string(where) + ": weight_map";
  if (!index.is_object()) throw Error(ErrorKind::bad_file, std::string(where) + ": expected an object");
  for (const auto& [tensor, file] : index.at("weight_map", where).as_object(map)) {
    const std::string& name = file.as_string(map + "." + tensor);
    if (checked.insert(name).second) check_shard_name(name, where);
    out.emplace_back(tensor, name);
  }
  if (out.empty()) throw Error(ErrorKind::bad_file, map + ": empty");
  return out;
}

struct Checkpoint::State {
  std::string directory;
  Json config, generation_config;
  std::vector<SafetensorsFile> files;
  std::vector<TensorInfo> aliases;
  struct Place {
    size_t file;
    const TensorInfo* info;
    size_t id;
  };
  std::unordered_map<std::string_view, Place> index;  // keys point into the files' headers and aliases
  std::vector<std::string> names;
  std::unique_ptr<std::atomic<bool>[]> used;
  uint64_t bytes = 0;

  void open_files();
  void add_tensors();
  void check_index(const std::vector<std::pair<std::string, std::string>>& map) const;
};

void Checkpoint::State::open_files() {
  const std::string index_path = directory + "/" + kIndex;
  if (is_file(directory + "/" + kSingle)) {
    files.emplace_back(directory + "/" + kSingle);
    add_tensors();
    return;
  }
  if (!is_file(index_path)) no_weights(directory);
  const auto map = parse_shard_index(Json::read_file(index_path), index_path);
  std::vector<std::string> shards;
  std::unordered_set<std::string> seen;
  for (const auto& [tensor, file] : map) {
    if (seen.insert(file).second) shards.push_back(file);
  }
  std::sort(shards.begin(), shards.end());
  std::vector<std::string> missing;
  for (const auto& shard : shards) {
    if (!exists(directory + "/" + shard)) missing.push_back(shard);
  }
  if (!missing.empty()) {
    const size_t count = missing.size();
    if (count > 4) missing.resize(4);
    throw Error(ErrorKind::bad_file, directory + ": " + std::to_string(count) + " of " + std::to_string(shards.size()) +
                                         " shards missing: " + join(missing, ", ") + (count > 4 ? ", ..." : ""));
  }
  for (const auto& shard : shards) files.emplace_back(directory + "/" + shard);
  add_tensors();
  check_index(map);
}

void Checkpoint::State::add_tensors() {
  for (size_t f = 0; f < files.size(); ++f) {
    for (const TensorInfo& t : files[f].tensors()) {
      auto [it, fresh] = index.emplace(t.name, Place{f, &t, index.size()});
      if (!fresh) {
        throw Error(ErrorKind::bad_file, files[f].path() + ": tensor " + t.name + ": also in " + files[it->second.file].path());
      }
      names.push_back(t.name);
      bytes += t.bytes;
    }
  }
  std::sort(names.begin(), names.end());
  used = std::make_unique<std::atomic<bool>[]>(names.size());
}

void Checkpoint::State::check_index(const std::vector<std::pair<std::string, std::string>>& map) const {
  for (const auto& [tensor, file] : map) {
    auto it = index.find(tensor);
    const std::string expected = directory + "/" + file;
    if (it == index.end() || files[it->second.file].path() != expected) {
      throw Error(ErrorKind::bad_file, expected + ": tensor " + tensor + ": listed in " + kIndex + " but not in this shard");
    }
  }
}

Checkpoint Checkpoint::open(const std::string& directory) {
  std::string dir = directory;
  while (dir.size() > 1 && dir.back() == '/') dir.pop_back();
  if (!is_directory(dir)) {
    throw Error(ErrorKind::not_found, dir + (is_file(dir) ? ": a file; a checkpoint is a directory with config.json and safetensors files"
                                                          : ": no such checkpoint directory"));
  }
  if (!exists(dir + "/config.json")) throw Error(ErrorKind::not_found, dir + ": no config.json");
  auto state = std::make_shared<State>();
  state->directory = dir;
  state->config = Json::read_file(dir + "/config.json");
  if (!state->config.is_object()) throw Error(ErrorKind::bad_file, dir + "/config.json: expected an object");
  state->generation_config = read_optional(dir + "/generation_config.json");
  state->open_files();
  Checkpoint out;
  out.s_ = std::move(state);
  return out;
}

Checkpoint Checkpoint::with_config(Json config, const std::vector<std::pair<std::string, std::string>>& aliases) const {
  check(s_->aliases.empty(), "aliases of a checkpoint that has some");
  auto state = std::make_shared<State>();
  state->directory = s_->directory;
  state->config = std::move(config);
  state->generation_config = s_->generation_config;
  state->files = s_->files;
  state->index = s_->index;
  state->names = s_->names;
  state->bytes = s_->bytes;
  for (const auto& [alias, of] : aliases) {
    state->aliases.push_back(*find(of));
    state->aliases.back().name = alias;
    state->names.push_back(alias);
  }
  for (size_t i = 0; i < aliases.size(); ++i) {  // keys point into the list, which grows no more
    const State::Place place{s_->index.find(aliases[i].second)->second.file, &state->aliases[i], state->index.size()};
    check(state->index.emplace(state->aliases[i].name, place).second, "an alias is a tensor already: " + aliases[i].first);
  }
  std::sort(state->names.begin(), state->names.end());
  state->used = std::make_unique<std::atomic<bool>[]>(state->names.size());
  Checkpoint out;
  out.s_ = std::move(state);
  return out;
}

const std::vector<TensorInfo>& Checkpoint::aliases() const { return s_->aliases; }
const std::string& Checkpoint::directory() const { return s_->directory; }
const Json& Checkpoint::config() const { return s_->config; }
const Json& Checkpoint::generation_config() const { return s_->generation_config; }
const std::vector<SafetensorsFile>& Checkpoint::files() const { return s_->files; }
const std::vector<std::string>& Checkpoint::names() const { return s_->names; }
uint64_t Checkpoint::bytes() const { return s_->bytes; }

const Json* Checkpoint::quantization_config() const {
  if (const Json* q = config().get("quantization_config")) return q;
  if (const Json* q = config().get("compression_config")) return q;
  const Json* text = config().get("text_config");
  return text ? text->get("quantization_config") : nullptr;
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  auto it = s_->index.find(name);
  return it == s_->index.end() ? nullptr : it->second.info;
}

const SafetensorsFile& Checkpoint::file_of(std::string_view name) const {
  auto it = s_->index.find(name);
  check(it != s_->index.end(), "no such tensor: " + std::string(name));
  return s_->files[it->second.file];
}

std::string Checkpoint::place(std::string_view name) const {
  return (has(name) ? file_of(name).path() : directory()) + ": tensor " + std::string(name);
}

at::Tensor Checkpoint::tensor(std::string_view name) const {
  const TensorInfo* info = find(name);
  if (!info) throw Error(ErrorKind::bad_file, place(name) + ": missing");
  mark_used(name);
  return file_of(name).tensor(*info);
}

at::Tensor Checkpoint::tensor(std::string_view name, const std::vector<int64_t>& shape) const {
  const TensorInfo* info = find(name);
  if (info && info->shape != shape) {
    throw Error(ErrorKind::bad_file, place(name) + ": shape " + shape_string(info->shape) + ", expected " + shape_string(shape));
  }
  return tensor(name);
}

void Checkpoint::release(std::string_view name) const {
  if (const TensorInfo* info = find(name)) file_of(name).release(*info);
}

bool Checkpoint::used(std::string_view name) const {
  auto it = s_->index.find(name);
  return it != s_->index.end() && s_->used[it->second.id];
}

void Checkpoint::mark_used(std::string_view name) const {
  if (auto it = s_->index.find(name); it != s_->index.end()) s_->used[it->second.id] = true;
}

}  // namespace statera
