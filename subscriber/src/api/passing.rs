//! What a parent passes on, and what its links carried.

use std::collections::BTreeMap;

use ted_cli::output::{Column, Text};
use ted_cli::units;
use ted_core::subscriber::{PassedRow, TrafficRow};

/// What went over which link for one Distribution.
#[derive(Default)]
struct Carried<'a> {
    passed: Option<&'a PassedRow>,
    from_upstream: u64,
    to_children: BTreeMap<&'a str, u64>,
}

/// One row for each Distribution that is passed on, or was since the daemon was started.
pub(super) fn table(passes_on: &[PassedRow], traffic: &[TrafficRow], out: &mut Text) {
    let columns = [
        Column::Left("PASSES ON"),
        Column::Left("DISTRIBUTOR"),
        Column::Left("PACKAGES HERE"),
        Column::Right("STILL TO GET IT"),
        Column::Right("CAME IN"),
        Column::Left("WENT OUT"),
    ];
    let mut carried: BTreeMap<_, Carried<'_>> = BTreeMap::new();
    for row in passes_on {
        carried.entry((&row.distributor, &row.distribution)).or_default().passed = Some(row);
    }
    for row in traffic {
        let of = carried.entry((&row.distributor, &row.distribution)).or_default();
        match &row.child {
            None => of.from_upstream += row.bytes,
            Some(child) => *of.to_children.entry(child).or_default() += row.bytes,
        }
    }
    let rows = carried.into_iter().map(|((distributor, distribution), of)| {
        let packages = of.passed.map_or(&[][..], |row| &row.packages);
        let here = packages.iter().filter(|(_, here)| *here).count();
        let went = of.to_children.iter().map(|(child, bytes)| format!("{child} {}", units::bytes(*bytes)));
        let went = went.collect::<Vec<_>>().join(", ");
        vec![
            distribution.clone(),
            distributor.to_string(),
            format!("{here} of {}", packages.len()),
            of.passed.map_or(0, |row| row.waiting).to_string(),
            units::bytes(of.from_upstream),
            if went.is_empty() { "-".to_owned() } else { went },
        ]
    });
    out.table(&columns, rows, "");
}

#[cfg(test)]
mod tests {
    use ted_cli::output::Paint;
    use ted_core::id::{Revision, UnixMillis};

    use super::*;

    #[test]
    fn a_parent_says_what_is_here_and_what_went_to_whom() {
        let distributor: ted_core::name::NodeName = "head.test".parse().expect("a name");
        let passed = PassedRow {
            distributor: distributor.clone(),
            distribution: "3781".to_owned(),
            packages: vec![("aa".to_owned(), true), ("bb".to_owned(), false)],
            waiting: 2,
        };
        let carried = |child: Option<&str>, bytes| TrafficRow {
            distributor: distributor.clone(),
            distribution: "3781".to_owned(),
            revision: Revision::after(None, UnixMillis::from_millis(1)),
            package: "aa".to_owned(),
            child: child.map(str::to_owned),
            bytes,
        };
        let traffic = [carried(None, 1024), carried(Some("l1.test"), 2048), carried(Some("l1.test"), 1024)];
        let mut text = Text::new(Paint::Plain);
        table(&[passed], &traffic, &mut text);
        let row = text.into_string().lines().last().unwrap_or_default().to_owned();
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(words, ["3781", "head.test", "1", "of", "2", "2", "1.0", "KiB", "l1.test", "3.0", "KiB"]);
    }
}
