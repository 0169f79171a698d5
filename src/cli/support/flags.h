// flags: from an option struct with fields(v) to command-line flags. A struct may list
//   static constexpr std::string_view positional[] = {"model"};   given without a flag, in this order
//   static constexpr std::string_view required[] = {"out"};       flags that must be given
//   static constexpr std::pair<std::string_view, std::string_view> aliases[] = {{"learning_rate", "lr"}};   other names of flags
// bool -> --x, --x True, --x False, --no-x; int64_t, double, std::string -> --x VALUE (the last one counts); std::vector<std::string> -> repeatable;
// std::optional of these: no default. A positional is required when it is a string or list whose default is empty.
// All are read with - and with _ between their words.
// A member `std::vector<std::string> given` gets the names of the flags that were given.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/fields.h"

namespace statera {

enum class FlagKind { boolean, integer, number, text, list };

struct Flag {
  std::string name;  // as in the struct: w_bits
  std::string help;
  std::string fallback;  // default as text; empty: none
  FlagKind kind = FlagKind::text;
  bool positional = false, required = false;
  std::vector<std::string> aliases = {};  // as in the struct
  // Stores the given values (at least one); a value that does not fit is Error(usage).
  std::function<void(const std::vector<std::string>&)> set;

  std::string spelling() const;  // "--w-bits", or "MODEL" for a positional
};

// Text to a value; `flag` names it in the Error(usage).
bool parse_bool(std::string_view flag, const std::string& text);
int64_t parse_int(std::string_view flag, const std::string& text);
double parse_double(std::string_view flag, const std::string& text);
std::string number_text(double value);

// Parses args (program and command names left out) into the flags. Unknown flags, stray arguments and missing required ones are
// Error(usage), the first two naming the nearest flag.
void parse_flags(const std::vector<Flag>& flags, const std::vector<std::string>& args);
// The table of flags as it stands under --help, and as Markdown.
std::string flags_help(const std::vector<Flag>& flags);
std::string flags_markdown(const std::vector<Flag>& flags);
// "MODEL [FILE...]"
std::string positionals_usage(const std::vector<Flag>& flags);

// ---- binding
template <class T>
struct FlagType;
template <>
struct FlagType<bool> {
  static constexpr FlagKind kind = FlagKind::boolean;
  static bool parse(std::string_view flag, const std::vector<std::string>& v) { return parse_bool(flag, v.back()); }
  static std::string text(bool v) { return v ? "yes" : "no"; }
};
template <>
struct FlagType<int64_t> {
  static constexpr FlagKind kind = FlagKind::integer;
  static int64_t parse(std::string_view flag, const std::vector<std::string>& v) { return parse_int(flag, v.back()); }
  static std::string text(int64_t v) { return std::to_string(v); }
};
template <>
struct FlagType<double> {
  static constexpr FlagKind kind = FlagKind::number;
  static double parse(std::string_view flag, const std::vector<std::string>& v) { return parse_double(flag, v.back()); }
  static std::string text(double v) { return number_text(v); }
};
template <>
struct FlagType<std::string> {
  static constexpr FlagKind kind = FlagKind::text;
  static std::string parse(std::string_view, const std::vector<std::string>& v) { return v.back(); }
  static std::string text(const std::string& v) { return v; }
};
template <>
struct FlagType<std::vector<std::string>> {
  static constexpr FlagKind kind = FlagKind::list;
  static std::vector<std::string> parse(std::string_view, const std::vector<std::string>& v) { return v; }
  static std::string text(const std::vector<std::string>& v) { return join(v, " "); }
};
template <class T>
struct FlagType<std::optional<T>> {
  static constexpr FlagKind kind = FlagType<T>::kind;
  static std::optional<T> parse(std::string_view flag, const std::vector<std::string>& v) { return FlagType<T>::parse(flag, v); }
  static std::string text(const std::optional<T>& v) { return v ? FlagType<T>::text(*v) : ""; }
};
template <class T>
inline constexpr bool kOptional = false;
template <class T>
inline constexpr bool kOptional<std::optional<T>> = true;

// Appends the flags of `options`, which must outlive them.
template <class T>
void bind_flags(T& options, std::vector<Flag>& out) {
  auto listed = [](const auto& names, std::string_view name) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  auto visit = [&]<class M>(std::string_view name, M& member, std::string_view help) {
    Flag flag{std::string(name), std::string(help), FlagType<M>::text(member), FlagType<M>::kind, false, false, {}, nullptr};
    if constexpr (requires { T::positional; }) flag.positional = listed(T::positional, name);
    if constexpr (requires { T::required; }) flag.required = listed(T::required, name);
    if constexpr (requires { T::aliases; }) {
      for (const auto& [alias, own] : T::aliases) {
        if (own == name) flag.aliases.emplace_back(alias);
      }
    }
    flag.required |= flag.positional && flag.fallback.empty() && !kOptional<M>;
    flag.set = [&member, spelled = flag.spelling(), &options, name](const std::vector<std::string>& v) {
      member = FlagType<M>::parse(spelled, v);
      if constexpr (requires { options.given; }) options.given.emplace_back(name);
    };
    out.push_back(std::move(flag));
  };
  options.fields(visit);
  if constexpr (requires { T::positional; }) {  // in the order of the list, ahead of the flags
    auto place = [&](const Flag& f) {
      return f.positional ? std::find(std::begin(T::positional), std::end(T::positional), f.name) - std::begin(T::positional) : 1000;
    };
    std::stable_sort(out.begin(), out.end(), [&](const Flag& a, const Flag& b) { return place(a) < place(b); });
  }
}

}  // namespace statera
