//! [`Gate`]: somebody who looks at every call before a service gets it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::body::Body;
use tower::{Layer, Service};

pub(crate) type Request = http::Request<Body>;
pub(crate) type Response = http::Response<Body>;

/// Who looks at calls: answers itself, or has the service answer.
pub(crate) trait Keeper: Clone + Send + Sync + 'static {
    /// Answers a call. `service` is ready for one.
    fn answer<S>(
        self,
        service: S,
        request: Request,
    ) -> impl Future<Output = Result<Response, S::Error>> + Send
    where
        S: Service<Request, Response = Response, Future: Send, Error: Send> + Send;
}

/// Puts a [`Gate`] with this keeper before a service.
#[derive(Clone)]
pub(crate) struct GateLayer<K>(pub(crate) K);

impl<K: Clone, S> Layer<S> for GateLayer<K> {
    type Service = Gate<K, S>;
    fn layer(&self, inner: S) -> Gate<K, S> {
        Gate { keeper: self.0.clone(), inner }
    }
}

/// A service behind a keeper.
#[derive(Clone)]
pub(crate) struct Gate<K, S> {
    keeper: K,
    inner: S,
}

impl<K, S> Service<Request> for Gate<K, S>
where
    K: Keeper,
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The clone that was polled ready is the one to call.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        Box::pin(self.keeper.clone().answer(ready, request))
    }
}
