//! The other tenant of a node: a site with one of everything, all of it open and in use, and what
//! somebody could have picked up of it.
//!
//! Its accounts are named like those of the first tenant, and the texts that are its own all hold
//! [`MARK`], so that it is seen when one of them gets out.

use serde_json::{Value, json};

use crate::support::events::Stream;
use crate::support::{ADMIN, Running, Socket, structure};

/// In every text that nobody but this tenant may see.
pub const MARK: &str = "zqrival";
const JSON: &str = "ackord.v1.json";

/// What a thief may have of a tenant: whatever was ever shown to anybody of it.
#[derive(Clone, Debug, Default)]
pub struct Loot {
    /// Names and ids.
    pub words: Vec<String>,
    /// `next` of pages.
    pub cursors: Vec<String>,
    /// Ids of streams' events.
    pub positions: Vec<String>,
    pub acks: Vec<String>,
    pub tickets: Vec<String>,
    pub tags: Vec<String>,
    pub keys: Vec<String>,
    /// Tokens that are good at the tenant's addresses, and one that was revoked.
    pub bearers: Vec<String>,
}

/// See the module. What is open is open as long as this lives.
pub struct Rival {
    pub loot: Loot,
    _sockets: Vec<Socket>,
    _stream: Stream,
}

fn declared(variant: &str) -> Value {
    let mut declared = structure();
    declared["service_type"] = json!(format!("{MARK} type"));
    let own = json!({"name": format!("{MARK}-{variant}"), "category": "replacing"});
    declared["events"].as_array_mut().unwrap().push(own);
    declared
}

impl Rival {
    /// Makes the tenant; `variant` is what it holds.
    pub async fn settle(node: &Running, site: &str, variant: &str) -> Self {
        let path = |rest: &str| format!("/v1/sites/{site}{rest}");
        let put = async |rest: &str, body: Option<Value>| {
            let reply = node.admin("PUT", &path(rest), body).await;
            assert!(reply.status < 300, "{reply:?}");
            reply
        };
        put("", Some(json!({"multi_service": true}))).await;
        put("/structure", Some(declared(variant))).await;
        let own = format!("{MARK}-{variant}");
        for name in ["s", &own] {
            put(&format!("/services/{name}"), None).await;
        }
        let mut loot = Loot::default();
        for name in ["u", &own] {
            let made = put(&format!("/users/{name}"), Some(json!({"roles": ["operator"]}))).await;
            loot.tags.push(made.headers["etag"].to_str().unwrap().to_owned());
        }
        for name in ["c", &own] {
            put(&format!("/clients/{name}"), Some(json!({"user": own}))).await;
        }
        put("/quotas", Some(json!({"events_per_s": 1000, "connections": 50}))).await;
        let token = async |principal: Value| {
            let body = Some(json!({"principal": principal, "note": own}));
            let made = node.admin("POST", &path("/tokens"), body).await.is(201);
            let text = |field: &str| made[field].as_str().unwrap().to_owned();
            (text("id"), text("token"))
        };
        let mut ids = Vec::new();
        for principal in
            [json!("admin"), json!("operator"), json!("observer"), json!({"service": "s"})]
        {
            let (id, token) = token(principal).await;
            ids.push(id);
            loot.bearers.push(token);
        }
        let (_, client) = token(json!({"client": "c"})).await;
        let (revoked, gone) = token(json!("admin")).await;
        node.admin("DELETE", &path(&format!("/tokens/{revoked}")), None).await.is(204);
        loot.bearers.extend([client.clone(), gone]);
        let (own_client, own_service) =
            (token(json!({"client": own})).await.1, token(json!({"service": own})).await.1);

        let mut sockets = Vec::new();
        let mut service =
            node.socket(&path("/service"), Some(&own_service), JSON).await.ok().unwrap();
        let store = "ffeeddccbbaa99887766554433221100";
        let hello = json!({"store": store, "structure": declared(variant), "hostname": own});
        service.say(json!({ "hello": hello })).await;
        assert_eq!(service.hear_of("welcome").await["state"]["online"], true);
        for number in 1..=20 {
            let raise = json!({"seq": number, "event": "reading", "args": {"secret": own}});
            service.say(json!({ "raise": raise })).await;
            service.hear_of("accepted").await;
        }
        let key = format!("{own}-key");
        let raise = node.request(reqwest::Method::POST, &path("/events/state"));
        let raise = raise.bearer_auth(&loot.bearers[3]).header("Idempotency-Key", &key);
        crate::support::reply(raise.json(&json!({ "secret": own }))).await.is(200);
        let mut reader = node.socket(&path("/client"), Some(&own_client), JSON).await.ok().unwrap();
        reader.say(json!({"hello": {}})).await;
        reader.hear_of("welcome").await;
        reader.say(json!({"subscribe": {"items": [{"event": "reading"}]}})).await;
        reader.hear_of("event").await;
        sockets.extend([service, reader]);
        let request =
            node.request(reqwest::Method::GET, &path("/events?event=reading&event=state"));
        let mut stream = Stream::open(request.bearer_auth(&client)).await.unwrap();
        let event = stream.event().await;
        loot.acks.push(event.data["ack"].as_str().unwrap().to_owned());
        loot.positions.push(stream.last_id.clone().unwrap());
        let guest = path("/next?event=reading");
        let polled = node.call(None, "GET", &guest, None).await;
        loot.positions.push(polled.is(200)["after"].as_str().unwrap().to_owned());

        for list in ["services", "clients", "users", "tokens", "queues", "subscriptions", "audit"] {
            let page = node.admin("GET", &path(&format!("/{list}?limit=1")), None).await.is(200);
            loot.cursors.extend(page["next"].as_str().map(str::to_owned));
        }
        let page = node.admin("GET", &path("/sessions?limit=1"), None).await.is(200);
        loot.cursors.push(page["next"].as_str().unwrap().to_owned());
        for _ in 0..2 {
            let drawn = Some(json!({"client": "c", "expires_in_s": 300}));
            let drawn = node.call(Some(ADMIN), "POST", &path("/tickets"), drawn).await.is(201);
            loot.tickets.push(drawn["ticket"].as_str().unwrap().to_owned());
        }
        node.admin("POST", &path("/clients/c/subscriptions/reading/pause"), None).await.is(200);
        loot.keys.push(key);
        loot.words.extend(ids);
        loot.words.extend([own, site.to_owned(), "s".to_owned(), "c".to_owned(), "21".to_owned()]);
        Self { loot, _sockets: sockets, _stream: stream }
    }
}
