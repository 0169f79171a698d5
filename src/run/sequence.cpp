// See sequence.h.
#include "run/sequence.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <limits>

namespace statera {
namespace {

std::vector<int64_t> to_vector(const at::Tensor& ids) {
  at::Tensor flat = ids.to(at::kLong).contiguous();
  return {flat.data_ptr<int64_t>(), flat.data_ptr<int64_t>() + flat.numel()};
}

}  // namespace

Sequence::Sequence(int64_t id, GenerateRequest request, Sampling sampling, const Model& model, const std::optional<Tokenizer>& tokenizer,
                   const std::vector<int64_t>& eos, int64_t max_tokens, KvForm kv_form)
    : id_(id),
      prompt_(request.inputs.input_ids.size(0)),
      max_new_tokens_(std::min(request.max_new_tokens, max_tokens - prompt_)),
      request_(std::move(request)),
      sampling_(std::move(sampling)),
      eos_(eos.begin(), eos.end()),
      ids_(to_vector(request_.inputs.input_ids)),
      cache_(model.language().blocks(), kv_form),
      history_(ids_),
      stop_(request_.stop) {
  if (tokenizer) decoder_.emplace(*tokenizer);
  ModelInputs& in = request_.inputs;
  in.bounds = one_sequence(prompt_);
  if (in.position_ids.defined()) {
    next_position_ = in.position_ids.max().item<int64_t>() + 1;
  } else {
    auto [positions, next] = model.positions(in);
    in.position_ids = positions;
    next_position_ = next.at(0);
  }
  answer_.seed = sampling_.seed;
  answer_.usage.prompt_tokens = prompt_;
}

ModelInputs Sequence::all_inputs() const {
  ModelInputs in = request_.inputs;
  if (answer_tokens() == 0) return in;
  in.input_ids = at::from_blob(const_cast<int64_t*>(ids_.data()), {tokens()}, at::TensorOptions(at::kLong)).clone();
  in.bounds = one_sequence(tokens());
  at::Tensor grown = at::arange(next_position_, next_position_ + answer_tokens(), at::kLong);
  if (three_rows()) grown = grown.unsqueeze(0).expand({3, -1});
  in.position_ids = at::cat({in.position_ids, grown}, -1);
  return in;
}

void Sequence::drop_media() {
  request_.inputs.pixel_values = at::Tensor();
  request_.inputs.pixel_values_videos = at::Tensor();
}

int64_t Sequence::choose(std::span<float> logits, TokenEvent& event) {
  if (answer_tokens() < request_.min_new_tokens) {
    for (int64_t id : eos_) {
      if (id >= 0 && id < static_cast<int64_t>(logits.size())) logits[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
    }
  }
  std::vector<float> raw;
  if (request_.logprobs >= 0) raw.assign(logits.begin(), logits.end());
  int64_t token = request_.choose ? request_.choose(logits, answer_tokens())
                                  : sample(logits, sampling_, history_, static_cast<uint64_t>(answer_tokens()));
  if (request_.logprobs >= 0) {
    event.logprobs = logprobs_of(raw, token, request_.logprobs);
    answer_.logprobs.push_back(*event.logprobs);
  }
  return token;
}

bool Sequence::advance(std::span<float> logits) {
  TokenEvent event;
  event.request = id_;
  int64_t token = choose(logits, event);
  event.token = token;
  ids_.push_back(token);
  history_.add(token);
  answer_.ids.push_back(token);
  answer_.usage.completion_tokens = answer_tokens();
  bool eos = !request_.ignore_eos && eos_.count(token) > 0;
  if (!eos && decoder_) event.text = stop_.feed(decoder_->feed(token));
  if (eos || stop_.stopped()) {
    event.finish = FinishReason::stop;
  } else if (answer_tokens() >= max_new_tokens_) {
    event.finish = FinishReason::length;
  }
  if (event.finish) {
    event.text += close_text();
    if (stop_.stopped()) event.finish = FinishReason::stop;
  }
  answer_.text += event.text;
  if (request_.on_token) request_.on_token(event);
  if (!event.finish) return false;
  answer_.finish = *event.finish;
  answer_.stop = stop_.match();
  if (request_.on_done) request_.on_done(id_, std::move(answer_));
  return true;
}

std::string Sequence::close_text() {
  if (!decoder_) return "";
  std::string out = stop_.feed(decoder_->flush());
  return out + stop_.flush();
}

void Sequence::finish(FinishReason reason, std::optional<Error> error) {
  TokenEvent event;
  event.request = id_;
  event.text = close_text();
  event.finish = reason;
  answer_.text += event.text;
  answer_.finish = reason;
  answer_.error = std::move(error);
  if (request_.on_token) request_.on_token(event);
  if (request_.on_done) request_.on_done(id_, std::move(answer_));
}

}  // namespace statera
