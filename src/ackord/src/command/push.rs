//! `ackord push …`: callbacks and sockets that events are carried to.

use std::path::Path;
use std::time::Duration;

use ackord_wire::frame::Start;
use ackord_wire::push::{PushBody, PushFormat, PushMode, PushOverflow, UdpTarget};
use serde_json::{Value, json};

use super::account::{filters, most};
use super::site::{admin, site_path, value};
use crate::admin::segment;
use crate::args::{
    Connect, PushArgs, PushCommand, PushCreate, PushFormatArg, PushModeArg, PushOverflowArg,
};
use crate::exit::{Exit, Failure, Outcome};
use crate::moment::rfc3339;
use crate::output::{self, Format};

/// The largest file with a secret, bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// Runs the command.
pub async fn run(command: PushCommand, format: Format) -> Outcome {
    match command {
        PushCommand::Create(create) => {
            let path = path(&create.connect, &create.id)?;
            let admin = admin(&create.connect)?;
            let made = admin.put(&path, &value(&body(*create)?)?).await?;
            output::object(format, &made)?;
        }
        PushCommand::List { client, listing, connect } => {
            let (admin, site) = (admin(&connect)?, connect.site()?);
            let narrowed =
                filters(&[("client", client.as_deref()), ("prefix", listing.prefix.as_deref())]);
            let path = format!("{}/pushes", site_path(&site));
            print(format, admin.list_where(&path, &narrowed, most(listing.limit)).await?)?;
        }
        PushCommand::Show(of) => {
            let found = admin(&of.connect)?.get(&of.path()?).await?;
            output::object(format, &found)?;
        }
        PushCommand::Delete(of) => {
            admin(&of.connect)?.delete(&of.path()?).await?;
            output::object(format, &json!({"id": of.id, "deleted": true}))?;
        }
        PushCommand::Resume(of) => {
            let path = format!("{}/resume", of.path()?);
            let resumed = admin(&of.connect)?.post(&path, &json!({})).await?;
            output::object(format, &resumed)?;
        }
    }
    Ok(Exit::Done)
}

impl PushArgs {
    fn path(&self) -> Result<String, Failure> {
        path(&self.connect, &self.id)
    }
}

fn path(connect: &Connect, id: &str) -> Result<String, Failure> {
    Ok(format!("{}/pushes/{}", site_path(&connect.site()?), segment(id)))
}

fn body(create: PushCreate) -> Result<PushBody, Failure> {
    let PushCreate { ttl, interface, packet, .. } = create;
    Ok(PushBody {
        client: create.client,
        event: create.event,
        url: create.to,
        udp: create.udp.map(|address| UdpTarget {
            address,
            ttl,
            interface,
            packet_bytes_max: packet,
        }),
        mode: create.mode.map(|mode| match mode {
            PushModeArg::Ordered => PushMode::Ordered,
            PushModeArg::Twoway => PushMode::Twoway,
            PushModeArg::Oneway => PushMode::Oneway,
            PushModeArg::Batch => PushMode::Batch,
            PushModeArg::Datagram => PushMode::Datagram,
        }),
        window: create.window,
        flush_ms: create.flush.map(millis),
        dead_letter: create.dead_letter,
        start: if create.latest { Start::Latest } else { Start::Earliest },
        send_timeout_ms: create.timeout.map(millis),
        retry_count: create.retries,
        discard_interval_ms: create.offline.map(millis),
        durable: !create.discard,
        queue_max: create.queue,
        on_overflow: match create.on_overflow {
            PushOverflowArg::Remove => PushOverflow::Remove,
            PushOverflowArg::DropOldest => PushOverflow::DropOldest,
        },
        max_attempts: create.attempts,
        format: match create.format {
            PushFormatArg::Ackord => PushFormat::Ackord,
            PushFormatArg::Cloudevents => PushFormat::CloudEvents,
        },
        secret: create.secret_file.as_deref().map(secret).transpose()?,
        paused: create.paused,
    })
}

/// What no `u32` holds the broker would refuse as well.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn secret(file: &Path) -> Result<String, Failure> {
    let unreadable = |why: String| Failure::new(Exit::Usage, format!("{}: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| unreadable(error.to_string()))?.len();
    if size > SECRET_BYTES_MAX {
        return Err(unreadable(format!("at most {SECRET_BYTES_MAX} bytes, was {size}")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    Ok(text.trim().to_owned())
}

fn print(format: Format, mut items: Vec<Value>) -> Result<(), Failure> {
    if format == Format::Text {
        for item in &mut items {
            item["cursor"] = item["position"]["instance_id"].clone();
            if let Some(least) = item["queued_at_least"].as_u64() {
                item["queued"] = json!(format!("{least}+"));
            }
            item["to"] = item.get("url").unwrap_or(&item["udp"]["address"]).clone();
            item["until"] = json!(item["until_ms"].as_u64().map(rfc3339));
        }
    }
    let columns = [
        "id",
        "client",
        "event",
        "mode",
        "to",
        "state",
        "because",
        "until",
        "cursor",
        "queued",
        "delivered",
        "failed",
        "dropped",
    ];
    output::list(format, &items, &columns)
}
