//! A node with a site that has one of everything, spares for what is deleted, and what brings the
//! site back after a request that took some of it away.

use std::sync::Arc;
use std::time::Duration;

use ackord_agents::BrokerOptions;
use ackord_gateway::GatewayLimits;
use ackord_wire::resource::{Reloaded, ReloadedFile};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::document::Operation;
use crate::support::{ADMIN, Demo, Running, structure};

const SITE: &str = "/v1/sites/demo";
const JSON: &str = "ackord.v1.json";

/// See the module.
pub struct World {
    pub node: Running,
    pub demo: Demo,
    /// A token of another site.
    pub foreign: String,
    /// The id of a token that may be revoked.
    spare_token: String,
    /// The id of a dead letter.
    letter: String,
}

fn token_id(token: &str) -> String {
    let rest = token.strip_prefix("ak_").unwrap();
    // The secret is 43 characters, behind an underscore.
    rest[..rest.len() - 44].to_owned()
}

impl World {
    pub async fn start() -> Self {
        // No question waits long here.
        let limits =
            GatewayLimits { poll_wait_max: Duration::from_millis(20), ..GatewayLimits::default() };
        let mut options = BrokerOptions::default();
        options.push.hosts = vec!["127.0.0.1".to_owned()];
        let node = Running::start_with(limits, options).await;
        let files = vec![ReloadedFile { file: "tls".to_owned(), changed: true, broken: None }];
        let reloaded =
            Reloaded { applied: vec!["log".to_owned()], restart: Vec::new(), unchanged: 7, files };
        let control = node.gateway.as_ref().unwrap().control();
        control.on_reload(Arc::new(move || Ok(reloaded.clone())));
        node.admin("PUT", "/v1/sites/other", None).await.is(201);
        node.admin("PUT", SITE, Some(json!({"multi_service": true}))).await.is(201);
        node.admin("PUT", &format!("{SITE}/structure"), Some(structure())).await.is(200);
        node.admin("PUT", &format!("{SITE}/services/s"), None).await.is(201);
        node.admin("PUT", &format!("{SITE}/services/p"), None).await.is(201);
        node.admin("PUT", &format!("{SITE}/users/u"), None).await.is(201);
        node.admin("PUT", &format!("{SITE}/clients/c"), Some(json!({"user": "u"}))).await.is(201);
        let demo = Demo {
            service: node.token("demo", json!({"service": "s"})).await,
            client: node.token("demo", json!({"client": "c"})).await,
            admin: node.token("demo", json!("admin")).await,
            observer: node.token("demo", json!("observer")).await,
        };
        let foreign = node.token("other", json!("admin")).await;
        let spare_token = token_id(&demo.observer);
        let hook = json!({"event": "reading", "client": "c", "udp": {"address": "127.0.0.1:9"}});
        node.admin("PUT", &format!("{SITE}/pushes/hook"), Some(hook)).await.is(201);
        let letter = String::new();
        let mut world = Self { node, demo, foreign, spare_token, letter };
        world.populate().await;
        world.give_up().await;
        world
    }

    /// A subscription of the client, and something for it.
    async fn populate(&self) {
        let path = format!("{SITE}/client");
        let mut client = self.node.socket(&path, Some(&self.demo.client), JSON).await.unwrap();
        client.say(json!({"hello": {}})).await;
        client.hear_of("welcome").await;
        client.say(json!({"subscribe": {"items": [{"event": "reading"}]}})).await;
        while client.hear_of("subscribed").await["accepted"] == json!([]) {}
        for n in 0..2 {
            let (token, path) = (Some(&*self.demo.service), format!("{SITE}/events/reading"));
            self.node.call(token, "POST", &path, Some(json!({ "n": n }))).await.is(200);
        }
    }

    /// Makes what the operation is about to take away or to use up.
    pub async fn prepare(&mut self, operation: &Operation) {
        let made = match &*operation.id {
            "delete-site" => self.node.admin("PUT", "/v1/sites/spare", None).await.status,
            "delete-service" | "delete-client" | "delete-user" => {
                let kind = operation.id.strip_prefix("delete-").unwrap();
                let path = format!("{SITE}/{kind}s/spare");
                self.node.admin("PUT", &path, None).await.status
            }
            "delete-token" => {
                let token = self.node.token("demo", json!("observer")).await;
                self.spare_token = token_id(&token);
                201
            }
            "delete-push" => {
                let spare = json!({"event": "reading", "client": "c",
                                   "udp": {"address": "127.0.0.1:9"}});
                let path = format!("{SITE}/pushes/spare");
                self.node.admin("PUT", &path, Some(spare)).await.status
            }
            "get-dead-letter"
            | "patch-dead-letter"
            | "delete-dead-letter"
            | "post-dead-letter-replay" => {
                self.give_up().await;
                201
            }
            "post-apply-declared" => {
                self.park().await;
                201
            }
            _ => return,
        };
        assert!(made < 300, "{}: {made}", operation.id);
    }

    /// Sees to it that there is a dead letter which waits.
    async fn give_up(&mut self) {
        let waiting = format!("{SITE}/dead-letters?state=waiting&limit=1");
        let waits = self.node.admin("GET", &waiting, None).await.is(200);
        let mut found = waits["items"][0]["id"].clone();
        if found.is_null() {
            self.node.admin("PUT", &format!("{SITE}/clients/spoiled"), None).await;
            let token = self.node.token("demo", json!({"client": "spoiled"})).await;
            let path = format!("{SITE}/client");
            let mut client = self.node.socket(&path, Some(&token), JSON).await.unwrap();
            client.say(json!({"hello": {}})).await;
            client.hear_of("welcome").await;
            let item = json!({"event": "reading", "start": "latest", "max_attempts": 1,
                              "dead_letter": true});
            client.say(json!({"subscribe": {"items": [item]}})).await;
            while client.hear_of("subscribed").await["accepted"] == json!([]) {}
            let (token, path) = (Some(&*self.demo.service), format!("{SITE}/events/reading"));
            self.node.call(token, "POST", &path, Some(json!({"spoiled": true}))).await.is(200);
            let event = client.hear_of("event").await;
            let (number, id) = (&event["subscription"], &event["instance_id"]);
            client.say(json!({"nack": {"subscription": number, "instance_id": id}})).await;
            client.hear_of("committed").await;
            let waits = self.node.admin("GET", &waiting, None).await.is(200);
            found = waits["items"][0]["id"].clone();
        }
        self.letter = found.to_string();
    }

    /// A service that declares something else than the site has.
    async fn park(&self) {
        let token = self.node.token("demo", json!({"service": "p"})).await;
        let path = format!("{SITE}/service");
        let mut service = self.node.socket(&path, Some(&token), JSON).await.unwrap();
        let mut declared = structure();
        declared["events"][0]["size"] = json!(50);
        let store = "00112233445566778899aabbccddeeff";
        service.say(json!({"hello": {"store": store, "structure": declared}})).await;
        let welcome = service.hear_of("welcome").await;
        assert_eq!(welcome["state"]["online"], false, "{welcome}");
    }

    /// Brings back what an operation that was done may have changed.
    pub async fn mend(&self, operation: &Operation) {
        match &*operation.id {
            "delete-subscription" => self.populate().await,
            "put-site" => {
                let settings = json!({"constructible": true, "guests_allowed": true,
                                      "stateless_guests_allowed": true});
                self.node.admin("PUT", SITE, Some(settings)).await.is(200);
            }
            "put-quotas" => {
                let path = format!("{SITE}/quotas");
                self.node.admin("PUT", &path, Some(json!({}))).await.is(200);
            }
            "post-pause" => {
                let path = format!("{SITE}/clients/c/subscriptions/reading/resume");
                self.node.admin("POST", &path, None).await.is(200);
            }
            "put-structure" | "post-apply-declared" => {
                let path = format!("{SITE}/structure");
                if self.node.admin("GET", &path, None).await.is(200)["structure"] != structure() {
                    let path = format!("{path}?rebuild=true");
                    self.node.admin("PUT", &path, Some(structure())).await.is(200);
                }
                let subscription = format!("{SITE}/clients/c/subscriptions/reading");
                if self.node.admin("GET", &subscription, None).await.status == 404 {
                    self.populate().await;
                }
            }
            _ => {}
        }
    }

    /// A value that names something here.
    pub fn name(&self, parameter: &str, operation: &Operation) -> String {
        let (template, deletes) = (&operation.template, operation.method == "DELETE");
        let no_account = ["/tokens/", "/dead-letters/"].iter().any(|kind| template.contains(kind));
        let deletes_account = deletes && parameter == "id" && !no_account;
        let name = match parameter {
            "site" if template.contains("/restore/") => "fresh",
            "site" if deletes && template.ends_with("{site}") => "spare",
            "site" => "demo",
            "event" => "reading",
            "client" => "c",
            "partition" => "1",
            "id" if deletes_account => "spare",
            "id" if template.ends_with("/apply-declared") => "p",
            "id" if template.contains("/services/") => "s",
            "id" if template.contains("/clients/") => "c",
            "id" if template.contains("/users/") => "u",
            "id" if template.contains("/tokens/") => &self.spare_token,
            "id" if template.contains("/pushes/") => "hook",
            "id" if template.contains("/dead-letters/") => &self.letter,
            "id" if template.contains("/nodes/") => {
                return self.node.broker.node().id().to_string();
            }
            other => panic!("what is a {other} of {template}?"),
        };
        name.to_owned()
    }

    /// The path of an operation, of something that is there.
    pub fn fill(&self, operation: &Operation) -> String {
        let mut path = operation.template.clone();
        while let Some(start) = path.find('{') {
            let end = path.find('}').unwrap();
            let name = self.name(&path[start + 1..end], operation);
            path.replace_range(start..=end, &name);
        }
        path
    }

    /// The token of whoever does this.
    pub fn token(&self, operation: &Operation) -> &str {
        match &*operation.id {
            "post-raise" | "post-events" => &self.demo.service,
            "get-events" | "get-next" => &self.demo.client,
            _ => ADMIN,
        }
    }

    /// Tokens that may do something here.
    pub fn tokens(&self) -> [&str; 5] {
        let demo = &self.demo;
        [ADMIN, &demo.admin, &demo.observer, &demo.service, &demo.client]
    }

    /// A body that a person would write, where there is one.
    pub fn sensible(&self, id: &str, chance: &mut Chance) -> Option<Value> {
        Some(match id {
            "put-structure" => structure(),
            "post-seek" => json!({"after": chance.below(3)}),
            "put-user" => json!({"roles": ["operator"]}),
            "put-client" => json!({"user": "u"}),
            "post-tickets" => json!({"client": "c", "expires_in_s": 1}),
            "put-push" => {
                json!({"event": "reading", "client": "c", "udp": {"address": "127.0.0.1:9"}})
            }
            "patch-dead-letter" => json!({"note": "seen"}),
            "post-tokens" => json!({"principal": {"client": "c"}}),
            _ => return None,
        })
    }
}
