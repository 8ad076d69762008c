//! One Distributor and two Subscribers in one process on loopback: delivers a folder, compares every byte, prints a table.
//!
//! `cargo run --release --example quickstart -- /usr/share` (without a folder: a tree that it makes)

#![expect(clippy::print_stdout, reason = "an example shows what it does on the terminal")]

mod compare;
mod sample;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use ted_core::{
    BuildOutcome, DistributionSpec, Distributor, DistributorEvent, Error, SendOptions, Subscriber, SubscriberEvent,
    Until,
};

const DISTRIBUTION: &str = "quickstart";
const CHANNEL: &str = "everyone";

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TED_LOG").unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run().await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let work = tempfile::Builder::new().prefix("ted-quickstart-").tempdir()?;
    let source = match std::env::args_os().nth(1) {
        Some(folder) => PathBuf::from(folder).canonicalize()?,
        None => sample::make(&work.path().join("sample"))?,
    };
    println!("Delivering {} to two Subscribers, by way of {}", source.display(), work.path().display());
    let bars = MultiProgress::new();

    let distributor = Distributor::builder(work.path().join("distributor"))
        .name("distributor.example".parse()?)
        .listen("127.0.0.1:0".parse()?)
        .open()
        .await?;
    distributor.start().await?;
    distributor
        .create_distribution(DistributionSpec::new(DISTRIBUTION.parse()?, &source).skip_unreadable(true))
        .await?;
    distributor.create_channel(CHANNEL.parse()?, &[DISTRIBUTION.parse()?], &[]).await?;

    let built = build(&distributor, &bars).await?;
    let mut rows = vec![];
    let mut subscribers = vec![];
    for number in 1..=2 {
        let name = format!("subscriber-{number}.example");
        let target = work.path().join(&name).join("target");
        let subscriber = join(&distributor, work.path(), &name, &target).await?;
        watch(&subscriber, bars.add(bar(&name)));
        subscribers.push((name, subscriber, target));
    }

    let started = Instant::now();
    let options = SendOptions { build: false };
    let firing = distributor.send(&CHANNEL.parse()?, options).await?;
    let report = distributor.wait(firing, Until::Extracted, Some(Duration::from_secs(3600))).await?;
    let seconds = started.elapsed().as_secs_f64();
    if !report.is_complete() {
        return Err(format!("the delivery is {report}").into());
    }

    for (name, subscriber, target) in subscribers {
        subscriber.shutdown().await;
        let same = compare::trees(&source, &target, &built.skipped)?;
        rows.push((name, same));
    }
    distributor.shutdown().await;
    bars.clear()?;
    print_table(&built, &rows, seconds);
    Ok(())
}

/// What the build said, for the table and for the comparison.
struct Built {
    packed_bytes: u64,
    seconds: f64,
    skipped: Vec<PathBuf>,
}

async fn build(distributor: &Distributor, bars: &MultiProgress) -> Result<Built, Error> {
    let progress = bars.add(bar("build"));
    let mut events = distributor.events();
    let watcher = {
        let progress = progress.clone();
        tokio::spawn(async move {
            let mut skipped = vec![];
            while let Some(event) = events.next().await {
                match event {
                    DistributorEvent::Building { bytes, bytes_total, .. } => {
                        progress.set_length(bytes_total);
                        progress.set_position(bytes);
                    }
                    DistributorEvent::Skipped { path, reason, .. } => {
                        progress.println(format!("skipped {}: {reason}", path.display()));
                        skipped.push(path);
                    }
                    DistributorEvent::Built { .. } => break,
                    _ => {}
                }
            }
            skipped
        })
    };
    let started = Instant::now();
    let outcome = distributor.build(&DISTRIBUTION.parse().expect("the constant is a valid name")).await?;
    let BuildOutcome::Built(built) = outcome else { unreachable!("nothing was built before") };
    progress.finish();
    let skipped = watcher.await.unwrap_or_default();
    Ok(Built { packed_bytes: built.bytes, seconds: started.elapsed().as_secs_f64(), skipped })
}

async fn join(
    distributor: &Distributor,
    work: &Path,
    name: &str,
    target: &Path,
) -> Result<Subscriber, Box<dyn std::error::Error>> {
    let invite = distributor.invite(&name.parse()?, &[CHANNEL.parse()?], &[]).await?;
    let subscriber = Subscriber::builder(work.join(name)).target(DISTRIBUTION.parse()?, target).join(&invite).await?;
    subscriber.start().await?;
    Ok(subscriber)
}

fn watch(subscriber: &Subscriber, bar: ProgressBar) {
    let mut events = subscriber.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                SubscriberEvent::Receiving { bytes, bytes_total, .. } => {
                    bar.set_length(bytes_total);
                    bar.set_position(bytes);
                }
                SubscriberEvent::Extracted { .. } => bar.finish(),
                _ => {}
            }
        }
    });
}

fn bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix:>22} {wide_bar} {bytes:>10} / {total_bytes:>10} {binary_bytes_per_sec:>12}",
    )
    .expect("the template is valid");
    ProgressBar::new(0).with_style(style).with_prefix(name.to_owned())
}

fn print_table(built: &Built, rows: &[(String, compare::Same)], seconds: f64) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "files", "bytes", "packed", "seconds", "MB/s"]);
    let content = rows.first().map_or(0, |(_, same)| same.bytes);
    let row = |name: &str, files: String, bytes: u64, seconds: f64| {
        let rate = bytes as f64 / 1e6 / seconds;
        [
            name.to_owned(),
            files,
            bytes.to_string(),
            built.packed_bytes.to_string(),
            format!("{seconds:.2}"),
            format!("{rate:.0}"),
        ]
    };
    table.add_row(row(
        "build",
        rows.first().map_or(String::new(), |(_, same)| same.files.to_string()),
        content,
        built.seconds,
    ));
    for (name, same) in rows {
        table.add_row(row(name, same.files.to_string(), same.bytes, seconds));
    }
    println!("{table}");
    println!(
        "Every byte is equal: {} entries, compared at {} Subscribers.",
        rows.first().map_or(0, |r| r.1.entries),
        rows.len()
    );
}
