//! Short forms of history entries, for the tests of the properties.

use crate::history::{Administration, Call, Entry, Handled, Subscriber};

/// Subscriber `ann` in a life.
pub fn ann(life: u32) -> Subscriber {
    Subscriber { name: "ann".to_owned(), life }
}

/// Event `e` with the call's number as arguments was raised.
pub fn raised(call: u64) -> Entry {
    Entry::Raised {
        call: Call(call),
        service: "s".to_owned(),
        event: "e".to_owned(),
        args: Some(call.to_string()),
    }
}

/// The call was acknowledged with this id.
pub fn acknowledged(call: u64, instance_id: u64) -> Entry {
    let instance_id = Some(instance_id);
    Entry::Acknowledged { call: Call(call), instance_id, ignored: false, duplicate: false }
}

/// Ann's handler was called, with the arguments of a call.
pub fn started(life: u32, instance_id: u64, call: u64) -> Entry {
    let handled = Handled {
        event: "e".to_owned(),
        instance_id,
        incarnation: 1,
        generation: 0,
        service: "s".to_owned(),
        age: 0,
        attempt: 1,
        args: Some(call.to_string()),
    };
    Entry::HandlerStarted { by: ann(life), handled }
}

/// Ann's handler returned successfully.
pub fn ended(life: u32, instance_id: u64) -> Entry {
    Entry::HandlerEnded { by: ann(life), event: "e".to_owned(), instance_id, success: true }
}

/// The broker confirmed Ann's cursor.
pub fn committed(life: u32, instance_id: u64) -> Entry {
    Entry::Committed { by: ann(life), event: "e".to_owned(), instance_id }
}

/// Ann's process was killed.
pub fn killed(life: u32) -> Entry {
    Entry::Killed { by: ann(life) }
}

/// Somebody asked for a change of `x`.
pub fn asked(act: u64, value: Option<&str>) -> Entry {
    let (what, value) = ("x".to_owned(), value.map(str::to_owned));
    Entry::Administration(Administration::Asked { act: Call(act), what, value })
}

/// The change was done or refused.
pub fn answered(act: u64, done: bool) -> Entry {
    Entry::Administration(Administration::Answered { act: Call(act), done })
}

/// Somebody asked for `x`.
pub fn looked(act: u64) -> Entry {
    Entry::Administration(Administration::Looked { act: Call(act), what: "x".to_owned() })
}

/// And was told.
pub fn shown(act: u64, value: Option<&str>) -> Entry {
    let value = value.map(str::to_owned);
    Entry::Administration(Administration::Shown { act: Call(act), value })
}
