//! Hugging Face tokenizers and Jinja chat templates behind the C ABI of statera_text.h.
//! This file is the boundary only: status codes, buffers, and the guarantee that no panic crosses it.

mod chat;
mod json;
mod tokenizer;
mod trainer;

use std::panic::{catch_unwind, AssertUnwindSafe};

#[repr(C)]
pub struct Buffer {
    data: *mut u8,
    size: usize,
}

impl Buffer {
    fn from_bytes(bytes: Vec<u8>) -> Buffer {
        if bytes.is_empty() {
            return Buffer { data: std::ptr::null_mut(), size: 0 };
        }
        let boxed = bytes.into_boxed_slice();
        let size = boxed.len();
        Buffer { data: Box::into_raw(boxed) as *mut u8, size }
    }
}

/// What can go wrong, with its status code in the ABI.
pub enum Fault {
    Error(String),
    Raised(String),
}

pub type Outcome<T> = Result<T, Fault>;

impl<E: std::fmt::Display> From<E> for Fault {
    fn from(e: E) -> Fault {
        Fault::Error(e.to_string())
    }
}

const OK: i32 = 0;
const ERROR: i32 = 1;
const RAISED: i32 = 2;
const PANIC: i32 = 3;

/// Runs `f`; its value goes to `out`, its failure (or panic) to `error`.
unsafe fn guard<T>(out: *mut T, error: *mut Buffer, f: impl FnOnce() -> Outcome<T>) -> i32 {
    silence_panics();
    let (status, message) = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => {
            out.write(value);
            return OK;
        }
        Ok(Err(Fault::Error(message))) => (ERROR, message),
        Ok(Err(Fault::Raised(message))) => (RAISED, message),
        Err(payload) => (PANIC, format!("internal error: {}", panic_text(&payload))),
    };
    error.write(Buffer::from_bytes(message.replace('\n', " ").into_bytes()));
    status
}

fn panic_text(payload: &Box<dyn std::any::Any + Send>) -> String {
    if let Some(s) = payload.downcast_ref::<&str>() {
        return s.to_string();
    }
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "panic".to_string())
}

/// A library does not print: the default hook would write to stderr what comes back as an error anyway.
fn silence_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

unsafe fn bytes<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if size == 0 {
        return &[];
    }
    std::slice::from_raw_parts(data, size)
}

unsafe fn text<'a>(data: *const u8, size: usize) -> Outcome<&'a str> {
    std::str::from_utf8(bytes(data, size)).map_err(|e| Fault::Error(format!("text is not UTF-8 at byte {}", e.valid_up_to())))
}

#[no_mangle]
pub unsafe extern "C" fn statera_text_free(buffer: Buffer) {
    if !buffer.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(buffer.data, buffer.size)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn statera_tokenizer_open(
    json: *const u8, json_size: usize, added: *const u8, added_size: usize, out: *mut *mut tokenizer::Tokenizer, error: *mut Buffer,
) -> i32 {
    guard(out, error, || {
        let t = tokenizer::Tokenizer::open(bytes(json, json_size), bytes(added, added_size))?;
        Ok(Box::into_raw(Box::new(t)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn statera_tokenizer_close(t: *mut tokenizer::Tokenizer) {
    if !t.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(t))));
    }
}

#[no_mangle]
pub unsafe extern "C" fn statera_tokenizer_encode(
    t: *const tokenizer::Tokenizer, data: *const u8, size: usize, add_special_tokens: i32, ids: *mut Buffer, error: *mut Buffer,
) -> i32 {
    guard(ids, error, || {
        let ids = (*t).encode(text(data, size)?, add_special_tokens != 0)?;
        Ok(Buffer::from_bytes(ids.iter().flat_map(|id| id.to_le_bytes()).collect()))
    })
}

#[no_mangle]
pub unsafe extern "C" fn statera_tokenizer_decode(
    t: *const tokenizer::Tokenizer, ids: *const u32, count: usize, skip_special_tokens: i32, out: *mut Buffer, error: *mut Buffer,
) -> i32 {
    guard(out, error, || {
        let ids = if count == 0 { &[] } else { std::slice::from_raw_parts(ids, count) };
        Ok(Buffer::from_bytes((*t).decode(ids, skip_special_tokens != 0)?.into_bytes()))
    })
}

#[no_mangle]
pub unsafe extern "C" fn statera_tokenizer_token_id(t: *const tokenizer::Tokenizer, token: *const u8, size: usize) -> i64 {
    catch_unwind(AssertUnwindSafe(|| {
        let Ok(token) = text(token, size) else { return -1 };
        (*t).token_id(token).map_or(-1, i64::from)
    }))
    .unwrap_or(-1)
}

#[no_mangle]
pub unsafe extern "C" fn statera_tokenizer_token(
    t: *const tokenizer::Tokenizer, id: u32, token: *mut Buffer, error: *mut Buffer,
) -> i32 {
    guard(token, error, || match (*t).token(id) {
        Some(token) => Ok(Buffer::from_bytes(token.into_bytes())),
        None => Err(Fault::Error(format!("no token has the id {id}"))),
    })
}

#[no_mangle]
pub unsafe extern "C" fn statera_tokenizer_vocab_size(t: *const tokenizer::Tokenizer) -> i64 {
    catch_unwind(AssertUnwindSafe(|| (*t).vocab_size())).unwrap_or(-1)
}

#[no_mangle]
pub unsafe extern "C" fn statera_trainer_open(out: *mut *mut trainer::Trainer, error: *mut Buffer) -> i32 {
    guard(out, error, || Ok(Box::into_raw(Box::new(trainer::Trainer::new()?))))
}

#[no_mangle]
pub unsafe extern "C" fn statera_trainer_close(t: *mut trainer::Trainer) {
    if !t.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(t))));
    }
}

#[no_mangle]
pub unsafe extern "C" fn statera_trainer_add(t: *mut trainer::Trainer, data: *const u8, size: usize, error: *mut Buffer) -> i32 {
    let mut done = ();
    guard(&mut done, error, || (*t).add(text(data, size)?))
}

#[no_mangle]
pub unsafe extern "C" fn statera_trainer_finish(
    t: *const trainer::Trainer, settings: *const u8, size: usize, json: *mut Buffer, error: *mut Buffer,
) -> i32 {
    guard(json, error, || Ok(Buffer::from_bytes((*t).finish(&serde_json::from_slice(bytes(settings, size))?)?.into_bytes())))
}

#[no_mangle]
pub unsafe extern "C" fn statera_template_open(
    source: *const u8, source_size: usize, name: *const u8, name_size: usize, out: *mut *mut chat::Template, error: *mut Buffer,
) -> i32 {
    guard(out, error, || {
        let t = chat::Template::open(text(source, source_size)?, text(name, name_size)?)?;
        Ok(Box::into_raw(Box::new(t)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn statera_template_close(t: *mut chat::Template) {
    if !t.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(t))));
    }
}

#[no_mangle]
pub unsafe extern "C" fn statera_template_render(
    t: *const chat::Template, context: *const u8, context_size: usize, out: *mut Buffer, error: *mut Buffer,
) -> i32 {
    guard(out, error, || Ok(Buffer::from_bytes((*t).render(bytes(context, context_size))?.into_bytes())))
}
