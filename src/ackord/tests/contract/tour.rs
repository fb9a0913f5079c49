//! The tour with curl, as the README and `docs/curl.md` show it: every shell block is run as it stands, and what it prints
//! is what the block behind it shows.
//!
//! In what is shown, `…` stands for anything within a line, and a line of its own for any number of lines. A block that
//! watches a stream (`curl -N`) is ended as a reader ends it: once it has shown what there is to see.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::ackord;

const README: &str = include_str!("../../../../README.md");
const PAGE: &str = include_str!("../../../../docs/curl.md");
const ANYTHING: &str = "…";
/// Seconds that a request may take.
const REQUEST_S: u64 = 20;
/// How long a line may be waited for.
const PATIENCE: Duration = Duration::from_secs(REQUEST_S + 10);
/// Lines that are printed and not yet looked at.
const LINES_MAX: usize = 1000;

/// Commands, and what they are said to print.
struct Step {
    commands: String,
    shown: Vec<String>,
}

/// The steps of a page: each a block of commands and the block of text behind it.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut blocks = page.split("\n```").skip(1).step_by(2).peekable();
    while let Some(block) = blocks.next() {
        let Some(commands) = block.strip_prefix("sh\n") else { continue };
        let shown = blocks.next().and_then(|block| block.strip_prefix("text\n"));
        let shown = shown.unwrap_or_else(|| panic!("what does this print?\n{commands}"));
        let shown = shown.lines().map(str::to_owned).collect();
        steps.push(Step { commands: commands.to_owned(), shown });
    }
    steps
}

/// Whether a line is as shown.
fn is_as_shown(line: &str, shown: &str) -> bool {
    let Some((begin, rest)) = shown.split_once(ANYTHING) else { return line == shown };
    let Some(line) = line.strip_prefix(begin) else { return false };
    let mut places = line.char_indices().map(|(at, _)| at).chain([line.len()]);
    places.any(|at| is_as_shown(&line[at..], rest))
}

/// `ackord dev` as a reader starts it. Killed when dropped, and when the test process ends.
struct Dev {
    child: Child,
    /// The line that the reader is to paste.
    exports: String,
}

impl Dev {
    fn start(data: &Path) -> Self {
        let mut command = ackord(&["dev", "--while-stdin", "--listen", "127.0.0.1:0", "--data"]);
        command.arg(data).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut screen = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let exports = screen.find(|line| line.trim().starts_with("export URL="));
        let exports = exports.expect("a line to paste");
        // The rest is read, so that it is never in the broker's way.
        std::thread::spawn(move || screen.for_each(drop));
        Self { child, exports }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal: one shell for all steps, as the reader's.
struct Terminal {
    shell: Child,
    keyboard: ChildStdin,
    screen: mpsc::Receiver<String>,
}

/// What the shell prints behind a step.
const DONE: &str = "-- done --";

impl Terminal {
    /// A shell in this directory that knows what was exported, and ends at the first failure.
    fn open(dir: &Path, exports: &str) -> Self {
        // Requests end by themselves; the tester's own settings are not used.
        std::fs::write(dir.join(".curlrc"), format!("max-time = {REQUEST_S}\n")).unwrap();
        let mut shell = Command::new("bash")
            .args(["-euo", "pipefail"])
            .current_dir(dir)
            .env("HOME", dir)
            .env("CURL_HOME", dir)
            .env("NO_PROXY", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the tour needs bash");
        let keyboard = shell.stdin.take().unwrap();
        let lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let (show, screen) = mpsc::sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| show.send(line))
        });
        let mut terminal = Self { shell, keyboard, screen };
        terminal.type_in(exports);
        terminal
    }

    fn type_in(&mut self, line: &str) {
        writeln!(self.keyboard, "{line}").unwrap();
    }

    /// The next line; `None` when there is none in time, and once the shell has ended.
    fn line(&mut self) -> Option<String> {
        self.screen.recv_timeout(PATIENCE).ok()
    }

    /// Takes a step and fails unless it prints what is shown.
    fn take(&mut self, step: &Step) {
        let Step { commands, shown } = step;
        let is_watching = commands.contains("curl -sSN");
        if is_watching {
            self.type_in(&format!("{} &", commands.trim_end()));
        } else {
            self.type_in(commands);
            self.type_in(&format!("echo '{DONE}'"));
        }
        let (mut expected, mut printed) = (VecDeque::from(shown.clone()), Vec::new());
        if is_watching {
            // Whatever follows what there is to see is not waited for.
            while expected.back().is_some_and(|line| line == ANYTHING) {
                expected.pop_back();
            }
        }
        let mut skipping = false;
        loop {
            while expected.front().is_some_and(|line| line == ANYTHING) {
                expected.pop_front();
                skipping = true;
            }
            if is_watching && expected.is_empty() {
                break;
            }
            let line = self.line();
            let is_over = line.as_deref().is_none_or(|line| line == DONE);
            let text = line.unwrap_or_else(|| "nothing more".to_owned());
            if is_over && expected.is_empty() && text == DONE {
                break;
            }
            let as_shown = expected.front().is_some_and(|shown| is_as_shown(&text, shown));
            printed.push(text);
            if as_shown && !is_over {
                expected.pop_front();
                skipping = false;
            } else if is_over || !skipping {
                panic!(
                    "{commands}\nprints\n{}\nwhere\n{expected:#?}\nis shown",
                    printed.join("\n")
                );
            }
        }
        if is_watching {
            // What it has printed meanwhile is read up to the mark.
            self.type_in(&format!("kill $!; wait $! || true; echo '{DONE}'"));
            while self.line().expect("the shell goes on") != DONE {}
        }
    }

    /// Closes it and fails unless all went well.
    fn close(self) {
        let Self { mut shell, keyboard, screen } = self;
        drop(keyboard);
        let rest: Vec<String> = screen.iter().collect();
        assert!(shell.wait().unwrap().success(), "{rest:?}");
    }
}

#[test]
fn the_tour_with_curl_prints_what_the_pages_show() {
    let section = README.split_once("\n## With curl alone\n").expect("the tour").1;
    let section = section.split("\n## ").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(&dir.path().join("data"));
    let mut terminal = Terminal::open(dir.path(), &dev.exports);
    for page in [section, PAGE] {
        let steps = steps(page);
        assert!(steps.len() > 3, "a page without steps");
        for step in &steps {
            terminal.take(step);
        }
    }
    terminal.close();
}

#[test]
fn anything_stands_for_anything_and_nothing_else_does() {
    let check = |line: &str, shown: &str, expected: bool| {
        assert_eq!(is_as_shown(line, shown), expected, "{line} {shown}");
    };
    check("a1b", "a…b", true);
    check("ab", "a…b", true);
    check("a1b2b", "…b", true);
    check("a1b2", "a…b", false);
    check("a", "b", false);
    check("ä1ö2", "ä…ö…", true);
    check("x1", "y…1", false);
}
