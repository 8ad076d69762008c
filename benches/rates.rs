//! How exactly rates are kept between real nodes over loopback: what was asked for, and what came, for each priority with
//! several links at once, and for an input rate. `cargo bench --bench rates`, with an optional number of seconds.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::time::{Duration, Instant};

use ted_core::model::{Priority, Settings};
use ted_core::protocol::SendRates;
use ted_core::{DistributionSpec, Distributor, SendOptions, Subscriber, Until};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Subscribers that share the rate of one priority.
const LINKS: usize = 3;

/// What is asked for: the priority, its name, and bytes a second.
const ASKED: [(Priority, &str, u64); 3] =
    [(Priority::High, "high", 24_000_000), (Priority::Medium, "medium", 8_000_000), (Priority::Low, "low", 1_000_000)];

/// The input rate of one Subscriber that nothing else limits.
const INPUT: u64 = 10_000_000;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // Cargo passes `--bench`.
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse::<u64>().ok()).unwrap_or(10);
    let shared_memory = Path::new("/dev/shm");
    let parent = if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
    let work = tempfile::Builder::new().prefix("ted-bench-").tempdir_in(parent)?;
    let plan = |rate: u64| format!("{rate}B/s").parse().ok();
    let [high, medium, low] = ASKED.map(|(.., rate)| plan(rate));
    let rates = SendRates { high, medium, low, ..SendRates::default() };

    println!("each rate for {seconds} s, all priorities at the same time, {LINKS} links each");
    println!("{:<10} {:>12} {:>12} {:>8}", "", "asked", "got", "error");
    let distributor = listening(&work.path().join("distributor"), rates).await?;
    let mut measuring = vec![];
    for (priority, name, rate) in ASKED {
        let bytes = rate * seconds / LINKS as u64;
        declare(&distributor, work.path(), name, priority, bytes)?.await?;
        for link in 0..LINKS {
            join(&distributor, work.path(), &format!("{name}{link}"), name, Settings::default()).await?;
        }
        measuring.push((name, rate));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (name, rate) in measuring {
        let distributor = distributor.clone();
        tasks.spawn(async move { (name, rate, deliver(&distributor, name).await) });
    }
    while let Some(done) = tasks.join_next().await {
        let (name, rate, measured) = done?;
        let (bytes, took) = measured.map_err(|error| error.to_string())?;
        print(name, rate, bytes, took);
    }

    declare(&distributor, work.path(), "input", Priority::Medium, INPUT * seconds)?.await?;
    distributor.set_sends(&SendRates::default());
    let mut own = Settings::default();
    own.set("rate.input".parse()?, &INPUT.to_string())?;
    join(&distributor, work.path(), "input0", "input", own).await?;
    let (bytes, took) = deliver(&distributor, "input").await?;
    print("input", INPUT, bytes, took);
    distributor.shutdown().await;
    Ok(())
}

fn print(name: &str, asked: u64, bytes: u64, took: Duration) {
    let got = bytes as f64 / took.as_secs_f64();
    let error = (got / asked as f64 - 1.0) * 100.0;
    println!("{name:<10} {:>7.2} MB/s {:>7.2} MB/s {error:>+7.2}%", asked as f64 / 1e6, got / 1e6);
}

async fn listening(data: &Path, rates: SendRates) -> Result<Distributor, Failure> {
    let builder = Distributor::builder(data).listen(([127, 0, 0, 1], 0).into()).name("dist.example".parse()?);
    let distributor = builder.sends(rates).open().await?;
    distributor.start().await?;
    Ok(distributor)
}

/// Makes a Distribution of noise and a Channel of the same name, and builds it.
fn declare<'a>(
    distributor: &'a Distributor,
    work: &Path,
    name: &'a str,
    priority: Priority,
    bytes: u64,
) -> Result<impl Future<Output = Result<(), Failure>> + use<'a>, Failure> {
    let source = work.join(format!("source-{name}"));
    std::fs::create_dir(&source)?;
    let mut noise = vec![0; usize::try_from(bytes)?];
    blake3::Hasher::new_derive_key("ted bench 2026 rates").update(name.as_bytes()).finalize_xof().fill(&mut noise);
    std::fs::write(source.join("noise"), noise)?;
    Ok(async move {
        let label = name.parse()?;
        distributor
            .create_distribution(DistributionSpec { priority, ..DistributionSpec::new(name.parse()?, &source) })
            .await?;
        distributor.create_channel(name.parse()?, std::slice::from_ref(&label), &[]).await?;
        distributor.build(&label).await?;
        Ok(())
    })
}

/// A Subscriber of a Channel that goes on by itself.
async fn join(distributor: &Distributor, work: &Path, node: &str, channel: &str, own: Settings) -> Result<(), Failure> {
    let invite = distributor.invite(&node.parse()?, &[channel.parse()?], &[]).await?;
    let subscriber = Subscriber::builder(work.join(node)).settings(own).join(&invite).await?;
    subscriber.start().await?;
    tokio::spawn(async move {
        let _kept = subscriber;
        std::future::pending::<()>().await;
    });
    Ok(())
}

/// Sends a Channel; how many bytes went to all its Subscribers, and how long it took until the last had them.
async fn deliver(distributor: &Distributor, channel: &str) -> Result<(u64, Duration), Failure> {
    let started = Instant::now();
    let firing = distributor.send(&channel.parse()?, SendOptions { build: false }).await?;
    let report = distributor.wait(firing, Until::Received, Some(Duration::from_secs(600))).await?;
    let took = started.elapsed();
    Ok((report.rows.iter().map(|row| row.package_bytes).sum(), took))
}
