//! The one-time token: lets a Subscriber enrol at once. It is carried by hand and never sent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::Coded;
use crate::security::{Crypto, CryptoError};

const PREFIX: &str = "ted-";
const TOKEN_BYTES: usize = 32;
/// BLAKE3's key derivation context for the identifier.
const ID_CONTEXT: &str = "ted/token-id/1";

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token: it is `ted-` and 64 hex digits")]
pub struct TokenError;

impl Coded for TokenError {
    fn code(&self) -> &'static str {
        "TED-1201"
    }
}

/// 32 random bytes, zeroed when dropped. As text: `ted-` and 64 hex digits.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Token([u8; TOKEN_BYTES]);

/// What a token is called in the open: it says nothing about the token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId([u8; 8]);

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`].
    pub fn generate(crypto: &dyn Crypto) -> Result<Self, CryptoError> {
        let mut token = Self([0; TOKEN_BYTES]);
        crypto.fill_random(&mut token.0)?;
        Ok(token)
    }

    /// What it is called in the open: the first 8 bytes of a key derived from it.
    #[must_use]
    pub fn id(&self) -> TokenId {
        let derived = blake3::derive_key(ID_CONTEXT, &self.0);
        let mut id = [0; 8];
        id.copy_from_slice(&derived[..8]);
        TokenId(id)
    }

    /// The text that is carried to the node. Handle with care: `Display` is left out on purpose.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", hex::encode(self.0))
    }

    /// The token's bytes, for the Distributor's own state. Handle with care.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; TOKEN_BYTES] {
        &self.0
    }

    /// The token with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; TOKEN_BYTES]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(TokenError)?;
        let mut token = Self([0; TOKEN_BYTES]);
        hex::decode_to_slice(digits, &mut token.0).map_err(|_| TokenError)?;
        Ok(token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id())
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut id = [0; 8];
        hex::decode_to_slice(text.trim(), &mut id).map_err(|_| TokenError)?;
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::AwsLc;

    #[test]
    fn tokens_survive_their_text_and_never_print_themselves() {
        let token = Token::generate(&AwsLc).unwrap();
        let text = token.to_text();
        assert_eq!(format!(" {text}\n").parse::<Token>().unwrap(), token);
        assert_eq!(token.id().to_string().parse::<TokenId>().unwrap(), token.id());
        let printed = format!("{token:?}");
        assert!(printed.contains(&token.id().to_string()) && !printed.contains(&text[4..20]));
        for bad in ["", "ted-", &text[4..], &text[..text.len() - 1], &format!("{text}0")] {
            assert_eq!(bad.parse::<Token>(), Err(TokenError), "{bad}");
        }
    }
}
