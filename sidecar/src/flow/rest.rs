//! What is left of a request's body that nobody wants: it is listened to for a while, and dropped.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use crate::client_stream::Linger;
use crate::protocol::{Body, BodyError, Inbound};

/// The gate's own answer to a request whose body is still coming.
pub(super) fn refusal(text: Bytes, unwanted: Inbound) -> Body {
    Body::Stream(Box::pin(RefusalBody { text: Some(text), rest: Rest::new(unwanted) }))
}

struct RefusalBody {
    text: Option<Bytes>,
    rest: Rest,
}

impl http_body::Body for RefusalBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(text) = self.text.take() {
            return Poll::Ready(Some(Ok(Frame::data(text))));
        }
        ready!(self.rest.poll(cx));
        Poll::Ready(None)
    }
}

/// What is left of a request's body when its answer was given. The answer ends when this has, or was listened to for long
/// enough: HTTP/2 resets the stream of a body that nobody wants, and clients take the reset for the answer.
pub(super) struct Rest {
    unwanted: Inbound,
    linger: Linger,
}

impl Rest {
    pub(super) fn new(unwanted: Inbound) -> Self {
        Self { unwanted, linger: Linger::new() }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.linger.is_over(cx) {
            match ready!(Pin::new(&mut self.unwanted).poll_frame(cx)) {
                Some(Ok(frame)) => self.linger.count(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(())
    }
}
