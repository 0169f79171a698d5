// statera docs-cli (hidden): prints docs/cli.md from the commands' own option structs.
#include "cli/support/command.h"

namespace statera {
namespace {

struct DocsOptions {
  template <class V>
  void fields(V&) {}
};

int run(Invocation& in) {
  DocsOptions options;
  if (!in.parse(options)) return 0;
  in.print(commands_markdown(commands()));
  return 0;
}

}  // namespace

extern const Command kCommand_docs_cli{"docs-cli", "", "statera docs-cli > docs/cli.md", run};

}  // namespace statera
