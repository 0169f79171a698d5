// fetch: see the header. The order of the kinds is qwen-vl-utils': URL, file://, data:, path.
#include "image/fetch.h"

#include <array>

#include "base/error.h"
#include "base/file.h"
#include "image/http.h"

namespace statera {
namespace {

std::array<int8_t, 256> base64_values() {
  std::array<int8_t, 256> out;
  out.fill(-1);
  const std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < alphabet.size(); ++i) out[static_cast<uint8_t>(alphabet[i])] = static_cast<int8_t>(i);
  return out;
}

std::string decode_data_uri(std::string_view source, const FetchOptions& options) {
  const size_t at = source.find("base64,");
  if (at == std::string_view::npos) throw Error(ErrorKind::bad_file, "a data: source needs \";base64,\"");
  const std::string_view payload = source.substr(at + 7);
  if (payload.size() / 4 * 3 > static_cast<size_t>(options.max_bytes)) {
    throw Error(ErrorKind::bad_file, "larger than the limit of " + std::to_string(options.max_bytes) + " bytes (max_bytes)");
  }
  return decode_base64(payload);
}

}  // namespace

bool is_url(std::string_view s) { return s.starts_with("http://") || s.starts_with("https://"); }
bool is_data_uri(std::string_view s) { return s.starts_with("data:"); }

std::string source_name(std::string_view source) {
  const size_t limit = is_data_uri(source) ? 40 : 200;
  if (source.size() <= limit || (!is_data_uri(source) && !is_url(source) && source.size() < 4096)) return std::string(source);
  return std::string(source.substr(0, limit)) + "...";
}

std::string local_path(std::string_view source, const FetchOptions& options) {
  if (!options.allow_files) throw Error(ErrorKind::denied, "local files are not allowed here (allow_files)");
  if (source.starts_with("file://")) source.remove_prefix(7);
  if (source.empty()) throw Error(ErrorKind::not_found, "empty path");
  if (source.find('\0') != std::string_view::npos) throw Error(ErrorKind::not_found, "a path with a NUL character");
  if (source.front() == '/' || options.base_dir.empty()) return std::string(source);
  return options.base_dir + (options.base_dir.back() == '/' ? "" : "/") + std::string(source);
}

std::string fetch(std::string_view source, const FetchOptions& options) {
  if (is_url(source) || is_data_uri(source)) {
    return with_context(source_name(source), [&] {
      if (is_data_uri(source)) return decode_data_uri(source, options);
      if (!options.allow_urls) throw Error(ErrorKind::denied, "URLs in messages are not fetched unless allowed (--allow-urls)");
      return http_get(std::string(source), options);
    });
  }
  const std::string path = with_context(source_name(source), [&] { return local_path(source, options); });
  if (is_directory(path)) throw Error(ErrorKind::bad_file, path + ": is a folder, not a media file");
  return read_file(path, static_cast<uint64_t>(options.max_bytes));
}

std::string decode_base64(std::string_view text) {
  static const std::array<int8_t, 256> values = base64_values();
  std::string out;
  out.reserve(text.size() / 4 * 3 + 3);
  uint32_t bits = 0;
  int held = 0;
  size_t digits = 0, padding = 0;
  for (const char& c : text) {
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
    if (c == '=') {
      ++padding;
      continue;
    }
    const int8_t v = values[static_cast<uint8_t>(c)];
    if (v < 0 || padding > 0) throw Error(ErrorKind::bad_file, "not base64 at character " + std::to_string(&c - text.data()));
    bits = bits << 6 | static_cast<uint32_t>(v);
    held += 6;
    ++digits;
    if (held >= 8) {
      held -= 8;
      out.push_back(static_cast<char>(bits >> held & 0xFF));
    }
  }
  if (digits % 4 == 1 || padding > 2 || (padding > 0 && (digits + padding) % 4 != 0)) {
    throw Error(ErrorKind::bad_file, "base64 that ends too early");
  }
  return out;
}

}  // namespace statera
