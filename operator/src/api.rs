//! The client of the API server: what every request passes, whoever makes it. Requests are counted, few are made at once,
//! and none writes while another process may lead.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use http::{Method, Request, Response, StatusCode};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::{BoxError, Layer, Service};

use crate::lease::Leadership;
use crate::limits::REQUESTS;
use crate::metrics::{AtOnce, Metrics};
use crate::settings::Settings;

/// A client as the settings say.
///
/// # Errors
/// When there is nothing that says where the API server is, or it cannot be read.
pub async fn connect(settings: &Settings, metrics: &Arc<Metrics>, leadership: &Arc<Leadership>) -> Result<Client> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.context("--kubeconfig")?
        }
        None => Config::infer().await.context("no API server: give --kubeconfig, or run in a pod")?,
    };
    // A turn that fails is tried again. What is tried again further down would come after it was asked who leads.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).context("cannot talk to the API server")?;
    let gate = Gate::new(Arc::clone(metrics), Arc::clone(leadership));
    Ok(builder.with_layer(&gate).build())
}

/// Why a request was not sent.
#[derive(Debug, Error)]
#[error("not written: this process does not lead, or has not heard for too long that it does")]
pub struct NotLeading;

/// What every request passes.
#[derive(Clone)]
struct Gate {
    metrics: Arc<Metrics>,
    leadership: Arc<Leadership>,
    /// One for each request that may be made at once.
    places: Arc<Semaphore>,
}

impl Gate {
    fn new(metrics: Arc<Metrics>, leadership: Arc<Leadership>) -> Self {
        Self { metrics, leadership, places: Arc::new(Semaphore::new(REQUESTS)) }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S, B> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let asked = Asked::of(request.method(), request.uri().path(), request.uri().query());
        let gate = self.gate.clone();
        // Nothing is sent before this is polled.
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Gate { metrics, leadership, places } = gate;
            let _place = if asked.is_bounded() { Some(take_place(&metrics, &places).await) } else { None };
            // Asked when its turn has come: somebody else may lead by now.
            if asked.is_write() && !leadership.may_write() {
                metrics.request(&asked.resource, asked.verb, "refused");
                return Err(NotLeading.into());
            }
            let answer = answer.await;
            let outcome = answer.as_ref().map_or("unreachable", |answer| outcome(answer.status()));
            metrics.request(&asked.resource, asked.verb, outcome);
            answer
        })
    }
}

/// Waits until one more request may be made; it is under way until the result is dropped.
async fn take_place<'a>(metrics: &Metrics, places: &'a Semaphore) -> (Option<SemaphorePermit<'a>>, AtOnce) {
    let waiting = metrics.at_once("waiting");
    // The semaphore is never closed; without it there is one bound less.
    let place = places.acquire().await.ok();
    drop(waiting);
    (place, metrics.at_once("under_way"))
}

/// What came of a request, in a closed set of words.
fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=399 => "ok",
        401 | 403 => "denied",
        404 => "not_found",
        409 => "conflict",
        429 => "throttled",
        400..=499 => "rejected",
        _ => "failed",
    }
}

/// What a request asks for, in the API server's words. All of them come from this program, and so are few.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    resource: String,
    verb: &'static str,
}

impl Asked {
    fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let rest = match parts.as_slice() {
            ["api", _version, rest @ ..] | ["apis", _, _version, rest @ ..] => rest,
            _ => &[],
        };
        let (resource, name, below) = match rest {
            ["namespaces", _, resource, rest @ ..] | [resource, rest @ ..] => (*resource, rest.first(), rest.get(1)),
            [] => ("other", None, None),
        };
        let is_watch = query.is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ if is_watch => "watch",
            _ if name.is_none() => "list",
            _ => "get",
        };
        let resource = below.map_or_else(|| resource.to_owned(), |below| format!("{resource}/{below}"));
        Self { resource, verb }
    }

    /// Whether it is one of those of which few are made at once. Watches last. The Lease must be renewed in time, however
    /// slowly the API server answers all others.
    fn is_bounded(&self) -> bool {
        self.verb != "watch" && self.resource != "leases"
    }

    /// Whether it changes anything. The Lease is how one comes to be allowed to.
    fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch") && self.resource != "leases"
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, join_all};
    use http::{Method, Request, Response};
    use kube::client::Body;
    use tower::{BoxError, Layer, Service};

    use super::{Asked, Gate, NotLeading};
    use crate::lease::Leadership;
    use crate::limits::REQUESTS;
    use crate::metrics::Metrics;

    /// An API server that likes everything.
    struct Likes;

    impl Service<Request<Body>> for Likes {
        type Response = Response<()>;
        type Error = BoxError;
        type Future = Ready<Result<Response<()>, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            ready(Ok(Response::new(())))
        }
    }

    #[tokio::test]
    async fn whoever_does_not_lead_reads_and_asks_for_the_lease_and_writes_nothing() {
        let leadership = Leadership::none();
        let metrics = Arc::new(Metrics::new().expect("families"));
        let mut gated = Gate::new(metrics, Arc::clone(&leadership)).layer(Likes);
        let mut passes = async |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
            match gated.call(request).await {
                Ok(_) => true,
                Err(error) => !error.is::<NotLeading>(),
            }
        };
        let (pod, lease) = ("/api/v1/namespaces/a/pods/b/status", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b");
        for (leads, expected) in [(false, false), (true, true)] {
            if leads {
                leadership.hold();
            }
            assert!(passes(Method::GET, pod).await);
            assert!(passes(Method::PUT, lease).await);
            for method in [Method::PATCH, Method::PUT, Method::DELETE, Method::POST] {
                assert_eq!(passes(method, pod).await, expected);
            }
        }
    }

    /// An API server that answers nobody, and remembers how many ask.
    #[derive(Clone, Default)]
    struct Silent(Arc<AtomicUsize>);

    impl Service<Request<Body>> for Silent {
        type Response = Response<()>;
        type Error = BoxError;
        type Future = BoxFuture<'static, Result<Response<()>, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let asked = Arc::clone(&self.0);
            Box::pin(async move {
                asked.fetch_add(1, Ordering::Relaxed);
                pending().await
            })
        }
    }

    #[tokio::test]
    async fn few_requests_are_made_at_once_and_neither_watches_nor_the_lease_wait_for_them() {
        let leadership = Leadership::none();
        leadership.hold();
        let silent = Silent::default();
        let metrics = Arc::new(Metrics::new().expect("families"));
        let at_once = |state| metrics.counted_at_once(state);
        let mut gated = Gate::new(Arc::clone(&metrics), leadership).layer(silent.clone());
        let mut asked = |count: usize, path: &str| {
            let all: Vec<_> =
                (0..count).map(|_| gated.call(Request::get(path).body(Body::empty()).expect("a request"))).collect();
            let mut all = join_all(all);
            assert!((&mut all).now_or_never().is_none(), "nobody answers");
            (silent.0.swap(0, Ordering::Relaxed), all)
        };
        let (first, waiting) = asked(10 * REQUESTS, "/api/v1/namespaces/a/pods/b");
        assert_eq!(first, REQUESTS);
        assert_eq!(asked(5, "/api/v1/pods?watch=true").0, 5);
        assert_eq!(asked(1, "/apis/coordination.k8s.io/v1/namespaces/p/leases/a").0, 1);
        assert_eq!((at_once("under_way"), at_once("waiting")), (32, 9 * 32));
        // Whoever gives up makes room.
        drop(waiting);
        assert_eq!((at_once("under_way"), at_once("waiting")), (0, 0));
        assert_eq!(asked(10 * REQUESTS, "/api/v1/namespaces/a/pods/b").0, REQUESTS);
    }

    #[test]
    fn requests_are_counted_by_what_they_ask_for_and_writes_are_known() {
        for (method, path, query, resource, verb, is_write) in [
            (Method::GET, "/api/v1/pods", Some("limit=500"), "pods", "list", false),
            (Method::GET, "/api/v1/pods", Some("a=b&watch=true"), "pods", "watch", false),
            (Method::GET, "/api/v1/namespaces", None, "namespaces", "list", false),
            (Method::GET, "/api/v1/namespaces/shop", None, "namespaces", "get", false),
            (Method::GET, "/api/v1/namespaces/shop/secrets/a", None, "secrets", "get", false),
            (Method::POST, "/api/v1/namespaces/shop/configmaps", None, "configmaps", "create", true),
            (Method::PATCH, "/api/v1/namespaces/shop/pods/a/status", None, "pods/status", "patch", true),
            (
                Method::PATCH,
                "/apis/postern.dev/v1alpha1/namespaces/shop/proxyroutes/a/status",
                Some("force=true"),
                "proxyroutes/status",
                "patch",
                true,
            ),
            (Method::DELETE, "/api/v1/namespaces/shop/configmaps/a", None, "configmaps", "delete", true),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/p/leases/a", None, "leases", "update", false),
            (Method::GET, "/version", None, "other", "list", false),
        ] {
            let asked = Asked::of(&method, path, query);
            let told = (asked.resource.as_str(), asked.verb, asked.is_write());
            assert_eq!(told, (resource, verb, is_write), "{method} {path}");
        }
    }
}
