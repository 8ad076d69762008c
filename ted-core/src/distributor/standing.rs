//! Peers that lose their standing while they are connected.

use std::sync::Arc;

use crate::distributor::state::{Own, State, lock};
use crate::error::Coded;
use crate::security::judge_standing;
use crate::transport::{Connection, QuicConnection};

/// All that the standing of peers depends on, as it was when they were judged last.
pub(super) struct Judged {
    own: Arc<Own>,
    /// Keys only ever become more.
    revoked: usize,
    removals: u64,
}

impl State {
    /// Judges all peers again, if anything has changed since they were judged last that could take a standing away.
    /// Answers whether it has.
    pub(super) fn judge_changed(&self) -> bool {
        let now =
            Judged { own: self.own(), revoked: self.revocations.total(), removals: self.registrations.removals() };
        let is_same = |judged: &Judged| {
            Arc::ptr_eq(&judged.own, &now.own) && (judged.revoked, judged.removals) == (now.revoked, now.removals)
        };
        {
            let mut judged = lock(&self.judged);
            if judged.as_ref().is_some_and(is_same) {
                return false;
            }
            *judged = Some(now);
        }
        self.judge_all_again();
        true
    }

    /// Closes the connections of all peers that may not speak any more.
    pub(super) fn judge_all_again(&self) {
        for (_, connection) in self.links.all() {
            self.judge_again(&connection);
        }
    }

    /// Closes a connection whose peer may not speak any more. Answers whether it did.
    pub(super) fn judge_again(&self, connection: &QuicConnection) -> bool {
        let Err(refusal) = judge_standing(connection.peer(), self) else { return false };
        tracing::info!(code = refusal.code(), reason = %refusal, "a peer may not speak any more");
        connection.close(refusal.close_code(), &refusal.close_reason());
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::time::Duration;

    use crate::distributor::Distributor;
    use crate::error::Coded;
    use crate::security::fixtures::PolicyFixture;
    use crate::security::{Alpn, AwsLc, FleetRole, RevocationReason, RevokedKey, Usage};
    use crate::store::Registration;
    use crate::transport::{Connection, ConnectionError, Endpoint, EndpointOptions, FleetIdentity};

    /// What is to take a second may take this long on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread")]
    async fn revoking_or_deleting_a_subscriber_closes_its_connection_and_it_is_refused_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let builder = Distributor::builder(folder.path()).listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let distributor = builder.name("dist.example".parse().unwrap()).open().await.unwrap();
        let address = distributor.start().await.unwrap();
        let state = &distributor.state;
        let own = state.own();
        let root = own.authority.root();
        for (name, revoke, closed_with, refused_with) in
            [("one.example", true, &[1305][..], "TED-1305"), ("two.example", false, &[2, 1304][..], "TED-1304")]
        {
            let name: crate::name::NodeName = name.parse().unwrap();
            let issuing = state.own().authority.issue_identity(&AwsLc, Usage::SubscriberIdentity, &name, state.now());
            let identity = issuing.unwrap();
            let spki = identity.certificate.spki().to_vec();
            distributor.create_subscriber(name.clone(), &[], &[]).await.unwrap();
            let registration = Registration { name: name.clone(), spki, encryption: None, registered: state.now() };
            let key = state.registrations.register(registration).unwrap();
            let shown = vec![FleetIdentity { fleet: root.key_hash(), identity: Some(identity) }];
            let endpoint = Endpoint::dial_only(EndpointOptions::new(
                Arc::new(PolicyFixture::new(root, FleetRole::Subscriber)),
                shown,
            ))
            .unwrap();
            let connection = endpoint.dial(address, &root.key_hash(), Alpn::Ted1).await.unwrap();
            let mut link = state.links.watch(&key);
            let connected = link.wait_for(Option::is_some);
            drop(tokio::time::timeout(PATIENCE, connected).await.unwrap().unwrap());

            if revoke {
                let since = state.now();
                let revoked = RevokedKey { key, serials: vec![], since, reason: RevocationReason::LOST };
                state.revoke_keys(vec![(revoked, None)]).unwrap();
            } else {
                distributor.delete_subscriber(&name).await.unwrap();
            }
            let closed = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
            // On a busy machine the close can be over, and be answered by a reset, before it was looked at.
            let as_said = match &closed {
                ConnectionError::ClosedByPeer { code, .. } => closed_with.contains(code),
                ConnectionError::Broken { reason } => reason == "reset by peer",
                _ => false,
            };
            assert!(as_said, "{closed:?}");
            tokio::time::timeout(PATIENCE, state.links.gone(&key)).await.unwrap();

            // The Distributor judges after the handshake; its answer comes with the first stream at the latest.
            let refused = match endpoint.dial(address, &root.key_hash(), Alpn::Ted1).await {
                Ok(connection) => connection.closed().await,
                Err(error) => panic!("{}", error.code()),
            };
            assert!(refused.to_string().contains(refused_with), "{refused}");
        }
        distributor.shutdown().await;
    }
}
