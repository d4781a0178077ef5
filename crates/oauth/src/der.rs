//! The little that must be known of DER (X.690) before a parser of keys reads it: that it is small and flat.

/// Levels of nesting: a private key in PKCS #8 has four, one with attributes six.
const DEPTH_MAX: usize = 8;
/// Octets of a length: 16 MiB, far more than any text that is decoded here.
const LENGTH_OCTETS_MAX: usize = 4;
/// The bit of a tag which says that the content is elements again.
const CONSTRUCTED: u8 = 0x20;
/// The bits of a tag which, all set, say that its number follows in further octets. No key has such a tag.
const LONG_TAG: u8 = 0x1F;

/// Tags.
pub const INTEGER: u8 = 0x02;
/// A string of octets.
pub const OCTET_STRING: u8 = 0x04;
/// An object identifier.
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// A sequence.
pub const SEQUENCE: u8 = 0x30;

/// Reads elements that follow each other.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads these bytes.
    #[must_use]
    pub fn new(der: &'a [u8]) -> Self {
        Self(der)
    }

    /// The content of the next element, if it has this tag.
    pub fn next(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (tag, content, rest) = element(self.0)?;
        self.0 = rest;
        (tag == wanted).then_some(content)
    }
}

/// The content of the one element that there is, if it has this tag.
#[must_use]
pub fn only(der: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(der);
    reader.next(tag).filter(|_| reader.0.is_empty())
}

/// An element with this tag and content.
#[must_use]
pub fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let octets = &length[length.iter().take_while(|octet| **octet == 0).count()..];
    match (content.len(), u8::try_from(octets.len())) {
        (0..=0x7F, _) | (_, Err(_)) => [&[tag, octets.first().copied().unwrap_or_default()][..], content].concat(),
        (_, Ok(count)) => [&[tag, 0x80 | count][..], octets, content].concat(),
    }
}

/// Whether these bytes are elements of definite lengths that fit into each other, no deeper than [`DEPTH_MAX`].
#[must_use]
pub fn is_bounded(der: &[u8]) -> bool {
    // the rest of each open element, the innermost last: never more of them than levels are allowed
    let mut open = vec![der];
    while let Some(current) = open.pop() {
        if current.is_empty() {
            continue;
        }
        let Some((tag, content, rest)) = element(current) else { return false };
        open.push(rest);
        if tag & CONSTRUCTED != 0 {
            if open.len() > DEPTH_MAX {
                return false;
            }
            open.push(content);
        }
    }
    true
}

/// Tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    if tag & LONG_TAG == LONG_TAG {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        // an indefinite length, which is BER
        0x80 => return None,
        0x81.. => {
            let count = usize::from(first & 0x7F);
            let (octets, rest) = rest.split_at_checked(count).filter(|_| count <= LENGTH_OCTETS_MAX)?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Vec<u8> {
        (0..levels).fold(Vec::new(), |inner, _| {
            let length = u32::try_from(inner.len()).expect("short").to_be_bytes();
            [&[SEQUENCE, 0x84][..], &length, &inner].concat()
        })
    }

    #[test]
    fn nesting_is_bounded_whatever_follows_inside() {
        assert!(is_bounded(&nested(DEPTH_MAX)) && !is_bounded(&nested(DEPTH_MAX + 1)));
        let pairs = (0..DEPTH_MAX + 1).fold(Vec::new(), |inner, _| {
            let content = [&[INTEGER, 1, 0][..], &inner, &[INTEGER, 1, 0]].concat();
            [&[SEQUENCE, u8::try_from(content.len()).expect("short")][..], &content].concat()
        });
        assert!(!is_bounded(&pairs));
    }

    #[test]
    fn twenty_thousand_levels_take_no_stack() {
        assert!(!is_bounded(&nested(20_000)));
        assert!(!is_bounded(&[SEQUENCE, 0x80].repeat(20_000)), "of indefinite length");
    }

    #[test]
    fn lengths_are_definite_and_fit() {
        assert!(is_bounded(&[]) && is_bounded(&[INTEGER, 0]) && is_bounded(&[INTEGER, 0x81, 1, 7, INTEGER, 0]));
        for der in [
            &[INTEGER][..],
            &[INTEGER, 1],
            &[INTEGER, 0x80],
            &[INTEGER, 0x81],
            &[INTEGER, 0x84, 0xFF, 0xFF, 0xFF, 0xFF],
            &[INTEGER, 0x85, 0, 0, 0, 0, 0],
            &[INTEGER, 0x88, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            &[INTEGER, 0xFF],
            &[0x1F, 0x01, 0x00],
            &[SEQUENCE, 3, INTEGER, 2, 0],
        ] {
            assert!(!is_bounded(der), "{der:?}");
        }
    }

    #[test]
    fn encoded_element_is_read_as_it_was() {
        for size in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; size];
            assert_eq!(only(&encode(OCTET_STRING, &content), OCTET_STRING), Some(&content[..]), "{size}");
        }
    }

    #[test]
    fn elements_are_read_by_their_tags() {
        let mut reader = Reader::new(&[INTEGER, 1, 7, OCTET_STRING, 0]);
        assert_eq!(reader.next(INTEGER), Some(&[7][..]));
        assert_eq!(reader.next(INTEGER), None);
        assert_eq!(only(&[INTEGER, 1, 7], INTEGER), Some(&[7][..]));
        assert_eq!(only(&[INTEGER, 1, 7, INTEGER, 0], INTEGER), None);
    }
}
