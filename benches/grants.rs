//! What it costs to grant one sealed revision to a fleet, on one core: each Subscriber's certificate is looked at, the
//! content key is wrapped for it, and the tree over all grants is made and signed. `cargo bench --bench grants`, with an
//! optional number of Subscribers.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::{Duration, Instant};

use ted_core::id::{KeyHash, PackageId, UnixMillis};
use ted_core::security::{
    Authority, AwsLc, ContentKey, Envelope, EnvelopeBody, EnvelopeKind, EpochSecret, Grant, GrantTree, Grants,
    KeptGrant, ProvenGrant, SALT_BYTES, SecretKey, Usage, judge_recipient,
};
use ted_core::store::{Batch, Catalog, SledCatalog};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
const PACKAGE: PackageId = PackageId::from_bytes([1; 32]);
const ROUNDS: usize = 5;

struct Enrolled {
    identity: KeyHash,
    name: ted_core::NodeName,
    encryption: Vec<u8>,
    key: SecretKey,
}

fn main() -> Result<(), Failure> {
    // Cargo passes `--bench`.
    let count = std::env::args().skip(1).find_map(|argument| argument.parse::<usize>().ok()).unwrap_or(10_000);
    let authority = Authority::create(&AwsLc, &"dist.example.com".parse()?, NOW)?;
    let fleet = enrol(&authority, count)?;
    let key = EpochSecret::generate(&AwsLc)?.content_key(&[1; SALT_BYTES]);

    println!("{count} Subscribers, one thread, best of {ROUNDS} rounds");
    let mut best = [Duration::MAX; 3];
    for round in 0..ROUNDS {
        let began = Instant::now();
        let grants = wrap(&fleet, &key)?;
        let wrapped = began.elapsed();
        let (envelope, tree) = sign(&authority, &grants)?;
        let signed = began.elapsed();
        let stored = store(&grants)?;
        if round == 0 {
            prove(&authority, &fleet, (&envelope, &tree, &grants), &key)?;
        }
        for (best, took) in best.iter_mut().zip([wrapped, signed - wrapped, stored]) {
            *best = (*best).min(took);
        }
    }
    let [wrapped, signed, stored] = best;
    println!("certificates judged and keys wrapped  {:>8.1} ms", millis(wrapped));
    println!("tree made and signed                  {:>8.1} ms", millis(signed));
    println!("together                              {:>8.1} ms", millis(wrapped + signed));
    println!("besides: kept in the catalog          {:>8.1} ms", millis(stored));
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Subscribers with keys of their own. Making them is not what is measured.
fn enrol(authority: &Authority, count: usize) -> Result<Vec<Enrolled>, Failure> {
    let one = |number: usize| -> Result<Enrolled, Failure> {
        let name = format!("sub-{number}.example.com").parse()?;
        let issued = authority.issue_identity(&AwsLc, Usage::SubscriberEncryption, &name, NOW)?;
        let identity = KeyHash::of_spki(&number.to_le_bytes());
        Ok(Enrolled { identity, name, encryption: issued.certificate.der().to_vec(), key: issued.key })
    };
    (0..count).map(one).collect()
}

fn wrap(fleet: &[Enrolled], key: &ContentKey) -> Result<Vec<Grant>, Failure> {
    let one = |enrolled: &Enrolled| -> Result<Grant, Failure> {
        let recipient = judge_recipient(&enrolled.identity, &enrolled.name, Some(&enrolled.encryption), NOW)?;
        Ok(Grant::issue(&AwsLc, key, &PACKAGE, &recipient)?)
    };
    fleet.iter().map(one).collect()
}

fn sign(authority: &Authority, grants: &[Grant]) -> Result<(Envelope, GrantTree), Failure> {
    let tree = GrantTree::over(grants.iter().map(Grant::leaf).collect::<Result<_, _>>()?)?;
    let signer = authority.issue_identity(&AwsLc, Usage::Sign, authority.root().name(), NOW)?;
    let body = EnvelopeBody {
        kind: EnvelopeKind::GRANTS,
        distributor: authority.root().key_hash(),
        issuer: signer.certificate.key_hash(),
        sequence: 1,
        issued: NOW,
        expires: NOW.plus(Duration::from_secs(86_400)),
        payload: Grants { package: PACKAGE, count: tree.count(), merkle_root: tree.root() }.to_payload()?,
    };
    Ok((Envelope::seal(&AwsLc, &signer, body)?, tree))
}

fn store(grants: &[Grant]) -> Result<Duration, Failure> {
    let folder = tempfile::tempdir()?;
    let catalog = SledCatalog::open(folder.path())?;
    let began = Instant::now();
    let mut batch = Batch::new();
    for (number, grant) in grants.iter().enumerate() {
        batch = batch.put(format!("grant/{PACKAGE}/{number:08x}").as_bytes(), grant.to_bytes()?);
    }
    let _ = catalog.commit(&batch)?;
    Ok(began.elapsed())
}

/// Every tenth recipient opens its grant, so that what was measured is known to work.
fn prove(
    authority: &Authority,
    fleet: &[Enrolled],
    (envelope, tree, grants): (&Envelope, &GrantTree, &[Grant]),
    key: &ContentKey,
) -> Result<(), Failure> {
    let (mut bytes, mut opened, mut took) = (0, 0, Duration::ZERO);
    for (number, enrolled) in fleet.iter().enumerate().step_by(10) {
        let index = u32::try_from(number)?;
        let path = tree.path(index).ok_or("no such leaf")?;
        let proven = ProvenGrant { grant: grants[number].clone(), index, path };
        bytes += proven.to_bytes()?.len();
        let kept = KeptGrant { envelope: envelope.to_bytes().to_vec(), proven };
        let began = Instant::now();
        kept.judge(authority.root(), &PACKAGE, &enrolled.identity, NOW)?;
        let found = kept.proven.grant.open(&PACKAGE, &enrolled.key)?;
        took += began.elapsed();
        opened += 1;
        if found.as_bytes() != key.as_bytes() {
            return Err("a grant holds another key".into());
        }
    }
    let each = took / opened;
    println!("{opened} grants opened, {} bytes each, {:.2} ms each", bytes / opened as usize, millis(each));
    Ok(())
}
