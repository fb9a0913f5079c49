//! The end of a node that can no longer be trusted.
//!
//! Invariant: a panic on a thread that keeps the log or the state ends like a failed sync: the
//! process stops, unless the store turns it into damage. Supervision is not a safety net here, the other replicas and the log are.

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use crate::options::OnFatal;

/// Raised once; whoever comes later finds it raised.
#[derive(Clone)]
pub(crate) struct Fatal {
    inner: Arc<Inner>,
}

struct Inner {
    raised: AtomicBool,
    on_fatal: OnFatal,
}

thread_local! {
    /// The node that the current thread works for, if a panic on it is the node's end.
    static GUARDED: RefCell<Option<Fatal>> = const { RefCell::new(None) };
}

impl Fatal {
    pub(crate) fn new(on_fatal: OnFatal) -> Self {
        install_panic_hook();
        Self { inner: Arc::new(Inner { raised: AtomicBool::new(false), on_fatal }) }
    }

    /// Whether the node has failed.
    pub(crate) fn raised(&self) -> bool {
        self.inner.raised.load(Ordering::Relaxed)
    }

    /// Ends the node: aborts the process unless a test chose otherwise.
    pub(crate) fn raise(&self, reason: &str) {
        if self.inner.raised.swap(true, Ordering::SeqCst) {
            return;
        }
        tracing::error!(reason, "the node cannot go on");
        match &self.inner.on_fatal {
            OnFatal::Abort => {
                // The tracing subscriber may buffer; this is the last chance to say why. Standard
                // error may be gone too: that must not keep the node alive.
                let _ = writeln!(std::io::stderr(), "ackord: the node cannot go on: {reason}");
                std::process::abort();
            }
            OnFatal::Call(call) => call(reason),
        }
    }

    /// From now on a panic on the calling thread ends the node.
    pub(crate) fn guard_thread(&self) {
        GUARDED.with(|guarded| *guarded.borrow_mut() = Some(self.clone()));
    }
}

/// Adds to the process's panic hook, once: a panic on a guarded thread is raised after it was
/// reported as usual, unless the store catches it.
fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            previous(info);
            // What the store catches is damage of a checkpoint, which is built anew.
            if ackord_store::catches_panics() {
                return;
            }
            // The thread-local is gone on a thread that is ending; nothing is left to guard then.
            let guarded = GUARDED.try_with(|guarded| guarded.try_borrow().ok()?.clone());
            if let Ok(Some(fatal)) = guarded {
                fatal.raise(&format!("panic: {info}"));
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use ackord_store::{GroupId, Store, StoreError, StoreOptions};
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn given_a_guarded_thread_when_it_panics_then_the_node_ends_once() {
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let seen = reasons.clone();
        let fatal =
            Fatal::new(OnFatal::Call(Arc::new(move |reason| seen.lock().push(reason.to_owned()))));
        let guarded = fatal.clone();
        let thread = std::thread::spawn(move || {
            guarded.guard_thread();
            panic!("an invariant does not hold");
        });
        assert!(thread.join().is_err());
        assert!(fatal.raised());
        fatal.raise("later");
        let reasons = reasons.lock();
        assert_eq!(reasons.len(), 1);
        assert!(reasons[0].contains("an invariant does not hold"), "{reasons:?}");
    }

    #[test]
    fn given_a_guarded_thread_when_reading_a_checkpoint_panics_then_that_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::small(dir.path())).unwrap();
        let checkpoint = store.checkpoint(GroupId(1));
        checkpoint.write("meta".into(), vec![("key".into(), "row".into())], Vec::new()).unwrap();
        let fatal = Fatal::new(OnFatal::Call(Arc::new(|_| ())));
        let guarded = fatal.clone();
        let thread = std::thread::spawn(move || {
            guarded.guard_thread();
            checkpoint.load_with(|_, _| panic!("as the database does"))
        });
        let loaded = thread.join().expect("caught");
        assert!(matches!(loaded, Err(StoreError::Damaged(_))), "{loaded:?}");
        assert!(!fatal.raised());
    }
}
