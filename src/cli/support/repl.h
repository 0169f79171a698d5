// Repl: the conversation loop of `statera chat`: lines in, streamed answers out, history, slash commands. Knows no model and no
// terminal: both are handed in.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "api/engine.h"

namespace statera {

// Answers the conversation; on_text gets the text as it comes.
using Answerer = std::function<Answer(const Conversation&, const std::function<void(const std::string&)>& on_text)>;

struct ReplIo {
  std::function<std::optional<std::string>(const std::string& prompt)> read;  // a line; nothing at the end of input
  std::function<void(const std::string&)> write;                              // at once
  std::atomic<bool>* interrupt = nullptr;                                     // set by Ctrl-C; an answer stops at it
};

class Repl {
 public:
  Repl(Answerer answer, ReplIo io, std::string system, std::vector<std::string> images, std::vector<std::string> videos);
  // Until /exit or the end of input.
  void run();
  const Conversation& conversation() const { return conversation_; }

 private:
  bool command(const std::string& line);  // false: leave
  void ask(const std::string& text);
  void reset();
  Answerer answer_;
  ReplIo io_;
  std::string system_;
  std::vector<std::string> images_, videos_;  // for the next message
  Conversation conversation_;
};

// Reads lines of standard input; a Ctrl-C while waiting gives an empty line. The prompt is shown on terminals only.
std::optional<std::string> read_terminal_line(const std::string& prompt);
// One message with the system text before it, if any.
Conversation first_message(const std::string& system, const std::string& text, const std::vector<std::string>& images,
                           const std::vector<std::string>& videos);

}  // namespace statera
