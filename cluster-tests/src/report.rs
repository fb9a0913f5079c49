//! The tables of `docs/reliability.md`, made from what the matrix and the catch table wrote.
//!
//! Invariant: between the marks of a table stands what was measured and nothing else; the page around
//! it is written by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, ensure};

use crate::catch::Caught;
use crate::matrix::Line;

/// Puts a table between its marks.
///
/// # Errors
/// When the page has no such marks.
pub fn put(page: &str, name: &str, table: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let from = page.find(&begin).with_context(|| format!("no {begin:?}"))? + begin.len();
    let to = page[from..].find(&end).with_context(|| format!("no {end:?}"))? + from;
    Ok(format!("{}\n{table}\n{}", &page[..from], &page[to..]))
}

/// One line per JSON object.
///
/// # Errors
/// When a line is something else.
pub fn read<T: serde::de::DeserializeOwned>(text: &str) -> anyhow::Result<Vec<T>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// All runs of each row together.
///
/// # Errors
/// When there is none.
pub fn matrix(lines: &[Line]) -> anyhow::Result<String> {
    ensure!(!lines.is_empty(), "no row ran");
    let mut rows: BTreeMap<u32, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        rows.entry(line.row).or_default().push(line);
    }
    let mut table = String::from(
        "| row | fault | nodes | runs | happened | operations | lost | twice | other | longest wait, ms | verdict |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (number, runs) in &rows {
        let sum = |of: fn(&Line) -> u64| runs.iter().map(|line| of(line)).sum::<u64>();
        let passed = runs.iter().filter(|line| line.verdict == "pass").count();
        let verdict = if passed == runs.len() {
            "pass".to_owned()
        } else {
            format!("**{} of {} failed**", runs.len() - passed, runs.len())
        };
        let waited = runs.iter().map(|line| line.longest_wait_ms).max().unwrap_or(0);
        writeln!(
            table,
            "| {number} | {} | {} | {} | {} | {} | {} | {} | {} | {waited} | {verdict} |",
            runs[0].fault,
            runs[0].nodes,
            runs.len(),
            sum(|line| line.injected),
            sum(|line| line.ops),
            sum(|line| line.lost as u64),
            sum(|line| line.twice as u64),
            sum(|line| line.other as u64),
        )?;
    }
    let mut seeds: Vec<u64> = lines.iter().map(|line| line.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let seconds: u64 = lines.iter().map(|line| line.seconds).sum();
    writeln!(table, "\nSeeds {}; {} minutes in all.", seeds.join(", "), seconds.div_ceil(60))?;
    Ok(table)
}

/// The catch table.
///
/// # Errors
/// When there is nothing in it.
pub fn catch(lines: &[Caught]) -> anyhow::Result<String> {
    ensure!(!lines.is_empty(), "no mistake was planted");
    let mut table =
        String::from("| mistake | patch | looked for by | found |\n|---|---|---|---|\n");
    let newest: BTreeMap<&str, &Caught> = lines.iter().map(|line| (&*line.bug, line)).collect();
    for line in newest.values() {
        let found = if line.caught { format!("after {} s", line.seconds) } else { "**no**".into() };
        writeln!(table, "| {} | `{}` | `{}` | {found} |", line.title, line.bug, line.by)?;
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_put_between_its_marks_and_nothing_else_changes() {
        let page = "before\n<!-- x: begin -->\nold\n<!-- x: end -->\nafter\n";
        let put_once = put(page, "x", "| new |\n").unwrap();
        let expected = "before\n<!-- x: begin -->\n\n| new |\n\n<!-- x: end -->\nafter\n";
        assert_eq!(put_once, expected);
        assert_eq!(put(&put_once, "x", "| new |\n").unwrap(), expected);
        assert!(put(page, "y", "").is_err());
    }
}
