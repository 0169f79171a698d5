// Items to sequences: text joined and cut into blocks (mbq.md 3.1), conversations through the real chat template.
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "base/strings.h"
#include "quant/calib/bundled.h"
#include "quant/calib/items.h"
#include "quant/calib/sample.h"
#include "quant/sha256.h"

namespace statera {
namespace {

constexpr int64_t kBundledBlock = 512;  // the bundled text is short: shorter blocks waste less of it

struct Source {
  std::string path, field;
};

Source parse_source(const std::string& text) {
  if (is_file(text)) return {text, ""};
  const size_t colon = text.rfind(':');
  if (colon != text.npos && colon > 0 && is_file(text.substr(0, colon))) return {text.substr(0, colon), text.substr(colon + 1)};
  throw Error(ErrorKind::not_found, text + ": no such calibration file (PATH or PATH:FIELD)");
}

std::vector<size_t> shuffled(size_t count, uint64_t seed, const std::string& name) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  Rng rng(seed, hash_name(name));
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[rng.next() % i]);
  return order;
}

std::string bytes_of(const at::Tensor& t) {
  const at::Tensor c = t.contiguous();
  return {static_cast<const char*>(c.const_data_ptr()), static_cast<size_t>(c.numel()) * c.element_size()};
}

class Reader {
 public:
  Reader(const CalibOptions& options, PromptParts parts) : options_(options) {
    data_.parts = std::move(parts);
    if (options.n_samples < 1) throw Error(ErrorKind::usage, "--n-samples must be positive");
    if (options.max_seq_len < 2) throw Error(ErrorKind::usage, "--max-seq-len must be at least 2");
    if (!data_.parts.tokenizer) throw Error(ErrorKind::not_found, data_.parts.directory + ": the checkpoint has no tokenizer, which calibration needs");
    length_ = options.max_seq_len;
    const int64_t most = data_.parts.model->limits().max_positions;
    if (most > 0) length_ = std::min(length_, most);
  }

  CalibData read() {
    if (options_.data.empty()) {
      bundled();
    } else {
      for (size_t i = 0; i < options_.data.size(); ++i) {
        const Source source = parse_source(options_.data[i]);
        std::string base = options_.image_folder;
        if (base.empty()) base = std::filesystem::path(source.path).parent_path().string();
        take(ItemFile(source.path), source.field, base, share(i, options_.data.size()), length_);
      }
    }
    if (data_.samples.empty()) {
      throw Error(ErrorKind::usage, "the calibration data gives no sample of at most " + std::to_string(length_) + " tokens: " +
                                        std::to_string(text_tokens_) + " tokens of text make no block, " + std::to_string(too_long_) +
                                        " conversations are longer; lower or raise --max-seq-len, or give more --data");
    }
    finish();
    return std::move(data_);
  }

 private:
  // The samples are divided evenly over the files; earlier ones take what is left over.
  int64_t share(size_t i, size_t files) const {
    const auto n = static_cast<int64_t>(files);
    return options_.n_samples / n + (static_cast<int64_t>(i) < options_.n_samples % n ? 1 : 0);
  }

  void bundled() {
    data_.summary.bundled = true;
    const bool talks = data_.parts.chat_template.has_value();
    const bool sees = data_.parts.processor.has_value();
    int64_t left = options_.n_samples;
    if (talks && left > 1) {
      const ItemFile file(bundled_messages(), "messages.jsonl");
      std::vector<size_t> usable;
      for (size_t i = 0; i < file.size(); ++i) {
        if (sees || std::get<Conversation>(read_item(file.item(i), {}, file.where(i))).media().empty()) usable.push_back(i);
      }
      take_items(file, usable, "", "", left / 2, length_);
      left -= static_cast<int64_t>(data_.samples.size());
    }
    take(ItemFile(std::string(bundled_file("text.txt")), "text.txt"), "", "", left, std::min(length_, kBundledBlock));
  }

  void take(const ItemFile& file, const std::string& field, const std::string& base, int64_t count, int64_t block) {
    take_items(file, shuffled(file.size(), options_.seed, file.where(0)), field, base, count, block);
  }

  void take_items(const ItemFile& file, const std::vector<size_t>& order, const std::string& field, const std::string& base, int64_t count,
                  int64_t block) {
    std::vector<int64_t> stream;
    const auto until = static_cast<int64_t>(data_.samples.size()) + count;
    for (size_t i : order) {
      if (static_cast<int64_t>(data_.samples.size()) >= until) break;
      const std::string where = file.where(i);
      auto item = read_item(file.item(i), {field}, where);
      if (auto* talk = std::get_if<Conversation>(&item)) {
        with_context(where, [&] { add_conversation(std::move(*talk), base, where); });
        continue;
      }
      // differs: documents longer than a block are cut to one block; the reference skips them.
      std::vector<int64_t> ids = data_.parts.tokenizer->encode(trim(std::get<std::string>(item)));
      ids.resize(std::min(ids.size(), static_cast<size_t>(block)));
      text_tokens_ += static_cast<int64_t>(ids.size());
      stream.insert(stream.end(), ids.begin(), ids.end());
      while (static_cast<int64_t>(stream.size()) >= block && static_cast<int64_t>(data_.samples.size()) < until) {
        add_block({stream.begin(), stream.begin() + block}, where);
        stream.erase(stream.begin(), stream.begin() + block);
      }
    }
  }

  void add_block(const std::vector<int64_t>& ids, const std::string& where) {
    CalibSample s;
    ModelInputs in;
    in.input_ids = at::tensor(ids, at::kLong);
    in.bounds = one_sequence(in.input_ids.size(0));
    s.ids_T = in.input_ids;
    s.positions = data_.parts.model->positions(in).first;
    s.kinds_T = data_.parts.model->token_kinds(s.ids_T);
    // Text that happens to spell a placeholder has no picture behind it.
    if (s.kinds_T.sum().item<int64_t>() > 0) throw Error(ErrorKind::bad_file, where + ": the text spells out a picture placeholder");
    s.answers_T = at::zeros({s.tokens()}, at::kChar);
    s.where = where;
    hashes_ += sha256(bytes_of(s.ids_T));
    data_.samples.push_back(std::move(s));
  }

  void add_conversation(Conversation messages, const std::string& base, const std::string& where) {
    PromptOptions options;
    options.media.fetch.base_dir = base;
    const auto& list = messages.messages().as_array();
    options.render.add_generation_prompt = list.empty() || list.back().get_string("role", "") != "assistant";
    const Prompt prompt = make_prompt(messages, data_.parts, options);
    const ModelInputs& in = prompt.inputs;
    const int64_t T = std::min(in.input_ids.size(0), length_);
    CalibSample s;
    s.kinds_T = data_.parts.model->token_kinds(in.input_ids);
    const int64_t visual = s.kinds_T.sum().item<int64_t>();
    s.kinds_T = s.kinds_T.slice(0, 0, T).clone();
    // A picture cannot be cut.
    if (s.kinds_T.sum().item<int64_t>() != visual) {
      ++too_long_;
      return;
    }
    s.ids_T = in.input_ids.slice(0, 0, T).clone();
    s.positions = in.position_ids.slice(-1, 0, T).clone();
    std::vector<std::string> notes;
    s.answers_T = answer_mask(messages, data_.parts, prompt, notes).slice(0, 0, T).clone();
    for (const std::string& note : notes) data_.summary.notes.push_back(where + ": " + note);
    hashes_ += sha256(bytes_of(s.ids_T)) + sha256(bytes_of(s.answers_T));
    int64_t patches = 0;
    for (const at::Tensor& pixels : {in.pixel_values, in.pixel_values_videos}) {
      if (!pixels.defined()) continue;
      hashes_ += sha256(bytes_of(pixels));
      patches += pixels.size(0);
    }
    data_.most_patches = std::max(data_.most_patches, patches);
    if (patches > 0) s.messages = std::move(messages);
    s.base_dir = base;
    s.where = where;
    data_.samples.push_back(std::move(s));
  }

  void finish() {
    CalibSummary& out = data_.summary;
    for (const CalibSample& s : data_.samples) {
      out.tokens += s.tokens();
      out.longest = std::max(out.longest, s.tokens());
      out.vision_tokens += s.kinds_T.sum().item<int64_t>();
      out.answer_tokens += s.answers_T.sum().item<int64_t>();
    }
    out.samples = static_cast<int64_t>(data_.samples.size());
    out.hash = sha256(hashes_);
    if (out.bundled) {
      out.notes.push_back("calibrated with the small bundled set (" + std::to_string(out.samples) + " samples, " + std::to_string(out.tokens) +
                          " tokens); --data FILE with some 128 samples like what the model will see does better");
    } else if (out.samples < options_.n_samples) {
      out.notes.push_back("the data gave " + std::to_string(out.samples) + " of " + std::to_string(options_.n_samples) + " samples");
    }
    if (too_long_ > 0)
      out.notes.push_back(std::to_string(too_long_) + " conversations were left out: their pictures reach beyond " + std::to_string(length_) + " tokens");
  }

  const CalibOptions& options_;
  CalibData data_;
  int64_t length_ = 0, text_tokens_ = 0, too_long_ = 0;
  std::string hashes_;
};

}  // namespace

ModelInputs CalibData::inputs(size_t i) const {
  const CalibSample& s = samples.at(i);
  ModelInputs in;
  if (!s.messages.empty()) {
    PromptOptions options;
    options.media.fetch.base_dir = s.base_dir;
    const auto& list = s.messages.messages().as_array();
    options.render.add_generation_prompt = list.back().get_string("role", "") != "assistant";
    in = with_context(s.where, [&] { return make_prompt(s.messages, parts, options).inputs; });
    if (!in.input_ids.slice(0, 0, s.tokens()).equal(s.ids_T)) throw Error(ErrorKind::mismatch, s.where + ": the pictures changed while they were in use");
  }
  in.input_ids = s.ids_T;
  in.position_ids = s.positions;
  in.bounds = one_sequence(s.tokens());
  return in;
}

CalibData read_calibration(const CalibOptions& options, PromptParts parts) { return Reader(options, std::move(parts)).read(); }

}  // namespace statera
