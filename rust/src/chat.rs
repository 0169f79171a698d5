//! Chat templates: a Jinja environment set up as transformers sets up its own (trimmed blocks, loop controls, Python
//! methods, raise_exception, strftime_now, its tojson, generation blocks), around one template.

use crate::json::{dumps, python_str, Style};
use crate::{Fault, Outcome};
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};

pub struct Template {
    environment: Environment<'static>,
    name: String,
}

/// Marks the error of raise_exception, so that it is told from a fault of the template.
const RAISED_MARK: &str = "\u{1}raised:";

impl Template {
    pub fn open(source: &str, name: &str) -> Outcome<Template> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method);
        environment.set_formatter(|out, _, value| Ok(out.write_str(&python_str(value))?));
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment.add_filter("string", |value: Value| python_str(&value));
        environment.add_test("sequence", |v: Value| matches!(v.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map));
        environment.add_test("iterable", |v: Value| {
            matches!(v.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
        });
        let source = open_generation_blocks(source);
        environment.add_template_owned("chat", source).map_err(|e| fault(e, name))?;
        Ok(Template { environment, name: name.to_string() })
    }

    pub fn render(&self, context: &[u8]) -> Outcome<String> {
        let context: serde_json::Value = serde_json::from_slice(context)?;
        let template = self.environment.get_template("chat").map_err(|e| fault(e, &self.name))?;
        template.render(Value::from_serialize(&context)).map_err(|e| fault(e, &self.name))
    }
}

/// "NAME: line 3: what"; the innermost cause is the telling one.
fn fault(error: Error, name: &str) -> Fault {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let detail = error.detail().unwrap_or("").to_string();
    if let Some(message) = detail.strip_prefix(RAISED_MARK) {
        return Fault::Raised(format!("{name}: {line}{message}"));
    }
    let what = if detail.is_empty() { error.kind().to_string() } else { format!("{}: {detail}", error.kind()) };
    let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(" ({cause})"));
    Fault::Error(format!("{name}: {line}{what}{cause}"))
}

fn raise_exception(message: Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED_MARK}{}", python_str(&message))))
}

/// datetime.now().strftime(format): local time, C locale.
fn strftime_now(format: &str) -> Result<String, Error> {
    let invalid = || Error::new(ErrorKind::InvalidOperation, "strftime_now: bad format");
    let format = std::ffi::CString::new(format).map_err(|_| invalid())?;
    let mut out = vec![0u8; 512 + 64 * format.as_bytes().len()];
    // SAFETY: time, localtime_r and strftime get valid pointers; strftime is told the size of its buffer.
    let length = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        libc::localtime_r(&now, &mut parts);
        libc::strftime(out.as_mut_ptr() as *mut libc::c_char, out.len(), format.as_ptr(), &parts)
    };
    out.truncate(length);
    String::from_utf8(out).map_err(|_| invalid())
}

/// tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False): json.dumps, without HTML escapes.
fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent = match options.get::<Option<Value>>("indent")? {
        None => None,
        Some(v) if v.is_none() => None,
        Some(v) => Some(match v.as_str() {
            Some(s) => s.to_string(),
            None => " ".repeat(usize::try_from(v)?.min(64)),
        }),
    };
    let (item, key) = match options.get::<Option<Value>>("separators")? {
        Some(v) if !v.is_none() => (python_str(&v.get_item_by_index(0)?), python_str(&v.get_item_by_index(1)?)),
        _ => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
    };
    let style = Style {
        indent,
        item_separator: item,
        key_separator: key,
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    dumps(&value, &style).map(Value::from).map_err(|e| Error::new(ErrorKind::InvalidOperation, e))
}

/// Python methods: those of pycompat, and a few that templates use beside them.
fn unknown_method(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let (Some(text), Some(part)) = (value.as_str(), args.first().and_then(|v| v.as_str())) {
        match (method, args.len()) {
            ("removeprefix", 1) => return Ok(Value::from(text.strip_prefix(part).unwrap_or(text))),
            ("removesuffix", 1) => return Ok(Value::from(text.strip_suffix(part).unwrap_or(text))),
            ("partition", 1) if !part.is_empty() => {
                let (before, after) = text.split_once(part).unwrap_or((text, ""));
                let mark = if text.contains(part) { part } else { "" };
                return Ok(Value::from(vec![before.to_string(), mark.to_string(), after.to_string()]));
            }
            ("rpartition", 1) if !part.is_empty() => {
                let (before, after) = text.rsplit_once(part).unwrap_or(("", text));
                let mark = if text.contains(part) { part } else { "" };
                return Ok(Value::from(vec![before.to_string(), mark.to_string(), after.to_string()]));
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// `{% generation %}` marks the assistant's words for training masks; rendering only needs its scope, which `with` gives.
/// Lines stay where they are.
fn open_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, block) = rest.split_at(at + 2);
        out.push_str(before);
        let Some(end) = block.find("%}") else {
            rest = block;
            continue;
        };
        let word = block[..end].trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match word {
            "generation" => out.push_str(&block[..end].replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&block[..end].replacen("endgeneration", "endwith", 1)),
            _ => out.push_str(&block[..end]),
        }
        rest = &block[end..];
    }
    out.push_str(rest);
    out
}
