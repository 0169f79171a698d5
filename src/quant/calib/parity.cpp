// The table of names.
#include "quant/calib/parity.h"

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

struct Switch {
  const char* name;
  bool Parity::*member;
};
constexpr Switch kSwitches[] = {{"numpy-shuffle", &Parity::numpy_shuffle},
                                {"pile-blocks", &Parity::pile_blocks},
                                {"qwen2vl-last-turn", &Parity::last_turn},
                                {"flat-positions", &Parity::flat_positions},
                                {"interleave-even-texts", &Parity::interleave_even_texts}};
constexpr const char* kAll = "mbq-data";

}  // namespace

Parity parse_parity(const std::vector<std::string>& entries) {
  Parity out;
  for (const std::string& entry : entries) {
    for (const std::string& piece : split(entry, ',')) {
      const std::string name(trim(piece));
      bool known = false;
      std::vector<std::string> names{kAll};
      for (const Switch& s : kSwitches) {
        names.emplace_back(s.name);
        if (name != s.name && name != kAll) continue;
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
