// progress_sink: shows ProgressEvents on stderr: one line rewritten in place on a terminal, a plain line every few seconds
// elsewhere, or a JSON object per event.
#pragma once

#include <string>

#include "base/json.h"
#include "base/progress.h"

namespace statera {

// mode: auto (line on a terminal, else plain), line, plain, json, off (an empty sink). Another one: Error(usage).
ProgressSink make_progress_sink(const std::string& mode);
Json progress_json(const ProgressEvent& event);

}  // namespace statera
