// generate: a file of requests to a file of answers, in order, continuing where an earlier run stopped.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "api/engine.h"
#include "base/progress.h"

namespace statera {

struct GenerateFileOptions {
  std::string input, output;
  static constexpr std::string_view required[] = {"input", "output"};
  template <class V>
  void fields(V& v) {
    v("input", input,
      "JSONL file: {\"id\"?, \"messages\": [...]} or {\"id\"?, \"prompt\": text, \"images\"?: [...]} a line, and options beside");
    v("output", output, "JSONL file to append answers to");
  }
};

struct GenerateReport {
  int64_t requests = 0, skipped = 0, answered = 0, failed = 0;  // skipped: answered by an earlier run
  EngineStats speed;
  Json to_json() const;
  std::string to_text() const;
};

// Answers every request of `file.input` that `file.output` does not hold yet; lines appear in the order of the input, each
// {"id", "text", "finish_reason", "usage", "seed", "model", "version"} or {"id", "error": {"kind", "message"}, ...}. A cut last line of
// an earlier run is removed first. Keys beside a request's messages override `options`. Without a seed in its line, request i of the
// file draws with seed + i. Errors: bad_file for an answers file that is none, mismatch when it answers requests that the input does
// not have, interrupted when `cancel` was set (what is written stays).
GenerateReport generate_file(Engine& engine, const GenerateFileOptions& file, const GenerateOptions& options, const MediaFlags& media,
                             const ProgressSink& progress = {}, const std::atomic<bool>* cancel = nullptr);

}  // namespace statera
