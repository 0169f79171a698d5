// See tensorboard.h. Event: 1 wall_time (double), 2 step (varint), 3 file_version (string), 5 summary; Summary: 1 value, repeated; Value:
// 1 tag (string), 2 simple_value (float). All numbers little-endian.
#include "api/tensorboard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"

namespace statera {
namespace {

constexpr size_t kHead = 12, kTail = 4;  // length and its checksum; checksum of the data
enum Wire : uint64_t { kVarint = 0, kDouble = 1, kBytes = 2, kFloat = 5 };

template <class T>
std::string raw(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}

template <class T>
T read_raw(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  return out + static_cast<char>(value);
}

std::string key(uint64_t field, Wire wire) { return varint((field << 3) | wire); }
std::string nested(uint64_t field, std::string_view bytes) { return key(field, kBytes) + varint(bytes.size()) + std::string(bytes); }

uint32_t masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u; }

uint64_t take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0; !bytes.empty() && shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.front());
    bytes.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 127) << shift;
    if (byte < 128) break;
  }
  return value;
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

std::string tag_of(const std::string& name) {
  if (name.starts_with("eval_")) return "eval/" + name.substr(5);
  return "train/" + (name == "lr" ? "learning_rate" : name);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> out{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? (c >> 1) ^ 0x82F63B78u : c >> 1;
      out[i] = c;
    }
    return out;
  }();
  uint32_t crc = ~0u;
  for (char b : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(b)) & 255];
  return ~crc;
}

std::string event_record(std::string_view event) {
  const std::string length = raw(static_cast<uint64_t>(event.size()));
  return length + raw(masked(crc32c(length))) + std::string(event) + raw(masked(crc32c(event)));
}

std::string first_event(double time) { return key(1, kDouble) + raw(time) + nested(3, "brain.Event:2"); }

std::string scalars_event(double time, int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) summary += nested(1, nested(1, tag) + key(2, kFloat) + raw(static_cast<float>(value)));
  return key(1, kDouble) + raw(time) + key(2, kVarint) + varint(static_cast<uint64_t>(step)) + nested(5, summary);
}

std::vector<std::string_view> event_records(std::string_view bytes) {
  std::vector<std::string_view> out;
  while (bytes.size() >= kHead + kTail) {
    const auto length = read_raw<uint64_t>(bytes);
    if (read_raw<uint32_t>(bytes.substr(8)) != masked(crc32c(bytes.substr(0, 8))) || length > bytes.size() - kHead - kTail) break;
    const std::string_view event = bytes.substr(kHead, length);
    if (read_raw<uint32_t>(bytes.substr(kHead + length)) != masked(crc32c(event))) break;
    out.push_back(event);
    bytes.remove_prefix(kHead + length + kTail);
  }
  return out;
}

int64_t event_step(std::string_view event) {
  while (!event.empty()) {
    const uint64_t tag = take_varint(event), wire = tag & 7;
    if (wire == kVarint) {
      const uint64_t value = take_varint(event);
      if (tag >> 3 == 2) return static_cast<int64_t>(value);
      continue;
    }
    const uint64_t size = wire == kBytes ? take_varint(event) : wire == kFloat ? 4 : 8;
    event.remove_prefix(std::min<uint64_t>(size, event.size()));
  }
  return 0;
}

EventFile::EventFile(const std::string& folder, const std::string& run, int64_t step) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) throw io_error(folder, code.value());
  path_ = fmt::format("{}/events.out.tfevents.{:016x}", folder, hash_name(std::filesystem::absolute(run).lexically_normal().string()));
  std::string kept;
  if (is_file(path_)) {
    const std::string before = read_file(path_);
    const auto records = event_records(before);
    if (records.empty() && !before.empty()) throw Error(ErrorKind::bad_file, path_ + ": exists already and is no event file");
    for (std::string_view event : records) {
      if (event_step(event) <= step) kept += event_record(event);
    }
  }
  write_file_atomic(path_, kept.empty() ? event_record(first_event(now())) : kept);
}

void EventFile::add(const Json& line) const {
  std::vector<std::pair<std::string, double>> scalars;
  for (const auto& [name, value] : line.as_object(path_)) {
    if (name != "step" && value.is_number()) scalars.emplace_back(tag_of(name), value.as_double(path_));
  }
  if (!scalars.empty()) append_to_file(path_, event_record(scalars_event(now(), line.get_int("step", 0), scalars)));
}

}  // namespace statera
