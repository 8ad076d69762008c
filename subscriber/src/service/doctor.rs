//! What `doctor` looks at.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ted_cli::doctor::{Check, Diagnosis, Health};
use ted_cli::error::ApiError;
use ted_cli::units::{self, Time};
use ted_core::DistributionRef;
use ted_core::name::NodeName;
use ted_core::node::{Clock as _, SystemClock};
use ted_core::store::{NodeRole, SecurityDir, free_bytes};
use ted_core::subscriber::{DistributorRow, HookKind, HookScope};

use super::Service;
use crate::api::word;

/// Below this much free space somebody should look.
const FREE_BYTES_LOW: u64 = 256 * 1024 * 1024;

impl Service {
    /// Everything that can be seen from here. That the state could be opened at all says that its permissions are
    /// right: whoever opens it checks them first.
    pub(super) async fn diagnose(&self) -> Result<Diagnosis, ApiError> {
        let data = self.data_dir();
        let opens = format!("{} opens, and only its owner can read it", data.display());
        let mut checks = vec![check("state", Health::Good, opens), space(data)];
        self.strangers(&mut checks)?;
        if !self.held.daemon {
            checks.push(check("daemon", Health::Warning, "it does not run").mended_by("start it with `run`"));
        }
        let status = self.subscriber().status().await?;
        if status.distributors.is_empty() {
            let none = check("Distributors", Health::Bad, "none is trusted, so nothing is accepted");
            checks.push(none.mended_by("`join FILE` with an invite, or `trust FILE.cer` and `enrol HOST`"));
        }
        for distributor in &status.distributors {
            checks.push(self.enrolment_check(distributor));
            checks.push(self.connection_check(distributor));
        }
        let config = &self.settings().config;
        let is_here = |told: &DistributionRef| {
            status.distributions.iter().any(|row| told.means(&row.distributor, &row.distribution))
        };
        let hooked = config.hooks.keys().filter_map(|scope| match scope {
            HookScope::Of(told) => Some(("hooks", told)),
            HookScope::Every => None,
        });
        for (key, told) in config.modes.keys().map(|told| ("modes", told)).chain(hooked) {
            if !is_here(told) {
                let found = format!("`{told}` is named, and nothing of such a Distribution is here");
                checks.push(check(key, Health::Warning, found).mended_by("look at the name, or wait until it is sent"));
            }
        }
        checks.push(check("keep_package", Health::Good, word(config.keep_package)));
        checks.push(check("on_local_change", Health::Good, word(config.on_local_change)));
        for distribution in status.distributions {
            let name = format!("Distribution {}", distribution.distribution);
            let health = match distribution.rolled_back_to {
                // Its operator wanted that.
                Some(_) => Health::Warning,
                None => Health::Bad,
            };
            checks.push(match (distribution.trouble, distribution.extracted) {
                (Some(trouble), _) => Check { health, ..coded(&name, &trouble) },
                (None, Some(revision)) => {
                    let mode = distribution.mode.map_or_else(String::new, |mode| format!(", in mode {mode}"));
                    check(&name, Health::Good, format!("its target holds revision {revision}{mode}"))
                }
                (None, None) => check(&name, Health::Warning, "nothing of it was extracted yet"),
            });
        }
        checks.extend(self.hook_checks());
        for alarm in status.alarms {
            checks.push(coded("alarm", &alarm.to_string()));
        }
        Ok(Diagnosis { checks })
    }

    /// What lies in `security/` and is no Distributor's certificate.
    fn strangers(&self, checks: &mut Vec<Check>) -> Result<(), ApiError> {
        let security = SecurityDir::open(&self.data_dir().join("security"), NodeRole::Subscriber);
        let trust = security.and_then(|security| security.trust()).map_err(ted_cli::error::from_library)?;
        for ignored in &trust.ignored {
            let found = format!("it is ignored: {}", ignored.reason);
            let name = ignored.path.display().to_string();
            checks.push(check(&name, Health::Warning, found).mended_by("remove it, or bring the right file"));
        }
        Ok(())
    }

    /// Whether the programs that hooks name can be run.
    fn hook_checks(&self) -> Vec<Check> {
        let mut checks = vec![];
        for (scope, hooks) in &self.settings().config.hooks {
            for (hook, command) in [(HookKind::Before, &hooks.before), (HookKind::After, &hooks.after)] {
                let Some(command) = command else { continue };
                let (name, program) = (format!("hook `{hook}` of {scope}"), &command.words()[0]);
                let found = std::fs::metadata(program).map(|file| file.is_file() && file.mode() & 0o111 != 0);
                checks.push(match found {
                    Ok(true) => check(&name, Health::Good, format!("{program} is a program")),
                    Ok(false) => check(&name, Health::Bad, format!("{program} is no program that can be run"))
                        .mended_by("make it executable, or name the right file"),
                    Err(error) => check(&name, Health::Bad, format!("{program}: {error}"))
                        .mended_by("name a program that is there"),
                });
            }
        }
        checks
    }

    fn enrolment_check(&self, distributor: &DistributorRow) -> Check {
        let (name, now) = (format!("enrolment with {}", distributor.name), SystemClock.now());
        if now >= distributor.certificate_until {
            let until = Time(distributor.certificate_until);
            return check(&name, Health::Bad, format!("the Distributor's certificate ended at {until}"))
                .mended_by("have its operator renew it and bring the new .cer here");
        }
        match distributor.enrolled_until {
            Some(until) if now < until => match other_name(distributor, &self.subscriber().name()) {
                Some(trouble) => check(&name, Health::Warning, trouble)
                    .mended_by("`ted-distributor subscriber approve NAME` there, with this node's name"),
                None => check(&name, Health::Good, format!("it holds until {}", Time(until))),
            },
            Some(until) => check(&name, Health::Bad, format!("it ended at {}", Time(until)))
                .mended_by("start the daemon: it asks for new certificates"),
            None => check(&name, Health::Bad, "this node has no certificates from it")
                .mended_by("`enrol HOST`, and have it approved there"),
        }
    }

    fn connection_check(&self, distributor: &DistributorRow) -> Check {
        let name = format!("connection with {}", distributor.name);
        match (&distributor.connected, &distributor.trouble) {
            (Some(address), _) => check(&name, Health::Good, format!("with {address}")),
            (None, Some(trouble)) => coded(&name, trouble),
            (None, None) if self.held.daemon => check(&name, Health::Warning, "none now"),
            (None, None) => check(&name, Health::Warning, "none without the daemon"),
        }
    }
}

/// What is to be said where a Distributor still knows this node by another name.
pub(super) fn other_name(distributor: &DistributorRow, name: &NodeName) -> Option<String> {
    let known = distributor.enrolled_as.as_ref().filter(|known| *known != name)?;
    Some(format!("it knows this node as {known}; sealed Distributions wait until it has approved {name}"))
}

fn space(data: &Path) -> Check {
    match free_bytes(data) {
        Ok(free) if free < FREE_BYTES_LOW => {
            let found = format!("{} are free", units::bytes(free));
            check("disk", Health::Warning, found).mended_by("make room: what arrives is kept once and extracted once")
        }
        Ok(free) => check("disk", Health::Good, format!("{} are free", units::bytes(free))),
        Err(error) => check("disk", Health::Bad, error.to_string()),
    }
}

fn check(name: &str, health: Health, found: impl Into<String>) -> Check {
    Check { name: name.to_owned(), health, found: found.into(), remedy: None }
}

/// Something that is wrong, with the remedy of the first code that it names.
fn coded(name: &str, trouble: &str) -> Check {
    let codes = trouble.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| word.starts_with("TED-"));
    let remedy = codes.filter_map(ted_cli::remedy::of).next();
    Check { remedy: remedy.map(str::to_owned), ..check(name, Health::Bad, trouble) }
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
