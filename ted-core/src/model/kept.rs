//! What of a source's attributes a Distribution carries, beyond modes and times.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a Distribution carries besides modes, times and numbers of owners. Everything is off unless it is asked for: it
/// means something on machines that are alike, and an update that nobody expects on others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Kept {
    /// Extended attributes (`user.*`) and POSIX access control lists.
    pub xattrs: bool,
    /// Owners and groups, which a Subscriber gives if it permits that and may.
    pub ownership: bool,
    /// setuid, setgid and `security.capability`, which a Subscriber keeps if it permits that.
    pub privileged: bool,
}

impl Kept {
    const XATTRS: &str = "xattrs";
    const OWNERSHIP: &str = "ownership";
    const PRIVILEGED: &str = "privileged";

    /// Whether it is modes, times and numbers alone.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl TryFrom<Vec<String>> for Kept {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        let mut kept = Self::default();
        for word in words {
            match word.as_str() {
                Self::XATTRS => kept.xattrs = true,
                Self::OWNERSHIP => kept.ownership = true,
                Self::PRIVILEGED => kept.privileged = true,
                _ => return Err(format!("`{word}` cannot be kept: choose xattrs, ownership, privileged")),
            }
        }
        Ok(kept)
    }
}

impl From<Kept> for Vec<String> {
    fn from(kept: Kept) -> Self {
        let Kept { xattrs, ownership, privileged } = kept;
        let words = [(xattrs, Kept::XATTRS), (ownership, Kept::OWNERSHIP), (privileged, Kept::PRIVILEGED)];
        words.into_iter().filter(|(kept, _)| *kept).map(|(_, word)| word.to_owned()).collect()
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Vec::from(*self);
        f.pad(&if words.is_empty() { "nothing".to_owned() } else { words.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_a_list_of_words() {
        let kept = Kept { xattrs: true, ownership: false, privileged: true };
        assert_eq!(serde_json::to_string(&kept).expect("text"), r#"["xattrs","privileged"]"#);
        assert_eq!(serde_json::from_str::<Kept>(r#"["privileged","xattrs"]"#).expect("valid"), kept);
        assert!(serde_json::from_str::<Kept>(r#"["acls"]"#).is_err());
        assert_eq!((kept.to_string(), Kept::default().to_string()), ("xattrs, privileged".into(), "nothing".into()));
    }
}
