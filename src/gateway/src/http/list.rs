//! Lists with filters: pages in ascending order of names, found by ranges where that is possible.
//!
//! Invariant: one page looks at a bounded number of objects. A filter that few of them pass ends a
//! page early, with a `next` behind the last one looked at: so a page may be short, even empty, and
//! only one without `next` is the last.

use ackord_wire::Problem;
use ackord_wire::resource::Page;

use super::query::{Query, Window};

/// Objects that one page looks at, at most.
pub const LOOKED_AT_MAX: usize = 10_000;

/// What of a list is wanted: which part, and names that begin like this.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub window: Window,
    prefix: String,
}

impl Wanted {
    /// As the query says it.
    pub fn of(query: &Query) -> Result<Self, Problem> {
        let prefix = query.get("prefix").unwrap_or_default().to_owned();
        Ok(Self { window: query.window()?, prefix })
    }

    /// What the names begin like.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a name may be on this page, as far as its beginning says.
    pub fn begins(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    /// The objects from the first wanted one on: `exact` finds one by name, `behind` those behind a
    /// name, in ascending order.
    pub fn rows<'s, R: 's, I: Iterator<Item = &'s R>>(
        &self,
        exact: impl FnOnce(&str) -> Option<&'s R>,
        behind: impl FnOnce(&str) -> I,
    ) -> impl Iterator<Item = &'s R> {
        let after = self.window.after();
        // Behind the prefix itself there is everything that begins with it, but for its own name.
        let (first, start) = if *self.prefix > *after {
            (exact(&self.prefix), &*self.prefix)
        } else {
            (None, after)
        };
        first.into_iter().chain(behind(start))
    }

    /// A page of the objects that are kept. `name` is what the next page goes on behind.
    pub fn page<'s, R: 's, T>(
        &self,
        rows: impl Iterator<Item = &'s R>,
        name: impl Fn(&'s R) -> &'s str,
        keep: impl Fn(&'s R) -> bool,
        resource: impl Fn(&'s R) -> T,
    ) -> Page<T> {
        let mut items = Vec::new();
        let mut last = None;
        for (looked_at, row) in rows.take_while(|row| self.begins(name(row))).enumerate() {
            let full = items.len() == self.window.limit;
            if looked_at == LOOKED_AT_MAX || full && keep(row) {
                return Page { items, next: last.map(|row| name(row).to_owned()) };
            }
            if !full && keep(row) {
                items.push(resource(row));
            }
            last = Some(row);
        }
        Page { items, next: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: &[&str], next: Option<&str>) {
        let names = ["a", "ab", "abc", "b", "bc", "c"].map(str::to_owned);
        let query = Query::parse(query, &["limit", "after", "prefix"]).unwrap();
        let wanted = Wanted::of(&query).unwrap();
        let rows = wanted.rows(
            |name| names.iter().find(|other| *other == name),
            |after| {
                let after = after.to_owned();
                names.iter().filter(move |name| **name > after)
            },
        );
        let keep = |name: &String| name != "ab";
        let page = wanted.page(rows, |name| name.as_str(), keep, Clone::clone);
        assert_eq!(
            (page.items, page.next.as_deref()),
            (expected.iter().map(|name| (*name).to_owned()).collect(), next)
        );
    }

    #[test]
    fn pages_go_on_where_they_ended_and_hold_what_begins_like_the_prefix() {
        check("", &["a", "abc", "b", "bc", "c"], None);
        check("limit=2", &["a", "abc"], Some("abc"));
        check("limit=2&after=abc", &["b", "bc"], Some("bc"));
        check("limit=2&after=bc", &["c"], None);
        check("prefix=a", &["a", "abc"], None);
        check("prefix=ab&limit=1", &["abc"], None);
        check("prefix=a&limit=1", &["a"], Some("ab"));
        check("prefix=a&limit=1&after=ab", &["abc"], None);
        check("prefix=b&after=a", &["b", "bc"], None);
        check("prefix=a&after=b", &[], None);
        check("prefix=x", &[], None);
    }

    #[test]
    fn a_page_looks_at_a_bounded_number_of_objects() {
        let names: Vec<String> = (0..2 * LOOKED_AT_MAX).map(|n| format!("n{n:06}")).collect();
        let wanted = Wanted::of(&Query::default()).unwrap();
        let rare = |name: &String| name == "n015000";
        let page = |after: &str| {
            let rows = names.iter().filter(|name| name.as_str() > after);
            wanted.page(rows, |name| name.as_str(), rare, Clone::clone)
        };
        let first = page("");
        assert!(first.items.is_empty());
        let second = page(&first.next.unwrap());
        assert_eq!((second.items, second.next), (vec!["n015000".to_owned()], None));
    }
}
