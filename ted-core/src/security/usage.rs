//! What a certificate is for: exactly one use each, told by a TED extended key usage.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The one thing that a certificate's key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Usage {
    /// A Distributor's own CA key: issues certificates, signs revocation lists and its own replacement.
    Authority,
    /// Signs packages, release statements, grants and configuration.
    Sign,
    /// Speaks TLS as one running instance of the Distributor.
    DistributorTls,
    /// Speaks TLS as a Subscriber and signs its receipts.
    SubscriberIdentity,
    /// Key agreement only: what grants are sealed to.
    SubscriberEncryption,
}

impl Usage {
    /// Those that a Distributor issues.
    pub const ISSUED: [Self; 4] =
        [Self::Sign, Self::DistributorTls, Self::SubscriberIdentity, Self::SubscriberEncryption];

    /// Whether the certificate speaks for the Distributor itself, so that its name must be the root's name.
    #[must_use]
    pub const fn is_distributor_role(self) -> bool {
        matches!(self, Self::Authority | Self::Sign | Self::DistributorTls)
    }

    /// The object identifier's value bytes in DER: 2.25.89750531712634888496255718847187424211.n, an arc made from
    /// the random UUID 438552db-0de9-4358-94d9-f0050fba93d3 (ITU-T X.667). The CA has no extended key usage.
    #[must_use]
    pub(super) const fn oid(self) -> Option<&'static [u8]> {
        match self {
            Self::Authority => None,
            Self::Sign => Some(&OIDS[0]),
            Self::DistributorTls => Some(&OIDS[1]),
            Self::SubscriberIdentity => Some(&OIDS[2]),
            Self::SubscriberEncryption => Some(&OIDS[3]),
        }
    }

    /// The whole value of an extended key usage extension that names this use alone.
    pub(super) fn extension_value(self) -> Option<Vec<u8>> {
        let oid = self.oid()?;
        let mut value = vec![SEQUENCE, oid.len() as u8 + 2, OBJECT_IDENTIFIER, oid.len() as u8];
        value.extend_from_slice(oid);
        Some(value)
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Authority => "authority",
            Self::Sign => "sign",
            Self::DistributorTls => "distributor-tls",
            Self::SubscriberIdentity => "subscriber-identity",
            Self::SubscriberEncryption => "subscriber-encryption",
        })
    }
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

const OIDS: [[u8; 21]; 4] = [oid(1), oid(2), oid(3), oid(4)];

const fn oid(last: u8) -> [u8; 21] {
    [
        0x69, 0x81, 0x87, 0x85, 0xa9, 0xb6, 0xe1, 0xde, 0xca, 0x8d, 0xb1, 0x94, 0xec, 0xfc, 0x80, 0xd0, 0xfd, 0xea,
        0xa7, 0x53, last,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_identifiers_are_the_uuid_in_base_128() {
        let mut uuid: u128 = 0x438552db_0de9_4358_94d9_f0050fba93d3;
        let mut digits = vec![(uuid & 0x7f) as u8];
        uuid >>= 7;
        while uuid > 0 {
            digits.push((uuid & 0x7f) as u8 | 0x80);
            uuid >>= 7;
        }
        digits.push(2 * 40 + 25);
        digits.reverse();
        for (usage, last) in Usage::ISSUED.into_iter().zip(1..) {
            digits.push(last);
            assert_eq!(usage.oid(), Some(&digits[..]));
            digits.pop();
        }
    }
}
