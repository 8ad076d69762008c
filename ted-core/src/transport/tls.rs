//! TLS 1.3 for QUIC: which certificate is shown, and proof that the peer holds the key of its own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig, SignatureScheme,
};

use crate::id::KeyHash;
use crate::security::{Alpn, Identity, sni_means};

/// AWS-LC alone, TLS 1.3 alone. AES-128-GCM first: it is the fastest where the CPU has AES, and as strong as P-256.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(provider)
}

/// The certificates that this node shows, one per fleet. They can change while connections live.
pub(super) struct Identities {
    provider: Arc<CryptoProvider>,
    by_fleet: RwLock<HashMap<KeyHash, Arc<CertifiedKey>>>,
}

impl Identities {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider, by_fleet: RwLock::default() }
    }

    /// Shows `identity` in the fleet from the next handshake on.
    pub(super) fn set(&self, fleet: KeyHash, identity: &Identity) -> Result<(), Error> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.pkcs8().to_vec()));
        let key = self.provider.key_provider.load_private_key(key)?;
        let chain = vec![CertificateDer::from(identity.certificate.der().to_vec())];
        let certified = Arc::new(CertifiedKey::new(chain, key));
        self.by_fleet.write().unwrap_or_else(PoisonError::into_inner).insert(fleet, certified);
        Ok(())
    }

    pub(super) fn remove(&self, fleet: &KeyHash) {
        self.by_fleet.write().unwrap_or_else(PoisonError::into_inner).remove(fleet);
    }

    pub(super) fn get(&self, fleet: &KeyHash) -> Option<Arc<CertifiedKey>> {
        self.by_fleet.read().unwrap_or_else(PoisonError::into_inner).get(fleet).cloned()
    }

    /// The certificate for the fleet that `sni` names. For an unknown fleet any of them is shown: the handshake then
    /// succeeds, and the judging on both sides ends it with a reason that both can log.
    fn for_sni(&self, sni: &str) -> Option<Arc<CertifiedKey>> {
        let identities = self.by_fleet.read().unwrap_or_else(PoisonError::into_inner);
        let named = identities.iter().find(|(fleet, _)| sni_means(sni, fleet));
        named.or_else(|| identities.iter().next()).map(|(_, certified)| Arc::clone(certified))
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.for_sni(hello.server_name().unwrap_or_default())
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identities")
    }
}

/// The listener's TLS: client certificates are asked for and optional; no tickets, no resumption, no 0-RTT, because
/// rustls would not look at a certificate again on resumption.
pub(super) fn server_config(
    provider: Arc<CryptoProvider>,
    identities: Arc<Identities>,
) -> Result<QuicServerConfig, Error> {
    let verifier = Arc::new(OnlyHandshakeSignature(provider.signature_verification_algorithms));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identities);
    config.alpn_protocols = Alpn::ALL.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
}

/// The dialler's TLS for one protocol, showing `identity` where there is one.
pub(super) fn client_config(
    provider: Arc<CryptoProvider>,
    identity: Option<Arc<CertifiedKey>>,
    alpn: Alpn,
) -> Result<QuicClientConfig, Error> {
    let verifier = Arc::new(OnlyHandshakeSignature(provider.signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(OneIdentity(identity))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
}

#[derive(Debug)]
struct OneIdentity(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for OneIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Checks that the peer holds the key of the certificate it showed, and **nothing else**: any certificate passes.
///
/// It is safe only because every connection goes through
/// [`judge_connection`](crate::security::judge_connection) before a stream can exist on it, in
/// [`Endpoint`](crate::transport::Endpoint). Judging there and not here puts fleet, role, registration and
/// revocation in one place for both sides, and lets the peer be told a reason that TLS alerts have no room for.
#[derive(Debug)]
struct OnlyHandshakeSignature(WebPkiSupportedAlgorithms);

impl OnlyHandshakeSignature {
    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn schemes() -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

const NO_TLS12: Error = Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered);

impl ServerCertVerifier for OnlyHandshakeSignature {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for OnlyHandshakeSignature {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}
