// perplexity: how well a model predicts given texts, token by token, under a sliding window (eval/windows.h). Passes hold several windows
// one after another; which windows share a pass depends on the data and the settings only.
#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/strings.h"
#include "eval/documents.h"
#include "eval/statistics.h"
#include "eval/task.h"
#include "eval/windows.h"
#include "nn/kv_cache.h"
#include "run/batch.h"
#include "run/sampler.h"

namespace statera {
namespace {

constexpr int64_t kRows = 64;  // of logits at a time: they are wide

struct Text {
  std::string text;
  std::vector<int64_t> ids;
};

struct Piece {
  size_t document = 0;
  Window window;
};

struct Settings {
  int64_t length = 0, stride = 0;
};

Settings settings_of(const TaskJob& job) {
  const TaskOptions& o = job.options;
  Settings s{o.max_length, o.stride};
  const int64_t most = job.model.limits().max_positions;
  if (s.length == 0) s.length = most > 0 ? std::min<int64_t>(2048, most) : 2048;
  if (s.length < 2) throw Error(ErrorKind::usage, "max_length: must be 2 or more");
  if (most > 0 && s.length > most)
    throw Error(ErrorKind::usage, "max_length: " + std::to_string(s.length) + " tokens are more than the model's " + std::to_string(most));
  if (s.stride == 0) s.stride = s.length;
  if (s.stride < 1 || s.stride > s.length)
    throw Error(ErrorKind::usage, "stride: must be from 1 to max_length (" + std::to_string(s.length) + ")");
  return s;
}

Json settings(const TaskJob& job) {
  const Settings s = settings_of(job);
  Json out = Json::object();
  out.set("max_length", s.length);
  out.set("stride", s.stride);
  return out;
}

std::vector<Text> read_texts(const TaskJob& job) {
  if (!job.parts.tokenizer) throw Error(ErrorKind::not_found, job.parts.directory + ": the checkpoint has no tokenizer");
  std::vector<Text> out;
  for (Document& d : read_documents(job.path, job.field)) {
    Text t{std::move(d.text), {}};
    with_context(d.where, [&] { t.ids = job.parts.tokenizer->encode(t.text); });
    const at::Tensor kinds = job.model.token_kinds(at::tensor(t.ids, at::TensorOptions(at::kLong)));
    if (kinds.defined() && kinds.sum().item<int64_t>() > 0)
      throw Error(ErrorKind::bad_file, d.where + ": the text spells out a picture placeholder");
    out.push_back(std::move(t));
  }
  return out;
}

std::vector<Piece> cut(const std::vector<Text>& texts, const Settings& s, int64_t limit) {
  std::vector<Piece> out;
  for (size_t d = 0; d < texts.size(); ++d) {
    for (const Window& w : sliding_windows(static_cast<int64_t>(texts[d].ids.size()), s.length, s.stride)) out.push_back({d, w});
  }
  if (limit > 0 && static_cast<int64_t>(out.size()) > limit) out.resize(static_cast<size_t>(limit));
  return out;
}

Json id_of(const Piece& p) { return std::to_string(p.document) + ":" + std::to_string(p.window.begin); }

// -log p of the window's scored tokens, summed. h [T, H]: normalised rows of the window.
double score(const Model& model, const at::Tensor& h_TH, const Piece& piece, const std::vector<int64_t>& ids) {
  const Window& w = piece.window;
  double nll = 0;
  for (int64_t from = w.scored; from < w.end; from += kRows) {
    const int64_t to = std::min(w.end, from + kRows);
    Pass none;
    const at::Tensor logits = model.language().head(h_TH.slice(0, from - 1 - w.begin, to - 1 - w.begin), none).to(at::kFloat).contiguous();
    const auto V = static_cast<size_t>(logits.size(1));
    for (int64_t t = from; t < to; ++t) {
      const int64_t id = ids[static_cast<size_t>(t)];
      if (id >= logits.size(1))
        throw Error(ErrorKind::mismatch, "token id " + std::to_string(id) + " is outside the model's vocabulary of " + std::to_string(V));
      nll -= logprobs_of({logits.const_data_ptr<float>() + static_cast<size_t>(t - from) * V, V}, id, 0).token;
    }
  }
  return nll;
}

// One pass over the windows; a line for each.
std::vector<Json> measure(const TaskJob& job, const std::vector<Text>& texts, std::span<const Piece> pieces) {
  c10::InferenceMode no_gradients;
  std::vector<ModelInputs> parts;
  for (const Piece& p : pieces) {
    const auto* ids = texts[p.document].ids.data();
    ModelInputs in;
    in.input_ids = at::tensor(std::vector<int64_t>(ids + p.window.begin, ids + p.window.end), at::TensorOptions(at::kLong));
    in.bounds = one_sequence(in.input_ids.size(0));
    in.position_ids = job.model.positions(in).first;
    parts.push_back(std::move(in));
  }
  ModelInputs inputs = concatenate(parts);
  Pass pass = make_pass(job.model, inputs);
  const std::vector<KvCache> caches = caches_for(pass, job.model.language().blocks(), parse_kv_form(job.limits.kv_cache));
  const at::Tensor h = forward_hidden(job.model, inputs, pass);
  std::vector<Json> out;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& p = pieces[i];
    const double nll = score(job.model, h.slice(0, inputs.bounds[i], inputs.bounds[i + 1]), p, texts[p.document].ids);
    if (!std::isfinite(nll))
      throw Error(ErrorKind::bad_file, job.path + ": window " + id_of(p).as_string() + ": the model gives no finite probabilities");
    Json line = Json::object();
    line.set("id", id_of(p));
    line.set("document", static_cast<int64_t>(p.document));
    line.set("begin", p.window.begin);
    line.set("end", p.window.end);
    line.set("tokens", p.window.end - p.window.scored);
    line.set("nll", nll);
    out.push_back(std::move(line));
  }
  return out;
}

// What was covered of the texts: bytes, words and the tokens that stand for them (those a tokenizer adds left out).
struct Cover {
  double bytes = 0, words = 0, tokens = 0;
};

Cover cover(const TaskJob& job, const std::vector<Text>& texts, const std::vector<Piece>& pieces) {
  const auto added = static_cast<int64_t>(job.parts.tokenizer->encode("").size());
  std::map<size_t, int64_t> reached;
  for (const Piece& p : pieces) reached[p.document] = std::max(reached[p.document], p.window.end);
  Cover out;
  for (const auto& [d, end] : reached) {
    const Text& t = texts[d];
    const bool whole = end == static_cast<int64_t>(t.ids.size());
    const std::string text = whole ? t.text : job.parts.tokenizer->decode({t.ids.data(), static_cast<size_t>(end)});
    out.bytes += static_cast<double>(text.size());
    out.tokens += static_cast<double>(end - added);
    bool inside = false;
    for (char c : text) {
      const bool blank = trim(std::string_view(&c, 1)).empty();
      out.words += !blank && !inside;
      inside = !blank;
    }
  }
  return out;
}

TaskResult summarise(const std::vector<Piece>& pieces, const std::vector<Json>& lines, const Cover& covered) {
  std::map<size_t, Cluster> documents;
  std::vector<Cluster> windows;
  for (size_t i = 0; i < lines.size(); ++i) {
    const Cluster c{lines[i].at("nll").as_double(), lines[i].at("tokens").as_double()};
    windows.push_back(c);
    documents[pieces[i].document].amount += c.amount;
    documents[pieces[i].document].weight += c.weight;
  }
  TaskResult out;
  out.unit = "windows";
  out.samples = static_cast<int64_t>(windows.size());
  out.error_over = documents.size() > 1 ? "documents" : "windows";
  std::vector<Cluster> clusters;
  for (const auto& entry : documents) clusters.push_back(entry.second);
  const Estimate nll = ratio_of(documents.size() > 1 ? clusters : windows);
  // Functions of the mean: their errors by the slope there.
  auto add = [&](const char* name, double value, double slope) {
    out.scores.push_back({name, value, nll.standard_error ? std::optional(*nll.standard_error * slope) : std::nullopt});
  };
  const double perplexity = std::exp(nll.value), bits = covered.tokens / covered.bytes / std::log(2.0);
  add("perplexity", perplexity, perplexity);
  add("nll_per_token", nll.value, 1);
  add("bits_per_byte", nll.value * bits, bits);
  const double per_word = covered.words > 0 ? covered.tokens / covered.words : 0, word = std::exp(nll.value * per_word);
  if (per_word > 0 && std::isfinite(word)) add("word_perplexity", word, word * per_word);
  double tokens = 0;
  for (const Cluster& w : windows) tokens += w.weight;
  out.counts.set("documents", static_cast<int64_t>(documents.size()));
  out.counts.set("tokens", static_cast<int64_t>(tokens));
  out.counts.set("bytes", static_cast<int64_t>(covered.bytes));
  out.counts.set("words", static_cast<int64_t>(covered.words));
  return out;
}

TaskResult run(const TaskJob& job) {
  const std::vector<Text> texts = read_texts(job);
  const std::vector<Piece> pieces = cut(texts, settings_of(job), job.options.limit);
  if (pieces.empty()) throw Error(ErrorKind::bad_file, job.path + ": no text of two tokens or more");
  Progress progress("perplexity", static_cast<double>(pieces.size()), "windows", job.progress);
  std::vector<Json> lines;
  int64_t resumed = 0;
  for (size_t from = 0, to = 0; from < pieces.size(); from = to) {
    int64_t tokens = 0;
    size_t known = 0;
    for (; to < pieces.size(); ++to) {
      tokens += pieces[to].window.end - pieces[to].window.begin;
      if (to > from && tokens > job.limits.prefill_tokens) break;
      known += job.log && job.log->find(id_of(pieces[to]));
    }
    if (job.cancel && *job.cancel) throw Error(ErrorKind::interrupted, "interrupted; the log keeps what is done");
    const std::span<const Piece> batch(pieces.data() + from, to - from);
    std::vector<Json> fresh;
    if (known < batch.size()) fresh = measure(job, texts, batch);
    for (size_t i = 0; i < batch.size(); ++i) {
      const Json* old = job.log ? job.log->find(id_of(batch[i])) : nullptr;
      if (!old && job.log) job.log->append(fresh[i]);
      resumed += old != nullptr;
      lines.push_back(old ? *old : fresh[i]);
    }
    if (fresh.empty()) {
      progress.resume_at(static_cast<double>(to));
    } else {
      progress.advance(static_cast<double>(batch.size()), job.path);
    }
  }
  progress.finish();
  TaskResult out = summarise(pieces, lines, cover(job, texts, pieces));
  out.resumed = resumed;
  return out;
}

}  // namespace

extern const Task kTask_perplexity{"perplexity", "of texts: .txt, or .jsonl and .json with a field", settings, run};

}  // namespace statera
