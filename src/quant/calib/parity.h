// Parity: ways of the reference implementations that differ from ours, each switched on by its name: of reading data
// (docs/calibration.md lists them) and of rounding (docs/methods/rtn.md).
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
  bool own_ranges = false;             // own-ranges: QSpec::own_range

  bool reads_data() const;  // whether any is on that is about data
};

// Each entry: names with commas between. "mbq-data" is all that are about data. Error(usage) names the nearest one.
Parity parse_parity(const std::vector<std::string>& entries);

}  // namespace statera
