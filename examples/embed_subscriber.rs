//! A program with a Subscriber inside: it joins with an invite and lists the files of each revision that arrives.
//!
//! `cargo run --example embed_subscriber -- INVITE-FILE DATA-DIR` runs until it is interrupted. Without arguments it
//! starts a little Distributor of its own, and ends with the first revision.

#![expect(clippy::print_stdout, reason = "an example shows what it does on the terminal")]

use std::path::Path;

use ted_core::{DistributionSpec, Distributor, SendOptions, Subscriber, SubscriberEvent};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(invite), Some(data)) => {
            let subscriber = Subscriber::builder(data).join(&std::fs::read_to_string(invite)?).await?;
            react(&subscriber, usize::MAX).await
        }
        (None, None) => alone().await,
        _ => Err("usage: embed_subscriber [INVITE-FILE DATA-DIR]".into()),
    }
}

/// Reacts to `revisions` revisions.
async fn react(subscriber: &Subscriber, revisions: usize) -> Result<(), Failure> {
    let mut events = subscriber.events();
    subscriber.start().await?;
    let mut seen = 0;
    while seen < revisions {
        match events.next().await {
            Some(SubscriberEvent::Extracted { distribution, revision, target, files_written, .. }) => {
                println!("{distribution}: revision {revision} in {}, {files_written} files new:", target.display());
                list(&target, &target)?;
                seen += 1;
            }
            Some(SubscriberEvent::Failed { distribution, code, reason, .. }) => {
                eprintln!("{distribution}: {code}: {reason}");
            }
            Some(_) => {}
            None => break,
        }
    }
    subscriber.shutdown().await;
    Ok(())
}

fn list(root: &Path, folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(root, &entry.path())?;
        } else {
            let path = entry.path();
            println!("  {}", path.strip_prefix(root).unwrap_or(&path).display());
        }
    }
    Ok(())
}

/// The same with a Distributor beside it, so that there is something to react to.
async fn alone() -> Result<(), Failure> {
    let work = tempfile::Builder::new().prefix("ted-embed-").tempdir()?;
    let source = work.path().join("source");
    std::fs::create_dir_all(source.join("notes"))?;
    std::fs::write(source.join("greeting.txt"), "hello\n")?;
    std::fs::write(source.join("notes/first.txt"), "a note\n")?;

    let distributor = Distributor::builder(work.path().join("distributor"))
        .name("distributor.example".parse()?)
        .listen("127.0.0.1:0".parse()?)
        .open()
        .await?;
    distributor.start().await?;
    distributor.create_distribution(DistributionSpec::new("notes".parse()?, &source)).await?;
    distributor.create_channel("everyone".parse()?, &["notes".parse()?], &[]).await?;
    let invite = distributor.invite(&"embedded.example".parse()?, &["everyone".parse()?], &[]).await?;

    let subscriber = Subscriber::builder(work.path().join("subscriber")).join(&invite).await?;
    distributor.send(&"everyone".parse()?, SendOptions::default()).await?;
    react(&subscriber, 1).await?;
    distributor.shutdown().await;
    Ok(())
}
