// Where the assistant speaks: the template is rendered up to the opening of each assistant turn and past its end; what lies between,
// in tokens, is answer. No knowledge of any template's markers.
#include "run/answer_mask.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"

namespace statera {
namespace {

class Turns {
 public:
  Turns(const Conversation& messages, const PromptParts& parts, const Prompt& prompt)
      : messages_(messages.messages().as_array()), parts_(parts), prompt_(prompt), ids_(prompt.inputs.input_ids.contiguous()) {
    full_ = render(messages_.size(), messages_.empty() || messages_.back().get_string("role", "") != "assistant");
  }
  size_t size() const { return messages_.size(); }
  bool answer(size_t k) const { return messages_[k].get_string("role", "") == "assistant"; }

  // Tokens [begin, end) of an assistant turn; absent when the template writes the turn otherwise in the whole conversation.
  std::optional<std::pair<int64_t, int64_t>> span(size_t k) const {
    std::string head = k == 0 ? std::string() : render(k, true);
    // Templates that open an answer with more than its header (an empty thought, say) only when generating.
    if (!full_.starts_with(head)) head = render(k, false);
    const std::string upto = render(k + 1, false);
    if (!full_.starts_with(head) || !full_.starts_with(upto)) return std::nullopt;
    auto begin = tokens_before(head, k), end = tokens_before(upto, k + 1);
    if (!begin || !end) return std::nullopt;
    return std::pair(*begin, *end);
  }

 private:
  std::string render(size_t count, bool open) const {
    RenderOptions options;
    options.add_generation_prompt = open;
    return parts_.chat_template->render(Json(Json::Array(messages_.begin(), messages_.begin() + static_cast<ptrdiff_t>(count))), options);
  }

  // Length in tokens of a prefix of the rendered text; a token that straddles its end counts as behind it.
  std::optional<int64_t> tokens_before(const std::string& prefix, size_t messages) const {
    const std::string_view tail = std::string_view(full_).substr(prefix.size());
    std::string expanded;
    if (prompt_.text.ends_with(tail) && !has_media_from(messages)) {
      expanded = prompt_.text.substr(0, prompt_.text.size() - tail.size());
    } else {
      MediaSizes sizes;
      if (!pictures_before(messages, sizes)) return std::nullopt;
      expanded = parts_.model->expand_placeholders(prefix, sizes);
    }
    const std::vector<int64_t> part = parts_.tokenizer->encode(expanded, false);
    const int64_t* all = ids_.const_data_ptr<int64_t>();
    int64_t n = 0;
    const int64_t limit = std::min<int64_t>(static_cast<int64_t>(part.size()), ids_.size(0));
    while (n < limit && part[static_cast<size_t>(n)] == all[n]) ++n;
    return n;
  }

  bool has_media_from(size_t k) const {
    for (; k < messages_.size(); ++k) {
      for (const Json& item : items(k)) {
        if (media_kind(item) != MediaKind::none) return true;
      }
    }
    return false;
  }
  // Clips print their time stamps, which are not at hand here.
  bool pictures_before(size_t k, MediaSizes& sizes) const {
    for (size_t m = 0; m < k; ++m) {
      for (const Json& item : items(m)) {
        const MediaKind kind = media_kind(item);
        if (kind == MediaKind::video) return false;
        if (kind == MediaKind::image) sizes.images.push_back(prompt_.inputs.image_grid_thw.at(sizes.images.size()));
      }
    }
    return true;
  }
  const Json::Array& items(size_t k) const {
    static const Json::Array none;
    const Json& content = messages_[k].at("content");
    return content.is_array() ? content.as_array() : none;
  }

  const Json::Array& messages_;
  const PromptParts& parts_;
  const Prompt& prompt_;
  at::Tensor ids_;
  std::string full_;
};

}  // namespace

at::Tensor answer_mask(const Conversation& messages, const PromptParts& parts, const Prompt& prompt, std::vector<std::string>& notes) {
  at::Tensor mask = at::zeros({prompt.inputs.input_ids.size(0)}, at::kChar);
  if (!parts.chat_template) return mask;
  const Turns turns(messages, parts, prompt);
  for (size_t k = 0; k < turns.size(); ++k) {
    if (!turns.answer(k)) continue;
    const auto span = turns.span(k);
    if (!span) {
      notes.push_back("message " + std::to_string(k) + " is not counted as an answer: the template does not show where it stands");
      continue;
    }
    mask.narrow(0, span->first, std::max<int64_t>(0, span->second - span->first)).fill_(1);
  }
  return mask;
}

}  // namespace statera
