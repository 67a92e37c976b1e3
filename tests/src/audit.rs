//! What the API server's audit log says of an account: what it wrote, what it used its rights for, what it was refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Who is written about whatever they do; of all others only what they write.
const ACCOUNTS: &str = "system:serviceaccounts";
const READS: [&str; 3] = ["get", "list", "watch"];

/// A request: verb, API group, resource with its subresource, namespace.
pub type Use = (String, String, String, String);

/// The audit log of one API server.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

impl Audit {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// What an account has written into a namespace or tried to, oldest first.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn writes(&self, user: &str, namespace: &str) -> Result<Vec<String>> {
        let asked = self.of(user, "RequestReceived")?.into_iter().filter(|event| {
            event["objectRef"]["namespace"] == namespace && !READS.contains(&event["verb"].as_str().unwrap_or_default())
        });
        Ok(asked.map(|event| told(&event)).collect())
    }

    /// What an account has asked for.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn uses(&self, user: &str) -> Result<BTreeSet<Use>> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let asked = self.of(user, "RequestReceived")?.into_iter().map(|event| {
            let object = &event["objectRef"];
            let path = [word(&object["resource"]), word(&object["subresource"])];
            let resource = path.join("/").trim_end_matches('/').to_owned();
            (word(&event["verb"]), word(&object["apiGroup"]), resource, word(&object["namespace"]))
        });
        Ok(asked.collect())
    }

    /// What an account was refused, with why: by its rights, or by a policy.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn refusals(&self, user: &str) -> Result<Vec<String>> {
        let refused = self.of(user, "ResponseComplete")?.into_iter().filter_map(|event| {
            let message = event["responseStatus"]["message"].as_str().unwrap_or_default();
            let is_refused = event["annotations"]["authorization.k8s.io/decision"] == "forbid"
                || message.contains("ValidatingAdmissionPolicy");
            is_refused.then(|| format!("{}: {message}", told(&event)))
        });
        Ok(refused.collect())
    }

    fn of(&self, user: &str, stage: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.path).context("read the audit log")?;
        // Most lines are about others, and reading them as JSON is what takes time.
        let quoted = json!(user).to_string();
        let lines = text.lines().filter(|line| line.contains(&quoted));
        let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events.filter(|event| event["user"]["username"] == user && event["stage"] == stage).collect())
    }
}

fn told(event: &Value) -> String {
    let object = &event["objectRef"];
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let path = [&object["resource"], &object["name"], &object["subresource"]].map(word);
    let path = path.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("/");
    format!("{} {path}", word(&event["verb"]))
}

/// Who asks for what at the moment they ask; of accounts in the cluster also what became of it.
pub(crate) fn policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "rules": [
            {"level": "Metadata", "userGroups": [ACCOUNTS], "omitStages": ["ResponseStarted", "Panic"]},
            {"level": "None", "verbs": READS},
            {"level": "Metadata", "omitStages": ["ResponseStarted", "ResponseComplete", "Panic"]},
        ],
    })
}
