//! Limits of the protocol that both sides know; a deployment may tighten or widen those that say so.

/// Largest encoded arguments by default, bytes. Configurable up to [`ARGS_BYTES_CEILING`].
pub const ARGS_BYTES_MAX: usize = 2048;
/// The most that a deployment may allow for arguments, bytes.
pub const ARGS_BYTES_CEILING: usize = 65_536;
/// Largest frame by default, bytes.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Raises in flight per service session by default.
pub const WINDOW_DEFAULT: u32 = 64;
/// Raises in flight per service session at most.
pub const WINDOW_MAX: u32 = 1024;
/// Instances under way of a subscription in the mode twoway, by default.
pub const TWOWAY_WINDOW_DEFAULT: u32 = 5;
/// Instances under way of a subscription in the mode twoway, at most.
pub const TWOWAY_WINDOW_MAX: u32 = 1000;
/// Seconds between pings, at least.
pub const KEEPALIVE_S_MIN: u32 = 10;
/// Seconds between pings by default.
pub const KEEPALIVE_S_DEFAULT: u32 = 60;
/// Seconds between pings, at most.
pub const KEEPALIVE_S_MAX: u32 = 300;
/// Milliseconds until an unacknowledged instance or raise is sent again, by default.
pub const ACK_TIMEOUT_MS_DEFAULT: u32 = 30_000;
/// The least that a subscription may ask for, milliseconds. Configurable.
pub const ACK_TIMEOUT_MS_MIN: u32 = 1_000;
/// The most that a subscription may ask for, milliseconds.
pub const ACK_TIMEOUT_MS_MAX: u32 = 3_600_000;
/// Seconds between attempts to connect: each used once in turn, the last one for ever.
pub const RECONNECT_DELAYS_S: [u64; 8] = [1, 1, 2, 5, 10, 20, 40, 60];
/// Bytes of a datagram where nothing else is said: what passes most networks in one piece.
pub const PUSH_PACKET_BYTES_DEFAULT: u32 = 1400;
