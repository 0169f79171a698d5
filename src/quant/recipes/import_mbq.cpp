// Key by key. Weight-only files mean asymmetric groups; files with activation bits mean symmetric rows whatever their w_group.
#include "quant/recipes/import_mbq.h"

#include <algorithm>

#include "base/error.h"
#include "base/strings.h"

namespace statera {
namespace {

// Keys with a meaning here.
const std::vector<std::string> kUsed = {
    "model",          "model_args",        "calib_data",      "n_samples",      "data_path", "image_folder", "interleave_format",
    "few_shot_format", "text_data_path",   "method",          "w_bit",          "a_bit",     "w_group",      "alpha",
    "reweight",       "distort",           "loss_mode",       "scale_path",     "run_process", "pseudo_quant"};
// Keys of the original that say how to run or evaluate, and nothing about the result.
const std::vector<std::string> kIgnored = {
    "config",         "batch_size",        "device",           "tasks",           "num_fewshot",        "max_batch_size",
    "output_path",    "limit",             "use_cache",        "cache_requests",  "check_integrity",    "write_out",
    "log_samples",    "wandb_log_samples", "wandb_args",       "log_samples_suffix", "system_instruction", "apply_chat_template",
    "fewshot_as_multiturn", "show_config", "include_path",     "gen_kwargs",      "verbosity",          "timezone",
    "hf_hub_log_args", "predict_only",     "seed",             "trust_remote_code"};

bool listed(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string unquoted(std::string text) {
  if (text.size() >= 2 && (text[0] == '"' || text[0] == '\'') && text.back() == text[0]) return text.substr(1, text.size() - 2);
  return text;
}

class Importer {
 public:
  Importer(const Json& job, std::string where) : job_(job), where_(std::move(where)) {}

  MbqImport run() {
    check_keys();
    name_model();
    set_method();
    set_precision();
    set_data();
    note_stages();
    return std::move(out_);
  }

 private:
  const Json* value(const char* key) const { return job_.get(key); }
  std::string place(const std::string& key) const { return where_ + ": " + key; }
  int64_t number(const char* key, int64_t otherwise) const { return value(key) ? value(key)->as_int(place(key)) : otherwise; }
  bool flag(const char* key) const { return value(key) && value(key)->as_bool(place(key)); }
  std::string text(const char* key, const char* otherwise) const {
    return value(key) ? unquoted(value(key)->as_string(place(key))) : otherwise;
  }
  void note(const std::string& line) { out_.notes.push_back(where_ + ": " + line); }

  void check_keys() {
    std::vector<std::string> known = kUsed, ignored;
    known.insert(known.end(), kIgnored.begin(), kIgnored.end());
    for (const auto& [key, v] : job_.as_object(where_)) {
      if (!listed(known, key)) throw Error(ErrorKind::bad_file, where_ + ": unknown key \"" + key + "\"" + did_you_mean(key, known));
      if (listed(kIgnored, key)) ignored.push_back(key);
    }
    if (!ignored.empty()) note("without meaning here: " + join(ignored, ", "));
  }

  // "pretrained="X",dtype=..": whose quotes the original hands on as part of the name.
  void name_model() {
    for (const std::string& pair : split(text("model_args", ""), ',')) {
      const auto equals = pair.find('=');
      if (equals == pair.npos || trim(pair.substr(0, equals)) != "pretrained") continue;
      note("made for " + unquoted(std::string(trim(pair.substr(equals + 1)))) + "; the checkpoint named on the command line counts");
    }
  }

  void set_method() {
    if (const Json* m = job_.find("method"); m && m->is_null()) throw Error(ErrorKind::unsupported, place("method") + ": none is named");
    method_ = text("method", "awq");
    Json options = Json::object(), step = Json::object(), steps = Json::array();
    if (method_ == "mbq") {
      const std::string loss = text("loss_mode", "mae");
      if (loss != "mae" && loss != "mse") throw Error(ErrorKind::bad_file, place("loss_mode") + ": mae or mse, is \"" + loss + "\"");
      options.set("reweight", flag("reweight"));
      options.set("loss", loss);
      // The published code divides by the count of all counted tokens for mae, by each kind's own for mse.
      options.set("norm", loss == "mse" ? "own" : "common");
      if (flag("distort")) options.set("distort", true);
    } else if (method_ == "smoothquant") {
      options.set("alpha", value("alpha") ? value("alpha")->as_double(place("alpha")) : 0.5);
    } else if (method_ != "awq" && method_ != "rtn") {
      throw Error(ErrorKind::bad_file, place("method") + ": \"" + method_ + "\"" + did_you_mean(method_, {"awq", "smoothquant", "mbq", "rtn"}) +
                                           " (awq, smoothquant, mbq and rtn are known)");
    }
    step.set(method_, std::move(options));
    steps.push(std::move(step));
    out_.recipe.set("steps", std::move(steps));
  }

  void set_precision() {
    const int64_t bits = number("w_bit", 8), act = number("a_bit", 16);
    if (bits >= 16) throw Error(ErrorKind::unsupported, place("w_bit") + ": weights of " + std::to_string(bits) + " bits stay as they are");
    const bool both = act < 16 && method_ != "awq";
    const int64_t group = number("w_group", 128);
    Json weights = Json::object(), activations = Json::object();
    weights.set("bits", bits);
    weights.set("group", both || group <= 0 ? int64_t{-1} : group);
    weights.set("symmetric", both);
    activations.set("bits", both ? act : int64_t{16});
    if (both && group > 0 && value("w_group")) note("w_group has no effect beside activation bits: one scale per row, as the original does");
    if (method_ == "smoothquant" && act >= 16) note("activations stay floating (the original rounds them to 16 bits)");
    out_.recipe.set("weights", std::move(weights));
    out_.recipe.set("activations", std::move(activations));
    // Without distort no rounded block reaches the next block's input there; with it trials run on such inputs.
    if (method_ != "rtn") out_.recipe.set("propagate", method_ == "mbq" && flag("distort") ? "quantized" : "original");
  }

  void set_data() {
    if (method_ == "rtn") return;
    if (const Json* source = job_.find("calib_data"); source && source->is_null())
      throw Error(ErrorKind::unsupported, place("calib_data") + ": null, but method " + method_ + " looks at data");
    const std::string source = text("calib_data", "pileval"), path = text("data_path", "");
    if (source != "pileval" && source != "coco") throw Error(ErrorKind::bad_file, place("calib_data") + ": pileval or coco, is \"" + source + "\"");
    Json data = Json::object();
    data.set("n_samples", number("n_samples", 128));
    if (path.empty()) {
      note("calib_data " + source + " without data_path: nothing is fetched; give --data, or the bundled set is used");
    } else {
      data.set("data", path);
      data.set("parity", "mbq-data");
      if (source == "pileval") data.set("max_seq_len", 512);
    }
    if (source == "coco" && !text("image_folder", "").empty()) data.set("image_folder", text("image_folder", ""));
    if (flag("few_shot_format")) data.set("few_shot", true);
    if (flag("interleave_format")) {
      const std::string texts = text("text_data_path", "");
      if (texts.empty())
        throw Error(ErrorKind::unsupported, place("interleave_format") + ": nothing is fetched, text_data_path must name a file of texts");
      data.set("interleave", texts);
    }
    out_.recipe.set("data", std::move(data));
    out_.recipe.set("seed", 42);
  }

  void note_stages() {
    if (!text("scale_path", "").empty()) note("scale_path is not read: scales are searched for, and stand in the output's scales.safetensors");
    if (value("run_process") || value("pseudo_quant")) note("run_process and pseudo_quant: search, rounding and packing are one run here");
  }

  const Json& job_;
  std::string where_, method_;
  MbqImport out_;
};

}  // namespace

bool is_mbq_file(const Json& document) {
  const Json* first = &document;
  if (document.is_array()) {
    if (document.as_array().empty()) return false;
    first = &document.as_array()[0];
  }
  if (!first->is_object()) return false;
  // Keys that no recipe of ours has at its top.
  static const std::vector<std::string> telling = {"w_bit", "a_bit", "w_group", "model_args", "calib_data", "run_process", "pseudo_quant",
                                                   "scale_path", "loss_mode", "method", "model", "tasks", "reweight"};
  return std::any_of(telling.begin(), telling.end(), [&](const std::string& key) { return first->has(key); });
}

MbqImport import_mbq(const Json& document, const std::string& where, int job) {
  if (!document.is_array()) {
    if (job > 1) throw Error(ErrorKind::usage, where + ": holds one job, not " + std::to_string(job));
    return Importer(document, where).run();
  }
  const auto& jobs = document.as_array();
  const int count = static_cast<int>(jobs.size());
  if (job == 0 && count > 1) {
    throw Error(ErrorKind::usage, where + ": holds " + std::to_string(count) + " jobs, and one is done at a time: name it as " + where +
                                      "#1 to #" + std::to_string(count));
  }
  const int chosen = std::max(1, job);
  if (chosen > count) throw Error(ErrorKind::usage, where + ": holds " + std::to_string(count) + " jobs, no #" + std::to_string(chosen));
  return Importer(jobs[static_cast<size_t>(chosen) - 1], count > 1 ? where + "#" + std::to_string(chosen) : where).run();
}

}  // namespace statera
