//! Wild commands of governance for the histories of [`crate::properties`].

use ackord_machine::site::*;
use proptest::option;
use proptest::prelude::*;

use crate::properties::{action, client, items, name, service, site};
use crate::world::*;

/// Acts on somebody's behalf, records, tickets.
pub fn governed() -> impl Strategy<Value = Command> {
    let expected = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Precondition::Absent)),
        1 => Just(Some(Precondition::Present)),
        1 => any::<u64>().prop_map(|revision| Some(Precondition::Revision(revision))),
    ];
    let by = || By { who: "token:t".to_owned(), address: "192.0.2.1".to_owned() };
    let administer = (0u64..60, site(), prop_oneof![action(), governing()], expected);
    let administer = administer.prop_map(move |(number, site, action, expected)| {
        let (request, by) = (request(number), by());
        Command::Administer(Administer { request, site, action, by, expected })
    });
    let ticket = || name::<TokenId>(&["k1", "k2"]);
    let issue = (site(), ticket(), client(), 0u64..400_000);
    let issue = issue.prop_map(|(site, id, client, lifetime_ms)| {
        let (hash, principal) = (Digest([2; 32]), Principal::Client(client));
        let token = Some("t1".into()).filter(|_| lifetime_ms % 2 == 0);
        let until = Some(Stamp(lifetime_ms)).filter(|_| lifetime_ms % 3 == 0);
        let ticket = IssueTicket { site, id, hash, principal, token, until, lifetime_ms };
        match lifetime_ms % 5 {
            0 => Command::IssueTicket(ticket),
            few => Command::DrawTicket(DrawTicket { ticket, principal_max: few as u32 - 1 }),
        }
    });
    let redeem = (site(), ticket(), 0u64..3).prop_map(|(site, id, attempt)| {
        Command::RedeemTicket(RedeemTicket { site, id, hash: Digest([0; 32]), attempt })
    });
    let note = move |result: &str| Note {
        by: by(),
        act: "site.read".to_owned(),
        target: String::new(),
        result: result.to_owned(),
        count: 3,
    };
    let names = name::<SiteName>(&["s", "t", ""]);
    let results = name::<String>(&["access-denied", "done"]);
    let record = (names, results, 0usize..4).prop_map(move |(site, result, count)| {
        Command::Record { site, notes: vec![note(&result); count] }
    });
    prop_oneof![4 => administer, 1 => issue, 1 => redeem, 1 => record]
}

fn governing() -> impl Strategy<Value = AdminAction> {
    use AdminAction::*;
    let token = || name::<TokenId>(&["t1", "t2"]);
    let event = || name::<EventName>(&["q", "p", "r"]);
    let few = || option::of(0u64..6);
    let quotas = (few(), few(), few(), few(), few(), option::of(0u64..40));
    prop_oneof![
        (token(), client(), option::of(0u64..100_000)).prop_map(|(id, client, lifetime_ms)| {
            let (hash, principal) = (Digest([3; 32]), Principal::Client(client));
            IssueToken { id, hash, principal, lifetime_ms, note: "note".to_owned() }
        }),
        quotas.prop_map(|(events, bytes, services, clients, subscriptions, queue)| SetQuotas {
            quotas: Quotas {
                events_per_s: events,
                service_bytes_per_s: bytes,
                services,
                clients,
                subscriptions,
                queue_bytes: queue,
                ..Quotas::default()
            }
        }),
        (client(), items()).prop_map(|(client, mut items)| {
            let item = items.pop().unwrap_or_else(|| item("q"));
            PutSubscription { client, item }
        }),
        (client(), event()).prop_map(|(client, event)| Pause { client, event }),
        (client(), event()).prop_map(|(client, event)| Resume { client, event }),
        client().prop_map(|client| KickClient { client }),
        service().prop_map(|service| KickService { service }),
    ]
}
