//! When a certificate ends: the one field of X.509 that is read here, and nothing is decided by it.
//!
//! `Certificate { tbs { [0] version?, serial, algorithm, issuer, validity { from, until }, … }, … }`
//! (RFC 5280, section 4.1), in DER.

use time::{Date, Month, Time, UtcDateTime};

use crate::Error;

/// DER tags.
const SEQUENCE: u8 = 0x30;
const EXPLICIT_0: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity, seconds of Unix time.
///
/// # Errors
/// When it is no certificate.
pub fn not_after(certificate: &[u8]) -> Result<i64, Error> {
    parse(certificate).ok_or_else(|| Error::new("the end of the certificate cannot be read"))
}

fn parse(certificate: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if rest.first() == Some(&EXPLICIT_0) {
        rest = element(rest)?.2;
    }
    // The serial number, the algorithm and the issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _, rest) = element(validity)?;
    let (tag, until, _) = element(rest)?;
    moment(tag, until)
}

/// The tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length of a certificate's parts takes at most four bytes.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn moment(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    let two = |at: usize| {
        let pair = digits.get(at..at + 2)?;
        let digit = |byte: u8| byte.is_ascii_digit().then(|| byte - b'0');
        Some(digit(pair[0])? * 10 + digit(pair[1])?)
    };
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = i32::from(two(0)?);
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        (GENERALIZED_TIME, 14) => (i32::from(two(0)?) * 100 + i32::from(two(2)?), 4),
        _ => return None,
    };
    let date =
        Date::from_calendar_date(year, Month::try_from(two(at)?).ok()?, two(at + 2)?).ok()?;
    let time = Time::from_hms(two(at + 4)?, two(at + 6)?, two(at + 8)?).ok()?;
    Some(UtcDateTime::new(date, time).unix_timestamp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_read_in_both_spellings_of_a_year() {
        assert_eq!(not_after(&certificate(2030, 1, 2)), Ok(1_893_542_400));
        assert_eq!(not_after(&certificate(2100, 1, 1)), Ok(4_102_444_800));
    }

    #[test]
    fn what_is_cut_short_or_something_else_has_no_end() {
        let whole = certificate(2030, 1, 2);
        for length in 0..whole.len() {
            // Wherever it is cut: an answer or an error, never a panic.
            let _ = not_after(&whole[..length]);
        }
        assert!(not_after(&whole[..40]).is_err());
        assert!(not_after(b"").is_err());
        assert!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(not_after(&[0x30, 0x03, 0x30, 0x01, 0x02]).is_err());
    }
}
