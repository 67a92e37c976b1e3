//! The real sidecar as a child process: started, listened to, signalled, and gone when dropped.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::clients::{Finished, run};
use crate::wait::PATIENCE;

/// Name of the binary.
const SIDECAR: &str = "postern-sidecar";

/// What it says when its pages can be asked for.
const STATUS_SERVER: &str = "status server listening";

/// Calls that say what is on the disk, for `strace`.
const TRACED_CALLS: &str = "trace=fsync,fdatasync,?rename,?renameat,renameat2,?unlink,unlinkat";

/// Lines of the child's output that an error shows.
const SHOWN_LINES: usize = 20;

/// Lines of a subcommand that are read before they are asked for.
const LINES_AHEAD: usize = 1000;

/// Finds the sidecar that was built along with the running program.
///
/// # Errors
/// When it is not there, with what to do.
pub fn built_sidecar() -> Result<PathBuf> {
    built(SIDECAR)
}

/// Finds a binary of the workspace that was built along with the running program.
///
/// # Errors
/// When it is not there, with what to do.
pub fn built(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    // A binary lies in target/<profile>, a test in target/<profile>/deps.
    let folders = program.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no {name} beside {}; run `cargo build --workspace --bins` first", program.display()))
}

/// Memory of a process that is its own: heap and stacks, without the binary and the log's mapped file.
///
/// # Errors
/// When the kernel does not tell, because there is no such process any more.
pub fn anonymous_kib(process: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let line = line.context("no Anonymous in smaps_rollup")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// How to start a sidecar.
#[derive(Clone, Debug)]
pub struct Launch {
    binary: PathBuf,
    config: PathBuf,
    variables: Vec<(String, String)>,
    own_process_group: bool,
    ends_with_thread: bool,
    trace: Option<PathBuf>,
}

impl Launch {
    /// The built sidecar with this configuration, a file or a folder.
    ///
    /// # Errors
    /// When no sidecar is built.
    pub fn new(config: &Path) -> Result<Self> {
        Ok(Self::of(built_sidecar()?, config))
    }

    /// This very binary with this configuration.
    #[must_use]
    pub fn of(binary: PathBuf, config: &Path) -> Self {
        Self {
            binary,
            config: config.to_owned(),
            variables: Vec::new(),
            own_process_group: false,
            ends_with_thread: false,
            trace: None,
        }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps a terminal's Ctrl-C from reaching the sidecar: whoever started it decides.
    #[must_use]
    pub fn own_process_group(mut self) -> Self {
        self.own_process_group = true;
        self
    }

    /// Has the kernel end the sidecar with the thread that starts it, also where that is killed. One that is held by a
    /// signal would stay behind otherwise.
    #[must_use]
    pub fn ends_with_thread(mut self) -> Self {
        self.ends_with_thread = true;
        self
    }

    /// Has `strace` write into this file what it brings to the disk, renames and removes.
    #[must_use]
    pub fn traced(mut self, file: &Path) -> Self {
        self.trace = Some(file.to_owned());
        self
    }

    /// Starts it, without waiting for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Sidecar> {
        let mut command = self.command("run");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = (Instant::now(), SystemTime::now());
        let mut child = command.spawn().with_context(|| format!("start {}", self.binary.display()))?;
        let stderr = child.stderr.take().context("the sidecar's stderr")?;
        let log = Arc::new(Log::default());
        let reader = thread::Builder::new().name("sidecar-log".to_owned());
        let shared = Arc::clone(&log);
        // From here on dropping the sidecar ends the child, whatever fails.
        let is_audited = AtomicBool::new(true);
        let mut sidecar = Sidecar { launch: self.clone(), started, child, log, reader: None, is_audited };
        sidecar.reader = Some(reader.spawn(move || shared.follow(stderr))?);
        Ok(sidecar)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time.
    pub fn start_ready(&self) -> Result<Sidecar> {
        let sidecar = self.start()?;
        sidecar.wait_ready()?;
        Ok(sidecar)
    }

    /// Runs another subcommand on the same configuration to its end.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time.
    pub fn subcommand(&self, name: &str, arguments: &[&str]) -> Result<Finished> {
        run(self.command(name).args(arguments), b"", PATIENCE)
    }

    /// Gives away each line that another subcommand prints, as it comes: all of them may be more than there is time for at
    /// once.
    ///
    /// # Errors
    /// When it cannot be started, fails, or prints nothing for too long.
    pub fn each_line(&self, name: &str, arguments: &[&str], mut each: impl FnMut(&str)) -> Result<()> {
        let mut command = self.command(name);
        let mut child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("its stdout")?;
        let (sender, lines) = mpsc::sync_channel(LINES_AHEAD);
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => each(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    child.kill()?;
                    child.wait()?;
                    bail!("{SIDECAR} {name} printed nothing for {} s", PATIENCE.as_secs());
                }
            }
        }
        let ended = child.wait()?;
        ensure!(ended.success(), "{SIDECAR} {name} {arguments:?}: {ended}");
        Ok(())
    }

    /// What a query over the view `requests` gives, through `postern-sidecar log --sql`.
    ///
    /// # Errors
    /// When the subcommand fails or prints something else than JSON.
    pub fn query(&self, sql: &str) -> Result<Vec<Value>> {
        let finished = self.subcommand("log", &["-o", "json", "--sql", sql])?;
        // Where rows are missing of a segment that a test has damaged, it says which.
        ensure!(matches!(finished.code, Some(0 | 3)), "{SIDECAR} log failed: {}", finished.stderr.trim_end());
        parse_rows(&finished.text())
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = if self.ends_with_thread {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(&self.binary);
            command
        } else if let Some(trace) = self.trace.as_ref().filter(|_| subcommand == "run") {
            let mut command = Command::new("strace");
            // The sidecar stays the child. What a machine's kernel does not have is left out.
            command.args(["-D", "-f", "-y", "-e", TRACED_CALLS, "-o"]).arg(trace).arg(&self.binary);
            command
        } else {
            Command::new(&self.binary)
        };
        command.arg(subcommand).arg("--config").arg(&self.config);
        for name in settings_variables() {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if self.own_process_group {
            command.process_group(0);
        }
        command
    }
}

/// Rows come as one array or as one object a line.
fn parse_rows(text: &str) -> Result<Vec<Value>> {
    let values = serde_json::Deserializer::from_str(text).into_iter().collect::<Result<Vec<Value>, _>>();
    let values = values.with_context(|| format!("rows that are not JSON: {text}"))?;
    match values.as_slice() {
        [Value::Array(rows)] => Ok(rows.clone()),
        _ => Ok(values),
    }
}

/// Settings in the developer's own environment must not reach the sidecar.
fn settings_variables() -> impl Iterator<Item = OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("POSTERN__"))
}

/// A running sidecar. Dropping it kills it, after it was seen that each of its decisions is accounted for.
pub struct Sidecar {
    launch: Launch,
    started: (Instant, SystemTime),
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    /// Whether that is looked at.
    is_audited: AtomicBool,
}

impl Sidecar {
    /// How it was started.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// When it was started.
    pub(crate) fn started_at(&self) -> SystemTime {
        self.started.1
    }

    /// Its decisions are not looked at when it is dropped, because a test has taken away what tells of them.
    pub fn leave_unaudited(&self) {
        self.is_audited.store(false, Ordering::Relaxed);
    }

    /// Whether each of its decisions is accounted for, while it can be asked.
    fn audit(&mut self) -> Result<()> {
        if thread::panicking() || !self.is_audited.load(Ordering::Relaxed) || self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let lines = self.lines();
        match lines.iter().find(|line| line.message() == STATUS_SERVER) {
            Some(line) => self.is_even(line.address()?),
            None => Ok(()),
        }
    }

    /// Waits until `/readyz` answers 200, and tells how long it took from the start of the process.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub fn wait_ready(&self) -> Result<Duration> {
        let line = self.wait_for("the message \"ready\"", |line| line.message() == "ready")?;
        Ok(line.at - self.started.0)
    }

    /// The real address of a listener.
    ///
    /// # Errors
    /// When the sidecar does not announce one in time.
    pub fn listener(&self, name: &str) -> Result<SocketAddr> {
        let wanted = |line: &LogLine| line.message() == "listening" && line.text("listener") == Some(name);
        self.wait_for(&format!("the address of listener {name}"), wanted)?.address()
    }

    /// The real address of the status server.
    ///
    /// # Errors
    /// When the sidecar does not announce one in time.
    pub fn status_address(&self) -> Result<SocketAddr> {
        let wanted = |line: &LogLine| line.message() == STATUS_SERVER;
        self.wait_for("the address of the status server", wanted)?.address()
    }

    /// Waits for a line of its log, those already written included.
    ///
    /// # Errors
    /// When the sidecar ends, or the time is up, before such a line; the error shows the last lines there were.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&LogLine) -> bool) -> Result<LogLine> {
        self.log.wait(what, 0, wanted)
    }

    /// Waits for a line of its log that comes after the first `seen` ones, for what happens more than once.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub fn wait_for_after(&self, seen: usize, what: &str, wanted: impl Fn(&LogLine) -> bool) -> Result<LogLine> {
        self.log.wait(what, seen, wanted)
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<LogLine> {
        self.log.lock().lines.clone()
    }

    /// Asks it to drain and end (SIGTERM).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn terminate(&self) -> Result<()> {
        // It may be gone at any time from now on.
        self.leave_unaudited();
        self.signal("TERM")
    }

    /// Holds it (SIGSTOP): its sockets are there, and nothing answers.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        // std sends no signal but SIGKILL; every shell has a `kill` of its own.
        let id = self.child.id().to_string();
        let finished = run(Command::new("sh").args(["-c", "kill -\"$1\" \"$0\"", &id, name]), b"", PATIENCE)?;
        ensure!(finished.code == Some(0), "send SIG{name} to the sidecar: {}", finished.stderr);
        Ok(())
    }

    /// Ends it at once (SIGKILL), as the kernel would when memory runs out.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub fn wait_exit(&mut self) -> Result<ExitStatus> {
        ensure!(self.log.wait_end(), "the sidecar did not end within {} s", PATIENCE.as_secs());
        Ok(self.child.wait()?)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let audited = self.audit();
        // It may have ended already, which is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        assert!(audited.is_ok(), "{:?}", audited.err());
    }
}

/// One line of the sidecar's log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// When it arrived.
    pub at: Instant,
    /// Its fields; a line that is no JSON object is one field, `message`.
    pub fields: Map<String, Value>,
}

impl LogLine {
    /// A field's text.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str()
    }

    /// What it says.
    #[must_use]
    pub fn message(&self) -> &str {
        self.text("message").unwrap_or_default()
    }

    fn address(&self) -> Result<SocketAddr> {
        let text = self.text("address").with_context(|| format!("no address in {:?}", self.fields))?;
        text.parse().with_context(|| format!("address {text}"))
    }

    fn parse(text: &str) -> Self {
        let fields =
            serde_json::from_str(text).unwrap_or_else(|_| Map::from_iter([("message".to_owned(), Value::from(text))]));
        Self { at: Instant::now(), fields }
    }
}

#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<LogLine>,
    ended: bool,
}

impl Log {
    fn follow(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            self.lock().lines.push(LogLine::parse(&line));
            self.changed.notify_all();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn wait(&self, what: &str, seen: usize, wanted: impl Fn(&LogLine) -> bool) -> Result<LogLine> {
        let find = |state: &LogState| state.lines.iter().skip(seen).find(|line| wanted(line)).cloned();
        let state = self.wait_while(|state| !state.ended && find(state).is_none());
        if let Some(line) = find(&state) {
            return Ok(line);
        }
        let ended = if state.ended { "the sidecar ended" } else { "the time was up" };
        let first = state.lines.len().saturating_sub(SHOWN_LINES);
        let shown: Vec<_> =
            state.lines[first..].iter().map(|line| Value::from(line.fields.clone()).to_string()).collect();
        bail!("{ended} before {what}; its last lines:\n{}", shown.join("\n"))
    }

    /// Whether the sidecar's output came to its end in time, which is when it ended.
    fn wait_end(&self) -> bool {
        self.wait_while(|state| !state.ended).ended
    }

    fn wait_while(&self, condition: impl Fn(&LogState) -> bool) -> MutexGuard<'_, LogState> {
        let waited = self.changed.wait_timeout_while(self.lock(), PATIENCE, |state| condition(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The state is a plain list: a panic elsewhere leaves it as good as it was.
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
