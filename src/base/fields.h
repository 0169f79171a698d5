// fields: one declaration per option. An aggregate lists (name, member, help) once in
//   template <class V> void fields(V& v) { v("w_bits", w_bits, "bits of a weight"); }
// and JSON in and out, flags, --help, docs and equality derive from it. Names are snake_case; the flag is --w-bits.
// Member types: bool, int64_t, double, std::string, std::vector<std::string>, std::optional of these.
// Unknown JSON keys are an error that names the nearest key. Not for Hugging Face config.json (unknown keys ignored there).
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/strings.h"

namespace statera {

// ---- values to and from JSON
inline Json value_to_json(bool v) { return v; }
inline Json value_to_json(int64_t v) { return v; }
inline Json value_to_json(double v) { return v; }
inline Json value_to_json(const std::string& v) { return v; }
inline Json value_to_json(const std::vector<std::string>& v) { return Json(v); }
template <class T>
Json value_to_json(const std::optional<T>& v) {
  return v ? value_to_json(*v) : Json();
}

inline void value_from_json(const Json& j, bool& v, std::string_view path) { v = j.as_bool(path); }
inline void value_from_json(const Json& j, int64_t& v, std::string_view path) { v = j.as_int(path); }
inline void value_from_json(const Json& j, double& v, std::string_view path) { v = j.as_double(path); }
inline void value_from_json(const Json& j, std::string& v, std::string_view path) { v = j.as_string(path); }
inline void value_from_json(const Json& j, std::vector<std::string>& v, std::string_view path) {
  v.clear();
  if (j.is_string()) {
    v.push_back(j.as_string());
    return;
  }
  for (const Json& item : j.as_array(path)) v.push_back(item.as_string(path));
}
template <class T>
void value_from_json(const Json& j, std::optional<T>& v, std::string_view path) {
  if (j.is_null()) {
    v.reset();
    return;
  }
  value_from_json(j, v.emplace(), path);
}

// ---- visitors
template <class T>
Json fields_to_json(const T& value) {
  Json out = Json::object();
  auto visit = [&](std::string_view name, const auto& member, std::string_view) { out.set(name, value_to_json(member)); };
  const_cast<T&>(value).fields(visit);
  return out;
}

template <class T>
std::vector<std::string> field_names(const T& value = {}) {
  std::vector<std::string> out;
  auto visit = [&](std::string_view name, const auto&, std::string_view) { out.emplace_back(name); };
  const_cast<T&>(value).fields(visit);
  return out;
}

// Reads members that j has; the others keep their value. `where` names the source in errors.
template <class T>
void fields_from_json(const Json& j, T& value, std::string_view where) {
  auto known = field_names(value);
  for (const auto& [name, member] : j.as_object(where)) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      throw Error(ErrorKind::usage, std::string(where) + ": unknown key \"" + name + "\"" + did_you_mean(name, known));
    }
  }
  auto visit = [&](std::string_view name, auto& member, std::string_view) {
    if (const Json* v = j.find(name)) value_from_json(*v, member, std::string(where) + ": " + std::string(name));
  };
  value.fields(visit);
}

template <class T>
bool fields_equal(const T& a, const T& b) {
  return fields_to_json(a) == fields_to_json(b);
}

}  // namespace statera
