//! Real clients: curl and openssl s_client as child processes, bounded in time, with what they said taken apart.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::PATIENCE;

/// What a program left behind when it ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// Its stdout as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a program to its end, feeding it `input`.
///
/// # Errors
/// When it cannot be started, or has not ended within `limit`; it is killed then.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Finished> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {program}; is it installed?"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // A program that ends without reading its input closes the pipe: no error of ours.
        thread::spawn(move || stdin.write_all(&input));
    }
    let stdout = child.stdout.take().map(read_to_end);
    let stderr = child.stderr.take().map(read_to_end);
    let outputs = (receive(stdout, limit), receive(stderr, limit));
    let (Some(stdout), Some(stderr)) = outputs else {
        child.kill().context("kill a program that takes too long")?;
        child.wait()?;
        bail!("{program} did not end within {} ms", limit.as_millis());
    };
    let code = child.wait()?.code();
    Ok(Finished { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

fn read_to_end(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still what the program said.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

fn receive(pipe: Option<mpsc::Receiver<Vec<u8>>>, limit: Duration) -> Option<Vec<u8>> {
    pipe?.recv_timeout(limit).ok()
}

/// Heads and errors are shown, progress is not.
const SHOW_ALL: &str = "-sSi";

/// A call with curl.
#[derive(Clone, Debug)]
pub struct Curl {
    arguments: Vec<String>,
    url: String,
    folder: Option<PathBuf>,
    own_process_group: bool,
    limit: Duration,
}

impl Curl {
    /// A GET of this address.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { arguments: Vec::new(), url: url.into(), folder: None, own_process_group: false, limit: PATIENCE }
    }

    /// One more argument, as on the command line.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// How long it may take, if that is another time than usual.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The authority that the server's certificate must come from.
    #[must_use]
    pub fn authority(self, file: impl Into<String>) -> Self {
        self.arg("--cacert").arg(file)
    }

    /// Presents `<stem>.pem` with `<stem>.key`.
    #[must_use]
    pub fn certificate(self, stem: &str) -> Self {
        self.arg("--cert").arg(format!("{stem}.pem")).arg("--key").arg(format!("{stem}.key"))
    }

    /// The folder that files are relative to.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Keeps a terminal's Ctrl-C from reaching curl: whoever started it decides.
    #[must_use]
    pub fn own_process_group(mut self) -> Self {
        self.own_process_group = true;
        self
    }

    /// The call as one would type it, in the folder.
    #[must_use]
    pub fn command_line(&self) -> String {
        let words = self.arguments.iter().chain([&self.url]);
        words.fold(format!("curl {SHOW_ALL}"), |line, word| format!("{line} {}", shell_word(word)))
    }

    /// Calls.
    ///
    /// # Errors
    /// When curl cannot be started or does not end in time, or its output is not an HTTP answer. A call that fails is an
    /// [`Answer`] without a status.
    pub fn call(&self) -> Result<Answer> {
        let mut command = Command::new("curl");
        // Without a configuration file or a proxy: the call depends on nothing but what the command line shows.
        command.args(["--disable", "--noproxy", "*", SHOW_ALL]);
        command.args(&self.arguments).arg(&self.url);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if self.own_process_group {
            command.process_group(0);
        }
        Answer::parse(run(&mut command, b"", self.limit)?)
    }
}

/// What curl got.
#[derive(Clone, Debug)]
pub struct Answer {
    /// curl's exit code; 0 whenever there was a complete answer.
    pub exit_code: Option<i32>,
    /// HTTP version as curl prints it: `HTTP/1.1`, `HTTP/2`.
    pub version: Option<String>,
    /// HTTP status; none where there was no answer.
    pub status: Option<u16>,
    /// Header lines in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// All that curl printed: heads and body.
    pub output: Vec<u8>,
    /// What curl complained about.
    pub stderr: String,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is something else.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("an answer that is not JSON: {self:?}"))
    }

    /// The first header of this name, written in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn parse(finished: Finished) -> Result<Self> {
        let mut answer = Self {
            exit_code: finished.code,
            version: None,
            status: None,
            headers: Vec::new(),
            body: finished.stdout.clone(),
            output: finished.stdout,
            stderr: finished.stderr.trim_end().to_owned(),
        };
        // Informational answers (100, 103) come before the one that counts.
        while answer.status.is_none_or(|status| status < 200) && answer.body.starts_with(b"HTTP/") {
            answer.take_head()?;
        }
        Ok(answer)
    }

    fn take_head(&mut self) -> Result<()> {
        const END: &[u8] = b"\r\n\r\n";
        let length = self.body.windows(END.len()).position(|window| window == END).context("an answer's head")?;
        let body = self.body.split_off(length + END.len());
        let head = String::from_utf8_lossy(&self.body).into_owned();
        let mut lines = head.trim_end().lines();
        let mut first = lines.next().unwrap_or_default().split(' ');
        self.version = first.next().map(str::to_owned);
        self.status = Some(first.next().unwrap_or_default().parse().with_context(|| format!("no status in: {head}"))?);
        self.headers = lines.filter_map(header_line).collect();
        self.body = body;
        Ok(())
    }
}

fn header_line(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}

/// Quotes a word where a shell would take it apart.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A connection with `openssl s_client`.
#[derive(Clone, Debug)]
pub struct OpensslClient {
    server_name: Option<String>,
    arguments: Vec<String>,
    folder: Option<PathBuf>,
}

impl OpensslClient {
    /// Connects to this address and asks for `localhost`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let arguments = ["s_client", "-connect", &address.to_string()].map(str::to_owned).to_vec();
        Self { server_name: Some("localhost".to_owned()), arguments, folder: None }
    }

    /// Asks for another name, or for none.
    #[must_use]
    pub fn asking_for(mut self, name: Option<&str>) -> Self {
        self.server_name = name.map(str::to_owned);
        self
    }

    /// One more argument, as on the command line.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = &'static str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// The authority that the server's certificate must come from.
    #[must_use]
    pub fn authority(self, file: impl Into<String>) -> Self {
        self.arg("-CAfile").arg(file).arg("-verify_return_error")
    }

    /// Presents `<stem>.pem`, with all it holds, and `<stem>.key`.
    #[must_use]
    pub fn certificate(self, stem: &str) -> Self {
        let chain = format!("{stem}.pem");
        self.arg("-cert").arg(&chain).arg("-cert_chain").arg(&chain).arg("-key").arg(format!("{stem}.key"))
    }

    /// The folder that files are relative to.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Shakes hands, sends `request`, and reads until the server closes. In TLS 1.3 a refusal only comes to light on
    /// the first read, so a request that ends the connection (`Connection: close`) belongs to every use.
    ///
    /// # Errors
    /// When openssl cannot be started, or the connection does not end in time.
    pub fn talk(&self, request: &str) -> Result<Handshake> {
        let mut command = Command::new("openssl");
        command.args(&self.arguments).arg("-ign_eof");
        match &self.server_name {
            Some(name) => command.args(["-servername", name]),
            None => command.arg("-noservername"),
        };
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let finished = run(&mut command, request.as_bytes(), PATIENCE)?;
        Ok(Handshake { exit_code: finished.code, output: finished.text(), stderr: finished.stderr })
    }
}

/// What openssl saw.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// openssl's exit code.
    pub exit_code: Option<i32>,
    /// Its report, and what the server sent.
    pub output: String,
    /// Its errors.
    pub stderr: String,
}

impl Handshake {
    /// Number of the fatal alert the server sent (RFC 8446 §6), if it sent one.
    #[must_use]
    pub fn alert(&self) -> Option<u8> {
        let (_, rest) = self.stderr.split_once("SSL alert number ")?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }

    /// Subject of the certificate that the server presented, if it came so far: `CN = gate`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.output.lines().find_map(|line| line.strip_prefix("subject="))
    }

    /// HTTP status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        let (_, rest) = self.output.split_once("HTTP/1.1 ")?;
        rest.split_whitespace().next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{Answer, Curl, Finished, run, shell_word};
    use crate::upstream::Upstream;

    fn parse(output: &str) -> Answer {
        let finished = Finished { code: Some(0), stdout: output.as_bytes().to_vec(), stderr: String::new() };
        Answer::parse(finished).unwrap()
    }

    #[test]
    fn the_last_head_counts() {
        let answer =
            parse("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nPostern-Reason: x\r\n\r\nHTTP/ body");
        assert_eq!(answer.status, Some(403));
        assert_eq!(answer.header("postern-reason"), Some("x"));
        assert_eq!(answer.text(), "HTTP/ body");
    }

    #[test]
    fn no_answer_has_no_status() {
        assert_eq!(parse("").status, None);
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        let table =
            [("ca.pem", "ca.pem"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("x?n=1&m", "'x?n=1&m'")];
        for (word, quoted) in table {
            assert_eq!(shell_word(word), quoted);
        }
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let error = run(Command::new("sleep").arg("600"), b"", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "sleep did not end within 50 ms");
    }

    #[test]
    fn the_upstream_does_what_its_paths_say() {
        let upstream = Upstream::start().unwrap();
        let call = |path: &str| Curl::new(format!("http://{}{path}", upstream.address())).call().unwrap();
        assert_eq!(call("/orders?n=1").json().unwrap()["query"], "n=1");
        assert_eq!(call("/status?code=503").status, Some(503));
        assert_eq!(call("/bytes?n=100000").body.len(), 100_000);
        assert_eq!(call("/close").exit_code, Some(52), "curl's code for an empty reply");
        assert_eq!((upstream.connections(), upstream.requests()), (4, 4));
    }
}
