//! `why`: what a gate decides about a request, rule by rule, and the smallest change that would turn it.

mod change;
mod read;
#[cfg(test)]
mod tests;
mod world;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use sidecar_decide::{MessageType, Reason, Verdict};

use self::change::{Edit, admitting_entries, edited, passes_at_all, smallest};
use self::world::{Common, Outcome, Question, Unanswered, World};
use super::cluster::Connection;
use super::{Ended, printable};
use crate::index::ObjectName;

/// What `why` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Who asks: a ClientIdentity, [NAMESPACE/]NAME; serviceaccount:[NAMESPACE/]NAME; spiffe://…; or nobody
    #[arg(long, value_name = "CLIENT")]
    from: String,
    /// The ProxyRoute, [NAMESPACE/]NAME
    #[arg(long, value_name = "ROUTE")]
    to: String,
    /// Host that is asked for [the first of the route]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Header field of the request, `name: value`; may be given more than once
    #[arg(short = 'H', long, value_name = "FIELD")]
    header: Vec<String>,
    /// Type of the message in its body, such as DERControlResponse [what a Content-Type says; of XML nothing]
    #[arg(long, value_name = "TYPE", value_parser = read::message_type)]
    message_type: Option<MessageType>,
    /// File or folder with manifests, - for standard input, in place of a cluster; may be given more than once
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Folders of folders, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Trust domain of the operator's certificates
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// Method and path, such as 'GET /orders?page=2'
    #[arg(value_name = "REQUEST", default_value = "GET /")]
    request: String,
}

/// Decides as a gate would, and tells by its end whether the request passes.
///
/// # Errors
/// When something that is asked about is not there, or cannot be read.
pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<Ended> {
    let read::Read { world, common, question, notes } = read::read(arguments)?;
    let explanation = explain(&world, &common, &question).map_err(|error| anyhow!(error))?;
    let notes = notes.iter().map(|note| format!("note: {note}"));
    for line in explanation.text(&question).lines().map(str::to_owned).chain(notes) {
        writeln!(output, "{}", printable(&line))?;
    }
    let is_answered = matches!(explanation.outcome, Outcome::Decided { unanswered: None, .. });
    Ok(if passes_at_all(&explanation.outcome) && is_answered { Ended::Well } else { Ended::Found })
}

/// What there is to say of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Explanation {
    outcome: Outcome,
    rules: Vec<OfRule>,
    change: Option<Vec<Edit>>,
    /// The serial number of the certificate that whoever asks has, if it is that of an identity.
    serial: Option<String>,
}

/// What a rule would say if it were the only one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OfRule {
    name: String,
    outcome: Outcome,
    /// Entries of its `allow` each of which is enough.
    admitting: Vec<usize>,
}

fn explain(world: &World, common: &Common, question: &Question) -> Result<Explanation, String> {
    let outcome = world.decide(common, question)?;
    let change = smallest(world, common, question, &outcome);
    let route = world.routes.iter().find(|route| ObjectName::of(*route) == question.to);
    let mut rules = Vec::new();
    for (index, rule) in route.iter().flat_map(|route| route.spec.rules.iter().enumerate()) {
        let alone = only_rule(world, &question.to, index);
        let outcome = alone.decide(common, question)?;
        let admitting = alone.routes.iter().find(|route| ObjectName::of(*route) == question.to);
        let admitting = admitting.map(|route| admitting_entries(&alone, common, question, route, 0));
        rules.push(OfRule { name: rule.name.clone(), outcome, admitting: admitting.unwrap_or_default() });
    }
    Ok(Explanation { outcome, rules, change, serial: world.serial(&question.from) })
}

/// The world in which a rule is the only one of its listener.
fn only_rule(world: &World, route: &ObjectName, rule: usize) -> World {
    let mut alone = edited(world, &[]);
    for other in &mut alone.routes {
        if ObjectName::of(&*other) == *route {
            let kept = other.spec.rules.get(rule).cloned();
            other.spec.rules = kept.into_iter().collect();
        } else {
            // It may define the listener, and so stays; nobody asks for this host.
            other.spec.hostnames = vec!["postern.invalid".to_owned()];
        }
    }
    alone
}

impl Explanation {
    fn text(&self, question: &Question) -> String {
        let mut text = format!("{}\n", told(&self.outcome, &question.to));
        match (&self.outcome, &self.serial) {
            (Outcome::Stopped(Reason::TlsRevoked), Some(serial)) => {
                text.push_str(&format!("  certificate {serial}, which it has now, is revoked\n"));
            }
            (Outcome::Decided { decision, unanswered: Some(Unanswered { reason, why }), .. }, _)
                if decision.verdict != Verdict::Refused =>
            {
                text.push_str(&format!("  but answered {} by the gate: {why}\n", reason.facts().code));
            }
            _ => {}
        }
        for rule in &self.rules {
            let by: Vec<_> = rule.admitting.iter().map(|entry| format!("allow[{entry}]")).collect();
            let by = if by.is_empty() { String::new() } else { format!(", by {}", by.join(" and ")) };
            let said = match &rule.outcome {
                Outcome::NotServed(_) => "is not served".to_owned(),
                Outcome::Stopped(reason) if reason.facts().code.starts_with("tls_") => "is not reached".to_owned(),
                Outcome::Stopped(reason) => format!("does not match: {}", reason.facts().code),
                Outcome::Decided { decision, unanswered: Some(Unanswered { reason, .. }), .. }
                    if decision.verdict != Verdict::Refused =>
                {
                    format!("matches, {}{by}, but answered {}", verdict(*decision), reason.facts().code)
                }
                Outcome::Decided { decision, .. } => format!("matches, {}{by}", verdict(*decision)),
            };
            text.push_str(&format!("  rule {}: {said}\n", rule.name));
        }
        let turned = if passes_at_all(&self.outcome) { "refused" } else { "allowed" };
        match &self.change {
            None => text.push_str(&format!("No small change is known by which it would be {turned}.\n")),
            Some(edits) => {
                text.push_str(&format!("It would be {turned} by this change, the smallest:\n"));
                edits.iter().for_each(|edit| text.push_str(&format!("  {edit}\n")));
            }
        }
        text
    }
}

fn told(outcome: &Outcome, to: &ObjectName) -> String {
    match outcome {
        Outcome::NotServed(why) => format!("refused: ProxyRoute {to} is not served: {why}"),
        Outcome::Stopped(reason) => format!("refused: {}", reason.facts().code),
        Outcome::Decided { route, rule, decision, .. } => format!("{} by rule {rule} of {route}", verdict(*decision)),
    }
}

fn verdict(decision: sidecar_decide::Decision) -> String {
    let reason = decision.reason.map(|reason| format!(" ({})", reason.facts().code)).unwrap_or_default();
    let word = match decision.verdict {
        Verdict::Allowed => "allowed",
        Verdict::Refused => "refused",
        Verdict::WouldRefuse => "allowed, because the rule only watches; else refused",
    };
    format!("{word}{reason}")
}
