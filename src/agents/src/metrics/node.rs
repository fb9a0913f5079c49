//! What the node below says of itself, read when somebody asks.

use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use ackord_machine::site::{PushState, Site};
use ackord_replica::{Condition, Figures, Node, NodeCounters, Role};

use super::survey::Surveyor;
use super::{Registry, Sheet};

type Read = fn(&NodeCounters) -> u64;

/// The node's own totals under their names.
const COUNTERS: &[(&str, Read)] = &[
    ("ackord_log_syncs_total", |c| c.log_syncs),
    ("ackord_log_writes_total", |c| c.log_writes),
    ("ackord_log_bytes_total", |c| c.log_bytes),
    ("ackord_log_entries_total", |c| c.log_entries),
    ("ackord_log_cold_reads_total", |c| c.log_cold_reads),
    ("ackord_log_purges_total", |c| c.purges),
    ("ackord_entries_proposed_total", |c| c.entries_proposed),
    ("ackord_entries_forwarded_total", |c| c.entries_forwarded),
    ("ackord_entries_applied_total", |c| c.entries_applied),
    ("ackord_commands_proposed_total", |c| c.commands_proposed),
    ("ackord_commands_applied_total", |c| c.commands_applied),
    ("ackord_commands_coalesced_total", |c| c.commands_coalesced),
    ("ackord_refused_busy_total", |c| c.refused_busy),
    ("ackord_refused_over_capacity_total", |c| c.refused_over_capacity),
    ("ackord_refused_disk_full_total", |c| c.refused_disk_full),
    ("ackord_checkpoints_total", |c| c.checkpoints),
    ("ackord_checkpoint_rows_total", |c| c.checkpoint_rows),
    ("ackord_checkpoint_rebuilds_total", |c| c.checkpoint_rebuilds),
    ("ackord_snapshots_built_total", |c| c.snapshots_built),
    ("ackord_snapshots_installed_total", |c| c.snapshots_installed),
    ("ackord_snapshot_received_bytes_total", |c| c.snapshot_bytes_received),
    ("ackord_events_applied_total", |c| c.events_applied),
    ("ackord_duplicates_suppressed_total", |c| c.duplicates_suppressed),
    ("ackord_leader_changes_total", |c| c.leader_changes),
    ("ackord_term_changes_total", |c| c.term_changes),
];

/// And those that a label tells apart.
const LABELLED: &[(&str, &str, Read)] = &[
    ("ackord_instances_departed_total", "superseded", |c| c.superseded),
    ("ackord_instances_departed_total", "evicted", |c| c.evicted),
    ("ackord_instances_departed_total", "expired", |c| c.expired),
    ("ackord_instances_departed_total", "acknowledged", |c| c.acknowledged),
    ("ackord_instances_departed_total", "removed", |c| c.removed),
    ("ackord_group_moves_total", "nodes", |c| c.moves_of_nodes),
    ("ackord_group_moves_total", "votes", |c| c.moves_of_votes),
    ("ackord_group_moves_total", "lead", |c| c.moves_of_lead),
];

/// And what is not a total.
const OTHERS: &[&str] = &[
    "ackord_log_sync_seconds",
    "ackord_commit_seconds",
    "ackord_apply_seconds",
    "ackord_groups",
    "ackord_groups_unsettled",
    "ackord_leader_silence_seconds",
    "ackord_replication_lag_entries",
    "ackord_apply_lag_entries",
    "ackord_entries_in_flight",
    "ackord_snapshots_pending",
    "ackord_checkpoint_rows_due",
    "ackord_build_info",
    "ackord_start_time_seconds",
    "ackord_ready",
    "ackord_started",
    "ackord_peers",
    "ackord_clock_ahead_seconds",
    "ackord_state_bytes",
    "ackord_state_max_bytes",
    "ackord_disk_free_bytes",
    "ackord_disk_reserve_bytes",
    "ackord_disk_used_bytes",
    "ackord_push_subscriptions",
    "ackord_dead_letters",
];

/// What waits, over the partitions that the node leads.
const SURVEYED: &[&str] = &[
    "ackord_sites",
    "ackord_retained_instances",
    "ackord_retained_bytes",
    "ackord_subscriptions",
    "ackord_subscriptions_lagging",
    "ackord_lag_instances",
    "ackord_oldest_unacknowledged_seconds",
    "ackord_site_lag_instances",
    "ackord_site_oldest_unacknowledged_seconds",
];

/// Registers everything that is read of the node. It is not kept alive by that.
pub(super) fn register(registry: &Registry, node: &Arc<Node>) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let of: Weak<Node> = Arc::downgrade(node);
    let counters = COUNTERS.iter().map(|(name, _)| *name);
    let names =
        counters.chain(LABELLED.iter().map(|(name, ..)| *name)).chain(OTHERS.iter().copied());
    registry.read(names, move |sheet| {
        let Some(node) = of.upgrade() else { return };
        sheet.put("ackord_start_time_seconds", &[], since.as_secs() as f64);
        read(&node, sheet);
    });
    let (of, surveyor): (Weak<Node>, _) = (Arc::downgrade(node), Surveyor::default());
    registry.read(SURVEYED.iter().copied(), move |sheet| {
        let Some(node) = of.upgrade() else { return };
        surveyor.survey(&node).write(sheet);
    });
}

fn read(node: &Node, sheet: &mut Sheet) {
    let totals = node.counters();
    for (name, read) in COUNTERS {
        sheet.count(name, read(&totals));
    }
    for (name, value, read) in LABELLED {
        sheet.put(name, &[value], read(&totals) as f64);
    }
    let flag = u64::from;
    sheet.put("ackord_build_info", &[env!("CARGO_PKG_VERSION")], 1.0);
    sheet.count("ackord_ready", flag(node.ready() && node.stays()));
    sheet.count("ackord_started", flag(node.started()));
    sheet.put("ackord_clock_ahead_seconds", &[], node.clock_ahead_ms() as f64 / 1000.0);
    let (state_bytes, state_bytes_max) = node.state_bytes();
    sheet.count("ackord_state_bytes", state_bytes);
    sheet.count("ackord_state_max_bytes", state_bytes_max);
    // Without an answer of the disk there is none here either.
    if let Ok(disk) = node.disk_usage() {
        sheet.count("ackord_disk_free_bytes", disk.free_bytes);
        sheet.count("ackord_disk_reserve_bytes", disk.reserve_bytes);
        let parts = [
            ("log", disk.log_bytes),
            ("checkpoint", disk.checkpoint_bytes),
            ("snapshots", disk.snapshot_bytes),
        ];
        for (part, bytes) in parts {
            sheet.put("ackord_disk_used_bytes", &[part], bytes as f64);
        }
    }
    groups(&node.figures(), sheet);
    pushes(node, sheet);
}

fn groups(figures: &Figures, sheet: &mut Sheet) {
    let groups = &figures.groups;
    sheet.durations("ackord_log_sync_seconds", &figures.sync_times);
    sheet.durations("ackord_commit_seconds", &figures.commit_times);
    sheet.durations("ackord_apply_seconds", &figures.apply_times);
    for role in Role::ALL {
        for condition in Condition::ALL {
            let is = |group: &&ackord_replica::GroupFigures| {
                (group.role, group.condition) == (role, condition)
            };
            let labels = [role.as_str(), condition.as_str()];
            sheet.put("ackord_groups", &labels, groups.iter().filter(is).count() as f64);
        }
    }
    sheet.put("ackord_peers", &["up"], figures.peers_up as f64);
    sheet.put("ackord_peers", &["down"], figures.peers_down as f64);
    let unsettled = groups.iter().filter(|group| !group.settled).count();
    sheet.count("ackord_groups_unsettled", unsettled as u64);
    let stale_ms = groups.iter().map(|group| group.stale_ms).max().unwrap_or(0);
    sheet.put("ackord_leader_silence_seconds", &[], stale_ms as f64 / 1000.0);
    let lag = groups.iter().filter_map(|group| group.replication_lag).max().unwrap_or(0);
    sheet.count("ackord_replication_lag_entries", lag);
    let lag = groups.iter().map(|group| group.apply_lag).max().unwrap_or(0);
    sheet.count("ackord_apply_lag_entries", lag);
    let in_flight = groups.iter().map(|group| group.entries_in_flight).sum();
    sheet.count("ackord_entries_in_flight", in_flight);
    let pending = groups.iter().filter(|group| group.snapshot_pending).count();
    sheet.count("ackord_snapshots_pending", pending as u64);
    let due = groups.iter().map(|group| group.checkpoint_rows_due).sum();
    sheet.count("ackord_checkpoint_rows_due", due);
}

/// Counts the push subscriptions and dead letters of the partitions that the node leads.
fn pushes(node: &Node, sheet: &mut Sheet) {
    let mut counts = PushState::NAMES.map(|name| (name, 0));
    let mut letters = 0;
    for partition in node.partitions().iter().filter(|partition| partition.leads()) {
        partition.read(|state| {
            letters += state.sites().map(Site::dead_letter_count).sum::<usize>();
            for row in state.sites().flat_map(|site| site.pushes()) {
                let name = row.state.as_str();
                counts.iter_mut().filter(|(of, _)| *of == name).for_each(|(_, n)| *n += 1);
            }
        });
    }
    for (name, count) in counts {
        sheet.put("ackord_push_subscriptions", &[name], f64::from(count));
    }
    sheet.count("ackord_dead_letters", letters as u64);
}
