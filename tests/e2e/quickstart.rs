//! `docs/quickstart.md` is followed to the letter: each of its commands is run, and what it answers is what the page says.
//!
//! A fence `sh` is what a reader types, all in one shell; `text` after it is the answer. What makes or removes a cluster or
//! images is fenced as `sh cluster` and left out, because there is a cluster; its images take the place of public ones.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::{PATIENCE, in_checkout, program};
use crate::scene::{IMAGE, Scene};

/// Ends what a block has said.
const END: &str = "=== end of a block:";
/// The namespace of the page.
const NAMESPACE: &str = "shop";
/// Columns that are different each time.
const CHANGING: [&str; 4] = ["AGE", "EXPIRES", "time", "duration_us"];
/// Between two looks at what is on its way.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// What is typed, and what is answered where the page says so.
struct Block {
    commands: String,
    answer: Option<String>,
}

impl Block {
    /// What only looks may look again until it is so.
    fn only_looks(&self) -> bool {
        [" get ", " postern-sidecar log"].iter().any(|word| self.commands.contains(word))
    }
}

#[test]
fn the_quickstart_does_what_it_says() {
    let scene = Scene::new("quickstart");
    let page = fs::read_to_string(in_checkout("docs/quickstart.md")).unwrap();
    let page = page.replace(NAMESPACE, &scene.namespace);
    let blocks = blocks(&with_image(&page));
    assert!(blocks.iter().filter(|block| block.answer.is_some()).count() >= 6, "the page has lost its answers");
    let mut shell = Shell::start().unwrap();
    let mut wrong = String::new();
    for block in &blocks {
        if let Err(error) = follow(&mut shell, block) {
            let _ = writeln!(wrong, "{}{error:#}\n", block.commands);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Runs a block and compares.
fn follow(shell: &mut Shell, block: &Block) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (said, code) = shell.run(&block.commands)?;
        let is_right = block.answer.as_ref().map_or(code == 0, |answer| agrees(answer, &said));
        if is_right {
            return Ok(());
        }
        if !block.only_looks() || Instant::now() >= deadline {
            bail!("exit code {code}\n{said}instead of\n{}", block.answer.as_deref().unwrap_or("exit code 0\n"));
        }
        thread::sleep(PROBE_INTERVAL);
    }
}

/// The page's blocks in their order. An answer belongs to the block right before it.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut fences = page.split("\n```").skip(1);
    while let (Some(fence), Some(_between)) = (fences.next(), fences.next()) {
        let (kind, text) = fence.split_once('\n').unwrap();
        let text = format!("{text}\n");
        match kind {
            "sh" => blocks.push(Block { commands: text, answer: None }),
            "text" => blocks.last_mut().unwrap().answer = Some(text),
            _ => {}
        }
    }
    blocks
}

/// Public images are those that the cluster has.
fn with_image(page: &str) -> String {
    let line = |line: &str| match line.split_once("image: ") {
        Some((before, _)) => format!("{before}image: {IMAGE}\n"),
        None => format!("{line}\n"),
    };
    page.lines().map(line).collect()
}

/// Whether each line is said, word by word, but for changing columns, and for `…`, which is anything.
fn agrees(answer: &str, said: &str) -> bool {
    let header: Vec<_> = answer.lines().next().unwrap_or_default().split_whitespace().collect();
    let is_changing = |column: usize| header.get(column).is_some_and(|name| CHANGING.contains(name));
    let same_line = |expected: &str, said: &str| {
        if let Some((before, after)) = expected.split_once('…') {
            let rest = said.strip_prefix(before);
            return rest.is_some_and(|rest| rest.contains(after.trim_end_matches('…')));
        }
        let (expected, said): (Vec<_>, Vec<_>) =
            (expected.split_whitespace().collect(), said.split_whitespace().collect());
        // A table cuts what is long, and our namespace is longer than the page's.
        let same_cell = |expected: &str, said: &str| match said.strip_suffix('…') {
            Some(beginning) => expected.starts_with(beginning),
            None => expected == said,
        };
        let mut cells = expected.iter().zip(&said).enumerate();
        expected.len() == said.len()
            && cells.all(|(column, (expected, said))| same_cell(expected, said) || is_changing(column))
    };
    // What curl says of a try before the one that counts: a Service takes a moment to send to a pod that is ready.
    let said: Vec<_> = said.lines().filter(|line| !line.starts_with("curl: (7) ")).collect();
    answer.lines().count() == said.len() && answer.lines().zip(said).all(|(expected, said)| same_line(expected, said))
}

/// One bash for the whole page: a function of one block is there in the next.
struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    fn start() -> Result<Self> {
        let tools = ["kubectl", "helm"].map(program).into_iter().collect::<Result<Vec<_>>>()?;
        let folders = tools.iter().filter_map(|tool| tool.parent().map(ToOwned::to_owned));
        let before = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(folders.chain(env::split_paths(&before)))?;
        let mut bash = Command::new("bash");
        bash.current_dir(in_checkout("")).env("PATH", path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = bash.process_group(0).spawn().context("start bash")?;
        let mut input = child.stdin.take().context("its stdin")?;
        let output = BufReader::new(child.stdout.take().context("its stdout")?);
        // A command that fails inside a block fails the block.
        input.write_all(b"exec 2>&1\ntrap 'failed=$?' ERR\n")?;
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, input, lines })
    }

    /// What a block says, and the exit code of the last command of it that failed.
    fn run(&mut self, commands: &str) -> Result<(String, i32)> {
        // Its stdin is the shell's, and what is typed next is not for it.
        write!(self.input, "failed=0\n{{\n{commands}\n}} </dev/null\necho; echo \"{END} $failed\"\n")?;
        self.input.flush()?;
        let deadline = Instant::now() + PATIENCE + PATIENCE;
        let mut said = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).with_context(|| format!("no end of it: {said}"))?;
            if let Some(code) = line.strip_prefix(END) {
                // The line feed before the end is ours.
                said.pop();
                return Ok((said, code.trim().parse()?));
            }
            let _ = writeln!(said, "{line}");
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
