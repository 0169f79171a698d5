// Both forms of an override, and the checks they share.
#include "quant/recipes/overrides.h"

#include <charconv>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

[[noreturn]] void refuse(const std::string& where, const std::string& reason) { throw Error(ErrorKind::usage, where + ": " + reason); }

void check_override(const Override& o, const std::string& where) {
  if (o.pattern.empty()) refuse(where, "no pattern");
  if (o.bits && (*o.bits < 2 || *o.bits > 8)) refuse(where, "bits must be between 2 and 8, are " + std::to_string(*o.bits));
  if (o.group && (*o.group == 0 || *o.group < -1))
    refuse(where, "group must be positive, or -1 for one scale per row; is " + std::to_string(*o.group));
  const bool says = o.bits || o.group || o.symmetric;
  if (!says && !o.skip) refuse(where, "says nothing (bits, group, symmetry or skip)");
  if (says && o.skip) refuse(where, "layers that are skipped have no bits, group or symmetry");
}

int64_t number(std::string_view text, const std::string& where) {
  int64_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) refuse(where, "\"" + std::string(text) + "\" is no whole number");
  return value;
}

}  // namespace

std::string Override::text() const {
  std::vector<std::string> parts;
  if (bits) parts.push_back("bits=" + std::to_string(*bits));
  if (group) parts.push_back("group=" + std::to_string(*group));
  if (symmetric) parts.push_back(*symmetric ? "sym" : "asym");
  if (skip) parts.push_back("skip");
  return join(parts, ",") + ":" + pattern;
}

Json Override::to_json() const {
  Json j = Json::object();
  j.set("pattern", pattern);
  if (bits) j.set("bits", *bits);
  if (group) j.set("group", *group);
  if (symmetric) j.set("symmetric", *symmetric);
  if (skip) j.set("skip", true);
  return j;
}

Override parse_override(std::string_view text) {
  const std::string where = "--override " + std::string(text);
  const auto colon = text.find(':');
  if (colon == text.npos) refuse(where, "expected settings, a colon and a pattern: bits=8:down_proj");
  Override o;
  o.pattern = text.substr(colon + 1);
  for (const std::string& part : split(text.substr(0, colon), ',')) {
    const auto equals = part.find('=');
    const std::string name(trim(part.substr(0, equals)));
    const std::string_view value = equals == part.npos ? std::string_view() : trim(std::string_view(part).substr(equals + 1));
    if (name == "bits") {
      o.bits = number(value, where);
    } else if (name == "group") {
      o.group = number(value, where);
    } else if ((name == "sym" || name == "asym" || name == "skip") && equals == part.npos) {
      if (name == "skip") o.skip = true;
      else o.symmetric = name == "sym";
    } else {
      refuse(where, "unknown setting \"" + part + "\"" + did_you_mean(name, {"bits", "group", "sym", "asym", "skip"}));
    }
  }
  check_override(o, where);
  return o;
}

Override override_from_json(const Json& json, const std::string& where) {
  Override o;
  for (const auto& [name, value] : json.as_object(where)) {
    const std::string place = where + "." + name;
    if (name == "pattern") o.pattern = value.as_string(place);
    else if (name == "bits") o.bits = value.as_int(place);
    else if (name == "group") o.group = value.as_int(place);
    else if (name == "symmetric") o.symmetric = value.as_bool(place);
    else if (name == "skip") o.skip = value.as_bool(place);
    else refuse(where, "unknown key \"" + name + "\"" + did_you_mean(name, {"pattern", "bits", "group", "symmetric", "skip"}));
  }
  check_override(o, where);
  return o;
}

}  // namespace statera
