// statera chat: one answer to --prompt, or a conversation at the terminal.
#include <unistd.h>

#include "api/engine.h"
#include "base/error.h"
#include "cli/support/command.h"
#include "cli/support/repl.h"

namespace statera {
namespace {

struct ChatOptions {
  std::optional<std::string> prompt;
  std::string system;
  std::vector<std::string> image, video;
  bool stats = false;
  template <class V>
  void fields(V& v) {
    v("prompt", prompt, "ask this and end; without it, a conversation");
    v("image", image, "picture shown with the first message: a path or URL; may be given several times");
    v("video", video, "clip shown with the first message: a path or URL; may be given several times");
    v("system", system, "system message");
    v("stats", stats, "after an answer to --prompt, say on a line of its own how fast it came");
  }
};

// Streams with a callback that must not throw: a closed output stops the answer, and is told afterwards.
Answer stream(Engine& engine, const Conversation& conversation, const GenerateOptions& options, const MediaFlags& media,
              const std::function<void(const std::string&)>& on_text) {
  std::exception_ptr failure;
  Callbacks callbacks;
  callbacks.cancel = &interrupt_flag();
  callbacks.on_token = [&](const TokenEvent& e) {
    try {
      if (!failure && !e.text.empty()) on_text(e.text);
    } catch (...) {
      failure = std::current_exception();
      interrupt_flag() = true;
    }
  };
  Answer answer = engine.chat(conversation, options, media, std::move(callbacks));
  if (failure) std::rethrow_exception(failure);
  return answer;
}

int answer_once(Invocation& in, Engine& engine, const ChatOptions& chat, const GenerateOptions& options, const MediaFlags& media) {
  auto show = [&](const std::string& text) {
    if (!in.json()) in.print(text);
  };
  Answer answer = stream(engine, first_message(chat.system, *chat.prompt, chat.image, chat.video), options, media, show);
  Json report = answer_json(answer, engine.model());
  report.set("speed", engine.stats().to_json());
  in.show(report, chat.stats ? "\n[" + engine.stats().to_text() + "]\n" : "\n");
  return answer.finish == FinishReason::cancelled ? exit_code(ErrorKind::interrupted) : 0;
}

int run(Invocation& in) {
  EngineOptions where;
  GenerateOptions options;
  MediaFlags media;
  ChatOptions chat;
  if (!in.parse(where, chat, options, media)) return 0;
  if (in.json() && !chat.prompt) throw Error(ErrorKind::usage, "--json needs --prompt");
  media.allow_urls = true;  // everything here was typed by the person
  Engine engine = Engine::open(where);
  if (chat.prompt) return answer_once(in, engine, chat, options, media);
  auto answer = [&](const Conversation& c, const std::function<void(const std::string&)>& on_text) {
    return stream(engine, c, options, media, on_text);
  };
  auto write = [&](const std::string& text) { in.print(text); };
  if (::isatty(STDIN_FILENO)) in.print("/help lists commands\n");
  Repl(answer, {read_terminal_line, write, &interrupt_flag()}, chat.system, chat.image, chat.video).run();
  return 0;
}

}  // namespace

extern const Command kCommand_chat{"chat", "talk with a model, with pictures and clips",
                                   "statera chat MODEL\n"
                                   "statera chat MODEL --image photo.jpg --prompt \"What is this?\" --temperature 0",
                                   run};

}  // namespace statera
