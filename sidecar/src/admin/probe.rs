//! Probes of the application that are asked of the gate, which reaches what listens on loopback only.

use http::StatusCode;

use super::text;
use crate::health::probe_application;
use crate::protocol::Response;
use crate::state::State;

/// Where they are asked for.
pub(super) const PATH: &str = "/probe/";

/// Makes a probe. Of what the application answers nothing is told but whether it passed.
pub(super) async fn answer(state: &State, name: &str) -> Response {
    let Some(probe) = state.settings.probes.iter().find(|probe| probe.name == name) else {
        return text(StatusCode::NOT_FOUND, "there is no such probe\n".to_owned());
    };
    let Ok(_place) = state.probes.try_acquire() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many probes at once\n".to_owned());
    };
    match probe_application(probe).await {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}
