//! Deterministic mutations of inputs: the same seed gives the same ones on every machine.

/// A small generator of numbers (xorshift64*, Vigna 2016): good enough to choose bytes.
pub struct Numbers(u64);

impl Numbers {
    /// Numbers that follow from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 when there is none.
    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() >> 16) as usize % end }
    }
}

/// Bytes that often stand where it matters: lengths, breaks, quotes, signs.
const TELLING: [u8; 16] = [
    0x00, 0x01, 0x7f, 0x80, 0xff, 0xfe, 0x20, b'"', b'\\', b'{', b'}', b'[', b']', b':', b'\n',
    b'-',
];

/// The largest input that is made, bytes.
const BYTES_MAX: usize = 8 * 1024;

/// One of the inputs, changed in a few places.
pub fn mutated(corpus: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let empty = Vec::new();
    let pick = |numbers: &mut Numbers| corpus.get(numbers.below(corpus.len())).unwrap_or(&empty);
    let mut input = pick(numbers).clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(input.len());
        match numbers.below(9) {
            0 if !input.is_empty() => input[at] ^= 1 << numbers.below(8),
            1 if !input.is_empty() => input[at] = TELLING[numbers.below(TELLING.len())],
            2 if !input.is_empty() => input[at] = numbers.next() as u8,
            3 => input.insert(at, TELLING[numbers.below(TELLING.len())]),
            4 if !input.is_empty() => drop(input.remove(at)),
            5 => input.truncate(at),
            6 if !input.is_empty() => {
                let end = at + numbers.below((input.len() - at).min(64)) + 1;
                let part = input[at..end.min(input.len())].to_vec();
                let times = numbers.below(8);
                input.splice(at..at, part.repeat(times));
            }
            7 => {
                let other = pick(numbers);
                let from = numbers.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                // A number in the way of this machine, little end first.
                let number = [0, 1, u64::from(u32::MAX), u64::MAX, 1 << 31, 255][numbers.below(6)];
                for (place, byte) in input[at..].iter_mut().zip(number.to_le_bytes()) {
                    *place = byte;
                }
            }
        }
        input.truncate(BYTES_MAX);
    }
    input
}
