//! A crash between any two steps of a replacement or a rekey leaves one whole Distributor, old or new.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::DistributionSpec;
use crate::distributor::{Distributor, DistributorBuilder, GRACE};
use crate::model::Distribution;
use crate::name::NodeName;
use crate::security::{AwsLc, Crypto as _, EnvelopeKind};
use crate::store::{Registration, Step, StopAfter};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Finalize,
    Cancel,
    Rekey,
    Rename,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), &target).unwrap();
        }
        if target.exists() {
            fs::set_permissions(&target, entry.metadata().unwrap().permissions()).unwrap();
        }
    }
}

fn stopping(data: &Path, steps: Arc<StopAfter>) -> DistributorBuilder {
    let mut builder = Distributor::builder(data);
    builder.settings.steps = Some(steps);
    builder
}

/// A Distributor with a built package, a registered Subscriber and a prepared replacement.
async fn template(folder: &Path) {
    let source = folder.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    let name = "dist.example".parse().unwrap();
    let distributor = Distributor::builder(folder.join("template")).name(name).open().await.unwrap();
    for (name, sealed) in [("site", false), ("sealed", true)] {
        let spec = DistributionSpec::new(name.parse().unwrap(), &source).encrypt(sealed);
        distributor.create_distribution(spec).await.unwrap();
        distributor.build(&name.parse().unwrap()).await.unwrap();
    }
    let spki = AwsLc.generate_key().unwrap().spki().to_vec();
    let registered = crate::id::UnixMillis::from_millis(1);
    let name: NodeName = "one.example".parse().unwrap();
    let registration = Registration { name, spki, encryption: None, registered };
    distributor.state.registrations.register(registration).unwrap();
    distributor.replace().await.unwrap();
}

async fn perform(distributor: &Distributor, act: Act) -> bool {
    match act {
        Act::Finalize => distributor.finalize_replacement(GRACE).await.is_ok(),
        Act::Cancel => distributor.cancel_replacement().await.is_ok(),
        Act::Rekey => distributor.rekey(None).await.is_ok(),
        Act::Rename => distributor.rekey(Some(&"new.example".parse().unwrap())).await.is_ok(),
    }
}

/// What has to hold whenever the node opens.
async fn check(data: &Path, act: Act, stopped: usize) -> Distributor {
    let distributor =
        Distributor::builder(data).open().await.unwrap_or_else(|error| panic!("{act:?} {stopped}: {error}"));
    let state = distributor.state.clone();
    let own = state.own();
    let root = own.authority.root();
    for certificate in [&own.signing.certificate, &own.tls.certificate] {
        root.judge(certificate, certificate.usage(), state.now()).unwrap();
    }
    assert_eq!(state.registrations.all().len(), 1, "{act:?} {stopped}: its Subscriber is registered");
    let distributions: Vec<Distribution> = distributor.fleet().distributions().cloned().collect();
    for distribution in distributions {
        let newest = state.newest(&distribution).unwrap().unwrap();
        let opening = tokio::task::spawn_blocking({
            let state = state.clone();
            move || state.open_own(newest.package).map(|(index, _)| index.catalog().len())
        });
        let opened = opening.await.unwrap();
        assert!(opened.is_ok(), "{act:?} {stopped}: {} opens under the present root: {opened:?}", distribution.name);
    }
    distributor
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_steps_leaves_one_whole_distributor() {
    let folder = tempfile::tempdir().unwrap();
    template(folder.path()).await;
    let before = Distributor::builder(folder.path().join("template")).open().await.unwrap().root();
    for act in [Act::Finalize, Act::Cancel, Act::Rekey, Act::Rename] {
        for allowed in 0.. {
            let data = folder.path().join(format!("{act:?}-{allowed}"));
            copy(&folder.path().join("template"), &data);
            let steps = Arc::new(StopAfter::new(allowed, io::ErrorKind::Other));
            let distributor = stopping(&data, steps.clone()).open().await;
            let done = match &distributor {
                Ok(distributor) => perform(distributor, act).await,
                Err(_) => false,
            };
            drop(distributor);
            let distributor = check(&data, act, allowed).await;
            let switched = distributor.root() != before;
            assert!(!done || switched == (act != Act::Cancel), "{act:?} {allowed}");
            if switched && act == Act::Finalize {
                let state = distributor.state.clone();
                tokio::task::spawn_blocking(move || state.keep_replacements()).await.unwrap().unwrap();
                let report = distributor.replacement().await.unwrap();
                assert_eq!(report.grace.len(), 1, "{allowed}: those who were away find their way");
                let said = distributor.state.standing.choose(|slot| slot.kind == EnvelopeKind::REPLACEMENT);
                assert_eq!(said.len(), 1);
            }
            let cancelled = act == Act::Cancel && distributor.replacement().await.unwrap().successor.is_none();
            if !done && !switched && !cancelled {
                assert!(perform(&distributor, act).await, "{act:?} {allowed}: it can be done again");
            }
            drop(distributor);
            fs::remove_dir_all(&data).unwrap();
            if done {
                let asked = steps.asked();
                assert!(asked.len() > 4, "{act:?}: {asked:?}");
                let retires = asked.contains(&Step::Retire);
                assert_eq!(retires, matches!(act, Act::Rekey | Act::Rename));
                break;
            }
        }
    }
}
