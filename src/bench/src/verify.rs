//! The checks of a run, as sentences: what holds and what does not.

use std::collections::BTreeMap;

use crate::ground::Retained;
use crate::report::{Counts, Report};

/// Failures of one check that are named; the rest is counted.
const NAMED: usize = 5;

/// The checks so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) verified: Vec<String>,
    pub(crate) failures: Vec<String>,
    pub(crate) counts: Counts,
}

/// Adds to a count; what was not counted before is from now on.
pub(crate) fn count(to: &mut Option<u64>, more: u64) {
    *to = Some(to.unwrap_or(0) + more);
}

impl Checks {
    /// Writes into a report what was found.
    pub(crate) fn found(self, report: &mut Report) {
        let any = !self.verified.is_empty() || !self.failures.is_empty();
        report.verified = any.then_some(self.failures.is_empty());
        report.checks = self.verified;
        report.failures = self.failures;
        report.counts = self.counts;
    }

    /// Records a check by the places that break it.
    pub(crate) fn check(&mut self, what: &str, broken: Vec<String>) {
        if broken.is_empty() {
            self.verified.push(what.to_owned());
            return;
        }
        let more = broken.len().saturating_sub(NAMED);
        let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
        let named = broken.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
        self.failures.push(format!("{what}: {named}{rest}"));
    }
}

/// Where ids do not increase strictly.
pub(crate) fn not_increasing(who: &str, ids: &[u64]) -> Vec<String> {
    let pairs = ids.windows(2).filter(|pair| pair[1] <= pair[0]);
    pairs.map(|pair| format!("{who}: {} after {}", pair[1], pair[0])).collect()
}

/// Ids that were acknowledged more than once in a site.
pub(crate) fn repeated<'a>(site: &str, ids: impl Iterator<Item = &'a u64>) -> Vec<String> {
    let mut ids: Vec<u64> = ids.copied().collect();
    ids.sort_unstable();
    let twice = ids.windows(2).filter(|pair| pair[0] == pair[1]);
    twice.map(|pair| format!("{site}: {} twice", pair[0])).collect()
}

/// Services whose retained ids are not exactly the last ones that were acknowledged to them, of a queue
/// that keeps so many.
pub(crate) fn wrong_tails(
    retained: &Retained,
    acknowledged: &BTreeMap<String, Vec<u64>>,
    size: usize,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (service, ids) in acknowledged {
        let kept = retained.get(service).map(Vec::as_slice).unwrap_or_default();
        if !ids.ends_with(kept) || kept.len() != ids.len().min(size) {
            wrong.push(format!("{service}: retains {} other ones", kept.len()));
        }
    }
    wrong
}

/// Counts how what was handled differs from what was expected.
pub(crate) fn count_deliveries(counts: &mut Counts, handled: &[u64], expected: &[u64]) {
    let fallen = handled.windows(2).filter(|pair| pair[1] <= pair[0]).count();
    let mut came = handled.to_vec();
    came.sort_unstable();
    came.dedup();
    let missing = expected.iter().filter(|id| came.binary_search(id).is_err()).count();
    count(&mut counts.received, handled.len() as u64);
    count(&mut counts.duplicated, (handled.len() - came.len()) as u64);
    count(&mut counts.out_of_order, fallen as u64);
    count(&mut counts.lost, missing as u64);
}

/// Whether what was handled is what was expected: complete, in order, each once.
pub(crate) fn wrong_deliveries(who: &str, handled: &[u64], expected: &[u64]) -> Option<String> {
    if handled == expected {
        return None;
    }
    let at = handled.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let show = |ids: &[u64]| ids.get(at).map_or("nothing".to_owned(), u64::to_string);
    let (got, wanted) = (show(handled), show(expected));
    Some(format!("{who}: {got} instead of {wanted} at place {}", at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_finds_what_breaks_it() {
        assert_eq!(not_increasing("p", &[1, 2, 2, 5, 4]).len(), 2);
        assert_eq!(repeated("s", [1, 2, 1].iter()).len(), 1);
        assert_eq!(wrong_deliveries("c", &[1, 2], &[1, 2]), None);
        assert!(wrong_deliveries("c", &[1, 3], &[1, 2, 3]).unwrap().contains("3 instead of 2"));
        assert!(wrong_deliveries("c", &[1], &[1, 2]).unwrap().contains("nothing instead of 2"));
        let acknowledged = BTreeMap::from([("p".to_owned(), vec![1, 2, 3])]);
        let tail = |ids: &[u64]| Retained::from([("p".to_owned(), ids.to_vec())]);
        assert_eq!(wrong_tails(&tail(&[2, 3]), &acknowledged, 2).len(), 0);
        assert_eq!(wrong_tails(&tail(&[2, 3]), &acknowledged, 3).len(), 1);
        assert_eq!(wrong_tails(&tail(&[1, 2]), &acknowledged, 2).len(), 1);
        assert_eq!(wrong_tails(&tail(&[3, 4]), &acknowledged, 2).len(), 1);
        assert_eq!(wrong_tails(&Retained::new(), &acknowledged, 2).len(), 1);
    }

    #[test]
    fn what_is_missing_came_again_or_fell_is_counted() {
        let mut counts = Counts::default();
        count_deliveries(&mut counts, &[1, 2, 2, 4], &[1, 2, 3, 4]);
        count_deliveries(&mut counts, &[2, 1], &[1, 2]);
        let Counts { received, lost, duplicated, out_of_order, acked } = counts;
        assert_eq!(
            (received, lost, duplicated, out_of_order),
            (Some(6), Some(1), Some(1), Some(2))
        );
        assert_eq!(acked, None);
    }

    #[test]
    fn many_failures_are_counted_not_listed() {
        let mut checks = Checks::default();
        checks.check("order", (0..9).map(|n| n.to_string()).collect());
        assert_eq!(checks.failures, ["order: 0; 1; 2; 3; 4, and 4 more"]);
    }
}
