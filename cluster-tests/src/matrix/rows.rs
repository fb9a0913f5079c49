//! The rows: what is done to a cluster, after what brokers before were caught with.

use super::{Ground, Row, faults};

const fn row(
    number: u32,
    fault: &'static str,
    strike: for<'a> fn(&'a mut super::Run) -> futures_util::future::LocalBoxFuture<'a, ()>,
) -> Row {
    Row { number, fault, nodes: 3, ground: Ground::Plain, rounds: [2, 6], gate: false, strike }
}

const fn on(ground: Ground, row: Row) -> Row {
    Row { ground, ..row }
}

const fn of(nodes: usize, row: Row) -> Row {
    Row { nodes, ..row }
}

const fn in_gate(row: Row) -> Row {
    Row { gate: true, ..row }
}

const fn rounds(short: usize, whole: usize, row: Row) -> Row {
    Row { rounds: [short, whole], ..row }
}

/// All rows.
pub static ROWS: &[Row] = &[
    row(1, "kill one", faults::kill_one),
    in_gate(row(2, "kill a leader", faults::kill_leader)),
    in_gate(row(3, "kill a majority, kill all", faults::kill_many)),
    in_gate(row(4, "a zombie leader: suspended and resumed", faults::zombie)),
    row(5, "partition: one alone, no majority anywhere", faults::partition),
    of(5, row(6, "partition: ring, bridge", faults::ring_or_bridge)),
    row(7, "a leader cut off from its peers only", faults::leader_without_peers),
    row(8, "one-way partitions", faults::one_way),
    row(9, "flapping links", faults::flapping),
    in_gate(row(10, "delay, jitter, reordering, dripping and half-open links", faults::slow_links)),
    row(11, "kill while suspended or cut off", faults::kill_while_away),
    in_gate(on(Ground::Disks, row(12, "power cut: one, all, torn", faults::power))),
    on(
        Ground::Disks,
        rounds(
            1,
            3,
            row(
                13,
                "power cut during snapshots, purges, a change of members, a first start",
                faults::power_in_work,
            ),
        ),
    ),
    on(Ground::Disks, row(14, "power cut while another one is suspended", faults::power_and_pause)),
    row(15, "bit flips on a stopped node", faults::bit_flips),
    in_gate(row(16, "a truncated file, yesterday's disk", faults::old_disk)),
    in_gate(rounds(1, 2, row(17, "a wiped node: its old id, a new id", faults::wiped))),
    on(Ground::Disks, row(18, "full disk: one, all", faults::full_disk)),
    on(Ground::Disks, row(19, "failing and slow syncs", faults::failing_syncs)),
    in_gate(on(Ground::Clocks, rounds(1, 3, row(20, "clocks that jump", faults::clocks)))),
    rounds(1, 2, row(21, "members change under faults", faults::members)),
    rounds(1, 2, row(22, "a long absence, and a snapshot", faults::absence)),
    rounds(1, 2, row(23, "rolling restart, and upgrade from the oldest protocol", faults::rolling)),
    rounds(1, 3, row(24, "processors squeezed, one node suspended beside it", faults::squeeze)),
    in_gate(rounds(
        2,
        8,
        row(25, "clients and services that crash around the acknowledgement", faults::crashes),
    )),
    in_gate(on(Ground::Disks, rounds(1, 6, row(26, "everything at once", faults::everything)))),
    rounds(2, 6, row(27, "memory squeezed: of a leader, of any", faults::memory)),
];

/// A seed that found something once, which is mended.
pub struct Found {
    /// The row.
    pub row: u32,
    /// How many rounds it took.
    pub rounds: usize,
    /// What was drawn from.
    pub seed: u64,
    /// What it was.
    pub what: &'static str,
}

/// Seeds that are run again: `matrix --found`.
pub static FOUND: &[Found] = &[
    Found {
        row: 5,
        rounds: 2,
        seed: 11_541_732_074_074_997_307,
        what: "a snapshot that was received was taken for an own one",
    },
    Found { row: 5, rounds: 6, seed: 301, what: "what was made and removed again was refused" },
    Found { row: 10, rounds: 6, seed: 401, what: "what had expired was waited for, by the matrix" },
    Found { row: 13, rounds: 3, seed: 811, what: "a panic that the store catches ended a node" },
    Found { row: 15, rounds: 6, seed: 11, what: "endpoints knew no node that was left" },
    Found { row: 16, rounds: 4, seed: 7, what: "a node went on with an older copy of its disk" },
];
