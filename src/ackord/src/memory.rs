//! How much memory this process may use.

use std::fs;

/// What is assumed where nothing says how much there is.
const UNKNOWN: u64 = 4 << 30;

/// Half of the machine's memory, or of the control group's limit where that is lower; bytes.
pub fn half() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse().ok());
    let least = machine.into_iter().chain(group).min();
    least.unwrap_or(UNKNOWN) / 2
}

/// `MemTotal` of `/proc/meminfo`, bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_in_the_kernels_words() {
        let text = "MemFree:         1000 kB\nMemTotal:       24567890 kB\n";
        assert_eq!(total(text), Some(24_567_890 * 1024));
        assert_eq!(total("MemTotal: many"), None);
    }
}
