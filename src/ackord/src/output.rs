//! Standard output: JSON lines for scripts, or aligned text for people, each flushed.
//!
//! With `--json` nothing but JSON lines goes to standard output. A reader that went away is an
//! interruption, never a panic. Invariant: what is printed for people has no control characters of
//! what others wrote, so a text of a tenant neither moves the cursor nor forges a line.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};

/// How a command speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON lines.
    Json,
    /// Text for people.
    Text,
}

impl Format {
    /// The format that `--json` asks for.
    pub fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Writes that have begun and ended, together: odd while one is on its way.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// A text as a terminal may have it: characters that control it, end a line or turn the direction of
/// reading are written as escapes. What is escaped already stays as it is.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(controls) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if controls(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Whether a character does something else than to be seen.
fn controls(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// Writes one line for people: whatever the text is, it is one line.
pub fn line(text: &str) -> io::Result<()> {
    raw(&plain(text))
}

/// Writes a text for people that has several lines of our own.
pub fn page(text: &str) -> io::Result<()> {
    text.split('\n').try_for_each(line)
}

/// Writes a line for programs, as it is, and flushes it. Waits for as long as nobody reads.
pub fn raw(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    WRITES.fetch_add(1, Ordering::SeqCst);
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    WRITES.fetch_add(1, Ordering::SeqCst);
    written
}

/// Which write is on its way, if one is: the same again later means that nobody reads.
pub fn writing() -> Option<u64> {
    Some(WRITES.load(Ordering::SeqCst)).filter(|writes| writes % 2 == 1)
}

/// Writes a value as one JSON line.
pub fn json<T: Serialize>(value: &T) -> io::Result<()> {
    raw(&serde_json::to_string(value)?)
}

/// What a failed write to standard output means.
pub fn closed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(Exit::Interrupted, format!("standard output is closed: {error}"));
    }
    Failure::new(Exit::Disk, format!("standard output: {error}"))
}

/// Prints one object: a JSON line, or its fields one per line.
pub fn object(format: Format, value: &Value) -> Result<(), Failure> {
    let written = match (format, value) {
        (Format::Json, value) => json(value),
        (Format::Text, Value::Object(fields)) => {
            let width = fields.keys().map(String::len).max().unwrap_or(0);
            fields.iter().try_for_each(|(name, value)| {
                line(&format!("{name:width$}  {}", cell(Some(value))))
            })
        }
        (Format::Text, value) => line(&cell(Some(value))),
    };
    written.map_err(|error| closed(&error))
}

/// Prints a list: a JSON line per item, or a table of these columns.
pub fn list(format: Format, items: &[Value], columns: &[&str]) -> Result<(), Failure> {
    let written = match format {
        Format::Json => items.iter().try_for_each(json),
        Format::Text => table(items, columns).iter().try_for_each(|row| line(row)),
    };
    written.map_err(|error| closed(&error))
}

/// Prints rows of a table whose header stands already.
pub fn rows(items: &[Value], columns: &[&str]) -> Result<(), Failure> {
    let rows = table(items, columns);
    rows.iter().skip(1).try_for_each(|row| line(row)).map_err(|error| closed(&error))
}

fn table(items: &[Value], columns: &[&str]) -> Vec<String> {
    let header = columns.iter().map(|name| name.to_uppercase().replace('_', " ")).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header)
        .chain(items.iter().map(|item| columns.iter().map(|name| cell(item.get(*name))).collect()))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|at| width(at).unwrap_or(0)).collect();
    let pad = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(text, width)| format!("{text:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(pad).collect()
}

/// A value as it stands in a table: as wide as it is printed.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => plain(text).into_owned(),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(",")
        }
        Some(value) => plain(&value.to_string()).into_owned(),
    }
}

/// JSON text without the white space between its tokens, so that it fits a line. The tokens stay
/// as they were written: numbers keep their digits.
pub fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if !matches!(c, ' ' | '\t' | '\n' | '\r') {
            out.push(c);
            in_string = c == '"';
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn compacted_json_keeps_its_tokens() {
        let check = |from: &str, to: &str| assert_eq!(compact(from), to);
        check("{ \"a b\" :\n [ 1 ,\t2.50e1 ] }", "{\"a b\":[1,2.50e1]}");
        check(r#""say \" \\" "#, r#""say \" \\""#);
        check("123456789012345678901234567890", "123456789012345678901234567890");
    }

    #[test]
    fn what_controls_a_terminal_is_escaped_once() {
        let check = |from: &str, to: &str| {
            assert_eq!(plain(from), to);
            assert_eq!(plain(to), to);
        };
        check("grüße → 日本 \\", "grüße → 日本 \\");
        check("\u{1b}[2J\r\n\t\u{7f}\u{9b}", r"\u{1b}[2J\r\n\t\u{7f}\u{9b}");
        check("a\u{202e}b\u{2066}\u{2028}\u{feff}", r"a\u{202e}b\u{2066}\u{2028}\u{feff}");
    }

    #[test]
    fn a_table_is_aligned_and_names_what_is_missing() {
        let items = [json!({"id": "long-name", "roles": ["A", "B"]}), json!({"id": "b"})];
        assert_eq!(
            table(&items, &["id", "roles"]),
            ["ID         ROLES", "long-name  A,B", "b          -"]
        );
        let items = [json!({"id": "\n", "roles": {"x": "\u{9b}"}}), json!({"id": "b"})];
        assert_eq!(table(&items, &["id", "roles"])[1], r#"\n  {"x":"\u{9b}"}"#);
    }
}
