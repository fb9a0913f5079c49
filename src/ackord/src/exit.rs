//! How a command ends: the exit status, and what standard error says about it.
//!
//! The numbers are part of the command-line contract (`docs/cli.md`).

use std::fmt;

use serde_json::json;

use crate::logging::{self, Level};
use crate::{explain, output, progress};

/// The exit status of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// An event was refused for good.
    EventRefused,
    /// The command line was wrong.
    Usage,
    /// A time ran out.
    Timeout,
    /// The broker refused the caller or the request, or another session took over.
    Refused,
    /// No broker was reached.
    Unreachable,
    /// A file or the disk failed.
    Disk,
    /// The configuration, or the data that a node is to start on, is wrong.
    Configuration,
    /// A signal, or the reader of standard output, ended it.
    Interrupted,
    /// What a check found, in the numbers of monitoring plugins.
    Check(Health),
}

/// How something is that was checked; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// All is well.
    Ok,
    /// It is not known.
    Unknown,
    /// Somebody should look.
    Warning,
    /// Somebody must act.
    Critical,
}

impl Health {
    /// The number that monitoring expects.
    pub fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

impl Exit {
    /// Every status that has a number of its own.
    pub const ALL: &'static [Self] = &[
        Self::Done,
        Self::EventRefused,
        Self::Usage,
        Self::Timeout,
        Self::Refused,
        Self::Unreachable,
        Self::Disk,
        Self::Configuration,
        Self::Interrupted,
    ];

    /// The number that the shell sees.
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::EventRefused => 1,
            Self::Usage => 2,
            Self::Timeout => 3,
            Self::Refused => 4,
            Self::Unreachable => 5,
            Self::Disk => 74,
            Self::Configuration => 78,
            Self::Interrupted => 130,
            Self::Check(health) => health.number(),
        }
    }
}

/// Why a command did not do what it was asked, for a person.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The exit status.
    pub exit: Exit,
    /// One sentence, lowercase, without final period.
    pub message: String,
    /// The broker's code, where it gave one.
    pub code: Option<String>,
    /// What to try.
    pub hint: Option<String>,
}

/// What a command comes to.
pub type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), code: None, hint: None }
    }

    /// What the broker refused, with its code: its words are one line, whoever chose the names in them.
    pub fn coded(exit: Exit, message: impl Into<String>, code: impl fmt::Display) -> Self {
        let message = output::plain(&message.into()).into_owned();
        Self { code: Some(code.to_string()), ..Self::new(exit, message) }
    }

    /// The command line was wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A configuration or a data directory was wrong.
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(Exit::Configuration, message)
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(code) = &self.code {
            write!(f, " {}", advice(code))?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What the end of a line says about a code: where it is explained.
pub fn advice(code: impl fmt::Display) -> String {
    let code = code.to_string();
    if explain::is_known(&code) { format!("(ackord explain {code})") } else { format!("({code})") }
}

/// A line on standard error; nobody to read it is no failure.
pub fn say(line: impl fmt::Display) {
    say_as(Level::Info, line);
}

/// A line on standard error about what is unwise.
pub fn warn(line: impl fmt::Display) {
    if logging::is_json() {
        say_as(Level::Warn, line);
    } else {
        say(format_args!("warning: {line}"));
    }
}

/// Why the command ends as it does, on standard error.
pub fn say_failure(failure: &Failure) {
    if !logging::is_json() {
        return say_lines(failure);
    }
    let Failure { exit, message, code, hint } = failure;
    let number = exit.number();
    let mut more = json!({"exit": number});
    let told = [("code", code), ("hint", hint)];
    for (name, told) in told.into_iter().filter_map(|(name, told)| Some((name, told.as_ref()?))) {
        more[name] = json!(told);
    }
    logging::line(Level::Error, message, more);
}

fn say_as(level: Level, line: impl fmt::Display) {
    use std::io::Write as _;
    let line = line.to_string();
    if logging::is_json() {
        return logging::line(level, line.trim(), json!({}));
    }
    progress::aside(|| {
        let _ = writeln!(std::io::stderr().lock(), "{}", output::plain(&line));
    });
}

/// Several lines of our own on standard error.
pub fn say_lines(text: impl fmt::Display) {
    let text = text.to_string();
    if logging::is_json() { say(text) } else { text.split('\n').for_each(say) }
}
