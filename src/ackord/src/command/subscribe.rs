//! `ackord subscribe`: events of a client account, or of a guest, to standard output.
//!
//! The line of an event is written and flushed inside its handler, so before its acknowledgement.
//! With `--count N` no handler runs beyond the N-th line, and the command ends well only when the
//! broker has confirmed the cursor of the last line of every subscription. Handlers run one at a
//! time: standard output is one, and only so is "none beyond N" certain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ackord_endpoint::{
    ClientEndpoint, ClientLevel, ClientNotice, Code, Delivery, Flow, HandlerError,
    Start as WireStart, Subscription,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::args::{Start, Subscribe};
use crate::connect;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::interrupt::Interrupt;
use crate::line;
use crate::output::{self, Format};

/// How long a first connection may take when `--timeout` says nothing.
const FIRST_CONNECTION_MAX: Duration = Duration::from_secs(30);
/// How long the end waits for the running handler and the last acknowledgement.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What the handlers and notices have told so far.
#[derive(Default)]
struct Progress {
    lines: u64,
    last_line: Option<Instant>,
    connected: bool,
    subscribed: BTreeSet<String>,
    /// Per event: the last id whose line was written, and the last one that is confirmed.
    handled: BTreeMap<String, u64>,
    confirmed: BTreeMap<String, u64>,
    refused: Option<Failure>,
    closed: Option<Failure>,
}

struct Shared {
    progress: Mutex<Progress>,
    changed: Notify,
    events: Vec<String>,
    count: Option<u64>,
    stateless: bool,
    format: Format,
    width: usize,
}

/// Runs the command.
pub async fn run(arguments: Subscribe, format: Format) -> Outcome {
    let mut interrupt = Interrupt::catch()?;
    let events: BTreeSet<String> = arguments.events.iter().cloned().collect();
    let shared = Arc::new(Shared {
        progress: Mutex::default(),
        changed: Notify::new(),
        width: events.iter().map(|name| name.chars().count()).max().unwrap_or(0),
        events: events.into_iter().collect(),
        count: arguments.count,
        stateless: arguments.stateless,
        format,
    });
    let begun = Instant::now();
    let client = start(&arguments, &shared).await?;
    let outcome = loop {
        if let Some(outcome) = shared.outcome() {
            break outcome;
        }
        let (deadline, exit) = deadline(&shared, &arguments, begun);
        let expiry = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = interrupt.wait() => break Ok(Exit::Interrupted),
            () = shared.changed.notified() => {}
            () = expiry => break Err(exit),
        }
    };
    // The end must not handle anything more, and what is being handled finishes.
    client.pause();
    tokio::select! {
        () = client.close_within(CLOSE_MAX) => {}
        () = interrupt.wait() => {}
    }
    outcome
}

/// The next point in time at which the command gives up, and what it says then.
fn deadline(shared: &Shared, arguments: &Subscribe, begun: Instant) -> (Option<Instant>, Failure) {
    let progress = shared.progress();
    let mut found: Option<(Instant, Failure)> = None;
    let mut earlier = |at: Instant, failure: Failure| {
        if found.as_ref().is_none_or(|(earliest, _)| at < *earliest) {
            found = Some((at, failure));
        }
    };
    let seen = format!("{} events so far", progress.lines);
    if !progress.connected {
        let limit = arguments.timeout.unwrap_or(FIRST_CONNECTION_MAX);
        let failure = crate::admin::unreachable(&format!("no connection for {limit:?}"));
        earlier(begun + limit, failure);
    }
    if let Some(timeout) = arguments.timeout.filter(|_| progress.connected) {
        let since = progress.last_line.unwrap_or(begun);
        let why = format!("no event for {timeout:?}, {seen}");
        earlier(since + timeout, Failure::new(Exit::Timeout, why));
    }
    if let Some(time) = arguments.max_time {
        let why = format!("{time:?} are over, {seen}");
        earlier(begun + time, Failure::new(Exit::Timeout, why));
    }
    match found {
        Some((at, failure)) => (Some(at), failure),
        None => (None, Failure::new(Exit::Timeout, "never")),
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the command ends, once that is clear.
    fn outcome(&self) -> Option<Outcome> {
        let mut progress = self.progress();
        if let Some(failure) = progress.closed.take().or_else(|| progress.refused.take()) {
            return Some(Err(failure));
        }
        let count = self.count?;
        let confirmed = |(event, id): (&String, &u64)| progress.confirmed.get(event) >= Some(id);
        let settled = match count {
            0 => self.events.iter().all(|event| progress.subscribed.contains(event)),
            // A guest has no cursor at the broker that could be confirmed.
            count => {
                progress.lines >= count
                    && (self.stateless || progress.handled.iter().all(confirmed))
            }
        };
        settled.then_some(Ok(Exit::Done))
    }

    /// The handler: writes the line of an event. Never runs twice at once (concurrency 1), so the
    /// lock need not be held while standard output blocks.
    fn handle(&self, delivery: &Delivery) -> Result<Flow, HandlerError> {
        let not_now = |why: String| HandlerError::new(why).retry_after(Duration::from_secs(1));
        {
            let progress = self.progress();
            let enough = self.count.is_some_and(|count| progress.lines >= count);
            if enough || progress.closed.is_some() {
                return Err(not_now("enough".to_owned()));
            }
        }
        let written = match self.format {
            Format::Json => output::raw(&line::to_json(delivery)),
            Format::Text => output::line(&line::to_text(delivery, self.width)),
        };
        let mut progress = self.progress();
        self.changed.notify_one();
        if let Err(error) = written {
            progress.closed = Some(output::closed(&error));
            return Err(not_now(error.to_string()));
        }
        progress.lines += 1;
        progress.last_line = Some(Instant::now());
        // In the mode twoway one that was returned comes after later ones.
        let last = progress.handled.entry(delivery.event.clone()).or_default();
        *last = delivery.instance_id.max(*last);
        let enough = self.count.is_some_and(|count| progress.lines >= count);
        Ok(if enough { Flow::Stop } else { Flow::Continue })
    }

    fn tell(&self, notice: ClientNotice) {
        let mut progress = self.progress();
        match notice {
            ClientNotice::Connected { .. } => {
                progress.connected = true;
                progress.last_line.get_or_insert_with(Instant::now);
            }
            ClientNotice::Subscribed { event, position, granted } => {
                if !granted {
                    say(format_args!("{event}: not granted to this client at the moment"));
                }
                // A confirmation that was lost with its connection shows in the position.
                let confirmed = progress.confirmed.entry(event.clone()).or_default();
                *confirmed = position.instance_id.max(*confirmed);
                progress.subscribed.insert(event);
            }
            ClientNotice::Committed { event, instance_id } => {
                let confirmed = progress.confirmed.entry(event).or_default();
                *confirmed = instance_id.max(*confirmed);
            }
            ClientNotice::Refused { event, code, detail } => {
                let why = format!("{event}: {detail}");
                let failure = Failure::coded(Exit::Refused, why, code);
                progress.refused = Some(failure);
            }
            ClientNotice::Terminal { code, detail } => {
                progress.closed = Some(terminal(code, &detail, self.stateless));
            }
            ClientNotice::Disconnected { reason } => {
                say(format_args!("disconnected: {reason}"));
            }
            ClientNotice::ConnectFailed { url, reason, retry_in_ms } => {
                let seconds = Duration::from_millis(retry_in_ms).as_secs_f32();
                say(format_args!("{url}: {reason}; next attempt in {seconds:.1} s"));
                if let Some(hint) = crate::admin::certificate_hint(&reason) {
                    say(format_args!("  hint: {hint}"));
                }
            }
            ClientNotice::Removed { event } => {
                say(format_args!("{event}: subscription removed with its cursor"));
            }
            ClientNotice::Authority { event, granted } => {
                let now = if granted { "granted" } else { "revoked: delivery waits" };
                say(format_args!("{event}: {now}"));
            }
            ClientNotice::Reset { event, reason } => {
                progress.confirmed.remove(&event);
                progress.handled.remove(&event);
                say(format_args!("{event}: ids begin anew ({reason:?})"));
            }
            ClientNotice::Overrun { event, instance_id } => {
                say(format_args!("{event}: lines are read too slowly, {instance_id} was dropped"));
            }
            ClientNotice::Unhandled { event } => {
                say(format_args!(
                    "the client is also subscribed to {event}, which is not asked for here and \
                     stays unacknowledged; --exact removes such subscriptions"
                ));
            }
            ClientNotice::StoreCut { bytes } => {
                say(format_args!("the state ended in {bytes} bytes of an unfinished record"));
            }
            ClientNotice::StoreDamaged { bytes, detail } => {
                say(format_args!(
                    "the state is damaged: {bytes} bytes of it are left out, all else is kept; \
                     {detail}"
                ));
            }
            ClientNotice::StoreUnreadable { detail } => {
                say(format_args!("the state cannot be read; a fresh one is begun: {detail}"));
            }
            ClientNotice::FellBack { reason } => {
                say(format_args!("the state failed; positions are kept in memory now: {reason}"));
            }
            ClientNotice::Presence(_)
            | ClientNotice::HandlerFailed { .. }
            | ClientNotice::Stopped => {}
        }
        self.changed.notify_one();
    }
}

fn terminal(code: Code, detail: &str, stateless: bool) -> Failure {
    let detail = if detail.is_empty() { "the broker ended the session" } else { detail };
    let failure = Failure::coded(Exit::Refused, detail, code);
    if code == Code::Replaced {
        failure.hint("another process receives as this client; give each its own account")
    } else if code == Code::AccessDenied && stateless {
        failure.hint("the site, or its structure, does not let stateless guests in")
    } else if code == Code::BadCredentials {
        failure.hint("is this the client's token, for this site?")
    } else {
        failure
    }
}

async fn start(arguments: &Subscribe, shared: &Arc<Shared>) -> Result<ClientEndpoint, Failure> {
    let connect = &arguments.connect;
    let token = if arguments.stateless {
        None
    } else {
        let token = connect.token().map_err(|failure| {
            failure.hint("give a client's --token, or --stateless to receive as a guest")
        })?;
        Some(token)
    };
    let level = match &arguments.state {
        Some(path) => ClientLevel::file(path),
        None => ClientLevel::Memory,
    };
    let (notices, stateless) = (shared.clone(), arguments.stateless);
    let mut builder = ClientEndpoint::builder()
        .site(connect.site()?)
        .token(token)
        .persistence(level)
        .exact(arguments.exact || stateless)
        .concurrency(1)
        .on_notice(move |notice| notices.tell(notice));
    for url in connect.urls()? {
        builder = builder.url(url);
    }
    if let Some(file) = connect.token_file().filter(|_| !stateless) {
        builder = builder.token_from(connect::renewed(file));
    }
    if let Some(roots) = connect::roots() {
        builder = builder.tls_roots_pem(roots);
    }
    for event in &shared.events {
        let mut subscription = Subscription::new(event.clone());
        subscription.start = match arguments.start {
            Start::Earliest => WireStart::Earliest,
            Start::Latest => WireStart::Latest,
        };
        if let Some(timeout) = arguments.ack_timeout {
            subscription = subscription.ack_timeout(timeout);
        }
        subscription.max_attempts = arguments.max_attempts;
        subscription.mode = arguments.mode.mode();
        subscription.dead_letter = arguments.dead_letter;
        (subscription.window, subscription.flush_ms) = (arguments.window, arguments.flush_ms);
        let shared = shared.clone();
        builder = builder.subscribe(subscription, move |delivery: Delivery| {
            let shared = shared.clone();
            // Standard output may block for long; the endpoint's tasks must not.
            async move {
                let written = tokio::task::spawn_blocking(move || shared.handle(&delivery)).await;
                written.unwrap_or_else(|error| Err(HandlerError::new(error)))
            }
        });
    }
    builder.start().await.map_err(crate::endpoint_failure)
}
