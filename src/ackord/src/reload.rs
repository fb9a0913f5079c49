//! A new configuration for a broker that runs.
//!
//! `SIGHUP, POST /v1/node/reload ─▶ gather and judge all ─▶ what counts now │ what takes a restart`
//!
//! Invariants: what is wrong changes nothing and says why; one reload at a time; what takes a
//! restart stays as it runs, and is named again by every reload until then.

use std::sync::{Arc, Mutex, PoisonError};

use ackord_gateway::{Control, Live, Tls};
use ackord_replica::Node;
use ackord_tls::Refreshed;
use ackord_wire::resource::{Reloaded, ReloadedFile};

use crate::config::key::Change;
use crate::config::{AdminToken, Config, Sources, table};
use crate::exit::Failure;
use crate::logging::Logging;
use crate::token;

/// What a reload works on.
pub struct Reloader {
    sources: Sources,
    running: Mutex<Running>,
    control: Control,
    node: Arc<Node>,
    tls: Option<Arc<Tls>>,
    logging: Logging,
    /// The hash of a token that was made at the first start, for a configuration without one.
    made_hash: Option<[u8; 32]>,
}

/// What is in force.
struct Running {
    config: Config,
    admin_hash: [u8; 32],
}

impl Reloader {
    /// Of a broker that was started with this.
    pub fn new(
        sources: Sources,
        config: Config,
        admin_hash: [u8; 32],
        logging: Logging,
        (control, node): (Control, Arc<Node>),
    ) -> Self {
        let made_hash = (config.admin_token == AdminToken::Generated).then_some(admin_hash);
        let tls = config.tls.clone();
        let running = Mutex::new(Running { config, admin_hash });
        Self { sources, running, control, node, tls, logging, made_hash }
    }

    /// Reads everything again. Blocks.
    pub fn reload(&self) -> Result<Reloaded, Failure> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = Sources { environment: Sources::variables(), ..self.sources.clone() };
        let next = Config::load(&sources)?;
        let mut settings = running.config.settings.clone();
        let (mut applied, mut restart, mut unchanged) = (Vec::new(), Vec::new(), 0);
        // A token in the place of one that is taken away is made at a start only: until then that one is
        // good, and its key stays as it runs.
        let token_stays = next.admin_token == AdminToken::Generated && self.made_hash.is_none();
        for key in table::keys() {
            let value = key.get(&next.settings);
            if value == key.get(&settings) {
                unchanged += 1;
                continue;
            }
            let dropped = token_stays && key.path.starts_with("admin_token");
            // TLS that is not there cannot begin, and one that is there cannot end.
            let begins = key.path.starts_with("tls.") && next.tls.is_some() != self.tls.is_some();
            match key.change {
                Change::Reload if !begins && !dropped => {
                    key.copy(&next.settings, &mut settings);
                    applied.push(key.path);
                }
                Change::Reload | Change::Restart => restart.push(key.path),
            }
        }
        let admin_hash = match (&next.admin_token, self.made_hash) {
            (AdminToken::Given(given), _) => token::hash(given),
            (AdminToken::Generated, Some(made)) => made,
            (AdminToken::Generated, None) => running.admin_hash,
        };
        if admin_hash != running.admin_hash && !applied.contains(&"admin_token") {
            // The file is the same, what is in it is not.
            applied.push("admin_token");
        }
        // The one step that can fail comes first.
        if let (Some(tls), Some(files)) = (&self.tls, settings.tls_files())
            && applied.iter().any(|path| path.starts_with("tls."))
        {
            tls.replace(files).map_err(|error| Failure::configuration(format!("tls: {error}")))?;
        }
        if applied.contains(&"log") {
            self.logging.set(&settings.log)?;
        }
        let issuers = if applied.contains(&"jwt") {
            next.issuers.clone()
        } else {
            // Those that run know what became of their files.
            running.config.issuers.clone()
        };
        let (origins, limits) = (settings.origins.clone(), settings.front.clone());
        self.control.set_live(Live { admin_hash, origins, issuers: issuers.clone(), limits });
        self.node.set_limits(settings.node.limits.clone());
        let files = self.control.refresh_files().into_iter().map(|report| ReloadedFile {
            file: report.file.to_owned(),
            changed: matches!(report.refreshed, Refreshed::Changed | Refreshed::Broken(_)),
            broken: match report.refreshed {
                Refreshed::Broken(error) | Refreshed::StillBroken(error) => Some(error.to_string()),
                Refreshed::Unchanged | Refreshed::Changed => None,
            },
        });
        let files = files.collect();
        let Config { origins, admin_token, .. } = next;
        let config = running.config.clone();
        let admin_token = if token_stays { config.admin_token.clone() } else { admin_token };
        let config = Config { settings, origins, admin_token, issuers, ..config };
        *running = Running { config, admin_hash };
        let owned = |paths: Vec<&str>| paths.into_iter().map(str::to_owned).collect();
        Ok(Reloaded { applied: owned(applied), restart: owned(restart), unchanged, files })
    }
}
