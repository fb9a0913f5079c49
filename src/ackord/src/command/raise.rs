//! `ackord raise`: events from the arguments, a file or standard input to the broker.
//!
//! `input thread ─▶ bounded channel ─▶ raise_wait, pipelined ─▶ outcomes in input order ─▶ stdout`
//!
//! Input is read only while what is unacknowledged fits the store, so nothing is ever dropped. One
//! line is printed per event that was read, in input order. What an earlier run left in `--store`
//! goes out first and is reported on standard error only: it is no event of this run.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ackord_endpoint::{
    Event, Outcome as Raised, RaiseError, ServiceEndpoint, ServiceLevel, ServiceNotice,
};
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use serde::Serialize;
use tokio::time::Instant;

use crate::args::Raise;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::input::{self, Item};
use crate::interrupt::Interrupt;
use crate::output::{self, Format};

/// Bytes that the store holds when nothing is said.
const STORE_BYTES_DEFAULT: u64 = 1 << 20;
/// Raises that may be unacknowledged at once.
const OUTSTANDING_MAX: usize = 1024;
/// What the store needs for an event beside its arguments, at most and generously, bytes.
const EVENT_OVERHEAD_BYTES: u64 = 1024;
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

type Pending = Pin<Box<dyn Future<Output = (u64, Result<Raised, RaiseError>)> + Send>>;

/// Runs the command.
pub async fn run(arguments: Raise, format: Format) -> Outcome {
    let mut interrupt = Interrupt::catch()?;
    let source = input::source(&arguments)?;
    let connected = Arc::new(AtomicBool::new(false));
    let service = start(&arguments, connected.clone()).await?;
    let left = service.pending();
    if left > 0 {
        say(format_args!("{left} events of an earlier run are delivered first"));
    }
    let mut run = Run {
        event: arguments.event.clone(),
        format,
        kept: arguments.store.is_some(),
        refused: false,
        stopped: None,
    };
    let ended = run.stream(&service, source, &arguments, &mut interrupt).await?;
    let ended = match ended {
        End::Done if run.stopped.is_none() => {
            drain(&service, arguments.timeout, &mut interrupt).await
        }
        End::Done | End::Timeout | End::Interrupted => ended,
    };
    if let Some(code) = run.stopped {
        return Err(stopped(code));
    }
    match ended {
        End::Done => {
            service.close_within(arguments.timeout).await;
            Ok(if run.refused { Exit::EventRefused } else { Exit::Done })
        }
        End::Interrupted => Ok(Exit::Interrupted),
        End::Timeout => {
            let waited = format!("nothing was acknowledged for {:?}", arguments.timeout);
            Err(if connected.load(Ordering::SeqCst) {
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
}

struct Run {
    event: String,
    format: Format,
    kept: bool,
    refused: bool,
    stopped: Option<ackord_endpoint::Code>,
}

impl Run {
    async fn stream(
        &mut self,
        service: &ServiceEndpoint,
        mut source: tokio::sync::mpsc::Receiver<Item>,
        arguments: &Raise,
        interrupt: &mut Interrupt,
    ) -> Result<End, Failure> {
        let capacity = arguments.store_bytes.unwrap_or(STORE_BYTES_DEFAULT);
        let mut pending: FuturesOrdered<Pending> = FuturesOrdered::new();
        let (mut bytes, mut open) = (0, true);
        let mut deadline = Instant::now() + arguments.timeout;
        while open || !pending.is_empty() {
            let room =
                pending.len() < OUTSTANDING_MAX && (pending.is_empty() || bytes < capacity / 2);
            tokio::select! {
                biased;
                () = interrupt.wait() => {
                    self.give_up(pending.len(), "interrupted")?;
                    return Ok(End::Interrupted);
                }
                Some((size, result)) = pending.next(), if !pending.is_empty() => {
                    bytes -= size;
                    deadline = Instant::now() + arguments.timeout;
                    self.report(result)?;
                }
                item = source.recv(), if open && room && self.stopped.is_none() => {
                    if pending.is_empty() {
                        deadline = Instant::now() + arguments.timeout;
                    }
                    let Some(item) = item else { open = false; continue };
                    let (size, mut raising) = self.raise(service, item, arguments);
                    bytes += size;
                    // The first poll puts the event into the store: the order of events is that
                    // of the lines, however the futures are polled from here on.
                    match futures_util::poll!(&mut raising) {
                        std::task::Poll::Ready(done) => {
                            pending.push_back(Box::pin(std::future::ready(done)));
                        }
                        std::task::Poll::Pending => pending.push_back(raising),
                    }
                }
                () = tokio::time::sleep_until(deadline), if !pending.is_empty() => {
                    self.give_up(pending.len(), "timeout")?;
                    return Ok(End::Timeout);
                }
            }
            if self.stopped.is_some() && pending.is_empty() {
                break;
            }
        }
        Ok(End::Done)
    }

    fn raise(&self, service: &ServiceEndpoint, item: Item, arguments: &Raise) -> (u64, Pending) {
        let payload = match item {
            Item::Payload(payload) => payload,
            Item::Unreadable(detail) => {
                let code = ackord_endpoint::Code::Invalid;
                let refused = Err(RaiseError::Rejected { code, detail });
                return (0, Box::pin(std::future::ready((0, refused))));
            }
        };
        let arguments_bytes = payload.as_ref().map_or(0, |payload| payload.data.len());
        let size = arguments_bytes as u64 + EVENT_OVERHEAD_BYTES;
        let mut event = Event::new(self.event.clone(), payload);
        event.client = arguments.client.clone();
        // Rounded up: an event never lives shorter than asked for.
        event.lifetime_s = arguments
            .lifetime
            .map(|lifetime| u32::try_from(lifetime.as_millis().div_ceil(1000)).unwrap_or(u32::MAX));
        let service = service.clone();
        (size, Box::pin(async move { (size, service.raise_wait(event).await) }))
    }

    fn report(&mut self, result: Result<Raised, RaiseError>) -> Result<(), Failure> {
        let answer = match result {
            Ok(raised) => Answer::Raised {
                instance_id: raised.instance_id,
                duplicate: raised.duplicate,
                ignored: raised.ignored,
            },
            Err(error) => {
                let stopped = match &error {
                    RaiseError::Stopped { code } => Some(*code),
                    RaiseError::Rejected { .. }
                    | RaiseError::TooLarge { .. }
                    | RaiseError::ExceedsStore { .. }
                    | RaiseError::StoreFull
                    | RaiseError::Dropped
                    | RaiseError::Coalesced
                    | RaiseError::StoreSuperseded
                    | RaiseError::Closed => None,
                };
                self.refused |= stopped.is_none();
                self.stopped = self.stopped.or(stopped);
                let detail = match &error {
                    RaiseError::Rejected { detail, .. } => detail.clone(),
                    other => other.to_string(),
                };
                let kept = self.kept && stopped.is_some();
                Answer::Failed { error: ErrorLine { code: error.code().to_string(), detail, kept } }
            }
        };
        self.print(answer)
    }

    /// Prints a line for each event that was read and whose outcome is not waited for any more.
    fn give_up(&self, count: usize, code: &str) -> Result<(), Failure> {
        let detail = if self.kept {
            "not acknowledged yet; kept for the next run"
        } else {
            "not acknowledged; whether it was stored is not known"
        };
        (0..count).try_for_each(|_| {
            let (code, detail) = (code.to_owned(), detail.to_owned());
            self.print(Answer::Failed { error: ErrorLine { code, detail, kept: self.kept } })
        })
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
                output::line(&format!("{}  refused: {} ({})", self.event, error.detail, error.code))
            }
        };
        written.map_err(|error| output::closed(&error))
    }
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

fn stopped(code: ackord_endpoint::Code) -> Failure {
    let failure = Failure::new(Exit::Refused, format!("the broker ended the session: {code}"));
    if code == ackord_endpoint::Code::BadCredentials {
        failure.hint("is this the service's token, for this site?")
    } else if code == ackord_endpoint::Code::Replaced {
        failure.hint("another process raises as this service; give each its own account")
    } else {
        failure
    }
}

async fn start(arguments: &Raise, connected: Arc<AtomicBool>) -> Result<ServiceEndpoint, Failure> {
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
        .on_notice(move |notice| tell(&notice, &connected));
    for url in connect.urls()? {
        builder = builder.url(url);
    }
    builder.start().await.map_err(crate::endpoint_failure)
}

fn tell(notice: &ServiceNotice, connected: &AtomicBool) {
    match notice {
        ServiceNotice::Connected { .. } => connected.store(true, Ordering::SeqCst),
        ServiceNotice::Online | ServiceNotice::Terminal { .. } => {}
        ServiceNotice::Parked { reason } => {
            say(format_args!("the service is parked ({reason}): events wait in the store"));
        }
        ServiceNotice::Disconnected { reason } => {
            say(format_args!("disconnected: {reason}; connecting again"));
        }
        ServiceNotice::ConnectFailed { url, reason, retry_in_ms } => {
            let seconds = Duration::from_millis(*retry_in_ms).as_secs_f32();
            say(format_args!("{url}: {reason}; next attempt in {seconds:.1} s"));
        }
        ServiceNotice::Rejected { event, code, detail } => {
            say(format_args!("an event of an earlier run was refused: {event}: {detail} ({code})"));
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
