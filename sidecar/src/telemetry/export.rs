//! How spans go to a collector: made of rows (`span`), sent by the gate's own HTTP.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
use opentelemetry_proto::tonic::resource::v1::Resource;
use postern_telemetry::{Exporter, Outlet, SpanStats};
use sidecar_config::settings::{Pod, Tracing};
use tokio::net::TcpStream;

use super::{Ended, span};
use crate::protocol::post;

/// What spans are made with.
pub struct Traces {
    resource: Resource,
}

/// A worker's end of the queue.
pub type Spans = postern_telemetry::Spans<Traces>;

/// Starts the thread for a collector.
///
/// # Errors
/// When it cannot be made, or the collector has no address.
pub fn start(tracing: &Tracing, pod: &Pod, stats: Arc<SpanStats>) -> io::Result<(Spans, Exporter)> {
    postern_telemetry::start(&tracing.endpoint, Traces { resource: span::resource(tracing, pod) }, stats)
}

impl Outlet for Traces {
    type Ended = Ended;

    fn spans(ended: &Ended) -> u64 {
        ended.spans()
    }

    fn encode(&self, batch: &[Ended]) -> Vec<u8> {
        span::encode(&self.resource, batch)
    }

    async fn post(
        stream: TcpStream,
        target: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, HeaderMap), String> {
        post(stream, target, headers, body).await.map_err(|error| error.to_string())
    }
}
