//! How a command ends: the exit status, and what standard error says about it.
//!
//! The numbers are part of the command-line contract (`docs/cli.md`).

use std::fmt;

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
}

impl Exit {
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
    /// What to try.
    pub hint: Option<String>,
}

/// What a command comes to.
pub type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
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
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A line on standard error, which is for people; nobody to read it is no failure.
pub fn say(line: impl fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
