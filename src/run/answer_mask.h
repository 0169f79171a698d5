// answer_mask: which tokens of a prompt the assistant speaks; calibration weighs them, training learns them. Not which were generated.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "run/prompt.h"

namespace statera {

// 1 at the tokens of assistant messages, found by rendering the template up to and past each. i8 [T]. Turns that the template writes
// differently once later messages follow stay 0 and are named in `notes`.
at::Tensor answer_mask(const Conversation& messages, const PromptParts& parts, const Prompt& prompt, std::vector<std::string>& notes);

}  // namespace statera
