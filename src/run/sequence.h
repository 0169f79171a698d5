// Sequence: one request under way: its ids, cache, text and answer. Private to the scheduler; batches are made in batch.h.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "nn/kv_cache.h"
#include "run/scheduler.h"
#include "run/stop.h"

namespace statera {

class Sequence {
 public:
  // eos: ids that end the answer. max_tokens: of prompt and answer.
  Sequence(int64_t id, GenerateRequest request, Sampling sampling, const Model& model, const std::optional<Tokenizer>& tokenizer,
           const std::vector<int64_t>& eos, int64_t max_tokens, KvForm kv_form);

  int64_t id() const { return id_; }
  const std::vector<int64_t>& ids() const { return ids_; }  // prompt and answer so far
  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }
  // Most tokens it may come to hold.
  int64_t tokens_at_most() const { return prompt_ + max_new_tokens_; }
  // Everything it has read so far as inputs, for a pass that starts with an empty cache.
  ModelInputs all_inputs() const;
  // Position of the last token of the answer, which the next pass reads.
  int64_t last_position() const { return next_position_ + answer_tokens() - 1; }
  bool three_rows() const { return request_.inputs.position_ids.dim() == 2; }
  KvCache& cache() { return cache_; }
  Usage& usage() { return answer_.usage; }
  bool cancelled() const { return cancel_ || (request_.cancel && request_.cancel->load()); }
  void cancel() { cancel_ = true; }
  // Pixels are not needed again unless the cache may have to be rebuilt.
  void drop_media();

  // Chooses the next token from its logits [V] (overwritten) and tells the request about it. True when that ended the answer.
  bool advance(std::span<float> logits);
  // Ends the answer and tells the request.
  void finish(FinishReason reason, std::optional<Error> error = {});

 private:
  int64_t answer_tokens() const { return tokens() - prompt_; }
  int64_t choose(std::span<float> logits, TokenEvent& event);
  std::string close_text();

  int64_t id_, prompt_, max_new_tokens_, next_position_ = 0;
  GenerateRequest request_;
  Sampling sampling_;
  std::set<int64_t> eos_;
  std::vector<int64_t> ids_;
  KvCache cache_;
  TokenHistory history_;
  std::optional<StreamDecoder> decoder_;
  StopMatcher stop_;
  Answer answer_;
  std::atomic<bool> cancel_{false};
};

}  // namespace statera
