//! A byte-level BPE vocabulary learnt from text, with Qwen2's rules (NFC, its split pattern, no prefix space) and special tokens
//! behind the learnt ones. Words are counted as texts come, so the corpus is never held; the learning itself is the library's.

use crate::{Fault, Outcome};
use ahash::AHashMap;
use compact_str::CompactString;
use serde_json::Value;
use tokenizers::models::bpe::{BpeTrainer, BPE};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
};

/// How Qwen2 cuts text before merging; the same as kPattern in src/text/bpe_files.cpp.
const PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BYTES: usize = 256;

pub struct Trainer {
    split: Split,
    words: AHashMap<CompactString, u64>,
    letters: u64,
}

impl Trainer {
    pub fn new() -> Outcome<Trainer> {
        let split = Split::new(SplitPattern::Regex(PATTERN.to_string()), SplitDelimiterBehavior::Isolated, false)?;
        Ok(Trainer { split, words: AHashMap::new(), letters: 0 })
    }

    pub fn add(&mut self, text: &str) -> Outcome<()> {
        let mut normalized = NormalizedString::from(text);
        NFC.normalize(&mut normalized)?;
        let mut pieces = PreTokenizedString::from(normalized);
        self.split.pre_tokenize(&mut pieces)?;
        byte_level().pre_tokenize(&mut pieces)?;
        for (word, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            self.letters += word.chars().count() as u64;
            *self.words.entry(CompactString::from(word)).or_default() += 1;
        }
        // The library counts pairs in 32 bits.
        if self.letters > i32::MAX as u64 {
            return Err(Fault::Error(format!("more than {} bytes of text; train on a part of it", i32::MAX)));
        }
        Ok(())
    }

    /// settings: {"vocab_size", "min_frequency", "special": [text, ...]}. The bytes of a tokenizer.json.
    pub fn finish(&self, settings: &Value) -> Outcome<String> {
        let number = |key: &str| settings.get(key).and_then(Value::as_u64).unwrap_or(0);
        let special: Vec<&str> = settings.get("special").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let wanted = number("vocab_size") as usize;
        let least = BYTES + special.len();
        if wanted < least {
            return Err(Fault::Error(format!("a vocabulary of {wanted} is too small: {BYTES} bytes and {} special tokens make {least}", special.len())));
        }
        let bpe = self.learn(wanted - special.len(), number("min_frequency"))?;
        let learnt = bpe.get_vocab_size();
        if learnt + special.len() != wanted {
            return Err(Fault::Error(format!(
                "the text has pairs for {} tokens only, not {wanted}; give more text, a smaller vocabulary or a lower minimum frequency",
                learnt + special.len()
            )));
        }
        let mut out = tokenizers::Tokenizer::new(bpe);
        out.with_normalizer(Some(NFC))?;
        out.with_pre_tokenizer(Some(Sequence::new(vec![self.split.clone().into(), byte_level().into()])));
        out.with_post_processor(Some(byte_level()));
        out.with_decoder(Some(byte_level()));
        for (i, content) in special.iter().enumerate() {
            out.add_special_tokens([AddedToken::from(*content, true).normalized(false)])?;
            if out.token_to_id(content) != Some((learnt + i) as u32) {
                return Err(Fault::Error(format!("special token \"{content}\" is a single byte or a learnt token already")));
            }
        }
        Ok(out.to_string(true)? + "\n")
    }

    fn learn(&self, size: usize, min_frequency: u64) -> Outcome<BPE> {
        let trainer = BpeTrainer::builder()
            .vocab_size(size)
            .min_frequency(min_frequency)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut bpe = BPE::default();
        trainer.do_train(&self.words, &mut bpe)?;
        Ok(bpe)
    }
}

fn byte_level() -> ByteLevel {
    ByteLevel::new(false, false, false)
}
