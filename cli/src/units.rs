//! Sizes, durations and times, formatted and read in one way everywhere.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ted_core::id::UnixMillis;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `bytes` in the largest binary unit that keeps it at 1 or more: `17 B`, `1.5 KiB`, `912.0 MiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as `1024.0`.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `bytes` over `elapsed` as a rate, `12.3 MiB/s`; `-` where no time passed.
#[must_use]
pub fn rate(count: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if seconds <= 0.0 {
        return "-".to_owned();
    }
    format!("{}/s", bytes((count as f64 / seconds) as u64))
}

/// A duration in its two largest units: `850 ms`, `12.3 s`, `4m 05s`, `3h 20m`, `2d 04h`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis} ms");
    }
    if millis < 60_000 {
        return format!("{}.{} s", millis / 1000, millis % 1000 / 100);
    }
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours) {
        (0, 0) => format!("{minutes}m {:02}s", seconds % 60),
        (0, _) => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

/// Reads `90s`, `10m`, `24h`, `7d`, `250ms`; for clap's `value_parser`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{text}` is not a duration such as 90s, 10m, 24h or 7d");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refuse()),
    };
    number.checked_mul(factor).map(Duration::from_millis).ok_or_else(refuse)
}

/// A point in time that reads and prints as RFC 3339 in UTC, with milliseconds only where there are some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub UnixMillis);

impl From<UnixMillis> for Time {
    fn from(at: UnixMillis) -> Self {
        Self(at)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Milliseconds have three digits, so that times sort as text and stand below each other.
        let (seconds, millis) = (self.0.millis() / 1000, self.0.millis() % 1000);
        let whole = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        let text = whole.and_then(|at| at.format(&Rfc3339).ok()).map(|text| match text.strip_suffix('Z') {
            Some(text) if millis > 0 => format!("{text}.{millis:03}Z"),
            _ => text,
        });
        // Beyond the year 9999 there is no RFC 3339.
        f.pad(&text.unwrap_or_else(|| format!("@{}ms", self.0.millis())))
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is not a time such as 2027-01-31T02:00:00Z");
        if let Some(millis) = text.strip_prefix('@').and_then(|rest| rest.strip_suffix("ms")) {
            return millis.parse().map(|millis| Self(UnixMillis::from_millis(millis))).map_err(|_| refuse());
        }
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| refuse())?;
        let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).map_err(|_| refuse())?;
        Ok(Self(UnixMillis::from_millis(millis)))
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_the_largest_unit_that_fits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (935 * 1024 * 1024, "935.0 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(rate(1024, Duration::from_millis(500)), "2.0 KiB/s");
        assert_eq!(rate(1024, Duration::ZERO), "-");
    }

    #[test]
    fn durations_print_and_parse() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (12_340, "12.3 s"),
            (59_999, "59.9 s"),
            (245_000, "4m 05s"),
            (12_000_000, "3h 20m"),
            (187_200_000, "2d 04h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "10", "m", "-1s", "1.5h", "10 m", "99999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_800_000_000_000, "2027-01-15T08:00:00Z"),
            (1_800_000_000_250, "2027-01-15T08:00:00.250Z"),
            (u64::MAX, "@18446744073709551615ms"),
        ] {
            let time = Time(UnixMillis::from_millis(millis));
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse::<Time>(), Ok(time));
        }
        assert!("yesterday".parse::<Time>().is_err());
    }
}
