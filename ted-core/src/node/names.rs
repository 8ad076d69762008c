//! Names for what has lost its own, or never had one here: made of its identifier.

use crate::id::{DistributionId, KeyHash};
use crate::name::{Label, NodeName};

/// A label for a Distribution whose name is not known here.
pub(crate) fn label_of_id(id: &DistributionId) -> Label {
    id.to_string().parse().expect("32 hex digits are a label")
}

/// A name for a node of which only the key is known here.
pub(crate) fn name_of_key(key: &KeyHash) -> NodeName {
    format!("key-{}", key.fingerprint()).parse().expect("hex digits and hyphens after letters are a DNS name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_identifier_makes_a_name() {
        for byte in [0, 0x12, 0xab, 0xff] {
            assert_eq!(label_of_id(&DistributionId::from_bytes([byte; 16])).as_str().len(), 32);
            assert!(name_of_key(&KeyHash::from_bytes([byte; 32])).to_string().starts_with("key-"));
        }
    }
}
