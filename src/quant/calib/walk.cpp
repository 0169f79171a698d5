// Running and storing. File names end in .state once their content is on disk.
#include "quant/calib/walk.h"

#include <cstdio>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "ckpt/safetensors_write.h"

namespace statera {
namespace fs = std::filesystem;
namespace {

std::string sample_name(size_t i) { return std::to_string(i); }

// Written under another name, then renamed: what has its name is complete.
void publish(const std::string& folder, const std::string& path) {
  if (std::rename((path + ".part").c_str(), path.c_str()) != 0) throw io_error(path, errno);
  sync_directory(folder);
}

}  // namespace

int64_t StackWalk::rows() const {
  int64_t sum = 0;
  for (size_t i = 0; i < data_.samples.size(); ++i) sum += rows_of(i);
  return sum;
}

at::Tensor StackWalk::run(int64_t block, size_t sample, Tap* tap) const {
  check(block == at_, "blocks run in order");
  check_cancelled();
  Pass pass = pass_of(sample);
  pass.tap = tap;
  try {
    if (block < blocks()) return stack_.block(block, hidden(sample), pass);
    behind(sample, pass);
  } catch (const Enough&) {
  }
  return {};
}

void StackWalk::advance(int64_t block, const std::function<at::Tensor(size_t)>& outputs) {
  check(block == at_ && block < blocks(), "blocks run in order");
  write_state(block + 1, outputs);
}

void StackWalk::write_state(int64_t block, const std::function<at::Tensor(size_t)>& make) {
  const std::string path = state_path(block);
  std::vector<TensorPlan> tensors;
  for (size_t i = 0; i < data_.samples.size(); ++i) {
    if (const int64_t rows = rows_of(i); rows > 0) tensors.push_back({sample_name(i), model_.dtype, {rows, width_}});
  }
  {
    ShardFile file(folder_, {fs::path(path).filename().string() + ".part", plan_file(tensors, {{"data", data_.summary.hash}})});
    for (size_t i = 0; i < data_.samples.size(); ++i) {
      if (rows_of(i) == 0) continue;
      check_cancelled();
      file.write(sample_name(i), make(i));
    }
    file.sync();
  }
  publish(folder_, path);
  state_.emplace(path);
  at_ = block;
}

void StackWalk::open_state(int64_t block) {
  const std::string state = state_path(block);
  for (const std::string& path : {entered_path(), state}) {
    if (!is_file(path)) throw Error(ErrorKind::mismatch, path + ": the activations of the unfinished work are gone; --restart begins anew");
  }
  entered_.emplace(entered_path());
  state_.emplace(state);
  for (const auto& [key, value] : state_->metadata()) {
    if (key == "data" && value != data_.summary.hash) throw Error(ErrorKind::mismatch, state + ": activations of other data; --restart begins anew");
  }
  at_ = block;
}

void StackWalk::start_beside(const StackWalk& other, int64_t next) {
  if (next == 0 && !(is_file(entered_path()) && is_file(state_path(0)))) {
    check(other.at_ == 0, "walks begin together");
    write_state(0, [&](size_t i) { return other.hidden(i); });
    NamedTensors entered;
    for (const TensorInfo& info : other.entered_->tensors()) entered.emplace_back(info.name, other.entered_->tensor(info));
    write_safetensors(entered_path(), entered, other.entered_->metadata());
  }
  open_state(next);
}

at::Tensor StackWalk::hidden(size_t i) const {
  const TensorInfo* info = state_->find(sample_name(i));
  check(info != nullptr, "no state of a sample");
  return state_->tensor(*info);
}

void StackWalk::release(size_t i) const {
  if (const TensorInfo* info = state_ ? state_->find(sample_name(i)) : nullptr) state_->release(*info);
}

void StackWalk::forget_before(int64_t block) const {
  for (int64_t b = block - 1; b >= 0; --b) {
    std::error_code ec;
    if (!needed_behind(b) && !fs::remove(state_path(b), ec)) break;
  }
}

void StackWalk::forget() const {
  std::error_code ec;
  for (int64_t b = 0; b <= blocks(); ++b) fs::remove(state_path(b), ec);
  fs::remove(entered_path(), ec);
}

void StackWalk::remove_files() const {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".state") || name.ends_with(".state.part")) found.push_back(entry.path());
  }
  for (const fs::path& path : found) fs::remove(path);
}

void StackWalk::check_cancelled() const {
  if (cancel_ && cancel_->load()) throw Error(ErrorKind::interrupted, "stopped while running the samples");
}

}  // namespace statera
