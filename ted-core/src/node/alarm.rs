//! What an operator has to know although nothing has failed yet, or until somebody mends it.

use serde::{Deserialize, Serialize};

/// Something that needs an operator, with the code under which `docs/errors.md` says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The stable code.
    pub code: String,
    /// What is the matter, for people.
    pub text: String,
}

impl Alarm {
    /// An alarm with this code.
    pub(crate) fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into() }
    }
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}
