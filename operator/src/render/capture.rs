//! What rows tell of a route's requests.

use postern_crds::proxyroute as spec;
use sidecar_config::capture::{Capture, Captured, CapturedAs, CapturedBodies};

pub(super) fn capture(capture: &spec::Capture) -> Capture {
    let spec::Capture { headers, query, cookies, bodies } = capture;
    let list = |list: &[spec::Captured]| list.iter().map(captured).collect();
    Capture {
        headers: list(headers),
        query: list(query),
        cookies: list(cookies),
        bodies: bodies.map(|spec::CapturedBodies { request, response, max_bytes }| CapturedBodies {
            request,
            response,
            max_bytes,
        }),
    }
}

fn captured(spec::Captured { name, kept }: &spec::Captured) -> Captured {
    let kept = match kept {
        spec::CapturedAs::Keep => CapturedAs::Keep,
        spec::CapturedAs::Mask => CapturedAs::Mask,
        spec::CapturedAs::Sha256 => CapturedAs::Sha256,
        spec::CapturedAs::Drop => CapturedAs::Drop,
    };
    Captured { name: name.clone(), kept }
}
