//! What a broker's replicated state decides about raises, as far as an endpoint can tell.

use std::collections::BTreeMap;

use ackord_wire::Code;
use ackord_wire::frame::{
    Accepted, Raise, Refused, ServiceHello, ServiceMessage, ServiceState, ServiceWelcome,
};

/// The mark of one store.
#[derive(Clone, Debug, Default)]
struct Mark {
    last: u64,
    retired: bool,
    /// The arguments decided under each number, and the id they got.
    decided: BTreeMap<u64, (Vec<u8>, u64)>,
}

/// The replicated state, and the one session.
#[derive(Clone, Debug, Default)]
pub struct Broker {
    marks: BTreeMap<String, Mark>,
    /// What was stored, in the order of commits.
    pub stored: Vec<Vec<u8>>,
    session: Option<String>,
    /// Numbers that are refused as busy, once each.
    pub busy: Vec<u64>,
    pub parked: Option<Code>,
    pub window: u32,
    /// The most raises that were unanswered at once.
    pub raises: usize,
}

pub fn args(raise: &Raise) -> Vec<u8> {
    raise.data.as_ref().map(|data| data.0.to_vec()).unwrap_or_default()
}

impl Broker {
    pub fn new() -> Self {
        Self { window: 8, ..Self::default() }
    }

    /// All marks are forgotten, as after the site was rebuilt.
    pub fn rebuild(&mut self) {
        self.marks.clear();
    }

    pub fn attach(&mut self, hello: &ServiceHello) -> ServiceMessage {
        if !self.marks.contains_key(&hello.store) {
            let mut mark = Mark::default();
            if let Some(old) = &hello.continues {
                // One that was never attached is retired all the same.
                let old = self.marks.entry(old.clone()).or_default();
                mark = old.clone();
                old.retired = true;
            }
            self.marks.insert(hello.store.clone(), mark);
        }
        let mark = &self.marks[&hello.store];
        self.session = Some(hello.store.clone());
        ServiceMessage::Welcome(ServiceWelcome {
            service: "s".to_owned(),
            epoch: 1,
            incarnation: 1,
            state: ServiceState { online: self.parked.is_none(), reason: self.parked },
            last: mark.last,
            superseded: mark.retired,
            window: self.window,
            keepalive_s: 60,
            args_bytes_max: 2048,
            addresses: Vec::new(),
        })
    }

    pub fn decide(&mut self, raise: &Raise) -> ServiceMessage {
        self.raises += 1;
        let refuse = |code, expected| {
            let (seq, detail) = (raise.seq, String::new());
            ServiceMessage::Refused(Refused { seq, code, detail, expected, retry_after_ms: None })
        };
        let uid = self.session.clone().expect("a raise follows a hello");
        if let Some(code) = self.parked {
            return refuse(code, None);
        }
        if let Some(index) = self.busy.iter().position(|seq| *seq == raise.seq) {
            self.busy.remove(index);
            return refuse(Code::Busy, None);
        }
        let mark = self.marks.get_mut(&uid).expect("an attached store has a mark");
        if mark.retired {
            return refuse(Code::StoreSuperseded, None);
        }
        if raise.seq > mark.last + 1 {
            return refuse(Code::OutOfSequence, Some(mark.last + 1));
        }
        let duplicate = raise.seq <= mark.last;
        if duplicate {
            let known = mark.decided.get(&raise.seq);
            if known.is_some_and(|(content, _)| *content != args(raise)) {
                return refuse(Code::SequenceReused, None);
            }
        } else {
            self.stored.push(args(raise));
            mark.last = raise.seq;
            mark.decided.insert(raise.seq, (args(raise), self.stored.len() as u64));
        }
        let instance_id = mark.decided.get(&raise.seq).map(|(_, id)| *id);
        let accepted = Accepted { seq: raise.seq, instance_id, ignored: false, duplicate };
        ServiceMessage::Accepted(accepted)
    }
}
