//! What `doctor` looks at.

use std::net::UdpSocket;

use ted_cli::doctor::{Check, Diagnosis, Health};
use ted_cli::error::ApiError;
use ted_cli::output::list;
use ted_cli::units::Time;
use ted_core::model::{SourcePlace, SourceSpec};
use ted_core::node::{Clock as _, SystemClock};

use super::Service;

impl Service {
    /// Everything that can be seen from here. That the state could be opened at all says that its permissions are
    /// right: whoever opens it checks them first.
    pub(super) async fn diagnose(&self) -> Result<Diagnosis, ApiError> {
        let data = self.data_dir().display();
        let mut checks = vec![check("state", Health::Good, format!("{data} opens, and only its owner can read it"))];
        self.certificates(&mut checks);
        self.port(&mut checks);
        match self.distributor().endpoints() {
            Ok(endpoints) => checks.push(check("endpoints", Health::Good, format!("invites say {}", list(&endpoints)))),
            Err(error) => checks.push(
                check("endpoints", Health::Bad, error.to_string())
                    .mended_by("set `advertise` in distributor.toml to where Subscribers dial"),
            ),
        }
        self.sources(&mut checks).await?;
        for warning in self.distributor().with_fleet(ted_core::model::Fleet::warnings) {
            let remedy = format!("see {} in docs/errors.md", warning.code());
            checks.push(check("fleet", Health::Warning, warning.to_string()).mended_by(&remedy));
        }
        for alarm in self.distributor().status().await?.alarms {
            let remedy = format!("see {} in docs/errors.md", alarm.code);
            checks.push(check("alarm", Health::Bad, alarm.to_string()).mended_by(&remedy));
        }
        Ok(Diagnosis { checks })
    }

    fn certificates(&self, checks: &mut Vec<Check>) {
        let now = SystemClock.now();
        for certificate in self.distributor().certificates() {
            let name = format!("certificate {}", certificate.usage());
            let until = Time(certificate.not_after());
            checks.push(if now < certificate.not_before() {
                let from = Time(certificate.not_before());
                check(&name, Health::Bad, format!("it holds from {from} on only")).mended_by("set this machine's clock")
            } else if now >= certificate.not_after() {
                check(&name, Health::Bad, format!("it ended at {until}")).mended_by("restart the daemon: it renews it")
            } else if now >= certificate.renew_at() {
                check(&name, Health::Warning, format!("it ends at {until}"))
                    .mended_by("restart the daemon: it renews it")
            } else {
                check(&name, Health::Good, format!("it holds until {until}"))
            });
        }
    }

    fn port(&self, checks: &mut Vec<Check>) {
        if let Some(address) = self.distributor().listening() {
            checks.push(check("daemon", Health::Good, format!("it listens on {address}, UDP")));
            return;
        }
        checks.push(check("daemon", Health::Warning, "it does not run".to_owned()).mended_by("start it with `run`"));
        let address = self.settings().config.listen;
        checks.push(match UdpSocket::bind(address) {
            Ok(_) => check("port", Health::Good, format!("{address}, UDP, is free")),
            Err(error) => check("port", Health::Bad, format!("{address}, UDP: {error}"))
                .mended_by("end what has the port, or set another `listen` in distributor.toml"),
        });
    }

    async fn sources(&self, checks: &mut Vec<Check>) -> Result<(), ApiError> {
        for distribution in self.distributor().distributions().await? {
            let (spec, name) = (&distribution.spec, format!("source of {}", distribution.spec.name));
            checks.extend(spec.source.iter().map(|source| source_check(&name, source)));
            if distribution.newest.is_some() && distribution.file.is_none() {
                let found = "the newest revision's package is gone".to_owned();
                let name = format!("package of {}", spec.name);
                checks.push(check(&name, Health::Warning, found).mended_by("`distribution build` makes it anew"));
            }
        }
        Ok(())
    }
}

fn source_check(name: &str, source: &SourceSpec) -> Check {
    let looked = match &source.place {
        SourcePlace::Folder(path) => std::fs::read_dir(path).map(|_| ()),
        SourcePlace::Tar(path) => std::fs::File::open(path).map(|_| ()),
        SourcePlace::Url(url) | SourcePlace::TarUrl(url) if url.starts_with("http:") && source.sha256.is_none() => {
            let found = format!("{source}: what it gives can be changed on the way");
            return check(name, Health::Warning, found).mended_by("take https, or give `--source-sha256`");
        }
        SourcePlace::Url(_) | SourcePlace::TarUrl(_) => {
            return check(name, Health::Good, format!("{source} is fetched by each build"));
        }
        SourcePlace::Input => return check(name, Health::Good, "each build is fed with it".to_owned()),
    };
    match looked {
        Ok(()) => check(name, Health::Good, format!("{} can be read", source.place)),
        Err(error) => check(name, Health::Bad, format!("{}: {error}", source.place))
            .mended_by("mount or restore it, or name another with `distribution update --source`"),
    }
}

fn check(name: &str, health: Health, found: String) -> Check {
    Check { name: name.to_owned(), health, found, remedy: None }
}

trait Mended {
    fn mended_by(self, remedy: &str) -> Self;
}

impl Mended for Check {
    fn mended_by(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }
}
