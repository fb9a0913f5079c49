//! Times on the command line and in configuration: `500ms`, `10s`, `5m`, `2h`, `1d`; a bare
//! number is seconds.

use std::time::Duration;

/// Parses a time; fractions are allowed (`1.5s`).
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no time, try `10s`"))?;
    let seconds = match unit.trim() {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        unit => return Err(format!("`{unit}` is no unit of time: ms, s, m, h or d")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_unit() {
        let check = |text, millis| assert_eq!(parse(text), Ok(Duration::from_millis(millis)));
        check("500ms", 500);
        check("10s", 10_000);
        check("10", 10_000);
        check("1.5s", 1500);
        check("2m", 120_000);
        check("1h", 3_600_000);
        check("1d", 86_400_000);
        assert!(parse("").is_err());
        assert!(parse("10 parsecs").is_err());
        assert!(parse("-1s").is_err());
        assert!(parse("1e99s").is_err());
    }
}
