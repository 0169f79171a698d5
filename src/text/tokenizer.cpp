// Tokenizer over the C ABI; where the files of a directory become one tokenizer.json. StreamDecoder: stream_decoder.cpp.
#include "text/tokenizer.h"

#include <algorithm>
#include <cstring>

#include "base/file.h"
#include "text/bpe_files.h"
#include "text/rust_text.h"
#include "text/special_tokens.h"

namespace statera {

struct Tokenizer::Handle {
  StateraTokenizer* raw = nullptr;
  Json special;
  Handle() = default;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { statera_tokenizer_close(raw); }
};

namespace {

// added_tokens_decoder {"151643": {content, ...}} as a list by ascending id, as the Rust side takes it.
std::string added_tokens(const Json& tokenizer_config) {
  const Json* declared = tokenizer_config.get("added_tokens_decoder");
  if (!declared) return "";
  std::vector<std::pair<int64_t, Json>> tokens;
  for (const auto& [key, token] : declared->as_object("added_tokens_decoder")) {
    if (key.empty() || key.size() > 10 || key.find_first_not_of("0123456789") != key.npos) {
      throw Error(ErrorKind::bad_file, "added_tokens_decoder: \"" + key + "\" is no token id");
    }
    token.as_object("added_tokens_decoder." + key);
    Json entry = token;
    entry.set("id", static_cast<int64_t>(std::stoll(key)));
    tokens.emplace_back(std::stoll(key), std::move(entry));
  }
  std::stable_sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Json list = Json::array();
  for (auto& [id, entry] : tokens) list.push(std::move(entry));
  return list.dump();
}

std::string present(const std::string& directory, const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) {
    if (is_file(directory + "/" + name)) out += (out.empty() ? "" : ", ") + name;
  }
  return out;
}

Error no_tokenizer(const std::string& directory) {
  const std::string found =
      present(directory, {"vocab.json", "merges.txt", "tokenizer.model", "qwen.tiktoken", "spiece.model", "vocab.txt", "tokenizer_config.json"});
  if (found.empty()) return Error(ErrorKind::not_found, directory + ": no tokenizer.json");
  return Error(ErrorKind::unsupported,
               directory + ": there is " + found +
                   " but no tokenizer.json, the one tokenizer file read here; make it with transformers: "
                   "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)");
}

}  // namespace

Tokenizer Tokenizer::from_directory(const std::string& directory) {
  if (!is_directory(directory)) throw Error(ErrorKind::not_found, directory + ": no such directory");
  const Json config = read_tokenizer_config(directory);
  const std::string path = directory + "/tokenizer.json";
  Json special = special_tokens_of_directory(directory);
  if (is_file(path)) return open(read_file(path), config, std::move(special), path);
  if (!is_file(directory + "/vocab.json") || !is_file(directory + "/merges.txt") || !is_qwen2_tokenizer(config)) {
    throw no_tokenizer(directory);
  }
  const std::string json = with_context(directory, [&] {
    return qwen2_tokenizer_json(Json::read_file(directory + "/vocab.json"), read_file(directory + "/merges.txt")).dump();
  });
  return open(json, config, std::move(special), directory + "/vocab.json");
}

Tokenizer Tokenizer::from_blob(std::string_view tokenizer_json, const Json& tokenizer_config, std::string_view where) {
  return open(tokenizer_json, tokenizer_config, statera::special_tokens(tokenizer_config), where);
}

Tokenizer Tokenizer::open(std::string_view tokenizer_json, const Json& tokenizer_config, Json special, std::string_view where) {
  return with_context(where, [&] {
    auto handle = std::make_shared<Handle>();
    const std::string added = added_tokens(tokenizer_config);
    StateraBuffer error{};
    require_ok(statera_tokenizer_open(rust_bytes(tokenizer_json), tokenizer_json.size(), rust_bytes(added), added.size(), &handle->raw, &error),
               error, ErrorKind::bad_file);
    handle->special = std::move(special);
    Tokenizer out;
    out.h_ = std::move(handle);
    return out;
  });
}

std::vector<int64_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  StateraBuffer ids{}, error{};
  require_ok(statera_tokenizer_encode(h_->raw, rust_bytes(text), text.size(), add_special_tokens, &ids, &error), error, ErrorKind::usage);
  std::vector<int64_t> out(ids.size / sizeof(uint32_t));
  for (size_t i = 0; i < out.size(); ++i) {
    uint32_t id;
    std::memcpy(&id, ids.data + i * sizeof id, sizeof id);
    out[i] = id;
  }
  statera_text_free(ids);
  return out;
}

std::string Tokenizer::decode(std::span<const int64_t> ids, bool skip_special_tokens) const {
  std::vector<uint32_t> narrow(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] > UINT32_MAX) throw Error(ErrorKind::usage, std::to_string(ids[i]) + " is no token id");
    narrow[i] = static_cast<uint32_t>(ids[i]);
  }
  StateraBuffer text{}, error{};
  require_ok(statera_tokenizer_decode(h_->raw, narrow.data(), narrow.size(), skip_special_tokens, &text, &error), error, ErrorKind::usage);
  return take(text);
}

std::optional<int64_t> Tokenizer::token_id(std::string_view token) const {
  const int64_t id = statera_tokenizer_token_id(h_->raw, rust_bytes(token), token.size());
  return id < 0 ? std::nullopt : std::optional<int64_t>(id);
}

std::string Tokenizer::token(int64_t id) const {
  if (id < 0 || id > UINT32_MAX) throw Error(ErrorKind::usage, "no token has the id " + std::to_string(id));
  StateraBuffer token{}, error{};
  require_ok(statera_tokenizer_token(h_->raw, static_cast<uint32_t>(id), &token, &error), error, ErrorKind::usage);
  return take(token);
}

int64_t Tokenizer::vocab_size() const { return statera_tokenizer_vocab_size(h_->raw); }

std::optional<int64_t> Tokenizer::special_id(std::string_view name) const {
  const Json* token = h_->special.get(name);
  return token && token->is_string() ? token_id(token->as_string()) : std::nullopt;
}

std::optional<int64_t> Tokenizer::bos_id() const { return special_id("bos_token"); }
std::optional<int64_t> Tokenizer::eos_id() const { return special_id("eos_token"); }
std::optional<int64_t> Tokenizer::pad_id() const { return special_id("pad_token"); }
const Json& Tokenizer::special_tokens() const { return h_->special; }

}  // namespace statera
