//! How long work shows itself: bars on a terminal, plain lines elsewhere, nothing with `--json`. On standard error.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::{Format, clean};
use crate::units;

/// Several pieces of work, each known by its label and counted in bytes.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    work: Mutex<BTreeMap<String, Work>>,
}

#[derive(Debug)]
enum Show {
    Bars(MultiProgress),
    Lines,
    Nothing,
}

#[derive(Debug)]
struct Work {
    bar: Option<ProgressBar>,
    started: Instant,
    tenths_told: u64,
    /// Whether anything was seen of it before its end.
    moved: bool,
    ended: bool,
}

impl Progress {
    /// Nothing to show yet.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let show = match format {
            Format::Json => Show::Nothing,
            Format::Text if std::io::stderr().is_terminal() => Show::Bars(MultiProgress::new()),
            Format::Text => Show::Lines,
        };
        Self { show, work: Mutex::default() }
    }

    /// The piece of work named `label` has `done` of `total` bytes behind it. The first call makes it appear.
    pub fn set(&self, label: &str, done: u64, total: u64) {
        self.with(label, |show, label, work| {
            if work.ended {
                return;
            }
            // What is sent again after damage counts again where the sender counts; there is no more than all.
            let done = done.min(total);
            work.moved = true;
            if let Some(bar) = &work.bar {
                bar.set_length(total);
                bar.set_position(done);
            } else if matches!(show, Show::Lines) && total > 0 {
                let tenths = done.saturating_mul(10) / total;
                if tenths > work.tenths_told {
                    work.tenths_told = tenths;
                    tell(&format!("{label}: {} of {} ({} %)", units::bytes(done), units::bytes(total), tenths * 10));
                }
            }
        });
    }

    /// The piece of work named `label` has ended so; its bar stays with `outcome` beside it.
    pub fn end(&self, label: &str, outcome: &str) {
        let outcome = clean(outcome);
        self.with(label, |show, label, work| {
            if std::mem::replace(&mut work.ended, true) {
                return;
            }
            if let Some(bar) = &work.bar {
                bar.set_style(style("{prefix:24!} {msg}"));
                bar.finish_with_message(outcome.clone());
            } else if matches!(show, Show::Lines) {
                // The time since its first sign says something only where there was one before the end.
                match work.moved {
                    true => tell(&format!("{label}: {outcome} ({})", units::duration(work.started.elapsed()))),
                    false => tell(&format!("{label}: {outcome}")),
                }
            }
        });
    }

    /// Takes all bars off the terminal, for the table that follows.
    pub fn clear(&self) {
        if let Show::Bars(bars) = &self.show {
            // A terminal that cannot be cleared keeps its bars; nothing is lost.
            let _ = bars.clear();
        }
    }

    fn with(&self, label: &str, then: impl FnOnce(&Show, &str, &mut Work)) {
        if matches!(self.show, Show::Nothing) {
            return;
        }
        let label = clean(label);
        let mut all = self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let work = all.entry(label.clone()).or_insert_with(|| Work {
            bar: self.bar(&label),
            started: Instant::now(),
            tenths_told: 0,
            moved: false,
            ended: false,
        });
        then(&self.show, &label, work);
    }

    fn bar(&self, label: &str) -> Option<ProgressBar> {
        let Show::Bars(bars) = &self.show else { return None };
        let bar = bars.add(ProgressBar::new(0));
        bar.set_style(style(
            "{prefix:24!} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        ));
        bar.set_prefix(label.to_owned());
        Some(bar)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

fn tell(line: &str) {
    // There is no one left to tell when standard error itself fails.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_understood() {
        for template in [
            "{prefix:24!} {msg}",
            "{prefix:24!} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn only_what_moved_before_its_end_has_a_time() {
        let progress = Progress { show: Show::Lines, work: Mutex::default() };
        progress.set("moved", 5, 4);
        progress.end("moved", "done");
        progress.end("at once", "done");
        let work = progress.work.lock().expect("not poisoned");
        assert!(work["moved"].moved && work["moved"].tenths_told == 10, "no more than all");
        assert!(!work["at once"].moved && work["at once"].ended);
    }

    #[test]
    fn programs_see_no_progress() {
        let progress = Progress::new(Format::Json);
        progress.set("site", 1, 2);
        progress.end("site", "done");
        assert!(progress.work.lock().expect("not poisoned").is_empty());
    }
}
