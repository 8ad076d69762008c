//! Extended headers: what a pax record says of the entry that follows it.

use super::error::EntryFault;
use crate::package::Mtime;

/// What is said of an entry beside its own header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Mtime>,
    /// Whether it speaks of a sparse file.
    pub(super) sparse: bool,
}

impl Extended {
    /// The records of `data`.
    ///
    /// # Errors
    /// [`EntryFault`] for what is no record, and for what is said twice and matters.
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, EntryFault> {
        let mut all = Self::default();
        while !data.is_empty() {
            // Some writers fill the last block with NULs and count these.
            if data.iter().all(|&byte| byte == 0) {
                break;
            }
            let (key, value, rest) = record(data).ok_or(EntryFault::Header("it has a record that is none"))?;
            all.take(key, value)?;
            data = rest;
        }
        Ok(all)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), EntryFault> {
        let twice = EntryFault::Header("it says the same twice");
        // A value of nothing takes back what was said of all entries; what may be, nobody said.
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => set(&mut self.path, value.to_vec()).ok_or(twice),
            b"linkpath" => set(&mut self.link, value.to_vec()).ok_or(twice),
            b"size" => set(&mut self.size, decimal(value).ok_or(EntryFault::Number("size"))?).ok_or(twice),
            b"uid" => set(&mut self.uid, small(value).ok_or(EntryFault::Number("owner"))?).ok_or(twice),
            b"gid" => set(&mut self.gid, small(value).ok_or(EntryFault::Number("group"))?).ok_or(twice),
            b"mtime" => {
                let mtime = time(value).ok_or(EntryFault::Number("modification time"))?;
                set(&mut self.mtime, mtime).ok_or(twice)
            }
            _ => {
                self.sparse |= key.starts_with(b"GNU.sparse.") || key.starts_with(b"SUN.holesdata");
                Ok(())
            }
        }
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> Option<()> {
    if place.is_some() {
        return None;
    }
    *place = Some(value);
    Some(())
}

/// Key and value of the first record, and what follows it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&data[..space])?).ok()?;
    let body = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    (equals > 0).then(|| (&body[..equals], &body[equals + 1..], &data[length..]))
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

fn small(text: &[u8]) -> Option<u32> {
    u32::try_from(decimal(text)?).ok()
}

/// Seconds since 1970 with a fraction, perhaps negative.
fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let point = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..point])?).ok()?;
    let fraction = text.get(point + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Mtime { seconds, nanoseconds },
        (true, 0) => Mtime { seconds: -seconds, nanoseconds },
        (true, _) => Mtime { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_wrong_ones_refused() {
        let all = Extended::parse(b"12 path=a/b\n11 size=12\n20 mtime=1600.123456\n13 comment=x\n\0\0\0");
        let mtime = Some(Mtime { seconds: 1600, nanoseconds: 123_456_000 });
        let expected = Extended { path: Some(b"a/b".to_vec()), size: Some(12), mtime, ..Extended::default() };
        // The length of the time's record is one too few, so that it ends within the line.
        assert_eq!(all, Err(EntryFault::Header("it has a record that is none")));
        let all = Extended::parse(b"12 path=a/b\n11 size=12\n21 mtime=1600.123456\n");
        assert_eq!(all, Ok(expected));
        for bad in [
            b"path=a\n".as_slice(),
            b"5 a=b",
            b"99 path=a\n",
            b"9 path=a\n7 path\n",
            b"5 =b\n",
            b"99999999999999999999999 path=a\n",
            b"9 path=a\n9 path=b\n",
            b"11 size=-1\n",
            b"12 size=1.5\n",
            b"18 uid=9999999999\n",
        ] {
            assert!(Extended::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_before_1970_count_upwards_from_the_second() {
        assert_eq!(time(b"-1.25"), Some(Mtime { seconds: -2, nanoseconds: 750_000_000 }));
        assert_eq!(time(b"-3"), Some(Mtime { seconds: -3, nanoseconds: 0 }));
        assert_eq!(time(b"3.0000000019"), Some(Mtime { seconds: 3, nanoseconds: 1 }));
        assert_eq!(time(b"3."), Some(Mtime { seconds: 3, nanoseconds: 0 }));
        assert_eq!((time(b""), time(b"."), time(b"1.x"), time(b"--1")), (None, None, None, None));
    }
}
