// The header of a safetensors file, checked rule by rule, and tensors as views of the mapping.
#include "ckpt/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/json.h"
#include "base/strings.h"

namespace statera {
namespace {

using at::ScalarType;

// Order: that of the reference writer, which sorts a file's tensors by the last row first.
constexpr StoredType kTypes[] = {
    {"BOOL", 8, ScalarType::Bool},
    {"F4", 4, ScalarType::Float4_e2m1fn_x2},
    {"F6_E2M3", 6, ScalarType::Undefined},
    {"F6_E3M2", 6, ScalarType::Undefined},
    {"U8", 8, ScalarType::Byte},
    {"I8", 8, ScalarType::Char},
    {"F8_E5M2", 8, ScalarType::Float8_e5m2},
    {"F8_E4M3", 8, ScalarType::Float8_e4m3fn},
    {"F8_E8M0", 8, ScalarType::Float8_e8m0fnu},
    {"I16", 16, ScalarType::Short},
    {"U16", 16, ScalarType::UInt16},
    {"F16", 16, ScalarType::Half},
    {"BF16", 16, ScalarType::BFloat16},
    {"I32", 32, ScalarType::Int},
    {"U32", 32, ScalarType::UInt32},
    {"F32", 32, ScalarType::Float},
    {"C64", 64, ScalarType::ComplexFloat},
    {"F64", 64, ScalarType::Double},
    {"I64", 64, ScalarType::Long},
    {"U64", 64, ScalarType::UInt64},
};

[[noreturn]] void fault(std::string_view where, const std::string& reason) {
  throw Error(ErrorKind::bad_file, std::string(where) + ": " + reason);
}

// A count of the header: an integer >= 0 (3.0 and numbers past 2^63 are no integers here).
uint64_t count_of(const Json& j, const std::string& where) {
  if (!j.is_int() || j.as_int() < 0) fault(where, "expected a non-negative integer");
  return static_cast<uint64_t>(j.as_int());
}

// Bytes of a tensor; false on overflow, or when sub-byte elements do not fill whole bytes.
bool byte_length(const std::vector<int64_t>& shape, int bits, uint64_t& bytes) {
  uint64_t n = 1;
  bool zero = false;
  for (int64_t d : shape) {
    zero |= d == 0;
    if (d != 0 && __builtin_mul_overflow(n, static_cast<uint64_t>(d), &n)) return false;
  }
  uint64_t total = 0;
  if (__builtin_mul_overflow(n, static_cast<uint64_t>(bits), &total) || total > static_cast<uint64_t>(INT64_MAX)) return false;
  bytes = zero ? 0 : total / 8;
  return zero || total % 8 == 0;
}

TensorInfo parse_tensor(const std::string& name, const Json& j, uint64_t data_begin, uint64_t data_bytes, std::string_view file) {
  const std::string where = std::string(file) + ": tensor " + name;
  if (!j.is_object()) fault(where, "expected an object with dtype, shape and data_offsets");
  TensorInfo info;
  info.name = name;
  const std::string& type = j.at("dtype", where).as_string(where + ": dtype");
  info.type = stored_type(type);
  if (!info.type) fault(where, "unknown dtype \"" + type + "\"");
  info.dtype = info.type->torch;
  for (const Json& d : j.at("shape", where).as_array(where + ": shape")) {
    info.shape.push_back(static_cast<int64_t>(count_of(d, where + ": shape")));
  }
  const auto& offsets = j.at("data_offsets", where).as_array(where + ": data_offsets");
  if (offsets.size() != 2) fault(where, "data_offsets holds " + std::to_string(offsets.size()) + " numbers, not 2");
  const uint64_t begin = count_of(offsets[0], where + ": data_offsets"), end = count_of(offsets[1], where + ": data_offsets");
  if (end < begin) fault(where, "data_offsets end before they begin");
  if (end > data_bytes) {
    fault(where,
          "data_offsets reach byte " + std::to_string(end) + " of a data section of " + std::to_string(data_bytes) + " (truncated file?)");
  }
  uint64_t expected = 0;
  if (!byte_length(info.shape, info.type->bits, expected))
    fault(where, "shape " + shape_string(info.shape) + " of " + type + " is not a possible size");
  if (expected != end - begin) {
    fault(where, "shape " + shape_string(info.shape) + " of " + type + " takes " + std::to_string(expected) + " bytes, data_offsets hold " +
                     std::to_string(end - begin));
  }
  info.offset = data_begin + begin;
  info.bytes = end - begin;
  return info;
}

// Tensors must cover the data section exactly: from its first byte to the file's last, without a hole or an overlap.
void check_cover(const SafetensorsHeader& h, uint64_t file_bytes, std::string_view where) {
  uint64_t at = h.data_begin;
  for (const TensorInfo& t : h.tensors) {
    if (t.offset != at) {
      fault(where, "tensor " + t.name +
                       (t.offset < at ? ": overlaps the tensor before it"
                                      : ": leaves a hole of " + std::to_string(t.offset - at) + " bytes before it"));
    }
    at += t.bytes;
  }
  if (at != file_bytes) fault(where, std::to_string(file_bytes - at) + " bytes at the end belong to no tensor");
}

}  // namespace

std::span<const StoredType> stored_types() { return kTypes; }

const StoredType* stored_type(std::string_view name) {
  for (const StoredType& t : kTypes) {
    if (name == t.name) return &t;
  }
  return nullptr;
}

const StoredType& stored_type(at::ScalarType type) {
  for (const StoredType& t : kTypes) {
    if (t.torch == type && type != ScalarType::Undefined) return t;
  }
  throw Error(ErrorKind::unsupported, std::string("safetensors has no dtype for ") + c10::toString(type));
}

int64_t TensorInfo::elements() const {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

std::vector<int64_t> TensorInfo::torch_shape() const {
  std::vector<int64_t> out = shape;
  if (type->bits == 4 && !out.empty()) out.back() /= 2;
  return out;
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view where) {
  if (file.size() < 8) fault(where, "no safetensors file: " + std::to_string(file.size()) + " bytes, the header length alone takes 8");
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  if (length > kMaxSafetensorsHeader) {
    fault(where, "no safetensors file: header of " + std::to_string(length) + " bytes, more than the " +
                     std::to_string(kMaxSafetensorsHeader) + " allowed");
  }
  if (length > file.size() - 8) {
    fault(where, "truncated: header of " + std::to_string(length) + " bytes in a file of " + std::to_string(file.size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, static_cast<size_t>(length));
  const Json json = Json::parse(text, std::string(where) + ": header");
  if (!json.is_object()) fault(where, "header is no JSON object");
  SafetensorsHeader h;
  h.data_begin = 8 + length;
  const uint64_t data_bytes = file.size() - h.data_begin;
  for (const auto& [name, value] : json.as_object()) {
    if (name == "__metadata__") {
      for (const auto& [key, text_value] : value.as_object(std::string(where) + ": __metadata__")) {
        h.metadata.emplace_back(key, text_value.as_string(std::string(where) + ": __metadata__: " + key));
      }
    } else {
      h.tensors.push_back(parse_tensor(name, value, h.data_begin, data_bytes, where));
    }
  }
  // Empty tensors share their offset with the next one and go first.
  std::stable_sort(h.tensors.begin(), h.tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) { return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes); });
  check_cover(h, file.size(), where);
  return h;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : mapping_(path) {
  auto state = std::make_shared<State>();
  state->header = parse_safetensors_header(mapping_.bytes(), path);
  const auto& tensors = state->header.tensors;
  state->index.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) state->index.emplace(tensors[i].name, i);
  state_ = std::move(state);
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  auto it = state_->index.find(name);
  return it == state_->index.end() ? nullptr : &state_->header.tensors[it->second];
}

at::Tensor SafetensorsFile::tensor(std::string_view name) const {
  const TensorInfo* info = find(name);
  if (!info) throw Error(ErrorKind::not_found, path() + ": tensor " + std::string(name) + ": not in this file");
  return tensor(*info);
}

at::Tensor SafetensorsFile::tensor(const TensorInfo& info) const {
  if (info.dtype == ScalarType::Undefined) {
    throw Error(ErrorKind::unsupported, path() + ": tensor " + info.name + ": dtype " + info.type->name + " cannot be read");
  }
  if (info.type->bits == 4 && (info.shape.empty() || info.shape.back() % 2)) {
    throw Error(ErrorKind::unsupported, path() + ": tensor " + info.name + ": F4 rows of odd length");
  }
  const std::vector<int64_t> shape = info.torch_shape();
  const auto options = at::TensorOptions().dtype(info.dtype);
  if (info.bytes == 0) return at::empty(shape, options);
  const std::byte* data = mapping_.data() + info.offset;
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(info.dtype) != 0) {
    at::Tensor copy = at::empty(shape, options);
    std::memcpy(copy.data_ptr(), data, info.bytes);
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(data), shape, [keep = mapping_](void*) {}, options);
}

}  // namespace statera
