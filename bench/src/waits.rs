//! Whether anybody waits for rows: in one run, answers while the log cuts, folds, compresses or waits for PostgreSQL beside
//! answers while it does none of that.
#![expect(clippy::print_stdout, reason = "a run of minutes shows how far it is")]

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use postern_tests::config::ConfigFolder;
use serde_json::{Value, json};

use crate::figures::Spread;
use crate::load::{Answer, Connections, TlsClient, Version};
use crate::measure::{Core, on_core};
use crate::peers::{Scene, start_postern};
use crate::watch::{Span, Spans, Watch, Work, is_any_in};

/// How often somebody asks: 6,000 times a second, by which a segment of 4 MiB is full every eight seconds.
const EVERY: Duration = Duration::from_nanos(166_667);
/// Connections that take turns, each every 11 ms: hardly an answer takes so long.
const CONNECTIONS: usize = 64;
/// Time for caches, pools and branch predictors.
const WARM_UP: Duration = Duration::from_secs(1);
/// Three times without a PostgreSQL and with one.
const WINDOW: Duration = Duration::from_secs(48);
/// So long before a cut there usually is nothing: as many answers as during cuts, to compare those with.
const EARLIER: Duration = Duration::from_secs(2);

/// What was under way while somebody waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// Nothing, and as long as a cut takes.
    NothingShort,
    Only(Work),
}

impl Meanwhile {
    const ALL: [Self; 6] = [
        Self::Nothing,
        Self::NothingShort,
        Self::Only(Work::Checkpoint),
        Self::Only(Work::Cut),
        Self::Only(Work::Compression),
        Self::Only(Work::Hanging),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NothingShort => "of that 2 s before each cut, as long as it",
            Self::Only(Work::Cut) => "a cut, with its checkpoint",
            Self::Only(Work::Checkpoint) => "another checkpoint",
            Self::Only(Work::Compression) => "a compression",
            Self::Only(Work::Hanging) => "PostgreSQL hangs",
        }
    }
}

/// What one round found of one of them.
#[derive(Debug, Default)]
struct Found {
    /// How long each time was.
    times: Vec<Duration>,
    /// How long each answer took, the shortest first.
    answers: Vec<Duration>,
}

/// All rounds.
#[derive(Debug, Default)]
pub struct Waits {
    rounds: Vec<[Found; Meanwhile::ALL.len()]>,
    /// Answers that count nowhere, for the client itself was held up.
    left_out: usize,
}

impl Waits {
    /// One run of a gate that is started for it.
    pub fn round(&mut self, scene: &Scene, client: &TlsClient) -> Result<()> {
        // Looking at what is in the gate's own folder would wake the gate each time.
        let (log, folder) = (ConfigFolder::new()?, ConfigFolder::new()?);
        let (live, url) = (log.file("requests.db"), folder.file("url"));
        let change = |settings: &mut Value| {
            settings["log"]["path"] = json!(live);
            settings["log"]["postgres"] = json!({ "urlFile": url, "caFile": scene.path().join("postgres.pem") });
        };
        let gate = on_core(Core::Proxy, || start_postern(scene, folder, change))?;
        let mut open = Connections::new(client, Version::Http1, gate.address)?;
        open.open(CONNECTIONS)?;
        open.ask_on_time(EVERY, WARM_UP)?;
        let (watch, is_over) = (Watch::new(live, &url)?, AtomicBool::new(false));
        let (answers, spans) = thread::scope(|scope| {
            let watching = scope.spawn(|| watch.run(&is_over));
            let answers = open.ask_on_time(EVERY, WINDOW);
            is_over.store(true, Ordering::Relaxed);
            let spans = watching.join().map_err(|_| anyhow!("watching the log failed"))?;
            anyhow::Ok((answers?, spans?))
        })?;
        let count = answers.len();
        let answers: Vec<_> = answers.into_iter().filter(|answer| !is_any_in(&spans.held_up, span(answer))).collect();
        self.left_out += count - answers.len();
        println!("  the client was held up {} times, {} answers", spans.held_up.len(), count - answers.len());
        let found = sorted(&answers, &spans);
        for (meanwhile, found) in Meanwhile::ALL.into_iter().zip(&found) {
            let [half, most] = [HALF, MOST].map(|part| found.microseconds(part).unwrap_or(f64::NAN));
            println!("  {:<42} {half:>7.0} µs, p99 {most:>6.0} µs, {} answers", meanwhile.name(), found.answers.len());
        }
        self.rounds.push(found);
        Ok(())
    }

    /// The part of the page.
    pub fn page(&self) -> String {
        let mut text = String::from(
            "\n| meanwhile | times, seconds, longest ms | answers | half, µs | 99 of 100 | 999 of 1,000 | 99 of 100, of nothing's |\n|---|--:|--:|--:|--:|--:|--:|\n",
        );
        for (place, meanwhile) in Meanwhile::ALL.into_iter().enumerate() {
            let rounds = || self.rounds.iter().map(|round| &round[place]);
            let times: Vec<Duration> = rounds().flat_map(|found| &found.times).copied().collect();
            let spans = match (meanwhile, times.iter().max()) {
                (Meanwhile::Nothing, _) | (_, None) => String::new(),
                (_, Some(longest)) => {
                    let all = times.iter().sum::<Duration>().as_secs_f64();
                    format!("{}, {all:.1}, {}", times.len(), longest.as_millis())
                }
            };
            let answers: usize = rounds().map(|found| found.answers.len()).sum();
            let [half, most, nearly_all] =
                [HALF, MOST, NEARLY_ALL].map(|part| spread(rounds().map(|found| found.microseconds(part)), 0));
            let beside = self.rounds.iter().map(|round| {
                let [here, nothing] = [place, 0].map(|place| round[place].microseconds(MOST));
                Some(here? / nothing?)
            });
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {spans} | {answers} | {half} | {most} | {nearly_all} | {} |",
                meanwhile.name(),
                spread(beside, 2)
            );
        }
        let _ = writeln!(text, "\n{} answers are not among them, for the client itself was held up.", self.left_out);
        text
    }
}

/// The parts of 1,000 answers whose longest is told.
const HALF: usize = 500;
const MOST: usize = 990;
const NEARLY_ALL: usize = 999;

impl Found {
    /// In so many microseconds this part of the answers came; `None` where they are so few that it would be the longest.
    fn microseconds(&self, part: usize) -> Option<f64> {
        let place = self.answers.len() * part / 1000;
        let is_told = place + 1 < self.answers.len();
        self.answers.get(place).filter(|_| is_told).map(|took| took.as_secs_f64() * 1e6)
    }
}

/// Of the rounds that have a value the middle one, and least and most.
fn spread(rounds: impl Iterator<Item = Option<f64>>, digits: usize) -> String {
    Spread::of(rounds.flatten().collect()).map_or_else(String::new, |Spread { median, min, max }| {
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    })
}

/// From when it was due until it was there.
fn span(answer: &Answer) -> Span {
    (answer.due, answer.came)
}

/// Each answer where it belongs: with what was under way at any moment of it.
fn sorted(answers: &[Answer], spans: &Spans) -> [Found; Meanwhile::ALL.len()] {
    let before_cuts: Vec<Span> =
        spans.of(Work::Cut).iter().map(|(from, to)| (*from - EARLIER, *to - EARLIER)).collect();
    let mut found = Meanwhile::ALL.map(|meanwhile| {
        let spans = match meanwhile {
            Meanwhile::Nothing => &[],
            Meanwhile::NothingShort => &before_cuts[..],
            Meanwhile::Only(work) => spans.of(work),
        };
        Found { times: spans.iter().map(|(from, to)| *to - *from).collect(), answers: Vec::new() }
    });
    for answer in answers {
        let span = span(answer);
        let work = Work::ALL.into_iter().find(|work| is_any_in(spans.of(*work), span));
        for (meanwhile, found) in Meanwhile::ALL.into_iter().zip(&mut found) {
            let is_of = match meanwhile {
                Meanwhile::Nothing => work.is_none(),
                Meanwhile::NothingShort => work.is_none() && is_any_in(&before_cuts, span),
                Meanwhile::Only(_) => work.is_some_and(|work| meanwhile == Meanwhile::Only(work)),
            };
            if is_of {
                found.answers.push(answer.came - answer.due);
            }
        }
    }
    found.iter_mut().for_each(|found| found.answers.sort_unstable());
    found
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn an_answer_counts_once_and_for_what_holds_up_most() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut spans = Spans::default();
        for (work, from, to) in [
            (Work::Cut, 5000, 5100),
            (Work::Checkpoint, 5050, 5100),
            (Work::Compression, 5040, 5900),
            (Work::Hanging, 2000, 3010),
            (Work::Hanging, 5500, 9000),
        ] {
            spans.each[work as usize].push((at(from), at(to)));
        }
        let only = Meanwhile::Only;
        let table = [
            (1000, 1001, vec![Meanwhile::Nothing]),
            (1999, 2001, vec![only(Work::Hanging)]),
            (3005, 3020, vec![only(Work::Hanging)]),
            (3050, 3051, vec![Meanwhile::Nothing, Meanwhile::NothingShort]),
            (4999, 5001, vec![only(Work::Cut)]),
            (5099, 5101, vec![only(Work::Cut)]),
            (5600, 5601, vec![only(Work::Compression)]),
            (5950, 5951, vec![only(Work::Hanging)]),
        ];
        for (due, came, expected) in table {
            let found = sorted(&[Answer { due: at(due), came: at(came) }], &spans);
            let counted = Meanwhile::ALL.into_iter().zip(&found).filter(|(_, found)| !found.answers.is_empty());
            assert_eq!(counted.map(|(meanwhile, _)| meanwhile).collect::<Vec<_>>(), expected, "{due} to {came}");
        }
    }

    #[test]
    fn what_is_told_of_few_answers_is_never_the_longest() {
        let found = |count: u64| Found { times: Vec::new(), answers: (1..=count).map(Duration::from_micros).collect() };
        let table = [
            (0, [None, None, None]),
            (1, [None, None, None]),
            (100, [Some(51.0), None, None]),
            (200, [Some(101.0), Some(199.0), None]),
            (2000, [Some(1001.0), Some(1981.0), Some(1999.0)]),
        ];
        for (count, expected) in table {
            let told = [HALF, MOST, NEARLY_ALL].map(|part| found(count).microseconds(part).map(f64::round));
            assert_eq!(told, expected, "of {count}");
        }
    }
}
