// Layout of a safetensors file and the one-shot writer.
#include "ckpt/safetensors_write.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace statera {
namespace {

// Compact JSON, as the reference prints it (Json::dump puts blanks after separators).
std::string quoted(const std::string& text) { return Json(text).dump(); }

std::string header_json(const std::vector<TensorInfo>& tensors, const Metadata& metadata, uint64_t data_begin) {
  std::string out = "{";
  if (!metadata.empty()) {
    out += "\"__metadata__\":{";
    for (size_t i = 0; i < metadata.size(); ++i) out += (i ? "," : "") + quoted(metadata[i].first) + ":" + quoted(metadata[i].second);
    out += "}";
  }
  for (const TensorInfo& t : tensors) {
    if (out.size() > 1) out += ",";
    out += quoted(t.name) + ":{\"dtype\":\"" + t.type->name + "\",\"shape\":[";
    for (size_t i = 0; i < t.shape.size(); ++i) out += (i ? "," : "") + std::to_string(t.shape[i]);
    out += "],\"data_offsets\":[" + std::to_string(t.offset - data_begin) + "," + std::to_string(t.offset - data_begin + t.bytes) + "]}";
  }
  return out + "}";
}

}  // namespace

uint64_t TensorPlan::bytes() const {
  uint64_t n = c10::elementSize(dtype);
  for (int64_t d : shape) n *= static_cast<uint64_t>(d);
  return n;
}

FilePlan plan_file(std::vector<TensorPlan> tensors, const Metadata& metadata) {
  std::unordered_set<std::string> seen;
  FilePlan plan;
  for (TensorPlan& t : tensors) {
    check(!t.name.empty() && t.name != "__metadata__" && seen.insert(t.name).second, "tensor names of a file must differ: " + t.name);
    TensorInfo info;
    info.name = t.name;
    info.dtype = t.dtype;
    info.type = &stored_type(t.dtype);
    info.bytes = t.bytes();
    info.shape = std::move(t.shape);
    if (info.type->bits == 4) {
      check(!info.shape.empty(), "an F4 tensor has at least one dimension");
      info.shape.back() *= 2;
    }
    plan.tensors.push_back(std::move(info));
  }
  std::sort(plan.tensors.begin(), plan.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.type != b.type ? a.type > b.type : a.name < b.name;  // rows of the dtype table, widest last
  });
  uint64_t at = 0;
  for (TensorInfo& t : plan.tensors) {
    t.offset = at;
    at += t.bytes;
  }
  std::string json = header_json(plan.tensors, metadata, 0);
  json.resize((json.size() + 7) / 8 * 8, ' ');
  check(json.size() <= kMaxSafetensorsHeader, "safetensors header too large");
  const uint64_t length = json.size();
  plan.header.assign(reinterpret_cast<const char*>(&length), 8);
  plan.header += json;
  for (TensorInfo& t : plan.tensors) t.offset += plan.header.size();
  plan.bytes = plan.header.size() + at;
  return plan;
}

at::Tensor contiguous_bytes(const at::Tensor& t) {
  check(t.defined(), "an undefined tensor cannot be written");
  return t.detach().contiguous();
}

void write_safetensors(const std::string& path, const NamedTensors& tensors, const Metadata& metadata) {
  std::vector<TensorPlan> plans;
  std::unordered_map<std::string, const at::Tensor*> by_name;
  for (const auto& [name, t] : tensors) {
    check(t.defined(), "an undefined tensor cannot be written: " + name);
    plans.push_back({name, t.scalar_type(), t.sizes().vec()});
    by_name.emplace(name, &t);
  }
  const FilePlan plan = plan_file(std::move(plans), metadata);
  AtomicFile file(path);
  file.write(plan.header.data(), plan.header.size());
  for (const TensorInfo& info : plan.tensors) {
    const at::Tensor data = contiguous_bytes(*by_name.at(info.name));
    with_context("tensor " + info.name, [&] { file.write(data.data_ptr(), info.bytes); });
  }
  file.commit();
}

}  // namespace statera
