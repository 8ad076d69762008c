//! TLS 1.3 as TED uses it: the handshake proves who holds which key, and nothing else.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, ServerConfig, SignatureScheme,
};

use crate::id::KeyHash;
use crate::security::{Alpn, Identity, fleet_sni};
use crate::transport::TransportError;
use crate::transport::connection::readable;

/// As whom this node appears in a fleet.
#[derive(Debug, Clone)]
pub struct FleetIdentity {
    /// The fleet: its Distributor's key.
    pub fleet: KeyHash,
    /// The certificate and key that are shown: a Distributor's TLS certificate or a Subscriber's identity; none
    /// before the node has enrolled.
    pub identity: Option<Identity>,
}

/// The provider of all cryptography in TLS. AES-128-GCM comes first: it is the fastest suite with hardware behind it.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(provider)
}

/// What a listener shows and asks for. `identities` is read anew in every handshake.
pub(super) fn server_config(
    provider: &Arc<CryptoProvider>,
    identities: &Arc<Identities>,
) -> Result<QuicServerConfig, TransportError> {
    let config = listener(provider, identities)?;
    QuicServerConfig::try_from(config).map_err(|error| TransportError::Tls { reason: error.to_string() })
}

fn listener(provider: &Arc<CryptoProvider>, identities: &Arc<Identities>) -> Result<ServerConfig, TransportError> {
    let verifier = Arc::new(DangerousHandshakeOnly(provider.clone()));
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(refused)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identities.clone());
    config.alpn_protocols = Alpn::ALL.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    // rustls would not look at a client's certificate again when a session is resumed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// What a dialler shows and asks for. Nothing is shown on [`Alpn::Enrol1`].
pub(super) fn client_config(
    provider: &Arc<CryptoProvider>,
    identities: &Identities,
    fleet: &KeyHash,
    alpn: Alpn,
) -> Result<QuicClientConfig, TransportError> {
    let shown = match alpn {
        Alpn::Enrol1 => None,
        Alpn::Ted1 => {
            let key = identities.key(&fleet_sni(fleet));
            Some(key.ok_or_else(|| TransportError::NoIdentity { fleet: fleet.fingerprint() })?)
        }
    };
    dialler(provider, alpn.as_bytes(), shown)
}

/// A dialler that shows this certificate, or none.
pub(super) fn dialler(
    provider: &Arc<CryptoProvider>,
    alpn: &[u8],
    shown: Option<Arc<CertifiedKey>>,
) -> Result<QuicClientConfig, TransportError> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(refused)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(DangerousHandshakeOnly(provider.clone())));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(key) => builder.with_client_cert_resolver(Arc::new(OwnKey(key))),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map_err(|error| TransportError::Tls { reason: error.to_string() })
}

/// This node's certificates by server name. They change while it runs: renewal, enrolment, new trust.
pub(super) struct Identities(RwLock<HashMap<String, Arc<CertifiedKey>>>);

impl Identities {
    pub(super) fn new(fleets: &[FleetIdentity]) -> Result<Self, TransportError> {
        Ok(Self(RwLock::new(certified(fleets)?)))
    }

    /// Replaces them all. Connections that live go on with what they showed.
    pub(super) fn set(&self, fleets: &[FleetIdentity]) -> Result<(), TransportError> {
        let keys = certified(fleets)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn key(&self, sni: &str) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(sni).cloned()
    }
}

fn certified(fleets: &[FleetIdentity]) -> Result<HashMap<String, Arc<CertifiedKey>>, TransportError> {
    let mut keys = HashMap::new();
    for fleet in fleets {
        let Some(identity) = &fleet.identity else { continue };
        keys.insert(fleet_sni(&fleet.fleet), certified_key(identity)?);
    }
    Ok(keys)
}

/// The form in which TLS takes a certificate and its key. The chain has one link: the peer holds the root.
pub(super) fn certified_key(identity: &Identity) -> Result<Arc<CertifiedKey>, TransportError> {
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.pkcs8()));
    let signer = aws_lc_rs::sign::any_ecdsa_type(&secret).map_err(refused)?;
    let chain = vec![CertificateDer::from(identity.certificate.der().to_vec())];
    Ok(Arc::new(CertifiedKey::new(chain, signer)))
}

fn refused(error: TlsError) -> TransportError {
    TransportError::Tls { reason: error.to_string() }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identities")
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let sni = hello.server_name().unwrap_or_default();
        let key = self.key(&sni.to_ascii_lowercase());
        if key.is_none() {
            tracing::warn!(sni = readable(sni.as_bytes()), "a peer asks for a fleet that this node takes no part in");
        }
        key
    }
}

struct OwnKey(Arc<CertifiedKey>);

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnKey")
    }
}

impl ResolvesClientCert for OwnKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes **any** certificate, whoever made it, and checks only that the peer holds its key.
///
/// The danger is on purpose and has one antidote: [`Endpoint`](crate::transport::Endpoint) hands out no connection that
/// [`judge_connection`](crate::security::judge_connection) has not accepted, and grants the peer no stream before. A
/// verifier inside the handshake could not judge: it sees neither the fleet that the peer asked for nor the protocol,
/// and its refusal would reach the other side as a bare TLS alert.
#[derive(Debug)]
struct DangerousHandshakeOnly(Arc<CryptoProvider>);

/// The one scheme of TED's certificates.
const SCHEMES: [SignatureScheme; 1] = [SignatureScheme::ECDSA_NISTP256_SHA256];

impl DangerousHandshakeOnly {
    fn check(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
}

/// TLS 1.2 is not offered.
fn only_tls13() -> TlsError {
    TlsError::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for DangerousHandshakeOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.check(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for DangerousHandshakeOnly {
    /// A node that enrols has none.
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
    ) -> Result<ClientCertVerified, TlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.check(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_session_is_resumed_and_nothing_is_said_before_the_handshake() {
        let identities = Arc::new(Identities::new(&[]).unwrap());
        let config = listener(&provider(), &identities).unwrap();
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache());
    }
}
