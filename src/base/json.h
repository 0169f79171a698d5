// Json: an ordered JSON value with exact integers, and the parser and printer behind it.
// The JSON library itself is seen by json.cpp only. Readers name the place of a fault ("config.json: text_config.hidden_size:
// expected an integer"). Limits: nesting depth 128; duplicate keys: the last wins (as safetensors' own reader does).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace statera {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  // insertion order kept

  Json() = default;
  Json(std::nullptr_t) {}
  Json(bool v) : v_(v) {}
  Json(int v) : v_(static_cast<int64_t>(v)) {}
  Json(int64_t v) : v_(v) {}
  Json(uint64_t v) : v_(static_cast<int64_t>(v)) {}
  Json(double v) : v_(v) {}
  Json(const char* v) : v_(std::string(v)) {}
  Json(std::string v) : v_(std::move(v)) {}
  Json(std::string_view v) : v_(std::string(v)) {}
  Json(Array v) : v_(std::move(v)) {}
  template <class T>
    requires(!std::is_same_v<T, Json> && !std::is_same_v<T, Member>)
  Json(const std::vector<T>& v) : v_(Array(v.begin(), v.end())) {}
  static Json object() { Json j; j.v_ = Object{}; return j; }
  static Json array() { return Json(Array{}); }

  // Parses UTF-8 text; `where` names the source in errors. Throws Error(bad_file) with line and column.
  static Json parse(std::string_view text, std::string_view where);
  // Reads and parses a file of at most `max_bytes`.
  static Json read_file(const std::string& path, uint64_t max_bytes = 256u << 20);
  // indent < 0: one line.
  std::string dump(int indent = -1) const;

  bool is_null() const { return std::holds_alternative<std::monostate>(v_); }
  bool is_bool() const { return std::holds_alternative<bool>(v_); }
  bool is_int() const { return std::holds_alternative<int64_t>(v_); }
  bool is_number() const { return is_int() || std::holds_alternative<double>(v_); }
  bool is_string() const { return std::holds_alternative<std::string>(v_); }
  bool is_array() const { return std::holds_alternative<Array>(v_); }
  bool is_object() const { return std::holds_alternative<Object>(v_); }

  // Typed access; a value of another type throws Error(bad_file) naming `path`.
  bool as_bool(std::string_view path = "value") const;
  int64_t as_int(std::string_view path = "value") const;  // also accepts 3.0
  double as_double(std::string_view path = "value") const;
  const std::string& as_string(std::string_view path = "value") const;
  const Array& as_array(std::string_view path = "value") const;
  const Object& as_object(std::string_view path = "value") const;
  Array& items();      // this must be an array (null becomes one)
  Object& members();   // this must be an object (null becomes one)

  // Member lookup: nullptr when absent or when this is no object.
  const Json* find(std::string_view key) const;
  Json* find(std::string_view key);
  bool has(std::string_view key) const { return find(key) != nullptr; }
  // Member lookup that treats an explicit null as absent.
  const Json* get(std::string_view key) const;
  // Required member; throws Error(bad_file) "path.key: missing".
  const Json& at(std::string_view key, std::string_view path = "") const;
  // Sets or replaces a member (null becomes an object).
  Json& set(std::string_view key, Json value);
  void erase(std::string_view key);
  void push(Json value) { items().push_back(std::move(value)); }

  // Optional typed members: the default when absent or null; the wrong type throws.
  bool get_bool(std::string_view key, bool otherwise) const;
  int64_t get_int(std::string_view key, int64_t otherwise) const;
  double get_double(std::string_view key, double otherwise) const;
  std::string get_string(std::string_view key, std::string_view otherwise) const;

  // Same type and value; objects compare without regard to order.
  bool operator==(const Json& other) const;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> v_;
};

}  // namespace statera
