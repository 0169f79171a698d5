// One function a rule; a rule looks at one layer or at the layers that are computed as one.
#include "quant/recipes/targets.h"

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

bool fills_words(int64_t values, int bits) { return values * bits % 32 == 0; }

struct Rule {
  const char* reason;
  std::function<bool(const LayerPlan&)> broken;
};

const std::vector<Rule>& vllm_rules() {
  static const std::vector<Rule> rules = {
      {"8-bit activations go with 8-bit weights only",
       [](const LayerPlan& l) { return l.stored.act && l.stored.spec.bits != 8; }},
      {"8-bit activations need symmetric weights with one scale per row",
       [](const LayerPlan& l) { return l.stored.act && (l.stored.spec.group > 0 || !l.stored.spec.symmetric); }},
      {"the output head is not loaded quantized", [](const LayerPlan& l) { return l.site->role == Role::head; }},
      {"the group does not divide the input width",
       [](const LayerPlan& l) { return l.stored.spec.group > 0 && l.stored.in % l.stored.spec.group != 0; }},
      {"a row's codes do not fill whole 32-bit words",
       [](const LayerPlan& l) { return !l.stored.act && !fills_words(l.stored.in, l.stored.spec.bits); }},
      {"zero points of the outputs do not fill whole 32-bit words (symmetric weights have none)",
       [](const LayerPlan& l) { return !l.stored.act && !l.stored.spec.symmetric && !fills_words(l.stored.out, l.stored.spec.bits); }},
      {"experts with zero points need widths that are multiples of 8",
       [](const LayerPlan& l) {
         return l.site->role == Role::expert && !l.stored.spec.symmetric && (l.stored.out % 8 != 0 || l.stored.in % 8 != 0);
       }},
  };
  return rules;
}

const std::vector<Rule>& transformers_rules() {
  static const std::vector<Rule> rules = {
      {"packed zero points do not fit what it makes room for (run_compressed=False reads them; symmetric weights have none)",
       [](const LayerPlan& l) { return !l.stored.act && !l.stored.spec.symmetric; }},
      {"the group does not divide the input width",
       [](const LayerPlan& l) { return l.stored.spec.group > 0 && l.stored.in % l.stored.spec.group != 0; }},
  };
  return rules;
}

void apply_rules(const OutputPlan& plan, const std::vector<Rule>& rules, const std::string& target, std::vector<Refusal>& out) {
  for (const Rule& rule : rules) {
    int64_t count = 0;
    std::string first;
    for (const LayerPlan& l : plan.layers) {
      if (!rule.broken(l)) continue;
      if (count++ == 0) first = l.stored.path;
    }
    if (count == 0) continue;
    out.push_back({target, first + (count > 1 ? " and " + std::to_string(count - 1) + " more layers: " : ": ") + rule.reason});
  }
}

// One entry per reason, with the first place and how many more there are.
void add_fusions(const std::vector<std::string>& lines, const std::string& target, std::vector<Refusal>& out) {
  std::vector<std::pair<std::string, std::vector<std::string>>> reasons;
  for (const std::string& line : lines) {
    const auto at = line.find(": ");
    auto same = std::find_if(reasons.begin(), reasons.end(), [&](const auto& r) { return r.first == line.substr(at); });
    if (same == reasons.end()) same = reasons.insert(reasons.end(), {line.substr(at), {}});
    same->second.push_back(line.substr(0, at));
  }
  for (const auto& [reason, places] : reasons)
    out.push_back({target, places[0] + (places.size() > 1 ? " and " + std::to_string(places.size() - 1) + " more" : "") + reason});
}

}  // namespace

const std::vector<std::string>& known_targets() {
  static const std::vector<std::string> names = {"vllm", "transformers", "llama.cpp"};
  return names;
}

std::vector<Refusal> refusals(const OutputPlan& plan, std::string_view target) {
  const std::string name(target);
  std::vector<Refusal> out;
  if (name == "vllm") {
    add_fusions(split_fusions(plan.choices), name, out);
    apply_rules(plan, vllm_rules(), name, out);
  } else if (name == "transformers") {
    apply_rules(plan, transformers_rules(), name, out);
  } else if (name == "llama.cpp") {
    out.push_back({name, "it loads GGUF files only, which are not written yet"});
  } else {
    throw Error(ErrorKind::usage, "--target: unknown \"" + name + "\"" + did_you_mean(name, known_targets()) + " (known: " +
                                      join(known_targets(), ", ") + ")");
  }
  return out;
}

}  // namespace statera
