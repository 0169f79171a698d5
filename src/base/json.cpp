// The only user of nlohmann-json: a SAX reader into Json (depth-limited, integers exact) and the printer.
#include "base/json.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/error.h"
#include "base/file.h"

namespace statera {
namespace {

constexpr size_t kMaxDepth = 128;

[[noreturn]] void wrong_type(std::string_view path, const char* expected) {
  throw Error(ErrorKind::bad_file, std::string(path) + ": expected " + expected);
}

// Keeps the last of equal keys, in one pass (headers hold tens of thousands of members).
void drop_earlier_duplicates(Json::Object& members) {
  std::unordered_set<std::string_view> seen;
  seen.reserve(members.size());
  std::vector<bool> drop(members.size());
  bool any = false;
  for (size_t i = members.size(); i-- > 0;) any |= drop[i] = !seen.insert(members[i].first).second;
  if (!any) return;
  Json::Object kept;
  for (size_t i = 0; i < members.size(); ++i) {
    if (!drop[i]) kept.push_back(std::move(members[i]));
  }
  members = std::move(kept);
}

struct Reader : nlohmann::json_sax<nlohmann::json> {
  Json root;
  std::vector<Json*> open;
  std::string key_name;
  std::string fault;

  bool add(Json v) {
    if (open.empty()) {
      root = std::move(v);
    } else if (open.back()->is_array()) {
      open.back()->items().push_back(std::move(v));
    } else {
      open.back()->members().emplace_back(std::move(key_name), std::move(v));
    }
    return true;
  }
  bool begin(Json v) {
    if (open.size() >= kMaxDepth) {
      fault = "nested deeper than " + std::to_string(kMaxDepth) + " levels";
      return false;
    }
    Json* place = &root;
    if (open.empty()) {
      root = std::move(v);
    } else if (open.back()->is_array()) {
      auto& items = open.back()->items();
      items.push_back(std::move(v));
      place = &items.back();
    } else {
      auto& members = open.back()->members();
      place = &members.emplace_back(std::move(key_name), std::move(v)).second;
    }
    open.push_back(place);
    return true;
  }
  bool null() override { return add({}); }
  bool boolean(bool v) override { return add(v); }
  bool number_integer(number_integer_t v) override { return add(static_cast<int64_t>(v)); }
  bool number_unsigned(number_unsigned_t v) override {
    if (v > static_cast<uint64_t>(INT64_MAX)) return add(static_cast<double>(v));
    return add(static_cast<int64_t>(v));
  }
  bool number_float(number_float_t v, const string_t&) override { return add(static_cast<double>(v)); }
  bool string(string_t& v) override { return add(std::move(v)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return begin(Json::object()); }
  bool key(string_t& v) override { key_name = std::move(v); return true; }
  bool end_object() override {
    drop_earlier_duplicates(open.back()->members());
    open.pop_back();
    return true;
  }
  bool start_array(std::size_t) override { return begin(Json::array()); }
  bool end_array() override { open.pop_back(); return true; }
  bool parse_error(std::size_t byte, const std::string&, const nlohmann::detail::exception& e) override {
    std::string text = e.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ..."
    if (auto at = text.find("parse error"); at != text.npos) text = text.substr(at);
    fault = text + " (byte " + std::to_string(byte) + ")";
    return false;
  }
};

void print_string(std::string& out, const std::string& s) {
  out += nlohmann::json(s).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void print_double(std::string& out, double v) {
  if (!std::isfinite(v)) {
    out += "null";  // JSON has no infinities
    return;
  }
  out += nlohmann::json(v).dump();
}

void print(std::string& out, const Json& j, int indent, int depth) {
  auto newline = [&](int d) {
    if (indent < 0) return;
    out += '\n';
    out.append(static_cast<size_t>(d * indent), ' ');
  };
  if (j.is_null()) {
    out += "null";
  } else if (j.is_bool()) {
    out += j.as_bool() ? "true" : "false";
  } else if (j.is_int()) {
    out += std::to_string(j.as_int());
  } else if (j.is_number()) {
    print_double(out, j.as_double());
  } else if (j.is_string()) {
    print_string(out, j.as_string());
  } else if (j.is_array()) {
    const auto& items = j.as_array();
    out += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i) out += indent < 0 ? ", " : ",";
      newline(depth + 1);
      print(out, items[i], indent, depth + 1);
    }
    if (!items.empty()) newline(depth);
    out += ']';
  } else {
    const auto& members = j.as_object();
    out += '{';
    for (size_t i = 0; i < members.size(); ++i) {
      if (i) out += indent < 0 ? ", " : ",";
      newline(depth + 1);
      print_string(out, members[i].first);
      out += ": ";
      print(out, members[i].second, indent, depth + 1);
    }
    if (!members.empty()) newline(depth);
    out += '}';
  }
}

}  // namespace

Json Json::parse(std::string_view text, std::string_view where) {
  Reader reader;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) {
    throw Error(ErrorKind::bad_file, std::string(where) + ": not valid JSON: " + (reader.fault.empty() ? "unreadable" : reader.fault));
  }
  return std::move(reader.root);
}

Json Json::read_file(const std::string& path, uint64_t max_bytes) { return parse(statera::read_file(path, max_bytes), path); }

std::string Json::dump(int indent) const {
  std::string out;
  print(out, *this, indent, 0);
  return out;
}

bool Json::as_bool(std::string_view path) const {
  if (auto* v = std::get_if<bool>(&v_)) return *v;
  wrong_type(path, "true or false");
}
int64_t Json::as_int(std::string_view path) const {
  if (auto* v = std::get_if<int64_t>(&v_)) return *v;
  if (auto* v = std::get_if<double>(&v_); v && std::nearbyint(*v) == *v && std::abs(*v) < 9e15) return static_cast<int64_t>(*v);
  wrong_type(path, "an integer");
}
double Json::as_double(std::string_view path) const {
  if (auto* v = std::get_if<double>(&v_)) return *v;
  if (auto* v = std::get_if<int64_t>(&v_)) return static_cast<double>(*v);
  wrong_type(path, "a number");
}
const std::string& Json::as_string(std::string_view path) const {
  if (auto* v = std::get_if<std::string>(&v_)) return *v;
  wrong_type(path, "a string");
}
const Json::Array& Json::as_array(std::string_view path) const {
  if (auto* v = std::get_if<Array>(&v_)) return *v;
  wrong_type(path, "an array");
}
const Json::Object& Json::as_object(std::string_view path) const {
  if (auto* v = std::get_if<Object>(&v_)) return *v;
  wrong_type(path, "an object");
}
Json::Array& Json::items() {
  if (is_null()) v_ = Array{};
  check(is_array(), "Json::items on another type");
  return std::get<Array>(v_);
}
Json::Object& Json::members() {
  if (is_null()) v_ = Object{};
  check(is_object(), "Json::members on another type");
  return std::get<Object>(v_);
}

const Json* Json::find(std::string_view key) const {
  if (auto* members = std::get_if<Object>(&v_)) {
    for (const auto& [name, value] : *members) {
      if (name == key) return &value;
    }
  }
  return nullptr;
}
Json* Json::find(std::string_view key) { return const_cast<Json*>(std::as_const(*this).find(key)); }
const Json* Json::get(std::string_view key) const {
  const Json* v = find(key);
  return v && !v->is_null() ? v : nullptr;
}
const Json& Json::at(std::string_view key, std::string_view path) const {
  if (const Json* v = get(key)) return *v;
  throw Error(ErrorKind::bad_file, std::string(path) + (path.empty() ? "" : ".") + std::string(key) + ": missing");
}
Json& Json::set(std::string_view key, Json value) {
  if (Json* old = find(key)) return *old = std::move(value);
  members().emplace_back(std::string(key), std::move(value));
  return members().back().second;
}
void Json::erase(std::string_view key) {
  if (is_object()) std::erase_if(members(), [&](const Member& m) { return m.first == key; });
}

bool Json::get_bool(std::string_view key, bool otherwise) const {
  const Json* v = get(key);
  return v ? v->as_bool(key) : otherwise;
}
int64_t Json::get_int(std::string_view key, int64_t otherwise) const {
  const Json* v = get(key);
  return v ? v->as_int(key) : otherwise;
}
double Json::get_double(std::string_view key, double otherwise) const {
  const Json* v = get(key);
  return v ? v->as_double(key) : otherwise;
}
std::string Json::get_string(std::string_view key, std::string_view otherwise) const {
  const Json* v = get(key);
  return v ? v->as_string(key) : std::string(otherwise);
}

bool Json::operator==(const Json& other) const {
  if (is_object() && other.is_object()) {
    const auto& mine = as_object();
    if (mine.size() != other.as_object().size()) return false;
    for (const auto& [name, value] : mine) {
      const Json* theirs = other.find(name);
      if (!theirs || !(*theirs == value)) return false;
    }
    return true;
  }
  return v_ == other.v_;
}

}  // namespace statera
