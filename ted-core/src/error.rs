//! What every operation's error enum has in common: a stable code, and whether trying again can help.

/// An error that an operator can look up and a caller can act on.
///
/// Each operation has its own enum (kind, place, source); the façade folds them into one [`Error`].
/// Codes never change their meaning; `docs/errors.md` lists them with their remedies.
pub trait Coded: std::error::Error {
    /// The stable code, `TED-` and four digits, for instance `TED-1003`.
    fn code(&self) -> &'static str;

    /// Whether the same call may succeed later without anybody mending anything.
    fn is_retryable(&self) -> bool {
        false
    }
}

/// Any failure of this library: a stable code, a sentence, and the error of the operation underneath.
#[derive(Debug)]
pub struct Error {
    code: &'static str,
    retryable: bool,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    /// The stable code, for instance `TED-1003`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Whether the same call may succeed later without anybody mending anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.source)?;
        let mut cause = self.source.source();
        while let Some(inner) = cause {
            write!(f, ": {inner}")?;
            cause = inner.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}

impl<E: Coded + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self { code: error.code(), retryable: error.is_retryable(), source: Box::new(error) }
    }
}
