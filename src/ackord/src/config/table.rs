//! The table of keys: the one place that says what may be configured.
//!
//! The file, the environment, `--set`, `--limit`, the example, the schema and
//! `docs/configuration.md` all follow from it. A key's name is never reused for something else.

use super::key::Key;
use super::key::Slot::{
    Address, Addresses, Issuers, Millis, Path, Text, TextMaybe, Texts, Truth, U8Maybe, U32, U64,
    U64Bound, U64Maybe, Usize,
};
use super::serving::{FRONT, OTEL, PUSH, SESSIONS};
use crate::logging::Lines;

/// A kibibyte.
pub const KIB: u64 = 1 << 10;
/// A mebibyte.
pub const MIB: u64 = 1 << 20;
/// A gibibyte.
const GIB: u64 = 1 << 30;
/// The most bytes that a limit may be: what no machine has.
const BYTES_CEILING: u64 = 1 << 46;
/// The most objects of a kind.
const OBJECTS_CEILING: u64 = 1_000_000_000;
/// A second in milliseconds.
pub const SECOND: u64 = 1000;
/// An hour in milliseconds.
pub const HOUR: u64 = 3_600_000;
/// The most that a lifetime may be allowed to be: a year of 366 days, milliseconds.
const LIFETIME_MS_CEILING: u64 = 366 * 86_400_000;

/// A table of the file and what it is about.
pub struct Section {
    /// Its name; empty for the keys above all tables.
    pub name: &'static str,
    /// What it is about.
    pub doc: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// Every key, in the order of the documentation.
pub static SECTIONS: &[Section] = &[
    Section { name: "", doc: "The node itself. These keys stand above all tables.", keys: NODE },
    Section {
        name: "admin",
        doc: "A socket of its own for administration, so that what endpoints reach can do nothing \
              else.",
        keys: ADMIN,
    },
    Section {
        name: "tls",
        doc: "TLS of `listen` and `admin.listen`, versions 1.2 and 1.3. The files are looked at from time \
              to time; a changed certificate is used for new connections, one that cannot be used is \
              not.",
        keys: TLS,
    },
    Section {
        name: "jwt",
        doc: "Issuers whose tokens are believed beside those of the sites: one `[[jwt]]` table each, at most \
              16. In a variable or flag they are a list of inline tables. All of them are replaced together.",
        keys: JWT,
    },
    Section {
        name: "limits",
        doc: "The limits of the deployment; `--limit NAME=VALUE` sets them too. Those that count at \
              a reload are replicated: the leader of a partition brings its own to all replicas, so \
              give all nodes of a cluster the same.",
        keys: LIMITS,
    },
    Section { name: "front", doc: "The bounds of connections and requests.", keys: FRONT },
    Section {
        name: "sessions",
        doc: "What sessions of services and clients are offered and held to.",
        keys: SESSIONS,
    },
    Section {
        name: "push",
        doc: "Push subscriptions: where deliveries may go, and how many at a time. Give all nodes of a \
              cluster the same.",
        keys: PUSH,
    },
    Section {
        name: "otel",
        doc: "Spans of events and of requests of the administration, for a collector of OpenTelemetry; see docs/tracing.md. Off without an endpoint.",
        keys: OTEL,
    },
    Section {
        name: "node",
        doc: "The bounds of replication and of what is written to the disk.",
        keys: REPLICATION,
    },
    Section {
        name: "cluster",
        doc: "The cluster that the node belongs to. Without `cluster.listen` the node is alone.",
        keys: CLUSTER,
    },
];

/// Every key.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key of this path.
pub fn key(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

static NODE: &[Key] = &[
    Key::new(
        "data",
        Path(|s| &mut s.data),
        "Where the node keeps everything; one process at a time. It must be given.",
    )
    .like("\"/var/lib/ackord\""),
    Key::new(
        "listen",
        Addresses(|s| &mut s.listen),
        "Where endpoints and administrators connect, HTTP and WebSocket on one port; an address or a list.",
    ),
    Key::new(
        "listen_plain",
        Truth(|s| &mut s.listen_plain),
        "Serve `listen` without TLS although it is no loopback address: something else encrypts what crosses machines.",
    ),
    Key::new(
        "workers",
        U64Maybe(|s| &mut s.workers),
        "Threads that serve connections.",
    )
    .within(1, 256)
    .or("one per processor")
    .like("4"),
    Key::new(
        "origins",
        Texts(|s| &mut s.origins),
        "Origins (`https://host[:port]`) whose pages may connect, beside those of this very address where that is a number or localhost.",
    )
    .live()
    .like("[\"https://panel.example\"]"),
    Key::new(
        "admin_token_file",
        Path(|s| &mut s.admin_token_file),
        "The file that holds the token of the node's administrator, who may do everything on every site.",
    )
    .live()
    .or("made at the first start, printed once; the data directory keeps its hash")
    .like("\"/run/secrets/ackord-admin-token\""),
    Key::new(
        "admin_token",
        TextMaybe(|s| &mut s.admin_token),
        "That token itself, at least 32 characters; one in a file is safer.",
    )
    .live()
    .secret()
    .like("\"at least 32 characters\""),
    Key::new(
        "log",
        Text(|s| &mut s.log),
        "What to log on standard error; `--log` wins.",
    )
    .live(),
    Key::new(
        "log_format",
        Text(|s| &mut s.log_format),
        "How a line of standard error is written: for people, or as one JSON object; `--log-format` wins.",
    )
    .one_of(Lines::NAMES),
];

static ADMIN: &[Key] = &[
    Key::new(
        "admin.listen",
        Addresses(|s| &mut s.admin_listen),
        "Where administration and `/metrics` are served; `listen` then serves endpoints only.",
    )
    .like("[\"127.0.0.1:4657\"]"),
    Key::new(
        "admin.listen_plain",
        Truth(|s| &mut s.admin_listen_plain),
        "Serve `admin.listen` without TLS although it is no loopback address.",
    ),
];

static TLS: &[Key] = &[
    Key::new(
        "tls.certificate",
        Path(|s| &mut s.tls_certificate),
        "The certificate and what leads from it to its authority, PEM. Having one at all or not takes a restart.",
    )
    .live()
    .like("\"/etc/ackord/front.pem\""),
    Key::new("tls.key", Path(|s| &mut s.tls_key), "Its private key, PEM.")
        .live()
        .like("\"/etc/ackord/front-key.pem\""),
    Key::new(
        "tls.handshake_deadline_ms",
        Millis(|s| &mut s.tls.handshake_deadline),
        "Until a handshake is done.",
    )
    .within(100, 60 * SECOND),
    Key::new(
        "tls.handshakes_max",
        Usize(|s| &mut s.tls.handshakes_max),
        "Handshakes that may go on at the same time at a listener; one more pushes the oldest out.",
    )
    .within(1, 1_000_000),
    Key::new(
        "tls.watch_interval_ms",
        Millis(|s| &mut s.watch_interval),
        "How often the files of certificates, keys and key sets are looked at, also those of `cluster.tls`.",
    )
    .within(100, HOUR),
];

static JWT: &[Key] =
    &[Key::new("jwt", Issuers(|s| &mut s.issuers), "The issuers; their fields are below.").live()];

static LIMITS: &[Key] = &[
    Key::new(
        "limits.partitions",
        U32(|s| &mut s.node.partitions),
        "Partitions of the node, each an independent log of decisions; fixed by the first start.",
    )
    .within(1, 1024),
    Key::new(
        "limits.args_bytes_max",
        U32(|s| &mut s.node.limits.args_bytes_max),
        "Largest encoded arguments of an event.",
    )
    .within(1, ackord_wire::limits::ARGS_BYTES_CEILING as u64)
    .live(),
    Key::new(
        "limits.queue_size_max",
        U32(|s| &mut s.node.limits.queue_size_max),
        "Largest size of a Queueing event.",
    )
    .within(1, 1_000_000)
    .live(),
    Key::new(
        "limits.lifetime_ms_min",
        U64(|s| &mut s.node.limits.lifetime_ms_min),
        "Shortest lifetime of an event definition.",
    )
    .within(1, LIFETIME_MS_CEILING)
    .live(),
    Key::new(
        "limits.lifetime_ms_max",
        U64(|s| &mut s.node.limits.lifetime_ms_max),
        "Longest lifetime of an event definition.",
    )
    .within(1, LIFETIME_MS_CEILING)
    .live(),
    Key::new(
        "limits.ack_timeout_ms_min",
        U32(|s| &mut s.node.limits.ack_timeout_ms_min),
        "Least acknowledgement timeout of a subscription.",
    )
    .within(1, ackord_wire::limits::ACK_TIMEOUT_MS_MAX as u64)
    .live(),
    Key::new(
        "limits.ack_timeout_ms_max",
        U32(|s| &mut s.node.limits.ack_timeout_ms_max),
        "Largest acknowledgement timeout of a subscription.",
    )
    .within(1, ackord_wire::limits::ACK_TIMEOUT_MS_MAX as u64)
    .live(),
    Key::new(
        "limits.discard_interval_ms_min",
        U32(|s| &mut s.sessions.push.discard_interval_ms_min),
        "Least time that a push subscription is offline after a failure; judged where it is registered.",
    )
    .within(1, 86_400_000),
    Key::new(
        "limits.sites_max",
        U32(|s| &mut s.node.limits.sites_max),
        "Sites per partition.",
    )
    .within(0, OBJECTS_CEILING)
    .live(),
    Key::new(
        "limits.services_max",
        U32(|s| &mut s.node.limits.services_max),
        "Services per site.",
    )
    .within(0, OBJECTS_CEILING)
    .live(),
    Key::new(
        "limits.clients_max",
        U32(|s| &mut s.node.limits.clients_max),
        "Clients per site.",
    )
    .within(0, OBJECTS_CEILING)
    .live(),
    Key::new(
        "limits.users_max",
        U32(|s| &mut s.node.limits.users_max),
        "Users per site.",
    )
    .within(0, OBJECTS_CEILING)
    .live(),
    Key::new(
        "limits.tokens_max",
        U32(|s| &mut s.node.limits.tokens_max),
        "Tokens per site.",
    )
    .within(0, OBJECTS_CEILING)
    .live(),
    Key::new(
        "limits.keys_max",
        U32(|s| &mut s.node.limits.keys_max),
        "Idempotency keys remembered per site; of one service nine tenths at most.",
    )
    .within(0, OBJECTS_CEILING)
    .live(),
    Key::new(
        "limits.partition_bytes_max",
        U64Bound(|s| &mut s.node.limits.partition_bytes_max),
        "Bytes of state of one partition; above it raises to its sites are refused as `over-capacity`.",
    )
    .within(MIB, BYTES_CEILING)
    .live()
    .or("none")
    .like("1073741824"),
    Key::new(
        "limits.state_bytes_max",
        U64Maybe(|s| &mut s.state_bytes_max),
        "Bytes of state of the node; above it raises are refused as `over-capacity`, acknowledgements and reads go on.",
    )
    .within(MIB, BYTES_CEILING)
    .or("half of the memory that the node may use")
    .like("8589934592"),
    Key::new(
        "limits.disk_reserve_bytes",
        U64(|s| &mut s.node.disk_reserve_bytes),
        "Free bytes of the disk below which raises are refused as `disk-full`.",
    )
    .within(0, BYTES_CEILING),
    Key::new(
        "limits.snapshot_log_bytes_min",
        U64(|s| &mut s.node.snapshot_log_bytes_min),
        "A partition writes a snapshot when its log since the last one outgrows this and its state; that is looked at when checkpoints are written.",
    )
    .within(64 * KIB, 1024 * GIB),
    Key::new(
        "limits.log_file_bytes",
        U64(|s| &mut s.node.log_file_bytes),
        "Bytes of one file of the log.",
    )
    .within(64 * KIB, GIB),
    Key::new(
        "limits.log_purge_bytes",
        U64(|s| &mut s.node.log_purge_bytes),
        "Bytes of log above which it is compacted; at least two files.",
    )
    .within(128 * KIB, 1024 * GIB),
];

static REPLICATION: &[Key] = &[
    Key::new("node.threads", Usize(|s| &mut s.node.threads), "Threads of replication.")
        .within(1, 256)
        .or("one per processor, 2..=8")
        .like("4"),
    Key::new(
        "node.queue_commands_max",
        Usize(|s| &mut s.node.queue_commands_max),
        "Commands that may wait in a partition's queue; one more is `busy`.",
    )
    .within(1, 16_777_216),
    Key::new(
        "node.queue_bytes_max",
        Usize(|s| &mut s.node.queue_bytes_max),
        "Bytes of commands that may wait in a partition's queue; more are `busy`.",
    )
    .within(64 * KIB, 4 * GIB),
    Key::new(
        "node.entry_commands_max",
        Usize(|s| &mut s.node.entry_commands_max),
        "Commands that one entry of the log may carry.",
    )
    .within(1, 65_536),
    Key::new(
        "node.entry_bytes_max",
        Usize(|s| &mut s.node.entry_bytes_max),
        "Bytes of commands after which an entry of the log takes no further one.",
    )
    .within(KIB, 8 * MIB),
    Key::new(
        "node.entries_in_flight_max",
        Usize(|s| &mut s.node.entries_in_flight_max),
        "Entries of a partition that may be on their way at the same time.",
    )
    .within(1, 64),
    Key::new(
        "node.tick_rows_max",
        U32(|s| &mut s.node.tick_rows_max),
        "Expired rows that one entry may remove.",
    )
    .within(1, 1_000_000),
    Key::new(
        "node.checkpoint_interval_ms",
        Millis(|s| &mut s.node.checkpoint_interval),
        "Changed rows are written to the checkpoint at least this often.",
    )
    .within(10, HOUR),
    Key::new(
        "node.checkpoint_rows_max",
        Usize(|s| &mut s.node.checkpoint_rows_max),
        "So many changed rows are written to the checkpoint without waiting for the interval.",
    )
    .within(1, 1_000_000),
    Key::new(
        "node.start_timeout_ms",
        Millis(|s| &mut s.node.start_timeout),
        "How long a start waits for its partitions to be led and caught up.",
    )
    .within(SECOND, 24 * HOUR),
];

static CLUSTER: &[Key] = &[
    Key::new(
        "cluster.listen",
        Address(|s| &mut s.cluster_listen),
        "Where other nodes connect. Without `cluster.tls` only a loopback address may be used.",
    )
    .like("\"10.0.0.1:4656\""),
    Key::new(
        "cluster.advertise",
        TextMaybe(|s| &mut s.cluster.advertise),
        "Where other nodes reach this one.",
    )
    .or("the address of `cluster.listen`")
    .like("\"ackord-1.example:4656\""),
    Key::new(
        "cluster.initial",
        Texts(|s| &mut s.cluster.initial),
        "A new cluster: the advertised addresses of all its first nodes, this one included, in the same order on each. It is founded once all are there and empty.",
    )
    .like("[\"ackord-1.example:4656\", \"ackord-2.example:4656\", \"ackord-3.example:4656\"]"),
    Key::new(
        "cluster.join",
        Texts(|s| &mut s.cluster.join),
        "A cluster that exists: some of its members. For an empty data directory only: what a node belongs to is on its disk. With `initial` beside it, a node founds a cluster only if there is none at `initial` and it is one of them; else it joins.",
    )
    .like("[\"ackord-1.example:4656\"]"),
    Key::new(
        "cluster.urls",
        Texts(|s| &mut s.cluster.urls),
        "Where endpoints and browsers reach this node.",
    )
    .or("its own address")
    .like("[\"https://ackord-1.example\"]"),
    Key::new(
        "cluster.zone",
        Text(|s| &mut s.cluster.zone),
        "Nodes of one zone may fail together: replicas are spread over zones.",
    )
    .like("\"rack-1\""),
    Key::new(
        "cluster.replication",
        U32(|s| &mut s.cluster.replication),
        "Voters per partition of a new cluster, an odd number.",
    )
    .within(1, 9),
    Key::new(
        "cluster.clock_skew_max_ms",
        Millis(|s| &mut s.cluster.clock_skew_max),
        "Nodes whose clocks differ by more do not talk to each other.",
    )
    .within(10, 24 * HOUR),
    Key::new(
        "cluster.answer_limit_ms",
        Millis(|s| &mut s.cluster.answer_limit),
        "How long a proposal may be without an answer before its fate counts as unknown.",
    )
    .within(100, HOUR),
    Key::new(
        "cluster.connections_max",
        Usize(|s| &mut s.cluster.connections_max),
        "Connections of other nodes that may be open at the same time.",
    )
    .within(1, 65_536),
    Key::new(
        "cluster.compat_version",
        U8Maybe(|s| &mut s.cluster.compat_version),
        "Speak the peer protocol of the release before, while nodes of it are still there.",
    )
    .within(1, 255)
    .like("1"),
    Key::new(
        "cluster.tls.authority",
        Path(|s| &mut s.cluster_tls.authority),
        "Who signs the certificates of this cluster's nodes, and of nobody else; PEM.",
    )
    .like("\"/etc/ackord/ca.pem\""),
    Key::new(
        "cluster.tls.certificate",
        Path(|s| &mut s.cluster_tls.certificate),
        "This node's certificate, good for both directions; PEM.",
    )
    .like("\"/etc/ackord/node.pem\""),
    Key::new(
        "cluster.tls.key",
        Path(|s| &mut s.cluster_tls.key),
        "Its private key, PEM.",
    )
    .like("\"/etc/ackord/node-key.pem\""),
    Key::new(
        "cluster.tls.name",
        TextMaybe(|s| &mut s.cluster_tls.name),
        "The name to expect in the other nodes' certificates.",
    )
    .or("their host")
    .like("\"ackord\""),
];
