//! Encodings: round trips, exactness, and the bytes of version 1.

use ackord_machine::site::*;

use crate::world::*;

#[test]
fn every_row_and_key_survives_its_encoding() {
    let mut world = World::with(usual());
    world.run(Command::SetLimits(Limits { keys_max: 7, ..Limits::default() }));
    world.subscribe("c", &["q", "p"]);
    world.store(event("q", "x"));
    world.store(null("r"));
    world.store(to_client("p", "c", "y"));
    world.raise_keyed("k", event("q", "x"));
    world.poll("c", 1000);
    world.done(crate::pushes::put("h", "c", "q"));
    world.attach_with("v", Some(structure(vec![])), 2, Some(1));
    let (hash, principal) = (Digest([3; 32]), Principal::Client("c".into()));
    world.done(AdminAction::CreateToken { id: "t".into(), hash, principal });
    let rows: Vec<_> = world.state.rows().collect();
    for row in &rows {
        assert_eq!(decode_row(&encode_row(row)).as_ref(), Ok(row));
        assert_eq!(decode_key(&encode_key(&row.key())), Ok(row.key()));
        assert_eq!(world.state.row(&row.key()).as_ref(), Some(row));
    }
    // One of each kind was among them.
    let kinds: std::collections::BTreeSet<_> = rows.iter().map(|row| encode_row(row)[1]).collect();
    assert_eq!(kinds.len(), 18);
}

#[test]
fn a_row_that_is_not_there_is_none() {
    let world = World::with(usual());
    let site = SiteName::from(SITE);
    for key in [
        RowKey::Limits,
        RowKey::Instance(site.clone(), InstanceId(1)),
        RowKey::Event(site.clone(), EventKey(99)),
        RowKey::Site("other".into()),
        RowKey::Request(site.clone(), request(77_777)),
        RowKey::Attempt(site.clone()),
        RowKey::Polling(site, "c".into()),
    ] {
        assert_eq!(world.state.row(&key), None, "{key:?}");
    }
    assert_eq!(State::new().row(&RowKey::Clock), None);
    assert_eq!(State::new().rows().count(), 0);
}

#[test]
fn deleting_what_is_not_there_changes_nothing() {
    let world = World::with(usual());
    let mut state = world.state.clone();
    for row in World::multi(usual()).state.rows() {
        let key = row.key();
        if world.state.row(&key).is_none() {
            state.absorb(&Write::Delete(key));
        }
    }
    state.absorb(&Write::Delete(RowKey::Site("other".into())));
    assert_eq!(state, world.state);
}

#[test]
fn deleting_every_row_leaves_nothing() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    world.store(event("q", "x"));
    world.store(to_client("p", "c", "y"));
    world.raise_keyed("k", event("q", "x"));
    world.run(Command::SetLimits(Limits { keys_max: 7, ..Limits::default() }));
    let mut state = world.state.clone();
    for row in world.state.rows() {
        state.absorb(&Write::Delete(row.key()));
    }
    assert_eq!(state, State::new());
    assert_eq!((state.bytes(), state.next_due()), (0, None));
}

#[test]
fn what_is_not_exactly_an_encoding_is_an_error() {
    let row = encode_row(&Row::Clock(Stamp(1)));
    assert_eq!(decode_row(&[]), Err(DecodeError::Empty));
    assert_eq!(decode_row(&[2, 0, 1]), Err(DecodeError::Version { found: 2 }));
    assert_eq!(decode_row(&row[..row.len() - 1]), Err(DecodeError::Malformed));
    assert_eq!(decode_row(&[1, 250]), Err(DecodeError::Malformed));
    let longer = [&row[..], &[0, 0]].concat();
    assert_eq!(decode_row(&longer), Err(DecodeError::Trailing { bytes: 2 }));
    assert!(!DecodeError::Malformed.retryable());
}

#[test]
fn the_bytes_of_version_1_are_pinned() {
    // Disks hold these: a change of any needs a new version and a way to read the old one.
    assert_eq!(FORMAT_VERSION, 1);
    let batch = Batch { stamp: Stamp(300), commands: vec![Command::Tick { limit: 5 }] };
    assert_eq!(encode_batch(&batch)[..], [1, 172, 2, 1, 8, 5]);
    let key = RowKey::Outcome("s".into(), "v".into(), uid(7), Sequence(9));
    let mut expected = vec![1, 8, 1, b's', 1, b'v'];
    expected.extend([7; 16]);
    expected.push(9);
    assert_eq!(encode_key(&key)[..], expected);
    assert_eq!(encode_row(&Row::Clock(Stamp(1)))[..], [1, 0, 1]);
}
