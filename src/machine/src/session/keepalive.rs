//! When to ping a peer and when to give it up: after an interval of silence a ping, after two the
//! end.

/// What the silence of a peer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepaliveAct {
    /// Nothing yet.
    Wait,
    /// Ping the peer.
    Ping,
    /// Close: it was silent for two intervals.
    GiveUp,
}

/// The silence of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    interval_ms: u32,
    pinged: bool,
    heard_ms: u64,
}

impl Keepalive {
    /// Counts from now on.
    pub fn new(interval_ms: u32, now_ms: u64) -> Self {
        Self { interval_ms: interval_ms.max(1), pinged: false, heard_ms: now_ms }
    }

    /// The peer gave a sign of life.
    pub fn on_heard(&mut self, now_ms: u64) {
        self.heard_ms = self.heard_ms.max(now_ms);
        self.pinged = false;
    }

    /// When to call [`Keepalive::on_time`].
    pub fn deadline(&self) -> u64 {
        let intervals = if self.pinged { 2 } else { 1 };
        self.heard_ms + intervals * u64::from(self.interval_ms)
    }

    /// Time has passed.
    pub fn on_time(&mut self, now_ms: u64) -> KeepaliveAct {
        if now_ms < self.deadline() {
            KeepaliveAct::Wait
        } else if self.pinged {
            KeepaliveAct::GiveUp
        } else {
            self.pinged = true;
            KeepaliveAct::Ping
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_silent_peer_then_it_is_pinged_once_and_given_up_after_two_intervals() {
        let mut keepalive = Keepalive::new(1000, 0);
        assert_eq!(keepalive.on_time(999), KeepaliveAct::Wait);
        assert_eq!(keepalive.on_time(1000), KeepaliveAct::Ping);
        assert_eq!(keepalive.on_time(1500), KeepaliveAct::Wait);
        assert_eq!(keepalive.on_time(2000), KeepaliveAct::GiveUp);
    }

    #[test]
    fn given_a_peer_that_answers_then_it_is_pinged_again_an_interval_later() {
        let mut keepalive = Keepalive::new(1000, 0);
        assert_eq!(keepalive.on_time(1000), KeepaliveAct::Ping);
        keepalive.on_heard(1200);
        assert_eq!(keepalive.on_time(2000), KeepaliveAct::Wait);
        assert_eq!(keepalive.on_time(2200), KeepaliveAct::Ping);
    }
}
