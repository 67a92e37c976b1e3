//! The operator's command line.

use std::process::{Command, Stdio};

use postern_tests::apiserver::ApiServer;
use postern_tests::clients::run;
use postern_tests::process::built;
use postern_tests::rights::Account;
use postern_tests::wait::{PATIENCE, eventually};

#[test]
fn wrong_settings_are_told_all_at_once_and_nothing_is_started() {
    let mut command = Command::new(built("postern-operator").unwrap());
    command.args(["run", "--status-port=0"]).env("POSTERN_OPERATOR_TRUST_DOMAIN", "A B");
    let finished = run(&mut command, b"", PATIENCE).unwrap();
    assert_eq!(finished.code, Some(1));
    let told: Vec<_> = finished.stderr.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(told, ["POSTERN_OPERATOR_TRUST_DOMAIN", "--status-port"]);
}

#[test]
fn it_ends_when_it_is_told_to() {
    let server = ApiServer::shared().unwrap();
    let own = server.namespace("postern").unwrap();
    let kubeconfig = Account::make(&own, &[&own]).unwrap().kubeconfig;
    let mut command = Command::new(built("postern-operator").unwrap());
    command.arg("run").arg(format!("--kubeconfig={}", kubeconfig.display()));
    command.args([format!("--operator-namespace={0}", own.name), format!("--namespaces={0}", own.name)]);
    let mut operator = command.stderr(Stdio::null()).spawn().unwrap();
    let made = || Ok(own.object("secret/postern-intermediate")?.map(drop));
    let waited = eventually("the authorities", PATIENCE, made);
    let id = operator.id().to_string();
    run(Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id]), b"", PATIENCE).unwrap();
    let ended = eventually("its end", PATIENCE, || Ok(operator.try_wait()?));
    // Whatever happens, it does not stay.
    let _ = operator.kill();
    waited.unwrap();
    assert_eq!(ended.unwrap().code(), Some(0));
}
