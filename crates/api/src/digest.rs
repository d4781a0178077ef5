//! Digests of lists of strings: SHA-256 in hexadecimal, a 32-bit number, and a seed for jitter.

use aws_lc_rs::digest;

/// The digits of hexadecimal numbers.
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes as a hexadecimal string.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    text
}

/// Passes length-prefixed parts to `sink`, so that no two different lists result in the same bytes.
pub fn framed<'a>(parts: impl IntoIterator<Item = &'a str>, mut sink: impl FnMut(&[u8])) {
    for part in parts {
        sink(&(part.len() as u64).to_be_bytes());
        sink(part.as_bytes());
    }
}

/// SHA-256 of a list of strings, in hexadecimal.
#[must_use]
pub fn sha256_hex<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    framed(parts, |bytes| context.update(bytes));
    hex(context.finish().as_ref())
}

/// A uniformly distributed number derived from a list of strings.
#[must_use]
pub fn short<'a>(parts: impl IntoIterator<Item = &'a str>) -> u32 {
    let mut context = digest::Context::new(&digest::SHA256);
    framed(parts, |bytes| context.update(bytes));
    let digest = context.finish();
    let mut head = [0_u8; 4];
    head.copy_from_slice(&digest.as_ref()[..4]);
    u32::from_be_bytes(head)
}

/// The same number scaled to `[0, 1)`, as a seed for jitter.
#[must_use]
pub fn unit_interval<'a>(parts: impl IntoIterator<Item = &'a str>) -> f64 {
    f64::from(short(parts)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_two_digits() {
        assert_eq!(hex(&[0, 0x0f, 0xa0, 0x5b, 0xff]), "000fa05bff");
        assert_eq!(hex(&[]), "");
        let every: Vec<u8> = (0..=u8::MAX).collect();
        let expected: Vec<String> = every.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex(&every), expected.concat());
    }

    #[test]
    fn seeds_stay_in_the_unit_interval_and_differ() {
        let seeds: Vec<f64> = (0..1000).map(|n| unit_interval([n.to_string().as_str()])).collect();
        assert!(seeds.iter().all(|seed| (0.0..1.0).contains(seed)));
        let mean = seeds.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "uniformly distributed, mean {mean}");
    }
}
