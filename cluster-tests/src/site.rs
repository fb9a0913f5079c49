//! One scenario's site on a broker: its structure, its accounts, its endpoints and its history.
//!
//! Invariant: a scenario touches only its own site, so that scenarios can share a broker and run
//! at the same time. The methods panic instead of returning errors: a scenario that cannot be set
//! up has failed, and the place that says so is the scenario's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::admin::Admin;
use crate::history::{History, Subscriber};
use crate::listener::ListenerBuilder;
use crate::node::Node;
use crate::proxy::Proxy;
use crate::raiser::{Raiser, RaiserBuilder};
use crate::wait;

/// A service or client: its id and its token.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its id.
    pub id: String,
    /// Its token.
    pub token: String,
}

/// A site and what a scenario needs of it. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// The URL of its broker, or of the node that is asked.
    pub url: String,
    /// Where endpoints connect, the first one first.
    pub urls: Vec<String>,
    /// The administrator.
    pub admin: Admin,
    /// What happened so far.
    pub history: History,
    lives: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Site {
    /// A blank site with settings other than the defaults.
    pub async fn blank(node: &Node, name: &str, settings: Value) -> Self {
        let admin = Admin::new(node.url(), &node.ready().admin_token);
        Self::blank_at(admin, vec![node.url().to_owned()], name, settings).await
    }

    /// A blank site that its administrator reaches at one address and its endpoints at several.
    pub async fn blank_at(admin: Admin, urls: Vec<String>, name: &str, settings: Value) -> Self {
        admin.put_site(name, settings).await.expect("the site is created");
        Self {
            name: name.to_owned(),
            url: urls[0].clone(),
            urls,
            admin,
            history: History::new(),
            lives: Arc::default(),
        }
    }

    /// A single-service site with a structure, as [`Site::blank_at`].
    pub async fn new_at(admin: Admin, urls: Vec<String>, name: &str, structure: &Value) -> Self {
        let site = Self::blank_at(admin, urls, name, json!({})).await;
        site.apply(structure).await;
        site
    }

    /// A single-service site with a structure.
    pub async fn new(node: &Node, name: &str, structure: &Value) -> Self {
        let site = Self::blank(node, name, json!({})).await;
        site.apply(structure).await;
        site
    }

    /// Applies a structure.
    pub async fn apply(&self, structure: &Value) {
        self.admin.put_structure(&self.name, structure).await.expect("the structure is applied");
    }

    /// Registers a service.
    pub async fn service(&self, id: &str) -> Account {
        let token = self.admin.service(&self.name, id).await.expect("the service is registered");
        Account { id: id.to_owned(), token }
    }

    /// Registers a client without a user: a guest.
    pub async fn guest(&self, id: &str) -> Account {
        self.client(id, None).await
    }

    /// Registers a client, of a user if one is named.
    pub async fn client(&self, id: &str, user: Option<&str>) -> Account {
        let token = self.admin.client(&self.name, id, user).await;
        Account { id: id.to_owned(), token: token.expect("the client is registered") }
    }

    /// Registers a user or gives it other roles.
    pub async fn user(&self, id: &str, roles: &[&str]) {
        self.admin.put_user(&self.name, id, roles).await.expect("the user is registered");
    }

    /// A service endpoint of this account, to be set up further.
    pub fn raiser(&self, service: &Account) -> RaiserBuilder {
        RaiserBuilder::new(self, service)
    }

    /// Registers a service and starts its endpoint at SPL-1 with room for everything.
    pub async fn raises(&self, id: &str) -> Raiser {
        let account = self.service(id).await;
        self.raiser(&account).start().await
    }

    /// A client endpoint of this account, to be set up further.
    pub fn listener(&self, client: &Account) -> ListenerBuilder {
        ListenerBuilder::new(self, &client.id, Some(&client.token))
    }

    /// A client endpoint without an account; `name` is only for the history.
    pub fn stateless(&self, name: &str) -> ListenerBuilder {
        ListenerBuilder::new(self, name, None)
    }

    /// A link to the broker that can be broken.
    pub async fn proxy(&self) -> Proxy {
        let address = self.url.split_once("://").map_or(&*self.url, |(_, address)| address);
        Proxy::start(address.trim_end_matches('/')).await.expect("the proxy starts")
    }

    /// The ids that are retained for an event.
    pub async fn retained(&self, event: &str) -> Vec<u64> {
        self.admin.retained(&self.name, event).await.expect("the queue can be read")
    }

    /// The cursor of a client's subscription; 0 before the first instance and without one.
    pub async fn cursor(&self, client: &str, event: &str) -> u64 {
        let cursor = self.admin.cursor(&self.name, client, event).await;
        cursor.expect("the subscription can be read").unwrap_or(0)
    }

    /// Waits until the cursor of a client's subscription stands at `instance_id`.
    pub async fn until_cursor(&self, client: &str, event: &str, instance_id: u64) {
        let what = format!("the cursor of {client} on {event} to be {instance_id}");
        wait::until_true(&what, async || self.cursor(client, event).await == instance_id).await;
    }

    /// Waits until so many instances are retained for an event.
    pub async fn until_retained(&self, event: &str, count: usize) -> Vec<u64> {
        let what = format!("{count} instances of {event} to be retained");
        wait::until(&what, async || {
            let ids = self.retained(event).await;
            (ids.len() == count).then_some(ids)
        })
        .await
    }

    /// The next life of a subscriber.
    pub(crate) fn next_life(&self, name: &str) -> Subscriber {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        let next = lives.entry(name.to_owned()).or_default();
        let life = *next;
        *next += 1;
        Subscriber { name: name.to_owned(), life }
    }
}

/// A structure with these events that admits everyone.
pub fn structure(events: &[Value]) -> Value {
    json!({
        "service_type": "boiler",
        "contract_author": "Example",
        "guests": "guest+stateless",
        "events": events,
    })
}

/// A Queueing event of a size that lives for a day.
pub fn queueing(name: &str, size: u32) -> Value {
    json!({ "name": name, "category": "queueing", "lifetime_s": 86_400, "size": size })
}

/// A Replacing event.
pub fn replacing(name: &str) -> Value {
    json!({ "name": name, "category": "replacing" })
}

/// A Private event that lives for a day.
pub fn private(name: &str) -> Value {
    json!({ "name": name, "category": "private", "lifetime_s": 86_400 })
}

/// The same event with another value of one field.
pub fn with(mut event: Value, field: &str, value: Value) -> Value {
    event[field] = value;
    event
}
