//! A Distributor's own certificate: what Subscribers pin, and what every chain is judged against.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::id::{KeyHash, UnixMillis};
use crate::name::NodeName;
use crate::security::{Certificate, Signature, TrustError, Usage, signed_message, verify_signature};

/// A Distributor's self-signed CA certificate. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistributorRoot(Certificate);

impl TryFrom<Certificate> for DistributorRoot {
    type Error = TrustError;

    fn try_from(certificate: Certificate) -> Result<Self, TrustError> {
        if certificate.usage() != Usage::Authority {
            return Err(TrustError::NotARoot { reason: "it is not a CA certificate" });
        }
        if !certificate.is_self_signed() {
            return Err(TrustError::NotARoot { reason: "its own key did not sign it" });
        }
        Ok(Self(certificate))
    }
}

impl DistributorRoot {
    /// The Distributor's node name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        self.0.name()
    }

    /// BLAKE3 of the CA key: what the Distributor's fleet is known by.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        self.0.key_hash()
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// The name of its file: `<node name>.cer`, with `-` for the `:` of IPv6.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.cer", self.name().file_stem())
    }

    /// Judges whether this Distributor issued `leaf` for `usage`, and whether both hold at `at`.
    /// A certificate that speaks for the Distributor must carry its name; the root itself is the only authority.
    ///
    /// # Errors
    /// [`TrustError`] says which of it fails.
    pub fn judge(&self, leaf: &Certificate, usage: Usage, at: UnixMillis) -> Result<(), TrustError> {
        if leaf.usage() != usage {
            return Err(TrustError::Usage { name: leaf.name().clone(), found: leaf.usage(), wanted: usage });
        }
        match usage.oid() {
            None if leaf == &self.0 => {}
            None => return Err(self.not_issued(leaf, "it is another authority")),
            Some(oid) => self.judge_chain(leaf, oid, at)?,
        }
        leaf.holds_at(at)?;
        self.0.holds_at(at)?;
        if usage.is_distributor_role() && leaf.name() != self.name() {
            return Err(TrustError::OtherName { found: leaf.name().clone(), wanted: self.name().clone() });
        }
        Ok(())
    }

    /// Checks that `signature` was made in `context` over `bytes` with a certificate that this Distributor issued
    /// for `usage` and that holds at `at`. Answers the signer's certificate.
    ///
    /// # Errors
    /// [`TrustError`] says what does not hold.
    pub fn verify(
        &self,
        context: &str,
        bytes: &[u8],
        signature: &Signature,
        usage: Usage,
        at: UnixMillis,
    ) -> Result<Certificate, TrustError> {
        if signature.algorithm != Signature::ECDSA_P256_SHA256 {
            return Err(TrustError::Algorithm(signature.algorithm));
        }
        let signer = Certificate::from_der(&signature.certificate)?;
        self.judge(&signer, usage, at)?;
        verify_signature(signer.spki(), &signed_message(context, bytes), &signature.signature)?;
        Ok(signer)
    }

    fn judge_chain(&self, leaf: &Certificate, oid: &'static [u8], at: UnixMillis) -> Result<(), TrustError> {
        let root_der = CertificateDer::from(self.0.der());
        let leaf_der = CertificateDer::from(leaf.der());
        let not_issued = |error: webpki::Error| match error {
            // Time is judged by `holds_at`, which names both clocks.
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => match leaf.holds_at(at) {
                Err(error) => error,
                Ok(()) => self.not_issued(leaf, "its validity cannot be read"),
            },
            error => self.not_issued(leaf, &error.to_string()),
        };
        let anchor = anchor_from_trusted_cert(&root_der).map_err(not_issued)?;
        let end = EndEntityCert::try_from(&leaf_der).map_err(not_issued)?;
        end.verify_for_usage(
            &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
            &[anchor],
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(at.seconds())),
            KeyUsage::required(oid),
            None,
            None,
        )
        .map_err(not_issued)?;
        Ok(())
    }

    fn not_issued(&self, leaf: &Certificate, reason: &str) -> TrustError {
        TrustError::Chain {
            name: leaf.name().clone(),
            root: self.name().clone(),
            fingerprint: self.key_hash().fingerprint(),
            reason: reason.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded;
    use crate::security::{Authority, AwsLc, CertificateRequest, Crypto, Identity, sign};

    const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn authority(text: &str) -> Authority {
        Authority::create(&AwsLc, &name(text), NOW).unwrap()
    }

    fn identities(authority: &Authority) -> Vec<Identity> {
        let own = authority.root().name().clone();
        let mut all = vec![authority.identity()];
        for usage in Usage::ISSUED {
            let name = if usage.is_distributor_role() { own.clone() } else { name("sub.example.com") };
            all.push(authority.issue_identity(&AwsLc, usage, &name, NOW).unwrap());
        }
        all
    }

    #[test]
    fn every_certificate_is_accepted_for_its_own_use_and_refused_for_every_other() {
        let authority = authority("dist.example.com");
        for identity in identities(&authority) {
            let found = identity.certificate.usage();
            let signature = sign(&AwsLc, &identity, "context", b"bytes").unwrap();
            for wanted in [Usage::Authority].into_iter().chain(Usage::ISSUED) {
                let verdict = authority.root().verify("context", b"bytes", &signature, wanted, NOW);
                if found == wanted {
                    assert_eq!(verdict.unwrap(), identity.certificate);
                } else {
                    assert_eq!(verdict.unwrap_err().code(), "TED-1104", "{found} as {wanted}");
                }
            }
        }
    }

    #[test]
    fn certificates_live_for_their_use_and_are_renewed_at_two_thirds_of_that() {
        for identity in identities(&authority("dist.example.com")) {
            let certificate = &identity.certificate;
            let days = match certificate.usage() {
                Usage::Authority => 20 * 365,
                Usage::DistributorTls => 90,
                _ => 365,
            };
            let (usage, ends) = (certificate.usage(), NOW.plus(DAY * days));
            assert_eq!(certificate.not_after(), ends, "{usage}");
            let life = ends.since(certificate.not_before());
            let two_thirds = certificate.not_before().plus(life / 3 * 2);
            assert!(certificate.renew_at().since(two_thirds) < Duration::from_secs(2), "{usage}");
            assert!(two_thirds.since(certificate.renew_at()) < Duration::from_secs(2), "{usage}");
        }
    }

    #[test]
    fn only_the_distributors_own_ca_issues_for_it_even_under_the_same_name() {
        let ours = authority("dist.example.com");
        let twin = authority("dist.example.com");
        for identity in identities(&twin) {
            let usage = identity.certificate.usage();
            let verdict = ours.root().judge(&identity.certificate, usage, NOW);
            assert_eq!(verdict.unwrap_err().code(), "TED-1105", "{usage}");
        }
        let signer = &identities(&ours)[1];
        assert!(Authority::from_parts(ours.root().clone(), signer.key.clone()).is_err());
    }

    /// A certificate for `usage` in the name `own`, as `issuer` would make it if nobody refused.
    fn forged(issuer: &Identity, usage: Usage, own: &str) -> Certificate {
        let mut params = rcgen::CertificateParams::new(vec![own.to_owned()]).unwrap();
        let key = rcgen::KeyPair::try_from(issuer.key.pkcs8()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_der(&CertificateDer::from(issuer.certificate.der()), key).unwrap();
        let extension = usage.extension_value().unwrap();
        params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 37], extension)];
        let made = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap();
        Certificate::from_der(made.der()).unwrap()
    }

    #[test]
    fn no_leaf_can_issue_anything_in_any_name() {
        let ours = authority("dist.example.com");
        for issuer in identities(&ours).into_iter().skip(1) {
            for usage in Usage::ISSUED {
                for own in ["dist.example.com", "sub.example.com"] {
                    let verdict = ours.root().judge(&forged(&issuer, usage, own), usage, NOW);
                    let by = issuer.certificate.usage();
                    assert_eq!(verdict.unwrap_err().code(), "TED-1105", "{usage} for {own}, by {by}");
                }
            }
        }
    }

    #[test]
    fn a_leaf_in_anothers_name_speaks_for_no_distributor_even_if_the_ca_key_signed_it() {
        let ours = authority("dist.example.com");
        for usage in Usage::ISSUED {
            for (own, is_ours) in [("dist.example.com", true), ("other.example.com", false)] {
                let verdict = ours.root().judge(&forged(&ours.identity(), usage, own), usage, NOW);
                let expected = (usage.is_distributor_role() && !is_ours).then_some("TED-1108");
                assert_eq!(verdict.err().map(|error| error.code()), expected, "{usage} for {own}");
            }
        }
    }

    #[test]
    fn validity_is_judged_at_the_time_given_and_both_clocks_are_named() {
        let ours = authority("dist.example.com");
        let [.., tls, subscriber, _] = &identities(&ours)[..] else { panic!("five of them") };
        for (identity, at, code) in [
            (tls, UnixMillis::from_millis(NOW.millis() - 3_600_000), None),
            (tls, UnixMillis::from_millis(NOW.millis() - 3_601_000), Some("TED-1106")),
            (tls, NOW.plus(DAY * 90), None),
            (tls, NOW.plus(DAY * 90 + Duration::from_secs(1)), Some("TED-1107")),
            (subscriber, NOW.plus(DAY * 365), None),
            (subscriber, NOW.plus(DAY * 366), Some("TED-1107")),
        ] {
            let verdict = ours.root().judge(&identity.certificate, identity.certificate.usage(), at);
            assert_eq!(verdict.as_ref().err().map(Coded::code), code, "{at:?}");
        }
        let error = ours.root().judge(&tls.certificate, Usage::DistributorTls, NOW.plus(DAY * 100)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("2027-04-15") && text.contains("2027-04-25"), "{text}");
    }

    #[test]
    fn a_certificate_that_speaks_for_the_distributor_carries_its_name() {
        let ours = authority("dist.example.com");
        for usage in Usage::ISSUED {
            let made = ours.issue_identity(&AwsLc, usage, &name("other.example.com"), NOW);
            assert_eq!(made.is_err(), usage.is_distributor_role(), "{usage}");
        }
    }

    #[test]
    fn roots_are_self_signed_ca_certificates_and_nothing_else() {
        let ours = authority("dist.example.com");
        for identity in &identities(&ours)[1..] {
            let error = DistributorRoot::try_from(identity.certificate.clone()).unwrap_err();
            assert_eq!(error.code(), "TED-1111");
        }
        let bytes = ours.root().certificate().der();
        let last = bytes.len() - 1;
        let mut forged = bytes.to_vec();
        forged[last] ^= 1;
        let verdict = Certificate::from_der(&forged).and_then(DistributorRoot::try_from);
        assert!(verdict.is_err());
    }

    #[test]
    fn certificates_survive_pem_and_name_what_they_are() {
        for (given, file) in [("dist.example.com", "dist.example.com.cer"), ("2001:db8::1", "2001-db8--1.cer")] {
            let ours = authority(given);
            let pem = ours.root().certificate().pem();
            let read = Certificate::from_pem(&pem).unwrap();
            assert_eq!(&read, ours.root().certificate());
            assert_eq!(read.name(), &name(given));
            assert_eq!(ours.root().file_name(), file);
            assert!(Certificate::from_pem(&pem.repeat(2)).is_err());
            assert!(Certificate::from_pem("no certificate").is_err());
        }
    }

    #[test]
    fn foreign_certificates_are_refused_when_they_are_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let plain = |names: &[&str]| {
            rcgen::CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        let mut server = plain(&["a.example"]);
        server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let mut both = plain(&["a.example"]);
        both.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 37], {
            let (mut one, two) = (Usage::Sign.extension_value().unwrap(), Usage::DistributorTls.extension_value());
            one.extend_from_slice(&two.unwrap()[2..]);
            one[1] *= 2;
            one
        })];
        for (what, params) in [
            ("no use", plain(&["a.example"])),
            ("another use", server),
            ("two uses", both),
            ("no name", plain(&[])),
            ("two names", plain(&["a.example", "b.example"])),
        ] {
            let made = params.self_signed(&key).unwrap();
            assert_eq!(Certificate::from_der(made.der()).unwrap_err().code(), "TED-1102", "{what}");
        }
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let made = plain(&["a.example"]).self_signed(&p384).unwrap();
        assert_eq!(Certificate::from_der(made.der()).unwrap_err().code(), "TED-1103");
    }

    #[test]
    fn requests_ask_for_one_use_under_one_name_and_prove_their_key() {
        let ours = authority("dist.example.com");
        let (identity, encryption) = (AwsLc.generate_key().unwrap(), AwsLc.generate_key().unwrap());
        let node = name("sub.example.com");
        for (key, usage) in [(&identity, Usage::SubscriberIdentity), (&encryption, Usage::SubscriberEncryption)] {
            let request = CertificateRequest::make(&AwsLc, key, &node, usage).unwrap();
            let countersignature = request.countersign(&AwsLc, &identity).unwrap();
            let (read, second) = CertificateRequest::from_pem(&request.to_pem(Some(&countersignature))).unwrap();
            assert_eq!((read.name(), read.usage(), read.spki()), (&node, usage, key.spki()));
            read.check_countersignature(identity.spki(), &second.unwrap()).unwrap();
            assert!(read.check_countersignature(encryption.spki(), &countersignature).is_err());
            let issued = ours.issue(&AwsLc, read.usage(), read.name(), read.spki(), NOW).unwrap();
            ours.root().judge(&issued, usage, NOW).unwrap();
            assert_eq!(issued.key_hash(), key.key_hash());
            for at in 0..request.der().len() {
                let mut flipped = request.der().to_vec();
                flipped[at] ^= 1;
                // The parser is lenient about a tag outside of what is signed; nothing that counts may differ.
                if let Ok(other) = CertificateRequest::from_der(&flipped) {
                    assert_eq!((other.name(), other.usage(), other.spki()), (&node, usage, key.spki()), "byte {at}");
                }
            }
        }
    }
}
