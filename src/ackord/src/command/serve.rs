//! `ackord serve`: a broker as its configuration says, until SIGINT or SIGTERM.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::args::Serve;
use crate::broker::{Parts, Running};
use crate::config::{AdminToken, Config, EXAMPLE};
use crate::data::DataDir;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::interrupt::Interrupt;
use crate::listen::{self, Wanted};
use crate::output::{self, Format};
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

/// Judges the configuration; `None` when there is nothing to run.
pub fn prepare(arguments: &Serve, format: Format) -> Result<Option<Config>, Failure> {
    if arguments.example {
        let written = match format {
            Format::Json => output::json(&json!({"example": EXAMPLE})),
            Format::Text => output::line(EXAMPLE.trim_end()),
        };
        written.map_err(|error| output::closed(&error))?;
        return Ok(None);
    }
    let Some(file) = &arguments.config else {
        return Err(Failure::usage("--config FILE is needed"));
    };
    let mut config = Config::load(file, &arguments.limits.limits)?;
    if let Some(version) = arguments.compat_version {
        let Some(cluster) = &mut config.cluster else {
            return Err(Failure::usage("--compat-version is for a node of a cluster")
                .hint("the configuration has no [cluster]"));
        };
        cluster.set_compat_version(version);
    }
    if arguments.check {
        output::object(format, &json!({"valid": true, "config": file}))?;
        return Ok(None);
    }
    Ok(Some(config))
}

/// Runs the broker.
pub async fn run(config: Config, format: Format) -> Outcome {
    let mut interrupt = Interrupt::catch()?;
    let data = DataDir::open(&config.data)?;
    let (admin_hash, generated) = admin(&config.admin_token, &data)?;
    let listener = listen::bind(Wanted::Exactly(config.listen))?;
    let node = data.node();
    let (deployment, cluster) = (&config.deployment, config.cluster);
    let parts = Parts { dir: &node, deployment, listener, cluster, admin_hash };
    let running = tokio::select! {
        running = Running::start(parts) => running?,
        () = interrupt.wait() => return Ok(Exit::Done),
    };
    if let Some(token) = &generated {
        say(format_args!("administrator's token, shown only this once: {token}"));
        // Remembered only once it was shown: a start that failed before makes another.
        let kept = Kept { version: 1, admin_hash: Some(token::to_hex(&admin_hash)) };
        data.write(FILE, &kept)?;
    }
    let printed = match format {
        Format::Json => {
            let mut ready = json!({"urls": running.urls(), "pids": [std::process::id()]});
            if let Some(token) = &generated {
                ready["admin_token"] = json!(token);
            }
            output::json(&ready)
        }
        Format::Text => {
            say(format_args!("ready at {}", running.urls().join(" ")));
            Ok(())
        }
    };
    if printed.is_ok() {
        interrupt.wait().await;
    }
    running.stop().await;
    printed.map_err(|error| output::closed(&error))?;
    Ok(Exit::Done)
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
