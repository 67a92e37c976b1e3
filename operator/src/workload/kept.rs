//! Judges a workload's routes with what was written last at hand, which is read where nobody remembers it.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use sidecar_config::ContractVersion;

use super::last_good::LastGood;
use super::memory::{Memory, WrittenPolicy};
use super::names;
use super::observe::Observed;
use super::turn::{TurnError, Worker};
use super::validate::{Input, Validated, validate};
use crate::index::held::BUNDLES_ANNOTATION;
use crate::index::{Entries, Held, HeldKind, ObjectName};

impl Worker {
    /// Judges the routes. One whose change is refused is served as it was.
    ///
    /// # Errors
    /// When what was written last has to be known and cannot be read.
    pub(super) async fn validate(
        &self,
        observed: &Observed,
        newest: ContractVersion,
        memory: &mut Memory,
    ) -> Result<Validated, TurnError> {
        let input = Input {
            routes: &observed.routes,
            pods: &observed.pods,
            last: None,
            trust_domain: &self.names.trust_domain,
            newest,
        };
        let validated = validate(&input);
        if validated.routes.values().all(|judged| judged.accepted.is_ok()) {
            return Ok(validated);
        }
        if memory.policy.is_none() {
            memory.policy = Some(self.written_policy(&observed.workload).await?);
        }
        let last = memory.policy.as_ref().and_then(|written| LastGood::read(&written.document, &written.bundles));
        Ok(if last.is_some() { validate(&Input { last: last.as_ref(), ..input }) } else { validated })
    }

    /// Where the bundles are that the written policy uses.
    pub(super) fn written_bundles(&self, workload: &ObjectName) -> Option<String> {
        let name = ObjectName::new(workload.namespace.clone(), names::policy(&workload.name));
        let cluster = self.index.cluster();
        cluster.held(HeldKind::ConfigMap, &name)?.annotations.get(BUNDLES_ANNOTATION).map(str::to_owned)
    }

    /// The policy that was written last, or what all pods had of it. What is not as it was written is nobody's word.
    async fn written_policy(&self, workload: &ObjectName) -> Result<WrittenPolicy, TurnError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &workload.namespace);
        for (name, entry) in [
            (names::policy(&workload.name), names::POLICY_ENTRY),
            (names::good_policy(&workload.name), names::GOOD_POLICY_ENTRY),
        ] {
            let found = api.get_opt(&name).await.map_err(|error| {
                TurnError::Read(ObjectName::new(workload.namespace.clone(), name.clone()), Box::new(error))
            })?;
            if let Some(written) = found.and_then(|object| written(object, workload, entry)) {
                return Ok(written);
            }
        }
        Ok(WrittenPolicy::default())
    }
}

/// What an object says, if it is ours and as it was written.
fn written(object: ConfigMap, workload: &ObjectName, entry: &str) -> Option<WrittenPolicy> {
    let data = object.data.clone().unwrap_or_default();
    let entries = data.into_iter().fold(Entries::default(), |entries, (name, text)| entries.with(name, text));
    let held = Held::of_config_map(object)?;
    if held.workload().as_ref() != Some(workload) || !held.is_as_written(&entries) {
        return None;
    }
    let bundles = held.annotations.get(BUNDLES_ANNOTATION).unwrap_or_default().to_owned();
    Some(WrittenPolicy { document: entries.text(entry)?.to_owned(), bundles })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::written;
    use crate::index::{Entries, ObjectName};
    use crate::workload::content::Content;

    #[test]
    fn what_is_not_as_it_was_written_is_nobodys_word() {
        let (workload, name) = (ObjectName::new("shop", "orders"), ObjectName::new("shop", "postern-policy-orders"));
        let entries = Entries::default().with("policy.json", "{}");
        let content = Content::config_map(name, "policy", Some("orders"), entries).sealed();
        let object = json!({
            "metadata": {
                "name": "postern-policy-orders", "namespace": "shop",
                "labels": content.labels, "annotations": content.annotations,
            },
            "data": {"policy.json": "{}"},
        });
        let rows = [
            ("as written", json!({}), true),
            ("another text", json!({"data": {"policy.json": "{ }"}}), false),
            ("more entries", json!({"data": {"policy.json": "{}", "more": "x"}}), false),
            ("emptied", json!({"data": null}), false),
            ("without its digest", json!({"metadata": {"annotations": null}}), false),
            ("not ours", json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}), false),
            ("another workload's", json!({"metadata": {"labels": {"postern.dev/workload": "stock"}}}), false),
        ];
        for (case, change, expected) in rows {
            let mut object = object.clone();
            json_patch(&mut object, &change);
            let object = serde_json::from_value(object).expect("a ConfigMap");
            assert_eq!(written(object, &workload, "policy.json").is_some(), expected, "{case}");
        }
    }

    /// A merge patch (RFC 7386).
    fn json_patch(value: &mut serde_json::Value, patch: &serde_json::Value) {
        let Some(fields) = patch.as_object() else { return value.clone_from(patch) };
        for (name, field) in fields {
            json_patch(&mut value[name], field);
        }
    }
}
