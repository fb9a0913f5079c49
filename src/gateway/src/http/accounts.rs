//! Services, clients and users: the accounts of a site.

use ackord_agents::translate;
use ackord_machine::site::{self as machine, AdminAction, Object, Site};
use ackord_wire::resource::{self, ClientBody, ServiceBody, UserBody};
use ackord_wire::{Code, Problem};
use actix_web::http::Method;

use super::answer::Answer;
use super::authority::Need;
use super::exchange::{Allowed, Exchange, not_found};
use super::list::Wanted;
use crate::convert;

/// `GET /v1/sites/{site}/services`.
pub async fn services(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["limit", "after", "consistency", "prefix", "online"];
    let allowed = exchange.authorize(site, Need::Read, known).await?;
    let wanted = Wanted::of(&allowed.query)?;
    let online = allowed.query.choice("online")?;
    let look = |site: &Site, _| {
        let rows = wanted.rows(|id| site.service(id), |after| site.services_after(after));
        let keep = |row: &machine::ServiceRow| online.is_none_or(|online| row.online() == online);
        wanted.page(rows, |row| row.id.as_str(), keep, |row| service_out(site, row))
    };
    Ok(Answer::ok(&allowed.look(site, look).await?))
}

/// `GET /v1/sites/{site}/clients`.
pub async fn clients(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["limit", "after", "consistency", "prefix"];
    let allowed = exchange.authorize(site, Need::Read, known).await?;
    let wanted = Wanted::of(&allowed.query)?;
    let look = |site: &Site, _| {
        let rows = wanted.rows(|id| site.client(id), |after| site.clients_after(after));
        wanted.page(rows, |row| row.id.as_str(), |_| true, client_out)
    };
    Ok(Answer::ok(&allowed.look(site, look).await?))
}

/// `GET /v1/sites/{site}/users`.
pub async fn users(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let known = &["limit", "after", "consistency", "prefix", "role"];
    let allowed = exchange.authorize(site, Need::Read, known).await?;
    let wanted = Wanted::of(&allowed.query)?;
    let role = allowed.query.get("role");
    let look = |site: &Site, _| {
        let rows = wanted.rows(|id| site.user(id), |after| site.users_after(after));
        let keep = |row: &machine::UserRow| {
            role.is_none_or(|role| row.roles.iter().any(|held| held.as_str() == role))
        };
        wanted.page(rows, |row| row.id.as_str(), keep, user_out)
    };
    Ok(Answer::ok(&allowed.look(site, look).await?))
}

/// `/v1/sites/{site}/services/{id}`.
pub async fn service(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    match *exchange.method() {
        Method::PUT => {
            let mut allowed = exchange.authorize(site, Need::Admin, &[]).await?;
            let bytes = allowed.bytes().await?;
            let _: ServiceBody = super::body::decode(&bytes)?;
            let known = allowed.look(site, |site, _| site.service(id).is_some()).await?;
            if !known {
                let create = AdminAction::CreateService { id: id.into() };
                allowed.act(site, allowed.request_id("create", &bytes)?, create).await?;
            }
            answer_service(&allowed, site, id, known).await
        }
        Method::DELETE => {
            delete(exchange, site, AdminAction::DeleteService { id: id.into() }).await
        }
        _ => {
            let need = Need::ReadService(id);
            let allowed = exchange.authorize(site, need, &["consistency"]).await?;
            answer_service(&allowed, site, id, true).await
        }
    }
}

/// `/v1/sites/{site}/clients/{id}`.
pub async fn client(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    match *exchange.method() {
        Method::PUT => {
            let mut allowed = exchange.authorize(site, Need::Admin, &[]).await?;
            let bytes = allowed.bytes().await?;
            let body: ClientBody = super::body::decode(&bytes)?;
            let user = body.user.map(machine::UserId::from);
            let names_user = user.is_some();
            let put = Put {
                known: allowed.look(site, |site, _| site.client(id).is_some()).await?,
                create: AdminAction::CreateClient { id: id.into(), user: user.clone() },
                update: AdminAction::UpdateClient { id: id.into(), user },
            };
            let known = put.run(&allowed, site, &bytes).await.map_err(|problem| {
                if problem.code == Code::NotFound && names_user {
                    problem.field("user")
                } else {
                    problem
                }
            })?;
            answer_client(&allowed, site, id, known).await
        }
        Method::DELETE => delete(exchange, site, AdminAction::DeleteClient { id: id.into() }).await,
        _ => {
            let allowed = exchange.authorize(site, Need::ReadClient(id), &["consistency"]).await?;
            answer_client(&allowed, site, id, true).await
        }
    }
}

/// `/v1/sites/{site}/users/{id}`.
pub async fn user(exchange: Exchange<'_>, site: &str, id: &str) -> Result<Answer, Problem> {
    match *exchange.method() {
        Method::PUT => {
            let mut allowed = exchange.authorize(site, Need::Admin, &[]).await?;
            let bytes = allowed.bytes().await?;
            let body: UserBody = super::body::decode(&bytes)?;
            let roles: Vec<_> = body.roles.into_iter().map(machine::RoleName::from).collect();
            let put = Put {
                known: allowed.look(site, |site, _| site.user(id).is_some()).await?,
                create: AdminAction::CreateUser { id: id.into(), roles: roles.clone() },
                update: AdminAction::UpdateUser { id: id.into(), roles },
            };
            let known = put.run(&allowed, site, &bytes).await?;
            answer_user(&allowed, site, id, known).await
        }
        Method::DELETE => delete(exchange, site, AdminAction::DeleteUser { id: id.into() }).await,
        _ => {
            let allowed = exchange.authorize(site, Need::Read, &["consistency"]).await?;
            answer_user(&allowed, site, id, true).await
        }
    }
}

/// An account that is made or changed, whichever it takes.
struct Put {
    known: bool,
    create: AdminAction,
    update: AdminAction,
}

impl Put {
    /// Whether it was there before.
    async fn run(self, allowed: &Allowed<'_>, site: &str, body: &[u8]) -> Result<bool, Problem> {
        if !self.known {
            let request = allowed.request_id("create", body)?;
            match allowed.act(site, request, self.create).await {
                Ok(_) => return Ok(false),
                // Somebody else made it in between: then it is changed.
                Err(problem) if problem.code == Code::AlreadyExists => {}
                Err(problem) => return Err(problem),
            }
        }
        allowed.act(site, allowed.request_id("update", body)?, self.update).await?;
        Ok(true)
    }
}

async fn delete(
    exchange: Exchange<'_>,
    site: &str,
    action: AdminAction,
) -> Result<Answer, Problem> {
    let allowed = exchange.authorize(site, Need::Admin, &[]).await?;
    allowed.act(site, allowed.request_id("delete", b"")?, action).await?;
    Ok(Answer::no_content())
}

pub async fn answer_service(
    allowed: &Allowed<'_>,
    site: &str,
    id: &str,
    known: bool,
) -> Result<Answer, Problem> {
    let found = allowed.look(site, |site, _| {
        let mut service = service_out(site, site.service(id)?);
        service.declared = site.declared(id).map(|declared| translate::structure_to_wire(declared));
        Some((service, site.revision(&Object::Service(id.into()))))
    });
    let found =
        found.await?.map(|(service, revision)| put_answer(&service, known).tagged(revision));
    found.ok_or_else(|| not_found("service", id))
}

pub async fn answer_client(
    allowed: &Allowed<'_>,
    site: &str,
    id: &str,
    known: bool,
) -> Result<Answer, Problem> {
    let look = |site: &Site, _| {
        let client = client_out(site.client(id)?);
        Some((client, site.revision(&Object::Client(id.into()))))
    };
    let found = allowed.look(site, look).await?;
    let found = found.map(|(client, revision)| put_answer(&client, known).tagged(revision));
    found.ok_or_else(|| not_found("client", id))
}

async fn answer_user(
    allowed: &Allowed<'_>,
    site: &str,
    id: &str,
    known: bool,
) -> Result<Answer, Problem> {
    let look = |site: &Site, _| {
        let user = user_out(site.user(id)?);
        Some((user, site.revision(&Object::User(id.into()))))
    };
    let found = allowed.look(site, look).await?;
    let found = found.map(|(user, revision)| put_answer(&user, known).tagged(revision));
    found.ok_or_else(|| not_found("user", id))
}

fn put_answer(resource: &impl serde::Serialize, known: bool) -> Answer {
    if known { Answer::ok(resource) } else { Answer::created(resource) }
}

fn service_out(site: &Site, row: &machine::ServiceRow) -> resource::Service {
    resource::Service {
        id: row.id.to_string(),
        online: row.online(),
        epoch: row.epoch.0,
        parked: site.parked(row).map(translate::parked_code),
        declared: None,
        store: row.uid.map(|uid| convert::hex(&uid.0)),
        version: row.version.clone(),
        hostname: row.hostname.clone(),
    }
}

fn client_out(row: &machine::ClientRow) -> resource::Client {
    resource::Client {
        id: row.id.to_string(),
        user: row.user.as_ref().map(ToString::to_string),
        epoch: row.epoch.0,
    }
}

fn user_out(row: &machine::UserRow) -> resource::User {
    resource::User {
        id: row.id.to_string(),
        roles: row.roles.iter().map(ToString::to_string).collect(),
    }
}
