//! Moments and amounts as they are printed: RFC 3339 in UTC, whole units for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// RFC 3339 in UTC with milliseconds.
const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Milliseconds since 1970 as RFC 3339 in UTC.
pub fn rfc3339(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX);
    let fraction = u32::try_from(milliseconds % 1000).unwrap_or(0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp(seconds)
        .and_then(|at| at.replace_nanosecond(fraction))
        .ok()
        .and_then(|at| at.format(FORMAT).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
}

/// Milliseconds since 1970 now, by this machine's clock.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment on the command line, as milliseconds since 1970: RFC 3339, or how long ago (`2h`).
pub fn parse(text: &str) -> Result<u64, String> {
    if let Ok(at) = OffsetDateTime::parse(text.trim(), &Rfc3339) {
        return u64::try_from(at.unix_timestamp_nanos() / 1_000_000)
            .map_err(|_| format!("`{text}` is before 1970"));
    }
    let ago = crate::duration::parse(text).map_err(|_| {
        format!("`{text}` is no moment: write `2h` for two hours ago, or `2026-01-02T03:04:05Z`")
    })?;
    Ok(now_ms().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
}

/// A span of time in its two largest units.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 => format!("{:.1} s", span.as_secs_f64()),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Bytes in the largest unit of which there is one.
pub fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = "B";
    let mut amount = bytes as f64;
    for next in units {
        if amount < 1024.0 {
            break;
        }
        (unit, amount) = (next, amount / 1024.0);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") }
}

/// Bytes on the command line: `512MiB`, `10G`, or a bare number.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no number of bytes, try `10GiB`");
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 1,
        "m" | "mib" => 2,
        "g" | "gib" => 3,
        "t" | "tib" => 4,
        _ => return Err(wrong()),
    };
    let bytes = number * 1024_f64.powi(power);
    // Beyond 2^63 a float says nothing about bytes.
    if bytes < 9.0e18 { Ok(bytes as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_written_or_as_ages() {
        assert_eq!(rfc3339(1_763_683_200_123), "2025-11-21T00:00:00.123Z");
        assert_eq!(parse("2025-11-21T00:00:00.123Z"), Ok(1_763_683_200_123));
        let ago = now_ms() - parse("2h").unwrap();
        assert!((7_200_000..7_260_000).contains(&ago), "{ago}");
        assert!(parse("yesterday").is_err());
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(span(Duration::from_secs(93_784)), "1 d 2 h");
        assert_eq!(span(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(parse_bytes("1.5KiB"), Ok(1536));
        assert_eq!(parse_bytes("10G"), Ok(10 << 30));
        assert!(parse_bytes("many").is_err());
    }
}
