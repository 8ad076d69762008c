//! What a connection costs at least: a server that is nothing but quinn with mutual TLS 1.3, and its clients.
//!
//! quinn's and rustls's own settings, but for keep-alives as often as TED sends them. The server is this program again,
//! in a process of its own, so that it is measured as the Distributor is.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Failure;
use crate::process::Server;

const NAME: &str = "bare.example";
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Files that server and clients share.
const ROOT: &str = "root.der";
const CERTIFICATE: &str = "server.der";
const KEY: &str = "server.key";

/// The CA that both sides trust.
pub(crate) struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Makes a CA and a server certificate, and puts what the server needs into `folder`.
    pub(crate) fn create(folder: &std::path::Path) -> Result<Self, Failure> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(folder.join(ROOT), params.self_signed(&key)?.der())?;
        let authority = Self(Issuer::new(params, key));
        let (certificate, key) = authority.issue(NAME)?;
        std::fs::write(folder.join(CERTIFICATE), certificate)?;
        std::fs::write(folder.join(KEY), key.secret_der())?;
        Ok(authority)
    }

    fn issue(&self, name: &str) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Failure> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &self.0)?;
        Ok((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }
}

fn transport() -> Arc<quinn::TransportConfig> {
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    Arc::new(transport)
}

fn roots(folder: &std::path::Path) -> Result<rustls::RootCertStore, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(folder.join(ROOT))?))?;
    Ok(roots)
}

/// The server: takes connections, and every stream on them. Says on standard output where it listens.
pub(crate) async fn serve(folder: &std::path::Path) -> Result<(), Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots(folder)?), provider.clone())
            .build()?;
    let key = PrivatePkcs8KeyDer::from(std::fs::read(folder.join(KEY))?);
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![CertificateDer::from(std::fs::read(folder.join(CERTIFICATE))?)], key.into())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport());
    let endpoint = quinn::Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    println!("{}", endpoint.local_addr()?);
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    let read = recv.read_to_end(64 * 1024).await;
                    if let Ok(bytes) = read {
                        // A client that has gone needs no answer.
                        let _ = send.write_all(&bytes).await;
                    }
                });
            }
        });
    }
    Ok(())
}

/// Starts [`serve`] in a process of its own; answers where it listens.
pub(crate) fn start(folder: &std::path::Path) -> Result<(Server, SocketAddr), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut server = Server::start(command.arg("--bare-server").arg(folder).stdout(Stdio::piped()))?;
    let line = server.first_line()?;
    Ok((server, line.trim().parse()?))
}

/// One connection, over which nothing was said but the handshake.
pub(crate) async fn connect(
    endpoint: &quinn::Endpoint,
    authority: &Authority,
    folder: &std::path::Path,
    address: SocketAddr,
) -> Result<quinn::Connection, Failure> {
    let (certificate, key) = authority.issue("client.example")?;
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(folder)?)
        .with_client_auth_cert(vec![certificate], key)?;
    tls.resumption = rustls::client::Resumption::disabled();
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    Ok(endpoint.connect_with(config, address, NAME)?.await?)
}
