//! One header block of a tar file, field by field: POSIX ustar, GNU, and what was before both.

use super::error::EntryFault;

/// Bytes of a header, and what content is filled up to.
pub(super) const BLOCK_BYTES: usize = 512;

/// The largest size that a header can say in octal digits.
pub(super) const OCTAL_SIZE_MAX: u64 = 0o777_7777_7777;

/// What eight spaces add up to.
const SPACES: u64 = 8 * b' ' as u64;

pub(super) type Block = [u8; BLOCK_BYTES];

/// A header block whose checksum was right.
pub(super) struct Header<'a>(&'a Block);

impl<'a> Header<'a> {
    /// The header that `block` is; `None` where the checksum says that it is none.
    pub(super) fn of(block: &'a Block) -> Option<Self> {
        let told = octal(&block[148..156])?;
        // The field itself counts as if it were spaces.
        let (before, behind) = (&block[..148], &block[156..]);
        let sum = |part: &[u8]| part.iter().fold(0, |sum: u64, &byte| sum + u64::from(byte));
        let unsigned = sum(before) + sum(behind);
        if told == unsigned + SPACES {
            return Some(Self(block));
        }
        // Some old writers took bytes for signed.
        let signed_sum = |part: &[u8]| part.iter().fold(0, |sum: i64, &byte| sum + i64::from(byte.cast_signed()));
        let signed = signed_sum(before) + signed_sum(behind);
        let total = signed.checked_add_unsigned(SPACES)?;
        (i64::try_from(told) == Ok(total)).then_some(Self(block))
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    fn is_posix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    /// The path, its two parts joined.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if self.is_posix() { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, EntryFault> {
        // Some writers keep the kind of file in the upper bits.
        Ok((self.unsigned(100..108, "mode")? & 0o7777) as u32)
    }

    pub(super) fn uid(&self) -> Result<u32, EntryFault> {
        u32::try_from(self.unsigned(108..116, "owner")?).map_err(|_| EntryFault::Number("owner"))
    }

    pub(super) fn gid(&self) -> Result<u32, EntryFault> {
        u32::try_from(self.unsigned(116..124, "group")?).map_err(|_| EntryFault::Number("group"))
    }

    pub(super) fn size(&self) -> Result<u64, EntryFault> {
        self.unsigned(124..136, "size")
    }

    pub(super) fn mtime(&self) -> Result<i64, EntryFault> {
        number(&self.0[136..148]).ok_or(EntryFault::Number("modification time"))
    }

    fn unsigned(&self, field: std::ops::Range<usize>, what: &'static str) -> Result<u64, EntryFault> {
        let number = number(&self.0[field]).and_then(|number| u64::try_from(number).ok());
        number.ok_or(EntryFault::Number(what))
    }
}

/// What stands before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number in octal digits, or where the first bit is set, in two's complement.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        return octal(field).and_then(|number| i64::try_from(number).ok());
    }
    // The first bit says only that this is binary; the second is the sign.
    let start: i128 = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(first.cast_signed()) };
    let value = field[1..].iter().fold(start, |value, &byte| (value << 8) | i128::from(byte));
    i64::try_from(value).ok()
}

/// Octal digits with spaces before and spaces or NULs behind them; nothing at all is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let begin = field.iter().position(|&byte| byte != b' ').unwrap_or(field.len());
    let digits = &field[begin..];
    let end = digits.iter().position(|&byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(|&byte| matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_all_their_forms() {
        for (field, expected) in [
            (b"0000644\0".as_slice(), Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"00000000007\0", Some(7)),
            (b"777777777777", Some(0o7777_7777_7777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x80\0\0\0\0\0\0\0\0\0\0\x07", Some(7)),
            (b"\x80\0\0\x02\0\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(0x2_0000_0000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"00009\0\0\0", None),
            (b"-000001\0", None),
            (b"0\x00001\0\0\0", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }
}
