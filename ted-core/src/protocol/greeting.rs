//! What a greeting says beyond version 1. Bytes: `docs/protocol.md`, "Hello".

use crate::codec;
use crate::limits::Limits;
use crate::protocol::{Hello, MessageError};
use crate::security::HeldCertificate;

/// The extension of [`Hello`] in which a Subscriber says how it holds its Distributor's certificate.
const HELD_CERTIFICATE: u16 = 1;

impl Hello {
    /// The same greeting, saying how the speaker holds its Distributor's certificate.
    ///
    /// # Errors
    /// [`MessageError::Payload`] if that is longer than [`Limits::message_bytes_max`].
    pub fn holding(mut self, held: &HeldCertificate, limits: &Limits) -> Result<Self, MessageError> {
        let bytes = codec::encode("a greeting", held, limits.message_bytes_max)?;
        self.extensions.retain(|(kind, _)| *kind != HELD_CERTIFICATE);
        self.extensions.push((HELD_CERTIFICATE, bytes));
        self.extensions.sort_by_key(|(kind, _)| *kind);
        Ok(self)
    }

    /// How the speaker holds its Distributor's certificate; none where it does not say so, or not in a way that is
    /// understood here.
    #[must_use]
    pub fn held_certificate(&self, limits: &Limits) -> Option<HeldCertificate> {
        let (_, bytes) = self.extensions.iter().find(|(kind, _)| *kind == HELD_CERTIFICATE)?;
        codec::decode("a greeting", bytes, limits.message_bytes_max).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{InstanceId, UnixMillis};
    use crate::protocol::PROTOCOL_VERSION;
    use crate::security::HeldIn;

    const LIMITS: Limits = Limits::DEFAULT;

    fn greeting() -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            node: "edge-1.example.com".parse().expect("valid"),
            instance: InstanceId::from_bytes([7; 16]),
            clock: UnixMillis::from_millis(1_800_000_000_000),
            capabilities: vec![],
            extensions: vec![(9, b"later".to_vec())],
        }
    }

    #[test]
    fn a_greeting_says_how_a_certificate_is_held_and_nonsense_says_nothing() {
        let held = HeldCertificate {
            held_in: HeldIn::Keystore,
            thumbprint: [3; 32],
            name: "d.example".parse().expect("valid"),
        };
        assert_eq!(greeting().held_certificate(&LIMITS), None);
        let said = greeting().holding(&held, &LIMITS).expect("short");
        assert_eq!(said.held_certificate(&LIMITS), Some(held.clone()));
        assert_eq!(said.extensions.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [1, 9]);
        let bytes = [&[2, 0, 0, 0][..], &[3; 32], &9_u64.to_le_bytes(), b"d.example"].concat();
        assert_eq!(said.extensions[0].1, bytes, "as docs/protocol.md has it");
        assert_eq!(said.clone().holding(&held, &LIMITS).expect("short"), said);
        let mut odd = said;
        odd.extensions[0].1.push(0);
        assert_eq!(odd.held_certificate(&LIMITS), None);
    }
}
