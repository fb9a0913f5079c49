//! The parts of the boiler demonstration: what each raises or follows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ackord_endpoint::{
    ClientEndpoint, ClientLevel, ClientNotice, Delivery, Event, HandlerError, Payload,
    ServiceEndpoint, ServiceLevel, ServiceNotice, Structure, Subscription,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::boiler::Kept;
use crate::args::{Boiler, Role};
use crate::child;
use crate::connect;
use crate::data;
use crate::exit::{Exit, Failure, Outcome, advice, say};
use crate::interrupt::Interrupt;
use crate::line;
use crate::output::{self, Format};

/// The file with the number of the last reading.
const COUNT: &str = "readings.json";
/// A notice goes to the phone with every so many readings.
const NOTICE_EVERY: u64 = 5;
/// The state changes with every so many readings.
const STATE_EVERY: u64 = 3;
/// How long the end waits for acknowledgements.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The number of the last reading that was raised.
pub fn count(dir: &Path) -> Result<u64, Failure> {
    Ok(data::read::<u64>(&dir.join(COUNT))?.unwrap_or(0))
}

/// Runs one part until a signal, or until the reading that `--until` or `--readings` names.
pub async fn run(
    role: Role,
    kept: &Kept,
    dir: &Path,
    arguments: &Boiler,
    format: Format,
) -> Outcome {
    let mut interrupt = Interrupt::catch()?;
    let until = match (arguments.until, arguments.readings) {
        (Some(until), _) => Some(until),
        (None, Some(readings)) => Some(count(dir)? + readings),
        (None, None) => None,
    };
    let part = async {
        match role {
            Role::Service => service(kept, dir, arguments.every, until, format).await,
            Role::Panel => {
                let last = until;
                client(
                    role,
                    &kept.panel_token,
                    &["reading", "state"],
                    "reading",
                    last,
                    kept,
                    dir,
                    format,
                )
                .await
            }
            Role::Phone => {
                let last = until.map(|until| until - until % NOTICE_EVERY);
                client(
                    role,
                    &kept.phone_token,
                    &["notice", "state"],
                    "notice",
                    last,
                    kept,
                    dir,
                    format,
                )
                .await
            }
        }
    };
    tokio::select! {
        () = interrupt.wait() => Ok(Exit::Interrupted),
        () = child::stdin_closed(arguments.while_stdin) => Ok(Exit::Interrupted),
        outcome = part => outcome,
    }
}

fn structure() -> Result<Structure, Failure> {
    let structure = json!({
        "service_type": "boiler",
        "contract_author": "Ackord",
        "guests": "guest",
        "events": [
            {"name": "reading", "category": "queueing", "lifetime_s": 86_400, "size": 1000},
            {"name": "state", "category": "replacing"},
            {"name": "notice", "category": "private", "lifetime_s": 86_400},
        ],
    });
    serde_json::from_value(structure)
        .map_err(|error| Failure::new(Exit::Configuration, error.to_string()))
}

/// The boiler: raises a reading per tick, now and then a state and a notice.
async fn service(
    kept: &Kept,
    dir: &Path,
    every: Duration,
    until: Option<u64>,
    format: Format,
) -> Outcome {
    let mut builder = ServiceEndpoint::builder()
        .site(kept.site.clone())
        .token(kept.service_token.clone())
        .structure(structure()?)
        .persistence(ServiceLevel::file(dir.join("service.spl")))
        .on_notice(tell_service);
    for url in &kept.urls {
        builder = builder.url(url.clone());
    }
    if let Some(roots) = connect::roots() {
        builder = builder.tls_roots_pem(roots);
    }
    let service = builder.start().await.map_err(crate::endpoint_failure)?;
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut n = count(dir)?;
    while until.is_none_or(|until| n < until) {
        tick.tick().await;
        n += 1;
        for (event, shown) in due(n) {
            raised(&event.name, &shown, format)?;
            // Waits for room in the store only: the outcome is the store's business from then on.
            let raising = service.clone();
            let mut outcome = Box::pin(async move { raising.raise_wait(event).await });
            let _ = futures_util::poll!(&mut outcome);
            tokio::spawn(outcome);
        }
        // After the events are in the store: a crash in between repeats a number, never skips one.
        data::write(&dir.join(COUNT), &n)?;
    }
    let left = service.close_within(CLOSE_MAX).await;
    if left > 0 {
        say(format_args!("service: {left} events stay in the store"));
    }
    Ok(Exit::Done)
}

/// The events of a tick, each with its arguments for the screen.
fn due(n: u64) -> Vec<(Event, Value)> {
    let payload = |value: &Value| Payload::json(value.to_string());
    let reading = json!({"n": n, "celsius": 60 + n * 7 % 23});
    let mut events = vec![(Event::queueing("reading", payload(&reading)), reading)];
    if n.is_multiple_of(STATE_EVERY) {
        let burner = if n.is_multiple_of(2 * STATE_EVERY) { "off" } else { "on" };
        let state = json!({"n": n, "burner": burner});
        events.push((Event::replacing("state", payload(&state)), state));
    }
    if n.is_multiple_of(NOTICE_EVERY) {
        let notice = json!({"n": n, "text": "pressure is low"});
        events.push((Event::private("notice", "phone", payload(&notice)), notice));
    }
    events
}

fn raised(event: &str, args: &Value, format: Format) -> Result<(), Failure> {
    let written = match format {
        Format::Json => output::json(&json!({"role": "service", "raised": event, "args": args})),
        Format::Text => output::line(&format!("service  raises  {event:8} {args}")),
    };
    written.map_err(|error| output::closed(&error))
}

/// A follower: prints what it handles, until the event whose number is `last`.
#[allow(clippy::too_many_arguments)]
async fn client(
    role: Role,
    token: &str,
    events: &[&'static str],
    counted: &'static str,
    last: Option<u64>,
    kept: &Kept,
    dir: &Path,
    format: Format,
) -> Outcome {
    if last == Some(0) {
        return Ok(Exit::Done);
    }
    let done = Arc::new((Notify::new(), AtomicU64::new(u64::MAX)));
    let confirmed = done.clone();
    let mut builder = ClientEndpoint::builder()
        .site(kept.site.clone())
        .token(Some(token.to_owned()))
        .persistence(ClientLevel::file(dir.join(format!("{}.cpl", role.name()))))
        .on_notice(move |notice| tell_client(role, &notice, counted, &confirmed));
    for url in &kept.urls {
        builder = builder.url(url.clone());
    }
    if let Some(roots) = connect::roots() {
        builder = builder.tls_roots_pem(roots);
    }
    for event in events {
        let done = done.clone();
        builder = builder.subscribe(Subscription::new(*event), move |delivery: Delivery| {
            let shown = show(role, &delivery, format);
            let number = number(&delivery);
            if delivery.event == counted && last.is_some_and(|last| number >= Some(last)) {
                done.1.store(delivery.instance_id, Ordering::SeqCst);
            }
            async move { shown.map_err(HandlerError::new) }
        });
    }
    let client = builder.start().await.map_err(crate::endpoint_failure)?;
    done.0.notified().await;
    client.close_within(CLOSE_MAX).await;
    Ok(Exit::Done)
}

fn number(delivery: &Delivery) -> Option<u64> {
    let payload = delivery.payload.as_ref()?;
    serde_json::from_slice::<Value>(&payload.data).ok()?["n"].as_u64()
}

fn show(role: Role, delivery: &Delivery, format: Format) -> std::io::Result<()> {
    match format {
        Format::Json => {
            let event = serde_json::from_str::<Value>(&line::to_json(delivery))?;
            output::json(&json!({"role": role.name(), "handled": event}))
        }
        Format::Text => {
            let payload = delivery.payload.as_ref();
            let args = payload.map_or("(null)".into(), |p| String::from_utf8_lossy(&p.data));
            let late =
                if delivery.age > 1 { format!("  {} s late", delivery.age) } else { "".into() };
            let Delivery { event, .. } = delivery;
            output::line(&format!("{:7}  gets    {event:8} {args}{late}", role.name()))
        }
    }
}

fn tell_client(role: Role, notice: &ClientNotice, counted: &str, done: &(Notify, AtomicU64)) {
    let name = role.name();
    match notice {
        ClientNotice::Committed { event, instance_id } if event == counted => {
            if *instance_id >= done.1.load(Ordering::SeqCst) {
                done.0.notify_one();
            }
        }
        ClientNotice::Disconnected { reason } => say(format_args!("{name}: offline ({reason})")),
        ClientNotice::Refused { event, code, detail } => {
            say(format_args!("{name}: {event} refused: {detail} {}", advice(code)));
        }
        ClientNotice::Terminal { code, detail } => {
            say(format_args!("{name}: the broker ended the session: {detail} {}", advice(code)));
            done.0.notify_one();
        }
        ClientNotice::FellBack { reason } | ClientNotice::StoreUnreadable { detail: reason } => {
            say(format_args!("{name}: its state failed: {reason}"));
        }
        ClientNotice::Connected { .. }
        | ClientNotice::ConnectFailed { .. }
        | ClientNotice::Subscribed { .. }
        | ClientNotice::Removed { .. }
        | ClientNotice::Committed { .. }
        | ClientNotice::Authority { .. }
        | ClientNotice::Presence(_)
        | ClientNotice::Reset { .. }
        | ClientNotice::HandlerFailed { .. }
        | ClientNotice::Overrun { .. }
        | ClientNotice::Unhandled { .. }
        | ClientNotice::StoreCut { .. }
        | ClientNotice::StoreDamaged { .. }
        | ClientNotice::Stopped => {}
    }
}

fn tell_service(notice: ServiceNotice) {
    match notice {
        ServiceNotice::Disconnected { reason } => {
            say(format_args!("service: offline ({reason}); events wait in its store"));
        }
        ServiceNotice::Parked { reason } => say(format_args!("service: parked ({reason})")),
        ServiceNotice::Dropped { event } => say(format_args!("service: dropped a {event}")),
        ServiceNotice::Rejected { event, code, detail } => {
            say(format_args!("service: {event} refused: {detail} {}", advice(code)));
        }
        ServiceNotice::FellBack { reason } | ServiceNotice::StoreUnreadable { detail: reason } => {
            say(format_args!("service: its store failed: {reason}"));
        }
        ServiceNotice::Terminal { code, detail, .. } => {
            say(format_args!("service: the broker ended the session: {detail} {}", advice(code)));
        }
        ServiceNotice::Connected { .. }
        | ServiceNotice::Online
        | ServiceNotice::ConnectFailed { .. }
        | ServiceNotice::StoreCut { .. }
        | ServiceNotice::StoreDamaged { .. }
        | ServiceNotice::StoreSuperseded { .. }
        | ServiceNotice::StoreRenewed { .. } => {}
    }
}
