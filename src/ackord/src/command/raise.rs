//! `ackord raise`: events from the arguments, a file or standard input to the broker.
//!
//! `input thread ─▶ bounded channel ─▶ enqueue ─▶ outcomes in input order ─▶ stdout`
//!
//! A line is read only when the one before it is in the store, so nothing is ever dropped. One line
//! is printed per event that was read, in input order; it says that an event is kept only when it
//! is in the file. What an earlier run left in `--store`
//! goes out first and is reported on standard error only: it is no event of this run.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use ackord_endpoint::{
    Code, Event, Outcome as Decided, RaiseError, Raised, ServiceEndpoint, ServiceLevel,
    ServiceNotice, TraceContext,
};
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::time::Instant;

use crate::args::Raise;
use crate::connect;
use crate::exit::{Exit, Failure, Outcome, advice, say};
use crate::input::{self, Item};
use crate::interrupt::Interrupt;
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};

/// Bytes that the store holds when nothing is said.
const STORE_BYTES_DEFAULT: u64 = 1 << 20;
/// Raises that may be unacknowledged at once.
const OUTSTANDING_MAX: usize = 1024;
/// How often the rest of an earlier run is looked at.
const LEFT_INTERVAL: Duration = Duration::from_millis(20);

/// A line of standard output.
#[derive(Serialize)]
struct Line<'a> {
    event: &'a str,
    #[serde(flatten)]
    result: Answer,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Raised {
        instance_id: Option<u64>,
        duplicate: bool,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        ignored: bool,
    },
    Failed {
        error: ErrorLine,
    },
}

#[derive(Serialize)]
struct ErrorLine {
    code: String,
    detail: String,
    /// Whether the event stays in the store for the next run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    kept: bool,
}

/// An event on its way into the store.
type Entering = Pin<Box<dyn Future<Output = Result<Raised, RaiseError>> + Send>>;

/// An event that was read and not reported yet.
enum Slot {
    /// It is in the store.
    Handed(Raised),
    /// It is in the store, and this came of it.
    Answered(Result<Decided, RaiseError>),
    /// It did not get into the store.
    Refused(RaiseError),
}

/// What the notices have told.
#[derive(Default)]
struct Seen {
    connected: AtomicBool,
    fell_back: AtomicBool,
}

/// Runs the command.
pub async fn run(arguments: Raise, format: Format) -> Outcome {
    let mut interrupt = Interrupt::catch()?;
    let size = input::size(&arguments);
    let raising = size.and_then(|size| Progress::beside_lines("raising", Some(size), Unit::Bytes));
    let source = input::source(&arguments, raising.as_ref().map(Progress::count))?;
    let seen = Arc::new(Seen::default());
    let service = tokio::select! {
        service = start(&arguments, seen.clone()) => service?,
        () = interrupt.wait() => return Ok(Exit::Interrupted),
    };
    let left = service.pending();
    if left > 0 {
        say(format_args!("{left} events of an earlier run are delivered first"));
    }
    let mut run = Run {
        event: arguments.event.clone(),
        format,
        in_file: arguments.store.is_some(),
        seen,
        slots: VecDeque::new(),
        refused: false,
        stopped: None,
        unreadable: None,
    };
    let ended = run.stream(&service, source, &arguments, &mut interrupt).await?;
    let ended = match ended {
        End::Done => drain(&service, arguments.timeout, &mut interrupt).await,
        End::Timeout | End::Interrupted | End::Stopped => ended,
    };
    drop(raising);
    match (ended, run.stopped, run.unreadable) {
        (_, Some(code), _) => Err(stopped(code)),
        (End::Done | End::Stopped, None, Some(why)) => Err(Failure::new(Exit::Disk, why)),
        (End::Done | End::Stopped, None, None) => {
            service.close_within(arguments.timeout).await;
            Ok(if run.refused { Exit::EventRefused } else { Exit::Done })
        }
        (End::Interrupted, None, _) => Ok(Exit::Interrupted),
        (End::Timeout, None, _) => {
            let waited = format!("nothing was acknowledged for {:?}", arguments.timeout);
            Err(if run.seen.connected.load(Ordering::SeqCst) {
                Failure::new(Exit::Timeout, waited)
            } else {
                crate::admin::unreachable(&waited)
            })
        }
    }
}

/// How the stream of events ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Timeout,
    Interrupted,
    /// The broker ended the session for good.
    Stopped,
}

struct Run {
    event: String,
    format: Format,
    in_file: bool,
    seen: Arc<Seen>,
    slots: VecDeque<Slot>,
    refused: bool,
    stopped: Option<Code>,
    unreadable: Option<String>,
}

impl Run {
    async fn stream(
        &mut self,
        service: &ServiceEndpoint,
        mut source: tokio::sync::mpsc::Receiver<Item>,
        arguments: &Raise,
        interrupt: &mut Interrupt,
    ) -> Result<End, Failure> {
        let mut entering: Option<Entering> = None;
        let mut open = true;
        let mut deadline = Instant::now() + arguments.timeout;
        let end = loop {
            let waiting = !self.slots.is_empty() || entering.is_some();
            if !open && !waiting {
                return Ok(End::Done);
            }
            let room = entering.is_none() && self.slots.len() < OUTSTANDING_MAX;
            tokio::select! {
                biased;
                () = interrupt.wait() => break End::Interrupted,
                () = self.answered(), if !self.slots.is_empty() => {
                    deadline = Instant::now() + arguments.timeout;
                    let Some(slot) = self.slots.pop_front() else { continue };
                    if let Some(slot) = self.report(slot)? {
                        self.slots.push_front(slot);
                        break End::Stopped;
                    }
                }
                entered = entered(&mut entering), if entering.is_some() => {
                    entering = None;
                    self.slots.push_back(match entered {
                        Ok(raised) => Slot::Handed(raised),
                        Err(error) => Slot::Refused(error),
                    });
                }
                item = source.recv(), if open && room => {
                    if !waiting {
                        deadline = Instant::now() + arguments.timeout;
                    }
                    match item {
                        None => open = false,
                        Some(Item::Failed(why)) => self.unreadable = Some(why),
                        Some(Item::Payload(payload)) => {
                            let event = self.event(payload, arguments);
                            let service = service.clone();
                            entering = Some(Box::pin(async move { service.enqueue(event).await }));
                        }
                        Some(Item::Unreadable(detail)) => {
                            let code = Code::Invalid;
                            let refused = RaiseError::Rejected { code, detail };
                            self.slots.push_back(Slot::Refused(refused));
                        }
                    }
                }
                () = tokio::time::sleep_until(deadline), if waiting => break End::Timeout,
            }
        };
        // Comes back when all that was handed over is in the file.
        service.clone().close_within(Duration::ZERO).await;
        self.give_up(end, entering.is_some())?;
        Ok(end)
    }

    fn event(&self, payload: Option<ackord_endpoint::Payload>, arguments: &Raise) -> Event {
        let mut event = Event::new(self.event.clone(), payload);
        event.client = arguments.client.clone();
        // Rounded up: an event never lives shorter than asked for.
        event.lifetime_s = arguments
            .lifetime
            .map(|lifetime| u32::try_from(lifetime.as_millis().div_ceil(1000)).unwrap_or(u32::MAX));
        event.trace = arguments
            .traceparent
            .as_deref()
            .and_then(|parent| TraceContext::parse(parent, arguments.tracestate.as_deref()));
        event
    }

    /// Waits until the first slot can be reported.
    async fn answered(&mut self) {
        let Some(slot) = self.slots.front_mut() else { return };
        if let Slot::Handed(raised) = slot {
            *slot = Slot::Answered(raised.await);
        }
    }

    /// Prints the line of an event whose fate is known; gives the slot back if it is not, because
    /// the endpoint has stopped.
    fn report(&mut self, slot: Slot) -> Result<Option<Slot>, Failure> {
        let error = match slot {
            Slot::Handed(_) => return Ok(Some(slot)),
            Slot::Answered(Ok(decided)) => {
                let answer = Answer::Raised {
                    instance_id: decided.instance_id,
                    duplicate: decided.duplicate,
                    ignored: decided.ignored,
                };
                return self.print(answer).map(|()| None);
            }
            Slot::Answered(Err(RaiseError::Stopped { code })) => {
                self.stopped = self.stopped.or(Some(code));
                return Ok(Some(slot));
            }
            Slot::Refused(RaiseError::Stopped { code }) => {
                self.stopped = self.stopped.or(Some(code));
                return Ok(Some(slot));
            }
            Slot::Answered(Err(RaiseError::Closed)) | Slot::Refused(RaiseError::Closed) => {
                return Ok(Some(slot));
            }
            Slot::Answered(Err(error)) | Slot::Refused(error) => error,
        };
        self.refused = true;
        let detail = match &error {
            RaiseError::Rejected { detail, .. } => detail.clone(),
            other => other.to_string(),
        };
        let code = error.code().to_string();
        self.print(Answer::Failed { error: ErrorLine { code, detail, kept: false } })?;
        Ok(None)
    }

    /// Prints a line for each event that was read and whose outcome is not waited for any more.
    fn give_up(&mut self, end: End, entering: bool) -> Result<(), Failure> {
        let kept = self.in_file && !self.seen.fell_back.load(Ordering::SeqCst);
        while let Some(slot) = self.slots.pop_front() {
            let slot = match slot {
                Slot::Handed(mut raised) => match (&mut raised).now_or_never() {
                    Some(answer) => Slot::Answered(answer),
                    None => Slot::Handed(raised),
                },
                slot => slot,
            };
            if let Some(slot) = self.report(slot)? {
                let kept = kept && !matches!(slot, Slot::Refused(_));
                self.unanswered(end, kept)?;
            }
        }
        if entering {
            self.unanswered(end, false)?;
        }
        Ok(())
    }

    fn unanswered(&self, end: End, kept: bool) -> Result<(), Failure> {
        let code = match (end, self.stopped) {
            (_, Some(code)) => code.to_string(),
            (End::Interrupted, None) => "interrupted".to_owned(),
            (End::Timeout | End::Stopped | End::Done, None) => "timeout".to_owned(),
        };
        let detail = match (kept, self.in_file) {
            (true, _) => "not acknowledged yet; kept for the next run",
            (false, true) => "not acknowledged, and not in the file",
            (false, false) => "not acknowledged; whether it was stored is not known",
        };
        let detail = detail.to_owned();
        self.print(Answer::Failed { error: ErrorLine { code, detail, kept } })
    }

    fn print(&self, result: Answer) -> Result<(), Failure> {
        let written = match (self.format, &result) {
            (Format::Json, _) => output::json(&Line { event: &self.event, result }),
            (Format::Text, Answer::Raised { instance_id, duplicate, ignored }) => {
                let id = instance_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
                let note = match (ignored, duplicate) {
                    (true, _) => "  ignored: null after null",
                    (false, true) => "  duplicate",
                    (false, false) => "",
                };
                output::line(&format!("{}  {id:>8}{note}", self.event))
            }
            (Format::Text, Answer::Failed { error }) => {
                let (detail, advice) = (&error.detail, advice(&error.code));
                output::line(&format!("{}  refused: {detail} {advice}", self.event))
            }
        };
        written.map_err(|error| output::closed(&error))
    }
}

async fn entered(entering: &mut Option<Entering>) -> Result<Raised, RaiseError> {
    poll_fn(|context| match entering {
        Some(entering) => entering.as_mut().poll(context),
        None => Poll::Pending,
    })
    .await
}

/// Waits until the events of an earlier run are delivered too.
async fn drain(service: &ServiceEndpoint, timeout: Duration, interrupt: &mut Interrupt) -> End {
    let mut left = service.pending();
    let mut deadline = Instant::now() + timeout;
    while left > 0 {
        tokio::select! {
            () = interrupt.wait() => return End::Interrupted,
            () = tokio::time::sleep_until(deadline) => return End::Timeout,
            () = tokio::time::sleep(LEFT_INTERVAL) => {}
        }
        let now = service.pending();
        if now < left {
            (left, deadline) = (now, Instant::now() + timeout);
        }
    }
    End::Done
}

fn stopped(code: Code) -> Failure {
    let failure = Failure::coded(Exit::Refused, "the broker ended the session", code);
    if code == Code::BadCredentials {
        failure.hint("is this the service's token, for this site?")
    } else if code == Code::Replaced {
        failure.hint("another process raises as this service; give each its own account")
    } else {
        failure
    }
}

async fn start(arguments: &Raise, seen: Arc<Seen>) -> Result<ServiceEndpoint, Failure> {
    let connect = &arguments.connect;
    let bytes = arguments.store_bytes.unwrap_or(STORE_BYTES_DEFAULT);
    let level = match &arguments.store {
        Some(path) => ServiceLevel::File { path: path.clone(), bytes },
        None => ServiceLevel::Memory { bytes },
    };
    let mut builder = ServiceEndpoint::builder()
        .site(connect.site()?)
        .token(connect.token()?)
        .persistence(level)
        .window(u32::try_from(OUTSTANDING_MAX).unwrap_or(u32::MAX))
        .on_notice(move |notice| tell(&notice, &seen));
    for url in connect.urls()? {
        builder = builder.url(url);
    }
    if let Some(file) = connect.token_file() {
        builder = builder.token_from(connect::renewed(file));
    }
    if let Some(roots) = connect::roots() {
        builder = builder.tls_roots_pem(roots);
    }
    builder.start().await.map_err(crate::endpoint_failure)
}

fn tell(notice: &ServiceNotice, seen: &Seen) {
    match notice {
        ServiceNotice::Connected { .. } => seen.connected.store(true, Ordering::SeqCst),
        ServiceNotice::Online | ServiceNotice::Terminal { .. } => {}
        ServiceNotice::Parked { reason } => {
            let advice = advice(reason);
            say(format_args!("the service is parked: events wait in the store {advice}"));
        }
        ServiceNotice::Disconnected { reason } => {
            say(format_args!("disconnected: {reason}"));
        }
        ServiceNotice::ConnectFailed { url, reason, retry_in_ms } => {
            let seconds = Duration::from_millis(*retry_in_ms).as_secs_f32();
            say(format_args!("{url}: {reason}; next attempt in {seconds:.1} s"));
            if let Some(hint) = crate::admin::certificate_hint(reason) {
                say(format_args!("  hint: {hint}"));
            }
        }
        ServiceNotice::Rejected { event, code, detail } => {
            let advice = advice(code);
            say(format_args!("an event of an earlier run was refused: {event}: {detail} {advice}"));
        }
        ServiceNotice::Dropped { event } => say(format_args!("dropped for lack of room: {event}")),
        ServiceNotice::StoreCut { bytes } => {
            say(format_args!("the store ended in {bytes} bytes of an unfinished record: cut off"));
        }
        ServiceNotice::StoreDamaged { bytes, detail } => {
            say(format_args!(
                "the store is damaged: {bytes} bytes of it are left out, all else is kept; {detail}"
            ));
        }
        ServiceNotice::StoreUnreadable { detail } => {
            say(format_args!("the store cannot be read; a fresh one is begun: {detail}"));
        }
        ServiceNotice::FellBack { reason } => {
            seen.fell_back.store(true, Ordering::SeqCst);
            say(format_args!("the store failed; events are kept in memory now: {reason}"));
        }
        ServiceNotice::StoreSuperseded { dropped } => {
            say(format_args!("the store had been retired: {dropped} events of it are dropped"));
        }
        ServiceNotice::StoreRenewed { reason } => {
            say(format_args!("the store took a new identity: {reason:?}"));
        }
    }
}
