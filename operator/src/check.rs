//! `check`: whether what was installed works together, as the pod of `helm test` asks it: the API has our definitions and
//! lets the operator's account read them, somebody leads, and the webhook puts a gate into a pod, under the certificate that
//! API servers are told to trust.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration, WebhookClientConfig};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, Config};
use postern_crds::{ClientIdentity, ProxyRoute};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::index::pod::SIDECAR_CONTAINER;
use crate::inject::upkeep::CONFIGURATION;
use crate::lease::LEASE;
use crate::limits::{CHECK_PAUSE, CHECK_TIMEOUT};

/// Flags of `check`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// The operator's own namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "postern-system")]
    operator_namespace: String,
    /// There is no webhook
    #[arg(long)]
    no_webhook: bool,
    /// Seconds within which everything has to be there
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    within: u64,
}

/// Tells a line for each thing that works.
///
/// # Errors
/// With the first that does not, in time.
pub async fn run(flags: &Flags, output: &mut dyn Write) -> Result<()> {
    let client = Client::try_default().await.context("no API server: set KUBECONFIG, or run in a pod")?;
    let until = Instant::now() + Duration::from_secs(flags.within);
    let told = eventually(until, || definitions(&client)).await?;
    writeln!(output, "{told}")?;
    let told = eventually(until, || leader(&client, &flags.operator_namespace)).await?;
    writeln!(output, "{told}")?;
    if !flags.no_webhook {
        for told in eventually(until, || webhooks(&client)).await? {
            writeln!(output, "{told}")?;
        }
    }
    Ok(())
}

/// Asks until it works, or the time is over: then with what was last in the way.
async fn eventually<T, F: Future<Output = Result<T>>>(until: Instant, ask: impl Fn() -> F) -> Result<T> {
    loop {
        let asked = timeout(CHECK_TIMEOUT, ask()).await.unwrap_or_else(|late| Err(late.into()));
        match asked {
            Err(_) if Instant::now() < until => sleep(CHECK_PAUSE).await,
            asked => return asked,
        }
    }
}

async fn definitions(client: &Client) -> Result<String> {
    let one = ListParams::default().limit(1);
    Api::<ProxyRoute>::all(client.clone()).list(&one).await.context("proxyroutes cannot be listed")?;
    Api::<ClientIdentity>::all(client.clone()).list(&one).await.context("clientidentities cannot be listed")?;
    Ok("api: proxyroutes and clientidentities are served".to_owned())
}

async fn leader(client: &Client, namespace: &str) -> Result<String> {
    let lease = Api::<Lease>::namespaced(client.clone(), namespace).get(LEASE).await;
    let held = lease.with_context(|| format!("lease {namespace}/{LEASE}"))?.spec.unwrap_or_default();
    let holder = held.holder_identity.filter(|holder| !holder.is_empty()).context("no operator leads")?;
    let renewed = held.renew_time.context("the operator's lease was never renewed")?.0;
    let age = Timestamp::now().as_second() - renewed.as_second();
    ensure!(
        age <= i64::from(held.lease_duration_seconds.unwrap_or_default()),
        "{holder} led, and has not renewed its lease for {age} s"
    );
    Ok(format!("operator: {holder} leads"))
}

async fn webhooks(client: &Client) -> Result<Vec<String>> {
    let configuration = Api::<MutatingWebhookConfiguration>::all(client.clone()).get(CONFIGURATION).await;
    let configuration = configuration.with_context(|| format!("mutatingwebhookconfiguration {CONFIGURATION}"))?;
    let mut told = Vec::new();
    for webhook in configuration.webhooks.unwrap_or_default() {
        let said = ask(&webhook).await.with_context(|| format!("webhook {}", webhook.name))?;
        told.push(format!("webhook: {} {said}", webhook.name));
    }
    ensure!(!told.is_empty(), "mutatingwebhookconfiguration {CONFIGURATION} has no webhook");
    Ok(told)
}

/// Asks it about a pod as an API server does, and trusts whom that trusts.
async fn ask(webhook: &MutatingWebhook) -> Result<&'static str> {
    let bundle = webhook.client_config.ca_bundle.as_ref().context("nobody is trusted in it: caBundle is empty")?;
    let roots = pem::parse_many(&bundle.0).context("its caBundle")?;
    let address: Uri = url(&webhook.client_config)?.parse().context("its address")?;
    let authority = address.authority().context("it has no address")?.as_str();
    // Of a client's address the path stays in front of that of each request.
    let mut config = Config::new(Uri::builder().scheme("https").authority(authority).path_and_query("/").build()?);
    config.root_cert = Some(roots.into_iter().map(pem::Pem::into_contents).collect());
    config.default_retry = false;
    let request = Request::post(address.path())
        .header(CONTENT_TYPE, "application/json")
        .body(review().to_string().into_bytes())?;
    let answer: Value = Client::try_from(config)?.request(request).await.context("it does not answer")?;
    judge(&answer["response"])
}

fn url(config: &WebhookClientConfig) -> Result<String> {
    match (&config.url, &config.service) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(service)) => {
            let path = service.path.as_deref().unwrap_or_default();
            Ok(format!("https://{}.{}.svc:{}{path}", service.name, service.namespace, service.port.unwrap_or(443)))
        }
        (None, None) => bail!("it has no address"),
    }
}

/// About a pod that is never made.
fn review() -> Value {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "check", "labels": {"postern.dev/inject": "enabled"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let request = json!({
        "uid": "check", "kind": kind, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "name": "check", "namespace": "default", "operation": "CREATE", "userInfo": {}, "object": pod,
        "dryRun": true,
    });
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

fn judge(response: &Value) -> Result<&'static str> {
    ensure!(response["allowed"] == true, "it refuses the pod: {}", response["status"]["message"]);
    // No bytes are read of `null` as well.
    let patch = response.get("patch").context("it changes nothing of the pod")?;
    let patch: ByteString = serde_json::from_value(patch.clone()).context("its patch")?;
    let patch: Vec<Value> = serde_json::from_slice(&patch.0).context("its patch")?;
    let containers = patch.iter().filter(|change| change["path"] == "/spec/initContainers");
    let mut containers = containers.filter_map(|change| change["value"].as_array()).flatten();
    ensure!(
        containers.any(|container| container["name"] == SIDECAR_CONTAINER),
        "it puts no {SIDECAR_CONTAINER} into the pod"
    );
    Ok("puts a gate into a pod")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(response: &Value) -> String {
        judge(response).map_or_else(|error| error.to_string(), str::to_owned)
    }

    #[test]
    fn an_answer_counts_where_it_has_a_gate() {
        let patched = |name: &str| {
            let patch = json!([{"op": "add", "path": "/spec/initContainers", "value": [{"name": name}]}]);
            json!({"allowed": true, "patch": ByteString(patch.to_string().into_bytes())})
        };
        assert_eq!(judged(&patched("postern-sidecar")), "puts a gate into a pod");
        assert_eq!(judged(&patched("other")), "it puts no postern-sidecar into the pod");
        assert_eq!(judged(&json!({"allowed": true})), "it changes nothing of the pod");
        let refused = json!({"allowed": false, "status": {"message": "no"}});
        assert_eq!(judged(&refused), "it refuses the pod: \"no\"");
    }

    #[test]
    fn a_webhook_is_where_its_service_is() {
        let config: WebhookClientConfig =
            serde_json::from_value(json!({"service": {"name": "a", "namespace": "b", "path": "/c"}})).unwrap();
        assert_eq!(url(&config).unwrap(), "https://a.b.svc:443/c");
        assert_eq!(url(&WebhookClientConfig::default()).unwrap_err().to_string(), "it has no address");
    }
}
