//! The body of an answer: whole, broken, or a watch.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body::Frame;

/// A connection that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It was never there.
    #[error("connection refused")]
    Refused,
    /// It broke before the answer.
    #[error("connection closed before the answer was complete")]
    Closed,
}

/// The body of an answer.
pub struct Body(Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl Body {
    /// A body with this content.
    #[must_use]
    pub fn whole(content: Bytes) -> Self {
        Self(stream::iter([Ok(content)]).boxed())
    }

    /// The first half of the content, and then the connection breaks.
    #[must_use]
    pub fn broken(content: &Bytes) -> Self {
        Self(stream::iter([Ok(content.slice(..content.len() / 2)), Err(Broken::Closed)]).boxed())
    }

    /// The first half of the content, and then what is no JSON.
    #[must_use]
    pub fn garbled(content: &Bytes) -> Self {
        let half = content.slice(..content.len() / 2);
        Self(stream::iter([Ok(half), Ok(Bytes::from_static(b"\x00<garbled>"))]).boxed())
    }

    /// A body whose parts come in time.
    pub(crate) fn streamed(parts: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static) -> Self {
        Self(parts.boxed())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0.as_mut().poll_next(context).map(|part| part.map(|part| part.map(Frame::data)))
    }
}
