// Draft: one tokenized piece (a block of text or a whole conversation) before it becomes a sample, alone or joined with others.
// Pixel values are gone by then, their hashes stay.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quant/calib/sample.h"

namespace statera {

struct Draft {
  ModelInputs inputs;     // ids, positions, grids and times of the whole piece; no pixel values
  at::Tensor answers_T;   // i8
  Conversation messages;  // with pictures or clips; else empty
  std::string where;
  std::string hashes;   // of pixel values, in order
  int64_t patches = 0;  // rows of pixel values
  std::vector<std::string> notes;
  int64_t tokens() const { return inputs.input_ids.size(0); }
};

// ids as text; `answers`: whether all of it counts as answer. Error(bad_file) naming `where` when the ids spell a picture placeholder.
Draft text_draft(const std::vector<int64_t>& ids, bool answers, const Model& model, const std::string& where);

// A conversation through the chat template, with the opening of an answer after a last turn of the user. from_last_start: answers are
// everything from the last <|im_start|> on, instead of what the assistant says. Errors are those of make_prompt.
Draft conversation_draft(Conversation messages, const PromptParts& parts, const std::string& base_dir, bool from_last_start,
                         const std::string& where);
// The prompt behind conversation_draft, pixel values included.
Prompt calibration_prompt(const Conversation& messages, const PromptParts& parts, const std::string& base_dir);

// One sample of drafts that follow one another, cut to `length` tokens. Positions are the model's own for the whole sequence, or plain
// numbers (flat). Absent when a picture or clip reaches beyond the cut.
std::optional<CalibSample> make_sample(std::span<const Draft> drafts, const Model& model, const std::string& base_dir, int64_t length,
                                       bool flat);

}  // namespace statera
