// Which names are weights, and the copying.
#include "quant/side_files.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace statera {
namespace fs = std::filesystem;
namespace {

bool ends_with_any(const std::string& name, std::initializer_list<const char*> suffixes) {
  return std::any_of(suffixes.begin(), suffixes.end(), [&](const char* s) { return name.ends_with(s); });
}

bool is_weight(const std::string& name) {
  return ends_with_any(name, {".safetensors", ".safetensors.index.json", ".gguf", ".onnx", ".onnx_data", ".h5", ".msgpack"});
}

bool is_pickle(const std::string& name) {
  return ends_with_any(name, {".bin", ".bin.index.json", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib"});
}

// What quantize and finetune say of the files they wrote: a copy would describe others, or stand in the way of the new one.
bool is_record(const std::string& name) {
  return name == "statera.json" || name == "report.json" || name == "report.html" || name == "run.json" || name == "log.jsonl";
}

}  // namespace

SideFiles side_files(const std::string& source) {
  SideFiles out;
  std::error_code ec;
  for (fs::directory_iterator it(source, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string(), path = it->path().string();
    if (name.starts_with(".") || name == "config.json" || is_record(name) || is_weight(name) || !is_file(path)) continue;
    const uint64_t bytes = file_size(path);
    if (is_pickle(name) || bytes > kMaxSideFile)
      out.left_out.push_back(name);
    else
      out.carried.emplace_back(name, bytes);
  }
  if (ec) throw io_error(source, ec.value());
  std::sort(out.carried.begin(), out.carried.end());
  std::sort(out.left_out.begin(), out.left_out.end());
  return out;
}

void copy_side_files(const SideFiles& files, const std::string& source, const std::string& folder) {
  for (const auto& [name, bytes] : files.carried) {
    const std::string text = read_file(source + "/" + name, kMaxSideFile);
    if (text.size() != bytes) throw Error(ErrorKind::io, source + "/" + name + ": changed while it was in use");
    write_file_atomic(folder + "/" + name, text);
  }
}

}  // namespace statera
