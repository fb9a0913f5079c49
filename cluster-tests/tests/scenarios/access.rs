//! A: who may receive what, and what a change of it does to those who are connected.

use ackord_endpoint::{ClientNotice, Code};
use ackord_wire::frame::Subscription;
use cluster_tests::listener::{Gate, Listener};
use cluster_tests::oracle::{self, Expectations};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::site::{Site, queueing, structure, with};
use serde_json::{Value, json};

use crate::broker;

/// `secret` for operators, `open` for everyone.
fn restricted() -> Value {
    let secret = with(queueing("secret", 100), "access", json!({ "roles": ["operator"] }));
    with(structure(&[secret, queueing("open", 100)]), "roles", json!(["operator", "viewer"]))
}

/// Whether a notice says that an event may or may not be received.
fn says(event: &str, expected: bool) -> impl Fn(&ClientNotice) -> bool {
    let event = event.to_owned();
    move |notice| {
        matches!(notice,
            ClientNotice::Subscribed { event: of, granted, .. }
            | ClientNotice::Authority { event: of, granted }
            if *of == event && *granted == expected)
    }
}

fn sorted(listener: &Listener) -> String {
    let mut args = listener.args();
    args.sort_unstable();
    args.join(" ")
}

#[tokio::test]
async fn a1_guests_get_no_event_that_denies_guests() {
    let members = with(queueing("members", 10), "access", json!("guests_denied"));
    let accounts = with(queueing("accounts", 10), "access", json!("stateless_guests_denied"));
    let events = [members, accounts, queueing("open", 10)];
    let site = Site::new(broker().await, "a1", &structure(&events)).await;
    let raiser = site.raises("boiler").await;
    site.user("owner", &[]).await;
    let (member, guest) = (site.client("member", Some("owner")).await, site.guest("guest").await);
    let [member, guest, stateless] =
        [site.listener(&member), site.listener(&guest), site.stateless("stateless")]
            .map(|listener| listener.to("members").to("accounts").to("open"));
    let member = member.subscribed(3).await;
    let guest = guest.subscribed(3).await;
    let stateless = stateless.subscribed(3).await;

    for (event, args) in [("members", 1), ("accounts", 2), ("open", 3)] {
        raiser.raise(event, args).await;
    }
    member.until_handled(3).await;
    guest.until_handled(2).await;
    stateless.until_handled(1).await;
    // A second round shows that the first one left nothing on its way.
    raiser.raise("open", 4).await;
    member.until_handled(4).await;
    guest.until_handled(3).await;
    stateless.until_handled(2).await;
    assert_eq!(sorted(&member), "1 2 3 4");
    assert_eq!(sorted(&guest), "2 3 4");
    assert_eq!(sorted(&stateless), "3 4");
    assert_eq!(guest.notices.count(says("members", false)), 1);
}

#[tokio::test]
async fn a3_an_event_reaches_users_with_one_of_its_roles() {
    let site = Site::new(broker().await, "a3", &restricted()).await;
    let raiser = site.raises("boiler").await;
    let mut listeners = Vec::new();
    let users: [(&str, &[&str]); 3] =
        [("olga", &["operator"]), ("both", &["viewer", "operator"]), ("vera", &["viewer"])];
    for (user, roles) in users {
        site.user(user, roles).await;
        let client = site.client(&format!("{user}-phone"), Some(user)).await;
        listeners.push(site.listener(&client).to("secret").to("open").subscribed(2).await);
    }
    raiser.raise("secret", 1).await;
    raiser.raise("open", 2).await;
    for (listener, count) in listeners.iter().zip([2, 2, 1]) {
        listener.until_handled(count).await;
    }
    raiser.raise("open", 3).await;
    for (listener, expected) in listeners.iter().zip(["1 2 3", "1 2 3", "2 3"]) {
        listener.until_handled(expected.len().div_ceil(2)).await;
        assert_eq!(sorted(listener), expected, "{}", listener.name());
    }
}

#[tokio::test]
async fn a4_a_role_granted_while_connected_delivers_what_is_retained() {
    let site = Site::new(broker().await, "a4", &restricted()).await;
    let raiser = site.raises("boiler").await;
    site.user("vera", &["viewer"]).await;
    let phone = site.client("phone", Some("vera")).await;
    let listener = site.listener(&phone).to("secret").subscribed(1).await;
    assert_eq!(listener.notices.count(says("secret", false)), 1);
    raiser.raise_many("secret", 4).await;
    assert!(listener.handled().is_empty());

    site.user("vera", &["viewer", "operator"]).await;
    listener.until_handled(4).await;
    assert_eq!(listener.args(), ["1", "2", "3", "4"]);
    listener.notices.until("the grant to be told", says("secret", true)).await;
}

#[tokio::test]
async fn a5_a_role_revoked_with_an_instance_in_flight() {
    let site = Site::new(broker().await, "a5", &restricted()).await;
    let (raiser, gate) = (site.raises("boiler").await, Gate::closed());
    site.user("olga", &["operator"]).await;
    let phone = site.client("phone", Some("olga")).await;
    let ids = raiser.raise_many("secret", 8).await;
    let listener = site.listener(&phone).holds("5", &gate).to("secret").to("open").start().await;
    listener.until_handled(5).await;

    site.user("olga", &["viewer"]).await;
    listener.notices.until("the revocation to be told", says("secret", false)).await;
    gate.open();
    listener.until_committed("secret", ids[4]).await;
    raiser.raise("open", 9).await;
    listener.until_handled(6).await;
    assert_eq!(listener.args(), ["1", "2", "3", "4", "5", "9"]);
    assert_eq!(site.cursor("phone", "secret").await, ids[4]);
}

#[tokio::test]
async fn a6_what_is_in_flight_is_not_sent_again_while_revoked() {
    let site = Site::new(broker().await, "a6", &restricted()).await;
    let raiser = site.raises("boiler").await;
    site.user("olga", &["operator"]).await;
    let phone = site.client("phone", Some("olga")).await;
    let impatient = |event: &str| Subscription { ack_timeout_ms: Some(300), ..raw::to(event) };
    let items = vec![impatient("secret"), impatient("open")];
    let session = RawClient::subscribed(&site.url, &site.name, Some(&phone.token), items).await;
    let (mut session, _) = session.expect("a session");

    raiser.raise("secret", 5).await;
    let in_flight = session.event().await.expect("the event");
    assert_eq!((&*in_flight.event, in_flight.attempt), ("secret", 1));
    site.user("olga", &["viewer"]).await;
    // The other subscription, with the same timeout, shows how much time has passed.
    raiser.raise("open", 1).await;
    let mut sent_again = 0;
    loop {
        let event = session.event().await.expect("an event");
        match (&*event.event, event.attempt) {
            ("open", 5..) => break,
            ("open", _) => {}
            _ => sent_again += 1,
        }
    }
    assert!(sent_again <= 1, "only what was sent before the revocation took effect");

    site.user("olga", &["operator"]).await;
    let again = loop {
        let event = session.event().await.expect("an event");
        if event.event == "secret" {
            break event;
        }
    };
    assert_eq!(again.instance_id, in_flight.instance_id);
}

#[tokio::test]
async fn a7_granted_again_goes_on_where_it_stood() {
    let site = Site::new(broker().await, "a7", &restricted()).await;
    let (raiser, gate) = (site.raises("boiler").await, Gate::closed());
    site.user("olga", &["operator"]).await;
    let phone = site.client("phone", Some("olga")).await;
    let ids = raiser.raise_many("secret", 8).await;
    let listener = site.listener(&phone).holds("5", &gate).to("secret").start().await;
    listener.until_handled(5).await;
    site.user("olga", &[]).await;
    listener.notices.until("the revocation to be told", says("secret", false)).await;
    gate.open();
    listener.until_committed("secret", ids[4]).await;

    site.user("olga", &["operator"]).await;
    listener.until_committed("secret", ids[7]).await;
    assert_eq!(listener.args(), ["1", "2", "3", "4", "5", "6", "7", "8"]);
    let complete = vec![("secret".to_owned(), "phone".to_owned())];
    oracle::require(&site.history, &Expectations { complete, ..Expectations::default() });
}

#[tokio::test]
async fn a10_guests_switched_off_ends_guest_sessions_only() {
    let site = Site::new(broker().await, "a10", &structure(&[queueing("open", 10)])).await;
    let raiser = site.raises("boiler").await;
    site.user("owner", &[]).await;
    let (member, guest) = (site.client("member", Some("owner")).await, site.guest("guest").await);
    let member = site.listener(&member).to("open").subscribed(1).await;
    let denied = site.listener(&guest).to("open").subscribed(1).await;
    raiser.raise("open", 1).await;
    member.until_handled(1).await;
    denied.until_handled(1).await;

    let settings = json!({ "guests_allowed": false });
    site.admin.put_site(&site.name, settings).await.expect("the settings are taken");
    let ended = |notice: &ClientNotice| {
        matches!(notice, ClientNotice::Terminal { code: Code::AccessDenied, .. })
    };
    denied.notices.until("the guest to be turned away", ended).await;
    raiser.raise("open", 2).await;
    member.until_handled(2).await;
    let connected = |notice: &ClientNotice| matches!(notice, ClientNotice::Connected { .. });
    assert_eq!((member.notices.count(connected), denied.args().len()), (1, 1));
    let code = RawClient::refused(&site.url, &site.name, Some(&guest.token)).await;
    assert_eq!(code.expect("the guest is refused"), Code::AccessDenied);
}
