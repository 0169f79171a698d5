// own_head: an output head that is tied to the embedding, as a layer of its own: so it can be quantized while the embedding stays floating.
#pragma once

#include "ckpt/checkpoint.h"
#include "nn/model.h"

namespace statera {

// The config without the tie; its text part, too.
Json untied(Json config);

// The checkpoint under the untied config, with the embedding's values under the head's name as well; unchanged where the head is a layer
// already, or where the model has none.
Checkpoint with_own_head(const Checkpoint& checkpoint, const ModelType& type);

}  // namespace statera
