//! JSON and repr text as Python prints them: json.dumps with its separators, indent and float spelling, and str() of the
//! values a template can print.

use minijinja::value::{Value, ValueKind};

pub struct Style {
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub ensure_ascii: bool,
    pub sort_keys: bool,
}

/// json.dumps(value, ...). A value JSON cannot hold is an error that names its kind.
pub fn dumps(value: &Value, style: &Style) -> Result<String, String> {
    let mut out = String::new();
    dump(value, style, 0, &mut out)?;
    Ok(out)
}

fn dump(value: &Value, style: &Style, depth: usize, out: &mut String) -> Result<(), String> {
    if depth > 200 {
        return Err("tojson: nested too deeply".to_string());
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value, ["NaN", "Infinity", "-Infinity"])),
        ValueKind::String => quote(value.as_str().unwrap_or(""), style.ensure_ascii, out),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter().map_err(|e| e.to_string())?.collect();
            sequence('[', ']', items.len(), style, depth, out, |i, out| dump(&items[i], style, depth + 1, out))?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter().map_err(|e| e.to_string())?.collect();
            if style.sort_keys {
                keys.sort();
            }
            sequence('{', '}', keys.len(), style, depth, out, |i, out| {
                match keys[i].kind() {
                    ValueKind::String => quote(keys[i].as_str().unwrap_or(""), style.ensure_ascii, out),
                    _ => {
                        let mut key = String::new();
                        dump(&keys[i], style, depth + 1, &mut key)?;
                        quote(&key, style.ensure_ascii, out);
                    }
                }
                out.push_str(&style.key_separator);
                let item = value.get_item(&keys[i]).map_err(|e| e.to_string())?;
                dump(&item, style, depth + 1, out)
            })?;
        }
        kind => return Err(format!("tojson: a value of type {kind} is not JSON")),
    }
    Ok(())
}

fn sequence(
    open: char, close: char, count: usize, style: &Style, depth: usize, out: &mut String,
    mut item: impl FnMut(usize, &mut String) -> Result<(), String>,
) -> Result<(), String> {
    out.push(open);
    for i in 0..count {
        if i > 0 {
            out.push_str(&style.item_separator);
        }
        line_break(style, depth + 1, out);
        item(i, out)?;
    }
    if count > 0 {
        line_break(style, depth, out);
    }
    out.push(close);
    Ok(())
}

fn line_break(style: &Style, depth: usize, out: &mut String) {
    if let Some(indent) = &style.indent {
        out.push('\n');
        out.push_str(&indent.repeat(depth));
    }
}

fn quote(text: &str, ensure_ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ensure_ascii && c as u32 > 0x7e) => {
                let mut units = [0u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn number(value: &Value, specials: [&str; 3]) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(v) if v.is_nan() => specials[0].to_string(),
        Ok(v) if v.is_infinite() => specials[if v > 0.0 { 1 } else { 2 }].to_string(),
        Ok(v) => float_repr(v),
        Err(_) => value.to_string(),
    }
}

/// repr of a finite Python float: shortest digits, exponent form below 1e-4 and from 1e16, always with a point or an exponent.
pub fn float_repr(v: f64) -> String {
    let scientific = format!("{v:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{v}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// str(value) of Python for what a template prints: True, None, 1.0, [1, 'a'], {'a': 1}.
pub fn python_str(value: &Value) -> String {
    match value.kind() {
        ValueKind::String => value.as_str().unwrap_or("").to_string(),
        ValueKind::Undefined => String::new(),
        _ => python_repr(value, 0),
    }
}

fn python_repr(value: &Value, depth: usize) -> String {
    if depth > 200 {
        return "...".to_string();
    }
    let list = |items: Vec<String>, open: char, close: char| format!("{open}{}{close}", items.join(", "));
    match value.kind() {
        ValueKind::None => "None".to_string(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_string(),
        ValueKind::Number => number(value, ["nan", "inf", "-inf"]),
        ValueKind::String => quote_python(value.as_str().unwrap_or("")),
        ValueKind::Seq | ValueKind::Iterable => match value.try_iter() {
            Ok(items) => list(items.map(|v| python_repr(&v, depth + 1)).collect(), '[', ']'),
            Err(_) => value.to_string(),
        },
        ValueKind::Map => match value.try_iter() {
            Ok(keys) => list(
                keys.map(|k| {
                    let item = value.get_item(&k).unwrap_or_default();
                    format!("{}: {}", python_repr(&k, depth + 1), python_repr(&item, depth + 1))
                })
                .collect(),
                '{',
                '}',
            ),
            Err(_) => value.to_string(),
        },
        _ => value.to_string(),
    }
}

fn quote_python(text: &str) -> String {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(mark);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == mark => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(mark);
    out
}
