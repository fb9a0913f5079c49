//! The operations of dead letters.

use ackord_wire::Code;
use ackord_wire::letter::{DeadLetter, DeadLetterChange};
use ackord_wire::resource::Page;

use super::operation::{Kind, Needs, Operation, Param, delete, get, patch, post};
use super::table::{AFTER, CONSISTENCY, LIMIT};

/// See the module.
pub fn letters() -> Vec<Operation> {
    const CLIENT: Param = Param::new("client", Kind::Text, "Only those of this client.");
    const PUSH: Param = Param::new("push", Kind::Text, "Only those of this push subscription.");
    const EVENT: Param = Param::new("event", Kind::Text, "Only those of this event.");
    const STATE: Param = Param::new(
        "state",
        Kind::Choice(&["waiting", "replayed"]),
        "Only those of which this became.",
    );
    let read = [Code::NotFound, Code::Unavailable];
    vec![
        get("dead-letters", "The dead letters of a site, the oldest first.")
            .needs(Needs::Read)
            .query(&[LIMIT, AFTER, CONSISTENCY, CLIENT, PUSH, EVENT, STATE])
            .answers::<Page<DeadLetter>>(200, "A page.")
            .problems(&read),
        get("dead-letter", "A dead letter.")
            .needs(Needs::Read)
            .query(&[CONSISTENCY])
            .answers::<DeadLetter>(200, "The dead letter.")
            .problems(&read),
        patch("dead-letter", "Changes the arguments or the note of a dead letter.")
            .needs(Needs::Operate)
            .takes_required::<DeadLetterChange>()
            .answers::<DeadLetter>(200, "The dead letter as it is then.")
            .or_gone()
            .problems(&[Code::Conflict]),
        delete("dead-letter", "Removes a dead letter.").needs(Needs::Operate),
        post("dead-letter-replay", "Raises a dead letter again, as a new instance.")
            .needs(Needs::Operate)
            .answers::<DeadLetter>(200, "The dead letter, which names the new instance.")
            .or_gone()
            .problems(&[Code::Conflict, Code::UnknownEvent]),
    ]
}
