//! `ackord service …`, `ackord client …`, `ackord user …`, `ackord token …`.

use ackord_wire::resource::{ClientBody, Principal, SeekBody, TokenBody, UserBody};
use serde_json::{Value, json};

use super::site::{admin, site_path, value, with_rebuild};
use crate::admin::{Admin, segment};
use crate::args::{ClientCommand, Connect, ServiceCommand, TokenCommand, UserCommand};
use crate::exit::{Exit, Failure, Outcome, say};
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

    async fn list(&self, columns: &[&str]) -> Outcome {
        output::list(self.format, &self.admin.list(&self.all()).await?, columns)?;
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

    async fn token(&self, principal: Principal) -> Outcome {
        let path = format!("{}/tokens", site_path(&self.site));
        let body = value(&TokenBody { principal, expires_in_s: None, note: String::new() })?;
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

/// Runs `ackord service …`.
pub async fn service(command: ServiceCommand, format: Format) -> Outcome {
    let of = |connect: &Connect| Accounts::new(connect, "services", format);
    match command {
        ServiceCommand::Create { id, connect } => of(&connect)?.put(&id, &json!({})).await,
        ServiceCommand::List { connect } => {
            of(&connect)?.list(&["id", "online", "parked", "version", "hostname"]).await
        }
        ServiceCommand::Show { id, connect } => of(&connect)?.show(&id).await,
        ServiceCommand::Delete { id, connect } => of(&connect)?.delete(&id).await,
        ServiceCommand::Token { id, connect } => of(&connect)?.token(Principal::Service(id)).await,
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
        ClientCommand::List { connect } => of(&connect)?.list(&["id", "user", "epoch"]).await,
        ClientCommand::Show { id, connect } => of(&connect)?.show(&id).await,
        ClientCommand::Delete { id, connect } => of(&connect)?.delete(&id).await,
        ClientCommand::Token { id, connect } => of(&connect)?.token(Principal::Client(id)).await,
        ClientCommand::Subscriptions { id, connect } => {
            let accounts = of(&connect)?;
            let path = format!("{}/subscriptions", accounts.one(&id));
            let mut items = accounts.admin.list(&path).await?;
            if format == Format::Text {
                // The table shows the position's id under its own name.
                for item in &mut items {
                    item["cursor"] = item["position"]["instance_id"].clone();
                }
            }
            output::list(format, &items, &["event", "category", "cursor", "granted"])?;
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
        UserCommand::List { connect } => of(&connect)?.list(&["id", "roles"]).await,
        UserCommand::Show { id, connect } => of(&connect)?.show(&id).await,
        UserCommand::Delete { id, connect } => of(&connect)?.delete(&id).await,
    }
}

/// Runs `ackord token …`.
pub async fn token(command: TokenCommand, format: Format) -> Outcome {
    let of = |connect: &Connect| Accounts::new(connect, "tokens", format);
    match command {
        TokenCommand::Create { admin: _, observer, connect } => {
            let principal = if observer { Principal::Observer } else { Principal::Admin };
            of(&connect)?.token(principal).await
        }
        TokenCommand::List { connect } => of(&connect)?.list(&["id", "principal"]).await,
        TokenCommand::Delete { id, connect } => of(&connect)?.delete(&id).await,
    }
}
