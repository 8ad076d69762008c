//! One-time tokens beside the keystore: they let nodes in, so they are kept as keys are.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::UnixMillis;
use crate::name::NodeName;
use crate::security::{Token, TokenId};
use crate::store::durable::StateError;
use crate::store::logged_map::LoggedMap;
use crate::store::security_dir::SecurityDir;

/// The file's name in `private/`; it is left out of backups, because a restored one would be good a second time.
pub(super) const TOKENS_FILE: &str = "tokens";
const KIND: u16 = 4;

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenGrant {
    /// How many nodes may still use it.
    pub uses_left: u32,
    /// Until when.
    pub expires: UnixMillis,
    /// The one node that may use it, if it came with an invite.
    pub node: Option<NodeName>,
}

#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Stored {
    token: [u8; 32],
    #[zeroize(skip)]
    uses_left: u32,
    #[zeroize(skip)]
    expires: UnixMillis,
    #[zeroize(skip)]
    node: Option<NodeName>,
}

/// The tokens that a Distributor gave out and that are not used up. Every change is durable when it returns.
pub struct Tokens(LoggedMap<TokenId, Stored>);

impl Tokens {
    /// Opens `private/tokens`.
    ///
    /// # Errors
    /// [`StateError`]; a damaged file is never taken for an empty one.
    pub fn open(security: &SecurityDir) -> Result<Self, StateError> {
        Ok(Self(LoggedMap::open(security.private_file(TOKENS_FILE), "a file of tokens", KIND)?))
    }

    /// Keeps a token; those that have expired by `now` go.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn add(&self, token: &Token, grant: TokenGrant, now: UnixMillis) -> Result<(), StateError> {
        let TokenGrant { uses_left, expires, node } = grant;
        let stored = Stored { token: *token.as_bytes(), uses_left, expires, node };
        self.0.change(|tokens| {
            let expired = tokens.iter().filter(|(_, known)| now >= known.expires).map(|(id, _)| (*id, None));
            (expired.chain([(token.id(), Some(stored))]).collect(), ())
        })
    }

    /// A token, and what it allows.
    #[must_use]
    pub fn get(&self, id: &TokenId) -> Option<(Token, TokenGrant)> {
        let tokens = self.0.read();
        let stored = tokens.get(id)?;
        let grant = TokenGrant { uses_left: stored.uses_left, expires: stored.expires, node: stored.node.clone() };
        Some((Token::from_bytes(stored.token), grant))
    }

    /// Counts one use. A token that is used up goes.
    ///
    /// # Errors
    /// [`StateError`]; then it is as it was.
    pub fn spend(&self, id: &TokenId) -> Result<(), StateError> {
        self.0.change(|tokens| {
            let Some(stored) = tokens.get(id) else { return (vec![], ()) };
            let mut left = stored.clone();
            left.uses_left = left.uses_left.saturating_sub(1);
            (vec![(*id, Some(left).filter(|left| left.uses_left > 0))], ())
        })
    }

    /// Takes back what was given out for this node.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn take_back(&self, node: &NodeName) -> Result<(), StateError> {
        self.0.change(|tokens| {
            let of_node = tokens.iter().filter(|(_, stored)| stored.node.as_ref() == Some(node));
            (of_node.map(|(id, _)| (*id, None)).collect(), ())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::AwsLc;
    use crate::store::NodeRole;

    const NOW: UnixMillis = UnixMillis::from_millis(1000);
    const LATER: UnixMillis = UnixMillis::from_millis(2000);

    fn grant(uses_left: u32, node: Option<&str>) -> TokenGrant {
        TokenGrant { uses_left, expires: LATER, node: node.map(|node| node.parse().unwrap()) }
    }

    #[test]
    fn a_token_is_good_for_its_uses_and_gone_after_them_or_when_it_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let security = SecurityDir::create(&folder.path().join("security"), NodeRole::Distributor).unwrap();
        let tokens = Tokens::open(&security).unwrap();
        let (two, one) = (Token::generate(&AwsLc).unwrap(), Token::generate(&AwsLc).unwrap());
        tokens.add(&two, grant(2, None), NOW).unwrap();
        tokens.add(&one, grant(1, Some("s1.example.com")), NOW).unwrap();
        tokens.spend(&two.id()).unwrap();
        let again = Tokens::open(&security).unwrap();
        assert_eq!(again.get(&two.id()), Some((two.clone(), grant(1, None))));
        again.take_back(&"s2.example.com".parse().unwrap()).unwrap();
        assert!(again.get(&one.id()).is_some());
        again.take_back(&"s1.example.com".parse().unwrap()).unwrap();
        again.spend(&two.id()).unwrap();
        assert!(again.get(&one.id()).is_none() && again.get(&two.id()).is_none());
        assert!(Tokens::open(&security).unwrap().get(&two.id()).is_none());
    }

    #[test]
    fn what_has_expired_goes_with_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let security = SecurityDir::create(&folder.path().join("security"), NodeRole::Distributor).unwrap();
        let tokens = Tokens::open(&security).unwrap();
        let (old, new) = (Token::generate(&AwsLc).unwrap(), Token::generate(&AwsLc).unwrap());
        tokens.add(&old, grant(1, None), NOW).unwrap();
        tokens.add(&new, TokenGrant { expires: UnixMillis::from_millis(9000), ..grant(1, None) }, LATER).unwrap();
        assert!(tokens.get(&old.id()).is_none() && tokens.get(&new.id()).is_some());
    }
}
