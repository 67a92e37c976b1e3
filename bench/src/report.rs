//! The result as a table for people and as JSON for programs. Neither names the machine.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::figures::{Figure, Figures, Spread};
use crate::peers::{Peer, haproxy_version};

/// What was compared, and what it was not.
const NOTES: &str = include_str!("notes.md");

/// A run's result.
pub struct Report {
    lines: Vec<Line>,
    many: usize,
    haproxy: String,
}

struct Line {
    figure: Figure,
    haproxy: Spread,
    postern: Spread,
    ratio: Spread,
    rounds: usize,
    samples: Value,
}

impl Report {
    /// Of the figures that were measured.
    pub fn new(figures: &Figures, many: usize) -> Result<Self> {
        let lines = Figure::ALL.into_iter().map(|figure| Line::of(figure, figures)).collect::<Option<_>>();
        let lines = lines.context("a figure was not measured")?;
        Ok(Self { lines, many, haproxy: haproxy_version()? })
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| each | | HAProxy | Postern | ratio | least | most | rounds | aim |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for line in &self.lines {
            let (name, unit, aim) = (line.figure.name(self.many), line.figure.unit(), line.figure.aim());
            let (haproxy, postern, ratio) = (line.haproxy.median, line.postern.median, line.ratio);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {name} | {unit} | {haproxy:.1} | {postern:.1} | **{:.2}** | {:.2} | {:.2} | {} | {aim} |",
                ratio.median, ratio.min, ratio.max, line.rounds
            );
        }
        text
    }

    /// Writes `<stem>.md` and `<stem>.json`.
    pub fn write(&self, stem: &Path) -> Result<()> {
        let text = format!("# Postern and HAProxy {}\n\n{}\n{NOTES}", self.haproxy, self.table());
        fs::write(stem.with_extension("md"), text).with_context(|| format!("write {}.md", stem.display()))?;
        let json = format!("{:#}\n", self.json());
        fs::write(stem.with_extension("json"), json).with_context(|| format!("write {}.json", stem.display()))
    }

    fn json(&self) -> Value {
        let lines = self.lines.iter().map(|line| {
            json!({
                "each": line.figure.name(self.many),
                "unit": line.figure.unit(),
                "haproxy": spread(line.haproxy),
                "postern": spread(line.postern),
                "ratio": spread(line.ratio),
                "samples": line.samples,
            })
        });
        json!({ "haproxy": self.haproxy, "figures": lines.collect::<Vec<_>>() })
    }
}

impl Line {
    fn of(figure: Figure, figures: &Figures) -> Option<Self> {
        let (haproxy, postern) = (figures.of(figure, Peer::Haproxy), figures.of(figure, Peer::Postern));
        Some(Self {
            figure,
            rounds: haproxy.len(),
            samples: json!({ "haproxy": rounded(&haproxy), "postern": rounded(&postern) }),
            haproxy: Spread::of(haproxy)?,
            postern: Spread::of(postern)?,
            ratio: Spread::of(figures.ratios(figure))?,
        })
    }
}

fn spread(spread: Spread) -> Value {
    json!({ "median": round(spread.median), "min": round(spread.min), "max": round(spread.max) })
}

fn rounded(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| round(*value)).collect()
}

/// Three digits after the point: the fourth is noise.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
