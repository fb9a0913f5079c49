//! What a broker runs with: the TOML file and the `--limit` flags, judged and resolved.
//!
//! Unknown keys are errors: a misspelt limit must not become a default in silence.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ackord_machine::site::limits::Limits;
use ackord_replica::{PeerOptions, PeerTls};
use serde::Deserialize;

use crate::exit::{Exit, Failure};

/// The example that `ackord serve --example` prints; `docs/cli.md` shows the same.
pub const EXAMPLE: &str = include_str!("ackord.example.toml");

/// Partitions of a new node.
pub const PARTITIONS_DEFAULT: u32 = 16;
/// The most partitions that a node may have.
const PARTITIONS_MAX: u32 = 1024;
/// The most that the size of a Queueing event may be allowed to be.
const QUEUE_SIZE_CEILING: u32 = 1_000_000;
/// The most that a lifetime may be allowed to be: a year of 366 days, milliseconds.
const LIFETIME_MS_CEILING: u64 = 366 * 86_400_000;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    data: PathBuf,
    listen: SocketAddr,
    admin_token: Option<String>,
    admin_token_file: Option<PathBuf>,
    log: Option<String>,
    #[serde(default)]
    limits: RawLimits,
    cluster: Option<RawCluster>,
}

/// The cluster as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    listen: SocketAddr,
    advertise: Option<String>,
    #[serde(default)]
    initial: Vec<String>,
    #[serde(default)]
    join: Vec<String>,
    #[serde(default)]
    urls: Vec<String>,
    #[serde(default)]
    zone: String,
    replication: Option<u32>,
    clock_skew_max_ms: Option<u64>,
    compat_version: Option<u8>,
    tls: Option<RawTls>,
}

/// The certificates of a cluster's nodes as they are written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    name: Option<String>,
}

/// Limits as they are written, in the file or as `--limit name=value`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    partitions: Option<u32>,
    args_bytes_max: Option<u32>,
    queue_size_max: Option<u32>,
    lifetime_ms_min: Option<u64>,
    lifetime_ms_max: Option<u64>,
    ack_timeout_ms_min: Option<u32>,
    ack_timeout_ms_max: Option<u32>,
    sites_max: Option<u32>,
    services_max: Option<u32>,
    clients_max: Option<u32>,
    users_max: Option<u32>,
    tokens_max: Option<u32>,
    keys_max: Option<u32>,
    state_bytes_max: Option<u64>,
    disk_reserve_bytes: Option<u64>,
    snapshot_log_bytes_min: Option<u64>,
    log_file_bytes: Option<u64>,
    log_purge_bytes: Option<u64>,
}

/// The limits of a deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Partitions of a new node.
    pub partitions: u32,
    /// What the site machine judges by.
    pub limits: Limits,
    /// Bytes of state of a node; half of its memory where nothing is said.
    pub state_bytes_max: Option<u64>,
    /// Free bytes of the disk below which raises are refused.
    pub disk_reserve_bytes: u64,
    /// Bytes of log after which a partition is due for a snapshot.
    pub snapshot_log_bytes_min: u64,
    /// Bytes of one file of the log.
    pub log_file_bytes: u64,
    /// Bytes of log above which it is compacted.
    pub log_purge_bytes: u64,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            partitions: PARTITIONS_DEFAULT,
            limits: Limits::default(),
            state_bytes_max: None,
            disk_reserve_bytes: 512 << 20,
            snapshot_log_bytes_min: 64 << 20,
            log_file_bytes: 32 << 20,
            log_purge_bytes: 256 << 20,
        }
    }
}

/// How a node takes part in a cluster.
#[derive(Clone, Debug)]
pub struct Cluster(PeerOptions);

impl Cluster {
    /// A node of a cluster on this machine.
    pub fn local(listen: SocketAddr, initial: Vec<String>) -> Self {
        Self(PeerOptions { initial, ..PeerOptions::new(listen) })
    }

    /// Speaks the peer protocol of an earlier release.
    pub fn set_compat_version(&mut self, version: u8) {
        self.0.compat_version = Some(version);
    }

    /// As the node takes it; `urls` is where its front is, should nothing else be configured.
    pub fn peers(self, urls: &[String]) -> PeerOptions {
        let mut peers = self.0;
        if peers.urls.is_empty() {
            peers.urls = urls.to_vec();
        }
        peers
    }
}

impl From<RawCluster> for Cluster {
    fn from(raw: RawCluster) -> Self {
        let mut peers = PeerOptions::new(raw.listen);
        peers.advertise = raw.advertise;
        peers.initial = raw.initial;
        peers.join = raw.join;
        peers.urls = raw.urls;
        peers.zone = raw.zone;
        peers.compat_version = raw.compat_version;
        set(&mut peers.replication, raw.replication);
        set(&mut peers.clock_skew_max, raw.clock_skew_max_ms.map(Duration::from_millis));
        peers.tls = raw.tls.map(|tls| PeerTls {
            authority: tls.authority,
            certificate: tls.certificate,
            key: tls.key,
            name: tls.name,
        });
        Self(peers)
    }
}

/// Where the administrator's token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminToken {
    /// From the configuration.
    Given(String),
    /// Made at the first start, printed once; the data directory keeps its hash.
    Generated,
}

/// A judged configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The administrator's token.
    pub admin_token: AdminToken,
    /// What to log; the command line wins.
    pub log: Option<String>,
    /// Limits.
    pub deployment: Deployment,
    /// The cluster that the node belongs to.
    pub cluster: Option<Cluster>,
}

impl Config {
    /// Reads and judges a file; the flags' limits win over the file's.
    pub fn load(file: &Path, flags: &[String]) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::configuration(format!("{}: {why}", file.display()))
                .hint("`ackord serve --example` prints a file with every key explained")
        };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        let raw: RawConfig = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let mut deployment = Deployment::default();
        deployment.take(raw.limits);
        deployment.take(flag_limits(flags, Exit::Configuration)?);
        deployment.judge().map_err(|failure| wrong(failure.message))?;
        let admin_token = match (raw.admin_token, raw.admin_token_file) {
            (Some(_), Some(_)) => {
                return Err(wrong("admin_token and admin_token_file exclude each other".into()));
            }
            (Some(token), None) => AdminToken::Given(token),
            (None, Some(path)) => {
                let token = std::fs::read_to_string(&path)
                    .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
                AdminToken::Given(token.trim().to_owned())
            }
            (None, None) => AdminToken::Generated,
        };
        if let AdminToken::Given(token) = &admin_token
            && token.len() < 32
        {
            return Err(wrong("the administrator's token needs at least 32 characters".into()));
        }
        let (data, listen, log) = (raw.data, raw.listen, raw.log);
        let cluster = raw.cluster.map(Cluster::from);
        Ok(Self { data, listen, admin_token, log, deployment, cluster })
    }
}

impl Deployment {
    /// The defaults with these `name=value` flags.
    pub fn from_flags(flags: &[String]) -> Result<Self, Failure> {
        let mut deployment = Self::default();
        deployment.take(flag_limits(flags, Exit::Usage)?);
        deployment.judge()?;
        Ok(deployment)
    }

    fn take(&mut self, raw: RawLimits) {
        let RawLimits {
            partitions,
            args_bytes_max,
            queue_size_max,
            lifetime_ms_min,
            lifetime_ms_max,
            ack_timeout_ms_min,
            ack_timeout_ms_max,
            sites_max,
            services_max,
            clients_max,
            users_max,
            tokens_max,
            keys_max,
            state_bytes_max,
            disk_reserve_bytes,
            snapshot_log_bytes_min,
            log_file_bytes,
            log_purge_bytes,
        } = raw;
        self.state_bytes_max = state_bytes_max.or(self.state_bytes_max);
        set(&mut self.disk_reserve_bytes, disk_reserve_bytes);
        set(&mut self.snapshot_log_bytes_min, snapshot_log_bytes_min);
        set(&mut self.log_file_bytes, log_file_bytes);
        set(&mut self.log_purge_bytes, log_purge_bytes);
        let limits = &mut self.limits;
        set(&mut self.partitions, partitions);
        set(&mut limits.args_bytes_max, args_bytes_max);
        set(&mut limits.queue_size_max, queue_size_max);
        set(&mut limits.lifetime_ms_min, lifetime_ms_min);
        set(&mut limits.lifetime_ms_max, lifetime_ms_max);
        set(&mut limits.ack_timeout_ms_min, ack_timeout_ms_min);
        set(&mut limits.ack_timeout_ms_max, ack_timeout_ms_max);
        set(&mut limits.sites_max, sites_max);
        set(&mut limits.services_max, services_max);
        set(&mut limits.clients_max, clients_max);
        set(&mut limits.users_max, users_max);
        set(&mut limits.tokens_max, tokens_max);
        set(&mut limits.keys_max, keys_max);
    }

    fn judge(&self) -> Result<(), Failure> {
        let within = |name: &str, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(Failure::configuration(format!("{name} = {value}: must be {min}..={max}")))
            }
        };
        let limits = &self.limits;
        let args_ceiling = ackord_wire::limits::ARGS_BYTES_CEILING as u64;
        within("partitions", self.partitions.into(), 1, PARTITIONS_MAX.into())?;
        within("args_bytes_max", limits.args_bytes_max.into(), 1, args_ceiling)?;
        within("queue_size_max", limits.queue_size_max.into(), 1, QUEUE_SIZE_CEILING.into())?;
        within("lifetime_ms_min", limits.lifetime_ms_min, 1, limits.lifetime_ms_max)?;
        within("lifetime_ms_max", limits.lifetime_ms_max, 1, LIFETIME_MS_CEILING)?;
        let (least, most) = (limits.ack_timeout_ms_min.into(), limits.ack_timeout_ms_max.into());
        within("ack_timeout_ms_min", least, 1, most)?;
        within("ack_timeout_ms_max", most, 1, ackord_wire::limits::ACK_TIMEOUT_MS_MAX.into())?;
        within("state_bytes_max", self.state_bytes_max.unwrap_or(1 << 30), 1 << 20, 1 << 46)?;
        within("disk_reserve_bytes", self.disk_reserve_bytes, 0, 1 << 46)?;
        within("snapshot_log_bytes_min", self.snapshot_log_bytes_min, 1 << 16, 1 << 40)?;
        within("log_file_bytes", self.log_file_bytes, 1 << 16, 1 << 30)?;
        within("log_purge_bytes", self.log_purge_bytes, 2 * self.log_file_bytes, 1 << 40)
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn flag_limits(flags: &[String], exit: Exit) -> Result<RawLimits, Failure> {
    for flag in flags {
        let number = |value: &str| value.replace('_', "").parse::<u64>().is_ok();
        if !flag.split_once('=').is_some_and(|(_, value)| number(value.trim())) {
            return Err(Failure::new(exit, format!("--limit {flag}: must be NAME=NUMBER")));
        }
    }
    toml::from_str(&flags.join("\n")).map_err(|error| {
        Failure::new(exit, format!("--limit: {}", error.message()))
            .hint("docs/cli.md lists the limits; each may be given once")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, flags: &[&str]) -> Result<Config, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ackord.toml");
        std::fs::write(&file, text).unwrap();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Config::load(&file, &flags)
    }

    #[test]
    fn the_example_is_a_valid_configuration_with_the_defaults() {
        let config = load(EXAMPLE, &[]).unwrap();
        assert_eq!(config.deployment, Deployment::default());
        assert_eq!(config.admin_token, AdminToken::Generated);
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_are_configuration_errors() {
        let check = |text: &str, flags: &[&str]| {
            let failure = load(text, flags).unwrap_err();
            assert_eq!(failure.exit, Exit::Configuration, "{failure}");
        };
        let base = "data = 'd'\nlisten = '127.0.0.1:0'\n";
        check("data = 'd'\n", &[]);
        check(&format!("{base}colour = 'red'\n"), &[]);
        check(&format!("{base}[limits]\nqueue_size = 5\n"), &[]);
        check(&format!("{base}[limits]\nargs_bytes_max = 65537\n"), &[]);
        check(&format!("{base}admin_token = 'short'\n"), &[]);
        check(base, &["queue_size=5"]);
        check(base, &["queue_size_max"]);
    }

    #[test]
    fn flags_win_over_the_file() {
        let text = "data = 'd'\nlisten = '127.0.0.1:0'\n[limits]\nqueue_size_max = 5\n";
        let config = load(text, &["queue_size_max=7", "partitions=2"]).unwrap();
        assert_eq!(config.deployment.limits.queue_size_max, 7);
        assert_eq!(config.deployment.partitions, 2);
    }
}
