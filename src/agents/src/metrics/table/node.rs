//! The log, the groups, and the node itself.

use super::{Label, Metric, counter, gauge, histogram};

const ROLE: Label = Label {
    name: "role",
    values_max: 5,
    from: "what this node is in the group: `leader`, `follower`, `candidate`, `learner`, `stopped`",
};
const CONDITION: Label = Label {
    name: "condition",
    values_max: 5,
    from: "how the group is: `leaderless`, `cut-off`, `catching-up`, `changing`, `steady`",
};
const MOVE: Label = Label { name: "of", values_max: 3, from: "`nodes`, `votes`, `lead`" };
const MAILBOX: Label = Label {
    name: "mailbox",
    values_max: 3,
    from: "`proposals` (commands that wait for a log entry), `log` (requests that are not durable yet), `questions` (of other nodes)",
};
const PART: Label = Label { name: "part", values_max: 3, from: "`log`, `checkpoint`, `snapshots`" };
const CONNECTION: Label = Label { name: "connection", values_max: 2, from: "`up`, `down`" };
const VERSION: Label = Label { name: "version", values_max: 1, from: "the version of this build" };

/// The bounds of `ackord_replica::DURATION_BOUNDS_US`, seconds.
const DURATIONS: &[f64] =
    &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

pub const GROUPS: &[Metric] = &[
    gauge(
        "ackord_groups",
        "groups",
        "Replica groups of this node: its partitions and the directory.",
    )
    .by(&[ROLE, CONDITION]),
    gauge(
        "ackord_groups_unsettled",
        "groups",
        "Groups whose voters or leader are not those that the directory wants, without leads that load has drawn elsewhere: what is still to be moved.",
    ),
    counter("ackord_group_moves_total", "changes", "Changes of groups that this node began.")
        .by(&[MOVE]),
    counter("ackord_leader_changes_total", "changes", "Times a group came to have another leader."),
    counter(
        "ackord_term_changes_total",
        "terms",
        "Terms that groups went on to: elections held or tried.",
    ),
    gauge(
        "ackord_leader_silence_seconds",
        "seconds",
        "The longest that a partition here is without a leader's, or a majority's, confirmation.",
    ),
    gauge(
        "ackord_replication_lag_entries",
        "entries",
        "Log entries that the follower furthest behind does not have, of the groups led here.",
    ),
    gauge(
        "ackord_apply_lag_entries",
        "entries",
        "Log entries here that are not applied here, of the group furthest behind.",
    ),
    gauge(
        "ackord_entries_in_flight",
        "entries",
        "Log entries proposed here that are on their way.",
    ),
    counter("ackord_entries_proposed_total", "entries", "Log entries proposed here."),
    counter(
        "ackord_entries_forwarded_total",
        "batches",
        "Batches of commands sent to the leader on another node.",
    ),
    counter("ackord_entries_applied_total", "entries", "Log entries applied."),
    counter("ackord_commands_proposed_total", "commands", "Commands taken into a queue."),
    counter("ackord_commands_applied_total", "commands", "Commands applied."),
    counter("ackord_commands_coalesced_total", "commands", "Commands answered by a later one."),
    histogram(
        "ackord_commit_seconds",
        DURATIONS,
        "seconds",
        "From proposing a log entry here until it was applied here.",
    ),
    histogram("ackord_apply_seconds", DURATIONS, "seconds", "Applying a log entry."),
    counter("ackord_refused_busy_total", "commands", "Commands refused for a full queue."),
    counter("ackord_refused_over_capacity_total", "raises", "Raises refused for the state's size."),
    counter("ackord_refused_disk_full_total", "raises", "Raises refused for the disk's reserve."),
    counter("ackord_log_syncs_total", "syncs", "Syncs of the log."),
    histogram("ackord_log_sync_seconds", DURATIONS, "seconds", "Syncs of the log."),
    counter("ackord_log_writes_total", "writes", "Writes to the log."),
    counter("ackord_log_bytes_total", "bytes", "Bytes written to the log."),
    counter("ackord_log_entries_total", "entries", "Entries appended to the log."),
    counter("ackord_log_cold_reads_total", "reads", "Reads of the log that went to the disk."),
    counter("ackord_log_purges_total", "purges", "Times the log was purged."),
    counter("ackord_checkpoints_total", "checkpoints", "Checkpoint batches written."),
    counter("ackord_checkpoint_rows_total", "rows", "Rows written to checkpoints."),
    gauge(
        "ackord_checkpoint_rows_due",
        "rows",
        "Rows that changed and are not in a checkpoint yet.",
    ),
    counter(
        "ackord_checkpoint_rebuilds_total",
        "checkpoints",
        "Checkpoints discarded and written anew.",
    ),
    counter("ackord_snapshots_built_total", "snapshots", "Snapshots built."),
    counter("ackord_snapshots_installed_total", "snapshots", "Snapshots installed."),
    counter(
        "ackord_snapshot_received_bytes_total",
        "bytes",
        "Bytes of snapshots received from other nodes.",
    ),
    gauge(
        "ackord_snapshots_pending",
        "snapshots",
        "Snapshots that were asked for and are not done.",
    ),
];

pub const METRICS: &[Metric] = &[
    gauge("ackord_build_info", "1", "The build that runs; always 1.").by(&[VERSION]),
    gauge("ackord_start_time_seconds", "seconds of Unix time", "When the broker started."),
    gauge("ackord_ready", "0 or 1", "1 while this node serves and is to stay, else 0."),
    gauge("ackord_started", "0 or 1", "1 once this node has joined and caught up, else 0."),
    gauge("ackord_peers", "nodes", "Other nodes of the cluster, by whether there is a connection.")
        .by(&[CONNECTION]),
    gauge(
        "ackord_clock_ahead_seconds",
        "seconds",
        "How far this node's wall clock is ahead of what most nodes have.",
    ),
    gauge("ackord_mailbox_depth", "messages", "What waits in bounded queues inside the node.")
        .by(&[MAILBOX]),
    gauge("ackord_state_bytes", "bytes", "Bytes of state of this node."),
    gauge("ackord_state_max_bytes", "bytes", "Bytes of state above which raises are refused."),
    gauge("ackord_disk_free_bytes", "bytes", "What is left of the disk."),
    gauge(
        "ackord_disk_reserve_bytes",
        "bytes",
        "When no more than this is left, raises are refused.",
    ),
    gauge("ackord_disk_used_bytes", "bytes", "What the data directory takes.").by(&[PART]),
];
