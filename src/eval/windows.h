// The sliding window of perplexity over one document: which tokens a pass reads and which of them it scores. Numbers only.
#pragma once

#include <cstdint>
#include <vector>

namespace statera {

// Tokens [begin, end) are read, tokens [scored, end) are predicted, each from those before it in the window.
struct Window {
  int64_t begin = 0, end = 0, scored = 0;
  bool operator==(const Window&) const = default;
};

// Windows of at most `length` tokens that begin every `stride` tokens, as transformers' page on perplexity of fixed-length models
// describes: a token is predicted once, in the first window that reaches it. A token without any before it in its window is not
// predicted: the first of the document and, with stride = length (disjoint windows), the first of each. Needs
// 1 <= stride <= length. Windows that predict nothing are left out.
std::vector<Window> sliding_windows(int64_t tokens, int64_t length, int64_t stride);

}  // namespace statera
