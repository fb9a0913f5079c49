//! Where `ackord raise` and `ackord demo` take events from: arguments, a file, standard input.
//!
//! Lines are read by a thread of their own into a bounded channel: a reader of a pipe never gets
//! further ahead than [`LINES_AHEAD`] lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read};
use std::path::PathBuf;

use ackord_endpoint::Payload;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::args::Raise;
use crate::exit::{Exit, Failure, say};
use crate::progress::Count;

/// Lines that wait in the channel.
const LINES_AHEAD: usize = 1;
/// Longest line that is looked at, bytes; the rest of a longer one is skipped.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// One event to raise.
#[derive(Debug)]
pub enum Item {
    /// Its arguments; `None` is a null-event.
    Payload(Option<Payload>),
    /// A line that is no event, and why.
    Unreadable(String),
    /// The input cannot be read any further, and why. Nothing follows.
    Failed(String),
}

/// How many bytes of a file are to be read, where that is known.
pub fn size(arguments: &Raise) -> Option<u64> {
    let found = std::fs::metadata(arguments.file.as_ref()?).ok()?;
    found.is_file().then_some(found.len())
}

/// The events that the arguments ask for; bytes of a file are counted as they are read.
pub fn source(arguments: &Raise, count: Option<Count>) -> Result<mpsc::Receiver<Item>, Failure> {
    if arguments.null {
        return Ok(one(None));
    }
    if let Some(text) = &arguments.args {
        let payload = parse(text).map_err(|error| {
            Failure::usage(format!("--args is no JSON value: {error}"))
                .hint(r#"quote it for the shell: --args '{"celsius":21.5}'"#)
        })?;
        return Ok(one(Some(payload)));
    }
    let unreadable = |path: &std::path::Path, error: &io::Error| {
        Failure::usage(format!("{} cannot be read: {error}", path.display()))
    };
    if let Some(path) = &arguments.bytes {
        let data = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
        let content_type = arguments.content_type.clone();
        return Ok(one(Some(Payload { content_type, data: data.into() })));
    }
    match &arguments.file {
        Some(path) if path != std::path::Path::new("-") => {
            let kind = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
            if kind.is_dir() {
                let error = io::Error::from(io::ErrorKind::IsADirectory);
                return Err(unreadable(path, &error));
            }
            if kind.is_file() {
                let from = File::open(path).map_err(|error| unreadable(path, &error))?;
                return lines(Counted { from, count });
            }
            // Opening a pipe waits for its writer: on the thread that reads.
            lines(Late { path: path.clone(), open: None })
        }
        Some(_) | None => {
            if io::stdin().is_terminal() {
                say("one JSON value per line; end with Ctrl-D");
            }
            lines(io::stdin())
        }
    }
}

/// A file whose bytes are counted as they are read.
struct Counted {
    from: File,
    count: Option<Count>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        if let Some(count) = &self.count {
            count.add(read as u64);
        }
        Ok(read)
    }
}

/// A file that is opened when it is first read.
struct Late {
    path: PathBuf,
    open: Option<File>,
}

impl Read for Late {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let file = match &mut self.open {
            Some(file) => file,
            None => self.open.insert(File::open(&self.path)?),
        };
        file.read(buffer)
    }
}

fn one(payload: Option<Payload>) -> mpsc::Receiver<Item> {
    let (sender, receiver) = mpsc::channel(1);
    // The channel is new and has room for one.
    let _ = sender.try_send(Item::Payload(payload));
    receiver
}

fn parse(text: &str) -> Result<Payload, serde_json::Error> {
    serde_json::from_str::<&RawValue>(text)?;
    Ok(Payload::json(text.trim().to_owned()))
}

/// One item per line that is not blank.
pub fn lines(from: impl Read + Send + 'static) -> Result<mpsc::Receiver<Item>, Failure> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    let read = move || {
        let mut from = BufReader::new(from);
        let mut number = 0_u64;
        while let Some(item) = next(&mut from, &mut number) {
            let last = matches!(item, Item::Failed(_));
            if sender.blocking_send(item).is_err() || last {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(read)
        .map_err(|error| Failure::new(Exit::Disk, format!("no thread to read with: {error}")))?;
    Ok(receiver)
}

/// The next item; `None` at the end. Nothing follows an item that says that reading failed.
fn next(from: &mut impl BufRead, number: &mut u64) -> Option<Item> {
    let mut line = Vec::new();
    loop {
        line.clear();
        *number += 1;
        let read = match from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(read) => read,
            Err(error) => return Some(Item::Failed(format!("line {number}: {error}"))),
        };
        if read == 0 {
            return None;
        }
        if read as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            let _ = from.skip_until(b'\n');
            return Some(Item::Unreadable(format!(
                "line {number}: longer than {LINE_BYTES_MAX} bytes"
            )));
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            return Some(Item::Unreadable(format!("line {number}: not UTF-8")));
        };
        // Some editors put a mark before the first line.
        let text = if *number == 1 { text.trim_start_matches('\u{feff}') } else { text };
        if text.trim().is_empty() {
            continue;
        }
        return Some(match parse(text) {
            Ok(payload) => Item::Payload(Some(payload)),
            Err(error) => Item::Unreadable(format!("line {number}: no JSON value: {error}")),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_values_blank_ones_are_skipped_and_bad_ones_named() {
        let mut from = io::Cursor::new("{\"a\": 1}\n\n \r\nnot json\n17".as_bytes());
        let mut number = 0;
        let mut text = || match next(&mut from, &mut number) {
            Some(Item::Payload(Some(payload))) => String::from_utf8(payload.data.to_vec()).unwrap(),
            Some(Item::Payload(None)) => "null-event".to_owned(),
            Some(Item::Unreadable(why) | Item::Failed(why)) => why.chars().take(22).collect(),
            None => "end".to_owned(),
        };
        assert_eq!(text(), "{\"a\": 1}");
        assert_eq!(text(), "line 4: no JSON value:");
        assert_eq!(text(), "17");
        assert_eq!(text(), "end");
    }

    #[test]
    fn a_mark_before_the_first_line_is_skipped_and_a_failing_input_says_so() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the cable is out"))
            }
        }
        let mut from = BufReader::new(Read::chain("\u{feff}17\n".as_bytes(), Failing));
        let mut number = 0;
        assert!(matches!(next(&mut from, &mut number), Some(Item::Payload(Some(_)))));
        let Some(Item::Failed(why)) = next(&mut from, &mut number) else { panic!("no failure") };
        assert_eq!(why, "line 2: the cable is out");
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_the_next_one_read() {
        let long = format!("\"{}\"\n2\n", "x".repeat(2 * LINE_BYTES_MAX as usize));
        let mut from = io::Cursor::new(long.into_bytes());
        let mut number = 0;
        assert!(matches!(next(&mut from, &mut number), Some(Item::Unreadable(_))));
        assert!(matches!(next(&mut from, &mut number), Some(Item::Payload(Some(_)))));
    }
}
