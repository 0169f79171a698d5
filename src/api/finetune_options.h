// finetune_options: what becomes of the options of a training run before anything is opened. No torch.
#pragma once

#include <cstdint>
#include <string>

#include "api/finetune.h"

namespace statera {

// The options with those of --config that were not given as flags; keys may be the toolkit's names. An unknown key is Error(usage).
FinetuneOptions with_config(const FinetuneOptions& given);
// Error(usage) for what is out of range or excludes each other.
void check_finetune(const FinetuneOptions& options);
// What a resumed run must have in common with the one that began.
Json run_record(const FinetuneOptions& options, const MediaFlags& media, uint64_t items, const std::string& dtype);
// The options that processes of one run must share.
Json shared_record(const FinetuneOptions& options, const MediaFlags& media);
// "lr was 0.001, is 0.002": the first member of `now` that is another in `before`.
std::string first_difference(const Json& before, const Json& now);
// The data's part of a report, for reading.
std::string data_text(const Json& data);

}  // namespace statera
