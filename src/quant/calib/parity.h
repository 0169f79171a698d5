// Parity: ways of the reference implementations that differ from ours, each switched on by its name (docs/calibration.md lists them).
#pragma once

#include <string>
#include <vector>

namespace statera {

struct Parity {
  bool numpy_shuffle = false;          // numpy-shuffle: items in the order of numpy_order(), not of the seed
  bool pile_blocks = false;            // pile-blocks: text as MBQ 3.1 reads the Pile
  bool last_turn = false;              // qwen2vl-last-turn: llava_last_turn; answers from the last <|im_start|> on
  bool flat_positions = false;         // flat-positions: all axes count tokens
  bool interleave_even_texts = false;  // interleave-even-texts: every other text is left unused
};

// Each entry: names with commas between. "mbq-data" is all of them. Error(usage) names the nearest one.
Parity parse_parity(const std::vector<std::string>& entries);

}  // namespace statera
