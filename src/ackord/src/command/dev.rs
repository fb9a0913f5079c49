//! `ackord dev`: one node with a demo site, for trying things out and for tests.
//!
//! `DIR/dev.json` keeps the tokens and the port: the same DIR again is the same broker. It is
//! written before the broker knows the tokens, so that a crash in between leaves nothing unusable.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use ackord_agents::{Broker, token};
use ackord_gateway::Listener;
use ackord_machine::site::{
    Access, AdminAction, Category, ClientId, EventDefinition, GuestSupport, Incarnation, Kind,
    Principal, ServiceId, SiteName, SiteSettings, Structure, TokenId,
};
use ackord_wire::Code;
use serde::{Deserialize, Serialize};

use super::dev_cluster;
use crate::args::Dev;
use crate::broker::{Parts, Running};
use crate::child;
use crate::config::Settings;
use crate::data::DataDir;
use crate::exit::{Exit, Failure, Outcome, say, say_lines};
use crate::interrupt::Interrupt;
use crate::listen::{self, Wanted};
use crate::output::{self, Format};
use crate::token::{generate, hash, random};

/// The file with the tokens and the port.
pub(super) const FILE: &str = "dev.json";
/// The demo site and its accounts.
pub const SITE: &str = "demo";
/// The service of the demo site.
pub const SERVICE: &str = "demo-service";
/// The client of the demo site.
pub const CLIENT: &str = "demo-client";
/// A day.
const DAY_S: u32 = 86_400;

/// What DIR remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    version: u32,
    port: Option<u16>,
    pub(super) admin_token: String,
    service_token: String,
    client_token: String,
    /// Whether the demo site was made: it is not made again when somebody deleted it.
    pub(super) ready: bool,
    /// The nodes of a cluster; none for a node that is alone.
    #[serde(default)]
    pub(super) nodes: Vec<KeptNode>,
}

/// Where a node of a cluster is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct KeptNode {
    /// For endpoints.
    pub(super) front: SocketAddr,
    /// For the other nodes.
    pub(super) peers: SocketAddr,
}

impl Kept {
    pub(super) fn new() -> Self {
        Self {
            version: 1,
            port: None,
            admin_token: generate(),
            service_token: token::mint(&TokenId::from(SERVICE)).text,
            client_token: token::mint(&TokenId::from(CLIENT)).text,
            ready: false,
            nodes: Vec::new(),
        }
    }

    pub(super) fn ready_line(&self, urls: Vec<String>, pids: Vec<u32>) -> Ready {
        Ready {
            urls,
            admin_token: self.admin_token.clone(),
            site: SITE.to_owned(),
            service_token: self.service_token.clone(),
            client_token: self.client_token.clone(),
            client_id: CLIENT.to_owned(),
            pids,
        }
    }
}

/// The line that says that the broker is ready.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Where the broker listens.
    pub urls: Vec<String>,
    /// The node administrator's token.
    pub admin_token: String,
    /// The demo site.
    pub site: String,
    /// The token of the demo site's service.
    pub service_token: String,
    /// The token of the demo site's client.
    pub client_token: String,
    /// That client's id.
    pub client_id: String,
    /// The broker's processes.
    pub pids: Vec<u32>,
}

/// Runs the command.
pub async fn run(arguments: Dev, format: Format) -> Outcome {
    let mut interrupt = Interrupt::catch()?;
    let settings = Settings::from_flags(&arguments.limits.limits, &arguments.limits.sets)?;
    if let (Some(number), Some(dir)) = (arguments.only, &arguments.data) {
        return dev_cluster::run_one(&arguments, number, dir, &settings, interrupt, format).await;
    }
    let temporary = match &arguments.data {
        Some(_) => None,
        None => Some(Temporary::new()?),
    };
    let path = temporary.as_ref().map(|dir| dir.0.clone()).or(arguments.data.clone());
    let data = DataDir::open(&path.unwrap_or_default())?;
    let found = data.read::<Kept>(FILE)?;
    let held = found.as_ref().map(|kept| (kept.nodes.len() as u32).max(1));
    if let (Some(held), Some(wanted)) = (held, arguments.nodes)
        && held != wanted
    {
        let place = data.path().display();
        let why = format!("{place} holds a cluster of {held}, not of {wanted}");
        return Err(Failure::configuration(why));
    }
    let mut kept = found.unwrap_or_else(Kept::new);
    if arguments.nodes.or(held).is_some_and(|nodes| nodes > 1) {
        let temporary = temporary.is_some();
        return dev_cluster::run_all(&arguments, data, kept, temporary, interrupt, format).await;
    }
    let listener = listen::bind(Wanted::of(arguments.listen, kept.port))?;
    kept.port = listener.local_addr().ok().map(|address| address.port());
    data.write(FILE, &kept)?;
    warn_if_crossing(&listener);
    let node = data.node();
    let parts = Parts {
        dir: &node,
        settings: &settings,
        listeners: vec![Listener::plain(listener)],
        issuers: Vec::new(),
        cluster: None,
        admin_hash: hash(&kept.admin_token),
    };
    let running = tokio::select! {
        running = Running::start(parts) => running?,
        () = interrupt.wait() => return Ok(Exit::Done),
    };
    if !kept.ready {
        make_site(running.broker(), &kept).await?;
        kept.ready = true;
        data.write(FILE, &kept)?;
    }
    let ready = kept.ready_line(running.urls().to_vec(), vec![std::process::id()]);
    let printed = match format {
        Format::Json => output::json(&ready),
        Format::Text => output::page(&first_screen(&ready, &data, temporary.is_some())),
    };
    if printed.is_ok() {
        tokio::select! {
            () = interrupt.wait() => {}
            () = child::stdin_closed(arguments.while_stdin) => {}
        }
        if format == Format::Text {
            say_lines("\nstopping");
        }
    }
    running.stop().await;
    drop(data);
    printed.map_err(|error| output::closed(&error))?;
    Ok(Exit::Done)
}

/// This broker is for playing: it takes the address that it is told, and says what that means.
fn warn_if_crossing(listener: &TcpListener) {
    let address = listener.local_addr().ok();
    if let Some(address) = address.filter(|at| !at.ip().to_canonical().is_loopback()) {
        say(format_args!(
            "warning: {address} is reached from other machines, and nothing is encrypted; `ackord \
             serve` has TLS"
        ));
    }
}

pub(super) fn first_screen(ready: &Ready, data: &DataDir, temporary: bool) -> String {
    let me = program();
    let Ready { urls, admin_token, service_token, client_token, .. } = ready;
    let url = urls.join(",");
    let place = data.path().display();
    let note = if temporary { "  (temporary; --data DIR keeps it)" } else { "" };
    let headers = curl_variables(ready);
    format!(
        "Ackord is ready.\n\n  \
           broker  {url}\n  \
           data    {place}{note}\n  \
           site    {SITE}: events reading (queueing), state (replacing), notice (private)\n\n\
         Try it. In a second terminal, receive:\n\n  \
           export ACKORD_URL={url} ACKORD_SITE={SITE}\n  \
           export ACKORD_TOKEN={client_token}\n  \
           {me} subscribe reading state notice\n\n\
         In a third one, raise:\n\n  \
           export ACKORD_URL={url} ACKORD_SITE={SITE}\n  \
           export ACKORD_TOKEN={service_token}\n  \
           {me} raise reading --args '{{\"celsius\":21.5}}'\n\n\
         Stop the subscriber, raise more, start it again: it gets what it missed, once, in order.\n\
         With curl alone, as the README does:\n\n  \
           {headers}\n\n\
         The administrator's token, for `{me} site`, `service`, `client`, `user` and `token`:\n\n  \
           {admin_token}\n\n\
         Ctrl-C stops the broker."
    )
}

/// The line that sets what requests with curl need: the address and a header for each account.
fn curl_variables(ready: &Ready) -> String {
    let Ready { urls, admin_token, service_token, client_token, .. } = ready;
    let header = |name: &str, token: &str| format!("{name}='Authorization: Bearer {token}'");
    let url = urls.first().map_or("", String::as_str);
    let headers = [
        header("ADMIN", admin_token),
        header("SERVICE", service_token),
        header("CLIENT", client_token),
    ];
    format!("export URL={url} {}", headers.join(" "))
}

/// How this program was called, for commands that are meant to be pasted.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "ackord".to_owned())
}

/// Makes the demo site; every step may have been done before.
pub(super) async fn make_site(broker: &Broker, kept: &Kept) -> Result<(), Failure> {
    // Below 2^53, as every number that appears in JSON.
    let incarnation = || Ok::<_, Failure>(Incarnation(u64::from_le_bytes(random::<8>()?) >> 11));
    let settings = SiteSettings {
        multi_service: false,
        constructible: true,
        guests_allowed: true,
        stateless_guests_allowed: true,
    };
    let token_action = |text: &str, principal: Principal| {
        let (id, hash) = token::parse(text).ok_or_else(|| {
            Failure::configuration(format!("{FILE} holds something that is no token"))
        })?;
        Ok::<_, Failure>(AdminAction::CreateToken { id, hash, principal })
    };
    let actions = [
        AdminAction::CreateSite { settings, incarnation: incarnation()? },
        AdminAction::ApplyStructure {
            structure: structure(),
            rebuild: false,
            incarnation: incarnation()?,
        },
        AdminAction::CreateService { id: ServiceId::from(SERVICE) },
        AdminAction::CreateClient { id: ClientId::from(CLIENT), user: None },
        token_action(&kept.service_token, Principal::Service(SERVICE.into()))?,
        token_action(&kept.client_token, Principal::Client(CLIENT.into()))?,
    ];
    for action in actions {
        match broker.admin(&SiteName::from(SITE), action).await {
            Ok(_) | Err((Code::AlreadyExists, _)) => {}
            Err((code, detail)) => {
                let why = format!("the demo site cannot be made: {detail}");
                return Err(Failure::coded(Exit::Configuration, why, code));
            }
        }
    }
    Ok(())
}

fn structure() -> Structure {
    let everyone = Access::Everyone;
    let event = |name: &str, kind| EventDefinition { name: name.into(), kind };
    let structure = Structure {
        service_type: "demo".to_owned(),
        contract_author: "Ackord".to_owned(),
        guests: GuestSupport::GuestAndStateless,
        roles: Vec::new(),
        owner_role: None,
        events: vec![
            event(
                "reading",
                Kind::Queueing { lifetime_s: DAY_S, size: 1000, access: everyone.clone() },
            ),
            event("state", Kind::Replacing { access: everyone }),
            event("notice", Kind::Private { lifetime_s: DAY_S }),
        ],
    };
    debug_assert_eq!(structure.events[2].kind.category(), Category::Private);
    structure
}

/// A directory that is removed when the broker ends in order.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self, Failure> {
        let name: String = random::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(std::env::temp_dir().join(format!("ackord-dev-{name}"))))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
