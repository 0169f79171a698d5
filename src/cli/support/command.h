// Command: one entry of the program's table, `extern const Command kCommand_<stem>` in src/cli/<stem>.cpp, and Invocation: what
// its run() is given. A body parses into an option struct, calls api/ and shows the report:
//   int run(Invocation& in) {
//     InspectOptions options;
//     if (!in.parse(options)) return 0;          // --help was asked for and given
//     in.show(inspect(options));                 // a report with to_json() and to_text()
//     return 0;
//   }
//   const Command kCommand_inspect{"inspect", "what a checkpoint holds", "statera inspect MODEL --json", run};
// A command whose summary is empty is hidden from lists. `extern` is needed on the definition: constants are internal otherwise.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "cli/support/flags.h"
#include "cli/support/interrupt.h"

namespace statera {

class Invocation;

struct Command {
  const char* name;      // "chat", or two words: "tokenizer train"
  const char* summary;   // one line
  const char* examples;  // command lines, one per line
  int (*run)(Invocation&);
};

// Generated from the files of src/cli/.
std::span<const Command* const> commands();

// Flags that every command has.
struct CommonOptions {
  bool help = false;
  bool json = false;
  std::optional<int64_t> threads;
  std::string log_level;
  std::string progress = "auto";
  template <class V>
  void fields(V& v) {
    v("json", json, "print the result (and errors) as JSON on stdout");
    v("threads", threads, "threads to use; all processors when not given");
    v("log_level", log_level, "trace, debug, info, warn, error or off; warn when not given");
    v("progress", progress, "progress on stderr: auto, line, plain, json (one event a line) or off");
    v("help", help, "show this help");
  }
};

// The reader of our stdout has gone: end quietly. Thrown by Invocation::print, caught by run_program.
struct OutputClosed {};

class Invocation {
 public:
  // args: what follows the command's name.
  Invocation(const Command& command, std::vector<std::string> args);

  // Reads the flags into the option structs and applies the common ones (threads, log level). False: help or documentation was
  // asked for instead and has been given; the command then returns 0 at once. Wrong flags are Error(usage).
  template <class... T>
  [[nodiscard]] bool parse(T&... options) {
    std::vector<Flag> flags;
    (bind_flags(options, flags), ...);
    return parse_bound(std::move(flags));
  }
  bool json() const { return common_.json; }
  // For the progress of a job; empty when switched off. Copies share the terminal line.
  ProgressSink progress() const;
  // Set by Ctrl-C; a second Ctrl-C ends the process.
  const std::atomic<bool>* cancel() const { return &interrupt_flag(); }

  // Writes to stdout and flushes. Throws OutputClosed when nobody reads any more, Error(io) when the disk is full.
  void print(std::string_view text) const;
  // The result: the JSON object with --json, else the text (a newline is added when missing).
  void show(const Json& report, std::string_view text) const;
  template <class R>
  void show(const R& report) const {
    show(report.to_json(), report.to_text());
  }

  // Instead of running: makes parse() store the command's documentation here and return false.
  void describe_into(std::string* markdown) { markdown_ = markdown; }

 private:
  bool parse_bound(std::vector<Flag> flags);
  const Command& command_;
  std::vector<std::string> args_;
  CommonOptions common_;
  std::string* markdown_ = nullptr;
};

// The program: finds the command, runs it, turns exceptions into one line on stderr (with --json an object on stdout) and an exit
// code. args: argv without the program's name. Needs ignore_broken_pipe() and catch_interrupts() once before.
int run_program(std::span<const Command* const> table, const std::vector<std::string>& args);
// Documentation of all commands that are not hidden, as Markdown.
std::string commands_markdown(std::span<const Command* const> table);
// Writes to stdout past any buffer. Throws as Invocation::print does.
void write_stdout(std::string_view text);

}  // namespace statera
