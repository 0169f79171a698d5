/* C ABI of the Rust crate: Hugging Face tokenizers, their training, and Jinja chat templates. Used by src/text only.
   Handles but a trainer are immutable after opening and may be used from several threads. Text is UTF-8 with an explicit length.
   A function that can fail returns a status; on any status but ok, *error (never null) holds one line of text.
   No panic leaves the library. Every buffer filled here is given back with statera_text_free. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct StateraTokenizer StateraTokenizer;
typedef struct StateraTemplate StateraTemplate;
typedef struct StateraTrainer StateraTrainer;

typedef struct {
  uint8_t* data; /* null when empty */
  size_t size;   /* bytes */
} StateraBuffer;

enum {
  STATERA_TEXT_OK = 0,
  STATERA_TEXT_ERROR = 1,  /* malformed input */
  STATERA_TEXT_RAISED = 2, /* the template called raise_exception */
  STATERA_TEXT_PANIC = 3   /* a fault of the library itself */
};

void statera_text_free(StateraBuffer buffer);

/* json: the bytes of tokenizer.json. added: a JSON array of {id, content, special, lstrip, rstrip, single_word, normalized}
   that tokenizer_config.json declares, by ascending id; those already known are left alone. Truncation and padding of the
   file are switched off. */
int32_t statera_tokenizer_open(const uint8_t* json, size_t json_size, const uint8_t* added, size_t added_size,
                               StateraTokenizer** out, StateraBuffer* error);
void statera_tokenizer_close(StateraTokenizer* tokenizer);
/* ids: little-endian uint32 one after another. */
int32_t statera_tokenizer_encode(const StateraTokenizer* tokenizer, const uint8_t* text, size_t size, int32_t add_special_tokens,
                                 StateraBuffer* ids, StateraBuffer* error);
int32_t statera_tokenizer_decode(const StateraTokenizer* tokenizer, const uint32_t* ids, size_t count, int32_t skip_special_tokens,
                                 StateraBuffer* text, StateraBuffer* error);
/* The id of a token, -1 when there is none. */
int64_t statera_tokenizer_token_id(const StateraTokenizer* tokenizer, const uint8_t* token, size_t size);
/* The token of an id as the vocabulary spells it; STATERA_TEXT_ERROR when there is none. */
int32_t statera_tokenizer_token(const StateraTokenizer* tokenizer, uint32_t id, StateraBuffer* token, StateraBuffer* error);
/* Tokens, added ones included. */
int64_t statera_tokenizer_vocab_size(const StateraTokenizer* tokenizer);

/* Learns a byte-level BPE vocabulary. Texts are counted as they come and not kept; one thread at a time.
   settings: {"vocab_size": special tokens included, "min_frequency": of a pair, "special": [text, ...]}. json: the bytes of a
   tokenizer.json whose ids are bytes, learnt tokens, special tokens in their order. */
int32_t statera_trainer_open(StateraTrainer** out, StateraBuffer* error);
void statera_trainer_close(StateraTrainer* trainer);
int32_t statera_trainer_add(StateraTrainer* trainer, const uint8_t* text, size_t size, StateraBuffer* error);
int32_t statera_trainer_finish(const StateraTrainer* trainer, const uint8_t* settings, size_t size, StateraBuffer* json,
                               StateraBuffer* error);

/* Compiles a template. `name` stands in front of the line number in errors. */
int32_t statera_template_open(const uint8_t* source, size_t source_size, const uint8_t* name, size_t name_size, StateraTemplate** out,
                              StateraBuffer* error);
void statera_template_close(StateraTemplate* chat_template);
/* context: a JSON object, the variables of the template. */
int32_t statera_template_render(const StateraTemplate* chat_template, const uint8_t* context, size_t context_size, StateraBuffer* text,
                                StateraBuffer* error);

#ifdef __cplusplus
}
#endif
