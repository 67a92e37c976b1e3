//! The real operator as a child process, for the namespaces of one test.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::apiserver::Namespace;
use crate::audit::Audit;
use crate::clients::{Answer, Curl};
use crate::process::built;
use crate::rights::Account;
use crate::together::{Program, Together};
use crate::wait::{PATIENCE, eventually};

/// Name of the binary.
const OPERATOR: &str = "postern-operator";

/// A running operator. Dropping it ends it at once, as a node that fails would.
pub struct Operator {
    /// `None` once it was ended.
    programs: Option<Together>,
    account: Account,
    audit: Audit,
    is_never_refused: bool,
}

impl Operator {
    /// Starts one that serves a namespace and keeps what is its own in another, with the rights that are shipped and no
    /// others, without waiting for anything.
    ///
    /// # Errors
    /// When it is not built or cannot be started.
    pub fn start(own: &Namespace<'_>, served: &Namespace<'_>) -> Result<Self> {
        Self::start_with(own, served, &[])
    }

    /// The same with further flags.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(own: &Namespace<'_>, served: &Namespace<'_>, flags: &[&str]) -> Result<Self> {
        Self::start_for(own, &[served], flags)
    }

    /// The same for several namespaces.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_for(own: &Namespace<'_>, served: &[&Namespace<'_>], flags: &[&str]) -> Result<Self> {
        let names: Vec<_> = served.iter().map(|namespace| namespace.name.as_str()).collect();
        Self::begin(own, Account::make(own, served)?, &names.join(","), flags)
    }

    /// One that serves what is enabled, which none of these namespaces is yet.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_enabled(own: &Namespace<'_>, later: &[&Namespace<'_>]) -> Result<Self> {
        Self::begin(own, Account::make_for(own, &[], later)?, "enabled", &[])
    }

    fn begin(own: &Namespace<'_>, account: Account, namespaces: &str, flags: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-operator-").tempdir()?;
        let arguments = [
            "run".to_owned(),
            format!("--kubeconfig={}", account.kubeconfig.display()),
            format!("--operator-namespace={}", own.name),
            format!("--namespaces={namespaces}"),
            "--status-address=127.0.0.1:0".to_owned(),
        ];
        let program = Program { name: OPERATOR.to_owned(), path: built(OPERATOR)?, arguments: arguments.into() };
        let program = flags.iter().fold(program, |mut program, flag| {
            program.arguments.push((*flag).to_owned());
            program
        });
        let mut program = program;
        if !flags.iter().any(|flag| flag.starts_with("--leader-election")) {
            // Tests end it without a word, and would wait for the Lease of the one before.
            program.arguments.push("--leader-election=Off".to_owned());
        }
        // The programs remove it when they end.
        let programs = Some(Together::start(&folder.keep(), &[program])?);
        Ok(Self { programs, account, audit: own.server.audit(), is_never_refused: true })
    }

    /// Who it is to the API server, from start to start.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.account.user
    }

    /// What it says to be.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.account.kubeconfig
    }

    /// Says that it may be refused what it asks for: an API server that has just started knows of nobody's rights yet.
    pub fn may_be_refused(&mut self) {
        self.is_never_refused = false;
    }

    /// Ends it at once.
    pub fn end(&mut self) {
        self.programs = None;
    }

    /// Everything that it has said.
    #[must_use]
    pub fn output(&self) -> String {
        self.programs.as_ref().map(|programs| programs.output(OPERATOR)).unwrap_or_default()
    }

    /// What it has logged: a value for each line that is JSON.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        self.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Where its probes and metrics are.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn status_address(&self) -> Result<String> {
        self.wait_for("its status address", || {
            let log = self.log();
            let line = log.iter().find(|line| line["message"] == "answering probes");
            Ok(line.and_then(|line| Some(line["address"].as_str()?.to_owned())))
        })
    }

    /// A page of it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn page(&self, path: &str) -> Result<Answer> {
        Curl::new(format!("http://{}{path}", self.status_address()?)).within(PATIENCE).call()
    }

    /// The last that it said, for a test that fails.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.programs.as_ref().map(|programs| programs.last_words(OPERATOR)).unwrap_or_default()
    }

    /// Waits for a condition; what the operator said last is in the error.
    ///
    /// # Errors
    /// When it ends, or the condition does not hold in time.
    pub fn wait_for<T>(&self, what: &str, probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        self.wait_within(PATIENCE, what, probe)
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub fn wait_within<T>(
        &self,
        limit: Duration,
        what: &str,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let waited = eventually(what, limit, || {
            ensure!(!self.programs.as_ref().is_none_or(Together::have_ended), "the operator ended");
            probe()
        });
        waited.or_else(|error| bail!("{error:#}; the operator said last:\n{}", self.last_words()))
    }
}

/// Whatever a test is about: an operator that was refused something lacks a right, or tries what it must not.
impl Drop for Operator {
    fn drop(&mut self) {
        self.programs = None;
        if self.is_never_refused && !thread::panicking() {
            let refused = self.audit.refusals(&self.account.user);
            assert!(refused.as_ref().is_ok_and(Vec::is_empty), "{} was refused: {refused:#?}", self.account.user);
        }
    }
}
