//! A part of a model's state that is shared until it changes, and known by what it reads as.

use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// See the module.
pub struct Whole<T>(Arc<(T, u64)>);

/// Feeds text to a hash instead of writing it down.
struct Reader(DefaultHasher);

impl Write for Reader {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

fn reads_as(value: &impl Debug) -> u64 {
    let mut reader = Reader(DefaultHasher::new());
    let _never_fails = write!(reader, "{value:?}");
    reader.0.finish()
}

impl<T: Debug> Whole<T> {
    /// Takes a part in.
    pub fn new(part: T) -> Self {
        let reads_as = reads_as(&part);
        Self(Arc::new((part, reads_as)))
    }

    /// The part.
    pub fn get(&self) -> &T {
        &self.0.0
    }
}

impl<T: Debug + Clone> Whole<T> {
    /// Changes the part, for this state alone.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut part = self.get().clone();
        let result = change(&mut part);
        *self = Self::new(part);
        result
    }
}

impl<T> Clone for Whole<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> PartialEq for Whole<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.1 == other.0.1
    }
}

impl<T> Hash for Whole<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.1.hash(state);
    }
}

impl<T: Debug> Debug for Whole<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
