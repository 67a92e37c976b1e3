//! What is told of one caller, worked out once for a connection and generation, when a rule first asks for it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use sidecar_decide::Reason;
use sidecar_decide::filter::IdentityHeaders;

/// Fields that say who a caller is, or why that cannot be said.
pub type Fields = Result<Vec<(HeaderName, HeaderValue)>, Reason>;

/// What was worked out so far, by what was asked for. A connection that no rule asks about has nothing here.
#[derive(Default)]
pub struct Told(RefCell<Vec<(Arc<IdentityHeaders>, Rc<Fields>)>>);

impl Told {
    /// What was worked out for these fields, or what `work_out` makes of them.
    pub fn fields(
        &self,
        headers: &Arc<IdentityHeaders>,
        work_out: impl FnOnce(&IdentityHeaders) -> Fields,
    ) -> Rc<Fields> {
        let mut known = self.0.borrow_mut();
        if let Some((_, fields)) = known.iter().find(|(same, _)| Arc::ptr_eq(same, headers)) {
            return Rc::clone(fields);
        }
        let fields = Rc::new(work_out(headers));
        known.push((Arc::clone(headers), Rc::clone(&fields)));
        fields
    }
}
