//! Wakes local sessions: what changed since they last looked, coalesced per watcher.
//!
//! Invariants: an effect that was published after a watcher was made, and that it wants, is in the set
//! that it gets next, once, however often it happened; what it does not want does not wake it; a slow watcher holds at most one effect per
//! thing that exists. An effect is published only after the state that it announces is readable.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use ackord_machine::site::Effect;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Whether a watcher wants an effect. Asked while an entry is applied: it must not wait.
type Wanted = dyn Fn(&Effect) -> bool + Send + Sync;

/// What one watcher has not yet taken.
#[derive(Default)]
struct Pending {
    /// None for all.
    wanted: Option<Box<Wanted>>,
    effects: Mutex<BTreeSet<Effect>>,
    arrived: Notify,
}

/// One watcher's view of a partition's effects. See [`crate::PartitionHandle::watch`].
pub struct EffectWatch {
    pending: Arc<Pending>,
}

impl EffectWatch {
    /// Waits until something changed and takes everything that changed since the last call.
    /// Never empty. Cancelling it loses nothing.
    pub async fn changed(&mut self) -> BTreeSet<Effect> {
        loop {
            let taken = self.take();
            if !taken.is_empty() {
                return taken;
            }
            self.pending.arrived.notified().await;
        }
    }

    /// Takes what changed since the last call, possibly nothing.
    pub fn take(&mut self) -> BTreeSet<Effect> {
        std::mem::take(&mut *self.pending.effects.lock())
    }
}

/// The publishing side, one per partition.
#[derive(Default)]
pub(crate) struct Effects {
    watchers: Mutex<Vec<Weak<Pending>>>,
}

impl Effects {
    /// A new watcher, which sees everything published from now on.
    pub(crate) fn watch(&self) -> EffectWatch {
        self.enter(Pending::default())
    }

    /// A new watcher of some.
    pub(crate) fn watch_some(&self, wanted: Box<Wanted>) -> EffectWatch {
        self.enter(Pending { wanted: Some(wanted), ..Pending::default() })
    }

    fn enter(&self, pending: Pending) -> EffectWatch {
        let pending = Arc::new(pending);
        self.watchers.lock().push(Arc::downgrade(&pending));
        EffectWatch { pending }
    }

    /// Adds the effects to every watcher's set and forgets watchers that are gone.
    pub(crate) fn publish(&self, effects: &[Effect]) {
        if effects.is_empty() {
            return;
        }
        self.watchers.lock().retain(|watcher| {
            let Some(pending) = watcher.upgrade() else { return false };
            let is_wanted =
                |effect: &&Effect| pending.wanted.as_ref().is_none_or(|wanted| wanted(effect));
            let mut wanted = effects.iter().filter(is_wanted).peekable();
            if wanted.peek().is_some() {
                pending.effects.lock().extend(wanted.cloned());
                // One permit is enough: `changed` takes all effects at once.
                pending.arrived.notify_one();
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use ackord_machine::site::{EventKey, SiteName};

    use super::*;

    fn event(key: u32) -> Effect {
        Effect::Event { site: SiteName::from("s"), event: EventKey(key) }
    }

    #[tokio::test]
    async fn given_a_watcher_of_some_when_others_are_published_then_it_is_not_woken() {
        let effects = Effects::default();
        let mut watch = effects.watch_some(Box::new(|effect| *effect == event(2)));
        effects.publish(&[event(1), event(3)]);
        tokio::select! {
            biased;
            _ = watch.changed() => panic!("it does not want them"),
            () = tokio::task::yield_now() => {}
        }
        effects.publish(&[event(1), event(2)]);
        assert_eq!(watch.changed().await, BTreeSet::from([event(2)]));
    }

    #[tokio::test]
    async fn given_repeated_effects_when_taken_then_each_is_seen_once_and_none_is_lost() {
        let effects = Effects::default();
        let mut early = effects.watch();
        effects.publish(&[event(1)]);
        effects.publish(&[event(1), event(2)]);
        let mut late = effects.watch();
        effects.publish(&[event(3)]);
        assert_eq!(early.changed().await, BTreeSet::from([event(1), event(2), event(3)]));
        assert_eq!(late.changed().await, BTreeSet::from([event(3)]));
        assert!(early.take().is_empty());
    }

    #[tokio::test]
    async fn given_a_cancelled_wait_when_an_effect_arrives_then_the_next_wait_has_it() {
        let effects = Effects::default();
        let mut watch = effects.watch();
        tokio::select! {
            biased;
            _ = watch.changed() => panic!("nothing was published"),
            () = std::future::ready(()) => {}
        }
        effects.publish(&[event(1)]);
        assert_eq!(watch.changed().await, BTreeSet::from([event(1)]));
    }

    #[test]
    fn given_a_dropped_watcher_when_publishing_then_it_is_forgotten() {
        let effects = Effects::default();
        drop(effects.watch());
        effects.publish(&[event(1)]);
        assert!(effects.watchers.lock().is_empty());
    }
}
