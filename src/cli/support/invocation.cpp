// See command.h: one run of one command.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "api/version.h"
#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "cli/support/command.h"
#include "cli/support/progress_sink.h"

namespace statera {
namespace {

std::string indented(std::string_view lines) {
  std::string out;
  for (const std::string& line : split(lines, '\n')) {
    if (!trim(line).empty()) out += "  " + line + "\n";
  }
  return out;
}

// "--json" among the arguments proper: errors in other flags are JSON then, too.
bool asks_for(const std::vector<std::string>& args, std::initializer_list<std::string_view> names) {
  auto end = std::find(args.begin(), args.end(), "--");
  return std::find_first_of(args.begin(), end, names.begin(), names.end()) != end;
}

}  // namespace

void write_stdout(std::string_view text) {
  while (!text.empty()) {
    ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EPIPE) throw OutputClosed{};
    if (n < 0) throw io_error("standard output", errno);
    text.remove_prefix(static_cast<size_t>(n));
  }
}

Invocation::Invocation(const Command& command, std::vector<std::string> args) : command_(command), args_(std::move(args)) {
  common_.json = asks_for(args_, {"--json"});
}

bool Invocation::parse_bound(std::vector<Flag> flags) {
  std::vector<Flag> common;
  bind_flags(common_, common);
  for (const Flag& f : flags) {
    check(std::none_of(common.begin(), common.end(), [&](const Flag& c) { return c.name == f.name; }), "flag of every command redefined");
  }
  std::string usage = fmt::format("statera {}{} [flags]", command_.name, positionals_usage(flags));
  if (markdown_) {
    *markdown_ = fmt::format("## statera {}\n\n{}\n\n```\n{}\n```\n\n{}", command_.name, command_.summary, usage, flags_markdown(flags));
    if (*command_.examples) *markdown_ += fmt::format("\nExamples:\n\n```\n{}\n```\n", trim(command_.examples));
    return false;
  }
  if (asks_for(args_, {"--help", "-h"})) {
    std::string text =
        fmt::format("{}\n\nUsage: {}\n\n{}\nFor every command:\n{}", command_.summary, usage, flags_help(flags), flags_help(common));
    if (*command_.examples) text += "\nExamples:\n" + indented(command_.examples);
    print(text);
    return false;
  }
  flags.insert(flags.end(), common.begin(), common.end());
  parse_flags(flags, args_);
  if (common_.threads) set_num_threads(static_cast<int>(std::clamp<int64_t>(*common_.threads, -1, 1 << 20)));
  if (!common_.log_level.empty()) set_log_level(parse_log_level(common_.log_level));
  make_progress_sink(common_.progress);  // an unknown mode is told before the work begins
  return true;
}

ProgressSink Invocation::progress() const { return make_progress_sink(common_.progress); }

void Invocation::print(std::string_view text) const { write_stdout(text); }

void Invocation::show(const Json& report, std::string_view text) const {
  std::string out = json() ? report.dump(2) : std::string(text);
  if (!out.empty() && out.back() != '\n') out += '\n';
  write_stdout(out);
}

}  // namespace statera
