//! Several operators: one leads, the others are ready to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use postern_tests::apiserver::{ApiServer, Namespace};
use postern_tests::clients::{Answer, Curl, run};
use postern_tests::process::built;
use postern_tests::rights::Account;
use postern_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An operator that is signalled. It ends when it is dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    _folder: TempDir,
}

impl Process {
    pub(crate) fn start(kubeconfig: &Path, arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new(built("postern-operator").unwrap());
        command.arg("run").arg(format!("--kubeconfig={}", kubeconfig.display())).args(arguments);
        command.arg("--status-address=127.0.0.1:0").stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        Self { child, log, _folder: folder }
    }

    /// One of several for a namespace, with a Lease that lasts for a short while.
    fn one_of(own: &Namespace<'_>, served: &Namespace<'_>, user: &str) -> Self {
        let account = Account::make(own, &[served]).unwrap();
        let kubeconfig = account.as_one_of(own.server, user).unwrap();
        let arguments = [
            format!("--operator-namespace={}", own.name),
            format!("--namespaces={}", served.name),
            "--lease-duration=6s".to_owned(),
            "--lease-renew-deadline=4s".to_owned(),
            "--lease-retry-period=300ms".to_owned(),
        ];
        Self::start(&kubeconfig, &arguments)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The value of a field of the first line with a message, once there is one.
    pub(crate) fn told(&self, message: &str, field: &str) -> String {
        let line = || {
            let log = self.log();
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let found = lines.find(|line| line["message"] == message);
            Ok(found.map(|line| line[field].as_str().unwrap_or_default().to_owned()))
        };
        eventually(message, PATIENCE, line).unwrap_or_else(|error| panic!("{error:#}: {}", self.log()))
    }

    pub(crate) fn wait_log(&self, text: &str) {
        let waited = eventually(text, PATIENCE, || Ok(self.log().contains(text).then_some(())));
        waited.unwrap_or_else(|error| panic!("{error:#}: {}", self.log()));
    }

    pub(crate) fn page(&self, path: &str) -> Answer {
        let address = self.told("answering probes", "address");
        Curl::new(format!("http://{address}{path}")).within(PATIENCE).call().unwrap()
    }

    pub(crate) fn leads(&self) -> bool {
        self.page("/metrics").text().lines().any(|line| line == "postern_operator_leader 1")
    }

    /// How many of its threads have this name.
    pub(crate) fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
        names.filter(|found| found.trim() == name).count()
    }

    /// Waits until a turn has ended.
    pub(crate) fn wait_turns(&self) {
        let is_turn = |line: &str| line.starts_with("postern_operator_turns_total{kind=\"authority\"");
        let ended = || Ok(self.page("/metrics").text().lines().any(is_turn).then_some(()));
        eventually("a turn", PATIENCE, ended).unwrap_or_else(|error| panic!("{error:#}: {}", self.log()));
    }

    pub(crate) fn wait_leads(&self) {
        let waited = eventually("it to lead", PATIENCE, || Ok(self.leads().then_some(())));
        waited.unwrap_or_else(|error| panic!("{error:#}: {}", self.log()));
    }

    fn wait_ready(&self) {
        let ready = || Ok((self.page("/readyz").status == Some(200)).then_some(()));
        eventually("it to be ready", PATIENCE, ready).unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let mut command = Command::new("sh");
        let told = run(command.args(["-c", "kill -$0 $1", signal, &self.child.id().to_string()]), b"", PATIENCE);
        assert_eq!(told.unwrap().code, Some(0));
    }

    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        eventually("its end", PATIENCE, || Ok(self.child.try_wait()?)).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A client that is issued a certificate, in the served namespace: it is made by whoever leads.
fn client(served: &Namespace<'_>, name: &str) {
    let spec = json!({"issue": {"secretName": format!("{name}-client")}});
    let kind = json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ClientIdentity"});
    let mut object = kind;
    object["metadata"] = json!({"name": name});
    object["spec"] = spec;
    served.apply(&object).unwrap();
    let issued = || Ok(served.object(&format!("secret/{name}-client"))?.map(drop));
    eventually("the client's Secret", PATIENCE, issued).unwrap();
    let ready = || {
        let object = served.object(&format!("clientidentity/{name}"))?.unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True").then_some(()))
    };
    eventually("the client to be ready", PATIENCE, ready).unwrap();
}

/// What somebody has written into either namespace, but for the Lease.
fn writes(own: &Namespace<'_>, served: &Namespace<'_>, user: &str) -> Vec<String> {
    let all = [own, served].map(|namespace| namespace.server.writes(user, &namespace.name).unwrap());
    all.into_iter().flatten().filter(|write| !write.contains(" leases")).collect()
}

struct Two {
    own: Namespace<'static>,
    served: Namespace<'static>,
    first: Process,
    second: Process,
    users: [String; 2],
}

/// Two operators, of which the first leads and has made a client's certificate.
fn two() -> Two {
    let server = ApiServer::shared().unwrap();
    let (own, served) = (server.namespace("postern").unwrap(), server.namespace("led").unwrap());
    let users = ["first", "second"].map(|which| format!("{which}-of-{}", served.name));
    let first = Process::one_of(&own, &served, &users[0]);
    first.wait_leads();
    let second = Process::one_of(&own, &served, &users[1]);
    second.wait_ready();
    client(&served, "billing");
    let two = Two { own, served, first, second, users };
    assert!(!two.second.leads());
    assert_eq!(writes(&two.own, &two.served, &two.users[1]), [""; 0]);
    two
}

#[test]
fn who_is_told_to_end_hands_over_at_once_and_nothing_is_written_again() {
    let mut two = two();
    let before = writes(&two.own, &two.served, &two.users[0]);
    assert!(!before.is_empty());
    two.first.signal("TERM");
    assert_eq!(two.first.wait_end().code(), Some(0), "{}", two.first.log());
    let lease = two.own.object("lease/postern-operator").unwrap().unwrap();
    let (holder, seconds) = (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseDurationSeconds"]);
    assert!(holder == "" && seconds == 1 || seconds == 6, "free, or the other's already: {lease}");
    two.second.wait_leads();
    client(&two.served, "late");
    let its = ["create secrets", "create events"];
    let is_of_late =
        |write: &&String| write.contains("late") || write.contains("ledger") || its.contains(&write.as_str());
    let written = writes(&two.own, &two.served, &two.users[1]);
    let others: Vec<_> = written.iter().filter(|write| !is_of_late(write)).collect();
    assert_eq!(others, [""; 0], "all of it: {written:?}");
    let lease = two.own.object("lease/postern-operator").unwrap().unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 1, "the first has made it: {lease}");
}

#[test]
fn who_is_gone_without_a_word_is_followed_when_the_lease_is_over() {
    let mut two = two();
    two.first.signal("KILL");
    two.first.wait_end();
    two.second.wait_leads();
    client(&two.served, "late");
}

/// A process that was stopped for longer than the Lease lasts believes that it leads when it goes on.
#[test]
fn who_was_stopped_for_too_long_writes_nothing_and_ends() {
    let mut two = two();
    two.first.signal("STOP");
    two.second.wait_leads();
    // Something to do for whoever believes that it leads.
    client(&two.served, "late");
    let before = writes(&two.own, &two.served, &two.users[0]);
    two.first.signal("CONT");
    assert_eq!(two.first.wait_end().code(), Some(1), "{}", two.first.log());
    assert!(two.first.log().contains("not leading any more: the Lease was not renewed"), "{}", two.first.log());
    assert_eq!(writes(&two.own, &two.served, &two.users[0]), before);
    assert!(two.second.leads());
}

/// An API server that does not answer is as good as another that leads.
#[test]
fn who_cannot_renew_ends_before_another_may_lead() {
    let server = ApiServer::start().unwrap();
    let (own, served) = (server.namespace("postern").unwrap(), server.namespace("led").unwrap());
    let mut operator = Process::one_of(&own, &served, &format!("alone-of-{}", served.name));
    operator.told("taking turns", "trust_domain");
    let begun = std::time::Instant::now();
    drop((own, served));
    drop(server);
    assert_eq!(operator.wait_end().code(), Some(1));
    // It does not end at the first refusal either; 4 s is its deadline, counted from before.
    assert!(begun.elapsed() > Duration::from_secs(1), "{}", operator.log());
    assert!(operator.log().contains("the Lease was not renewed"), "{}", operator.log());
}
