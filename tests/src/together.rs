//! Programs that run together for as long as this process does, and leave nothing behind, however it ends.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

/// Lines of a program's output that an error shows.
const SHOWN_LINES: usize = 12;

/// One of the programs.
#[derive(Clone, Debug)]
pub struct Program {
    /// What its output's file is called.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Its arguments; none of them is `--`.
    pub arguments: Vec<String>,
}

/// Running programs with their folder, which goes when they do. Dropping this ends them; so does the end of this process,
/// because they run until a pipe of it is closed. That reaches further than a destructor: values in statics are never
/// dropped, and nothing is when a process is killed.
pub struct Together {
    /// `None` once they were told to end.
    held: Option<ChildStdin>,
    child: Child,
    folder: PathBuf,
}

impl Together {
    /// Starts them, without waiting for anything.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn start(folder: &Path, programs: &[Program]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/together");
        let mut command = Command::new(&script);
        command.arg(folder).args(words(programs));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("start {}", script.display()))?;
        let held = child.stdin.take();
        Ok(Self { held, child, folder: folder.to_owned() })
    }

    /// Whether one of them has ended, and all with it.
    #[must_use]
    pub fn have_ended(&self) -> bool {
        self.folder.join("ended").exists()
    }

    /// Everything that a program has said.
    #[must_use]
    pub fn output(&self, program: &str) -> String {
        fs::read_to_string(self.folder.join(format!("{program}.log"))).unwrap_or_default()
    }

    /// The last that a program said.
    #[must_use]
    pub fn last_words(&self, program: &str) -> String {
        let text = self.output(program);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        self.held = None;
        // It may have ended already, which is no error here.
        let _ = self.child.wait();
    }
}

/// The programs as one command line.
fn words(programs: &[Program]) -> Vec<OsString> {
    let each = programs.iter().map(|program| {
        let name: OsString = program.name.clone().into();
        let arguments = program.arguments.iter().map(OsString::from);
        [name, program.path.clone().into()].into_iter().chain(arguments).collect::<Vec<_>>()
    });
    let each: Vec<_> = each.collect();
    each.join(&OsString::from("--"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;

    use super::{Program, Together};
    use crate::wait::{PATIENCE, eventually};

    /// A program that tells its process id and stays, or ends.
    fn telling(name: &str, then: &str) -> Program {
        let arguments = ["-c".to_owned(), format!("echo $$; {then}")];
        Program { name: name.to_owned(), path: PathBuf::from("/bin/sh"), arguments: arguments.into() }
    }

    fn process_of(together: &Together, name: &str) -> PathBuf {
        let told = || Ok(together.last_words(name).trim().parse::<u32>().ok());
        PathBuf::from(format!("/proc/{}", eventually("its process id", PATIENCE, told).unwrap()))
    }

    #[test]
    fn they_end_together_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap().keep();
        let together = Together::start(&folder, &[telling("a", "exec sleep 600"), telling("b", "exec sleep 600")]);
        let together = together.unwrap();
        let processes = [process_of(&together, "a"), process_of(&together, "b")];
        assert!(processes.iter().all(|process| process.exists()) && !together.have_ended());
        drop(together);
        assert!(!processes.iter().any(|process| process.exists()) && !folder.exists());
    }

    #[test]
    fn when_one_ends_all_do() {
        let folder = tempfile::tempdir().unwrap().keep();
        // The second waits for the other end of a pipe, so that the test has seen both.
        let pipe = folder.join("go");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let waiting = telling("b", &format!("read -r line < '{}'; exit 3", pipe.display()));
        let together = Together::start(&folder, &[telling("a", "exec sleep 600"), waiting]).unwrap();
        let process = process_of(&together, "a");
        fs::write(&pipe, "go\n").unwrap();
        eventually("the end", PATIENCE, || Ok(together.have_ended().then_some(()))).unwrap();
        assert!(!process.exists() && folder.exists(), "what they said last can still be read");
        drop(together);
        assert!(!folder.exists());
    }
}
