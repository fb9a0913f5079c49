//! Whether bytes are one well-formed CBOR item (RFC 8949, appendix C), looked at and not decoded.
//!
//! Invariants: nothing is allocated, whatever lengths the bytes claim; the time is linear in the
//! bytes that are there; items inside one another are bounded by [`DEPTH_MAX`]. Text is UTF-8.

/// Items inside one another at most, tags included.
pub const DEPTH_MAX: usize = 64;

/// Why bytes are not one well-formed item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end inside an item, or there are none.
    #[error("cut short")]
    Short,
    /// A head that means nothing.
    #[error("no CBOR at byte {at}")]
    Head {
        /// Where.
        at: usize,
    },
    /// A text that is not UTF-8.
    #[error("a text that is not UTF-8 at byte {at}")]
    Text {
        /// Where it begins.
        at: usize,
    },
    /// Too many items inside one another.
    #[error("more than {DEPTH_MAX} items inside one another")]
    Depth,
    /// More than one item.
    #[error("{bytes} bytes after the item")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// What an item that is open still takes.
#[derive(Clone, Copy)]
enum Open {
    /// So many items.
    Items(u64),
    /// Items until a break; in a map they come in pairs.
    Until { is_map: bool, odd: bool },
    /// Chunks of this major type until a break.
    Chunks(u8),
}

/// What a head was.
enum Taken {
    /// A whole item.
    Whole,
    /// The begin of one that holds others.
    Begun,
    /// The end of one that holds others.
    Ended,
}

/// Where the look has come to.
struct Look<'a> {
    bytes: &'a [u8],
    at: usize,
    open: [Open; DEPTH_MAX],
    depth: usize,
}

/// Looks whether the bytes are one well-formed item and nothing else.
///
/// ```
/// use ackord_wire::cbor::{Malformed, well_formed};
/// assert_eq!(well_formed(&[0x82, 0x01, 0x61, b'a']), Ok(()));
/// assert_eq!(well_formed(&[0x82, 0x01]), Err(Malformed::Short));
/// ```
///
/// # Errors
/// What is wrong, and where.
pub fn well_formed(bytes: &[u8]) -> Result<(), Malformed> {
    let mut look = Look { bytes, at: 0, open: [Open::Items(0); DEPTH_MAX], depth: 0 };
    loop {
        let taken = look.item()?;
        if look.settle(&taken) {
            break;
        }
    }
    match bytes.len() - look.at {
        0 => Ok(()),
        bytes => Err(Malformed::Trailing { bytes }),
    }
}

impl Look<'_> {
    /// Takes one head, with the bytes of a string behind it.
    fn item(&mut self) -> Result<Taken, Malformed> {
        let at = self.at;
        let head = *self.take(1)?.first().ok_or(Malformed::Short)?;
        let (major, short) = (head >> 5, head & 0x1f);
        let bad = Malformed::Head { at };
        let within = self.depth.checked_sub(1).and_then(|top| self.open.get(top).copied());
        if short == 31 {
            return match (major, within) {
                (7, Some(Open::Until { is_map, odd })) if !(is_map && odd) => Ok(Taken::Ended),
                (7, Some(Open::Chunks(_))) => Ok(Taken::Ended),
                (_, Some(Open::Chunks(_))) => Err(bad),
                (2 | 3, _) => self.begin(Open::Chunks(major)),
                (4 | 5, _) => self.begin(Open::Until { is_map: major == 5, odd: false }),
                _ => Err(bad),
            };
        }
        if let Some(Open::Chunks(of)) = within
            && of != major
        {
            return Err(bad);
        }
        let value = match short {
            0..=23 => u64::from(short),
            24..=27 => {
                let bytes = self.take(1 << (short - 24))?;
                bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            }
            _ => return Err(bad),
        };
        match major {
            2 | 3 => {
                let length = usize::try_from(value).map_err(|_| Malformed::Short)?;
                let begin = self.at;
                let string = self.take(length)?;
                if major == 3 && std::str::from_utf8(string).is_err() {
                    return Err(Malformed::Text { at: begin });
                }
                Ok(Taken::Whole)
            }
            4 => self.begin(Open::Items(value)),
            5 => self.begin(Open::Items(value.checked_mul(2).ok_or(Malformed::Short)?)),
            6 => self.begin(Open::Items(1)),
            // A simple value below 32 has a shorter form, which is the only one.
            7 if short == 24 && value < 32 => Err(bad),
            _ => Ok(Taken::Whole),
        }
    }

    fn begin(&mut self, open: Open) -> Result<Taken, Malformed> {
        *self.open.get_mut(self.depth).ok_or(Malformed::Depth)? = open;
        self.depth += 1;
        Ok(Taken::Begun)
    }

    /// Counts what was taken for what it is in; whether everything is complete.
    fn settle(&mut self, taken: &Taken) -> bool {
        let mut complete = match taken {
            Taken::Whole => true,
            Taken::Begun => {
                let empty = matches!(self.innermost(), Some(Open::Items(0)));
                self.depth -= usize::from(empty);
                empty
            }
            Taken::Ended => {
                self.depth -= 1;
                true
            }
        };
        while complete {
            let Some(around) = self.innermost() else { return true };
            complete = match around {
                Open::Items(left) => {
                    *left -= 1;
                    *left == 0
                }
                Open::Until { odd, .. } => {
                    *odd = !*odd;
                    false
                }
                Open::Chunks(_) => false,
            };
            self.depth -= usize::from(complete);
        }
        false
    }

    fn innermost(&mut self) -> Option<&mut Open> {
        self.depth.checked_sub(1).and_then(|top| self.open.get_mut(top))
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed::Short)?;
        self.at = end;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|digits| pair(digits).unwrap()).collect()
    }

    #[test]
    fn what_the_standard_calls_well_formed_is() {
        // Of RFC 8949, appendix A.
        for item in [
            "00",
            "17",
            "1818",
            "1bffffffffffffffff",
            "3863",
            "f90000",
            "fb3ff199999999999a",
            "f4",
            "f7",
            "f0",
            "f8ff",
            "c074323031332d30332d32315432303a30343a30305a",
            "40",
            "4401020304",
            "60",
            "62c3bc",
            "80",
            "83010203",
            "8301820203820405",
            "a0",
            "a201020304",
            "a56161614161626142616361436164614461656145",
            "5f42010243030405ff",
            "7f657374726561646d696e67ff",
            "9fff",
            "9f018202039f0405ffff",
            "bf61610161629f0203ffff",
            "bf6346756ef563416d7421ff",
            "d9d9f780",
        ] {
            assert_eq!(well_formed(&hex(item)), Ok(()), "{item}");
        }
    }

    #[test]
    fn what_the_standard_calls_malformed_is() {
        // Of RFC 8949, appendix F.
        for item in [
            "",
            "18",
            "19 01",
            "1a 0102",
            "41",
            "5bffffffffffffffff010203",
            "7affffffff00",
            "81",
            "818181",
            "82 00",
            "a1",
            "a201 02",
            "a100",
            "c0",
            "5f41 00",
            "7f6100",
            "9f",
            "9f0102",
            "bf",
            "bf01020102",
            "bbffffffffffffffff",
            "9bffffffffffffffff",
        ] {
            assert_eq!(well_formed(&hex(item)), Err(Malformed::Short), "{item}");
        }
        for item in [
            "1c",
            "3d",
            "5e",
            "7c",
            "9d",
            "bc",
            "de",
            "fc",
            "f800",
            "f818",
            "f81f",
            "5f00ff",
            "5f21ff",
            "5f6100ff",
            "5f80ff",
            "7f4100ff",
            "5f5f4100ffff",
            "7f7f6100ffff",
            "ff",
            "81ff",
            "8200ff",
            "a1ff",
            "a100ff",
            "bf00ff",
            "bf000000ff",
            "9f81ff",
            "1f",
            "3f",
            "df",
        ] {
            let judged = well_formed(&hex(item));
            assert!(matches!(judged, Err(Malformed::Head { .. })), "{item}: {judged:?}");
        }
        assert_eq!(well_formed(&hex("61ff")), Err(Malformed::Text { at: 1 }));
        assert_eq!(well_formed(&hex("0000")), Err(Malformed::Trailing { bytes: 1 }));
    }

    #[test]
    fn depth_is_bounded_in_every_way_to_nest() {
        for open in [0x81, 0x9f, 0xc1] {
            let nested = |depth: usize| [vec![open; depth], vec![0x00]].concat();
            assert_eq!(well_formed(&nested(DEPTH_MAX + 1)), Err(Malformed::Depth), "{open:x}");
            let mut deepest = nested(DEPTH_MAX);
            deepest.extend(vec![0xff; if open == 0x9f { DEPTH_MAX } else { 0 }]);
            assert_eq!(well_formed(&deepest), Ok(()), "{open:x}");
        }
    }
}
