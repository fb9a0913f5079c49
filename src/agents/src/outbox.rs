//! What a session has said and the writer of its socket has not taken yet: bounded, and nearly
//! nothing while it is empty, as it is for an idle peer.
//!
//! Invariant: there is always room for the last word, once, however full the outbox is.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

use futures_channel::mpsc;
use futures_util::StreamExt as _;

use crate::connection::Outbound;

/// The session's half. The session ends when the other half is dropped.
#[derive(Debug)]
pub struct Outbox {
    sender: RefCell<mpsc::Sender<Outbound>>,
    /// Every sender has a place of its own: this one's is for the last word.
    last_word: RefCell<Option<mpsc::Sender<Outbound>>>,
}

/// The writer's half.
#[derive(Debug)]
pub struct Said {
    receiver: mpsc::Receiver<Outbound>,
}

/// Whether an outbox takes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It does.
    Some,
    /// It is full.
    Full,
    /// The writer has gone.
    Gone,
}

/// An outbox for this many messages, at least two: one place is kept for the last word. Eight are
/// plenty: what does not fit waits in the queue that it comes from.
pub fn outbox(messages: usize) -> (Outbox, Said) {
    // Each of the two senders has a place besides these.
    let (sender, receiver) = mpsc::channel(messages.saturating_sub(2));
    let last_word = RefCell::new(Some(sender.clone()));
    (Outbox { sender: RefCell::new(sender), last_word }, Said { receiver })
}

impl Outbox {
    /// Whether [`Outbox::say`] would take something now.
    pub fn room(&self) -> Room {
        match self.poll_room(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(room) => room,
            Poll::Pending => Room::Full,
        }
    }

    /// Ready as soon as it is not full any more.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<Room> {
        self.sender.borrow_mut().poll_ready(context).map(|ready| match ready {
            Ok(()) => Room::Some,
            Err(_disconnected) => Room::Gone,
        })
    }

    /// Hands a message over if there is room.
    pub fn say(&self, message: Outbound) -> Room {
        let room = self.room();
        if room == Room::Some && self.sender.borrow_mut().start_send(message).is_err() {
            return Room::Gone;
        }
        room
    }

    /// Hands over what nothing follows. Only the first is heard.
    pub fn say_last(&self, message: Outbound) {
        if let Some(mut sender) = self.last_word.take() {
            // Its place was never used; an error means that nobody listens any more.
            let _gone = sender.try_send(message);
        }
    }
}

impl Said {
    /// The next message; `None` when the session has ended.
    pub async fn next(&mut self) -> Option<Outbound> {
        self.receiver.next().await
    }

    /// As [`Said::next`], for a writer that is polled itself.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Outbound>> {
        self.receiver.poll_next_unpin(context)
    }

    /// The next message if it is there.
    pub fn try_next(&mut self) -> Option<Outbound> {
        self.receiver.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_at_its_bound_and_has_room_for_the_last_word() {
        let (outbox, mut said) = outbox(3);
        assert_eq!(outbox.say(Outbound::Ping), Room::Some);
        assert_eq!(outbox.say(Outbound::Ping), Room::Some);
        assert_eq!(outbox.say(Outbound::Ping), Room::Full);
        let close = Outbound::Close { number: 4000, reason: "x".into() };
        outbox.say_last(close.clone());
        outbox.say_last(close.clone());
        assert_eq!(said.try_next(), Some(Outbound::Ping));
        assert_eq!(outbox.room(), Room::Some);
        assert_eq!(said.try_next(), Some(Outbound::Ping));
        assert_eq!(said.try_next(), Some(close));
        assert_eq!(said.try_next(), None);
        drop(said);
        assert_eq!(outbox.say(Outbound::Ping), Room::Gone);
    }
}
