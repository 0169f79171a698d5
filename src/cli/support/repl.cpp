// See repl.h.
#include "cli/support/repl.h"

#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/strings.h"
#include "cli/support/command.h"

namespace statera {
namespace {

constexpr const char* kHelp =
    "/image PATH   show a picture (or URL) with the next message\n"
    "/video PATH   show a clip with the next message\n"
    "/reset        forget the conversation\n"
    "/help         this list\n"
    "/exit         leave (also Ctrl-D)\n"
    "A line that ends in \\ goes on. Ctrl-C stops an answer; twice leaves.\n";

Json message(const char* role, const std::string& text) {
  Json out = Json::object();
  out.set("role", role);
  out.set("content", text);
  return out;
}

}  // namespace

Repl::Repl(Answerer answer, ReplIo io, std::string system, std::vector<std::string> images, std::vector<std::string> videos)
    : answer_(std::move(answer)), io_(std::move(io)), system_(std::move(system)), images_(std::move(images)), videos_(std::move(videos)) {
  reset();
}

void Repl::reset() {
  conversation_ = Conversation();
  if (!system_.empty()) conversation_.add(message("system", system_), "system");
}

void Repl::run() {
  while (auto line = io_.read("> ")) {
    while (!line->empty() && line->back() == '\\') {
      line->back() = '\n';
      auto more = io_.read(". ");
      if (!more) break;
      *line += *more;
    }
    std::string text(trim(*line));
    if (text.empty()) continue;
    if (text[0] == '/') {
      if (!command(text)) return;
    } else {
      ask(text);
    }
  }
}

bool Repl::command(const std::string& line) {
  size_t space = line.find(' ');
  std::string name = line.substr(0, space), argument(space == line.npos ? "" : trim(std::string_view(line).substr(space)));
  if (name == "/exit" || name == "/quit") return false;
  if (name == "/help") {
    io_.write(kHelp);
  } else if (name == "/reset") {
    reset();
    images_.clear();
    videos_.clear();
  } else if (name == "/image" || name == "/video") {
    if (argument.empty()) {
      io_.write(name + " needs a path\n");
    } else {
      (name == "/image" ? images_ : videos_).push_back(argument);
    }
  } else {
    io_.write("unknown command " + name + did_you_mean(name, {"/image", "/video", "/reset", "/help", "/exit"}) + "\n");
  }
  return true;
}

void Repl::ask(const std::string& text) {
  *io_.interrupt = false;
  Conversation next = conversation_;
  try {
    next.add(Conversation::user(text, images_, videos_).messages().as_array()[0], "message");
    images_.clear();
    videos_.clear();
    Answer answer = answer_(next, io_.write);
    io_.write(answer.finish == FinishReason::cancelled ? " [stopped]\n"
              : answer.finish == FinishReason::length  ? " [cut: max_new_tokens]\n"
                                                       : "\n");
    next.add(message("assistant", answer.text), "answer");
    conversation_ = std::move(next);
  } catch (const Error& e) {  // a picture that is none, a full context: the conversation stays as it was
    io_.write("error: " + e.message() + "\n");
  }
  *io_.interrupt = false;
}

std::optional<std::string> read_terminal_line(const std::string& prompt) {
  static std::string buffered;
  if (::isatty(STDIN_FILENO)) write_stdout(prompt);
  for (size_t end; (end = buffered.find('\n')) == buffered.npos;) {
    char chunk[4096];
    ssize_t n = ::read(STDIN_FILENO, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) {
      write_stdout("\n(Ctrl-C again, Ctrl-D or /exit leaves)\n");
      return "";
    }
    if (n < 0) throw io_error("standard input", errno);
    if (n == 0) {
      if (buffered.empty()) return std::nullopt;
      buffered += '\n';
    }
    buffered.append(chunk, static_cast<size_t>(n));
  }
  size_t end = buffered.find('\n');
  std::string line = buffered.substr(0, end);
  buffered.erase(0, end + 1);
  return line;
}

Conversation first_message(const std::string& system, const std::string& text, const std::vector<std::string>& images,
                           const std::vector<std::string>& videos) {
  Conversation out;
  if (!system.empty()) out.add(message("system", system), "system");
  out.add(Conversation::user(text, images, videos).messages().as_array()[0], "message");
  return out;
}

}  // namespace statera
