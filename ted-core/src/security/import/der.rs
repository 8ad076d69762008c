//! As much of DER as a PKCS #12 file needs: values one after another, each with its tag and content (X.690).

use crate::security::ImportError;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// Context tag 0: around one value, and in place of the tag of octets.
pub(super) const EXPLICIT_0: u8 = 0xa0;
pub(super) const IMPLICIT_0: u8 = 0x80;

/// Reads the values in some content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag of the next value.
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next value: its tag and content.
    pub(super) fn any(&mut self) -> Result<(u8, &'a [u8]), ImportError> {
        let cut = || ImportError::Malformed("it ends within a value".to_owned());
        let (&[tag, first], mut rest) = self.0.split_first_chunk::<2>().ok_or_else(cut)?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            let digits = usize::from(first & 0x7f);
            if digits == 0 || digits > size_of::<u32>() {
                let reason = "it is not in DER: a length is missing or too long";
                return Err(ImportError::Malformed(reason.to_owned()));
            }
            let (bytes, after) = rest.split_at_checked(digits).ok_or_else(cut)?;
            length = bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            rest = after;
        }
        let (content, after) = rest.split_at_checked(length).ok_or_else(cut)?;
        self.0 = after;
        Ok((tag, content))
    }

    /// The content of the next value, which has to have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], ImportError> {
        match self.any()? {
            (found, content) if found == tag => Ok(content),
            (found, _) => Err(ImportError::Malformed(format!("it has tag {found:#04x} where {tag:#04x} should be"))),
        }
    }

    /// The values inside the next one, which has to have this tag.
    pub(super) fn inside(&mut self, tag: u8) -> Result<Self, ImportError> {
        self.expect(tag).map(Self)
    }

    /// A number that is not negative and fits.
    pub(super) fn number(&mut self) -> Result<u32, ImportError> {
        let bytes = self.expect(INTEGER)?;
        let digits = bytes.strip_prefix(&[0]).unwrap_or(bytes);
        if bytes.is_empty() || bytes[0] & 0x80 != 0 || digits.len() > size_of::<u32>() {
            return Err(ImportError::Malformed("a number in it is negative or too large".to_owned()));
        }
        Ok(digits.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    /// An object identifier in dotted form.
    pub(super) fn oid(&mut self) -> Result<String, ImportError> {
        let bytes = self.expect(OID)?;
        let malformed = || ImportError::Malformed("an object identifier in it cannot be read".to_owned());
        let mut arcs: Vec<u64> = Vec::new();
        let mut arc: u64 = 0;
        for byte in bytes {
            arc = arc.checked_mul(128).ok_or_else(malformed)? | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                if arcs.is_empty() {
                    let first = (arc / 40).min(2);
                    arcs.extend([first, arc - 40 * first]);
                } else {
                    arcs.push(arc);
                }
                arc = 0;
            }
        }
        if arcs.is_empty() {
            return Err(malformed());
        }
        Ok(arcs.iter().map(u64::to_string).collect::<Vec<_>>().join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_broken_ones_refused() {
        let bytes = [0x30, 0x81, 0x08, 0x02, 0x01, 0x07, 0x06, 0x03, 0x2a, 0x86, 0x48];
        let mut outer = Reader(&bytes);
        let mut inner = outer.inside(SEQUENCE).unwrap();
        assert_eq!((inner.number().unwrap(), inner.oid().unwrap().as_str()), (7, "1.2.840"));
        assert!(inner.is_empty() && outer.is_empty());
        for broken in [&[][..], &[0x30], &[0x30, 1], &[0x30, 0x80, 0, 0], &[0x30, 0x85, 0, 0, 0, 0, 1, 0]] {
            assert!(Reader(broken).any().is_err(), "{broken:?}");
        }
        for broken in [&[2, 0][..], &[2, 1, 0x80], &[2, 5, 1, 0, 0, 0, 0], &[4, 1, 1]] {
            assert!(Reader(broken).number().is_err(), "{broken:?}");
        }
        assert!(Reader(&[6, 0]).oid().is_err());
        assert!(Reader(&[&[6, 12][..], &[0xff; 11], &[0x7f]].concat()).oid().is_err());
    }
}
