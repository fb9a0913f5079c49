//! The operations of push subscriptions.

use ackord_wire::Code;
use ackord_wire::push::{Push, PushBody};
use ackord_wire::resource::Page;

use super::operation::{Kind, Needs, Operation, Param, delete, get, post, put};
use super::table::{AFTER, CONSISTENCY, LIMIT, PREFIX};

/// See the module.
pub fn pushes() -> Vec<Operation> {
    const CLIENT: Param = Param::new("client", Kind::Text, "Only those of this client.");
    let read = [Code::NotFound, Code::Unavailable];
    vec![
        get("pushes", "The push subscriptions of a site, by id; a client sees its own.")
            .needs(Needs::Member)
            .query(&[LIMIT, AFTER, CONSISTENCY, PREFIX, CLIENT])
            .answers::<Page<Push>>(200, "A page.")
            .problems(&read),
        get("push", "A push subscription; a client sees its own.")
            .needs(Needs::Member)
            .query(&[CONSISTENCY])
            .answers::<Push>(200, "The push subscription, without its secret.")
            .problems(&read),
        put("push", "Makes a push subscription, for oneself or by whoever operates the site.")
            .needs(Needs::Member)
            .takes_required::<PushBody>()
            .answers::<Push>(200, "It was there, and is like this now.")
            .answers::<Push>(201, "It was made: its callback has answered the challenge.")
            .or_gone()
            .problems(&[
                Code::UnknownClient,
                Code::UnknownEvent,
                Code::SiteBlank,
                Code::Conflict,
                Code::AlreadyExists,
                Code::BadQos,
                Code::CallbackNotAllowed,
                Code::CallbackUnverified,
            ]),
        delete("push", "Ends a push subscription.").needs(Needs::Member),
        post("push-resume", "Starts a push subscription again that is cancelled or offline.")
            .needs(Needs::Member)
            .answers::<Push>(200, "The push subscription as it is then.")
            .or_gone(),
    ]
}
