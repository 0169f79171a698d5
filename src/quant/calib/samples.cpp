// Items to samples: text joined and cut into blocks (MBQ 3.1), conversations alone or in pairs (MBQ 3.4).
#include <ATen/ops/cat.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "base/strings.h"
#include "quant/calib/bundled.h"
#include "quant/calib/draft.h"
#include "quant/calib/items.h"
#include "quant/calib/numpy_order.h"
#include "quant/calib/parity.h"
#include "quant/calib/sample.h"
#include "quant/sha256.h"

namespace statera {
namespace {

constexpr int64_t kBundledBlock = 512;                   // the bundled text is short: shorter blocks waste less of it
constexpr int64_t kPileBlock = 512, kInterleaved = 512;  // MBQ 3.1, 3.4

struct Source {
  std::string path, field;
};

Source parse_source(const std::string& text) {
  if (is_file(text)) return {text, ""};
  const size_t colon = text.rfind(':');
  if (colon != text.npos && colon > 0 && is_file(text.substr(0, colon))) return {text.substr(0, colon), text.substr(colon + 1)};
  throw Error(ErrorKind::not_found, text + ": no such calibration file (PATH or PATH:FIELD)");
}

std::string sha256_of(const at::Tensor& t) {
  const at::Tensor c = t.contiguous();
  return sha256({static_cast<const char*>(c.const_data_ptr()), static_cast<size_t>(c.numel()) * c.element_size()});
}

class Reader {
 public:
  Reader(const CalibOptions& options, PromptParts parts) : options_(options), parity_(parse_parity(options.parity)) {
    check_calibration(options);
    data_.parts = std::move(parts);
    if (!data_.parts.tokenizer)
      throw Error(ErrorKind::not_found, data_.parts.directory + ": the checkpoint has no tokenizer, which calibration needs");
    length_ = options.max_seq_len;
    const int64_t most = data_.parts.model->limits().max_positions;
    if (most > 0) length_ = std::min(length_, most);
    if (parity_.pile_blocks && length_ < kPileBlock)
      throw Error(ErrorKind::usage,
                  "--parity pile-blocks makes sequences of 512 tokens; --max-seq-len or the model allows " + std::to_string(length_));
  }

  CalibData read() {
    if (options_.data.empty()) {
      bundled();
    } else {
      if (!options_.interleave.empty()) read_interleaved();
      for (size_t i = 0; i < options_.data.size(); ++i) {
        const Source source = parse_source(options_.data[i]);
        base_ = options_.image_folder;
        if (base_.empty()) base_ = std::filesystem::path(source.path).parent_path().string();
        take(ItemFile(source.path, ItemReading{source.field}), source.field, share(i, options_.data.size()), length_);
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
  bool joins() const { return options_.few_shot || !options_.interleave.empty(); }
  // The samples are divided evenly over the files; earlier ones take what is left over.
  int64_t share(size_t i, size_t files) const {
    const auto n = static_cast<int64_t>(files);
    return options_.n_samples / n + (static_cast<int64_t>(i) < options_.n_samples % n ? 1 : 0);
  }
  // Of the seed and the place among the files, not of their names: the same content gives the same samples wherever it lies.
  std::vector<size_t> order_of(const ItemFile& file) {
    if (parity_.numpy_shuffle) return numpy_order(file.size());
    std::vector<size_t> order(file.size());
    std::iota(order.begin(), order.end(), size_t{0});
    Rng rng(options_.seed, files_++);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.next() % i]);
    return order;
  }
  int64_t made() const { return static_cast<int64_t>(data_.samples.size()); }

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
      take_items(file, usable, {}, left / 2, length_);
      left -= made();
    }
    take(ItemFile(std::string(bundled_file("text.txt")), "text.txt"), "", left, std::min(length_, kBundledBlock));
  }

  void take(const ItemFile& file, const std::string& field, int64_t count, int64_t block) {
    take_items(file, order_of(file), {field, parity_.last_turn}, count, parity_.pile_blocks ? kPileBlock : block);
  }

  // Until `count` samples are made of the file; joined, of count conversations; with pile-blocks, of count documents.
  void take_items(const ItemFile& file, const std::vector<size_t>& order, const ItemReading& how, int64_t count, int64_t block) {
    std::vector<int64_t> stream;
    waiting_.clear();
    const int64_t until = made() + (joins() ? count / 2 : count);
    int64_t documents = 0;  // of pile-blocks; never fewer than the blocks they make
    for (size_t i : order) {
      if (made() >= until || documents >= count) break;
      const std::string where = file.where(i);
      auto item = read_item(file.item(i), how, where);
      if (auto* talk = std::get_if<Conversation>(&item)) {
        add_conversation(std::move(*talk), where);
        continue;
      }
      if (joins()) throw Error(ErrorKind::usage, where + ": is text; --few-shot and --interleave join conversations");
      std::vector<int64_t> ids = encode(std::get<std::string>(item), where);
      if (parity_.pile_blocks) {
        if (ids.empty() || static_cast<int64_t>(ids.size()) > block) continue;
        ++documents;
      }
      // differs: documents longer than a block are cut to one block; the reference skips them.
      ids.resize(std::min(ids.size(), static_cast<size_t>(block)));
      text_tokens_ += static_cast<int64_t>(ids.size());
      stream.insert(stream.end(), ids.begin(), ids.end());
      while (static_cast<int64_t>(stream.size()) >= block && made() < until) {
        const Draft draft = text_draft({stream.begin(), stream.begin() + block}, false, *data_.parts.model, where);
        add_sample({&draft, 1});
        stream.erase(stream.begin(), stream.begin() + block);
      }
    }
    if (!waiting_.empty()) data_.summary.notes.push_back(waiting_[0].where + ": left out, no conversation is left to join it with");
  }

  std::vector<int64_t> encode(const std::string& text, const std::string& where) const {
    return with_context(where, [&] { return data_.parts.tokenizer->encode(trim(text)); });
  }

  void add_conversation(Conversation messages, const std::string& where) {
    if (parity_.last_turn && !data_.parts.tokenizer->token_id("<|im_start|>"))
      throw Error(ErrorKind::usage, data_.parts.directory + ": --parity qwen2vl-last-turn needs a tokenizer that has <|im_start|>");
    Draft draft =
        with_context(where, [&] { return conversation_draft(std::move(messages), data_.parts, base_, parity_.last_turn, where); });
    for (const std::string& note : draft.notes) data_.summary.notes.push_back(where + ": " + note);
    waiting_.push_back(std::move(draft));
    if (joins() && waiting_.size() < 2) return;
    if (!options_.interleave.empty()) waiting_.insert(waiting_.begin() + 1, next_interleaved());
    add_sample(waiting_);
    waiting_.clear();
  }

  // As many texts as there can be pairs, cut to their first tokens (differs, MBQ 7.4: the original takes 128 and uses every other one).
  void read_interleaved() {
    const Source source = parse_source(options_.interleave);
    const ItemFile file(source.path, ItemReading{source.field});
    const int64_t step = parity_.interleave_even_texts ? 2 : 1;
    for (size_t i : order_of(file)) {
      if (static_cast<int64_t>(texts_.size()) >= options_.n_samples / 2 * step) break;
      const std::string where = file.where(i);
      const auto item = read_item(file.item(i), {source.field}, where);
      if (!std::holds_alternative<std::string>(item))
        throw Error(ErrorKind::usage, where + ": is a conversation; --interleave puts text between them");
      std::vector<int64_t> ids = encode(std::get<std::string>(item), where);
      if (static_cast<int64_t>(ids.size()) <= kInterleaved) continue;
      ids.resize(kInterleaved);
      texts_.push_back(text_draft(ids, true, *data_.parts.model, where));
    }
  }
  Draft next_interleaved() {
    if (next_text_ >= texts_.size())
      throw Error(ErrorKind::usage, options_.interleave + ": has " + std::to_string(texts_.size()) + " documents of more than " +
                                        std::to_string(kInterleaved) + " tokens, too few for " + std::to_string(options_.n_samples) +
                                        " conversations");
    const size_t at = next_text_;
    next_text_ += parity_.interleave_even_texts ? 2 : 1;
    return texts_[at];
  }

  void add_sample(std::span<const Draft> drafts) {
    auto s = make_sample(drafts, *data_.parts.model, base_, length_, parity_.flat_positions);
    if (!s) {
      ++too_long_;
      return;
    }
    hashes_ += sha256_of(s->ids_T) + sha256_of(s->answers_T) + sha256_of(s->positions);
    int64_t patches = 0;
    for (const Draft& d : drafts) {
      hashes_ += d.hashes;
      patches += d.patches;
    }
    data_.most_patches = std::max(data_.most_patches, patches);
    s->patches = patches;
    data_.samples.push_back(std::move(*s));
  }

  void finish() {
    CalibSummary& out = data_.summary;
    for (const CalibSample& s : data_.samples) {
      out.tokens += s.tokens();
      out.longest = std::max(out.longest, s.tokens());
      out.vision_tokens += s.kinds_T.sum().item<int64_t>();
      out.answer_tokens += s.answers_T.sum().item<int64_t>();
    }
    out.samples = made();
    out.hash = sha256(hashes_);
    const int64_t wanted = options_.n_samples / (joins() ? 2 : 1);
    if (out.bundled) {
      out.notes.push_back("calibrated with the small bundled set (" + std::to_string(out.samples) + " samples, " +
                          std::to_string(out.tokens) +
                          " tokens); --data FILE with some 128 samples like what the model will see does better");
    } else if (out.samples < wanted && !parity_.pile_blocks) {
      out.notes.push_back("the data gave " + std::to_string(out.samples) + " of " + std::to_string(wanted) + " samples");
    }
    if (too_long_ > 0)
      out.notes.push_back(std::to_string(too_long_) + (joins() ? " pairs" : " conversations") +
                          " were left out: their pictures reach beyond " + std::to_string(length_) + " tokens");
    if (parity_.reads_data()) out.notes.push_back("data read with --parity " + join(options_.parity, ","));
  }

  const CalibOptions& options_;
  const Parity parity_;
  CalibData data_;
  std::string base_;            // of relative paths of the file at hand
  std::vector<Draft> waiting_;  // for the rest of their sample
  std::vector<Draft> texts_;    // to interleave
  size_t next_text_ = 0;
  uint64_t files_ = 0;  // whose order was drawn
  int64_t length_ = 0, text_tokens_ = 0, too_long_ = 0;
  std::string hashes_;
};

void add_pixels(at::Tensor& to, const at::Tensor& from) {
  if (from.defined()) to = to.defined() ? at::cat({to, from}) : from;
}

// Pixel values and grids of one conversation of a sample, behind those that are there.
void add_media(ModelInputs& to, const CalibSample& s, const Conversation& messages, int64_t begin, const PromptParts& parts) {
  const ModelInputs in = with_context(s.where, [&] { return calibration_prompt(messages, parts, s.base_dir).inputs; });
  const int64_t end = std::min(s.tokens(), begin + in.input_ids.size(0));
  if (!in.input_ids.slice(0, 0, end - begin).equal(s.ids_T.slice(0, begin, end)))
    throw Error(ErrorKind::mismatch, s.where + ": the pictures changed while they were in use");
  add_pixels(to.pixel_values, in.pixel_values);
  add_pixels(to.pixel_values_videos, in.pixel_values_videos);
  to.image_grid_thw.insert(to.image_grid_thw.end(), in.image_grid_thw.begin(), in.image_grid_thw.end());
  to.video_grid_thw.insert(to.video_grid_thw.end(), in.video_grid_thw.begin(), in.video_grid_thw.end());
  to.second_per_grid_ts.insert(to.second_per_grid_ts.end(), in.second_per_grid_ts.begin(), in.second_per_grid_ts.end());
}

}  // namespace

void check_calibration(const CalibOptions& o) {
  auto refuse = [](const std::string& what) { throw Error(ErrorKind::usage, what); };
  if (o.n_samples < 1) refuse("--n-samples must be positive");
  if (o.max_seq_len < 2) refuse("--max-seq-len must be at least 2");
  const bool joins = o.few_shot || !o.interleave.empty();
  if (o.few_shot && !o.interleave.empty()) refuse("--few-shot and --interleave exclude each other");
  if (joins && o.data.empty()) refuse("--few-shot and --interleave join conversations of --data, which is not given");
  if (joins && o.n_samples < 2) refuse("--few-shot and --interleave make one sample of two conversations: --n-samples must be at least 2");
  if (parse_parity(o.parity).reads_data() && o.data.empty()) refuse("--parity says how --data is read, which is not given");
}

ModelInputs CalibData::inputs(size_t i) const {
  const CalibSample& s = samples.at(i);
  ModelInputs in;
  if (!s.messages.empty()) add_media(in, s, s.messages, 0, parts);
  for (const CalibSample::Part& part : s.more) add_media(in, s, part.messages, part.begin, parts);
  in.input_ids = s.ids_T;
  in.position_ids = s.positions;
  in.bounds = one_sequence(s.tokens());
  return in;
}

CalibData read_calibration(const CalibOptions& options, PromptParts parts) { return Reader(options, std::move(parts)).read(); }

}  // namespace statera
