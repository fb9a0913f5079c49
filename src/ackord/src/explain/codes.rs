//! The explanations themselves: what happened, and what to do.

use ackord_wire::Code;

use crate::exit::Exit;

/// Codes that lines of `ackord raise` have beside those of the broker.
pub const LINES: &[(&str, &str, &str)] = &[
    (
        "timeout",
        "No outcome came in time; whether the event was stored is not known unless the line says so.",
        "Run `raise` again with the same --store: what is kept there is sent under its old number and \
         stored once. Without --store, look with `ackord peek` before raising it again.",
    ),
    (
        "interrupted",
        "A signal ended the command before the outcome came.",
        "Run `raise` again with the same --store; it delivers what is left first.",
    ),
];

/// What a code means, and what to do.
pub fn of(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::UnknownEvent => (
            "The site has no event of this name.",
            "Check the spelling against `ackord site structure`; names are case-sensitive. A new event \
             needs a structure that has it.",
        ),
        Code::WrongCategory => (
            "The event exists, in another category than the caller believes.",
            "Compare the program's structure with `ackord site structure`.",
        ),
        Code::ArgumentsTooLarge => (
            "The arguments of the event are larger than this deployment allows.",
            "Send less, or send a reference. The operator can raise `limits.args_bytes_max`.",
        ),
        Code::NullNotAllowed => (
            "A null-event was raised for an event that is not Replacing.",
            "Only Replacing events can be taken back by a null; give arguments, or leave it out.",
        ),
        Code::ClientRequired => (
            "A private event was raised without an addressee.",
            "Name the client: `ackord raise EVENT --client ID`.",
        ),
        Code::ClientNotAllowed => (
            "An addressee was given for an event that is not private.",
            "Leave --client out; everyone who is subscribed receives it.",
        ),
        Code::UnknownClient => (
            "The client that was named is not registered on this site.",
            "`ackord client list` names those that are; `ackord client create ID` makes one.",
        ),
        Code::LifetimeOutOfRange => (
            "The lifetime of the event is zero, longer than its definition's, or given for a Replacing \
             event.",
            "Give a lifetime from 1 s up to the definition's, or none.",
        ),
        Code::OutOfSequence => (
            "The store's number lies above the next one: something before it did not arrive.",
            "Resend from the number in `expected`, in order. The SDK does so by itself.",
        ),
        Code::SequenceReused => (
            "The store used a number again for another event: it has forgotten what it sent, as an old \
             copy or a torn file does.",
            "Let the store take a new uid. The SDK does so by itself; find out who restored the file.",
        ),
        Code::StoreSuperseded => (
            "Another store of this service went on where this one was: it is retired.",
            "Discard the file; what it holds was delivered through its successor or given up.",
        ),
        Code::WrongStore => (
            "The raise names another store than its session said hello with.",
            "Connect again with the store that raises; a mistake of the client library otherwise.",
        ),
        Code::KeyReused => (
            "The idempotency key was used before, for another event.",
            "Take a new key for each event; use an old one only to repeat the same request.",
        ),
        Code::TooManyKeys => (
            "The service has as many of its site's idempotency keys as it may; each is remembered for a day.",
            "Come again after the time that the answer names, or raise over a session (`ackord raise`), which needs no keys.",
        ),
        Code::SiteBlank => (
            "The site has no structure yet, and this caller may not give it one.",
            "Apply one: `ackord site structure --set FILE` or `ackord site apply`. What waits goes on by \
             itself then.",
        ),
        Code::ServiceTypeConflict => (
            "The service declares another service type or contract author than the site has.",
            "Is it the right site? If so, `ackord service apply-declared ID --rebuild` rebuilds the site \
             and drops its queues.",
        ),
        Code::SiteStructureMismatch => (
            "The service declares another structure than the site has: it is parked and keeps its events.",
            "Compare the two, then `ackord service apply-declared ID`, or start the service that fits.",
        ),
        Code::Busy => (
            "More is queued at this node than it takes at once.",
            "Come again after the time that the answer names; slow down if it lasts.",
        ),
        Code::OverCapacity => (
            "The node holds as much state in memory as it may: raises are refused, the rest goes on.",
            "Let clients acknowledge (`ackord check lag`), shorten queues, or raise `limits.state_bytes_max`.",
        ),
        Code::DiskFull => (
            "The disk is nearly full: raises are refused, the rest goes on.",
            "Make room on the node's disk; `ackord check disk` shows what takes it.",
        ),
        Code::UnknownOutcome => (
            "Nobody knows whether the request was carried out: the answer was lost on its way.",
            "Look before you repeat it. With an Idempotency-Key, repeat it under the same key: it is \
             done once.",
        ),
        Code::Unavailable => (
            "This node cannot serve the request now: it starts, is cut off, or waits for a leader.",
            "Ask another node or come again; `ackord check cluster` says what is wrong if it lasts.",
        ),
        Code::Replaced => (
            "A newer session of the same account has taken over.",
            "Give each process an account of its own. Do not reconnect: the two would replace each \
             other for ever.",
        ),
        Code::NotRegistered => (
            "The account or the site is not registered any more.",
            "Create it, or take the token of an account that exists.",
        ),
        Code::AccessDenied => (
            "The caller is known and may not do this: its token is for something else, or the site lets \
             such clients not in.",
            "`ackord can-i` says what is missing; use a token that may, or change roles and settings.",
        ),
        Code::BadCredentials => (
            "The token is missing, malformed, unknown here, or was revoked.",
            "Check that it is the right token for this site, then make a new one with `ackord token \
             create`, `ackord service token` or `ackord client token`.",
        ),
        Code::ProtocolViolation => (
            "A frame or request was malformed or came out of turn.",
            "A mistake of the client: compare what it sends with docs/protocol.md.",
        ),
        Code::TooLarge => (
            "A frame, message or body is longer than allowed.",
            "Send less at once; the detail names the limit.",
        ),
        Code::Invalid => (
            "A field is missing, malformed or out of bounds.",
            "Correct the field that the detail names.",
        ),
        Code::Conflict => (
            "The change contradicts what is there.",
            "Read the object, and change what the detail names first.",
        ),
        Code::AlreadyExists => (
            "Something of this name is there already.",
            "Take another name, or change or delete what is there.",
        ),
        Code::NotFound => (
            "There is no such object.",
            "Check its name and the site; the list command of its kind names all.",
        ),
        Code::MethodNotAllowed => (
            "The address exists and does not take this method.",
            "The header `Allow` of the answer names those that it takes.",
        ),
        Code::IdleTimeout => (
            "The peer was silent for too long, or what it began to send did not arrive in time.",
            "Connect again; look at the network, and at proxies that cut silent connections.",
        ),
        Code::SlowConsumer => (
            "The peer did not read what was written to it within the deadline.",
            "Connect again: nothing is lost. Handle events without blocking the reader.",
        ),
        Code::ShuttingDown => (
            "The node is stopping in order.",
            "Connect to another node, or come again after the time that is named.",
        ),
        Code::AddressesChanged => (
            "Half or more of the nodes that the endpoint was told of are no members of the cluster any more.",
            "Nothing: it connects again by itself, and is told where the nodes are now.",
        ),
        Code::SiteRebuilt => (
            "The site was rebuilt: its queues are new and its ids begin anew.",
            "Connect again; kept ids of the earlier life no longer count.",
        ),
        Code::Goodbye => (
            "The endpoint said goodbye, and everything in flight was answered.",
            "Nothing is wrong.",
        ),
        Code::PreconditionFailed => (
            "The object is not as `If-Match` or `If-None-Match` expects it: somebody else changed it.",
            "Read it again, and repeat the change on what is there now.",
        ),
        Code::RateLimited => (
            "Events or requests come faster than the site's quotas allow.",
            "Wait for as long as the answer says; `ackord quota show` has the bounds.",
        ),
        Code::QuotaExceeded => (
            "The site has as much of this as its quotas allow.",
            "Remove what is not needed, or let the operator widen them: `ackord quota set`.",
        ),
        Code::Kicked => (
            "An administrator ended the session.",
            "Connect again; `ackord audit list` says who it was.",
        ),
        Code::LimitReached => (
            "More connections, subscriptions, objects or pings than this deployment allows.",
            "The detail names the limit; use fewer, or let the operator raise it.",
        ),
        Code::Internal => (
            "The broker made a mistake, or a part of it failed.",
            "Try again; if it comes back, the node's log says more, and it should be reported.",
        ),
        Code::BadQos => (
            "The mode of a subscription is not for this transport, or a setting of it does not belong to \
             the mode or is out of bounds. Nothing was subscribed.",
            "The detail names the field; see docs/delivery-modes.md for what each mode takes.",
        ),
        Code::CallbackNotAllowed => (
            "The host of the callback is not one that this deployment delivers to.",
            "Have the operator add it to `push.hosts` on every node.",
        ),
        Code::CallbackUnverified => (
            "The callback did not give the challenge of the handshake back.",
            "Answer a POST with `Ackord-Handshake: 1` by 200 and the value of `challenge` in its body.",
        ),
        Code::CredentialsExpired => (
            "The token was good and is over.",
            "Come again with a new one; let --token-file name a file that is renewed.",
        ),
        Code::Unknown => (
            "A code of a newer broker, which this command does not know.",
            "Use a command of the broker's release; `retryable` says whether to try again.",
        ),
    }
}

/// What an exit status means, and what to do.
pub fn of_exit(exit: Exit) -> (&'static str, &'static str) {
    match exit {
        Exit::Done => ("Everything was done. For `check`: all is well.", "Nothing is wrong."),
        Exit::EventRefused => (
            "An event was refused for good, or a result of `bench` or `demo` did not verify. For \
             `check`: a warning.",
            "The lines of standard output say which and why.",
        ),
        Exit::Usage => (
            "The command line is wrong. For `check`: critical.",
            "`ackord COMMAND --help` explains every option.",
        ),
        Exit::Timeout => (
            "A time ran out. For `check`: it is not known.",
            "Give it more time, or look why nothing comes: `ackord why`, `ackord check`.",
        ),
        Exit::Refused => (
            "The broker refused the account, its token or the request; a newer session took over; or \
             a store or data directory is in use.",
            "Standard error has the code: `ackord explain CODE`.",
        ),
        Exit::Unreachable => (
            "No broker was reached, or it could not answer.",
            "Is it running, and is --url (or the context) right? `ackord check node` tells.",
        ),
        Exit::Disk => (
            "A file or the disk failed.",
            "Standard error names the file; look at its disk and its rights.",
        ),
        Exit::Configuration => (
            "The configuration is wrong, or a node must not start on this data.",
            "`ackord config check FILE`, or `ackord recover --data DIR`, says what is wrong.",
        ),
        Exit::Interrupted => (
            "A signal ended the command, or the reader of its standard output went away.",
            "Run it again; what was acknowledged stays done.",
        ),
        Exit::Check(_) => (
            "A check ended: 0 ok, 1 warning, 2 critical, 3 unknown.",
            "Its line says what was found.",
        ),
    }
}
