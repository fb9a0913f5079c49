//! Figures of single objects of one site, in Prometheus text, page by page.
//!
//! `queues by event ─▶ subscriptions by client and number ─▶ push subscriptions by id`, in this order,
//! so that a page goes on where the one before it ended. They are not among the node's metrics: a site
//! may have any number of objects, and their names are for those who may read it.

use std::collections::BTreeSet;

use ackord_agents::live::{LIVE_SESSIONS_MAX, LiveKind, LiveQuery, Reach};
use ackord_agents::metrics::{Sheet, Shown, all};
use ackord_machine::site::{
    self as machine, EventKey, InstanceId, Lag, PushState, Receiver, Site, SiteName, Stamp,
};
use ackord_wire::Problem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::answer::Answer;
use super::authority::Need;
use super::exchange::{Allowed, Exchange};
use super::query::{self, Query};

/// Objects of a page, where nothing else is asked for.
pub const LIMIT_DEFAULT: usize = 500;
/// The most that may be asked for.
pub const LIMIT_MAX: usize = 1000;
/// Instances that are counted of each subscription.
const COUNTED_MAX: u64 = 1000;

const KNOWN: &[&str] = &["site", "cursor", "limit", "consistency"];

/// The last object of a page: the next one begins behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cursor {
    Queue(String),
    Subscription(String, u32),
    Push(String),
}

/// A subscription of a page whose session is still to be asked.
struct Served {
    client: String,
    event: EventKey,
    name: String,
}

/// `GET /metrics/detailed?site=NAME`.
pub async fn detailed(exchange: Exchange<'_>) -> Result<Answer, Problem> {
    // The site is part of the address here, so it comes before the question who asks.
    let named = Query::parse(exchange.request().query_string(), KNOWN)
        .map(|query| query.get("site").map(str::to_owned));
    let site = match named {
        Ok(Some(site)) => site,
        Ok(None) => {
            exchange.authorize_node(KNOWN)?;
            return Err(query::invalid("site", "the name of a site, was absent"));
        }
        Err(problem) => {
            exchange.authorize_node(KNOWN)?;
            return Err(problem);
        }
    };
    let allowed = exchange.authorize(&site, Need::Read, KNOWN).await?;
    let limit = allowed.query.number("limit")?.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(query::invalid("limit", &format!("1..={LIMIT_MAX}, was {limit}")));
    }
    let after = allowed.query.get("cursor").map(Cursor::parse).transpose()?;
    let mut page = Page::new(&site, after, limit);
    allowed.look(&site, |site, now| page.fill(site, now)).await?;
    page.ask_for_flights(&allowed).await;
    Ok(page.answer(limit))
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, Problem> {
        let parsed = text.split_once('/').and_then(|(kind, rest)| match kind {
            "queue" => Some(Self::Queue(rest.to_owned())),
            "push" => Some(Self::Push(rest.to_owned())),
            "subscription" => {
                let (client, number) = rest.rsplit_once('/')?;
                Some(Self::Subscription(client.to_owned(), number.parse().ok()?))
            }
            _ => None,
        });
        parsed.ok_or_else(|| {
            query::invalid("cursor", &format!("the cursor of a `next`, was {text:?}"))
        })
    }

    fn text(&self) -> String {
        match self {
            Self::Queue(event) => format!("queue/{event}"),
            Self::Subscription(client, number) => format!("subscription/{client}/{number}"),
            Self::Push(id) => format!("push/{id}"),
        }
    }
}

/// A page as it fills.
struct Page {
    site: String,
    sheet: Sheet,
    after: Option<Cursor>,
    left: usize,
    last: Option<Cursor>,
    more: bool,
    served: Vec<Served>,
    pushes: Vec<String>,
}

impl Page {
    fn new(site: &str, after: Option<Cursor>, limit: usize) -> Self {
        let names = all().filter(|row| row.shown == Shown::Detailed).map(|row| row.name);
        Self {
            site: site.to_owned(),
            sheet: Sheet::of(names),
            after,
            left: limit,
            last: None,
            more: false,
            served: Vec::new(),
            pushes: Vec::new(),
        }
    }

    /// Whether this object is on the page: behind the cursor, and there is room. No object behind
    /// one for which there is none is.
    fn takes(&mut self, object: Cursor) -> bool {
        if self.after.as_ref().is_some_and(|after| object <= *after) {
            return false;
        }
        if self.left == 0 {
            self.more = true;
            return false;
        }
        self.left -= 1;
        self.last = Some(object);
        true
    }

    fn fill(&mut self, site: &Site, now: Stamp) {
        if matches!(self.after, None | Some(Cursor::Queue(_))) {
            let mut events: Vec<_> = site.events().collect();
            events.sort_unstable_by(|a, b| a.definition.name.cmp(&b.definition.name));
            for event in events {
                if self.takes(Cursor::Queue(event.definition.name.to_string())) {
                    self.put_queue(site, event, now);
                }
            }
        }
        self.fill_subscriptions(site, now);
        let start = match &self.after {
            Some(Cursor::Push(id)) => id.clone(),
            _ => String::new(),
        };
        for row in site.pushes_after(&start) {
            if self.more {
                break;
            }
            if self.takes(Cursor::Push(row.id.to_string())) {
                self.put_push(site, row, now);
            }
        }
    }

    fn fill_subscriptions(&mut self, site: &Site, now: Stamp) {
        let start = match &self.after {
            // The client that the page before ended in may have more.
            Some(Cursor::Subscription(client, _)) => client.clone(),
            Some(Cursor::Push(_)) => return,
            Some(Cursor::Queue(_)) | None => String::new(),
        };
        let clients = site.client(&start).into_iter().chain(site.clients_after(&start));
        for row in clients.flat_map(|client| site.subscriptions(&client.id)) {
            if self.more {
                break;
            }
            if self.takes(Cursor::Subscription(row.client.to_string(), row.event.0)) {
                self.put_subscription(site, row, now);
            }
        }
    }

    fn put_queue(&mut self, site: &Site, event: &machine::EventRow, now: Stamp) {
        let labels = [&*self.site, event.definition.name.as_str()];
        let retained = site.retained_len(event.key) as f64;
        self.sheet.put("ackord_queue_retained_instances", &labels, retained);
        if let Some(oldest) = site.retained(event.key).next() {
            let age = seconds_since(oldest.created, now);
            self.sheet.put("ackord_queue_oldest_age_seconds", &labels, age);
        }
    }

    fn put_subscription(&mut self, site: &Site, row: &machine::SubscriptionRow, now: Stamp) {
        let Some(event) = site.event(row.event) else { return };
        let (client, name) = (row.client.as_str(), event.definition.name.as_str());
        let labels = [&*self.site, client, name];
        let receiver = Receiver::Client(row.client.clone());
        let lag = site.lag(row.event, row.cursor, &receiver, now, COUNTED_MAX);
        put_lag(&mut self.sheet, "ackord_subscription", &labels, lag, row.cursor, now);
        let (client, name) = (client.to_owned(), name.to_owned());
        self.served.push(Served { client, event: row.event, name });
    }

    fn put_push(&mut self, site: &Site, row: &machine::PushRow, now: Stamp) {
        let labels = [&*self.site, row.id.as_str()];
        let receiver = Receiver::Client(row.spec.client.clone());
        let lag = site.lag(row.event, row.cursor, &receiver, now, COUNTED_MAX);
        put_lag(&mut self.sheet, "ackord_push_subscription", &labels, lag, row.cursor, now);
        for state in PushState::NAMES {
            let is = f64::from(u8::from(state == row.state.as_str()));
            let labels = [&*self.site, row.id.as_str(), state];
            self.sheet.put("ackord_push_subscription_state", &labels, is);
        }
        self.pushes.push(row.id.to_string());
    }

    /// Adds what only the sessions and agents of this node know.
    async fn ask_for_flights(&mut self, allowed: &Allowed<'_>) {
        let broker = &allowed.context.broker;
        let name = SiteName::from(&*self.site);
        let mut clients: BTreeSet<&str> =
            self.served.iter().map(|served| served.client.as_str()).collect();
        // Most clients may not be connected here: who is, is asked at once, as far as that goes.
        let (kind, limit) = (Some(LiveKind::Client), LIVE_SESSIONS_MAX);
        let query = LiveQuery { kind, id: None, lanes: false, after: None, limit };
        let connected = broker.live(&name, query, Reach::Node).await;
        if !connected.more {
            let is_here = |id: &str| connected.sessions.iter().any(|other| other.key.id == id);
            clients.retain(|id| is_here(id));
        }
        for client in clients {
            let query = LiveQuery::of(LiveKind::Client, client);
            let found = broker.live(&name, query, Reach::Node).await;
            let Some(session) = found.newest() else { continue };
            for served in self.served.iter().filter(|served| served.client == client) {
                let lane = session.lanes.iter().find(|lane| lane.event == served.event);
                let Some(lane) = lane else { continue };
                let labels = [&*self.site, client, &served.name];
                let name = "ackord_subscription_in_flight_instances";
                self.sheet.put(name, &labels, f64::from(lane.in_flight));
            }
        }
        for id in &self.pushes {
            if let Some(in_flight) = broker.push_in_flight(&self.site, id) {
                let name = "ackord_push_subscription_in_flight_instances";
                self.sheet.put(name, &[&*self.site, id], in_flight as f64);
            }
        }
    }

    fn answer(self, limit: usize) -> Answer {
        let next = self.last.filter(|_| self.more).map(|last| last.text());
        let mut text = self.sheet.text();
        let Some(next) = next else { return Answer::metrics(text) };
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (site, cursor) = (encode(&self.site), encode(&next));
        let link = format!("/metrics/detailed?site={site}&cursor={cursor}&limit={limit}");
        text += &format!("# next page: {link}\n");
        Answer::metrics(text).header("link", &format!("<{link}>; rel=\"next\""))
    }
}

fn put_lag(
    sheet: &mut Sheet,
    kind: &str,
    labels: &[&str],
    lag: Lag,
    cursor: InstanceId,
    now: Stamp,
) {
    sheet.put(&format!("{kind}_lag_instances"), labels, lag.count as f64);
    if let Some(oldest) = lag.oldest {
        let name = format!("{kind}_oldest_unacknowledged_seconds");
        sheet.put(&name, labels, seconds_since(oldest, now));
    }
    sheet.put(&format!("{kind}_position"), labels, cursor.0 as f64);
}

fn seconds_since(then: Stamp, now: Stamp) -> f64 {
    now.0.saturating_sub(then.0) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use ackord_wire::Code;

    use super::*;

    #[test]
    fn a_cursor_is_what_it_says_and_nothing_else_is_one() {
        let cursors = [
            Cursor::Queue("a/b".to_owned()),
            Cursor::Subscription("c/d".to_owned(), 7),
            Cursor::Push("p".to_owned()),
        ];
        assert!(cursors.is_sorted(), "pages go on in this order");
        for cursor in cursors {
            assert_eq!(Cursor::parse(&cursor.text()).ok(), Some(cursor));
        }
        for wrong in ["", "queue", "subscription/c", "subscription/c/x", "session/s"] {
            let problem = Cursor::parse(wrong).unwrap_err();
            assert_eq!((problem.code, problem.field.as_deref()), (Code::Invalid, Some("?cursor")));
        }
    }
}
