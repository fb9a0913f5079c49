//! `ackord serve`: a broker as its configuration says, until SIGINT or SIGTERM.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use ackord_gateway::{Face, Listener, Reload};
use ackord_replica::PeerOptions;
use ackord_wire::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::kubernetes::{LEFT_FILE, Left};
use crate::args::Serve;
use crate::broker::{Parts, Running};
use crate::config::{AdminToken, Config, Sources, document};
use crate::data::DataDir;
use crate::exit::{Exit, Failure, Outcome, say, say_lines};
use crate::interrupt::Interrupt;
use crate::listen::{self, Wanted};
use crate::logging::{self, Level, Lines, Logging};
use crate::output::{self, Format};
use crate::reload::Reloader;
use crate::token;

/// The file with what the broker must remember beside the node's data.
const FILE: &str = "serve.json";

/// What the data directory remembers.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// SHA-256 of the generated administrator's token, hex. The token itself is kept nowhere.
    admin_hash: Option<String>,
}

/// Judges the configuration; `None` when there is nothing to run. `log` and `lines` are what `--log` and
/// `--log-format` say.
pub fn prepare(
    arguments: &Serve,
    (log, lines): (Option<&String>, Option<Lines>),
    format: Format,
) -> Result<Option<(Sources, Config)>, Failure> {
    if arguments.example {
        let written = match format {
            Format::Json => output::json(&json!({"example": document::example()})),
            Format::Text => output::page(document::example().trim_end()),
        };
        written.map_err(|error| output::closed(&error))?;
        return Ok(None);
    }
    let compat = arguments.compat_version.map(|version| version.to_string());
    let lines = lines.map(|lines| lines.name().to_owned());
    let flags = [("cluster.compat_version", compat), ("log", log.cloned()), ("log_format", lines)];
    let sources = Sources {
        file: arguments.config.clone(),
        environment: Sources::variables(),
        sets: arguments.limits.sets.clone(),
        limits: arguments.limits.limits.clone(),
        flags: flags.into_iter().filter_map(|(path, value)| Some((path, value?))).collect(),
    };
    // What is wrong with the configuration is said in the format that it asks for.
    let gathered = sources.gather();
    logging::speak(Lines::named(&gathered.settings.log_format));
    let config = Config::judged(gathered)?;
    if arguments.compat_version.is_some() && config.cluster.is_none() {
        return Err(Failure::usage("--compat-version is for a node of a cluster")
            .hint("the configuration has no `cluster.listen`"));
    }
    if arguments.check {
        output::object(format, &json!({"valid": true, "config": arguments.config}))?;
        return Ok(None);
    }
    Ok(Some((sources, config)))
}

/// Runs the broker.
pub async fn run(sources: Sources, config: Config, logging: Logging, format: Format) -> Outcome {
    let mut interrupt = Interrupt::catch()?;
    // From now on it ends nothing.
    let hangup = signal(SignalKind::hangup()).map_err(|error| {
        Failure::new(Exit::Configuration, format!("signals cannot be caught: {error}"))
    })?;
    let Some(dir) = &config.settings.data else {
        return Err(Failure::configuration("data: must be given"));
    };
    let data = DataDir::open(dir)?;
    begin_anew(&data, config.cluster.as_ref())?;
    let (admin_hash, generated) = admin(&config.admin_token, &data)?;
    let listeners = listeners(&config)?;
    let node = data.node();
    let (settings, cluster) = (&config.settings, config.cluster.clone());
    let issuers = config.issuers.clone();
    let parts = Parts { dir: &node, settings, listeners, issuers, cluster, admin_hash };
    let running = tokio::select! {
        running = Running::start(parts) => running?,
        () = interrupt.wait() => return Ok(Exit::Done),
    };
    logging::node(running.handles().1.id());
    if let Some(token) = &generated {
        show_token(token, format)?;
        // Remembered only once it was shown: a start that failed before makes another.
        let kept = Kept { version: 1, admin_hash: Some(token::to_hex(&admin_hash)) };
        data.write(FILE, &kept)?;
    }
    let handles = running.handles();
    let reloader = Arc::new(Reloader::new(sources, config, admin_hash, logging, handles.clone()));
    handles.0.on_reload(answering(Arc::downgrade(&reloader)));
    let following = tokio::spawn(reload_on(hangup, reloader));
    let printed = match format {
        Format::Json => {
            if logging::is_json() {
                say_ready(running.urls());
            }
            let mut ready = json!({"urls": running.urls(), "pids": [std::process::id()]});
            if !running.admin_urls().is_empty() {
                ready["admin_urls"] = json!(running.admin_urls());
            }
            if let Some(token) = &generated {
                ready["admin_token"] = json!(token);
            }
            output::json(&ready)
        }
        Format::Text => {
            say_ready(running.urls());
            Ok(())
        }
    };
    if printed.is_ok() {
        interrupt.wait().await;
    }
    following.abort();
    if logging::is_json() {
        logging::line(Level::Info, "stopping", json!({}));
    }
    running.stop().await;
    if logging::is_json() {
        logging::line(Level::Info, "stopped", json!({}));
    }
    printed.map_err(|error| output::closed(&error))?;
    Ok(Exit::Done)
}

/// Shows the token that was made, this once. It is in no log: where standard error is one for programs,
/// it goes to standard output, as it does with `--json`.
fn show_token(token: &str, format: Format) -> Result<(), Failure> {
    let text = format!("administrator's token, shown only this once: {token}");
    match (logging::is_json(), format) {
        (false, _) => say(text),
        (true, Format::Text) => output::line(&text).map_err(|error| output::closed(&error))?,
        (true, Format::Json) => {}
    }
    Ok(())
}

fn say_ready(urls: &[String]) {
    if logging::is_json() {
        logging::line(Level::Info, "ready", json!({"urls": urls}));
    } else {
        say(format_args!("ready at {}", urls.join(" ")));
    }
}

/// Clears what a node left behind that has left its cluster: nobody needs it any more, and under its
/// old number nobody would talk to it.
fn begin_anew(data: &DataDir, cluster: Option<&PeerOptions>) -> Result<(), Failure> {
    let Some(Left { cluster: of, node }) = data.read(LEFT_FILE)? else { return Ok(()) };
    if cluster.is_none_or(|cluster| cluster.join.is_empty()) {
        return Err(Failure::configuration(format!(
            "the data is that of node {node}, which has left cluster {of}"
        ))
        .hint("with cluster.join it begins anew; an empty data directory does without"));
    }
    say(format_args!("node {node} has left its cluster: its data is cleared, it joins anew"));
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Disk, format!("cannot clear {}: {error}", data.node().display()))
    };
    match std::fs::remove_dir_all(data.node()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    // Last: what is cleared half is cleared again.
    std::fs::remove_file(data.path().join(LEFT_FILE)).map_err(failed)
}

/// A reload as HTTP answers it.
fn answering(reloader: Weak<Reloader>) -> Reload {
    Arc::new(move || {
        let Some(reloader) = reloader.upgrade() else {
            return Err(Problem::new(Code::ShuttingDown, "the node is shutting down"));
        };
        let invalid =
            |failure: Failure| Problem::new(Code::Invalid, failure.message.replace('\n', "; "));
        reloader.reload().map_err(invalid)
    })
}

/// Reloads at every signal.
async fn reload_on(mut hangup: Signal, reloader: Arc<Reloader>) {
    while hangup.recv().await.is_some() {
        let reloader = reloader.clone();
        let reloaded = tokio::task::spawn_blocking(move || reloader.reload()).await;
        match reloaded {
            Ok(Ok(reloaded)) => say(format_args!(
                "configuration read again: applied {:?}, at the next start {:?}",
                reloaded.applied, reloaded.restart
            )),
            Ok(Err(failure)) => say_lines(format_args!("nothing is changed: {failure}")),
            // A panic in there is reported by the panic hook.
            Err(_) => {}
        }
    }
}

/// The sockets of the configuration, bound.
fn listeners(config: &Config) -> Result<Vec<Listener>, Failure> {
    let settings = &config.settings;
    let bind = |addresses: &[SocketAddr], face: Face, plain: bool| {
        let tls = config.tls.clone().filter(|_| !plain);
        let bound = addresses.iter().map(|address| {
            let socket = listen::bind(Wanted::Exactly(*address))?;
            Ok(Listener { socket, face, tls: tls.clone() })
        });
        bound.collect::<Result<Vec<_>, Failure>>()
    };
    let face = if settings.admin_listen.is_empty() { Face::Whole } else { Face::Endpoints };
    let mut listeners = bind(&settings.listen, face, settings.listen_plain)?;
    listeners.extend(bind(&settings.admin_listen, Face::Whole, settings.admin_listen_plain)?);
    Ok(listeners)
}

/// The hash to compare with, and the token where it was just made.
fn admin(wanted: &AdminToken, data: &DataDir) -> Result<([u8; 32], Option<String>), Failure> {
    match wanted {
        AdminToken::Given(token) => Ok((token::hash(token), None)),
        AdminToken::Generated => {
            let kept = data.read::<Kept>(FILE)?.unwrap_or_default();
            match kept.admin_hash {
                Some(hex) => {
                    let hash = token::from_hex(&hex).ok_or_else(|| {
                        Failure::configuration(format!("{FILE}: admin_hash is no hash"))
                    })?;
                    Ok((hash, None))
                }
                None => {
                    let token = token::generate();
                    Ok((token::hash(&token), Some(token)))
                }
            }
        }
    }
}
