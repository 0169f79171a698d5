// CalibData: the sequences a calibrated method looks at, with masks of what each token is. Pictures are not kept: a sample knows its
// messages and builds its pixel values again when it enters the model, so memory does not grow with the number of pictures.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "nn/model.h"
#include "run/answer_mask.h"
#include "run/prompt.h"

namespace statera {

struct CalibOptions {
  // "PATH" or "PATH:FIELD"; none: the bundled set. The kinds of files are in docs/calibration.md.
  std::vector<std::string> data = {};
  std::string image_folder = {};  // where relative picture paths start; empty: the folder of the file that names them
  int64_t n_samples = 128;     // sequences in all; fewer when the data gives fewer
  int64_t max_seq_len = 2048;  // tokens of a sequence; text is cut into blocks of this length
  uint64_t seed = 0;           // of the order in which items are drawn
  // Two conversations a sample (MBQ 3.4): one behind the other, or with 512 tokens of text from a file (PATH or PATH:FIELD) between them.
  // n_samples then counts conversations. At most one of the two.
  bool few_shot = false;
  std::string interleave = {};
  std::vector<std::string> parity = {};  // names for parse_parity()
};

// Error(usage) for options that are out of range or exclude each other; looks at no file.
void check_calibration(const CalibOptions& options);

struct CalibSample {
  at::Tensor ids_T;       // i64
  at::Tensor positions;   // i64 [T] or [3, T]
  at::Tensor kinds_T;     // i8, TokenKind
  at::Tensor answers_T;   // i8, 1 where the assistant speaks (end marker included); all 0 for text blocks. Disjoint from vision
  Conversation messages;  // with pictures or clips; else empty
  std::string base_dir;   // of relative paths in messages
  std::string where;      // "FILE: item 3"
  struct Part {
    Conversation messages;  // with pictures or clips
    int64_t begin = 0;      // its first token
  };
  std::vector<Part> more;  // of joined samples: conversations after the first
  int64_t patches = 0;     // rows of pixel values, images and videos
  int64_t tokens() const { return ids_T.size(0); }
};

// What a report and a manifest say about the data.
struct CalibSummary {
  std::string hash;  // SHA-256 of ids, masks, positions and pixel values in order
  bool bundled = false;
  int64_t samples = 0, tokens = 0, vision_tokens = 0, answer_tokens = 0;
  int64_t longest = 0;  // tokens of the longest sample
  std::vector<std::string> notes;
};

struct CalibData {
  std::vector<CalibSample> samples;
  CalibSummary summary;
  PromptParts parts;
  int64_t most_patches = 0;  // rows of pixel values of the sample with the most
  // Inputs of one sample, pixel values included, cut to the sample's length.
  ModelInputs inputs(size_t i) const;
};

// Errors: not_found (a file, a tokenizer, a template), unsupported (other kinds of files), bad_file (naming file and item),
// usage (see check_calibration; data that gives no sample or does not fit the options).
CalibData read_calibration(const CalibOptions& options, PromptParts parts);

}  // namespace statera
