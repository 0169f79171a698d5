// See finetune_files.h.
#include "api/finetune_files.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "api/finetune_options.h"
#include "base/error.h"
#include "base/fields.h"
#include "base/file.h"
#include "ckpt/safetensors_write.h"
#include "ckpt/shards.h"
#include "quant/side_files.h"

namespace statera {
namespace fs = std::filesystem;
namespace {

constexpr const char* kRun = "run.json";
constexpr const char* kLog = "log.jsonl";
constexpr const char* kState = "training_state.safetensors";
constexpr std::string_view kPrefix = "checkpoint-";
// Tensors of a parameter's state in kState.
constexpr std::pair<const char*, at::Tensor AdamW::State::*> kTensors[] = {{"m.", &AdamW::State::m},
                                                                           {"v.", &AdamW::State::v},
                                                                           {"m_scale.", &AdamW::State::m_scale},
                                                                           {"v_scale.", &AdamW::State::v_scale},
                                                                           {"weight.", &AdamW::State::master}};

const char* dtype_name(at::ScalarType dtype) { return dtype == at::kBFloat16 ? "bfloat16" : dtype == at::kHalf ? "float16" : "float32"; }

// The dtype wherever the config states one, or at its top.
Json config_with(Json config, at::ScalarType dtype) {
  config.erase("quantization_config");
  bool stated = false;
  auto set = [&](Json& j) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (!j.has(key)) continue;
      j.set(key, dtype_name(dtype));
      stated = true;
    }
  };
  set(config);
  for (const char* part : {"text_config", "vision_config"}) {
    if (Json* j = config.find(part)) set(*j);
  }
  if (!stated) config.set("torch_dtype", dtype_name(dtype));
  return config;
}

void remove_folder(const std::string& path) {
  std::error_code code;
  fs::remove_all(path, code);
  if (code) throw io_error(path, code.value());
}

void make_folder(const std::string& path) {
  std::error_code code;
  fs::create_directories(path, code);
  if (code) throw io_error(path, code.value());
}

void move_to(const std::string& from, const std::string& to) {
  std::error_code code;
  fs::rename(from, to, code);
  if (code) throw io_error(to, code.value());
}

std::vector<fs::directory_entry> entries_of(const std::string& path) {
  std::vector<fs::directory_entry> out;
  std::error_code code;
  for (fs::directory_iterator it(path, code), end; !code && it != end; it.increment(code)) out.push_back(*it);
  if (code) throw io_error(path, code.value());
  return out;
}

}  // namespace

void write_checkpoint(const std::string& folder, const Model& model, const Checkpoint& source, const Layout& layout, at::ScalarType dtype) {
  struct Piece {
    std::string name;
    std::vector<int64_t> shape;
    at::Tensor value;
  };
  std::vector<Piece> pieces;
  for (const auto& [path, site] : model.params.linears) {
    const std::vector<int64_t> shape = site->stored_shape.empty() ? std::vector<int64_t>{site->out, site->in} : site->stored_shape;
    pieces.push_back({map_name(layout, path + ".weight"), shape, site->weight->dense()});
  }
  for (const auto& [path, site] : model.params.tensors) pieces.push_back({map_name(layout, path), site->shape, site->value});
  std::vector<TensorPlan> plans;
  int64_t parameters = 0;
  for (const Piece& p : pieces) {
    plans.push_back({p.name, dtype, p.shape});
    parameters += p.value.numel();
  }
  const ShardPlan plan = plan_shards(plans, kDefaultShardBytes, torch_metadata(), parameters);
  std::vector<ShardFile> shards;
  for (const ShardPlan::File& file : plan.files) shards.emplace_back(folder, file);
  for (const Piece& p : pieces) shards[plan.file_of.at(p.name)].write(p.name, p.value.detach().to(dtype).reshape(p.shape));
  for (ShardFile& shard : shards) shard.sync();
  if (const std::string index = plan.index_json(); !index.empty()) write_file_atomic(folder + "/model.safetensors.index.json", index);
  copy_side_files(side_files(source.directory()), source.directory(), folder);
  write_file_atomic(folder + "/config.json", config_with(source.config(), dtype).dump(2) + "\n");
}

RunFolder::RunFolder(std::string path, Json run, bool restart, bool overwrite) : path_(std::move(path)) {
  while (path_.size() > 1 && path_.ends_with('/')) path_.pop_back();
  if (is_directory(path_) && !entries_of(path_).empty()) {
    const bool ours = is_file(path_ + "/" + kRun);
    if (!ours && !overwrite) throw Error(ErrorKind::usage, path_ + ": exists already and holds no training run");
    if (!ours && !is_file(path_ + "/config.json")) throw Error(ErrorKind::usage, path_ + ": exists already and is no checkpoint folder");
    const bool finished = ours && (is_file(path_ + "/config.json") || is_file(path_ + "/adapter_config.json"));
    if (finished && !restart && !overwrite) throw Error(ErrorKind::usage, path_ + ": the run is finished (--restart or --overwrite to begin anew)");
    if (ours && !restart && !overwrite) {
      const Json before = Json::read_file(path_ + "/" + kRun);
      if (!(before == run)) throw Error(ErrorKind::usage, path_ + ": holds a run of other options: " + first_difference(before, run) + " (--restart to begin anew)");
    } else {
      remove_folder(path_);
    }
  }
  make_folder(path_);
  if (!is_file(path_ + "/" + kRun)) write_file_atomic(path_ + "/" + kRun, run.dump(2) + "\n");
  const auto found = checkpoints();
  if (!found.empty()) latest_ = found.back().second;
}

void RunFolder::describe(const Checkpoint& source, Layout layout, at::ScalarType save_dtype, const LoraSettings* lora) {
  source_ = &source;
  layout_ = std::move(layout);
  save_dtype_ = save_dtype;
  lora_ = lora;
}

std::vector<std::pair<int64_t, std::string>> RunFolder::checkpoints() const {
  std::vector<std::pair<int64_t, std::string>> out;
  for (const auto& entry : entries_of(path_)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int64_t step = 0;
    const char* end = name.data() + name.size();
    const auto [stop, code] = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (code == std::errc() && stop == end) out.emplace_back(step, entry.path().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

void RunFolder::write_model(const std::string& folder, const Model& model, const std::vector<Parameter>& parameters) const {
  check(source_ != nullptr, "a run folder that knows its source");
  if (lora_) return write_adapter(folder, parameters, *lora_, source_->directory());
  write_checkpoint(folder, model, *source_, layout_, save_dtype_);
}

// Tensor by tensor: states that lie with other processes need not all be here at once.
void RunFolder::write_state(const std::string& folder, const Trainer& trainer, const RunState& state) const {
  std::vector<TensorPlan> plans;
  for (const Parameter& p : trainer.parameters()) {
    const AdamW::State blank = trainer.optimizer().blank_state(p);
    for (const auto& [kind, member] : kTensors) {
      if (const at::Tensor& t = blank.*member; t.defined()) plans.push_back({kind + p.name, t.scalar_type(), t.sizes().vec()});
    }
  }
  ShardFile file(folder, {kState, plan_file(std::move(plans), {{"state", fields_to_json(state).dump()}})});
  trainer.states([&](size_t p, const AdamW::State& s) {
    for (const auto& [kind, member] : kTensors) {
      if (const at::Tensor& t = s.*member; t.defined()) file.write(kind + trainer.parameters()[p].name, t);
    }
  });
  file.sync();
}

void RunFolder::save(const Model& model, const Trainer& trainer, const RunState& state, int64_t keep) const {
  at::NoGradGuard no_graph;
  const std::string target = path_ + "/" + std::string(kPrefix) + std::to_string(state.step), partial = target + ".partial";
  remove_folder(partial);
  make_folder(partial);
  trainer.with_whole_weights([&](const std::vector<Parameter>& parameters) { write_model(partial, model, parameters); });
  write_state(partial, trainer, state);
  sync_directory(partial);
  remove_folder(target);
  move_to(partial, target);
  sync_directory(path_);
  const auto found = checkpoints();
  for (size_t i = 0; keep > 0 && i + static_cast<size_t>(keep) < found.size(); ++i) remove_folder(found[i].second);
}

RunState RunFolder::read_state() const {
  const SafetensorsFile file(*latest_ + "/" + kState);
  RunState state;
  for (const auto& [key, value] : file.metadata()) {
    if (key == "state") fields_from_json(Json::parse(value, file.path()), state, file.path());
  }
  return state;
}

void RunFolder::restore(Trainer& trainer, int64_t steps) const {
  at::NoGradGuard no_graph;
  const SafetensorsFile file(*latest_ + "/" + kState);
  auto read = [&](size_t number) {
    const Parameter& p = trainer.parameters()[number];
    AdamW::State s = trainer.optimizer().blank_state(p);
    for (const auto& [kind, member] : kTensors) {
      at::Tensor& t = s.*member;
      if (!t.defined()) continue;
      const at::Tensor read = file.tensor(kind + p.name).clone();
      if (read.sizes() != t.sizes() || read.scalar_type() != t.scalar_type()) throw Error(ErrorKind::mismatch, file.path() + ": tensor " + kind + p.name + ": is of another model");
      t = read;
    }
    return s;
  };
  trainer.restore(read, steps);
}

void RunFolder::finish(const Model& model, const Trainer& trainer) const {
  at::NoGradGuard no_graph;
  const std::string partial = path_ + "/model.partial";
  remove_folder(partial);
  make_folder(partial);
  trainer.with_whole_weights([&](const std::vector<Parameter>& parameters) { write_model(partial, model, parameters); });
  std::vector<std::string> names;
  for (const auto& entry : entries_of(partial)) names.push_back(entry.path().filename().string());
  // config.json says that all is there.
  std::stable_partition(names.begin(), names.end(), [](const std::string& n) { return n != "config.json" && n != "adapter_config.json"; });
  for (const std::string& name : names) move_to(partial + "/" + name, path_ + "/" + name);
  remove_folder(partial);
  sync_directory(path_);
}

void RunFolder::log(const Json& line) const {
  append_to_file(path_ + "/" + kLog, line.dump() + "\n");
}

void RunFolder::cut_log(int64_t step) const {
  const std::string path = path_ + "/" + kLog;
  if (!is_file(path)) return;
  std::string kept;
  const std::string text = read_file(path);
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    if (end == text.npos) break;  // a line that was being written
    const std::string line = text.substr(at, end - at);
    if (Json::parse(line, path).get_int("step", 0) <= step) kept += line + "\n";
    at = end + 1;
  }
  write_file_atomic(path, kept);
}

}  // namespace statera
