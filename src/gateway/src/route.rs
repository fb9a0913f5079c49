//! The addresses of the front as data: which path is what, and which methods it has.
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
    Live,
    Ready,
    Metrics,
    Cluster,
    Compare,
    Backup { partition: String },
    Restore { site: String },
    NodeState { id: String, act: NodeAct },
    Reload,
    Sites,
    Site { site: String },
    Structure { site: String },
    List { site: String, list: List },
    Service { site: String, id: String },
    ApplyDeclared { site: String, id: String },
    Client { site: String, id: String },
    User { site: String, id: String },
    Token { site: String, id: String },
    Queue { site: String, event: String },
    ClientSubscriptions { site: String, client: String },
    Subscription { site: String, client: String, event: String },
    Seek { site: String, client: String, event: String },
    Raise { site: String, event: String },
    Socket { site: String, endpoint: Endpoint },
}

impl Route {
    /// What this path names; `None` for nothing. A segment that is not percent-encoded UTF-8
    /// names nothing.
    pub fn parse(path: &str) -> Option<Self> {
        let segments: Vec<String> = path
            .strip_prefix('/')?
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned))
            .collect::<Result<_, _>>()
            .ok()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        let own = |text: &&str| (*text).to_owned();
        Some(match segments.as_slice() {
            ["healthz", "live"] => Self::Live,
            ["healthz", "ready"] => Self::Ready,
            ["metrics"] => Self::Metrics,
            ["v1", "cluster"] => Self::Cluster,
            ["v1", "cluster", "compare"] => Self::Compare,
            ["v1", "cluster", "backup", partition] => Self::Backup { partition: own(partition) },
            ["v1", "cluster", "restore", site] => Self::Restore { site: own(site) },
            ["v1", "cluster", "nodes", id, act] => {
                let act = match *act {
                    "drain" => NodeAct::Drain,
                    "undrain" => NodeAct::Undrain,
                    "remove" => NodeAct::Remove,
                    _ => return None,
                };
                Self::NodeState { id: own(id), act }
            }
            ["v1", "node", "reload"] => Self::Reload,
            ["v1", "sites"] => Self::Sites,
            ["v1", "sites", site] => Self::Site { site: own(site) },
            ["v1", "sites", site, rest @ ..] => Self::of_site(own(site), rest)?,
            _ => return None,
        })
    }

    fn of_site(site: String, rest: &[&str]) -> Option<Self> {
        let own = |text: &&str| (*text).to_owned();
        Some(match rest {
            ["structure"] => Self::Structure { site },
            ["service"] => Self::Socket { site, endpoint: Endpoint::Service },
            ["client"] => Self::Socket { site, endpoint: Endpoint::Client },
            ["services"] => Self::List { site, list: List::Services },
            ["clients"] => Self::List { site, list: List::Clients },
            ["users"] => Self::List { site, list: List::Users },
            ["tokens"] => Self::List { site, list: List::Tokens },
            ["queues"] => Self::List { site, list: List::Queues },
            ["subscriptions"] => Self::List { site, list: List::Subscriptions },
            ["services", id] => Self::Service { site, id: own(id) },
            ["services", id, "apply-declared"] => Self::ApplyDeclared { site, id: own(id) },
            ["clients", id] => Self::Client { site, id: own(id) },
            ["clients", id, "subscriptions"] => Self::ClientSubscriptions { site, client: own(id) },
            ["clients", id, "subscriptions", event] => {
                Self::Subscription { site, client: own(id), event: own(event) }
            }
            ["clients", id, "subscriptions", event, "seek"] => {
                Self::Seek { site, client: own(id), event: own(event) }
            }
            ["users", id] => Self::User { site, id: own(id) },
            ["tokens", id] => Self::Token { site, id: own(id) },
            ["queues", event] => Self::Queue { site, event: own(event) },
            ["events", event] => Self::Raise { site, event: own(event) },
            _ => return None,
        })
    }

    /// Whether a socket of this face serves it. Beside a socket for the administration, endpoints
    /// find what they need to raise and receive, and nothing else.
    pub fn is_on(&self, face: Face) -> bool {
        match (face, self) {
            (Face::Whole, _)
            | (
                Face::Endpoints,
                Self::Live | Self::Ready | Self::Raise { .. } | Self::Socket { .. },
            ) => true,
            (
                Face::Endpoints,
                Self::Metrics
                | Self::Cluster
                | Self::Compare
                | Self::Backup { .. }
                | Self::Restore { .. }
                | Self::NodeState { .. }
                | Self::Reload
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

    /// The methods it has. `HEAD` goes with `GET`.
    pub fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::Cluster
            | Self::Backup { .. }
            | Self::Sites
            | Self::Queue { .. } => &["GET", "HEAD"],
            Self::Compare | Self::Restore { .. } | Self::NodeState { .. } | Self::Reload => {
                &["POST"]
            }
            Self::ClientSubscriptions { .. } => &["GET", "HEAD"],
            Self::Socket { .. } => &["GET"],
            Self::Site { .. } | Self::Service { .. } | Self::Client { .. } | Self::User { .. } => {
                &["GET", "HEAD", "PUT", "DELETE"]
            }
            Self::Structure { .. } => &["GET", "HEAD", "PUT"],
            Self::List { list, .. } => match list {
                List::Tokens => &["GET", "HEAD", "POST"],
                List::Services
                | List::Clients
                | List::Users
                | List::Queues
                | List::Subscriptions => &["GET", "HEAD"],
            },
            Self::Token { .. } | Self::Subscription { .. } => &["GET", "HEAD", "DELETE"],
            Self::ApplyDeclared { .. } | Self::Seek { .. } | Self::Raise { .. } => &["POST"],
        }
    }

    /// Its name in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Metrics => "metrics",
            Self::Cluster => "cluster",
            Self::Compare => "compare",
            Self::Backup { .. } => "backup",
            Self::Restore { .. } => "restore",
            Self::NodeState { .. } => "node-state",
            Self::Reload => "reload",
            Self::Sites => "sites",
            Self::Site { .. } => "site",
            Self::Structure { .. } => "structure",
            Self::List { list, .. } => match list {
                List::Services => "services",
                List::Clients => "clients",
                List::Users => "users",
                List::Tokens => "tokens",
                List::Queues => "queues",
                List::Subscriptions => "subscriptions",
            },
            Self::Service { .. } => "service",
            Self::ApplyDeclared { .. } => "apply-declared",
            Self::Client { .. } => "client",
            Self::User { .. } => "user",
            Self::Token { .. } => "token",
            Self::Queue { .. } => "queue",
            Self::ClientSubscriptions { .. } => "client-subscriptions",
            Self::Subscription { .. } => "subscription",
            Self::Seek { .. } => "seek",
            Self::Raise { .. } => "raise",
            Self::Socket { endpoint, .. } => match endpoint {
                Endpoint::Service => "service-socket",
                Endpoint::Client => "client-socket",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_the_documentation_says() {
        let check = |path: &str, expected: Option<Route>| {
            assert_eq!(Route::parse(path), expected, "{path}")
        };
        let site = || "s".to_owned();
        check("/healthz/live", Some(Route::Live));
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
