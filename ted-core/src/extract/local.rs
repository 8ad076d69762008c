//! The names under which files that somebody changed are kept: `NAME.local-20261122T112233Z`.

use time::OffsetDateTime;

use crate::id::UnixMillis;

const MARK: &[u8] = b".local-";
/// `20261122T112233Z`.
const TIME_BYTES: usize = 16;
/// The longest name that the usual file systems take.
const NAME_BYTES_MAX: usize = 255;

/// What `name` is kept as; of several at the same time, the one with this number. A name that would become too long
/// loses its end.
pub(super) fn copy_name(name: &[u8], at: UnixMillis, number: u32) -> Vec<u8> {
    let seconds = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut end = format!(
        ".local-{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    if number > 0 {
        end.push_str(&format!("-{number}"));
    }
    let mut room = NAME_BYTES_MAX.saturating_sub(end.len()).min(name.len());
    // Not in the middle of a character of a name that is UTF-8.
    while room > 0 && name.get(room).is_some_and(|byte| byte & 0xc0 == 0x80) {
        room -= 1;
    }
    [&name[..room], end.as_bytes()].concat()
}

/// Whether this is the name of something that was kept.
pub(super) fn is_copy_name(name: &[u8]) -> bool {
    let Some(mark) = name.windows(MARK.len()).rposition(|window| window == MARK) else { return false };
    let Some((time, number)) = name[mark + MARK.len()..].split_at_checked(TIME_BYTES) else { return false };
    let is_time = time.iter().enumerate().all(|(at, &byte)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    is_time && (number.is_empty() || number.strip_prefix(b"-").is_some_and(is_number))
}

fn is_number(digits: &[u8]) -> bool {
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_what_is_kept_say_when_and_are_told_from_others() {
        let at = UnixMillis::from_millis(1_795_346_553_123);
        assert_eq!(copy_name(b"a.conf", at, 0), b"a.conf.local-20261122T112233Z");
        assert_eq!(copy_name(b"a.conf", at, 2), b"a.conf.local-20261122T112233Z-2");
        for name in [b"a".to_vec(), vec![b'x'; 255], "ä".repeat(127).into_bytes(), b"\xff\x80\x80".to_vec()] {
            for number in [0, 1, u32::MAX] {
                let kept = copy_name(&name, at, number);
                assert!(kept.len() <= NAME_BYTES_MAX && is_copy_name(&kept));
                assert!(std::str::from_utf8(&name).is_err() || std::str::from_utf8(&kept).is_ok());
            }
        }
        for other in [
            "a.local-",
            "a.local",
            "a.local-20261122T112233",
            "a.local-20261122T112233Z-",
            "a.local-20261122T112233Z.bak",
            "a.local-2026112TT112233Z",
            "",
        ] {
            assert!(!is_copy_name(other.as_bytes()), "{other}");
        }
    }
}
