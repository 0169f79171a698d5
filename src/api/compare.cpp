// Both models over the same sequences, one model after the other. Of A the normalised hidden rows are spilled (bit for bit, a few KiB a
// token where logits would be hundreds), and its head stays; with B in memory both heads run over the same few rows.
#include "api/compare.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <variant>

#include "api/guard.h"
#include "api/load.h"
#include "api/loaded.h"
#include "base/error.h"
#include "base/file.h"
#include "base/heap.h"
#include "base/strings.h"
#include "base/threads.h"
#include "data/records.h"
#include "eval/documents.h"
#include "eval/row_spill.h"
#include "nn/kv_cache.h"
#include "quant/calib/items.h"
#include "run/prompt.h"

namespace statera {
namespace {

constexpr int64_t kRows = 64;

// Written for this purpose: prose, an explanation, code, numbers, two other languages.
constexpr const char* kTexts[] = {
    "The lighthouse keeper wrote one line a day. On Monday the wind came from the north and the gulls stayed on the rocks; on Tuesday a "
    "ship passed without answering his lamp, and he wondered whether anyone aboard had been awake.",
    "A heat pump does not make heat, it moves it. A fluid that boils at a low temperature takes up warmth outside, is compressed until it "
    "is hotter than the room, and gives the warmth off inside; the compressor pays for the way uphill.",
    "def median(values):\n    ordered = sorted(values)\n    middle = len(ordered) // 2\n    if len(ordered) % 2:\n        return "
    "ordered[middle]\n"
    "    return (ordered[middle - 1] + ordered[middle]) / 2\n",
    "A train leaves at 9:40 and covers 84 km in 56 minutes. Its average speed is 84 / 56 * 60 = 90 km/h, so after another 30 km it is "
    "10:56.",
    "Der Fluss war im Sommer so flach, dass die Kinder hinüberwaten konnten, und im Frühjahr so breit, dass niemand mehr das andere Ufer "
    "erkannte.",
    "Le boulanger ouvre à six heures ; à sept heures il ne reste plus de croissants, mais personne ne s'en plaint, car le pain est encore "
    "chaud.",
};

// A sequence to be made: ids of a text, or a conversation whose pictures are read when it is.
struct Sequence {
  std::string name;
  std::vector<int64_t> ids;
  Conversation messages;
  std::string base_dir;
};

class Sequences {
 public:
  Sequences(const CompareOptions& options, const Tokenizer* tokenizer, int64_t max_positions) : options_(options), tokenizer_(tokenizer) {
    length_ = options.max_length > 0 ? options.max_length : max_positions > 0 ? std::min<int64_t>(2048, max_positions) : 2048;
    if (options.max_length < 0 || options.limit < 0) throw Error(ErrorKind::usage, "max_length and limit: must be 0 or more");
    if (max_positions > 0 && length_ > max_positions)
      throw Error(ErrorKind::usage, fmt::format("max_length: {} tokens are more than the model's {}", length_, max_positions));
    for (const std::string& given : options.data) add_data(given);
    for (const std::string& file : options.messages) {
      const auto conversations = read_conversations(file);
      for (size_t i = 0; i < conversations.size(); ++i)
        list_.push_back({file + (conversations.size() > 1 ? " #" + std::to_string(i + 1) : ""), {}, conversations[i], folder_of(file)});
    }
    if (list_.empty()) add_own();
  }
  size_t size() const { return list_.size(); }
  const std::string& name(size_t i) const { return list_[i].name; }

  ModelInputs inputs(size_t i, const PromptParts& parts) const {
    const Sequence& s = list_[i];
    return with_context(s.name, [&] { return s.messages.empty() ? text_inputs(s, *parts.model) : conversation_inputs(s, parts); });
  }

 private:
  static ModelInputs text_inputs(const Sequence& s, const Model& model) {
    ModelInputs in;
    in.input_ids = at::tensor(s.ids, at::TensorOptions(at::kLong));
    in.bounds = one_sequence(in.input_ids.size(0));
    if (has_vision(model, in.input_ids)) throw Error(ErrorKind::bad_file, "the text spells out a picture placeholder");
    in.position_ids = model.positions(in).first;
    return in;
  }
  ModelInputs conversation_inputs(const Sequence& s, const PromptParts& parts) const {
    PromptOptions how;
    how.media = media_options(options_.media, s.base_dir);
    how.render.add_generation_prompt = s.messages.messages().as_array().back().get_string("role", "") != "assistant";
    return make_prompt(s.messages, parts, how).inputs;
  }
  static bool has_vision(const Model& model, const at::Tensor& ids) {
    const at::Tensor kinds = model.token_kinds(ids);
    return kinds.defined() && kinds.sum().item<int64_t>() > 0;
  }

  void add_text(const std::string& text, const std::string& name) {
    if (!tokenizer_) throw Error(ErrorKind::not_found, options_.a + ": the checkpoint has no tokenizer");
    const std::vector<int64_t> ids = with_context(name, [&] { return tokenizer_->encode(text); });
    const auto n = static_cast<int64_t>(ids.size());
    for (int64_t from = 0; from < n; from += length_) {
      const int64_t to = std::min(n, from + length_);
      list_.push_back({name + (n > length_ ? fmt::format(" @{}", from) : ""), {ids.begin() + from, ids.begin() + to}, {}, {}});
    }
  }
  void add_data(const std::string& given) {
    const auto [path, field] = split_field(given);
    const size_t before = list_.size();
    const auto full = [&] { return options_.limit > 0 && static_cast<int64_t>(list_.size() - before) >= options_.limit; };
    if (reads_as(path, ".txt")) {
      for (const Document& d : read_documents(path, field)) add_text(d.text, d.where);
    } else {
      const ItemFile file(path, ItemReading{field});
      for (size_t i = 0; i < file.size() && !full(); ++i) {
        const std::string where = file.where(i);
        auto item = read_item(file.item(i), {field}, where);
        if (auto* messages = std::get_if<Conversation>(&item)) {
          if (messages->empty()) throw Error(ErrorKind::bad_file, where + ": a conversation without messages");
          list_.push_back({where, {}, std::move(*messages), folder_of(path)});
        } else {
          add_text(std::get<std::string>(item), where);
        }
      }
    }
    if (full()) list_.resize(before + static_cast<size_t>(options_.limit));
  }
  void add_own() {
    for (const char* text : kTexts) {
      const std::string_view start = std::string_view(text).substr(0, 30);
      std::string name(start.substr(0, complete_utf8_prefix(start)));
      std::replace(name.begin(), name.end(), '\n', ' ');
      add_text(text, name);
    }
  }

  const CompareOptions& options_;
  const Tokenizer* tokenizer_;
  int64_t length_ = 0;
  std::vector<Sequence> list_;
};

// Normalised hidden rows [T, H].
at::Tensor hidden_of(const Model& model, ModelInputs inputs, KvForm kv_form) {
  Pass pass = make_pass(model, inputs);
  const std::vector<KvCache> caches = caches_for(pass, model.language().blocks(), kv_form);
  return forward_hidden(model, inputs, pass);
}

// Pages of the files leave memory; mapped weights come back when they are used, what was packed does not need them any more.
void release_pages(const Loaded& loaded) {
  for (const std::string& name : loaded.checkpoint.names()) loaded.checkpoint.release(name);
}

// Lets go of every weight but those that head() reads.
void keep_head(const Loaded& loaded) {
  for (auto& [path, site] : loaded.model->params.linears) {
    if (site->role != Role::head && site->role != Role::embedding) site->weight.reset();
  }
  release_pages(loaded);
}

// What the data says about each row of a sequence.
struct RowKinds {
  std::vector<int64_t> next;   // id of the token that follows, -1 at the end
  std::vector<bool> left_out;  // a placeholder follows
  std::vector<bool> vision;    // there is a picture at or before the row
};

RowKinds kinds_of(const Model& model, const at::Tensor& input_ids) {
  const at::Tensor ids = input_ids.contiguous(), kinds = model.token_kinds(input_ids).to(at::kChar).contiguous();
  const auto T = static_cast<size_t>(ids.size(0));
  const int64_t* id = ids.const_data_ptr<int64_t>();
  const int8_t* kind = kinds.const_data_ptr<int8_t>();
  RowKinds out;
  bool seen = false;
  for (size_t t = 0; t < T; ++t) {
    seen |= kind[t] == kVision;
    out.next.push_back(t + 1 < T ? id[t + 1] : -1);
    out.left_out.push_back(t + 1 < T && kind[t + 1] == kVision);
    out.vision.push_back(seen);
  }
  return out;
}

class Comparison {
 public:
  Comparison(const Model& a, const Model& b) : a_(a), b_(b) {}

  // ha, hb [T, H]: normalised hidden rows of one sequence.
  void add(const std::string& name, const at::Tensor& ha, const at::Tensor& hb, const RowKinds& kinds) {
    Divergence own;
    own.name = name;
    for (int64_t from = 0; from < ha.size(0); from += kRows) {
      const int64_t to = std::min(ha.size(0), from + kRows);
      Pass none;
      const at::Tensor la = a_.language().head(ha.slice(0, from, to), none).to(at::kFloat).contiguous(),
                       lb = b_.language().head(hb.slice(0, from, to), none).to(at::kFloat).contiguous();
      if (la.size(1) != lb.size(1))
        throw Error(ErrorKind::mismatch, fmt::format("vocabularies of {} and {} tokens cannot be compared", la.size(1), lb.size(1)));
      add_rows(la, lb, from, kinds, own);
    }
    report.prompts.push_back(std::move(own));
  }
  CompareReport finish() {
    report.total.name = "all";
    report.text.name = "text context";
    report.vision.name = "vision context";
    for (auto& [bucket, d] : buckets_) {
      d.name = bucket_name(bucket);
      report.by_position.push_back(std::move(d));
    }
    return std::move(report);
  }
  CompareReport report;

 private:
  void add_rows(const at::Tensor& la, const at::Tensor& lb, int64_t from, const RowKinds& kinds, Divergence& own) {
    const auto R = static_cast<size_t>(la.size(0)), V = static_cast<size_t>(la.size(1));
    const float *pa = la.const_data_ptr<float>(), *pb = lb.const_data_ptr<float>();
    std::vector<RowDivergence> rows(R);
    parallel_for(la.size(0), 1, [&](int64_t begin, int64_t end) {
      for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r) rows[r] = compare_rows({pa + r * V, V}, {pb + r * V, V});
    });
    for (size_t r = 0; r < R; ++r) {
      const size_t t = static_cast<size_t>(from) + r;
      if (kinds.left_out[t]) continue;
      if (!std::isfinite(rows[r].kl)) throw Error(ErrorKind::bad_file, own.name + fmt::format(": position {}: logits are not finite", t));
      for (Divergence* d :
           {&report.total, kinds.vision[t] ? &report.vision : &report.text, &buckets_[position_bucket(static_cast<int64_t>(t))], &own}) {
        d->add(rows[r]);
        const auto next = static_cast<size_t>(kinds.next[t]);
        if (kinds.next[t] >= 0 && next < V) d->add_next(pa[r * V + next] - rows[r].log_z_a, pb[r * V + next] - rows[r].log_z_b);
      }
    }
  }
  const Model &a_, &b_;
  std::map<int64_t, Divergence> buckets_;
};

// Said before the work where config.json says it.
void require_equal_vocabularies(const CompareOptions& options, const Model& a) {
  const Checkpoint b = Checkpoint::open(options.b);
  const Json* text = b.config().get("text_config");
  const int64_t va = a.limits().vocab_size, vb = (text && text->has("vocab_size") ? *text : b.config()).get_int("vocab_size", va);
  if (va != vb) throw Error(ErrorKind::mismatch, fmt::format("vocabularies of {} and {} tokens cannot be compared", va, vb));
}

CompareReport run(const CompareOptions& options, const ProgressSink& sink) {
  c10::InferenceMode no_gradients;
  const auto start = std::chrono::steady_clock::now();
  const KvForm kv_form = parse_kv_form(options.kv_cache);
  LoadOptions load;
  load.dtype = options.dtype;
  return_freed_memory();  // of A, before B needs as much
  const Loaded a = open_model(options.a, load);
  release_pages(a);
  require_equal_vocabularies(options, *a.model);
  PromptParts parts = read_prompt_parts(options.a, *a.model);
  const Sequences sequences(options, parts.tokenizer ? &*parts.tokenizer : nullptr, a.model->limits().max_positions);
  RowSpill hidden(options.scratch), ids(options.scratch);
  Progress progress("compare", 2.0 * static_cast<double>(sequences.size()), "sequences", sink);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const ModelInputs inputs = sequences.inputs(i, parts);
    hidden.append(hidden_of(*a.model, inputs, KvForm::automatic));
    ids.append(inputs.input_ids);
    progress.advance(1, "A " + sequences.name(i));
  }
  keep_head(a);
  load.compute = options.compute;
  load.vision_attention = options.vision_attention;
  const Loaded b = open_model(options.b, load);
  release_pages(b);
  parts.model = b.model.get();
  Comparison comparison(*a.model, *b.model);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const ModelInputs inputs = sequences.inputs(i, parts);
    if (!inputs.input_ids.equal(ids.read(i)))
      throw Error(ErrorKind::mismatch,
                  sequences.name(i) + ": the two checkpoints expand its pictures differently (or the file has changed)");
    const RowKinds kinds = kinds_of(*b.model, inputs.input_ids);
    comparison.add(sequences.name(i), hidden.read(i), hidden_of(*b.model, inputs, kv_form), kinds);
    progress.advance(1, "B " + sequences.name(i));
  }
  progress.finish();
  CompareReport report = comparison.finish();
  report.a = options.a;
  report.b = options.b;
  report.scratch_bytes = hidden.bytes() + ids.bytes();
  report.peak_rss = peak_resident_bytes();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

Json list_json(const std::vector<Divergence>& list) {
  Json out = Json::array();
  for (const Divergence& d : list) out.push(d.to_json());
  return out;
}

}  // namespace

CompareReport compare(const CompareOptions& options, const ProgressSink& progress) {
  return guarded([&] { return run(options, progress); });
}

Json CompareReport::to_json() const {
  Json j = total.to_json();
  j.erase("name");
  j.set("a", a);
  j.set("b", b);
  j.set("text_context", text.to_json());
  j.set("vision_context", vision.to_json());
  j.set("by_position", list_json(by_position));
  j.set("prompts", list_json(prompts));
  j.set("scratch_bytes", scratch_bytes);
  j.set("peak_rss", peak_rss);
  j.set("seconds", seconds);
  return j;
}

std::string CompareReport::to_text() const {
  constexpr size_t kShown = 20, kWidth = 32;
  std::string t = fmt::format("{:<32}{:>10}{:>11}{:>11}{:>8}{:>8}{:>14}{:>11}{:>11}\n", "", "positions", "KL mean", "KL 99%", "top-1",
                              "top-5", "max |dlogit|", "ppl A", "ppl B");
  auto line = [&](const Divergence& d) {
    std::string name = d.name;
    if (name.size() > kWidth - 1) {  // the end tells files and lines apart
      size_t from = name.size() - (kWidth - 4);
      while (from < name.size() && (name[from] & 0xC0) == 0x80) ++from;
      name = "..." + name.substr(from);
    }
    t += fmt::format("{:<32}{:>10}{:>11.5f}{:>11.5f}{:>7.1f}%{:>7.1f}%{:>14.4f}", name, d.positions(), d.kl_mean(), d.kl_99(),
                     100 * d.top1(), 100 * d.top5(), d.logit_max);
    t += d.predicted ? fmt::format("{:>11.4g}{:>11.4g}\n", d.perplexity_a(), d.perplexity_b()) : "\n";
  };
  for (size_t i = 0; i < std::min(kShown, prompts.size()); ++i) line(prompts[i]);
  if (prompts.size() > kShown) t += fmt::format("... and {} more sequences (--json lists all)\n", prompts.size() - kShown);
  for (const Divergence& d : by_position) line(d);
  if (text.positions() > 0 && vision.positions() > 0) line(text), line(vision);
  line(total);
  return t + fmt::format("KL({} || {}) in nats; {}, peak memory {}\n", a, b, human_seconds(seconds),
                         human_bytes(static_cast<double>(peak_rss)));
}

}  // namespace statera
