//! A service with a durable window: every raise has a number of its own, and is sent again, at
//! whatever node, until it is answered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use ackord_wire::frame::{Raise, ServiceFrame, ServiceHello, ServiceMessage};
use ackord_wire::{Codec, Payload};
use cluster_tests::history::{Call, Entry, History};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::endpoint::{KEEPALIVE_S, Line, Place};
use crate::host::{Complaints, EVENTS};

const WINDOW: u64 = 8;
/// After a refusal that names no time.
const RETRY: Duration = Duration::from_millis(50);

/// What its disk keeps.
#[derive(Default)]
pub struct Kept {
    /// The raises so far, number 1 first, with what they raise.
    pub raised: Vec<(Call, &'static str)>,
    /// All up to this number are acknowledged.
    pub acknowledged: u64,
    /// The instances that were named in acknowledgements, by number.
    pub instances: BTreeMap<u64, Option<u64>>,
}

pub struct Service {
    pub place: Rc<Place>,
    /// The uid of its store.
    pub store: String,
    pub kept: RefCell<Kept>,
    /// How many raises it makes, and how often.
    pub total: usize,
    pub pace: Duration,
    pub history: History,
    pub complaints: Complaints,
}

impl Service {
    pub fn is_done(&self) -> bool {
        let kept = self.kept.borrow();
        kept.raised.len() == self.total && kept.acknowledged == self.total as u64
    }

    fn complain(&self, what: String) {
        self.complaints.lock().push(format!("{}: {what}", self.place.name));
    }

    /// Makes the next raise, if one is left.
    fn raise(&self) {
        let mut kept = self.kept.borrow_mut();
        if kept.raised.len() == self.total {
            return;
        }
        let number = kept.raised.len() + 1;
        let event = EVENTS[number % EVENTS.len()];
        let args = self.args(number as u64);
        kept.raised.push((self.history.raised(&self.place.name, event, Some(&args)), event));
    }

    fn args(&self, number: u64) -> String {
        format!("[\"{}\",{number}]", self.place.name)
    }

    fn frame(&self, number: u64) -> ServiceFrame {
        let event = self.kept.borrow().raised[number as usize - 1].1;
        let payload = Payload::json(self.args(number));
        let (content_type, args, data) = Payload::to_fields(Some(&payload), Codec::Json);
        ServiceFrame::Raise(Raise {
            seq: number,
            event: event.to_owned(),
            category: None,
            content_type,
            args,
            data,
            client: None,
            lifetime_s: None,
            traceparent: None,
            tracestate: None,
        })
    }

    fn accepted(&self, number: u64, instance_id: Option<u64>, duplicate: bool) {
        let mut kept = self.kept.borrow_mut();
        if number == 0 || number > kept.raised.len() as u64 {
            return self.complain(format!("number {number} is acknowledged and was never raised"));
        }
        let known = kept.instances.get(&number).copied();
        if let (Some(Some(before)), Some(now)) = (known, instance_id)
            && before != now
        {
            self.complain(format!("number {number} was instance {before} and is {now}"));
        }
        if known.is_none() {
            let call = kept.raised[number as usize - 1].0;
            self.history.record(Entry::Acknowledged {
                call,
                instance_id,
                ignored: false,
                duplicate,
            });
            kept.instances.insert(number, instance_id);
        }
        while kept.instances.contains_key(&(kept.acknowledged + 1)) {
            kept.acknowledged += 1;
        }
    }
}

/// The process of a service.
pub async fn run(service: Rc<Service>) -> turmoil::Result {
    loop {
        if let Ok(line) = service.place.connect().await {
            let ended = session(&service, line).await;
            service.place.note(format!("the session ended: {ended:?}"));
        }
        sleep(service.place.pause()).await;
    }
}

async fn session(service: &Service, mut line: Line) -> io::Result<()> {
    line.say(&ServiceFrame::Hello(ServiceHello {
        structure: None,
        store: service.store.clone(),
        continues: None,
        service_version: "1".to_owned(),
        hostname: service.place.name.clone(),
        window: Some(WINDOW as u32),
        keepalive_s: Some(KEEPALIVE_S),
    }))
    .await?;
    let mut sent: Option<u64> = None;
    let mut next_raise = Instant::now();
    let mut not_before = Instant::now();
    loop {
        if let Some(sent) = &mut sent
            && not_before <= Instant::now()
        {
            let (made, acknowledged) = {
                let kept = service.kept.borrow();
                (kept.raised.len() as u64, kept.acknowledged)
            };
            *sent = (*sent).max(acknowledged);
            while *sent < made && *sent < acknowledged + WINDOW {
                line.say(&service.frame(*sent + 1)).await?;
                *sent += 1;
            }
        }
        let wake = next_raise.max(not_before);
        let heard = tokio::select! {
            heard = line.hear() => heard?,
            () = sleep_until(wake) => {
                if next_raise <= Instant::now() {
                    next_raise = Instant::now() + service.pace;
                    service.raise();
                }
                continue;
            }
        };
        match Codec::Json.decode(&heard) {
            Ok(ServiceMessage::Welcome(welcome)) => {
                let acknowledged = service.kept.borrow().acknowledged;
                service.place.note(format!("welcome, {} are known", welcome.last));
                if welcome.last < acknowledged || welcome.superseded {
                    let last = welcome.last;
                    service.complain(format!("{acknowledged} were acknowledged, {last} are known"));
                }
                sent = Some(acknowledged);
            }
            Ok(ServiceMessage::Accepted(accepted)) => {
                service.accepted(accepted.seq, accepted.instance_id, accepted.duplicate);
            }
            Ok(ServiceMessage::Refused(refused)) => {
                service.place.note(format!("refused: {refused:?}"));
                let pause = refused.retry_after_ms.map_or(RETRY, Duration::from_millis);
                not_before = Instant::now() + pause.min(Duration::from_secs(1));
                sent = sent.map(|_| service.kept.borrow().acknowledged);
            }
            Ok(ServiceMessage::State(state)) => service.place.note(format!("{state:?}")),
            Ok(ServiceMessage::Closing(closing)) => {
                service.place.note(format!("{closing:?}"));
                if !closing.reconnect {
                    service.complain(format!("told to stop for good: {closing:?}"));
                }
                return Ok(());
            }
            Ok(ServiceMessage::Rejected(rejected)) => {
                service.complain(format!("a good raise is rejected: {rejected:?}"));
            }
            Err(error) => service.complain(format!("a frame cannot be read: {error:?}")),
        }
    }
}
