//! The table: each row a figure of ours, a peer's, their ratio, and whether the target is reached.

use std::fmt;

use super::machine;
use super::sample::Sample;

/// When the figures of [`Peer::Earlier`] were measured, on this machine, with scripts of the same design.
const EARLIER: &str = "2026-11-21";

/// What is compared.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    PerSecond,
    MiB,
    /// Percent of one core.
    Percent,
    CpuSeconds,
    /// Of CPU time.
    CpuMicroseconds,
    GigabitsPerSecond,
}

impl Unit {
    fn show(self, value: f64) -> String {
        let digits = match value.abs() {
            v if v >= 100.0 => 0,
            v if v >= 10.0 => 1,
            v if v >= 1.0 => 2,
            _ => 3,
        };
        let word = match self {
            Unit::Seconds => " s",
            Unit::Milliseconds => " ms",
            Unit::PerSecond => "/s",
            Unit::MiB => " MiB",
            Unit::Percent => " %",
            Unit::CpuSeconds => " CPU-s",
            Unit::CpuMicroseconds => " CPU-µs",
            Unit::GigabitsPerSecond => " Gbit/s",
        };
        format!("{value:.digits$}{word}")
    }
}

/// What the other one takes for the same.
pub(crate) enum Peer {
    None,
    /// Measured in this run.
    Now(&'static str, Sample),
    /// Not measured in this run: known from an earlier one, on the machine where the targets were set.
    Earlier(&'static str, f64),
}

impl Peer {
    fn value(&self) -> Option<f64> {
        match self {
            Peer::None => None,
            Peer::Now(_, sample) => Some(sample.median()),
            Peer::Earlier(_, value) => Some(*value),
        }
    }
}

/// What ours should be.
pub(crate) enum Target {
    /// Printed for comparison only.
    None,
    AtMost(f64),
    AtLeast(f64),
    /// Ours divided by the peer's.
    RatioAtMost(f64),
    RatioAtLeast(f64),
}

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) ours: Sample,
    /// Which of the sample is held against the target; the median by default.
    pub(crate) pick: Pick,
    pub(crate) peer: Peer,
    pub(crate) target: Target,
    /// Load average of the last minute, when it was measured.
    load: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    Median,
    P99,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: Unit, ours: Sample) -> Row {
        Row {
            name: name.into(),
            unit,
            ours,
            pick: Pick::Median,
            peer: Peer::None,
            target: Target::None,
            load: machine::load1(),
        }
    }

    pub(crate) fn peer(mut self, peer: Peer) -> Row {
        self.peer = peer;
        self
    }

    pub(crate) fn target(mut self, target: Target) -> Row {
        self.target = target;
        self
    }

    pub(crate) fn p99(mut self) -> Row {
        self.pick = Pick::P99;
        self
    }

    fn value(&self) -> f64 {
        if self.pick == Pick::P99 { self.ours.percentile(99) } else { self.ours.median() }
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.value().filter(|peer| *peer > 0.0).map(|peer| self.value() / peer)
    }

    fn reached(&self) -> &'static str {
        let ratio = self.ratio();
        let reached = match self.target {
            Target::None => return "",
            Target::AtMost(limit) => self.value() <= limit,
            Target::AtLeast(limit) => self.value() >= limit,
            Target::RatioAtMost(limit) => match ratio {
                Some(ratio) => ratio <= limit,
                None => return "?",
            },
            Target::RatioAtLeast(limit) => match ratio {
                Some(ratio) => ratio >= limit,
                None => return "?",
            },
        };
        if reached { "yes" } else { "NO" }
    }

    fn cells(&self) -> [String; 7] {
        let ours = if self.ours.count() > 1 {
            let (least, most) = self.ours.range();
            let bounds = format!("{}–{}", plain(least), plain(most));
            format!("{} ({bounds}, {} runs)", self.unit.show(self.value()), self.ours.count())
        } else {
            self.unit.show(self.value())
        };
        let peer = match &self.peer {
            Peer::None => "–".to_owned(),
            Peer::Now(name, sample) if sample.count() > 1 => {
                format!("{name} {} ({} runs)", self.unit.show(sample.median()), sample.count())
            }
            Peer::Now(name, sample) => format!("{name} {}", self.unit.show(sample.median())),
            Peer::Earlier(name, value) => format!("{name} {} [earlier]", self.unit.show(*value)),
        };
        let ratio = self.ratio().map_or("–".to_owned(), |ratio| format!("{}×", plain(ratio)));
        let target = match self.target {
            Target::None => "–".to_owned(),
            Target::AtMost(limit) => format!("≤ {}", self.unit.show(limit)),
            Target::AtLeast(limit) => format!("≥ {}", self.unit.show(limit)),
            Target::RatioAtMost(limit) => format!("≤ {}×", plain(limit)),
            Target::RatioAtLeast(limit) => format!("≥ {}×", plain(limit)),
        };
        [self.name.clone(), ours, peer, ratio, target, self.reached().to_owned(), format!("{:.1}", self.load)]
    }

    /// The row by itself, for those who wait.
    pub(crate) fn line(&self) -> String {
        let [name, ours, peer, ratio, target, reached, _] = self.cells();
        format!("{name}: {ours}; peer {peer}; ratio {ratio}; target {target}; reached {reached}")
    }
}

fn plain(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// All rows; shown as a Markdown table that can be read as it is.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["bench", "ours", "peer", "ratio", "target", "reached", "load"].map(str::to_owned);
        let mut lines = vec![head];
        lines.extend(self.rows.iter().map(Row::cells));
        let wide: Vec<usize> = (0..7)
            .map(|n| lines.iter().map(|line| line[n].chars().count()).max().unwrap_or_default())
            .collect();
        for (n, line) in lines.iter().enumerate() {
            let cells: Vec<String> =
                line.iter().zip(&wide).map(|(cell, wide)| format!("{cell:<wide$}")).collect();
            writeln!(f, "| {} |", cells.join(" | "))?;
            if n == 0 {
                let rule: Vec<String> = wide.iter().map(|wide| "-".repeat(*wide)).collect();
                writeln!(f, "| {} |", rule.join(" | "))?;
            }
        }
        if self.rows.iter().any(|row| matches!(row.peer, Peer::Earlier(..))) {
            writeln!(
                f,
                "[earlier]: the peer was not measured in this run; its figure is of {EARLIER}, from the \
                 machine (2 vCPU) on which the targets were set."
            )?;
        }
        writeln!(f, "Ours: the median (p99 where the name says so), least–most, repetitions. Load: 1 min.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_held_against_its_target() {
        let row = |ours: f64| {
            Row::new("x", Unit::Seconds, Sample::of(vec![ours]))
                .peer(Peer::Earlier("docker", 10.0))
                .target(Target::RatioAtMost(0.2))
        };
        assert_eq!(row(2.0).reached(), "yes");
        assert_eq!(row(2.1).reached(), "NO");
        let alone = Row::new("x", Unit::Seconds, Sample::of(vec![1.0])).target(Target::RatioAtMost(1.0));
        assert_eq!(alone.reached(), "?");
    }

    #[test]
    fn the_worst_is_taken_where_p99_is_asked_for() {
        let sample = Sample::of((1..=20).map(f64::from).collect());
        let row = Row::new("x", Unit::Seconds, sample).p99().target(Target::AtMost(19.0));
        assert_eq!(row.reached(), "NO");
    }
}
