//! `ackord dead-letter …`: what subscriptions gave up, to be looked at and raised again.

use ackord_wire::letter::DeadLetterChange;
use ackord_wire::payload::Data;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::account::{filters, most};
use super::site::{admin, site_path, value};
use crate::args::{
    Connect, DeadLetterArgs, DeadLetterCommand, DeadLetterEdit, DeadLetterFilter, DeadLetterReplay,
    LetterStateArg,
};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::moment::rfc3339;
use crate::output::{self, Format};

/// The largest file with arguments, bytes: no deployment takes more.
const FILE_BYTES_MAX: u64 = 65_536;

/// Runs the command.
pub async fn run(command: DeadLetterCommand, format: Format) -> Outcome {
    match command {
        DeadLetterCommand::List { of, state, limit, connect } => {
            let state = state.map(|state| match state {
                LetterStateArg::Waiting => "waiting",
                LetterStateArg::Replayed => "replayed",
            });
            let found = list(&connect, &of, state, limit).await?;
            print(format, found)?;
        }
        DeadLetterCommand::Show(of) => {
            let found = admin(&of.connect)?.get(&of.path()?).await?;
            output::object(format, &found)?;
        }
        DeadLetterCommand::Edit(edit) => {
            let path = path(&edit.connect, edit.id)?;
            let admin = admin(&edit.connect)?;
            let changed = admin.patch(&path, &value(&change(edit)?)?).await?;
            output::object(format, &changed)?;
        }
        DeadLetterCommand::Replay(replay) => return self::replay(replay, format).await,
        DeadLetterCommand::Delete(of) => {
            admin(&of.connect)?.delete(&of.path()?).await?;
            output::object(format, &json!({"id": of.id, "deleted": true}))?;
        }
    }
    Ok(Exit::Done)
}

/// Raises one again, or all that wait, each by itself: what is refused is told, the others go on.
async fn replay(replay: DeadLetterReplay, format: Format) -> Outcome {
    let DeadLetterReplay { id, of, connect, .. } = replay;
    let admin = admin(&connect)?;
    let Some(id) = id else {
        let mut replayed = Vec::new();
        let mut refused = false;
        for letter in list(&connect, &of, Some("waiting"), None).await? {
            let Some(id) = letter["id"].as_u64() else { continue };
            match admin.post(&format!("{}/replay", path(&connect, id)?), &json!({})).await {
                Ok(letter) => replayed.push(letter),
                Err(error) => {
                    refused = true;
                    let failure = Failure::from(error);
                    say(format_args!("dead letter {id}: {failure}"));
                }
            }
        }
        print(format, replayed)?;
        return Ok(if refused { Exit::EventRefused } else { Exit::Done });
    };
    let letter = admin.post(&format!("{}/replay", path(&connect, id)?), &json!({})).await?;
    output::object(format, &letter)?;
    Ok(Exit::Done)
}

async fn list(
    connect: &Connect,
    of: &DeadLetterFilter,
    state: Option<&str>,
    limit: Option<u32>,
) -> Result<Vec<Value>, Failure> {
    let narrowed = filters(&[
        ("client", of.client.as_deref()),
        ("push", of.push.as_deref()),
        ("event", of.event.as_deref()),
        ("state", state),
    ]);
    let path = format!("{}/dead-letters", site_path(&connect.site()?));
    Ok(admin(connect)?.list_where(&path, &narrowed, most(limit)).await?)
}

impl DeadLetterArgs {
    fn path(&self) -> Result<String, Failure> {
        path(&self.connect, self.id)
    }
}

fn path(connect: &Connect, id: u64) -> Result<String, Failure> {
    Ok(format!("{}/dead-letters/{id}", site_path(&connect.site()?)))
}

fn change(edit: DeadLetterEdit) -> Result<DeadLetterChange, Failure> {
    let usage = |why: String| Failure::new(Exit::Usage, why);
    let args = edit.args.map(RawValue::from_string).transpose();
    let args = args.map_err(|error| usage(format!("--args is not JSON: {error}")))?;
    let data = match &edit.file {
        None => None,
        Some(file) => {
            let unreadable = |why: String| usage(format!("{}: {why}", file.display()));
            let size =
                std::fs::metadata(file).map_err(|error| unreadable(error.to_string()))?.len();
            if size > FILE_BYTES_MAX {
                return Err(unreadable(format!("at most {FILE_BYTES_MAX} bytes, was {size}")));
            }
            let bytes = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
            Some(Data(bytes.into()))
        }
    };
    Ok(DeadLetterChange { note: edit.note, args, data, content_type: edit.content_type })
}

fn print(format: Format, mut items: Vec<Value>) -> Result<(), Failure> {
    if format == Format::Text {
        for item in &mut items {
            item["of"] = match (&item["client"], &item["push"]) {
                (Value::String(client), _) => json!(client),
                (_, Value::String(push)) => json!(format!("push {push}")),
                (_, _) => Value::Null,
            };
            item["given_up"] = json!(item["given_up_ms"].as_u64().map(rfc3339));
        }
    }
    let columns = [
        "id",
        "state",
        "event",
        "of",
        "instance_id",
        "original_id",
        "attempts",
        "because",
        "given_up",
        "replayed_id",
        "note",
    ];
    output::list(format, &items, &columns)
}
