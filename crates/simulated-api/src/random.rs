//! Numbers that look random and follow from a seed alone.

/// A generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

/// Letters of generated names: no vowels and nothing that is easily mistaken, as in `generateName`.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Letters that `generateName` adds.
const SUFFIX: usize = 5;

impl Random {
    /// A generator whose numbers follow from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next_number() % limit.max(1) as u64).unwrap_or_default()
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let index = self.below(choices.len());
        &choices[index]
    }

    /// A UID in the form of a random UUID (RFC 9562 section 5.4).
    pub fn uid(&mut self) -> String {
        let (high, low) = (self.next_number(), self.next_number());
        let (high, low) = (high & !0xf000 | 0x4000, low & !(0b11 << 62) | 1 << 63);
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }

    /// What `generateName` adds.
    pub(crate) fn suffix(&mut self) -> String {
        (0..SUFFIX).map(|_| char::from(*self.pick(LETTERS))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_have_the_form_of_random_uuids_and_differ() {
        let mut random = Random::new(7);
        let (first, second) = (random.uid(), random.uid());
        assert_ne!(first, second);
        assert_eq!(first, Random::new(7).uid());
        let parts: Vec<usize> = first.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&first[14..15], "4");
        assert!(matches!(&first[19..20], "8" | "9" | "a" | "b"));
    }
}
