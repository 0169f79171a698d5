//! A tokenizer.json with the tokens that tokenizer_config.json adds to it.

use crate::{Fault, Outcome};
use serde_json::Value;
use tokenizers::AddedToken;

pub struct Tokenizer(tokenizers::Tokenizer);

impl Tokenizer {
    pub fn open(json: &[u8], added: &[u8]) -> Outcome<Tokenizer> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json)?;
        // Python switches both off unless a call asks for them; a file saved in the middle of training may hold them.
        inner.with_truncation(None)?;
        inner.with_padding(None);
        if !added.is_empty() {
            add_declared(&mut inner, &serde_json::from_slice(added)?)?;
        }
        Ok(Tokenizer(inner))
    }

    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Outcome<Vec<u32>> {
        Ok(self.0.encode_fast(text, add_special_tokens)?.get_ids().to_vec())
    }

    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Outcome<String> {
        Ok(self.0.decode(ids, skip_special_tokens)?)
    }

    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.0.token_to_id(token)
    }

    pub fn token(&self, id: u32) -> Option<String> {
        self.0.id_to_token(id)
    }

    pub fn vocab_size(&self) -> i64 {
        self.0.get_vocab_size(true) as i64
    }
}

/// Adds the declared tokens that the file does not know. The library numbers new tokens itself, so a token that would get
/// another id than declared is refused rather than shifted.
fn add_declared(inner: &mut tokenizers::Tokenizer, declared: &Value) -> Outcome<()> {
    for entry in declared.as_array().into_iter().flatten() {
        let flag = |key: &str| entry.get(key).and_then(Value::as_bool).unwrap_or(false);
        let content = entry.get("content").and_then(Value::as_str).unwrap_or("");
        let id = entry.get("id").and_then(Value::as_u64).unwrap_or(u64::MAX);
        let known = inner.get_added_vocabulary().get_vocab().contains_key(content);
        if known || content.is_empty() {
            continue;
        }
        let special = flag("special");
        let token = AddedToken::from(content, special)
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .single_word(flag("single_word"))
            .normalized(entry.get("normalized").and_then(Value::as_bool).unwrap_or(!special));
        if special {
            inner.add_special_tokens([token])?;
        } else {
            inner.add_tokens([token])?;
        }
        match inner.token_to_id(content) {
            Some(got) if u64::from(got) == id => {}
            got => {
                let got = got.map_or("none".to_string(), |v| v.to_string());
                return Err(Fault::Error(format!("added token \"{content}\" is declared with id {id} but the vocabulary gives it {got}")));
            }
        }
    }
    Ok(())
}
