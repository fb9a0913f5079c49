//! What a broker's state and client agent do for one client, as far as an endpoint can tell.

use std::collections::BTreeMap;

use ackord_wire::codec::set_hash;
use ackord_wire::frame::Subscription;
use ackord_wire::frame::{
    Ack, ClientFrame, ClientMessage, ClientWelcome, EventMessage, Mode, Position, Subscribed,
    SubscribedItem, Sync,
};
use ackord_wire::payload::Data;
use ackord_wire::structure::Category;

/// One event of the site, with this client's subscription to it.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Retained instances.
    pub ids: Vec<u64>,
    pub cursor: u64,
    pub generation: u32,
    pub in_flight: Option<u64>,
    pub attempt: u32,
    subscribed: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Broker {
    pub incarnation: u64,
    pub stateless: bool,
    pub queues: BTreeMap<String, Queue>,
    /// Whether deliveries may start in this session.
    open: bool,
    set: Vec<Subscription>,
    numbers: Vec<String>,
    next_id: u64,
    /// Frames that the client sent, by kind.
    pub heard: Vec<String>,
    pub working: usize,
}

impl Broker {
    pub fn new() -> Self {
        Self { incarnation: 7, next_id: 1, ..Self::default() }
    }

    pub fn raise(&mut self, event: &str) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.queues.entry(event.to_owned()).or_default().ids.push(id);
        id
    }

    fn number(&mut self, event: &str) -> u32 {
        let known = self.numbers.iter().position(|name| name == event);
        let index = known.unwrap_or_else(|| {
            self.numbers.push(event.to_owned());
            self.numbers.len() - 1
        });
        index as u32 + 1
    }

    /// The connection is gone.
    pub fn forget_session(&mut self) {
        self.open = false;
        for queue in self.queues.values_mut() {
            (queue.in_flight, queue.attempt) = (None, 0);
            if self.stateless {
                queue.subscribed = false;
            }
        }
    }

    /// Answers to a frame.
    pub fn receive(&mut self, frame: ClientFrame) -> Vec<ClientMessage> {
        match frame {
            ClientFrame::Hello(hello) => {
                self.heard.push("hello".to_owned());
                let sync = match &hello.set {
                    _ if self.stateless => Sync::Send,
                    None => Sync::Kept,
                    Some(hash) if *hash == set_hash(&self.set) => Sync::Equal,
                    Some(_) => Sync::Send,
                };
                let welcome = ClientWelcome {
                    client: (!self.stateless).then(|| "c".to_owned()),
                    epoch: 1,
                    incarnation: self.incarnation,
                    sync,
                    keepalive_s: 60,
                    addresses: Vec::new(),
                };
                let mut answers = vec![ClientMessage::Welcome(welcome)];
                if sync != Sync::Send {
                    answers.push(self.subscribed(Vec::new()));
                }
                answers
            }
            ClientFrame::Subscriptions(list) => {
                self.heard.push("subscriptions".to_owned());
                let wanted = |name: &str| list.items.iter().any(|item| item.event == name);
                let mut removed = Vec::new();
                for (name, queue) in &mut self.queues {
                    if queue.subscribed && !wanted(name) {
                        *queue = Queue { ids: std::mem::take(&mut queue.ids), ..Queue::default() };
                        removed.push(name.clone());
                    }
                }
                self.set = list.items.clone();
                self.add(&list.items);
                vec![self.subscribed(removed)]
            }
            ClientFrame::Subscribe(list) => {
                self.heard.push("subscribe".to_owned());
                self.add(&list.items);
                vec![self.subscribed(Vec::new())]
            }
            ClientFrame::Ack(ack) => self.acked(ack).into_iter().collect(),
            ClientFrame::Nack(nack) => {
                let name = self.numbers[nack.subscription as usize - 1].clone();
                let queue = self.queues.get_mut(&name).expect("known");
                if queue.in_flight == Some(nack.instance_id) {
                    queue.in_flight = None;
                }
                Vec::new()
            }
            ClientFrame::Working(_) => {
                self.working += 1;
                Vec::new()
            }
            ClientFrame::Unsubscribe { .. } | ClientFrame::Goodbye {} => Vec::new(),
        }
    }

    fn add(&mut self, items: &[Subscription]) {
        for item in items {
            let incarnation = self.incarnation;
            let queue = self.queues.entry(item.event.clone()).or_default();
            if self.stateless {
                let resume = item.resume.filter(|at| at.incarnation == incarnation);
                queue.cursor = resume.map_or(0, |at| at.instance_id);
            }
            queue.subscribed = true;
        }
    }

    fn subscribed(&mut self, removed: Vec<String>) -> ClientMessage {
        self.open = true;
        let names: Vec<String> = self.queues.keys().cloned().collect();
        let mut accepted = Vec::new();
        for event in names {
            let subscription = self.number(&event);
            let queue = &self.queues[&event];
            if queue.subscribed {
                let (incarnation, generation) = (self.incarnation, queue.generation);
                let position = Position { incarnation, generation, instance_id: queue.cursor };
                let resumed = None;
                let (granted, mode) = (true, Mode::Ordered);
                let item = SubscribedItem { event, subscription, position, granted, resumed, mode };
                accepted.push(item);
            }
        }
        ClientMessage::Subscribed(Subscribed { accepted, refused: Vec::new(), removed })
    }

    fn acked(&mut self, ack: Ack) -> Option<ClientMessage> {
        let name = self.numbers[ack.subscription as usize - 1].clone();
        let queue = self.queues.get_mut(&name).expect("known");
        if queue.in_flight != Some(ack.instance_id) {
            return None;
        }
        (queue.in_flight, queue.attempt) = (None, 0);
        queue.cursor = ack.instance_id;
        Some(ClientMessage::Committed(ack))
    }

    /// Sends the next instance of every idle subscription; with `again`, those in flight too.
    pub fn deliver(&mut self, again: bool) -> Vec<ClientMessage> {
        if !self.open {
            return Vec::new();
        }
        let names: Vec<String> = self.queues.keys().cloned().collect();
        let mut sent = Vec::new();
        for name in names {
            let subscription = self.number(&name);
            let incarnation = self.incarnation;
            let queue = self.queues.get_mut(&name).expect("known");
            if !queue.subscribed || (queue.in_flight.is_some() && !again) {
                continue;
            }
            let next = queue.ids.iter().copied().find(|id| *id > queue.cursor);
            let Some(instance_id) = queue.in_flight.or(next) else { continue };
            queue.in_flight = Some(instance_id);
            queue.attempt += 1;
            sent.push(ClientMessage::Event(Box::new(EventMessage {
                subscription,
                attempt: queue.attempt,
                age: 0,
                generation: queue.generation,
                event: name,
                category: Category::Queueing,
                service: "s".to_owned(),
                incarnation,
                instance_id,
                created_ms: 0,
                content_type: None,
                args: None,
                data: Some(Data(b"1".to_vec().into())),
                original_id: None,
                traceparent: None,
                tracestate: None,
            })));
        }
        sent
    }
}
