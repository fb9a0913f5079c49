//! What all nodes agree on, and what each of them has seen of it: the production site machine.
//!
//! `proposal ─▶ queue ─▶ one entry of all that waits ─▶ applied ─▶ outcomes`
//!
//! Invariants: node 0 has applied everything; node 1 only when it is told to catch up. A proposal is
//! applied at most once; its session may never hear of it.

use std::collections::BTreeMap;

use ackord_machine::session::{Failed, Token, View};
use ackord_machine::site::{
    Access, AdminAction, Batch, ClientId, Command, Epoch, EventDefinition, EventKey, EventName,
    GuestSupport, Incarnation, Kind, Outcome, Raise, Raising, RequestId, Sequence, ServiceId, Site,
    SiteName, SiteSettings, Stamp, State, StorageUid, Structure, UserId, apply, coalesce,
};

use super::whole::Whole;

/// The nodes that sessions may be at.
pub const NODES: usize = 2;
/// The one event.
pub const EVENT: &str = "reading";
/// The one service.
pub const SERVICE: &str = "service";
/// The one client.
pub const CLIENT: &str = "client";

const SITE: &str = "model";

/// The site's name.
pub fn site() -> SiteName {
    SiteName::from(SITE)
}

/// The state, known by the hash of its rows.
#[derive(Clone)]
struct Applied(State);

impl std::fmt::Debug for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hash().fmt(f)
    }
}

/// What a session asked for.
#[derive(Clone, Debug)]
pub struct Proposal {
    command: Command,
    /// The session's connection, and what it wants to hear under; `None` when nobody waits.
    waiter: Option<(u64, Token)>,
}

/// An answer to a session.
pub type Answer = (u64, Token, Result<Outcome, Failed>);

/// See the module.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Broker {
    newest: Whole<Applied>,
    views: [Whole<Applied>; NODES],
    queue: Whole<Vec<Proposal>>,
    /// Proposals given up by everybody, that come to be applied all the same.
    late: Whole<Vec<Command>>,
    /// The newest epoch of each account.
    epochs: Whole<BTreeMap<String, Epoch>>,
    /// The last number that was decided of each store.
    marks: Whole<BTreeMap<StorageUid, Sequence>>,
    /// What broke a rule.
    pub broken: Option<&'static str>,
}

/// What becomes of the first proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is not applied, and its session knows.
    Lost,
    /// It is applied, and its session does not know.
    Unheard,
    /// Its session does not know; it is applied at some later time.
    Late,
}

impl Broker {
    /// A broker with its site and accounts, and what else is to be there.
    pub fn new(more: Vec<Command>) -> Self {
        let mut state = State::new();
        let commands = setup().into_iter().chain(more).collect();
        for outcome in apply(&mut state, &Batch { stamp: Stamp(1), commands }).outcomes {
            assert!(!matches!(outcome, Outcome::Refused(_)), "the setup was refused: {outcome:?}");
        }
        let state = Whole::new(Applied(state));
        Self {
            newest: state.clone(),
            views: [state.clone(), state],
            queue: Whole::new(Vec::new()),
            late: Whole::new(Vec::new()),
            epochs: Whole::new(BTreeMap::new()),
            marks: Whole::new(BTreeMap::new()),
            broken: None,
        }
    }

    /// What a session at a node sees.
    pub fn view(&self, node: usize, now_ms: u64) -> View<'_> {
        View::new(&self.views[node].get().0, &site(), now_ms, Stamp(1))
    }

    /// The site as everybody will see it.
    pub fn site(&self) -> &Site {
        self.newest.get().0.site(SITE).expect("the setup made it")
    }

    /// The number of the one event.
    pub fn event(&self) -> EventKey {
        self.site().event_named(EVENT).expect("the setup made it").key
    }

    /// A session asks for something.
    pub fn propose(&mut self, command: Command, waiter: Option<(u64, Token)>) {
        self.queue.change(|queue| queue.push(Proposal { command, waiter }));
    }

    /// Whether something waits to be applied.
    pub fn has_waiting(&self) -> bool {
        !self.queue.get().is_empty()
    }

    /// Whether somebody waits to hear of the first proposal.
    pub fn is_first_awaited(&self) -> bool {
        self.queue.get().first().is_some_and(|proposal| proposal.waiter.is_some())
    }

    /// Whether something that all have given up may still be applied.
    pub fn has_late(&self) -> bool {
        !self.late.get().is_empty()
    }

    /// Whether a node has not seen everything.
    pub fn is_behind(&self, node: usize) -> bool {
        self.views[node] != self.newest
    }

    /// A node sees everything.
    pub fn catch_up(&mut self, node: usize) {
        self.views[node] = self.newest.clone();
    }

    /// All that waits is applied as one entry.
    pub fn commit(&mut self) -> Vec<Answer> {
        let proposals = self.queue.change(std::mem::take);
        let waiters: Vec<_> = proposals.iter().map(|proposal| proposal.waiter).collect();
        let commands = proposals.into_iter().map(|proposal| proposal.command).collect();
        let (commands, survivors) = coalesce(commands);
        let outcomes = self.apply(commands);
        let answered = waiters.into_iter().zip(survivors);
        let answer = |(waiter, survivor): (Option<(u64, Token)>, usize)| {
            waiter.map(|(link, token)| (link, token, Ok(outcomes[survivor].clone())))
        };
        answered.filter_map(answer).collect()
    }

    /// Applies commands.
    pub fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let batch = Batch { stamp: Stamp(1), commands };
        let cursor = self.cursor();
        let outcomes = self.newest.change(|state| apply(&mut state.0, &batch).outcomes);
        if self.cursor() < cursor {
            self.broken = Some("a cursor fell");
        }
        for (command, outcome) in batch.commands.iter().zip(&outcomes) {
            self.judge_epoch(command, outcome);
            self.judge_number(command, outcome);
        }
        self.views[0] = self.newest.clone();
        outcomes
    }

    /// The client's cursor.
    pub fn cursor(&self) -> Option<u64> {
        let row = self.site().subscription(&ClientId::from(CLIENT), self.event());
        row.map(|row| row.cursor.0)
    }

    /// Of the sessions of an account only the newest changes anything.
    fn judge_epoch(&mut self, command: &Command, outcome: &Outcome) {
        let raise = |raise: &Raise| (SERVICE, Some(raise.epoch));
        let (account, named) = match command {
            Command::AttachService(_) => (SERVICE, None),
            Command::AttachClient { .. } => (CLIENT, None),
            Command::Raise(one) => raise(one),
            Command::Traced(traced) => match &traced.raise {
                Raising::Session(one) => raise(one),
                Raising::Keyed(_) | Raising::After(_) => return,
            },
            Command::Advance(advance) => (CLIENT, Some(advance.epoch)),
            Command::Subscribe(list) => (CLIENT, Some(list.epoch)),
            _ => return,
        };
        match outcome {
            Outcome::ServiceAttached { epoch, .. } | Outcome::ClientAttached { epoch, .. } => {
                self.epochs.change(|epochs| epochs.insert(account.to_owned(), *epoch));
            }
            Outcome::Raised(_) | Outcome::Advanced { .. } | Outcome::Subscribed(_) => {
                let newest = self.epochs.get().get(account).copied();
                if newest.is_some() && named != newest {
                    self.broken = Some("an older session changed something");
                }
            }
            _ => {}
        }
    }

    /// Numbers of a store are decided one after the other.
    fn judge_number(&mut self, command: &Command, outcome: &Outcome) {
        let raise = match command {
            Command::Raise(raise) => raise,
            Command::Traced(traced) => match &traced.raise {
                Raising::Session(raise) => raise,
                Raising::Keyed(_) | Raising::After(_) => return,
            },
            _ => return,
        };
        if matches!(outcome, Outcome::Raised(raised) if !raised.duplicate) {
            let before = self.marks.change(|marks| marks.insert(raise.uid, raise.sequence));
            if before.unwrap_or_default().next() != raise.sequence {
                self.broken = Some("a number was passed over");
            }
        }
    }

    /// The first proposal goes wrong.
    pub fn doubt(&mut self, doubt: Doubt) -> Option<Answer> {
        let mut first = self.queue.change(|queue| queue.remove(0));
        let (link, token) = first.waiter.take()?;
        let failed = match doubt {
            Doubt::Lost => Failed::Unavailable,
            Doubt::Unheard => {
                self.queue.change(|queue| queue.insert(0, first));
                Failed::Unknown
            }
            Doubt::Late => {
                self.late.change(|late| late.push(first.command));
                Failed::Unknown
            }
        };
        Some((link, token, Err(failed)))
    }

    /// What all have given up is queued after all.
    pub fn come_late(&mut self) {
        let commands = self.late.change(std::mem::take);
        for command in commands {
            self.propose(command, None);
        }
    }

    /// Sessions are gone: nobody waits for what they asked for, which may be lost with them.
    pub fn forget(&mut self, links: &[u64], lost: bool) {
        let of =
            |proposal: &Proposal| proposal.waiter.is_some_and(|(link, _)| links.contains(&link));
        self.queue.change(|queue| {
            if lost {
                queue.retain(|proposal| !of(proposal));
            }
            for proposal in queue.iter_mut().filter(|proposal| of(proposal)) {
                proposal.waiter = None;
            }
        });
    }
}

fn setup() -> Vec<Command> {
    let settings = SiteSettings {
        multi_service: false,
        constructible: false,
        guests_allowed: true,
        stateless_guests_allowed: true,
    };
    let kind = Kind::Queueing { lifetime_s: 86_400, size: 1000, access: Access::Everyone };
    let structure = Structure {
        service_type: "model".to_owned(),
        contract_author: "nobody".to_owned(),
        guests: GuestSupport::GuestAndStateless,
        roles: Vec::new(),
        owner_role: None,
        events: vec![EventDefinition { name: EventName::from(EVENT), kind }],
    };
    let user = UserId::from("user");
    let (incarnation, rebuild) = (Incarnation(5), false);
    let actions = [
        AdminAction::CreateSite { settings, incarnation },
        AdminAction::ApplyStructure { structure, rebuild, incarnation },
        AdminAction::CreateUser { id: user.clone(), roles: Vec::new() },
        AdminAction::CreateService { id: ServiceId::from(SERVICE) },
        AdminAction::CreateClient { id: ClientId::from(CLIENT), user: Some(user) },
    ];
    let command = |(number, action)| Command::Admin {
        request: RequestId([number; 16]),
        site: site(),
        action,
    };
    (1..).zip(actions).map(command).collect()
}
