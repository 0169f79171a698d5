// See flags.h. The only user of CLI11, which splits the command line; names, values, defaults and messages are ours.
#include "cli/support/flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <map>

#include "base/error.h"

namespace statera {
namespace {

constexpr size_t kHelpColumn = 30, kHelpWidth = 110;

[[noreturn]] void bad_value(std::string_view flag, std::string_view expected, const std::string& text) {
  throw Error(ErrorKind::usage, fmt::format("{}: expected {}, got \"{}\"", flag, expected, text));
}

std::string kebab(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string upper(std::string name) {
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

std::string_view placeholder(FlagKind kind) {
  switch (kind) {
    case FlagKind::boolean:
      return "";
    case FlagKind::integer:
      return " N";
    case FlagKind::number:
      return " X";
    case FlagKind::text:
      return " TEXT";
    case FlagKind::list:
      return " TEXT";
  }
  return "";
}

// "--w-bits N", "--no-sym" (a switch that is on by default), "MODEL".
std::string shown(const Flag& f) {
  if (f.positional) return f.spelling();
  if (f.kind == FlagKind::boolean) return (f.fallback == "yes" ? "--no-" : "--") + kebab(f.name);
  return f.spelling() + std::string(placeholder(f.kind)) + (f.kind == FlagKind::list ? " ..." : "");
}

std::string described(const Flag& f) {
  std::string out = f.help;
  if (f.kind == FlagKind::boolean && f.fallback == "yes") out = "turn off: " + out;
  if (f.kind == FlagKind::boolean && f.fallback.empty()) out += " (--no-" + kebab(f.name) + " to turn off)";
  for (const std::string& alias : f.aliases) out += " (or --" + kebab(alias) + ")";
  if (f.required && !f.positional) out += " (required)";
  if (!f.fallback.empty() && f.kind != FlagKind::boolean) out += " (default: " + f.fallback + ")";
  return out;
}

[[noreturn]] void unknown_argument(const std::vector<Flag>& flags, const std::string& given) {
  if (given.size() < 2 || given[0] != '-') throw Error(ErrorKind::usage, "unexpected argument \"" + given + "\"");
  std::vector<std::string> known;
  for (const Flag& f : flags) {
    if (f.positional) continue;
    known.push_back(f.spelling());
    if (f.kind == FlagKind::boolean) known.push_back("--no-" + kebab(f.name));
  }
  std::string name = given.substr(0, given.find('='));
  throw Error(ErrorKind::usage, "unknown flag " + name + did_you_mean(name, known));
}

// "--lr", "--learning-rate" and "--learning_rate".
std::vector<std::string> spellings(const Flag& f) {
  std::vector<std::string> names{f.name}, out;
  names.insert(names.end(), f.aliases.begin(), f.aliases.end());
  for (const std::string& name : names) {
    out.push_back("--" + kebab(name));
    if (kebab(name) != name) out.push_back("--" + name);
  }
  return out;
}

// For CLI11; of a switch also the forms that turn it off.
std::string listed(const Flag& f) {
  std::vector<std::string> names = spellings(f);
  if (f.kind == FlagKind::boolean) {
    for (const std::string& name : spellings(f)) {
      if (name == kebab(name)) names.push_back("!--no-" + name.substr(2));
    }
  }
  return join(names, ",");
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// "--sym True" as "--sym=True". Only these two words: another argument behind a switch stands for itself.
std::vector<std::string> with_joined_switches(const std::vector<Flag>& flags, const std::vector<std::string>& args) {
  std::map<std::string, FlagKind> kinds;
  for (const Flag& f : flags) {
    if (f.positional) continue;
    for (const std::string& name : spellings(f)) kinds.emplace(name, f.kind);
  }
  std::vector<std::string> out;
  for (size_t i = 0; i < args.size(); ++i) {
    out.push_back(args[i]);
    const auto found = kinds.find(args[i]);
    if (found == kinds.end() || i + 1 == args.size()) continue;
    const std::string& next = args[i + 1];
    if (found->second != FlagKind::boolean) {
      out.push_back(next);  // its value, whatever it looks like
      ++i;
    } else if (lower(next) == "true" || lower(next) == "false") {
      out.back() += "=" + next;
      ++i;
    }
  }
  return out;
}

CLI::Option* add(CLI::App& app, const Flag& f) {
  if (f.kind == FlagKind::boolean) {
    auto* option = app.add_flag(listed(f));
    return option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
  auto* option = app.add_option(f.positional ? f.name : listed(f), [](const CLI::results_t&) { return true; });
  option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  if (f.positional && f.kind == FlagKind::list) option->expected(-1);
  return option->allow_extra_args(f.positional && f.kind == FlagKind::list);
}

}  // namespace

std::string Flag::spelling() const { return positional ? upper(kebab(name)) : "--" + kebab(name); }

bool parse_bool(std::string_view flag, const std::string& given) {
  const std::string text = lower(given);
  if (text == "true" || text == "1" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "0" || text == "no" || text == "off" || text == "-1") return false;
  bad_value(flag, "true or false", given);
}

int64_t parse_int(std::string_view flag, const std::string& text) {
  int64_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) bad_value(flag, "a whole number", text);
  return value;
}

double parse_double(std::string_view flag, const std::string& text) {
  double value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) bad_value(flag, "a number", text);
  return value;
}

std::string number_text(double value) { return fmt::format("{}", value); }

void parse_flags(const std::vector<Flag>& flags, const std::vector<std::string>& args) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  std::vector<CLI::Option*> options;
  for (const Flag& f : flags) options.push_back(add(app, f));
  try {
    const std::vector<std::string> joined = with_joined_switches(flags, args);
    app.parse(std::vector<std::string>(joined.rbegin(), joined.rend()));  // CLI11 takes them last first
  } catch (const CLI::ParseError& e) {
    throw Error(ErrorKind::usage, e.what());
  }
  auto extras = app.remaining();
  auto first = std::find_if(extras.begin(), extras.end(), [](const std::string& s) { return s.size() > 1 && s[0] == '-'; });
  if (first != extras.end()) unknown_argument(flags, *first);
  if (!extras.empty()) unknown_argument(flags, extras.front());
  for (size_t i = 0; i < flags.size(); ++i) {
    auto values = options[i]->results();
    if (!values.empty()) {
      flags[i].set(values);
    } else if (flags[i].required) {
      throw Error(ErrorKind::usage, "missing " + flags[i].spelling() + ": " + flags[i].help);
    }
  }
}

std::string flags_help(const std::vector<Flag>& flags) {
  std::string out;
  for (const Flag& f : flags) {
    std::string line = "  " + shown(f);
    line += line.size() + 2 > kHelpColumn ? "\n" + std::string(kHelpColumn, ' ') : std::string(kHelpColumn - line.size(), ' ');
    size_t column = kHelpColumn;
    for (const std::string& word : split(described(f), ' ')) {
      if (column > kHelpColumn && column + 1 + word.size() > kHelpWidth) {
        line += "\n" + std::string(kHelpColumn, ' ');
        column = kHelpColumn;
      }
      if (column > kHelpColumn) line += ' ', ++column;
      line += word;
      column += word.size();
    }
    out += line + "\n";
  }
  return out;
}

std::string flags_markdown(const std::vector<Flag>& flags) {
  std::string out = "| flag | meaning | default |\n|---|---|---|\n";
  for (const Flag& f : flags) {
    std::string help = f.help, fallback = f.fallback;
    for (size_t at = 0; (at = help.find('|', at)) != help.npos; at += 2) help.insert(at, "\\");
    if (f.required) help += f.positional ? "" : " (required)";
    out += fmt::format("| `{}` | {} | {} |\n", shown(f), help, fallback.empty() ? "" : "`" + fallback + "`");
  }
  return out;
}

std::string positionals_usage(const std::vector<Flag>& flags) {
  std::string out;
  for (const Flag& f : flags) {
    if (!f.positional) continue;
    std::string name = f.spelling() + (f.kind == FlagKind::list ? "..." : "");
    out += " " + (f.required ? name : "[" + name + "]");
  }
  return out;
}

}  // namespace statera
