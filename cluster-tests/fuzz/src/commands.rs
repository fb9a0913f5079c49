//! Replicated commands and rows: decoding is total, deciding what was decoded never panics, and two
//! replicas that do the same are the same.

use std::sync::OnceLock;

use ackord_machine::site::*;
use bytes::Bytes;

/// Commands that make a site with everything in it.
pub fn history() -> Vec<Command> {
    let site = || SiteName::from("s");
    let admin = |number: u8, action| {
        let request = RequestId([number; 16]);
        Command::Admin { request, site: site(), action }
    };
    let claim = |session| Claim { session: SessionId(session), above: Epoch(0) };
    let event = |name: &str, client: Option<&str>| NewEvent {
        name: name.into(),
        category: None,
        arguments: Some(Arguments {
            content_type: "application/json".to_owned(),
            data: Bytes::from_static(b"1"),
        }),
        client: client.map(Into::into),
        lifetime_s: None,
        trace: None,
    };
    let keyed = |key: &str, event| RaiseKeyed {
        site: site(),
        service: "v".into(),
        key: key.to_owned(),
        event,
    };
    let item = |name: &str| SubscriptionRequest {
        event: name.into(),
        category: None,
        start: Start::Earliest,
        ack_timeout_ms: Some(5000),
        max_attempts: None,
    };
    let (trace_id, parent_id, state) = ([1; 16], [2; 8], "a=1".to_owned());
    let context = TraceContext { trace_id, parent_id, flags: 1, state };
    let settings = SiteSettings {
        multi_service: false,
        constructible: true,
        guests_allowed: true,
        stateless_guests_allowed: true,
    };
    vec![
        admin(1, AdminAction::CreateSite { settings, incarnation: Incarnation(7) }),
        admin(2, AdminAction::CreateService { id: "v".into() }),
        Command::AttachService(AttachService {
            site: site(),
            service: "v".into(),
            structure: Some(structure()),
            version: "1".to_owned(),
            hostname: "h".to_owned(),
            uid: StorageUid([1; 16]),
            continues: None,
            incarnation: Incarnation(9),
            place: Place { node: 1, run: 1 },
            claim: claim(1),
        }),
        admin(3, AdminAction::CreateUser { id: "u".into(), roles: vec!["Admin".into()] }),
        admin(4, AdminAction::CreateClient { id: "c".into(), user: Some("u".into()) }),
        Command::AttachClient { site: site(), client: "c".into(), claim: claim(2) },
        Command::Subscribe(Subscribe {
            site: site(),
            client: "c".into(),
            epoch: Epoch(1),
            number: 1,
            mode: SubscribeMode::Exact,
            items: vec![item("q"), item("p")],
        }),
        Command::Raise(Raise {
            site: site(),
            service: "v".into(),
            epoch: Epoch(1),
            uid: StorageUid([1; 16]),
            sequence: Sequence(1),
            event: event("q", None),
        }),
        Command::RaiseKeyed(keyed("k", event("r", None))),
        Command::RaiseAfter(RaiseAfter {
            raise: keyed("l", event("p", Some("c"))),
            after: "k".to_owned(),
        }),
        Command::from(Raising::Keyed(keyed(
            "m",
            NewEvent { trace: Some(Box::new(context)), ..event("q", None) },
        ))),
        Command::Advance(Advance {
            site: site(),
            client: "c".into(),
            event: EventKey(2),
            epoch: Epoch(1),
            incarnation: Incarnation(7),
            generation: Generation(0),
            instance: InstanceId(1),
        }),
        admin(
            5,
            AdminAction::CreateToken {
                id: "t".into(),
                hash: Digest([3; 32]),
                principal: Principal::Client("c".into()),
            },
        ),
        admin(6, AdminAction::Seek { client: "c".into(), event: "q".into(), after: InstanceId(0) }),
        Command::SetLimits(Limits { keys_max: 7, ..Limits::default() }),
        Command::Renew { seed: 5 },
        Command::Tick { limit: 100 },
        Command::Compare,
        Command::Restore(Restore {
            site: "restored".into(),
            attempt: AttemptId([1; 16]),
            part: 0,
            rows: vec![],
        }),
        Command::DetachService { site: site(), service: "v".into(), session: SessionId(1) },
    ]
}

fn structure() -> Structure {
    let access = || Access::Everyone;
    let event = |name: &str, kind| EventDefinition { name: name.into(), kind };
    Structure {
        service_type: "boiler".into(),
        contract_author: "Example".into(),
        guests: GuestSupport::GuestAndStateless,
        roles: vec!["Admin".into()],
        owner_role: Some("Admin".into()),
        events: vec![
            event("r", Kind::Replacing { access: access() }),
            event("q", Kind::Queueing { lifetime_s: 60, size: 3, access: access() }),
            event("p", Kind::Private { lifetime_s: 60 }),
        ],
    }
}

/// The state that the history makes, up to where it takes the service away again.
fn base() -> &'static State {
    static BASE: OnceLock<State> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut state = State::new();
        let mut commands = history();
        commands.truncate(11);
        apply(&mut state, &Batch { stamp: Stamp(1_000_000), commands });
        state
    })
}

/// A batch of commands on a site that has everything, on two replicas.
pub fn commands(data: &[u8]) {
    let Ok(batch) = decode_batch(data) else { return };
    assert_eq!(decode_batch(&encode_batch(&batch)).as_ref(), Ok(&batch));
    let (mut here, mut there) = (base().clone(), base().clone());
    let (outcomes, known) = (apply(&mut here, &batch), apply(&mut there, &batch));
    assert_eq!(outcomes, known, "two replicas answer differently");
    check(&here, &there);
    let (coalesced, survivors) = coalesce(batch.commands.clone());
    assert_eq!(survivors.len(), batch.commands.len());
    let mut fewer = base().clone();
    apply(&mut fewer, &Batch { stamp: batch.stamp, commands: coalesced });
    assert_eq!(fewer, here, "fewer advances come to another state");
    go_on(here, there);
}

/// Rows on top of a state that has everything, each behind its length, and keys among them.
pub fn rows(data: &[u8]) {
    let (mut here, mut there) = (base().clone(), base().clone());
    let mut rest = data;
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(more.len());
        let (bytes, more) = more.split_at(length);
        rest = more;
        let write = match (decode_row(bytes), decode_key(bytes)) {
            (Ok(row), _) => {
                assert_eq!(decode_row(&encode_row(&row)).as_ref(), Ok(&row));
                Write::Put(row)
            }
            (Err(_), Ok(key)) => {
                assert_eq!(decode_key(&encode_key(&key)).as_ref(), Ok(&key));
                Write::Delete(key)
            }
            (Err(_), Err(_)) => continue,
        };
        here.absorb(&write);
        there.absorb(&write);
    }
    check(&here, &there);
    go_on(here, there);
}

/// What was decoded may have left anything: what comes next is decided all the same.
fn go_on(mut here: State, mut there: State) {
    let stamp = Stamp(here.clock().0.saturating_add(61_000));
    let batch = Batch { stamp, commands: history() };
    assert_eq!(apply(&mut here, &batch), apply(&mut there, &batch));
    check(&here, &there);
}

fn check(here: &State, there: &State) {
    assert_eq!(here, there, "two replicas differ");
    assert_eq!(here.hash(), there.hash(), "two replicas have other hashes");
    let mut rebuilt = State::new();
    here.rows().for_each(|row| rebuilt.absorb(&Write::Put(row)));
    assert_eq!(rebuilt, *here, "the state is not one of its rows alone");
}

/// Batches and rows as a broker writes them: the target, a name, the bytes.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let whole = Batch { stamp: Stamp(1_100_000), commands: history() };
    let mut seeds = vec![("commands", "history".to_owned(), encode_batch(&whole).to_vec())];
    for (number, command) in history().into_iter().enumerate() {
        let batch = Batch { stamp: Stamp(1_100_000), commands: vec![command] };
        seeds.push(("commands", format!("command-{number:02}"), encode_batch(&batch).to_vec()));
    }
    for (number, row) in base().rows().enumerate() {
        let mut both = Vec::new();
        for bytes in [encode_row(&row), encode_key(&row.key())] {
            both.extend((bytes.len() as u16).to_le_bytes());
            both.extend_from_slice(&bytes);
        }
        seeds.push(("rows", format!("row-{number:02}"), both));
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_taken() {
        let batch = Batch { stamp: Stamp(1_000_000), commands: history() };
        let outcomes = apply(&mut State::new(), &batch).outcomes;
        for (command, outcome) in batch.commands.iter().zip(&outcomes) {
            assert!(!matches!(outcome, Outcome::Refused(_)), "{command:?}: {outcome:?}");
        }
    }
}
