//! A client whose handlers and positions are one durable step: an instance that comes again is
//! acknowledged and not handled.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use ackord_wire::Codec;
use ackord_wire::frame::{
    Ack, ClientFrame, ClientHello, ClientMessage, EventMessage, Subscription, SubscriptionList,
};
use cluster_tests::history::{Entry, Handled, History, Subscriber};
use tokio::time::sleep;

use crate::endpoint::{KEEPALIVE_S, Line, Place};
use crate::host::{Complaints, EVENTS};

/// What its disk keeps, by event.
#[derive(Default)]
pub struct Kept {
    /// The last instance that was handled.
    pub handled: BTreeMap<String, u64>,
    /// The highest cursor that the broker confirmed.
    pub committed: BTreeMap<String, u64>,
    /// Instances that came again before they were confirmed.
    pub again: u64,
    /// How often the process was killed.
    pub life: u32,
}

pub struct Client {
    pub place: Rc<Place>,
    pub kept: RefCell<Kept>,
    pub history: History,
    pub complaints: Complaints,
}

impl Client {
    pub fn who(&self) -> Subscriber {
        Subscriber { name: self.place.name.clone(), life: self.kept.borrow().life }
    }

    /// The process is killed.
    pub fn killed(&self) {
        self.history.record(Entry::Killed { by: self.who() });
        self.kept.borrow_mut().life += 1;
    }

    pub fn handled(&self, event: &str) -> u64 {
        self.kept.borrow().handled.get(event).copied().unwrap_or(0)
    }

    pub fn committed(&self, event: &str) -> u64 {
        self.kept.borrow().committed.get(event).copied().unwrap_or(0)
    }

    fn complain(&self, what: String) {
        self.complaints.lock().push(format!("{}: {what}", self.place.name));
    }

    /// Handles an instance unless that was done before.
    fn handle(&self, event: &EventMessage) {
        let (name, id) = (&event.event, event.instance_id);
        if id <= self.committed(name) {
            self.complain(format!("{name} {id} comes again after it was confirmed"));
        }
        if id <= self.handled(name) {
            self.kept.borrow_mut().again += 1;
            return;
        }
        let by = self.who();
        let handled = Handled {
            event: name.clone(),
            instance_id: id,
            incarnation: event.incarnation,
            generation: event.generation,
            service: event.service.clone(),
            age: event.age,
            attempt: event.attempt,
            args: event.args.as_ref().map(|args| args.get().to_owned()),
        };
        self.history.record(Entry::HandlerStarted { by: by.clone(), handled });
        let (event, success) = (name.clone(), true);
        self.history.record(Entry::HandlerEnded { by, event, instance_id: id, success });
        self.kept.borrow_mut().handled.insert(name.clone(), id);
    }

    fn confirmed(&self, event: &str, id: u64) {
        let before = self.committed(event);
        if id < before {
            self.complain(format!("the cursor of {event} goes from {before} back to {id}"));
        }
        if id > before {
            let (by, event) = (self.who(), event.to_owned());
            self.history.record(Entry::Committed { by, event: event.clone(), instance_id: id });
            self.kept.borrow_mut().committed.insert(event, id);
        }
    }
}

/// The process of a client.
pub async fn run(client: Rc<Client>) -> turmoil::Result {
    loop {
        if let Ok(line) = client.place.connect().await {
            let ended = session(&client, line).await;
            client.place.note(format!("the session ended: {ended:?}"));
        }
        sleep(client.place.pause()).await;
    }
}

async fn session(client: &Client, mut line: Line) -> io::Result<()> {
    line.say(&ClientFrame::Hello(ClientHello {
        set: Some("-".to_owned()),
        keepalive_s: Some(KEEPALIVE_S),
        hostname: client.place.name.clone(),
    }))
    .await?;
    let mut events: BTreeMap<u32, String> = BTreeMap::new();
    loop {
        match Codec::Json.decode(&line.hear().await?) {
            Ok(ClientMessage::Welcome(_)) => {
                let item = |event: &&str| Subscription {
                    event: (*event).to_owned(),
                    ack_timeout_ms: Some(1000),
                    ..Subscription::default()
                };
                let items = EVENTS.iter().map(item).collect();
                line.say(&ClientFrame::Subscriptions(SubscriptionList { items })).await?;
            }
            Ok(ClientMessage::Subscribed(subscribed)) => {
                for refused in subscribed.refused {
                    client.complain(format!("a subscription is refused: {refused:?}"));
                }
                for item in subscribed.accepted {
                    client.confirmed(&item.event, item.position.instance_id);
                    events.insert(item.subscription, item.event);
                }
            }
            Ok(ClientMessage::Event(event)) => {
                client.handle(&event);
                let (subscription, instance_id) = (event.subscription, event.instance_id);
                let generation = Some(event.generation);
                line.say(&ClientFrame::Ack(Ack { subscription, instance_id, generation })).await?;
            }
            Ok(ClientMessage::Committed(ack)) => match events.get(&ack.subscription) {
                Some(event) => client.confirmed(event, ack.instance_id),
                None => client.complain(format!("a strange subscription: {ack:?}")),
            },
            Ok(ClientMessage::Closing(closing)) => {
                client.place.note(format!("{closing:?}"));
                if !closing.reconnect {
                    client.complain(format!("told to stop for good: {closing:?}"));
                }
                return Ok(());
            }
            Ok(ClientMessage::Events(events)) => {
                client.complain(format!("{} events at once, not asked for", events.len()));
            }
            Ok(ClientMessage::Authority { .. } | ClientMessage::Presence(_)) => {}
            Err(error) => client.complain(format!("a frame cannot be read: {error:?}")),
        }
    }
}
