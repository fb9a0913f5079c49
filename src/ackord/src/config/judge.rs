//! What the values must be together, and the configuration that comes out.
//!
//! Invariant: everything that is wrong is told at once, and what is wrong changes nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use ackord_agents::{AllowList, Spans};
use ackord_gateway::{Issuer, KeyFile, Tls, TlsFiles};
use ackord_replica::{PeerOptions, PeerTls};

use super::settings::Settings;
use super::sources::{Gathered, Origin, Sources};
use crate::exit::{Exit, Failure, warn};
use crate::logging;

/// The shortest token of an administrator, characters.
const ADMIN_TOKEN_MIN: usize = 32;
/// The largest file with a secret, bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Where the administrator's token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum AdminToken {
    /// From the configuration.
    Given(String),
    /// Made at the first start, printed once; the data directory keeps its hash.
    Generated,
}

/// A judged configuration.
#[derive(Clone)]
pub struct Config {
    /// The values.
    pub settings: Settings,
    /// Where those come from that are not defaults.
    pub origins: BTreeMap<&'static str, Origin>,
    /// The administrator's token.
    pub admin_token: AdminToken,
    /// The cluster that the node belongs to.
    pub cluster: Option<PeerOptions>,
    /// The TLS of the front.
    pub tls: Option<Arc<Tls>>,
    /// Whose JWTs are believed.
    pub issuers: Vec<Arc<Issuer>>,
}

impl Config {
    /// Gathers and judges; what is merely unwise is said on standard error.
    pub fn load(sources: &Sources) -> Result<Self, Failure> {
        Self::judged(sources.gather())
    }

    /// Judges what was gathered; what is merely unwise is said on standard error.
    pub fn judged(gathered: Gathered) -> Result<Self, Failure> {
        let mut warnings = Vec::new();
        let judged = Self::judge(gathered, &mut warnings);
        for warning in warnings {
            warn(warning);
        }
        judged
    }

    fn judge(mut gathered: Gathered, warnings: &mut Vec<String>) -> Result<Self, Failure> {
        let mut problems = std::mem::take(&mut gathered.problems);
        if gathered.settings.data.is_none() {
            problems.push("data: must be given: where the node keeps everything".to_owned());
        }
        if gathered.settings.listen.is_empty() {
            problems.push("listen: must be given".to_owned());
        }
        together(&gathered.settings, &mut problems);
        if let Err(failure) = logging::parse(&gathered.settings.log) {
            problems.push(format!("log: {}", failure.message));
        }
        let admin_token = admin_token(&gathered, warnings).unwrap_or_else(|problem| {
            problems.push(problem);
            AdminToken::Generated
        });
        let cluster = cluster(&gathered.settings, &mut problems);
        let tls = tls(&gathered.settings, warnings).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        crossing(&gathered.settings, &mut problems);
        let issuers = issuers(&gathered.settings, &mut problems, warnings);
        let Gathered { settings, origins, problems: _ } = gathered;
        fail(Exit::Configuration, problems)?;
        Ok(Self { settings, origins, admin_token, cluster, tls, issuers })
    }
}

impl Settings {
    /// The defaults with what a command without a file may be told.
    pub fn from_flags(limits: &[String], sets: &[String]) -> Result<Self, Failure> {
        let sources =
            Sources { limits: limits.to_vec(), sets: sets.to_vec(), ..Sources::default() };
        let mut gathered = sources.gather();
        together(&gathered.settings, &mut gathered.problems);
        fail(Exit::Usage, gathered.problems)?;
        Ok(gathered.settings)
    }
}

fn fail(exit: Exit, problems: Vec<String>) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(exit, problems.join("\n"))
        .hint("`ackord config doc` describes every key; `ackord serve --example` prints a file"))
}

/// Rules over several keys.
fn together(settings: &Settings, problems: &mut Vec<String>) {
    if let Err(malformed) = AllowList::parse(&settings.sessions.push.hosts) {
        problems.push(format!("push.hosts: {malformed}"));
    }
    let collector = settings.sessions.spans.endpoint.as_deref();
    if let Some(Err(problem)) = collector.map(Spans::check_endpoint) {
        problems.push(format!("otel.endpoint: {problem}"));
    }
    let ca_file = settings.sessions.push.ca_file.as_deref();
    if let Some(Err(problem)) = ca_file.map(ackord_agents::check_authorities) {
        problems.push(format!("push.ca_file: {problem}"));
    }
    let mut ascending = |names: &[(&str, u64)]| {
        for pair in names.windows(2) {
            if let [(low, least), (high, most)] = pair
                && least > most
            {
                problems.push(format!("{low} = {least}: must be at most {high}, which is {most}"));
            }
        }
    };
    let limits = &settings.node.limits;
    ascending(&[
        ("limits.lifetime_ms_min", limits.lifetime_ms_min),
        ("limits.lifetime_ms_max", limits.lifetime_ms_max),
    ]);
    ascending(&[
        ("limits.ack_timeout_ms_min", limits.ack_timeout_ms_min.into()),
        ("limits.ack_timeout_ms_max", limits.ack_timeout_ms_max.into()),
    ]);
    let sessions = &settings.sessions;
    ascending(&[
        ("sessions.window_default", sessions.window_default.into()),
        ("sessions.window_max", sessions.window_max.into()),
    ]);
    ascending(&[
        ("sessions.keepalive_s_min", sessions.keepalive_s_min.into()),
        ("sessions.keepalive_s_default", sessions.keepalive_s_default.into()),
        ("sessions.keepalive_s_max", sessions.keepalive_s_max.into()),
    ]);
    let node = &settings.node;
    ascending(&[
        ("node.entry_bytes_max", node.entry_bytes_max as u64),
        ("node.queue_bytes_max", node.queue_bytes_max as u64),
    ]);
    ascending(&[
        ("twice limits.log_file_bytes", node.log_file_bytes.saturating_mul(2)),
        ("limits.log_purge_bytes", node.log_purge_bytes),
    ]);
}

impl Settings {
    /// The files of the front's certificate.
    pub fn tls_files(&self) -> Option<TlsFiles> {
        let (certificate, key) = (self.tls_certificate.clone()?, self.tls_key.clone()?);
        Some(TlsFiles { certificate, key })
    }
}

fn tls(settings: &Settings, warnings: &mut Vec<String>) -> Result<Option<Arc<Tls>>, String> {
    let Some(files) = settings.tls_files() else {
        return match (&settings.tls_certificate, &settings.tls_key) {
            (None, None) => Ok(None),
            (_, _) => Err("tls: needs certificate and key".to_owned()),
        };
    };
    if settings.listen_plain && (settings.admin_listen.is_empty() || settings.admin_listen_plain) {
        return Err("tls: nothing uses the certificate: listen_plain is set".to_owned());
    }
    warn_if_open(&files.key, "is tls.key", warnings);
    let loaded = Tls::load(files, settings.tls.clone());
    loaded.map(|tls| Some(Arc::new(tls))).map_err(|error| format!("tls: {error}"))
}

fn issuers(
    settings: &Settings,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Vec<Arc<Issuer>> {
    let mut issuers = Vec::new();
    for options in &settings.issuers {
        if let KeyFile::Secret(file) = &options.keys {
            warn_if_open(file, "is jwt.secret_file", warnings);
        }
        match Issuer::load(options.clone()) {
            Ok(issuer) => issuers.push(Arc::new(issuer)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    issuers
}

/// What crosses machines is encrypted, unless somebody says that something else sees to that.
fn crossing(settings: &Settings, problems: &mut Vec<String>) {
    if settings.tls_files().is_some() {
        return;
    }
    for (key, addresses, plain) in [
        ("listen", &settings.listen, settings.listen_plain),
        ("admin.listen", &settings.admin_listen, settings.admin_listen_plain),
    ] {
        let crosses = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
        if let (Some(address), false) = (addresses.iter().find(crosses), plain) {
            problems.push(format!(
                "{key} = {address}: crosses machines without TLS: give tls.certificate and tls.key, \
                 or set {key}_plain = true where something else encrypts"
            ));
        }
    }
}

/// The token, from whichever of its two keys wins.
fn admin_token(gathered: &Gathered, warnings: &mut Vec<String>) -> Result<AdminToken, String> {
    let settings = &gathered.settings;
    let rank = |path| gathered.origin(path).rank();
    let token = match (&settings.admin_token, &settings.admin_token_file) {
        (None, None) => return Ok(AdminToken::Generated),
        (Some(_), Some(_)) if rank("admin_token") == rank("admin_token_file") => {
            return Err("admin_token and admin_token_file exclude each other".to_owned());
        }
        (Some(token), Some(_)) if rank("admin_token") > rank("admin_token_file") => token.clone(),
        (Some(token), None) => {
            if let Origin::File(file, _) = gathered.origin("admin_token") {
                warn_if_open(&file, "holds admin_token", warnings);
            }
            token.clone()
        }
        (_, Some(file)) => {
            warn_if_open(file, "is admin_token_file", warnings);
            let read = read_secret(file)
                .map_err(|why| format!("admin_token_file: {}: {why}", file.display()))?;
            read.trim().to_owned()
        }
    };
    if token.chars().count() < ADMIN_TOKEN_MIN {
        return Err(format!(
            "admin_token: the administrator's token needs at least {ADMIN_TOKEN_MIN} characters"
        ));
    }
    Ok(AdminToken::Given(token))
}

fn read_secret(file: &Path) -> Result<String, String> {
    let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > SECRET_BYTES_MAX {
        return Err(format!("at most {SECRET_BYTES_MAX} bytes, was {length}"));
    }
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}

/// Anybody on the machine can read a file with a secret: unwise, and sometimes wanted.
fn warn_if_open(file: &Path, what: &str, warnings: &mut Vec<String>) {
    let mode = std::fs::metadata(file).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o004 != 0) {
        let file = file.display();
        warnings.push(format!("{file} {what} and everybody may read it; `chmod o-r {file}`"));
    }
}

fn cluster(settings: &Settings, problems: &mut Vec<String>) -> Option<PeerOptions> {
    let tls = &settings.cluster_tls;
    let given = [&tls.authority, &tls.certificate, &tls.key];
    let peers_tls = match (&tls.authority, &tls.certificate, &tls.key) {
        (Some(authority), Some(certificate), Some(key)) => Some(PeerTls {
            authority: authority.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
            name: tls.name.clone(),
        }),
        (_, _, _) => {
            if given.iter().any(|file| file.is_some()) {
                problems.push("cluster.tls: needs authority, certificate and key".to_owned());
            }
            None
        }
    };
    if let Some(Err(error)) = peers_tls.as_ref().map(PeerTls::check) {
        problems.push(format!("cluster.tls: {error}"));
    }
    let cluster = &settings.cluster;
    let Some(listen) = settings.cluster_listen else {
        if !cluster.initial.is_empty() || !cluster.join.is_empty() {
            problems.push("cluster.listen: must be given for a node of a cluster".to_owned());
        }
        return None;
    };
    Some(PeerOptions { listen, tls: peers_tls, ..cluster.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str, sets: &[&str]) -> (Result<Config, Failure>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ackord.toml");
        std::fs::write(&file, text).unwrap();
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        let sources = Sources { file: Some(file), sets, ..Sources::default() };
        let mut warnings = Vec::new();
        (Config::judge(sources.gather(), &mut warnings), warnings)
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let (judged, _) =
            judged("colour = 'red'\n[limits]\nlifetime_ms_min = 2_592_000_001\n", &[]);
        let Err(failure) = judged else { panic!("it was taken") };
        assert_eq!(failure.exit, Exit::Configuration);
        for part in ["colour", "data: must be given", "must be at most limits.lifetime_ms_max"] {
            assert!(failure.message.contains(part), "{failure}");
        }
    }

    #[test]
    fn a_token_comes_from_the_source_that_wins() {
        let long = "x".repeat(32);
        let base = "data = 'd'\nadmin_token_file = '/nowhere'\n";
        assert!(judged(base, &[]).0.is_err());
        assert!(judged(&format!("{base}admin_token = '{long}'\n"), &[]).0.is_err());
        let (config, _) = judged(base, &[&format!("admin_token={long}")]);
        assert!(config.is_ok_and(|config| config.admin_token == AdminToken::Given(long.clone())));
        assert!(judged("data = 'd'\n", &["admin_token=short"]).0.is_err());
        let (_, warnings) = judged(&format!("data = 'd'\nadmin_token = '{long}'\n"), &[]);
        assert!(warnings[0].contains("everybody may read it"), "{warnings:?}");
    }

    #[test]
    fn nothing_crosses_machines_in_the_clear_unless_somebody_says_so() {
        let check = |text: &str, wanted: Option<&str>| {
            let (judged, _) = judged(&format!("data = 'd'\n{text}\n"), &[]);
            match (judged, wanted) {
                (Ok(_), None) => {}
                (Err(failure), Some(wanted)) => {
                    assert!(failure.message.contains(wanted), "{failure}");
                }
                (Ok(_), Some(wanted)) => panic!("{text} was taken: {wanted}"),
                (Err(failure), None) => panic!("{text}: {failure}"),
            }
        };
        check("listen = '127.0.0.1:1'", None);
        check("listen = ['127.3.2.1:1', '[::1]:1', '[::ffff:127.0.0.1]:1']", None);
        check("listen = '0.0.0.0:1'", Some("listen = 0.0.0.0:1: crosses machines without TLS"));
        check("listen = ['127.0.0.1:1', '[::]:1']", Some("or set listen_plain = true"));
        check("listen = '0.0.0.0:1'\nlisten_plain = true", None);
        check("[admin]\nlisten = '10.0.0.1:1'", Some("or set admin.listen_plain = true"));
        check("[admin]\nlisten = '10.0.0.1:1'\nlisten_plain = true", None);
        check("[tls]\ncertificate = 'c'", Some("tls: needs certificate and key"));
        let files = "[tls]\ncertificate = '/nowhere/c'\nkey = '/nowhere/k'";
        check(files, Some("tls: /nowhere/c"));
        check(&format!("listen_plain = true\n{files}"), Some("nothing uses the certificate"));
    }

    #[test]
    fn a_node_of_a_cluster_has_an_address_and_all_of_its_certificates() {
        let check = |text: &str, wanted: &str| {
            let (judged, _) = judged(&format!("data = 'd'\n[cluster]\n{text}\n"), &[]);
            let Err(failure) = judged else { panic!("{text} was taken") };
            assert!(failure.message.contains(wanted), "{failure}");
        };
        check("initial = ['a:1']", "cluster.listen: must be given");
        check("listen = '127.0.0.1:0'\ntls.key = 'k'", "cluster.tls: needs");
        let files = "tls = {authority = '/nowhere', certificate = '/nowhere', key = '/nowhere'}";
        check(&format!("listen = '127.0.0.1:0'\n{files}"), "cluster.tls: /nowhere");
        let listening = "data = 'd'\n[cluster]\nlisten = '127.0.0.1:0'\nzone = 'z'\n";
        let (judged, _) = judged(listening, &[]);
        assert!(judged.is_ok_and(|config| config.cluster.is_some_and(|peers| peers.zone == "z")));
    }
}
