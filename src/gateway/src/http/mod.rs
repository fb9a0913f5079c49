//! The HTTP administration API: one entry, a table of routes, one file per kind of resource.
//!
//! `head ─▶ Route ─▶ Caller ─▶ may? ─▶ query ─▶ body ─▶ Broker ─▶ Answer | Problem`

mod accounts;
pub mod answer;
mod arguments;
pub mod attempt;
mod audit;
pub mod authority;
mod backup;
pub mod batch;
pub mod body;
pub mod cloudevents;
mod cluster;
pub mod cors;
mod dead_letters;
pub mod detailed;
pub mod exchange;
mod govern;
mod health;
mod list;
mod live;
mod node;
mod pushes;
pub mod query;
mod queues;
mod raise;
mod sites;
pub mod stream;
mod subscriptions;
pub mod suggest;
mod tickets;
mod tokens;
mod why;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use ackord_wire::{Code, Problem};
use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};

use crate::context::{ConnectionGuard, Context};
use crate::options::Face;
use crate::route::{List, Route};
use answer::{Answer, refuse};
use cors::Page;
use exchange::Exchange;

/// Seconds after which to come again to a node that is full or stopping.
pub const RETRY_AFTER_S: u32 = 1;

/// Answers one request that is not an upgrade.
pub async fn handle(
    context: Arc<Context>,
    face: Face,
    request: HttpRequest,
    mut payload: web::Payload,
) -> HttpResponse {
    let started = Instant::now();
    // What another socket serves is not here.
    let route = Route::parse(request.path()).filter(|route| route.is_on(face));
    let label = route.as_ref().map_or("none", Route::label);
    let over = request.conn_data::<ConnectionGuard>().is_some_and(|guard| guard.over);
    let managed = route.as_ref().is_some_and(Route::is_management);
    let spans = context.broker.spans();
    let span = managed.then(|| spans.request(|| raise::wire_trace(request.headers()))).flatten();
    let live = context.live();
    let page = Page::of(&live.origins, request.headers());
    let mut response = match &route {
        _ if over => refuse(&too_many_connections(&context), &[]),
        None => refuse(&nothing_here(request.path()), &[]),
        Some(route) if cors::is_preflight(&request) => {
            cors::preflight(&page, route, request.headers())
        }
        Some(route) => match method_problem(route, request.method()) {
            Some(problem) => refuse(&problem, route.methods()),
            None => match asked(&context, face, route, &request, &page, &mut payload).await {
                Ok(answer) => answer.into_response(),
                Err(problem) => {
                    attempt::note(&context, request.head(), Some(route), &problem).await;
                    refuse(&problem, &[])
                }
            },
        },
    };
    page.sign(&mut response);
    if over {
        response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    }
    let elapsed = started.elapsed();
    if let Some(span) = span {
        span.answered(request.method().as_str(), label, response.status().as_u16());
    }
    context.metrics.answered(label, response.status().as_u16());
    context.metrics.request_seconds.observe(elapsed.as_secs_f64());
    tracing::debug!(
        route = label,
        method = %request.method(),
        status = response.status().as_u16(),
        micros = elapsed.as_micros(),
        "answered a request"
    );
    body::keep_beside(response, payload)
}

/// The node has as many connections as it may.
pub fn too_many_connections(context: &Context) -> Problem {
    let max = context.limits().connections_max;
    Problem::new(Code::Busy, format!("this node has its {max} connections"))
        .retry_after(RETRY_AFTER_S)
}

/// The address names nothing.
pub fn nothing_here(path: &str) -> Problem {
    // The address is the caller's own; a long one is not worth repeating.
    let shown: String = path.chars().take(200).collect();
    Problem::new(Code::NotFound, format!("nothing has the address {shown:?}"))
}

/// Why the method is not for this address.
pub fn method_problem(route: &Route, method: &Method) -> Option<Problem> {
    (!route.methods().contains(&method.as_str())).then(|| {
        let detail = format!("{method} is not one of {}", route.methods().join(", "));
        Problem::new(Code::MethodNotAllowed, detail)
    })
}

/// Answers what a page may ask for.
async fn asked(
    context: &Arc<Context>,
    face: Face,
    route: &Route,
    request: &HttpRequest,
    page: &Page,
    payload: &mut web::Payload,
) -> Result<Answer, Problem> {
    if let Some(problem) = page.refusal_of(request.method()) {
        return Err(problem);
    }
    if face == Face::Endpoints
        && let Ok(Some(token)) = authority::bearer(request.headers())
        && authority::is_node_admin(context, token)
    {
        let detail = "the node's administration token is taken at the socket of `admin.listen`";
        return Err(Problem::new(Code::AccessDenied, detail).field("Authorization"));
    }
    answer(context, route, request, payload).await
}

async fn answer(
    context: &Arc<Context>,
    route: &Route,
    request: &HttpRequest,
    payload: &mut web::Payload,
) -> Result<Answer, Problem> {
    let acted = Cell::new(false);
    let exchange = Exchange::new(context, request, payload, &acted);
    match carry_out(route, exchange).await {
        // It was done. That somebody has removed it again before it could be shown is no refusal.
        Err(problem) if problem.code == Code::NotFound && acted.get() => Ok(Answer::no_content()),
        answer => answer,
    }
}

async fn carry_out(route: &Route, exchange: Exchange<'_>) -> Result<Answer, Problem> {
    match route {
        Route::OpenApi => Ok(crate::openapi::answer()),
        Route::Live => health::live(exchange),
        Route::Ready => health::ready(exchange),
        Route::Startup => health::startup(exchange),
        Route::Metrics => health::metrics(exchange).await,
        Route::MetricsDetailed => detailed::detailed(exchange).await,
        Route::Cluster => cluster::show(exchange),
        Route::Views => cluster::views(exchange).await,
        Route::Compare => cluster::compare(exchange).await,
        Route::Backup { partition } => backup::backup(exchange, partition).await,
        Route::Restore { site } => backup::restore(exchange, site).await,
        Route::NodeState { id, act } => cluster::set_state(exchange, id, *act).await,
        Route::Node => node::show(exchange).await,
        Route::Reload => node::reload(exchange).await,
        Route::Sites => sites::list(exchange).await,
        Route::Site { site } => sites::one(exchange, site).await,
        Route::Structure { site } => sites::structure(exchange, site).await,
        Route::List { site, list } => match list {
            List::Services => accounts::services(exchange, site).await,
            List::Clients => accounts::clients(exchange, site).await,
            List::Users => accounts::users(exchange, site).await,
            List::Tokens => tokens::all(exchange, site).await,
            List::Queues => queues::list(exchange, site).await,
            List::Subscriptions => subscriptions::list(exchange, site).await,
        },
        Route::Sessions { site } => live::sessions(exchange, site).await,
        Route::Service { site, id } => accounts::service(exchange, site, id).await,
        Route::ApplyDeclared { site, id } => sites::apply_declared(exchange, site, id).await,
        Route::Client { site, id } => accounts::client(exchange, site, id).await,
        Route::User { site, id } => accounts::user(exchange, site, id).await,
        Route::Token { site, id } => tokens::one(exchange, site, id).await,
        Route::Queue { site, event } => queues::one(exchange, site, event).await,
        Route::ClientSubscriptions { site, client } => {
            subscriptions::of_client(exchange, site, client).await
        }
        Route::Subscription { site, client, event } => {
            subscriptions::one(exchange, site, client, event).await
        }
        Route::Seek { site, client, event } => {
            subscriptions::seek(exchange, site, client, event).await
        }
        Route::Flow { site, client, event, flow } => {
            govern::flow(exchange, site, client, event, *flow).await
        }
        Route::KickClient { site, id } => govern::kick_client(exchange, site, id).await,
        Route::KickService { site, id } => govern::kick_service(exchange, site, id).await,
        Route::Pushes { site } => pushes::list(exchange, site).await,
        Route::Push { site, id } => pushes::one(exchange, site, id).await,
        Route::PushResume { site, id } => pushes::resume(exchange, site, id).await,
        Route::DeadLetters { site } => dead_letters::list(exchange, site).await,
        Route::DeadLetter { site, id } => dead_letters::one(exchange, site, id).await,
        Route::DeadLetterReplay { site, id } => dead_letters::replay(exchange, site, id).await,
        Route::Quotas { site } => govern::quotas(exchange, site).await,
        Route::Tickets { site } => tickets::issue(exchange, site).await,
        Route::Audit { site } => audit::of_site(exchange, site).await,
        Route::ClusterAudit => audit::of_cluster(exchange).await,
        Route::Why { site } => why::why(exchange, site).await,
        Route::CanI { site } => why::can_i(exchange, site).await,
        Route::Events { site } if exchange.reads() => stream::stream(exchange, site).await,
        Route::Events { site } => raise::raise_named(exchange, site).await,
        Route::Next { site } => stream::next(exchange, site).await,
        Route::Ack { site } => stream::acknowledge(exchange, site).await,
        Route::Raise { site, event } => raise::raise(exchange, site, event).await,
        Route::Socket { endpoint, .. } => {
            let detail = format!("a WebSocket endpoint for a {}", endpoint.as_str());
            Err(Problem::new(Code::Invalid, detail).field("Upgrade"))
        }
    }
}
