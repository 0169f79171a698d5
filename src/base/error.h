// Error: the one exception for anything a user or a file can cause, and Bug for programmer mistakes.
// Context is added on the way up ("model.safetensors: tensor x: shape ..."), innermost last. Not for expected absence
// (std::optional). Libraries never print, exit or abort; only main, the server's request loop and the test runner catch.
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace statera {

enum class ErrorKind {
  usage,        // a wrong flag, option or request field
  not_found,    // a file, model, preset or method that is not there
  bad_file,     // a file that is truncated, lying, malformed or of the wrong shape
  unsupported,  // well-formed, but nothing here can handle it
  io,           // reading or writing failed (permissions, disk full, broken pipe)
  network,      // fetching failed or was refused
  denied,       // refused by policy (URL in a message file, private address, path outside the checkpoint)
  mismatch,     // two inputs that do not belong together
  memory,       // the limit cannot hold the work
  interrupted,  // Ctrl-C or a cancelled request
};

// Stable lower-case name of a kind, as printed in --json errors.
std::string_view to_string(ErrorKind kind);
// Process exit code of a kind (2 for usage, 3..11 for the others).
int exit_code(ErrorKind kind);

class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) {}
  ErrorKind kind() const { return kind_; }
  const std::string& message() const { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }
  // The same error with "context: " in front.
  Error within(std::string_view context) const { return Error(kind_, std::string(context) + ": " + message_); }

 private:
  ErrorKind kind_;
  std::string message_;
};

// A broken invariant of our own code.
class Bug : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Throws Bug naming the place when cond is false.
void check(bool cond, std::string_view what = "", std::source_location at = std::source_location::current());

// Runs f; an Error leaving it gets "context: " in front.
template <class F>
decltype(auto) with_context(std::string_view context, F&& f) {
  try {
    return std::forward<F>(f)();
  } catch (const Error& e) {
    throw e.within(context);
  }
}

// Error of kind io for errno `code` ("path: No space left on device").
Error io_error(std::string_view path, int code);

}  // namespace statera
