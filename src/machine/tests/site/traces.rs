//! The trace context of an event: kept with its instance, and no part of any decision.

use ackord_machine::site::*;

use crate::world::*;

fn kept(world: &World, id: u64) -> Option<TraceContext> {
    world.site().instance(InstanceId(id)).unwrap().trace.as_deref().cloned()
}

#[test]
fn a_context_is_kept_with_its_instance_however_it_was_raised() {
    let mut world = World::with(usual());
    let (trace, other) = (context(1, "vendor=x"), context(2, ""));
    let session = world.store(traced(event("q", "1"), &trace));
    world.raise_keyed("k1", traced(event("q", "2"), &other));
    world.raise_after("k1", "k2", traced(event("q", "3"), &trace));
    let without = world.store(event("r", "4"));
    assert_eq!(kept(&world, session), Some(trace.clone()));
    assert_eq!((kept(&world, 2), kept(&world, 3)), (Some(other), Some(trace)));
    assert_eq!(kept(&world, without), None);
}

#[test]
fn the_same_event_in_another_trace_or_in_none_is_a_duplicate() {
    let mut world = World::with(usual());
    world.raise_as("v", 1, 1, traced(event("q", "1"), &context(1, "")));
    for again in [event("q", "1"), traced(event("q", "1"), &context(2, "a=b"))] {
        let Outcome::Raised(raised) = world.raise_as("v", 1, 1, again.clone()) else { panic!() };
        assert!(raised.duplicate, "{raised:?}");
        world.raise_keyed("k", event("q", "1"));
        let Outcome::Raised(raised) = world.raise_keyed("k", again) else { panic!() };
        assert!(raised.duplicate, "{raised:?}");
    }
    // The first one's is kept.
    assert_eq!(kept(&world, 1), Some(context(1, "")));
}

#[test]
fn a_context_that_is_not_sound_is_left_out_and_the_event_stays() {
    let mut world = World::with(usual());
    let long = "x".repeat(TRACE_STATE_BYTES_MAX + 1);
    let no_parent = TraceContext { parent_id: [0; 8], ..context(1, "") };
    let wrong = [context(0, ""), no_parent, context(1, &long), context(1, "\n"), context(1, "ü")];
    for trace in wrong {
        let id = world.store(traced(event("q", "1"), &trace));
        assert_eq!(kept(&world, id), None, "{trace:?}");
    }
    let longest = context(1, &"x".repeat(TRACE_STATE_BYTES_MAX));
    let id = world.store(traced(event("q", "1"), &longest));
    assert_eq!(kept(&world, id), Some(longest));
}

#[test]
fn commands_and_rows_with_a_context_survive_their_encoding_and_others_have_the_bytes_they_had() {
    let raise =
        |event| RaiseKeyed { site: SITE.into(), service: "v".into(), key: "k".into(), event };
    let command = |event| Command::from(Raising::Keyed(raise(event)));
    let encoded = |command| encode_batch(&Batch { stamp: Stamp(0), commands: vec![command] });
    let trace = context(1, "a=b");
    // Not a byte for an event without one.
    let plain = encoded(command(event("q", "1")));
    assert_eq!(plain, encoded(Command::RaiseKeyed(raise(event("q", "1")))));
    let with = command(traced(event("q", "1"), &trace));
    let decoded = decode_batch(&encoded(with.clone())).unwrap();
    assert_eq!(decoded.commands.first(), Some(&with));
    assert_eq!(encoded(with.untraced()), plain);

    let mut world = World::with(usual());
    let (bare, id) = (world.store(event("q", "1")), world.store(traced(event("q", "1"), &trace)));
    let row = |id| world.state.row(&RowKey::Instance(SITE.into(), InstanceId(id))).unwrap();
    assert!(matches!(row(bare), Row::Instance(_)));
    let decoded = decode_row(&encode_row(&row(id))).unwrap();
    assert_eq!(decoded, row(id));
    let Row::Traced(decoded) = decoded else { panic!("{decoded:?}") };
    assert_eq!(decoded.whole().trace.as_deref(), Some(&trace));
    assert_eq!(*decoded.whole(), **world.site().instance(InstanceId(id)).unwrap());
}

#[test]
fn a_state_from_its_rows_has_the_contexts_and_weighs_the_same() {
    let mut world = World::with(usual());
    let empty = world.state.bytes();
    let trace = context(1, "a=b");
    let id = world.store(traced(event("q", "1"), &trace));
    let mut rebuilt = State::new();
    for row in world.state.rows() {
        // As a checkpoint and a snapshot have it.
        rebuilt.absorb(&Write::Put(decode_row(&encode_row(&row)).unwrap()));
    }
    assert_eq!(rebuilt, world.state);
    assert_eq!(rebuilt.bytes(), world.state.bytes());
    let found = rebuilt.site(SITE).unwrap().instance(InstanceId(id)).unwrap().trace.clone();
    assert_eq!(found.as_deref(), Some(&trace));
    // What it weighs goes with it.
    for value in ["2", "3", "4"] {
        world.store(event("q", value));
    }
    let plain = world.state.bytes();
    let mut without = World::with(usual());
    assert_eq!(without.state.bytes(), empty);
    for value in ["1", "2", "3", "4"] {
        without.store(event("q", value));
    }
    assert_eq!(plain, without.state.bytes());
}

#[test]
fn what_is_raised_again_from_a_dead_letter_is_in_no_trace() {
    let mut world = World::with(usual());
    let id = world.store(traced(event("q", "1"), &context(1, "")));
    let instance = Instance::clone(world.site().instance(InstanceId(id)).unwrap());
    let replayed = Instance { original: Some(InstanceId(7)), ..instance };
    // An instance may have both; neither is lost.
    let row = decode_row(&encode_row(&Row::from(std::sync::Arc::new(replayed.clone())))).unwrap();
    let Row::Traced(row) = row else { panic!("{row:?}") };
    assert_eq!(*row.whole(), replayed);
}
