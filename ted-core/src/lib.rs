//! Tiered Electronic Distribution: trees of files from one place to thousands, on time and provably intact.
//!
//! A [`Distributor`] builds signed packages of a Distribution and says what is to go to whom. A [`Subscriber`] trusts
//! a Distributor whose certificate was brought to it, receives over QUIC, verifies every frame before it is written and
//! every file before it is visible, and extracts. Both live in a data directory of their own, go on after any crash,
//! and tell what they do as events.
//!
//! ```
//! use ted_core::{DistributionSpec, Distributor, SendOptions, Subscriber, Until};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let work = tempfile::tempdir()?;
//! # let (here, there) = (work.path().join("distributor"), work.path().join("subscriber"));
//! # let (site, www) = (work.path().join("site"), work.path().join("www"));
//! # std::fs::create_dir(&site)?;
//! std::fs::write(site.join("index.html"), "<h1>Hello</h1>")?;
//!
//! // One place: a Distributor with something to deliver, and a Channel that says to whom.
//! let distributor = Distributor::builder(here)
//!     .name("dist.example.com".parse()?)
//!     .listen("127.0.0.1:0".parse()?)
//!     .open()
//!     .await?;
//! distributor.start().await?;
//! distributor.create_distribution(DistributionSpec::new("site".parse()?, &site)).await?;
//! distributor.create_channel("nightly".parse()?, &["site".parse()?], &[]).await?;
//! let invite = distributor.invite(&"shop-1.example.com".parse()?, &["nightly".parse()?], &[]).await?;
//!
//! // Another place: the invite was carried here. It holds the Distributor's certificate and a one-time token.
//! let subscriber = Subscriber::builder(there).target("site".parse()?, &www).join(&invite).await?;
//! subscriber.start().await?;
//!
//! let firing = distributor.send(&"nightly".parse()?, SendOptions::default()).await?;
//! let report = distributor.wait(firing, Until::Extracted, None).await?;
//! assert!(report.is_complete());
//! assert_eq!(std::fs::read_to_string(www.join("index.html"))?, "<h1>Hello</h1>");
//! # subscriber.shutdown().await;
//! # distributor.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! The names below are what most embedders need. The modules underneath are public because other tools read packages
//! ([`package`]), speak the protocol ([`protocol`], [`transport`]), judge certificates ([`security`]) or extract
//! ([`extract`]) without a node around them. A module uses only modules that stand above it in `ARCHITECTURE.md`; the
//! formats are described byte by byte in `docs/format.md` and `docs/protocol.md`.
//!
//! Every error has a stable code (`TED-…`, see [`Error::code`]) that `docs/errors.md` explains.

pub mod codec;
pub mod distributor;
pub mod error;
pub mod extract;
pub mod id;
pub mod limits;
pub mod model;
pub mod name;
pub mod node;
pub mod package;
pub mod protocol;
pub mod schedule;
pub mod security;
pub mod store;
pub mod subscriber;
pub mod transport;

pub use distributor::{
    BuildOutcome, BuiltRevision, DistributionSpec, Distributor, DistributorEvent, DistributorStatus, FiringReport,
    SendOptions,
};
pub use error::{Coded, Error};
pub use id::{FiringId, Revision};
pub use limits::Limits;
pub use model::Endpoint;
pub use name::{Label, NodeName};
pub use node::{Clock, Events};
pub use protocol::Until;
pub use subscriber::{DistributionRef, Enrolment, Subscriber, SubscriberEvent, SubscriberStatus};
