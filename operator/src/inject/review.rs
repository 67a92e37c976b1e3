//! An AdmissionReview (admission.k8s.io/v1): what the API server asks, and what it is answered.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{Common, Injected, Verdict, patch, pod};
use crate::index::pod::WORKLOAD_LABEL;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// What the API server shows of all warnings of a request is bounded; a longer one is cut by it.
const WARNING_CHARS: usize = 256;

/// What is asked is no review of a pod that can be answered.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// No review at all.
    #[error("it is no {KIND} of {API_VERSION}: {0}")]
    Unreadable(String),
    /// Of another version, or an answer.
    #[error("it is no {KIND} of {API_VERSION} with a request")]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    resource: Resource,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    object: Value,
}

#[derive(Default, Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resource: String,
}

/// The answer, as it is sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

/// What was decided, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The pod's namespace.
    pub namespace: String,
    /// `injected`, `untouched` or `refused`.
    pub verdict: &'static str,
    /// Its workload, or why not.
    pub detail: String,
}

/// Answers a review. `is_asked` says whether the pod's namespace asks for sidecars.
///
/// # Errors
/// When it is no review. A pod that cannot have what it asks for is an answer.
pub fn answer(body: &[u8], is_asked: bool, common: &Common) -> Result<(Answer, Told), ReviewError> {
    let review: Review = serde_json::from_slice(body).map_err(|error| ReviewError::Unreadable(error.to_string()))?;
    let request = review.request.filter(|_| review.api_version == API_VERSION && review.kind == KIND);
    let request = request.ok_or(ReviewError::Other)?;
    let is_new_pod = (request.resource.group.as_str(), request.resource.resource.as_str()) == ("", "pods")
        && request.sub_resource.is_empty()
        && request.operation == "CREATE";
    let verdict = if is_new_pod { pod(&request.object, is_asked, common) } else { Verdict::Untouched(None) };
    let mut response = Response {
        uid: request.uid,
        allowed: true,
        status: None,
        patch_type: None,
        patch: None,
        audit_annotations: BTreeMap::new(),
        warnings: Vec::new(),
    };
    let (verdict, detail) = match verdict {
        Verdict::Untouched(why) => {
            response.warnings.extend(why.clone());
            ("untouched", why.unwrap_or_default())
        }
        Verdict::Refused(message) => {
            response.allowed = false;
            response.status = Some(Status { code: 400, reason: "BadRequest", message: message.clone() });
            ("refused", message)
        }
        Verdict::Injected(Injected { object, warnings }) => {
            let workload = object["metadata"]["labels"][WORKLOAD_LABEL].as_str().unwrap_or_default().to_owned();
            let patch = patch(&request.object, &object);
            if !patch.is_empty() {
                response.patch_type = Some("JSONPatch");
                response.patch = Some(ByteString(Value::from(patch).to_string().into_bytes()));
            }
            response.audit_annotations.insert("workload", workload.clone());
            response.warnings = warnings;
            ("injected", workload)
        }
    };
    for warning in &mut response.warnings {
        *warning = warning.chars().take(WARNING_CHARS).collect();
    }
    let told = Told { namespace: request.namespace, verdict, detail };
    Ok((Answer { api_version: API_VERSION, kind: KIND, response }, told))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::answer;
    use crate::inject::Common;

    fn ask(change: impl FnOnce(&mut Value)) -> Result<Value, String> {
        let pod = json!({"metadata": {"name": "orders"}, "spec": {"containers": [{"name": "app"}]}});
        let mut review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u-1", "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE",
            "namespace": "shop", "object": pod, "oldObject": null, "dryRun": true,
        }});
        change(&mut review);
        let common = Common { image: "i".to_owned(), image_pull_policy: None, status_port: 6190 };
        let (answer, _) = answer(review.to_string().as_bytes(), true, &common).map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(answer).expect("JSON"))
    }

    #[test]
    fn a_pod_is_answered_with_a_patch() {
        let mut answer = ask(|_| {}).expect("an answer");
        let patch: ByteString = serde_json::from_value(answer["response"]["patch"].take()).expect("base64");
        let patch: Vec<Value> = serde_json::from_slice(&patch.0).expect("a patch");
        let paths: Vec<_> = patch.iter().map(|one| one["path"].as_str().unwrap_or_default()).collect();
        assert_eq!(paths, ["/metadata/labels", "/metadata/annotations", "/spec/initContainers", "/spec/volumes"]);
        let expected = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
            "uid": "u-1", "allowed": true, "patchType": "JSONPatch", "patch": null,
            "auditAnnotations": {"workload": "orders.pod"},
        }});
        assert_eq!(answer, expected);
    }

    #[test]
    fn what_cannot_be_is_refused_and_what_is_no_new_pod_is_left_alone() {
        let response = |change: fn(&mut Value)| ask(change).expect("an answer")["response"].take();
        let refused = response(|review| {
            review["request"]["object"]["metadata"]["annotations"] = json!({"config.postern.dev/workers": "0"});
        });
        let message = "annotation config.postern.dev/workers: `0` is no number from 1 to 64";
        let status = json!({"code": 400, "reason": "BadRequest", "message": message});
        assert_eq!(refused, json!({"uid": "u-1", "allowed": false, "status": status}));
        let untouched = json!({"uid": "u-1", "allowed": true});
        assert_eq!(response(|review| review["request"]["operation"] = "UPDATE".into()), untouched);
        assert_eq!(response(|review| review["request"]["subResource"] = "binding".into()), untouched);
        assert_eq!(response(|review| review["request"]["resource"]["resource"] = "secrets".into()), untouched);
        let warned = response(|review| review["request"]["object"]["spec"]["hostNetwork"] = true.into());
        assert_eq!(warned["warnings"].as_array().map(Vec::len), Some(1), "{warned}");
    }

    #[test]
    fn what_is_no_review_is_none() {
        let changes: [fn(&mut Value); 4] = [
            |review| review["apiVersion"] = "admission.k8s.io/v1beta1".into(),
            |review| review["request"] = Value::Null,
            |review| *review = json!([]),
            |review| review["request"]["uid"] = json!({}),
        ];
        for change in changes {
            assert!(ask(change).is_err());
        }
    }
}
