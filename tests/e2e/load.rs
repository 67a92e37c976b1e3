//! Calls without end while something happens to whoever is called, and what became of each.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postern_tests::wait::eventually;

use crate::cluster::PATIENCE;
use crate::scene::{Scene, as_words};

/// `$1` says where lines go, `$2` ends it; the rest is curl's. Each call is a line: its status, or what curl says.
const LOOP: &str =
    r#"lines=$1 stop=$2; shift 2; until [ -e $stop ]; do curl "$@" >>$lines 2>&1; sleep 0.03; done; echo end >>$lines"#;
/// One after the other on a connection, and so many a second; as often there are new connections.
const ON_A_CONNECTION: usize = 20;
const A_SECOND: &str = "40/s";

/// Calls `/orders/7` by the Service, on new connections and on kept ones. It runs in pod `client` by itself, so that it goes
/// on whatever becomes of the API server.
pub(crate) struct Load<'a> {
    scene: &'a Scene,
    files: [String; 2],
}

impl<'a> Load<'a> {
    /// Begins, once the Service is reached.
    pub(crate) fn start(scene: &'a Scene) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let first = scene.call(Some("billing"), "/orders/7");
        assert!(first.text().ends_with("\n200"), "{first:?}");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let load = Self { scene, files: [format!("/tmp/lines-{number}"), format!("/tmp/stop-{number}")] };
        let many = format!("/orders/7?[1-{ON_A_CONNECTION}]");
        for (path, more) in [("/orders/7", &[][..]), (&many, &["--rate", A_SECOND])] {
            let calling = scene.once("billing", path, "%{http_code}\n");
            let [lines, stop] = load.files.each_ref();
            // Nothing of the exec is held open, which would wait for it.
            let begin = format!("sh -c '{LOOP}' sh \"$@\" </dev/null >/dev/null 2>&1 &");
            let words = ["exec", "client", "--", "sh", "-c", &begin, "sh", lines, stop];
            let calling = [&as_words(&calling)[1..], more].concat();
            scene.kubectl(&[&words[..], &calling].concat()).unwrap();
        }
        load.wait_for_more();
        load
    }

    fn lines(&self) -> Result<Vec<String>> {
        let told = self.scene.kubectl(&["exec", "client", "--", "cat", &self.files[0]])?;
        Ok(told.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    /// Waits until somebody was answered from now on, on each kind of connection.
    pub(crate) fn wait_for_more(&self) {
        let before = self.lines().map_or(0, |lines| lines.len());
        eventually("more calls", PATIENCE, || {
            // The file is made by the first call.
            Ok(self.lines().is_ok_and(|lines| lines.len() >= before + 2 * ON_A_CONNECTION).then_some(()))
        })
        .unwrap();
    }

    /// Ends, and fails where any call did. Says how many there were.
    pub(crate) fn none_failed(self) -> usize {
        self.stop().unwrap();
        let lines = eventually("the end of all calls", PATIENCE, || {
            let lines = self.lines()?;
            Ok((lines.iter().filter(|line| *line == "end").count() == 2).then_some(lines))
        })
        .unwrap();
        let calls: Vec<_> = lines.iter().filter(|line| *line != "end").collect();
        let failed: Vec<_> = calls.iter().filter(|line| **line != "200").collect();
        assert!(failed.is_empty(), "{} of {} lines: {failed:?}", failed.len(), calls.len());
        calls.len()
    }

    fn stop(&self) -> Result<()> {
        self.scene.kubectl(&["exec", "client", "--", "touch", &self.files[1]]).map(drop)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        // Of a case that failed the namespace stays, and nobody is to be called there for ever.
        let _ = self.stop();
    }
}

/// What a call says at the moment when it is answered: one after the other, each on a new connection.
pub(crate) struct Prober {
    process: Child,
    lines: Receiver<(Instant, String)>,
    /// All that was said so far.
    pub(crate) seen: Vec<String>,
}

impl Prober {
    /// Begins. `told` is what is told of each call, in curl's words.
    pub(crate) fn start(scene: &Scene, told: &str) -> Result<Self> {
        let calling = scene.once("billing", "/orders/7", &format!("{told}\n"));
        let endless = r#"while :; do curl "$@" 2>&1; done"#;
        let words = ["-n", &scene.namespace, "exec", "client", "--", "sh", "-c", endless, "sh"];
        let words = [&words, &as_words(&calling)[1..]].concat();
        let mut process = scene.cluster.command(&words).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(process.stdout.take().context("its output")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok).filter(|line| !line.is_empty()) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, lines, seen: Vec::new() })
    }

    /// When it first says this, from now on.
    pub(crate) fn says(&mut self, expected: &str, limit: Duration) -> Result<Instant> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let last = self.seen.last().cloned().unwrap_or_default();
            let (at, line) =
                self.lines.recv_timeout(left).with_context(|| format!("waited for {expected}, heard last: {last}"))?;
            let is_it = line == expected;
            self.seen.push(line);
            if is_it {
                return Ok(at);
            }
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // It may have ended by itself, which is no error here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How many samples a measurement has: few where others wait for the end of it.
pub(crate) fn samples(few: usize) -> usize {
    std::env::var("POSTERN_SAMPLES").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

/// Says of measured times what they come to, to whoever reads the output.
pub(crate) fn print(what: &str, times: &mut [Duration]) -> Result<Duration> {
    ensure!(!times.is_empty(), "{what}: nothing was measured");
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share).div_ceil(100).max(1) - 1];
    let [half, most, last] = [at(50), at(99), at(100)].map(|time| time.as_millis());
    say(&format!("{what}, {} samples: p50 {half} ms, p99 {most} ms, longest {last} ms", times.len()));
    Ok(at(99))
}

/// Prints past what captures the output of tests: it is meant for whoever runs them.
pub(crate) fn say(line: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes());
}
