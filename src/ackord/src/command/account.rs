//! `ackord service …`, `ackord client …`, `ackord user …`, `ackord token …`.
//!
//! Lists are fetched page by page; filters are judged by the broker.

use ackord_wire::resource::{ClientBody, Principal, SeekBody, TokenBody, UserBody};
use serde_json::{Value, json};

use super::site::{admin, site_path, value, with_rebuild};
use super::subscription::{self, kick};
use crate::admin::{Admin, segment};
use crate::args::{
    ClientCommand, Connect, Listing, ServiceCommand, TokenCommand, TokenLife, UserCommand,
};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::moment::rfc3339;
use crate::output::{self, Format};

/// One kind of account of one site.
struct Accounts {
    admin: Admin,
    site: String,
    kind: &'static str,
    format: Format,
}

impl Accounts {
    fn new(connect: &Connect, kind: &'static str, format: Format) -> Result<Self, Failure> {
        Ok(Self { admin: admin(connect)?, site: connect.site()?, kind, format })
    }

    fn all(&self) -> String {
        format!("{}/{}", site_path(&self.site), self.kind)
    }

    fn one(&self, id: &str) -> String {
        format!("{}/{}", self.all(), segment(id))
    }

    async fn put(&self, id: &str, body: &Value) -> Outcome {
        let answer = self.admin.put(&self.one(id), body).await?;
        let answer = if answer.is_null() { json!({"id": id}) } else { answer };
        output::object(self.format, &answer)?;
        Ok(Exit::Done)
    }

    async fn list(
        &self,
        columns: &[&str],
        listing: &Listing,
        more: &[(&str, Option<&str>)],
    ) -> Outcome {
        let mut narrowed = filters(more);
        narrowed.extend(filters(&[("prefix", listing.prefix.as_deref())]));
        let all = self.all();
        let mut items = self.admin.list_where(&all, &narrowed, most(listing.limit)).await?;
        if self.format == Format::Text {
            items.iter_mut().for_each(for_people);
        }
        output::list(self.format, &items, columns)?;
        Ok(Exit::Done)
    }

    async fn show(&self, id: &str) -> Outcome {
        output::object(self.format, &self.admin.get(&self.one(id)).await?)?;
        Ok(Exit::Done)
    }

    async fn delete(&self, id: &str) -> Outcome {
        self.admin.delete(&self.one(id)).await?;
        output::object(self.format, &json!({"deleted": id}))?;
        Ok(Exit::Done)
    }

    async fn token(&self, principal: Principal, life: TokenLife) -> Outcome {
        let path = format!("{}/tokens", site_path(&self.site));
        // Rounded up: a token is never good for less than was asked for.
        let seconds = |life: std::time::Duration| {
            u64::try_from(life.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
        };
        let (expires_in_s, note) = (life.expires.map(seconds), life.note.unwrap_or_default());
        let body = value(&TokenBody { principal, expires_in_s, note })?;
        let made = self.admin.post(&path, &body).await?;
        match (self.format, made.get("token").and_then(Value::as_str)) {
            (Format::Text, Some(token)) => {
                output::line(token).map_err(|error| output::closed(&error))?;
                say("this is the only time the token is shown");
            }
            (Format::Text, None) | (Format::Json, _) => output::object(self.format, &made)?,
        }
        Ok(Exit::Done)
    }
}

/// Those parameters that are given.
pub fn filters<'a>(all: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, &'a str)> {
    all.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect()
}

/// How many items of a list are wanted.
pub fn most(limit: Option<u32>) -> usize {
    limit.map_or(usize::MAX, |limit| limit as usize)
}

/// Writes what only programs read the way people do: principals and moments.
fn for_people(item: &mut Value) {
    let principal = match &item["principal"] {
        Value::Object(of) => {
            of.iter().next().map(|(kind, id)| format!("{kind}:{}", id.as_str().unwrap_or_default()))
        }
        _ => None,
    };
    if let Some(principal) = principal {
        item["principal"] = json!(principal);
    }
    for (from, to) in [("created_ms", "created"), ("expires_ms", "expires")] {
        if let Some(at) = item[from].as_u64() {
            item[to] = json!(rfc3339(at));
        }
    }
}

/// Runs `ackord service …`.
pub async fn service(command: ServiceCommand, format: Format) -> Outcome {
    let of = |connect: &Connect| Accounts::new(connect, "services", format);
    match command {
        ServiceCommand::Create { id, connect } => of(&connect)?.put(&id, &json!({})).await,
        ServiceCommand::List { online, listing, connect } => {
            let online = online.map(|online| online.to_string());
            let columns = ["id", "online", "parked", "version", "hostname"];
            of(&connect)?.list(&columns, &listing, &[("online", online.as_deref())]).await
        }
        ServiceCommand::Show { id, connect } => of(&connect)?.show(&id).await,
        ServiceCommand::Delete { id, connect } => of(&connect)?.delete(&id).await,
        ServiceCommand::Token { id, life, connect } => {
            of(&connect)?.token(Principal::Service(id), life).await
        }
        ServiceCommand::Kick { id, connect } => {
            kick(&connect, "services", &id, format).await?;
            Ok(Exit::Done)
        }
        ServiceCommand::ApplyDeclared { id, rebuild, connect } => {
            let accounts = of(&connect)?;
            let path = format!("{}/apply-declared", accounts.one(&id));
            let answer = accounts.admin.post(&with_rebuild(path, rebuild), &json!({})).await?;
            let answer = if answer.is_null() { json!({"applied": id}) } else { answer };
            output::object(format, &answer)?;
            Ok(Exit::Done)
        }
    }
}

/// Runs `ackord client …`.
pub async fn client(command: ClientCommand, format: Format) -> Outcome {
    let of = |connect: &Connect| Accounts::new(connect, "clients", format);
    match command {
        ClientCommand::Create { id, user, connect } => {
            of(&connect)?.put(&id, &value(&ClientBody { user })?).await
        }
        ClientCommand::List { listing, connect } => {
            of(&connect)?.list(&["id", "user", "epoch"], &listing, &[]).await
        }
        ClientCommand::Show { id, connect } => of(&connect)?.show(&id).await,
        ClientCommand::Delete { id, connect } => of(&connect)?.delete(&id).await,
        ClientCommand::Token { id, life, connect } => {
            of(&connect)?.token(Principal::Client(id), life).await
        }
        ClientCommand::Kick { id, connect } => {
            kick(&connect, "clients", &id, format).await?;
            Ok(Exit::Done)
        }
        ClientCommand::Subscriptions { id, connect } => {
            let accounts = of(&connect)?;
            let path = format!("{}/subscriptions", accounts.one(&id));
            subscription::print(format, accounts.admin.list(&path).await?)?;
            Ok(Exit::Done)
        }
        ClientCommand::Seek { id, event, after, connect } => {
            let accounts = of(&connect)?;
            let path = format!("{}/subscriptions/{}/seek", accounts.one(&id), segment(&event));
            let answer = accounts.admin.post(&path, &value(&SeekBody { after })?).await?;
            let answer =
                if answer.is_null() { json!({"event": event, "after": after}) } else { answer };
            output::object(format, &answer)?;
            Ok(Exit::Done)
        }
    }
}

/// Runs `ackord user …`.
pub async fn user(command: UserCommand, format: Format) -> Outcome {
    let of = |connect: &Connect| Accounts::new(connect, "users", format);
    match command {
        UserCommand::Create { id, roles, connect } => {
            of(&connect)?.put(&id, &value(&UserBody { roles })?).await
        }
        UserCommand::List { role, listing, connect } => {
            of(&connect)?.list(&["id", "roles"], &listing, &[("role", role.as_deref())]).await
        }
        UserCommand::Show { id, connect } => of(&connect)?.show(&id).await,
        UserCommand::Delete { id, connect } => of(&connect)?.delete(&id).await,
    }
}

/// Runs `ackord token …`.
pub async fn token(command: TokenCommand, format: Format) -> Outcome {
    let of = |connect: &Connect| Accounts::new(connect, "tokens", format);
    match command {
        TokenCommand::Create { admin, operator, observer: _, life, connect } => {
            let principal = match (admin, operator) {
                (true, _) => Principal::Admin,
                (false, true) => Principal::Operator,
                (false, false) => Principal::Observer,
            };
            of(&connect)?.token(principal, life).await
        }
        TokenCommand::List { principal, listing, connect } => {
            let columns = ["id", "principal", "created", "expires", "note"];
            let filter = [("principal", principal.as_deref())];
            of(&connect)?.list(&columns, &listing, &filter).await
        }
        TokenCommand::Revoke { id, connect } => of(&connect)?.delete(&id).await,
    }
}
