// Sections and their keys.
#include "quant/recipes/recipe_file.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"
#include "quant/recipe.h"
#include "quant/recipes/import_mbq.h"
#include "quant/recipes/overrides.h"
#include "quant/recipes/yaml.h"

namespace statera {
namespace {

using Names = std::vector<std::pair<std::string, std::string>>;  // key -> option

bool listed(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

[[noreturn]] void unknown(const std::string& place, const std::string& key, const std::vector<std::string>& known) {
  throw Error(ErrorKind::usage, place + ": unknown key \"" + key + "\"" + did_you_mean(key, known) +
                                    (known.empty() ? " (there are none)" : " (known: " + join(known, ", ") + ")"));
}

class Reader {
 public:
  Reader(const std::string& where, const std::vector<std::string>& flags) : where_(where), flags_(flags) {}

  RecipeFile read(const Json& document) {
    static const std::vector<std::string> top = {"steps",  "weights",       "activations", "data",   "select",    "overrides",
                                                 "target", "target_bits",   "seed",        "format", "max_shard", "search_tokens",
                                                 "propagate", "parity"};
    if (!document.is_object()) throw Error(ErrorKind::bad_file, where_ + ": no recipe: a mapping with steps, weights, ... is expected");
    for (const auto& [key, value] : document.as_object()) {
      if (key == "steps") {
        steps(value);
      } else if (key == "overrides") {
        overrides(value);
      } else if (key == "weights") {
        section(key, value, {{"bits", "w_bits"}, {"group", "w_group"}, {"symmetric", "symmetric"}});
      } else if (key == "activations") {
        section(key, value, {{"bits", "a_bits"}, {"static", "a_static"}});
      } else if (key == "select") {
        section(key, value, {{"vision", "quantize_vision"}, {"projector", "quantize_projector"}, {"head", "quantize_head"}, {"ignore", "ignore"}});
      } else if (key == "data") {
        section(key, value, data_names());
      } else if (listed(top, key)) {
        add(key, value, where_ + ": " + key);
      } else {
        unknown(where_, key, top);
      }
    }
    return std::move(out_);
  }

 private:
  void add(std::string option, const Json& value, std::string place) {
    if (value.is_null()) return;
    auto again = std::find_if(out_.options.begin(), out_.options.end(), [&](const RecipeOption& o) { return o.name == option && option == "parity"; });
    if (again != out_.options.end()) return append(again->value, value, place);  // at the top and under data
    out_.options.push_back({std::move(option), value, std::move(place)});
  }

  static void append(Json& to, const Json& more, const std::string& place) {
    Json all = Json::array();
    for (const Json* part : {static_cast<const Json*>(&to), &more}) {
      if (part->is_array()) {
        for (const Json& one : part->as_array(place)) all.push(one);
      } else {
        all.push(*part);
      }
    }
    to = std::move(all);
  }

  // Options that say what is looked at, as far as quantize has them.
  Names data_names() const {
    static const std::vector<std::string> all = {"data", "image_folder", "few_shot", "interleave", "parity", "n_samples", "max_seq_len"};
    Names names;
    for (const std::string& name : all) {
      if (listed(flags_, name)) names.emplace_back(name, name);
    }
    return names;
  }

  void section(const std::string& name, const Json& json, const Names& names) {
    const std::string place = where_ + ": " + name;
    if (json.is_null()) return;
    for (const auto& [key, value] : json.as_object(place)) {
      auto it = std::find_if(names.begin(), names.end(), [&, &k = key](const auto& n) { return n.first == k; });
      if (it == names.end()) {
        std::vector<std::string> known;
        for (const auto& n : names) known.push_back(n.first);
        unknown(place, key, known);
      }
      add(it->second, value, place + "." + key);
    }
  }

  // Keys of a step: the flags that begin with the method's name; smoothquant's begin with "smooth".
  Names step_names(const std::string& method) const {
    const std::string prefix = (method == "smoothquant" ? "smooth" : method) + "_";
    Names names;
    for (const std::string& flag : flags_) {
      if (flag.starts_with(prefix)) names.emplace_back(flag.substr(prefix.size()), flag);
    }
    return names;
  }

  void steps(const Json& json) {
    const std::string place = where_ + ": steps";
    std::string methods;
    size_t number = 0;
    for (const Json& item : json.as_array(place)) {
      const std::string here = place + "[" + std::to_string(number++) + "]";
      std::string method;
      if (item.is_string()) {
        method = item.as_string();
      } else {
        const auto& members = item.as_object(here);
        if (members.size() != 1) throw Error(ErrorKind::usage, here + ": one method a step (\"- gptq: {damp: 0.01}\")");
        method = members[0].first;
        with_context(here, [&] { method_named(method); });
        section("steps[" + std::to_string(number - 1) + "]." + method, members[0].second, step_names(method));
      }
      with_context(here, [&] { method_named(method); });
      methods += (methods.empty() ? "" : "+") + method;
    }
    if (methods.empty()) throw Error(ErrorKind::usage, place + ": no step");
    with_context(place, [&] { recipe_methods(methods); });
    add("method", methods, place);
  }

  void overrides(const Json& json) {
    const std::string place = where_ + ": overrides";
    Json list = Json::array();
    for (const Json& item : json.as_array(place))
      list.push(override_from_json(item, place + "[" + std::to_string(list.as_array().size()) + "]").text());
    add("override", list, place);
  }

  const std::string& where_;
  const std::vector<std::string>& flags_;
  RecipeFile out_;
};

}  // namespace

RecipeFile recipe_options(const Json& document, const std::string& where, const std::vector<std::string>& flags) {
  return Reader(where, flags).read(document);
}

RecipeFile read_recipe(const std::string& file, const std::vector<std::string>& flags) {
  std::string path = file;
  int job = 0;
  if (const auto hash = file.rfind('#'); hash != file.npos && !is_file(file)) {
    const char *begin = file.data() + hash + 1, *end = file.data() + file.size();
    auto [at, code] = std::from_chars(begin, end, job);
    if (code != std::errc() || at != end || job < 1) throw Error(ErrorKind::usage, file + ": a job's number, from 1, comes after #");
    path = file.substr(0, hash);
  }
  const Json document = read_yaml(path);
  if (is_mbq_file(document)) {
    MbqImport import = import_mbq(document, path, job);
    RecipeFile out = recipe_options(import.recipe, path + " (as MBQ's)", flags);
    out.notes = std::move(import.notes);
    return out;
  }
  if (job != 0) throw Error(ErrorKind::usage, file + ": one recipe stands in " + path + ", no list of jobs");
  return recipe_options(document, path, flags);
}

}  // namespace statera
