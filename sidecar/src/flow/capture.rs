//! What rows tell of a request beyond what all rows tell, where its route asks for it.

use sidecar_decide::capture::Capture;

use super::gate::Gate;
use super::record::Draft;
use crate::log::CaptureLoss;
use crate::protocol::Head;

/// Captures a request's head.
pub(super) fn capture(gate: &Gate, capture: &Capture, head: &Head, draft: &mut Draft) {
    let taken = capture.take(&head.headers, head.target.query(), &|value| gate.log.salted(value));
    gate.log.count_capture_loss(CaptureLoss::RowFull, taken.dropped);
    gate.log.count_capture_loss(CaptureLoss::NoSalt, taken.unsalted);
    draft.edit(|record| record.captured = taken.json);
}
