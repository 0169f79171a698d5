// The table of names.
#include "quant/calib/parity.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

struct Switch {
  const char* name;
  bool Parity::*member;
  bool of_data = true;
};
constexpr Switch kSwitches[] = {{"numpy-shuffle", &Parity::numpy_shuffle},
                                {"pile-blocks", &Parity::pile_blocks},
                                {"qwen2vl-last-turn", &Parity::last_turn},
                                {"flat-positions", &Parity::flat_positions},
                                {"interleave-even-texts", &Parity::interleave_even_texts},
                                {"own-ranges", &Parity::own_ranges, false}};
constexpr const char* kAllOfData = "mbq-data";

}  // namespace

bool Parity::reads_data() const {
  return std::any_of(std::begin(kSwitches), std::end(kSwitches), [&](const Switch& s) { return s.of_data && this->*s.member; });
}

Parity parse_parity(const std::vector<std::string>& entries) {
  Parity out;
  for (const std::string& entry : entries) {
    for (const std::string& piece : split(entry, ',')) {
      const std::string name(trim(piece));
      bool known = false;
      std::vector<std::string> names{kAllOfData};
      for (const Switch& s : kSwitches) {
        names.emplace_back(s.name);
        if (name != s.name && !(s.of_data && name == kAllOfData)) continue;
        out.*s.member = known = true;
      }
      if (!known)
        throw Error(ErrorKind::usage,
                    "--parity: unknown name \"" + name + "\"" + did_you_mean(name, names) + " (" + join(names, ", ") + ")");
    }
  }
  return out;
}

}  // namespace statera
