//! Consults the table of `authority` at every call, before a service sees it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crux_core::identity::{Principal, Verb, Who};
use crux_core::names::Label;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::context::{Agent, BASE};
use crate::authority::{self, Kind};

/// What `principal` is to a rnode of namespace `own`; `None` if nothing at all.
pub(crate) fn kind(principal: &Principal, own: &Label) -> Option<Kind> {
    let base = *own == BASE;
    match &principal.who {
        Who::Operator { .. } if base => principal
            .verbs
            .has(Verb::Operator)
            .then_some(Kind::Operator),
        Who::Operator { .. } => principal
            .may(Verb::Operator, own)
            .ok()
            .map(|()| Kind::Operator),
        Who::Tool { .. } if base => principal.verbs.has(Verb::Tool).then_some(Kind::Tool),
        Who::Tool { .. } => principal.may(Verb::Tool, own).ok().map(|()| Kind::Tool),
        Who::Host { .. } => principal.may(Verb::Host, own).ok().map(|()| Kind::Host),
        Who::Rnode { namespace, .. } if namespace == own => Some(Kind::Peer),
        Who::Rnode { namespace, .. } if *namespace == BASE => Some(Kind::Base),
        Who::Rnode { .. } => base.then_some(Kind::Nested),
        Who::App { namespace, .. } => (namespace == own).then_some(Kind::App),
        Who::Backend { .. } => base.then_some(Kind::Backend),
    }
}

/// A service behind the table.
#[derive(Debug, Clone)]
pub(crate) struct Guard<S> {
    inner: S,
    agent: Arc<Agent>,
}

impl<S> Guard<S> {
    /// Puts `inner` behind the table.
    pub(crate) fn new(inner: S, agent: &Arc<Agent>) -> Self {
        Self {
            inner,
            agent: Arc::clone(agent),
        }
    }
}

impl<S: NamedService> NamedService for Guard<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let principal = request.extensions().get::<Principal>();
        let allowed = principal
            .and_then(|principal| kind(principal, &self.agent.me.namespace))
            .is_some_and(|kind| authority::allows(path, kind));
        if allowed {
            return Box::pin(self.inner.call(request));
        }
        let source = principal.map_or_else(|| "nobody".to_owned(), ToString::to_string);
        self.agent.memoir.refused(&source, path);
        let text = format!("call {path}: {source} may not");
        Box::pin(async move { Ok(Status::permission_denied(text).into_http()) })
    }
}

/// Who makes this call.
///
/// # Errors
/// `Unauthenticated` if nobody is known to; the guard lets no such call pass.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Result<Principal, Status> {
    let principal = request.extensions().get::<Principal>().cloned();
    principal.ok_or_else(|| Status::unauthenticated("know who calls"))
}
