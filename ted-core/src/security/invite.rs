//! The invite: one secret text file that is carried to a node and lets it join.

use serde::{Deserialize, Serialize};

use crate::error::Coded;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::model::Endpoint;
use crate::name::NodeName;
use crate::security::{Certificate, DistributorRoot, Token, TrustError};

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
const HEADING: &str =
    "# An invite of TED. It holds a one-time token: carry it like a password, and delete it after use.\n";

/// Why a text is no invite.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// Not the file it should be.
    #[error("not an invite: {0}")]
    Malformed(String),
    /// Written by a newer TED.
    #[error("the invite has version {0}, and this TED reads version {VERSION}")]
    Version(u32),
    /// Its certificate is no Distributor's.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl Coded for InviteError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "TED-1205",
            Self::Version(_) => "TED-1206",
            Self::Trust(error) => error.code(),
        }
    }
}

/// A parent Subscriber that an invited node may meet on its way to the Distributor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentHint {
    /// Its name, a label.
    pub name: NodeName,
    /// Its identity key. The Distributor may stand among parents too, with its CA key, as a way back that is wanted.
    pub key: KeyHash,
    /// Where to dial it, in order of preference.
    pub endpoints: Vec<Endpoint>,
}

/// All that a node needs to join a fleet: whom to trust, where to dial, what it is called, and the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// The Distributor's certificate.
    pub distributor: DistributorRoot,
    /// Where to dial the Distributor, in order of preference.
    pub endpoints: Vec<Endpoint>,
    /// The node's name.
    pub node: NodeName,
    /// Through whom it is reached, where not directly.
    pub parents: Vec<ParentHint>,
    /// The one-time token.
    pub token: Token,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteFile {
    version: u32,
    node: NodeName,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    token: String,
    certificate: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parents: Vec<ParentFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParentFile {
    name: NodeName,
    key: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

impl Invite {
    /// The file's text. Whoever writes it gives the file mode 0600.
    ///
    /// # Errors
    /// [`InviteError::Malformed`] when TOML cannot say it.
    pub fn to_text(&self) -> Result<String, InviteError> {
        let parent = |hint: &ParentHint| ParentFile {
            name: hint.name.clone(),
            key: hint.key.to_string(),
            endpoints: hint.endpoints.clone(),
        };
        let file = InviteFile {
            version: VERSION,
            node: self.node.clone(),
            endpoints: self.endpoints.clone(),
            token: self.token.to_text(),
            certificate: self.distributor.certificate().pem(),
            parents: self.parents.iter().map(parent).collect(),
        };
        let body = toml::to_string_pretty(&file).map_err(|error| InviteError::Malformed(error.to_string()))?;
        Ok(format!("{HEADING}{body}"))
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// [`InviteError`] says what is wrong; it never repeats the token.
    pub fn from_text(text: &str) -> Result<Self, InviteError> {
        let malformed = |reason: String| InviteError::Malformed(reason);
        if text.len() as u64 > Limits::DEFAULT.envelope_bytes_max {
            return Err(malformed(format!("it has {} bytes", text.len())));
        }
        // The message alone: TOML's full error would show the line, and the line may be the token's.
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| malformed(error.message().to_owned()))?;
        match table.get("version").and_then(toml::Value::as_integer).map(u32::try_from) {
            Some(Ok(VERSION)) => {}
            Some(Ok(version)) => return Err(InviteError::Version(version)),
            _ => return Err(malformed("it names no version".to_owned())),
        }
        let file: InviteFile = table.try_into().map_err(|error| malformed(error.message().to_owned()))?;
        let parent = |hint: ParentFile| {
            let key = hint.key.parse().map_err(|error| malformed(format!("{error}")))?;
            Ok(ParentHint { name: hint.name, key, endpoints: hint.endpoints })
        };
        Ok(Self {
            distributor: Certificate::from_pem(&file.certificate)?.try_into()?,
            endpoints: file.endpoints,
            node: file.node,
            parents: file.parents.into_iter().map(parent).collect::<Result<_, InviteError>>()?,
            token: file.token.parse().map_err(|error| malformed(format!("{error}")))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UnixMillis;
    use crate::security::{Authority, AwsLc, Usage};

    const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

    fn invite() -> (Authority, Invite) {
        let authority = Authority::create(&AwsLc, &"dist.example.com".parse().unwrap(), NOW).unwrap();
        let invite = Invite {
            distributor: authority.root().clone(),
            endpoints: vec!["dist.example.com:1229".parse().unwrap(), "[2001:db8::1]:7".parse().unwrap()],
            node: "sub.example.com".parse().unwrap(),
            parents: vec![ParentHint {
                name: "10.0.0.1".parse().unwrap(),
                key: KeyHash::from_bytes([7; 32]),
                endpoints: vec!["10.0.0.1:1229".parse().unwrap()],
            }],
            token: Token::generate(&AwsLc).unwrap(),
        };
        (authority, invite)
    }

    #[test]
    fn invites_survive_their_text_with_parents() {
        let (_, given) = invite();
        let text = given.to_text().unwrap();
        assert_eq!(Invite::from_text(&text).unwrap(), given);
        let alone = Invite { parents: Vec::new(), ..given };
        assert_eq!(Invite::from_text(&alone.to_text().unwrap()).unwrap(), alone);
    }

    #[test]
    fn damaged_invites_are_refused_and_the_token_is_not_shown() {
        let (authority, given) = invite();
        let text = given.to_text().unwrap();
        let token = given.token.to_text();
        let tls = authority.issue_identity(&AwsLc, Usage::DistributorTls, authority.root().name(), NOW).unwrap();
        for (damaged, code) in [
            (String::new(), "TED-1205"),
            ("garbage".to_owned(), "TED-1205"),
            (text.replace("version = 1", "version = 2"), "TED-1206"),
            (text.replace("ted-", "ted"), "TED-1205"),
            (text.replace(&format!("\"{token}\""), &token), "TED-1205"),
            (text.replace("key = \"07", "key = \"zz"), "TED-1205"),
            (text.replace(&authority.root().certificate().pem(), &tls.certificate.pem()), "TED-1111"),
            (text.replace("BEGIN CERTIFICATE", "BEGIN NOTHING"), "TED-1101"),
        ] {
            let error = Invite::from_text(&damaged).unwrap_err();
            assert_eq!(error.code(), code, "{damaged}");
            assert!(!error.to_string().contains(&token[8..]), "{error}");
        }
    }
}
