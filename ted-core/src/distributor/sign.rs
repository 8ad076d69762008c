//! Signing requests that were carried here as files.

use crate::distributor::DistributorError;
use crate::distributor::report::{RequestingNode, SignedNode};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::KeyHash;
use crate::name::{Label, NodeName};
use crate::security::{Certificate, CertificateRequest, CheckedEnrolment, EnrolAnswer, Usage};
use crate::store::Registration;

/// Requests that belong together.
enum Requests {
    /// Both of a node.
    Both(CheckedEnrolment),
    /// One of a node that is registered, by its identity key.
    One { request: CertificateRequest, registered: KeyHash },
}

impl Requests {
    fn name(&self) -> &NodeName {
        match self {
            Self::Both(checked) => checked.node(),
            Self::One { request, .. } => request.name(),
        }
    }

    /// The identity key that the node is known by.
    fn key(&self) -> KeyHash {
        match self {
            Self::Both(checked) => checked.key_hash(),
            Self::One { registered, .. } => *registered,
        }
    }
}

impl State {
    /// Whose requests these are, for whoever decides about them.
    pub(super) fn look_at_requests(&self, texts: &[String]) -> Result<RequestingNode, Error> {
        let requests = self.read_requests(texts)?;
        let (name, key) = (requests.name().clone(), requests.key());
        let there = self.key_of_name(&name);
        Ok(RequestingNode {
            fingerprint: key.fingerprint(),
            is_registered: there == Some(key),
            replaces: there.filter(|there| *there != key).map(|there| there.fingerprint()),
            name,
        })
    }

    /// Registers the node, where it is new, and issues what it requests. `fingerprint` says whose requests were meant.
    pub(super) fn sign_requests(
        &self,
        texts: &[String],
        fingerprint: &str,
        channels: &[Label],
    ) -> Result<SignedNode, Error> {
        let requests = self.read_requests(texts)?;
        let (name, key) = (requests.name().clone(), requests.key());
        if !key.has_fingerprint(fingerprint) {
            let (asked, found) = (fingerprint.to_owned(), key.fingerprint());
            return Err(DistributorError::OtherFingerprint { asked, found }.into());
        }
        let _one_at_a_time = lock(&self.enrolling);
        let certificates = match requests {
            Requests::Both(checked) => {
                self.refuse_revoked(&key, &name)?;
                self.ensure_subscriber(&name, channels)?;
                let is_known = self.registrations.name_of(&key).is_some_and(|known| known == name);
                let issued = if is_known { self.issue(&checked)? } else { self.register(&checked)? };
                self.forget_pending(&key)?;
                match issued {
                    EnrolAnswer::Issued { identity, encryption } => {
                        vec![Certificate::from_der(&identity)?, Certificate::from_der(&encryption)?]
                    }
                    _ => vec![],
                }
            }
            Requests::One { request, registered } => {
                self.ensure_subscriber(&name, channels)?;
                vec![self.issue_one(&request, &registered)?]
            }
        };
        Ok(SignedNode { name, fingerprint: key.fingerprint(), certificates })
    }

    fn issue_one(&self, request: &CertificateRequest, registered: &KeyHash) -> Result<Certificate, Error> {
        self.refuse_revoked(registered, request.name())?;
        let own = self.own();
        let made = own.authority.issue(&*self.crypto, request.usage(), request.name(), request.spki(), self.now())?;
        match request.usage() {
            Usage::SubscriberEncryption => {
                if let Some(known) = self.registrations.get(registered) {
                    let encryption = Some(made.der().to_vec());
                    self.registrations.register(Registration { encryption, ..known })?;
                }
            }
            _ => self.note_issued(registered, &made),
        }
        Ok(made)
    }

    /// A key that was revoked gets no certificate any more.
    pub(super) fn refuse_revoked(&self, key: &KeyHash, name: &NodeName) -> Result<(), Error> {
        if self.is_key_revoked(key) {
            let fingerprint = key.fingerprint();
            return Err(DistributorError::RevokedKey { name: name.clone(), fingerprint }.into());
        }
        Ok(())
    }

    fn read_requests(&self, texts: &[String]) -> Result<Requests, Error> {
        let refuse = |reason| Err(DistributorError::Requests(reason).into());
        let read = texts.iter().map(|text| CertificateRequest::from_pem(text)).collect::<Result<Vec<_>, _>>()?;
        match &read[..] {
            [one, two] => {
                let (identity, encryption) =
                    if one.0.usage() == Usage::SubscriberIdentity { (one, two) } else { (two, one) };
                let Some(countersignature) = &encryption.1 else {
                    return refuse("the encryption request has no countersignature of the identity key");
                };
                let checked =
                    CheckedEnrolment::from_requests(identity.0.clone(), encryption.0.clone(), countersignature)?;
                Ok(Requests::Both(checked))
            }
            [(request, countersignature)] => {
                let Some(registered) = self.key_of_name(request.name()) else {
                    return refuse("one request alone is only signed for a node that is registered: bring both");
                };
                let known = self.registrations.get(&registered);
                let spki = known.map(|known| known.spki).unwrap_or_default();
                match (request.usage(), countersignature) {
                    (Usage::SubscriberIdentity, _) if request.spki() == spki => {}
                    (Usage::SubscriberEncryption, Some(countersignature)) => {
                        request.check_countersignature(&spki, countersignature)?;
                    }
                    _ => return refuse("the request is for another key than the one that is registered: bring both"),
                }
                Ok(Requests::One { request: request.clone(), registered })
            }
            _ => refuse("a node has two requests, one for its identity and one for encryption"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributor::Distributor;
    use crate::security::{AwsLc, Crypto as _, RevocationReason, RevokedKey, SecretKey};

    struct Node {
        identity: SecretKey,
        encryption: SecretKey,
        name: NodeName,
    }

    impl Node {
        fn new(name: &str) -> Self {
            let key = || AwsLc.generate_key().unwrap();
            Self { identity: key(), encryption: key(), name: name.parse().unwrap() }
        }

        fn texts(&self) -> [String; 2] {
            let make = |key, usage| CertificateRequest::make(&AwsLc, key, &self.name, usage).unwrap();
            let encryption = make(&self.encryption, Usage::SubscriberEncryption);
            let word = encryption.countersign(&AwsLc, &self.identity).unwrap();
            [make(&self.identity, Usage::SubscriberIdentity).to_pem(None), encryption.to_pem(Some(&word))]
        }

        fn fingerprint(&self) -> String {
            self.identity.key_hash().fingerprint()
        }
    }

    async fn distributor() -> (tempfile::TempDir, Distributor) {
        let folder = tempfile::tempdir().unwrap();
        let builder = Distributor::builder(folder.path()).name("dist.example.com".parse().unwrap());
        let distributor = builder.open().await.unwrap();
        (folder, distributor)
    }

    #[tokio::test]
    async fn requests_are_signed_only_for_the_fingerprint_that_was_meant_and_register_its_key() {
        let (_folder, distributor) = distributor().await;
        let node = Node::new("s1.example.com");
        let [identity, encryption] = node.texts();
        let both = [encryption.clone(), identity.clone()];
        let seen = distributor.look_at_requests(&both).await.unwrap();
        assert_eq!((seen.fingerprint.clone(), seen.is_registered, seen.replaces), (node.fingerprint(), false, None));
        let other = distributor.sign_requests(&both, "0011-2233-4455-6677", &[]).await.unwrap_err();
        assert_eq!(other.code(), "TED-1217");
        assert!(distributor.fleet().subscriber(&node.name).is_err(), "nothing was changed");
        // A lone request is worth nothing before the node is registered.
        for text in [&identity, &encryption] {
            let alone = distributor.sign_requests(std::slice::from_ref(text), &seen.fingerprint, &[]).await;
            assert_eq!(alone.unwrap_err().code(), "TED-1216");
        }
        let typed = seen.fingerprint.to_uppercase().replace('-', " ");
        let signed = distributor.sign_requests(&both, &typed, &[]).await.unwrap();
        for (certificate, key, usage) in [
            (&signed.certificates[0], &node.identity, Usage::SubscriberIdentity),
            (&signed.certificates[1], &node.encryption, Usage::SubscriberEncryption),
        ] {
            assert_eq!(certificate.spki(), key.spki());
            distributor.root().judge(certificate, usage, distributor.state.now()).unwrap();
        }
        assert!(distributor.state.registrations.is_registered(&node.identity.key_hash()));
        // Each alone is renewed from now on.
        for text in [identity, encryption] {
            let again = distributor.sign_requests(&[text], &seen.fingerprint, &[]).await.unwrap();
            assert_eq!(again.certificates.len(), 1);
        }
    }

    #[tokio::test]
    async fn requests_of_two_nodes_of_revoked_keys_and_of_strangers_are_refused() {
        let (_folder, distributor) = distributor().await;
        let (ours, stranger) = (Node::new("s1.example.com"), Node::new("s1.example.com"));
        let mixed = [ours.texts()[0].clone(), stranger.texts()[1].clone()];
        assert_eq!(distributor.look_at_requests(&mixed).await.unwrap_err().code(), "TED-1109");
        let twice = [ours.texts()[0].clone(), ours.texts()[0].clone()];
        assert_eq!(distributor.look_at_requests(&twice).await.unwrap_err().code(), "TED-1216");
        assert_eq!(distributor.look_at_requests(&[]).await.unwrap_err().code(), "TED-1216");
        distributor.sign_requests(&ours.texts(), &ours.fingerprint(), &[]).await.unwrap();
        let alone = [stranger.texts()[1].clone()];
        assert_eq!(distributor.look_at_requests(&alone).await.unwrap_err().code(), "TED-1109");
        let seen = distributor.look_at_requests(&stranger.texts()).await.unwrap();
        assert_eq!(seen.replaces, Some(ours.fingerprint()), "it is said whose place is taken");
        let state = &distributor.state;
        let (key, since) = (ours.identity.key_hash(), state.now());
        let lost = RevokedKey { key, serials: vec![], since, reason: RevocationReason::LOST };
        state.revoke_keys(vec![(lost, None)]).unwrap();
        let revoked = distributor.sign_requests(&ours.texts(), &ours.fingerprint(), &[]).await.unwrap_err();
        assert_eq!(revoked.code(), "TED-1195");
    }
}
