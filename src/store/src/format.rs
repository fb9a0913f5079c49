//! The file that says which format a data directory has, and its salt.
//!
//! It is written last when a directory is created: a directory without it is either new, or
//! was being created, or is damaged. It never changes afterwards.

use std::path::Path;

use crate::codec::Salt;
use crate::durable;
use crate::error::OpenError;

/// The version this program writes. Versions are never reused.
pub(crate) const FORMAT_VERSION: u32 = 1;
pub(crate) const FORMAT_FILE: &str = "format";

fn render(version: u32, salt: Salt) -> String {
    let body = format!("ackord-store\nversion {version}\nsalt {salt:016x}\n");
    let crc = crc32fast::hash(body.as_bytes());
    format!("{body}crc {crc:08x}\n")
}

fn parse(text: &str) -> Option<(u32, Salt)> {
    let mut lines = text.lines();
    lines.next()?;
    let version = lines.next()?.strip_prefix("version ")?.parse().ok()?;
    let salt = u64::from_str_radix(lines.next()?.strip_prefix("salt ")?, 16).ok()?;
    // Only one text stands for these values, so comparing it checks everything at once.
    (render(version, salt) == text).then_some((version, salt))
}

pub(crate) fn write(dir: &Path, salt: Salt) -> std::io::Result<()> {
    durable::replace_file(&dir.join(FORMAT_FILE), render(FORMAT_VERSION, salt).as_bytes())
}

/// Reads the salt. `None`: there is no such file.
pub(crate) fn read(dir: &Path) -> Result<Option<Salt>, OpenError> {
    let raw = match std::fs::read(dir.join(FORMAT_FILE)) {
        Ok(raw) => raw,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("read the format file", &error)),
    };
    let parsed = std::str::from_utf8(&raw).ok().and_then(parse);
    match parsed {
        Some((FORMAT_VERSION, salt)) => Ok(Some(salt)),
        Some((found, _)) => Err(OpenError::Version { found, known: FORMAT_VERSION }),
        None => Err(OpenError::damaged(FORMAT_FILE, "does not verify")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_verifies_or_is_refused() {
        let text = render(1, 0xABCD);
        assert_eq!(parse(&text), Some((1, 0xABCD)));
        assert_eq!(parse(&text.replace("version 1", "version 2")), None);
        assert_eq!(parse(&text[..text.len() - 1]), None);
        assert_eq!(parse(""), None);
    }
}
