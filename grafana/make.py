#!/usr/bin/env python3
"""Makes the dashboards, and the chart's copy of them and of the rules.

usage: make.py [--check]

With `--check` nothing is written, and the exit code is 1 where a file is not what it would be.
"""
import json
import pathlib
import sys

from panels import (LATENCY, NONE_BAD, NONE_WARN, PLAIN, bars, dashboard, heat, percentiles, series, stat, steps, table)

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE.parent / "helm/ackord/files"

MEMBERS = "max by (namespace) (sum by (namespace, instance) (@ackord_peers) + 1)"
# Only what has ever happened: most codes never do.
HAPPENED = "sum by (outcome) (rate({0} RATE)) and on (outcome) sum by (outcome) ({0}) > 0"
NONE = ' or on () label_replace(vector(0), "outcome", "none", "", "")'
LOST = '{outcome!~"accepted|duplicate|ignored"}'
STORED = 'sum(rate(ackord_raises_total{outcome="accepted"} RATE)) + (sum(rate(ackord_keyed_raises_total{outcome="accepted"} RATE)) or vector(0))'
WAITING = ("What is committed and not acknowledged, over all subscriptions; at most 1000 instances are counted of each. "
           "A client that is away for days is no fault: then this rises until it is back.")
OLDEST = "The age of the oldest instance that waits for a subscription. From 5 min on the rules warn, from 1 h on they page."


def violations(spark=True):
    return stat("Exactly-once violations", """What the broker itself saw of an event that was acknowledged and is about to come again, a cursor that
        went back, a raise that was passed over. Anything but 0 is a defect: look into the log of the node at once.""",
                "sum(ackord_exactly_once_violations_total)", "short", NONE_BAD, 0, spark)


def ready():
    return stat("Nodes ready", "Nodes that serve, of all members of the cluster, also of those that Prometheus does not reach.",
                f"sum(@ackord_ready) / sum({MEMBERS})", "percentunit", steps("bad", 0.5, "warn", 1, "ok"), 0)


def leaderless():
    return stat("Leaderless groups", "Raises to the sites of such a group wait. Usual for a fifth of a second when a node dies.",
                'max(sum by (namespace, instance) (ackord_groups{condition="leaderless"}))', "short", NONE_BAD, 0)


def nodes():
    by = "by (namespace, instance)"
    return table("Nodes", """What every node says of itself. A node that is not there is not reached by Prometheus. Leads: groups that it leads; they are spread
        evenly when nothing is wrong.""", ["namespace", "instance"], [
            ("ready", f"max {by} (ackord_ready)", "bool_yes_no", steps("bad", 1, "ok")),
            ("up for", f"max {by} (time() - ackord_start_time_seconds)", "s"),
            ("leads", f'sum {by} (ackord_groups{{role="leader"}})', "short"),
            ("follows", f'sum {by} (ackord_groups{{role=~"follower|learner"}})', "short"),
            ("sessions", f"sum {by} (ackord_sessions)", "short"),
            ("raises", f"sum {by} (rate(ackord_raises_total RATE))", "cps"),
            ("deliveries", f"sum {by} (rate(ackord_deliveries_total RATE))", "cps"),
            ("state", f"max {by} (ackord_state_bytes)", "bytes"),
            ("disk free", f"max {by} (ackord_disk_free_bytes)", "bytes"),
            ("clock ahead", f"max {by} (ackord_clock_ahead_seconds)", "s", steps("ok", 1, "warn", 5, "bad")),
        ])


def overview():
    return dashboard("ackord-overview", "Ackord / Overview", """Whether all is well, on one page: health in the first row, what flows in the second,
        and where it gets stuck below.""", [
            (4,
             ready(), violations(), leaderless(),
             stat("Alerts firing", "Rules of this broker that fire now.",
                  'count(ALERTS{alertname=~"Ackord.*",alertstate="firing"}) or vector(0)', "short", NONE_BAD, 0),
             stat("Disk until raises are refused", "What is free above the reserve, at the node that has least. At 0 raises are refused as disk-full.",
                  "min(ackord_disk_free_bytes - ackord_disk_reserve_bytes)", "bytes", steps("bad", 1, "warn", 2**30, "ok"), 1),
             stat("Certificate ends in", "The next end of a certificate that a node uses; without certificates there is none.",
                  "min(ackord_certificate_expiry_seconds) - time()", "s", steps("bad", 7 * 86400, "warn", 21 * 86400, "ok"), 1, False)),
            (4,
             stat("Stored", "Raises per second that were stored and synced by a majority.", STORED, "cps", PLAIN, 1),
             stat("Delivered", "Instances per second that went out the first time, to sessions and to receivers of push subscriptions.",
                  "sum(rate(ackord_deliveries_total RATE)) + sum(rate(ackord_push_delivered_total RATE))", "cps", PLAIN, 1),
             stat("Publish p99", "From a raise until its acknowledgement, which waits for the sync of a majority.",
                  "histogram_quantile(0.99, sum by (le) (rate(ackord_publish_seconds_bucket RATE)))", "s", LATENCY),
             stat("Delivery p99", "From the commit of an instance until it was handed out the first time.",
                  "histogram_quantile(0.99, sum by (le) (rate(ackord_delivery_seconds_bucket RATE)))", "s", steps("ok", 1, "low", 60, "bad")),
             stat("Waiting", WAITING, "sum(ackord_lag_instances)", "short", steps("ok", 1000, "warn", 100_000, "bad"), 0),
             stat("Oldest unacknowledged", OLDEST, "max(ackord_oldest_unacknowledged_seconds)", "s", steps("ok", 300, "warn", 3600, "bad"))),
            (8,
             series("Events in and out", "Raises that were stored, with and without a session; what went out the first time, and again.", [
                 ('sum(rate(ackord_raises_total{outcome="accepted"} RATE))', "stored, sessions"),
                 ('sum(rate(ackord_keyed_raises_total{outcome="accepted"} RATE)) or vector(0)', "stored, plain HTTP"),
                 ("sum(rate(ackord_deliveries_total RATE))", "delivered, sessions"),
                 ("sum(rate(ackord_push_delivered_total RATE))", "delivered, push"),
                 ("sum(rate(ackord_redeliveries_total RATE))", "again")], "cps"),
             percentiles("Publish latency", "From a raise until its acknowledgement. It is the sync of the disks, and a round trip to a majority.", "ackord_publish_seconds"),
             percentiles("Delivery latency", "From the commit until the first handing out. Clients that were away pull it up: what waited for them is old.",
                         "ackord_delivery_seconds", steps("ok", 1, "low", 60, "bad"), line=False)),
            (8,
             series("Waiting for subscribers", WAITING, [("sum by (instance) (ackord_lag_instances)", "{{instance}}")], "short", stack=True),
             series("Raises that were not stored", "By the code of the rejection or refusal: `ackord explain CODE` says what each means.", [
                 (HAPPENED.format("ackord_raises_total" + LOST) + NONE, "{{outcome}}"),
                 (HAPPENED.format("ackord_keyed_raises_total" + LOST), "{{outcome}}, plain HTTP")],
                    "cps", NONE_WARN),
             series("Sessions", "Open sessions by transport. All of them moving to fewer nodes is a node that went.",
                    [("sum by (transport) (ackord_transport_sessions)", "{{transport}}")], "short", stack=True)),
            "Nodes",
            (5, nodes()),
            (7,
             bars("Memory of the state", "State over its maximum: at 100 % raises are refused as over-capacity.",
                  "max by (instance) (ackord_state_bytes / ackord_state_max_bytes)", "{{instance}}", "percentunit", steps("ok", 0.8, "warn", 0.95, "bad"), 1),
             series("Log sync, p99", "The sync of the log is what every acknowledgement waits for.",
                    [("histogram_quantile(0.99, sum by (instance, le) (rate(ackord_log_sync_seconds_bucket RATE)))", "{{instance}}")], "s", LATENCY, line=True),
             series("Leads", "Groups that each node leads. A step is a change of leaders.",
                    [('sum by (instance) (ackord_groups{role="leader"})', "{{instance}}")], "short", stack=True)),
        ])


def delivery():
    applied = "sum by (reason) (max by (namespace, reason) (rate(ackord_instances_departed_total RATE)))"
    return dashboard("ackord-delivery", "Ackord / Delivery", """How events reach subscribers: how soon, how often again, what waits, and what is given up.""", [
        (4,
         violations(),
         stat("Delivered", "Instances per second that were sent to sessions the first time.", "sum(rate(ackord_deliveries_total RATE))", "cps", PLAIN, 1),
         stat("Sent again", "Of what is sent, the share that was sent before: returned by clients, or not acknowledged in time.",
              "sum(rate(ackord_redeliveries_total RATE)) / clamp_min(sum(rate(ackord_deliveries_total RATE)) + sum(rate(ackord_redeliveries_total RATE)), 1e-9)",
              "percentunit", steps("ok", 0.1, "warn", 0.5, "bad"), 1),
         stat("Subscriptions behind", "Subscriptions for which something waits, of all subscriptions.",
              "sum(ackord_subscriptions_lagging) / clamp_min(sum(ackord_subscriptions), 1)", "percentunit", steps("ok", 0.5, "warn"), 0),
         stat("Oldest unacknowledged", OLDEST, "max(ackord_oldest_unacknowledged_seconds)", "s", steps("ok", 300, "warn", 3600, "bad")),
         stat("Dead letters", "What subscriptions gave up after the last attempt and kept. `ackord dead-letter list` shows why.",
              "sum(ackord_dead_letters)", "short", NONE_WARN, 0)),
        "How soon",
        (8,
         heat("Delivery latency", "From the commit of an instance until it was handed out the first time: one column per moment, brighter is more.", "ackord_delivery_seconds"),
         heat("Publish latency", "From a raise until its acknowledgement.", "ackord_publish_seconds")),
        (7,
         percentiles("Delivery latency", "Half, 95 % and 99 % of first deliveries are faster than this.", "ackord_delivery_seconds", steps("ok", 1, "low", 60, "bad"), line=False),
         percentiles("Publish latency", "Half, 95 % and 99 % of acknowledgements are faster than this.", "ackord_publish_seconds")),
        "How often",
        (7,
         series("Sent and acknowledged", """Acknowledgements follow deliveries. A gap that stays is a handler that does not keep up, or fails.""", [
             ("sum(rate(ackord_deliveries_total RATE))", "sent, first time"), ("sum(rate(ackord_redeliveries_total RATE))", "sent again"),
             ("sum(rate(ackord_acks_total RATE))", "acknowledged"), ("sum(rate(ackord_commits_total RATE))", "cursors committed")], "cps"),
         series("Returned and sent again", "Instances that clients returned, and what was sent again, for that or because the time for an acknowledgement ran out.", [
             ("sum(rate(ackord_nacks_total RATE))", "returned"), ("sum(rate(ackord_redeliveries_total RATE))", "sent again")], "cps"),
         series("Stored, and stored before", "Instances that each replica stored, and raises that turned out to have been decided before: those cost nothing but a look.", [
             ("sum(max by (namespace) (rate(ackord_events_applied_total RATE)))", "stored"),
             ("sum(max by (namespace) (rate(ackord_duplicates_suppressed_total RATE)))", "duplicates")], "cps")),
        "What waits",
        (7,
         series("Waiting, by leader", WAITING, [("sum by (instance) (ackord_lag_instances)", "{{instance}}")], "short", stack=True),
         series("Oldest unacknowledged, by leader", OLDEST, [("max by (instance) (ackord_oldest_unacknowledged_seconds)", "{{instance}}")], "s",
                steps("ok", 300, "warn", 3600, "bad")),
         series("Subscriptions", "Of clients and push subscriptions, and those of them for which something waits.", [
             ("sum(ackord_subscriptions)", "all"), ("sum(ackord_subscriptions_lagging)", "behind")])),
        (7,
         series("Retained", "Instances in the queues, of the sites whose partitions a node leads.", [("sum by (instance) (ackord_retained_instances)", "{{instance}}")], stack=True),
         series("Bytes retained", "Their arguments.", [("sum by (instance) (ackord_retained_bytes)", "{{instance}}")], "bytes", stack=True),
         series("Instances that left their queues", """Why: acknowledged by whom they were for, superseded by a newer one, expired, evicted from a full queue, or
            removed. Evicted ones are lost to clients that had not come so far.""", [(applied, "{{reason}}")], "cps", stack=True)),
        "Push subscriptions and dead letters",
        (7,
         series("Push subscriptions, by state", "Cancelled ones ended by themselves, offline ones wait for their receiver. `ackord push list` names them.",
                [("sum by (state) (ackord_push_subscriptions)", "{{state}}")], stack=True),
         series("Delivered by push", "Instances that receivers took, by mode.", [("sum by (mode) (rate(ackord_push_delivered_total RATE))", "{{mode}}")], "cps"),
         series("Push: failed requests", "By kind of failure; below, datagrams that were not sent.", [
             ("sum by (kind) (rate(ackord_push_failed_total RATE))", "{{kind}}"),
             ("sum(rate(ackord_push_dropped_total RATE)) or vector(0)", "datagrams not sent")], "cps", NONE_WARN),
         series("Push: cancelled", "Push subscriptions that ended by themselves, since the nodes started, by kind of failure.",
                [("sum by (kind) (ackord_push_cancelled_total)", "{{kind}}")], "short", NONE_WARN)),
        (7,
         series("Dead letters", "A line that grows is a handler that does not take what it is sent.", [("sum(ackord_dead_letters)", "kept")], "short", NONE_WARN),
         series("Positions asked for", "Subscriptions that a client wanted to go on with at a position: resumed there, or restarted where that was not possible.",
                [("sum by (outcome) (rate(ackord_resumes_total RATE))", "{{outcome}}")], "cps"),
         series("Exactly-once violations", "Each must stay 0. The log of the node says what it was, the runbook what to do.",
                [("sum by (kind) (ackord_exactly_once_violations_total)", "{{kind}}")], "short", NONE_BAD, most=1)),
    ])


def cluster():
    return dashboard("ackord-cluster", "Ackord / Cluster and Raft", """Nodes, replica groups and their leaders, replication, commits and clocks.""", [
        (4,
         ready(), leaderless(),
         stat("Cut off", "Groups of nodes that no leader, or no majority, confirms any more: they acknowledge nothing.",
              'sum(ackord_groups{condition="cut-off"})', "short", NONE_BAD, 0),
         stat("Not connected", "The most members that a node has no connection to.", 'max(ackord_peers{connection="down"})', "short", NONE_BAD, 0),
         stat("New leaders, 1 h", "Times a group came to have another leader, as seen by the nodes, within an hour.",
              "max(increase(ackord_leader_changes_total[1h]))", "short", steps("ok", 50, "warn", 500, "bad"), 0),
         stat("Replication lag", "Log entries that the follower furthest behind does not have.", "max(ackord_replication_lag_entries)", "short",
              steps("ok", 10_000, "warn", 1_000_000, "bad"), 0),
         stat("Still to move", "Groups whose voters or leader are not yet those that the directory wants.", "max(ackord_groups_unsettled)", "short", NONE_WARN, 0),
         stat("Clocks apart", "The largest distance of a node's clock from what most nodes have.", "max(abs(ackord_clock_ahead_seconds))", "s", steps("ok", 1, "warn", 5, "bad"), 3)),
        (5, nodes()),
        "Groups and leaders",
        (7,
         series("Leads", "Groups that each node leads.", [('sum by (instance) (ackord_groups{role="leader"})', "{{instance}}")], stack=True),
         series("Groups, by role", "What the nodes are in their groups. Candidates are elections; learners follow without a vote.",
                [("sum by (role) (ackord_groups)", "{{role}}")], stack=True),
         series("Groups that are not steady", "Leaderless and cut off ones serve nobody; those that catch up or change do.",
                [('sum by (condition) (ackord_groups{condition!="steady"})', "{{condition}}")], "short", NONE_WARN, stack=True)),
        (7,
         series("Elections", "Terms that groups went on to and leaders that changed, per second, at the node that saw most.", [
             ("max(rate(ackord_term_changes_total RATE))", "terms"), ("max(rate(ackord_leader_changes_total RATE))", "leaders")], "cps"),
         series("Moves that nodes began", "Of nodes into groups, of votes and of leads: what brings the cluster to what the directory wants.",
                [("sum by (of) (rate(ackord_group_moves_total RATE))", "{{of}}")], "cps"),
         series("Groups that are still to move", "0 when nothing has to move. A number that stays is a mover that is stuck.",
                [("max by (instance) (ackord_groups_unsettled)", "{{instance}}")], "short", NONE_WARN)),
        "Replication",
        (7,
         series("Replication lag", "Log entries that the follower furthest behind does not have, at the leaders.",
                [("max by (instance) (ackord_replication_lag_entries)", "{{instance}}")], "short", steps("ok", 10_000, "warn", 1_000_000, "bad")),
         series("Apply lag", "Log entries that a node has and has not applied.", [("max by (instance) (ackord_apply_lag_entries)", "{{instance}}")], "short",
                steps("ok", 10_000, "warn")),
         series("Silence of leaders", "The longest that a partition here is without a leader's, or a majority's, confirmation. Above a second the node delivers nothing.",
                [("max by (instance) (ackord_leader_silence_seconds)", "{{instance}}")], "s", steps("ok", 1, "warn", 5, "bad"), line=True)),
        (8,
         heat("Commit latency", "From proposing a log entry until it was applied here.", "ackord_commit_seconds"),
         percentiles("Commit latency", "Half, 95 % and 99 % of entries are faster than this.", "ackord_commit_seconds"),
         percentiles("Applying an entry", "What changing the state takes; it is memory only.", "ackord_apply_seconds", line=False)),
        (7,
         series("Log entries", "Proposed here, sent to a leader elsewhere, and applied, over all nodes.", [
             ("sum(rate(ackord_entries_proposed_total RATE))", "proposed"), ("sum(rate(ackord_entries_forwarded_total RATE))", "batches sent to leaders"),
             ("sum(rate(ackord_entries_applied_total RATE))", "applied")], "cps"),
         series("Commands", "Taken into queues, applied, and answered by a later one.", [
             ("sum(rate(ackord_commands_proposed_total RATE))", "proposed"), ("sum(rate(ackord_commands_applied_total RATE))", "applied"),
             ("sum(rate(ackord_commands_coalesced_total RATE))", "coalesced")], "cps"),
         series("Commands in an entry", "The more there is to do, the more commands share an entry, and so a sync.",
                [("sum(rate(ackord_commands_applied_total RATE)) / clamp_min(sum(rate(ackord_entries_applied_total RATE)), 1e-9)", "commands")])),
        "Queues, clocks, lives",
        (7,
         series("Queues inside the nodes", "Commands that wait for an entry, requests that are not durable yet, questions of other nodes.",
                [("sum by (mailbox) (ackord_mailbox_depth)", "{{mailbox}}"), ("sum(ackord_entries_in_flight)", "entries on their way")]),
         series("Refused as busy", "Commands that were refused because a queue was full.", [("sum by (instance) (rate(ackord_refused_busy_total RATE))", "{{instance}}")], "cps", NONE_WARN),
         series("Clocks", "How far a node's clock is ahead of what most nodes have. One that is too far does not lead.",
                [("max by (instance) (ackord_clock_ahead_seconds)", "{{instance}}")], "s", steps("ok", 1, "warn", 5, "bad"), low=-0.01),
         series("Started, ready", "Nodes that have joined and caught up, and nodes that serve.", [("sum(ackord_started)", "started"), ("sum(ackord_ready)", "ready"),
                ("sum(ackord_build_info)", "running"), ("sum(up{}) or vector(0)", "scraped")])),
    ])


def storage():
    return dashboard("ackord-storage", "Ackord / Storage", "Disks, the log and its syncs, checkpoints, snapshots, and the memory of the state.", [
        (4,
         stat("Disk until raises are refused", "What is free above the reserve, at the node that has least.",
              "min(ackord_disk_free_bytes - ackord_disk_reserve_bytes)", "bytes", steps("bad", 1, "warn", 2**30, "ok"), 1),
         stat("Data on the disk", "Log, checkpoint and snapshots, at the node that has most.", "max(sum by (namespace, instance) (ackord_disk_used_bytes))", "bytes", PLAIN, 1),
         stat("State of its maximum", "At 100 % raises are refused as over-capacity.", "max(ackord_state_bytes / ackord_state_max_bytes)", "percentunit",
              steps("ok", 0.8, "warn", 0.95, "bad"), 1),
         stat("Log sync p99", "What every acknowledgement waits for, on a majority.",
              "histogram_quantile(0.99, sum by (le) (rate(ackord_log_sync_seconds_bucket RATE)))", "s", steps("ok", 0.05, "low", 0.25, "bad")),
         stat("Refused, 1 h", "Raises refused for the size of the state or the reserve of the disk within an hour.",
              "sum(increase(ackord_refused_over_capacity_total[1h])) + sum(increase(ackord_refused_disk_full_total[1h]))", "short", NONE_BAD, 0),
         stat("Snapshots pending", "Snapshots that were asked for and are not done.", "sum(ackord_snapshots_pending)", "short", steps("ok", 1, "low"), 0)),
        "Room",
        (8,
         series("Disk free", "At the reserve raises are refused; everything else goes on.", [
             ("min by (instance) (ackord_disk_free_bytes)", "{{instance}}"), ("max(ackord_disk_reserve_bytes)", "reserve")], "bytes"),
         series("Data on the disk, by part", "Of all nodes together. The log is purged once two snapshots have what is in it.",
                [("sum by (part) (ackord_disk_used_bytes)", "{{part}}")], "bytes", stack=True),
         bars("State over its maximum", "Above 100 % raises are refused as over-capacity.", "max by (instance) (ackord_state_bytes / ackord_state_max_bytes)",
              "{{instance}}", "percentunit", steps("ok", 0.8, "warn", 0.95, "bad"), 1)),
        (7,
         series("State", "Bytes of state of each node; every node has all partitions.", [("max by (instance) (ackord_state_bytes)", "{{instance}}")], "bytes"),
         series("Raises refused", "For the size of the state, and for the reserve of the disk.", [
             ("sum(rate(ackord_refused_over_capacity_total RATE))", "over capacity"), ("sum(rate(ackord_refused_disk_full_total RATE))", "disk full")], "cps", NONE_BAD),
         table("Room", "Each node's disk and memory. The state may grow up to its maximum, the disk down to the reserve.", ["namespace", "instance"], [
             ("free", "max by (namespace, instance) (ackord_disk_free_bytes)", "bytes"),
             ("reserve", "max by (namespace, instance) (ackord_disk_reserve_bytes)", "bytes"),
             ("data", "sum by (namespace, instance) (ackord_disk_used_bytes)", "bytes"),
             ("state", "max by (namespace, instance) (ackord_state_bytes)", "bytes"),
             ("at most", "max by (namespace, instance) (ackord_state_max_bytes)", "bytes")])),
        "The log",
        (8,
         heat("Log sync", "What a sync of the log takes: the disk's own latency. A second bright band is a disk with hiccups.", "ackord_log_sync_seconds"),
         percentiles("Log sync", "Half, 95 % and 99 % of syncs are faster than this.", "ackord_log_sync_seconds", steps("ok", 0.05, "low", 0.25, "bad")),
         series("Log sync, p99 by node", "One line above the others is one bad disk.",
                [("histogram_quantile(0.99, sum by (instance, le) (rate(ackord_log_sync_seconds_bucket RATE)))", "{{instance}}")], "s", steps("ok", 0.05, "low", 0.25, "bad"))),
        (7,
         series("Writes and syncs", "Of the log, over all nodes.", [("sum(rate(ackord_log_writes_total RATE))", "writes"), ("sum(rate(ackord_log_syncs_total RATE))", "syncs")], "cps"),
         series("Bytes written to the log", "By node.", [("sum by (instance) (rate(ackord_log_bytes_total RATE))", "{{instance}}")], "binBps"),
         series("Entries in a sync", "The more there is to do, the more entries share a sync.",
                [("sum by (instance) (rate(ackord_log_entries_total RATE)) / clamp_min(sum by (instance) (rate(ackord_log_syncs_total RATE)), 1e-9)", "{{instance}}")]),
         series("Cold reads and purges", "Reads of the log that went to the disk: a follower far behind. Purges make room.", [
             ("sum(rate(ackord_log_cold_reads_total RATE))", "cold reads"), ("sum(rate(ackord_log_purges_total RATE))", "purges")], "cps")),
        "Checkpoints and snapshots",
        (7,
         (5, series("Checkpoints", "Batches written, and checkpoints that were discarded and written anew.", [
             ("sum(rate(ackord_checkpoints_total RATE))", "batches"), ("sum(rate(ackord_checkpoint_rebuilds_total RATE))", "rebuilt")], "cps")),
         (5, series("Rows written to checkpoints", "What changed since the last batch.", [("sum by (instance) (rate(ackord_checkpoint_rows_total RATE))", "{{instance}}")], "cps")),
         (5, series("Rows not in a checkpoint yet", "They rise while more changes than checkpoints may write in their share of a core. A node that restarts applies them from the log again.",
                    [("sum by (instance) (ackord_checkpoint_rows_due)", "{{instance}}")])),
         (4, series("Snapshots", "Built, installed, and not done yet.", [
             ("sum(ackord_snapshots_built_total)", "built"), ("sum(ackord_snapshots_installed_total)", "installed"), ("sum(ackord_snapshots_pending)", "pending")])),
         (5, series("Snapshots received", "Bytes from other nodes: one that joins, or was away for long.",
                    [("sum by (instance) (rate(ackord_snapshot_received_bytes_total RATE))", "{{instance}}")], "binBps"))),
    ])


def clients():
    return dashboard("ackord-clients", "Ackord / Clients and transports", "Who is connected and how, what is refused and closed, frames, requests and certificates.", [
        (4,
         stat("Sessions", "Open sessions of services, clients, guests and polls.", "sum(ackord_sessions)", "short", PLAIN, 0),
         stat("Connections", "Open connections of the front, with and without a session.", "sum(ackord_connections)", "short", PLAIN, 0),
         stat("Stalled", "Sessions whose peer does not read: they wait for room, and are closed as slow-consumer in the end.", "sum(ackord_sessions_stalled)", "short", NONE_WARN, 0),
         stat("Refused, 1 h", "Sessions refused within an hour, whatever the reason.", "sum(increase(ackord_sessions_refused_total[1h]))", "short", NONE_WARN, 0),
         stat("Requests failed", "Share of HTTP requests that were answered with 5xx.",
              '(sum(rate(ackord_http_requests_total{status=~"5.."} RATE)) or vector(0)) / clamp_min(sum(rate(ackord_http_requests_total RATE)), 1e-9)', "percentunit",
              steps("ok", 0.01, "warn", 0.05, "bad"), 1),
         stat("Certificate ends in", "The next end of a certificate that a node uses.", "min(ackord_certificate_expiry_seconds) - time()", "s",
              steps("bad", 7 * 86400, "warn", 21 * 86400, "ok"), 1, False)),
        "Sessions",
        (7,
         series("Sessions, by kind", "Services raise; clients have an account, guests are stateless; polls come and go.", [("sum by (kind) (ackord_sessions)", "{{kind}}")], stack=True),
         series("Sessions, by transport", "How they are connected.", [("sum by (transport) (ackord_transport_sessions)", "{{transport}}")], stack=True),
         series("Sessions, by node", "They spread as endpoints choose; a node that restarts begins with none.", [("sum by (instance) (ackord_sessions)", "{{instance}}")], stack=True)),
        (7,
         series("Opened", "Sessions opened, by kind.", [("sum by (kind) (rate(ackord_sessions_opened_total RATE))", "{{kind}}")], "cps"),
         series("Refused", "By the code of the protocol: `ackord explain CODE`.", [("sum by (reason) (rate(ackord_sessions_refused_total RATE))", "{{reason}}")], "cps", NONE_WARN),
         series("Closed by the broker", "Replaced is a second session of one account, slow-consumer a peer that does not read.",
                [("sum by (reason) (rate(ackord_session_closes_total RATE))", "{{reason}}")], "cps"),
         series("Stalled", "Sessions whose peer does not read.", [("sum by (instance) (ackord_sessions_stalled)", "{{instance}}")], "short", NONE_WARN)),
        "Raises",
        (7,
         series("Raises of sessions", "By what they came to.", [(HAPPENED.format("ackord_raises_total") + NONE, "{{outcome}}")], "cps"),
         series("Raises without a session", "Over plain HTTP, by what they came to. Duplicates are keys that came again.",
                [(HAPPENED.format("ackord_keyed_raises_total") + NONE, "{{outcome}}")], "cps"),
         heat("Size of arguments", "Encoded arguments of raises.", "ackord_raise_bytes", "bytes"),
         series("Proposals refused", "Proposals of sessions that failed, by reason.", [("sum by (reason) (rate(ackord_proposals_refused_total RATE))", "{{reason}}")], "cps", NONE_WARN)),
        "WebSockets and streams",
        (7,
         series("WebSockets and streams open", "By endpoint, and streams of Server-Sent Events by kind of client.", [
             ("sum by (endpoint) (ackord_websockets)", "WebSocket, {{endpoint}}"), ("sum by (kind) (ackord_event_streams)", "stream, {{kind}}")], stack=True),
         series("Opened", "WebSockets by encoding, and streams.", [
             ("sum by (codec) (rate(ackord_websockets_opened_total RATE))", "WebSocket, {{codec}}"), ("sum(rate(ackord_event_streams_opened_total RATE)) or vector(0)", "stream")], "cps"),
         series("Closed", "By the code of the close; peer is a close or a loss by the other side.", [
             ("sum by (code) (rate(ackord_websockets_closed_total RATE))", "WebSocket, {{code}}"), ("sum by (code) (rate(ackord_event_streams_closed_total RATE))", "stream, {{code}}")], "cps")),
        (7,
         series("Frames", "Of the protocol, all transports.", [("sum(rate(ackord_frames_received_total RATE))", "received"), ("sum(rate(ackord_frames_sent_total RATE))", "sent")], "cps"),
         series("Bytes of frames", "Of the protocol, all transports.", [
             ("sum(rate(ackord_frame_received_bytes_total RATE))", "received"), ("sum(rate(ackord_frame_sent_bytes_total RATE))", "sent")], "binBps"),
         series("WebSocket messages", "As they are on the wire.", [
             ("sum(rate(ackord_websocket_received_messages_total RATE))", "received"), ("sum(rate(ackord_websocket_sent_messages_total RATE))", "sent")], "cps"),
         series("WebSocket bytes", "As they are on the wire.", [
             ("sum(rate(ackord_websocket_received_bytes_total RATE))", "received"), ("sum(rate(ackord_websocket_sent_bytes_total RATE))", "sent")], "binBps")),
        "HTTP",
        (8,
         series("Requests, by status", "Upgrades to WebSockets are 101.", [("sum by (status) (rate(ackord_http_requests_total RATE))", "{{status}}")], "reqps", stack=True),
         bars("Busiest addresses", "The ten routes with most requests.", "sort_desc(topk(10, sum by (route) (rate(ackord_http_requests_total RATE))))", "{{route}}", "reqps"),
         heat("Time to answer", "Of requests; a poll that waits answers late on purpose.", "ackord_http_request_seconds"),
         percentiles("Time to answer", "Half, 95 % and 99 % of requests are faster than this.", "ackord_http_request_seconds", line=False)),
        "TLS and files",
        (7,
         series("TLS handshakes", "Of the front, by result. Without TLS there are none.", [("sum by (result) (rate(ackord_tls_handshakes_total RATE))", "{{result}}")], "cps"),
         table("Certificates", "When each certificate in use ends. The rules warn three weeks before.", ["namespace", "instance", "certificate"],
               [("ends in", "max by (namespace, instance, certificate) (ackord_certificate_expiry_seconds) - time()", "s", steps("bad", 7 * 86400, "warn", 21 * 86400, "ok"))]),
         series("Files read again", "Certificates and keys that had changed. One that fails is not used; the log says why.",
                [("sum by (file, result) (ackord_file_reloads_total)", "{{file}} {{result}}")]),
         series("Spans of traces", "Told to the collector of `otel.endpoint`, and not told, by reason. No event waits for them.", [
             ("sum(rate(ackord_spans_exported_total RATE))", "exported"), ("sum by (reason) (rate(ackord_spans_dropped_total RATE))", "dropped, {{reason}}")], "cps", NONE_WARN)),
    ])


def tenants():
    site = "max by (namespace, site{}) ({})"
    return dashboard("ackord-tenants", "Ackord / Tenants", """Sites: the ten whose events wait longest, and the queues, subscriptions and push subscriptions of those that are
        scraped at /metrics/detailed. Names of sites are shown to a scrape with the node's administration token only.""", [
            (4,
             stat("Sites", "All sites of the cluster.", "sum(ackord_sites)", "short", PLAIN, 0),
             stat("Subscriptions", "Of clients, and push subscriptions.", "sum(ackord_subscriptions)", "short", PLAIN, 0),
             stat("Behind", "Subscriptions for which something waits.", "sum(ackord_subscriptions_lagging)", "short", PLAIN, 0),
             stat("Retained", "Instances in all queues.", "sum(ackord_retained_instances)", "short", PLAIN, 0),
             stat("Bytes retained", "Their arguments.", "sum(ackord_retained_bytes)", "bytes", PLAIN, 1),
             stat("Dead letters", "Of all sites.", "sum(ackord_dead_letters)", "short", NONE_WARN, 0)),
            "Sites whose events wait longest",
            (9,
             table("Sites", "The ten sites whose oldest unacknowledged instance is the oldest.", ["namespace", "site"], [
                 ("oldest waits", site.format("", "ackord_site_oldest_unacknowledged_seconds"), "s", steps("ok", 300, "warn", 3600, "bad")),
                 ("waiting", site.format("", "ackord_site_lag_instances"), "short", steps("ok", 1000, "warn"))], "oldest waits"),
             series("Oldest unacknowledged, by site", OLDEST, [(site.format("", "ackord_site_oldest_unacknowledged_seconds"), "{{site}}")], "s", steps("ok", 300, "warn", 3600, "bad")),
             series("Waiting, by site", WAITING, [(site.format("", "ackord_site_lag_instances"), "{{site}}")], "short")),
            "Inside the sites that are scraped in detail",
            (9,
             (8, table("Queues", "Retained instances of every event, and the age of the oldest.", ["namespace", "site", "event"], [
                 ("retained", site.format(", event", "ackord_queue_retained_instances"), "short"),
                 ("oldest", site.format(", event", "ackord_queue_oldest_age_seconds"), "s")], "retained")),
             (16, table("Subscriptions", """What waits for each client, for how long, what is under way, and its position. Under way is known to the node that has the session.""",
                        ["namespace", "site", "client", "event"], [
                            ("waiting", site.format(", client, event", "ackord_subscription_lag_instances"), "short", steps("ok", 100, "warn", 1000, "bad")),
                            ("oldest waits", site.format(", client, event", "ackord_subscription_oldest_unacknowledged_seconds"), "s", steps("ok", 300, "warn", 3600, "bad")),
                            ("under way", site.format(", client, event", "ackord_subscription_in_flight_instances"), "short"),
                            ("position", site.format(", client, event", "ackord_subscription_position"), "none")], "waiting"))),
            (9,
             (16, table("Push subscriptions", "The same of push subscriptions, with the state that each is in.", ["namespace", "site", "push", "state"], [
                 ("in state", site.format(", push, state", "ackord_push_subscription_state") + " == 1", "short"),
                 ("waiting", "(max by (namespace, site, push) (ackord_push_subscription_lag_instances)) * on (namespace, site, push) group_right () "
                  "(max by (namespace, site, push, state) (ackord_push_subscription_state) == 1)", "short", steps("ok", 100, "warn", 1000, "bad")),
                 ("oldest waits", "(max by (namespace, site, push) (ackord_push_subscription_oldest_unacknowledged_seconds)) * on (namespace, site, push) group_right () "
                  "(max by (namespace, site, push, state) (ackord_push_subscription_state) == 1)", "s", steps("ok", 300, "warn", 3600, "bad")),
                 ("under way", "(max by (namespace, site, push) (ackord_push_subscription_in_flight_instances)) * on (namespace, site, push) group_right () "
                  "(max by (namespace, site, push, state) (ackord_push_subscription_state) == 1)", "short"),
                 ("position", "(max by (namespace, site, push) (ackord_push_subscription_position)) * on (namespace, site, push) group_right () "
                  "(max by (namespace, site, push, state) (ackord_push_subscription_state) == 1)", "none")], "waiting")),
             (8, series("Retained, by event", "Instances in the queues of the sites that are scraped in detail.",
                        [(site.format(", event", "ackord_queue_retained_instances"), "{{site}} {{event}}")]))),
        ], site=True)


DASHBOARDS = {"overview": overview, "delivery": delivery, "cluster": cluster, "storage": storage, "clients": clients, "tenants": tenants}


def files():
    """Every file that is made, with its text."""
    for name, make in DASHBOARDS.items():
        text = json.dumps(make(), indent=1, ensure_ascii=False) + "\n"
        yield HERE / f"dashboards/{name}.json", text
        yield CHART / f"dashboards/{name}.json", text
    for rules in sorted((HERE / "rules").glob("*.yaml")):
        yield CHART / "rules" / rules.name, rules.read_text()


def main():
    check, stale = "--check" in sys.argv[1:], []
    wanted = dict(files())
    there = [*(HERE / "dashboards").glob("*"), *(CHART / "dashboards").glob("*"), *(CHART / "rules").glob("*")]
    for path in {*wanted, *there}:
        if not path.exists() or path.read_text() != wanted.get(path):
            stale.append(path)
            if not check and path in wanted:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(wanted[path])
            elif not check:
                path.unlink()
    for path in sorted(stale):
        print(f"{path.relative_to(HERE.parent)} {'is not what grafana/make.py makes: run it' if check else 'is written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
