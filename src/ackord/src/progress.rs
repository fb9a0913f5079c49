//! How far long work is, on standard error: a bar where that is a terminal, else a line now and then.
//!
//! Invariants: standard output never has any of it; what is written to the terminal meanwhile is written
//! above the bar; work that ends soon says nothing unless there is a bar.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::say;
use crate::logging;
use crate::moment;
use crate::output::{self, Format};

/// How often a line is written where there is no bar.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// How often a bar moves by itself.
const TICK: Duration = Duration::from_millis(200);

/// Whether there may be bars.
static BARS: AtomicBool = AtomicBool::new(false);
/// The bar that is shown.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Says how the command speaks: bars are for people at a terminal.
pub fn begin(format: Format) {
    let bars = format == Format::Text && !logging::is_json() && std::io::stderr().is_terminal();
    BARS.store(bars, Ordering::Relaxed);
}

/// Writes something to the terminal with the bar out of the way.
pub fn aside<R>(write: impl FnOnce() -> R) -> R {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things that have a name.
    Of(&'static str),
    /// Bytes.
    Bytes,
    /// Nothing but time.
    Time,
}

/// Work that is under way. Over when dropped.
pub struct Progress {
    count: Count,
    /// Ends the lines.
    _lines: Option<SyncSender<()>>,
}

/// Counts what is done, on whatever thread.
#[derive(Clone)]
pub struct Count {
    state: Arc<State>,
    bar: Option<ProgressBar>,
}

struct State {
    what: &'static str,
    unit: Unit,
    total: Option<u64>,
    done: AtomicU64,
    note: Mutex<String>,
    since: Instant,
}

impl Progress {
    /// Work whose results are printed when it is done.
    pub fn of(what: &'static str, total: Option<u64>, unit: Unit) -> Self {
        Self::new(what, total, unit, BARS.load(Ordering::Relaxed))
    }

    /// Work that prints lines meanwhile: on a terminal they are its progress.
    pub fn beside_lines(what: &'static str, total: Option<u64>, unit: Unit) -> Option<Self> {
        let silent = !std::io::stdout().is_terminal();
        silent.then(|| Self::new(what, total, unit, BARS.load(Ordering::Relaxed)))
    }

    fn new(what: &'static str, total: Option<u64>, unit: Unit, bars: bool) -> Self {
        let (done, note, since) = (AtomicU64::new(0), Mutex::default(), Instant::now());
        let state = Arc::new(State { what, unit, total, done, note, since });
        if bars {
            let bar = bar(&state);
            *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
            return Self { count: Count { state, bar: Some(bar) }, _lines: None };
        }
        let (sender, ended) = mpsc::sync_channel(0);
        let told = state.clone();
        let lines = move || {
            while ended.recv_timeout(LINE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                say(told.line());
            }
        };
        // Without a thread there are no lines, which nothing depends on.
        let _ = std::thread::Builder::new().name("progress".to_owned()).spawn(lines);
        Self { count: Count { state, bar: None }, _lines: Some(sender) }
    }

    /// What counts on another thread.
    pub fn count(&self) -> Count {
        self.count.clone()
    }

    /// So much more is done.
    pub fn add(&self, more: u64) {
        self.count.add(more);
    }

    /// So much is done in all.
    pub fn set(&self, done: u64) {
        self.count.state.done.store(done, Ordering::Relaxed);
        if let Some(bar) = &self.count.bar {
            bar.set_position(done);
        }
    }

    /// How much is done.
    pub fn done(&self) -> u64 {
        self.count.state.done.load(Ordering::Relaxed)
    }

    /// What is going on just now.
    pub fn note(&self, note: impl Into<String>) {
        let note = output::plain(&note.into()).into_owned();
        if let Some(bar) = &self.count.bar {
            bar.set_message(note.clone());
        }
        *self.count.state.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }
}

impl Count {
    /// So much more is done.
    pub fn add(&self, more: u64) {
        self.state.done.fetch_add(more, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(more);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.count.bar {
            *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
            bar.finish_and_clear();
        }
    }
}

impl State {
    /// How far it is, in a line.
    fn line(&self) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let amount = |amount: u64| match self.unit {
            Unit::Bytes => moment::bytes(amount),
            Unit::Of(_) | Unit::Time => amount.to_string(),
        };
        let far = match (self.unit, self.total) {
            (Unit::Time, _) => String::new(),
            (unit, Some(total)) => {
                let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
                format!("{} of {}{}, {percent} %, ", amount(done), amount(total), unit.name())
            }
            (unit, None) => format!("{}{}, ", amount(done), unit.name()),
        };
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let note = if note.is_empty() { note } else { format!("; {note}") };
        format!("{}: {far}{}{note}", self.what, moment::span(self.since.elapsed()))
    }
}

impl Unit {
    /// What stands behind a number of it.
    fn name(self) -> String {
        match self {
            Self::Of(things) => format!(" {things}"),
            Self::Bytes | Self::Time => String::new(),
        }
    }
}

fn bar(state: &State) -> ProgressBar {
    let position = match (state.unit, state.total) {
        (Unit::Time, _) => String::new(),
        (Unit::Bytes, Some(_)) => "{wide_bar} {bytes} of {total_bytes} ".to_owned(),
        (Unit::Bytes, None) => "{bytes} ".to_owned(),
        (Unit::Of(things), Some(_)) => format!("{{wide_bar}} {{pos}} of {{len}} {things} "),
        (Unit::Of(things), None) => format!("{{pos}} {things} "),
    };
    let template = format!("{{spinner}} {{prefix}} {position}{{elapsed}} {{msg}}");
    let bar = match state.total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.set_prefix(state.what);
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(total: Option<u64>, unit: Unit, done: u64, note: &str) -> String {
        let progress = Progress::new("restoring", total, unit, false);
        progress.add(done);
        progress.note(note);
        progress.count.state.line()
    }

    #[test]
    fn a_line_says_how_much_of_what_is_done() {
        let told = line(Some(40), Unit::Of("rows"), 10, "site demo");
        assert!(told.starts_with("restoring: 10 of 40 rows, 25 %, 0.0 s; site demo"), "{told}");
        let told = line(Some(2048), Unit::Bytes, 1024, "");
        assert!(told.starts_with("restoring: 1.0 KiB of 2.0 KiB, 50 %, 0.0 s"), "{told}");
        assert!(line(None, Unit::Time, 0, "").starts_with("restoring: 0.0 s"));
        assert!(line(Some(0), Unit::Of("rows"), 0, "").contains("100 %"));
    }

    #[test]
    fn every_template_is_one() {
        for (unit, total) in [(Unit::Bytes, Some(1)), (Unit::Of("rows"), None), (Unit::Time, None)]
        {
            let progress = Progress::new("x", total, unit, true);
            progress.set(1);
            assert_eq!(aside(|| 7), 7);
            assert!(progress.count.bar.as_ref().is_some_and(|bar| bar.position() == 1));
        }
        assert!(SHOWN.lock().unwrap().is_none());
    }
}
