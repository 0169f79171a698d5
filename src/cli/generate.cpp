// statera generate: a file of requests to a file of answers.
#include "api/generate.h"

#include "cli/support/command.h"

namespace statera {
namespace {

int run(Invocation& in) {
  EngineOptions where;
  GenerateFileOptions file;
  GenerateOptions options;
  MediaFlags media;
  if (!in.parse(where, file, options, media)) return 0;
  Engine engine = Engine::open(where);
  GenerateReport report = generate_file(engine, file, options, media, in.progress(), in.cancel());
  in.show(report);
  return report.failed > 0 ? 1 : 0;
}

}  // namespace

extern const Command kCommand_generate{"generate", "answer a file of requests, in order; continues where it stopped",
                                       "statera generate MODEL --input requests.jsonl --output answers.jsonl --seed 1", run};

}  // namespace statera
