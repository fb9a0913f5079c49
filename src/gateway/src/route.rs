//! The addresses of the front as data: which path is what, and which methods it has.
//!
//! One row of [`ADDRESSES`] is one address; an address without a row does not compile. What an
//! operation takes and answers is in `openapi`, where one without a description fails a test.
//!
//! Names in a path are percent-decoded once, segment by segment, so that an event named `a/b` is
//! reachable as `a%2Fb`. The WebSocket endpoints and the HTTP API share this table.

use percent_encoding::percent_decode_str;

use crate::options::Face;

/// A list of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Services,
    Clients,
    Users,
    Tokens,
    Queues,
    Subscriptions,
}

/// What is done to a node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeAct {
    Drain,
    Undrain,
    Remove,
    Leave,
}

/// Whether a subscription's deliveries are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Pause,
    Resume,
}

/// Which endpoint a WebSocket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Service,
    Client,
}

impl Endpoint {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Client => "client",
        }
    }
}

/// What an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    OpenApi,
    Live,
    Startup,
    Ready,
    Metrics,
    MetricsDetailed,
    Cluster,
    Views,
    Compare,
    Backup { partition: String },
    Restore { site: String },
    NodeState { id: String, act: NodeAct },
    Node,
    Reload,
    Sites,
    Site { site: String },
    Structure { site: String },
    List { site: String, list: List },
    Sessions { site: String },
    Service { site: String, id: String },
    ApplyDeclared { site: String, id: String },
    Client { site: String, id: String },
    User { site: String, id: String },
    Token { site: String, id: String },
    Queue { site: String, event: String },
    ClientSubscriptions { site: String, client: String },
    Subscription { site: String, client: String, event: String },
    Seek { site: String, client: String, event: String },
    Flow { site: String, client: String, event: String, flow: Flow },
    KickClient { site: String, id: String },
    KickService { site: String, id: String },
    Quotas { site: String },
    Pushes { site: String },
    Push { site: String, id: String },
    PushResume { site: String, id: String },
    DeadLetters { site: String },
    DeadLetter { site: String, id: String },
    DeadLetterReplay { site: String, id: String },
    Tickets { site: String },
    Audit { site: String },
    ClusterAudit,
    Why { site: String },
    CanI { site: String },
    Events { site: String },
    Next { site: String },
    Ack { site: String },
    Raise { site: String, event: String },
    Socket { site: String, endpoint: Endpoint },
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its name in metrics.
    pub label: &'static str,
    /// Its path, `{name}` for a segment that names something.
    pub template: &'static str,
    /// The methods it has. `HEAD` goes with `GET`.
    pub methods: &'static [&'static str],
}

/// `label path [methods] => Route { what the segments name } with { what the path says };`
macro_rules! addresses {
    ($($label:literal $template:literal [$($method:literal)+] =>
        $route:ident { $($name:ident),* } $(with { $field:ident: $value:path })?;)*) => {
        /// Every address.
        pub const ADDRESSES: &[Address] = &[$(Address {
            label: $label,
            template: $template,
            methods: &[$($method),+],
        }),*];

        impl Route {
            /// What these segments name.
            #[allow(unused_mut, unused_variables)]
            fn of_segments(segments: &[String]) -> Option<Self> {
                $(if let Some(mut names) = named($template, segments) {
                    return Some(Self::$route {
                        $($name: names.next()?.clone(),)*
                        $($field: $value,)?
                    });
                })*
                None
            }

            /// The methods it has.
            pub fn methods(&self) -> &'static [&'static str] {
                match self {
                    $(Self::$route { $($field: $value,)? .. } => &[$($method),+],)*
                }
            }

            /// Its name in metrics.
            pub fn label(&self) -> &'static str {
                match self {
                    $(Self::$route { $($field: $value,)? .. } => $label,)*
                }
            }
        }
    };
}

addresses! {
    "openapi" "/openapi.json" ["GET" "HEAD"] => OpenApi {};
    "live" "/healthz/live" ["GET" "HEAD"] => Live {};
    "startup" "/healthz/startup" ["GET" "HEAD"] => Startup {};
    "ready" "/healthz/ready" ["GET" "HEAD"] => Ready {};
    "metrics" "/metrics" ["GET" "HEAD"] => Metrics {};
    "metrics-detailed" "/metrics/detailed" ["GET" "HEAD"] => MetricsDetailed {};
    "cluster" "/v1/cluster" ["GET" "HEAD"] => Cluster {};
    "cluster-views" "/v1/cluster/views" ["GET" "HEAD"] => Views {};
    "compare" "/v1/cluster/compare" ["POST"] => Compare {};
    "backup" "/v1/cluster/backup/{partition}" ["GET" "HEAD"] => Backup { partition };
    "restore" "/v1/cluster/restore/{site}" ["POST"] => Restore { site };
    "drain" "/v1/cluster/nodes/{id}/drain" ["POST"]
        => NodeState { id } with { act: NodeAct::Drain };
    "undrain" "/v1/cluster/nodes/{id}/undrain" ["POST"]
        => NodeState { id } with { act: NodeAct::Undrain };
    "remove" "/v1/cluster/nodes/{id}/remove" ["POST"]
        => NodeState { id } with { act: NodeAct::Remove };
    "leave" "/v1/cluster/nodes/{id}/leave" ["POST"]
        => NodeState { id } with { act: NodeAct::Leave };
    "node" "/v1/node" ["GET" "HEAD"] => Node {};
    "reload" "/v1/node/reload" ["POST"] => Reload {};
    "sites" "/v1/sites" ["GET" "HEAD"] => Sites {};
    "site" "/v1/sites/{site}" ["GET" "HEAD" "PUT" "DELETE"] => Site { site };
    "structure" "/v1/sites/{site}/structure" ["GET" "HEAD" "PUT"] => Structure { site };
    "services" "/v1/sites/{site}/services" ["GET" "HEAD"]
        => List { site } with { list: List::Services };
    "service" "/v1/sites/{site}/services/{id}" ["GET" "HEAD" "PUT" "DELETE"]
        => Service { site, id };
    "apply-declared" "/v1/sites/{site}/services/{id}/apply-declared" ["POST"]
        => ApplyDeclared { site, id };
    "clients" "/v1/sites/{site}/clients" ["GET" "HEAD"]
        => List { site } with { list: List::Clients };
    "client" "/v1/sites/{site}/clients/{id}" ["GET" "HEAD" "PUT" "DELETE"] => Client { site, id };
    "client-subscriptions" "/v1/sites/{site}/clients/{client}/subscriptions" ["GET" "HEAD"]
        => ClientSubscriptions { site, client };
    "subscription" "/v1/sites/{site}/clients/{client}/subscriptions/{event}"
        ["GET" "HEAD" "PUT" "DELETE"] => Subscription { site, client, event };
    "seek" "/v1/sites/{site}/clients/{client}/subscriptions/{event}/seek" ["POST"]
        => Seek { site, client, event };
    "pause" "/v1/sites/{site}/clients/{client}/subscriptions/{event}/pause" ["POST"]
        => Flow { site, client, event } with { flow: Flow::Pause };
    "resume" "/v1/sites/{site}/clients/{client}/subscriptions/{event}/resume" ["POST"]
        => Flow { site, client, event } with { flow: Flow::Resume };
    "kick-client" "/v1/sites/{site}/clients/{id}/kick" ["POST"] => KickClient { site, id };
    "kick-service" "/v1/sites/{site}/services/{id}/kick" ["POST"] => KickService { site, id };
    "pushes" "/v1/sites/{site}/pushes" ["GET" "HEAD"] => Pushes { site };
    "push" "/v1/sites/{site}/pushes/{id}" ["GET" "HEAD" "PUT" "DELETE"] => Push { site, id };
    "push-resume" "/v1/sites/{site}/pushes/{id}/resume" ["POST"] => PushResume { site, id };
    "dead-letters" "/v1/sites/{site}/dead-letters" ["GET" "HEAD"] => DeadLetters { site };
    "dead-letter" "/v1/sites/{site}/dead-letters/{id}" ["GET" "HEAD" "PATCH" "DELETE"]
        => DeadLetter { site, id };
    "dead-letter-replay" "/v1/sites/{site}/dead-letters/{id}/replay" ["POST"]
        => DeadLetterReplay { site, id };
    "quotas" "/v1/sites/{site}/quotas" ["GET" "HEAD" "PUT"] => Quotas { site };
    "tickets" "/v1/sites/{site}/tickets" ["POST"] => Tickets { site };
    "audit" "/v1/sites/{site}/audit" ["GET" "HEAD"] => Audit { site };
    "cluster-audit" "/v1/audit" ["GET" "HEAD"] => ClusterAudit {};
    "why" "/v1/sites/{site}/why" ["GET" "HEAD"] => Why { site };
    "can-i" "/v1/sites/{site}/can-i" ["GET" "HEAD"] => CanI { site };
    "events" "/v1/sites/{site}/events" ["GET" "POST"] => Events { site };
    "next" "/v1/sites/{site}/next" ["GET"] => Next { site };
    "ack" "/v1/sites/{site}/ack" ["POST"] => Ack { site };
    "users" "/v1/sites/{site}/users" ["GET" "HEAD"] => List { site } with { list: List::Users };
    "user" "/v1/sites/{site}/users/{id}" ["GET" "HEAD" "PUT" "DELETE"] => User { site, id };
    "tokens" "/v1/sites/{site}/tokens" ["GET" "HEAD" "POST"]
        => List { site } with { list: List::Tokens };
    "token" "/v1/sites/{site}/tokens/{id}" ["GET" "HEAD" "DELETE"] => Token { site, id };
    "queues" "/v1/sites/{site}/queues" ["GET" "HEAD"] => List { site } with { list: List::Queues };
    "queue" "/v1/sites/{site}/queues/{event}" ["GET" "HEAD"] => Queue { site, event };
    "subscriptions" "/v1/sites/{site}/subscriptions" ["GET" "HEAD"]
        => List { site } with { list: List::Subscriptions };
    "sessions" "/v1/sites/{site}/sessions" ["GET" "HEAD"] => Sessions { site };
    "raise" "/v1/sites/{site}/events/{event}" ["POST"] => Raise { site, event };
    "service-socket" "/v1/sites/{site}/service" ["GET"]
        => Socket { site } with { endpoint: Endpoint::Service };
    "client-socket" "/v1/sites/{site}/client" ["GET"]
        => Socket { site } with { endpoint: Endpoint::Client };
}

/// The segments that a template leaves open, if it is of this path.
fn named<'a>(
    template: &'static str,
    segments: &'a [String],
) -> Option<impl Iterator<Item = &'a String>> {
    let parts = || template.split('/').skip(1);
    let fits = parts().count() == segments.len()
        && parts().zip(segments).all(|(part, segment)| part.starts_with('{') || part == segment);
    fits.then(|| {
        parts().zip(segments).filter(|(part, _)| part.starts_with('{')).map(|(_, named)| named)
    })
}

/// Addresses of which no span is told as a request: what they do is told otherwise, or is asked for all the
/// time.
const UNTOLD: &[&str] = &[
    "openapi",
    "live",
    "startup",
    "ready",
    "metrics",
    "metrics-detailed",
    "events",
    "raise",
    "next",
    "ack",
    "service-socket",
    "client-socket",
];

impl Route {
    /// Whether it is one of the administration.
    pub fn is_management(&self) -> bool {
        !UNTOLD.contains(&self.label())
    }

    /// What this path names; `None` for nothing. A segment that is not percent-encoded UTF-8
    /// names nothing.
    pub fn parse(path: &str) -> Option<Self> {
        let segments: Vec<String> = path
            .strip_prefix('/')?
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned))
            .collect::<Result<_, _>>()
            .ok()?;
        if segments.iter().any(String::is_empty) {
            return None;
        }
        Self::of_segments(&segments)
    }

    /// The site that it is of; `None` for what is above the sites.
    pub fn site(&self) -> Option<&str> {
        match self {
            Self::OpenApi
            | Self::Live
            | Self::Startup
            | Self::Ready
            | Self::Metrics
            | Self::MetricsDetailed
            | Self::Cluster
            | Self::Views
            | Self::Compare
            | Self::Backup { .. }
            | Self::Restore { .. }
            | Self::NodeState { .. }
            | Self::Node
            | Self::Reload
            | Self::Sites
            | Self::ClusterAudit => None,
            Self::Site { site }
            | Self::Structure { site }
            | Self::List { site, .. }
            | Self::Sessions { site }
            | Self::Service { site, .. }
            | Self::ApplyDeclared { site, .. }
            | Self::Client { site, .. }
            | Self::User { site, .. }
            | Self::Token { site, .. }
            | Self::Queue { site, .. }
            | Self::ClientSubscriptions { site, .. }
            | Self::Subscription { site, .. }
            | Self::Seek { site, .. }
            | Self::Flow { site, .. }
            | Self::KickClient { site, .. }
            | Self::KickService { site, .. }
            | Self::Quotas { site }
            | Self::Pushes { site }
            | Self::Push { site, .. }
            | Self::PushResume { site, .. }
            | Self::DeadLetters { site }
            | Self::DeadLetter { site, .. }
            | Self::DeadLetterReplay { site, .. }
            | Self::Tickets { site }
            | Self::Audit { site }
            | Self::Why { site }
            | Self::CanI { site }
            | Self::Events { site }
            | Self::Next { site }
            | Self::Ack { site }
            | Self::Raise { site, .. }
            | Self::Socket { site, .. } => Some(site),
        }
    }

    /// Whether a socket of this face serves it. Beside a socket for the administration, endpoints
    /// find what they need to raise and receive, and nothing else.
    pub fn is_on(&self, face: Face) -> bool {
        match (face, self) {
            (Face::Whole, _)
            | (
                Face::Endpoints,
                Self::Live
                | Self::Startup
                | Self::Ready
                | Self::Raise { .. }
                | Self::Events { .. }
                | Self::Next { .. }
                | Self::Ack { .. }
                | Self::Tickets { .. }
                | Self::Pushes { .. }
                | Self::Push { .. }
                | Self::PushResume { .. }
                | Self::Socket { .. },
            ) => true,
            (
                Face::Endpoints,
                Self::Metrics
                | Self::MetricsDetailed
                | Self::Cluster
                | Self::Views
                | Self::Compare
                | Self::Backup { .. }
                | Self::Restore { .. }
                | Self::NodeState { .. }
                | Self::Node
                | Self::Reload
                | Self::OpenApi
                | Self::Sessions { .. }
                | Self::Flow { .. }
                | Self::KickClient { .. }
                | Self::KickService { .. }
                | Self::Quotas { .. }
                | Self::DeadLetters { .. }
                | Self::DeadLetter { .. }
                | Self::DeadLetterReplay { .. }
                | Self::Audit { .. }
                | Self::ClusterAudit
                | Self::Why { .. }
                | Self::CanI { .. }
                | Self::Sites
                | Self::Site { .. }
                | Self::Structure { .. }
                | Self::List { .. }
                | Self::Service { .. }
                | Self::ApplyDeclared { .. }
                | Self::Client { .. }
                | Self::User { .. }
                | Self::Token { .. }
                | Self::Queue { .. }
                | Self::ClientSubscriptions { .. }
                | Self::Subscription { .. }
                | Self::Seek { .. },
            ) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_names_itself_and_no_two_are_one() {
        for address in ADDRESSES {
            let path = address.template.replace(['{', '}'], "");
            let route = Route::parse(&path).expect(address.template);
            assert_eq!((route.label(), route.methods()), (address.label, address.methods));
            let same = |other: &&Address| {
                other.label == address.label || other.template == address.template
            };
            assert_eq!(ADDRESSES.iter().filter(same).count(), 1, "{address:?}");
        }
    }

    #[test]
    fn paths_name_what_the_documentation_says() {
        let check = |path: &str, expected: Option<Route>| {
            assert_eq!(Route::parse(path), expected, "{path}")
        };
        let site = || "s".to_owned();
        check("/healthz/live", Some(Route::Live));
        check("/v1/node", Some(Route::Node));
        check("/v1/node/reload", Some(Route::Reload));
        check("/v1/sites", Some(Route::Sites));
        check("/v1/sites/s", Some(Route::Site { site: site() }));
        check("/v1/sites/s/tokens", Some(Route::List { site: site(), list: List::Tokens }));
        check(
            "/v1/sites/s/events/a%2Fb%20%5Bc%5D",
            Some(Route::Raise { site: site(), event: "a/b [c]".to_owned() }),
        );
        check(
            "/v1/sites/s/clients/c/subscriptions/e/seek",
            Some(Route::Seek { site: site(), client: "c".to_owned(), event: "e".to_owned() }),
        );
        check(
            "/v1/sites/s/client",
            Some(Route::Socket { site: site(), endpoint: Endpoint::Client }),
        );
        for nothing in
            ["", "/", "/v1", "/v1/sites/", "/v1/sites//client", "/v1/sites/s/x", "/v2/sites"]
        {
            check(nothing, None);
        }
        check("/v1/sites/%ff", None);
    }
}
