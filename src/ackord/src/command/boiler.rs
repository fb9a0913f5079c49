//! `ackord demo boiler`: a boiler raises, a wall panel and a phone follow; any of them may die.
//!
//! `service ─▶ reading (queueing), state (replacing), notice (private) ─▶ panel, phone`
//!
//! Every part is a process of its own with its own store in DIR: the service at SPL-2, the panel
//! and the phone at CPL-2. A part that dies is started again and goes on where it was; so does the
//! whole demonstration after Ctrl-C. What the parts do is in [`super::boiler_parts`].

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::boiler_parts;
use super::dev::{Ready, program};
use super::site::site_path;
use crate::admin::Admin;
use crate::args::{Boiler, Role};
use crate::child::{self, Process};
use crate::connect;
use crate::data;
use crate::exit::{Exit, Failure, Outcome, say, say_lines};
use crate::interrupt::Interrupt;
use crate::output::Format;

/// The demonstration's site.
const SITE: &str = "boiler";
/// The file with the address and the tokens.
const FILE: &str = "boiler.json";
/// How often the parts are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a part that died stays away.
const PAUSE: Duration = Duration::from_secs(1);

/// What DIR remembers about the site.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Addresses of the broker.
    pub urls: Vec<String>,
    /// The site.
    pub site: String,
    /// Tokens by role.
    pub service_token: String,
    /// The panel's.
    pub panel_token: String,
    /// The phone's.
    pub phone_token: String,
}

/// Runs the command.
pub async fn run(arguments: Boiler, format: Format) -> Outcome {
    let dir = match &arguments.data {
        Some(dir) => dir.clone(),
        None => default_dir()?,
    };
    std::fs::create_dir_all(&dir)
        .map_err(|error| Failure::new(Exit::Disk, format!("{}: {error}", dir.display())))?;
    match arguments.role {
        Some(role) => {
            let kept = kept(&arguments, &dir).await?;
            boiler_parts::run(role, &kept, &dir, &arguments, format).await
        }
        None => all(arguments, &dir).await,
    }
}

/// Runs every part, and a broker when none is given, until a signal or until all are done.
async fn all(arguments: Boiler, dir: &Path) -> Outcome {
    let mut interrupt = Interrupt::catch()?;
    let _lock = data::DataDir::open(dir)?;
    let mut broker = None;
    let kept = if connect::given(&arguments.urls).is_empty() {
        let data = dir.join("broker");
        let started = tokio::task::spawn_blocking(move || Process::broker(&data, &[])).await;
        let (process, ready) =
            started.map_err(|error| Failure::new(Exit::Disk, error.to_string()))??;
        say(format_args!("a broker runs at {} (pid {})", ready.urls.join(" "), process.id()));
        broker = Some(process);
        own_site(ready, dir).await?
    } else {
        kept(&arguments, dir).await?
    };
    data::write(&dir.join(FILE), &kept)?;
    let until = arguments.readings.map(|n| boiler_parts::count(dir).map(|done| done + n));
    let until = until.transpose()?;
    let mut parts = Vec::new();
    for role in [Role::Panel, Role::Phone, Role::Service] {
        parts.push(Part::start(role, &arguments, dir, until)?);
    }
    say_lines(format_args!(
        "kill any of them, for instance `kill -9 {}`: it comes back and goes on where it was\n\
         everything is kept in {}; `{} demo boiler` goes on there\n",
        parts[0].pid(),
        dir.display(),
        program(),
    ));
    let end = loop {
        tokio::select! {
            () = interrupt.wait() => break Exit::Interrupted,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        for part in &mut parts {
            part.look(&arguments, dir, until)?;
        }
        if parts.iter().all(|part| part.done) {
            break Exit::Done;
        }
    };
    let stop = move || {
        parts.iter().filter_map(|part| part.process.as_ref()).for_each(Process::interrupt);
        for process in parts.iter_mut().filter_map(|part| part.process.as_mut()) {
            process.stop();
        }
        // The broker goes last: the parts' last acknowledgements need it.
        if let Some(broker) = &mut broker {
            broker.stop();
        }
    };
    let _ = tokio::task::spawn_blocking(stop).await;
    Ok(end)
}

/// One part as a child process.
struct Part {
    role: Role,
    process: Option<Process>,
    again_at: Option<tokio::time::Instant>,
    done: bool,
}

impl Part {
    fn start(
        role: Role,
        arguments: &Boiler,
        dir: &Path,
        until: Option<u64>,
    ) -> Result<Self, Failure> {
        let every = format!("{}ms", arguments.every.as_millis());
        let mut command = child::command(&["demo", "boiler", "--role", role.name()])?;
        command.args(["--while-stdin", "--every", &every, "--data"]).arg(dir);
        if let Some(until) = until {
            command.args(["--until", &until.to_string()]);
        }
        // Seen in the arguments of this process, which the parts must follow.
        if std::env::args().any(|argument| argument == "--json") {
            command.arg("--json");
        }
        let process = Process::spawn(command.stdin(Stdio::piped()))?;
        say(format_args!("{} started (pid {})", role.name(), process.id()));
        Ok(Self { role, process: Some(process), again_at: None, done: false })
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::id)
    }

    /// Starts the part again when it died.
    fn look(&mut self, arguments: &Boiler, dir: &Path, until: Option<u64>) -> Result<(), Failure> {
        if let Some(process) = &mut self.process {
            match process.child().try_wait() {
                Ok(None) => return Ok(()),
                Ok(Some(status)) if status.success() => self.done = true,
                Ok(Some(status)) => {
                    say(format_args!("{} ended: {status}", self.role.name()));
                    self.again_at = Some(tokio::time::Instant::now() + PAUSE);
                }
                Err(error) => return Err(Failure::new(Exit::Disk, error.to_string())),
            }
            self.process = None;
        }
        if self.again_at.is_some_and(|at| at <= tokio::time::Instant::now()) {
            *self = Self::start(self.role, arguments, dir, until)?;
        }
        Ok(())
    }
}

/// The site of an own broker, made where it is missing.
async fn own_site(ready: Ready, dir: &Path) -> Result<Kept, Failure> {
    let known = data::read::<Kept>(&dir.join(FILE))?.filter(|kept| kept.urls == ready.urls);
    match known {
        Some(kept) => Ok(kept),
        None => make_site(ready.urls, Some(ready.admin_token)).await,
    }
}

/// The site of a given broker: as DIR remembers it, else made with the administrator's token.
async fn kept(arguments: &Boiler, dir: &Path) -> Result<Kept, Failure> {
    let known = data::read::<Kept>(&dir.join(FILE))?;
    let token = connect::token(arguments.token.as_deref(), None)?;
    let given = connect::given(&arguments.urls);
    if given.is_empty() {
        return known.ok_or_else(|| {
            Failure::usage("no broker is known").hint(
                "start `ackord demo boiler` first, or give --url and the administrator's --token",
            )
        });
    }
    let urls = connect::urls(&given)?;
    match known {
        Some(kept) if kept.urls == urls => Ok(kept),
        Some(_) | None => make_site(urls, token).await,
    }
}

async fn make_site(urls: Vec<String>, token: Option<String>) -> Result<Kept, Failure> {
    let Some(token) = token else {
        return Err(Failure::usage("the boiler's site must be made")
            .hint("give the administrator's --token of that broker"));
    };
    let admin = Admin::new(urls.clone(), Some(token))?;
    let site = site_path(SITE);
    admin.put(&site, &json!({})).await?;
    for path in ["services/service", "clients/panel", "clients/phone"] {
        admin.put(&format!("{site}/{path}"), &json!({})).await?;
    }
    let token = async |principal: Value| -> Result<String, Failure> {
        let path = format!("{site}/tokens");
        let made = admin.post(&path, &json!({"principal": principal})).await?;
        let token = made.get("token").and_then(Value::as_str).unwrap_or_default();
        Ok(token.to_owned())
    };
    Ok(Kept {
        site: SITE.to_owned(),
        service_token: token(json!({"service": "service"})).await?,
        panel_token: token(json!({"client": "panel"})).await?,
        phone_token: token(json!({"client": "phone"})).await?,
        urls,
    })
}

fn default_dir() -> Result<PathBuf, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = variable("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    let state = state.ok_or_else(|| Failure::usage("no state directory: give --data DIR"))?;
    Ok(state.join("ackord/demo-boiler"))
}
