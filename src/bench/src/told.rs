//! Which notices of a client count.

use ackord_endpoint::ClientNotice;

/// What a workload wants to know of a notice.
pub(crate) enum Told {
    /// A subscription holds.
    Subscribed,
    /// A cursor was confirmed.
    Committed {
        /// Of this event.
        event: String,
        /// Up to this instance.
        instance_id: u64,
    },
    /// Anything else.
    Other,
}

impl From<ClientNotice> for Told {
    fn from(notice: ClientNotice) -> Self {
        match notice {
            ClientNotice::Subscribed { .. } => Self::Subscribed,
            ClientNotice::Committed { event, instance_id } => {
                Self::Committed { event, instance_id }
            }
            ClientNotice::Connected { .. }
            | ClientNotice::Disconnected { .. }
            | ClientNotice::ConnectFailed { .. }
            | ClientNotice::Refused { .. }
            | ClientNotice::Removed { .. }
            | ClientNotice::Authority { .. }
            | ClientNotice::Presence(_)
            | ClientNotice::Reset { .. }
            | ClientNotice::HandlerFailed { .. }
            | ClientNotice::Overrun { .. }
            | ClientNotice::Unhandled { .. }
            | ClientNotice::StoreCut { .. }
            | ClientNotice::StoreDamaged { .. }
            | ClientNotice::StoreUnreadable { .. }
            | ClientNotice::FellBack { .. }
            | ClientNotice::Stopped
            | ClientNotice::Terminal { .. } => Self::Other,
        }
    }
}
