//! Consults the table of `authority` at every call, before a service sees it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crux_core::identity::{Prefix, Principal, Refusal, Verb, Who};
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
        Who::Operator { .. } => match principal.may(Verb::Operator, own) {
            Ok(()) => Some(Kind::Operator),
            Err(Refusal::OutOfReach(_)) if base => Some(Kind::NarrowOperator),
            Err(_) => None,
        },
        Who::Tool { .. } => match principal.may(Verb::Tool, own) {
            // What a base runs is no application.
            Ok(()) if !base && principal.verbs.has(Verb::Lifecycle) => Some(Kind::Steward),
            Ok(()) => Some(Kind::Tool),
            Err(Refusal::OutOfReach(_)) if base => Some(Kind::NarrowTool),
            Err(_) => None,
        },
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

/// Whether what is of `namespace` is for this caller: for a person or tool what its grant covers, however it asks.
///
/// Of rnodes, processes and backends the table and the services decide.
pub(crate) fn covers(caller: &Principal, namespace: &str) -> bool {
    match caller.who {
        Who::Operator { .. } | Who::Tool { .. } => {
            caller.prefix == Prefix::EVERYTHING
                || Label::new(namespace).is_ok_and(|label| caller.prefix.covers_namespace(&label))
        }
        Who::Rnode { .. } | Who::App { .. } | Who::Host { .. } | Who::Backend { .. } => true,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crux_core::identity::{Claim, Prefix, Verbs, Window};
    use crux_core::names::{InvitationId, KeyId, OwnerId, RnodeId};

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    fn principal(who: Who, verbs: &[Verb], prefix: Prefix) -> Principal {
        let owner = OwnerId::from_bytes([1; 32]);
        Principal {
            who,
            owner,
            verbs: Verbs::of(verbs),
            prefix,
            valid: Window::ALWAYS,
            enrolment: None,
        }
    }

    fn rnode(namespace: &str) -> Principal {
        let claim = Claim {
            invitation: InvitationId::from_bytes([2; 32]),
            ordinal: 0,
        };
        let id = RnodeId::from_bytes([3; 32]);
        let who = Who::Rnode {
            namespace: label(namespace),
            id,
            label: label("n1"),
            claim,
        };
        principal(who, &[Verb::Peer], Prefix::namespace(label(namespace)))
    }

    #[test]
    fn a_rnode_is_a_peer_only_in_its_own_namespace() {
        assert_eq!(kind(&rnode("stix"), &label("stix")), Some(Kind::Peer));
        assert_eq!(kind(&rnode("base"), &label("stix")), Some(Kind::Base));
        assert_eq!(kind(&rnode("stix"), &label("base")), Some(Kind::Nested));
        assert_eq!(kind(&rnode("other"), &label("stix")), None);
    }

    #[test]
    fn an_operator_or_host_needs_its_verb_over_our_namespace() {
        let operator = |verbs: &[Verb], prefix| {
            let who = Who::Operator {
                label: label("me"),
                id: KeyId::from_bytes([4; 32]),
            };
            kind(&principal(who, verbs, prefix), &label("stix"))
        };
        assert_eq!(
            operator(&[Verb::Operator], Prefix::EVERYTHING),
            Some(Kind::Operator)
        );
        assert_eq!(operator(&[Verb::App], Prefix::EVERYTHING), None);
        assert_eq!(
            operator(&[Verb::Operator], Prefix::namespace(label("other"))),
            None
        );
        let host = |prefix| {
            let who = Who::Host {
                id: RnodeId::from_bytes([5; 32]),
            };
            kind(&principal(who, &[Verb::Host], prefix), &label("stix"))
        };
        assert_eq!(host(Prefix::namespace(label("stix"))), Some(Kind::Host));
        assert_eq!(host(Prefix::namespace(label("other"))), None);
    }

    #[test]
    fn a_narrow_grant_is_worth_what_it_covers_at_the_base_too() {
        let (label_of, id) = (label("me"), KeyId::from_bytes([4; 32]));
        let who = [
            Who::Operator {
                label: label_of.clone(),
                id,
            },
            Who::Tool {
                label: label_of,
                id,
            },
        ];
        let stix = Prefix::namespace(label("stix"));
        let of = |at: usize, prefix: &Prefix| {
            let verbs = [Verb::Operator, Verb::Tool];
            principal(who[at].clone(), &verbs, prefix.clone())
        };
        for (at, whole, narrow) in [
            (0, Kind::Operator, Kind::NarrowOperator),
            (1, Kind::Tool, Kind::NarrowTool),
        ] {
            let (all, one) = (of(at, &Prefix::EVERYTHING), of(at, &stix));
            assert_eq!(kind(&all, &label("base")), Some(whole));
            assert_eq!(kind(&one, &label("base")), Some(narrow));
            assert_eq!(kind(&one, &label("stix")), Some(whole));
            assert_eq!(kind(&one, &label("other")), None);
            let base = of(at, &Prefix::namespace(label("base")));
            assert_eq!(kind(&base, &label("base")), Some(whole));
            assert!(covers(&one, "stix") && !covers(&one, "other") && !covers(&one, ""));
            assert!(covers(&all, "other") && covers(&all, "") && !covers(&base, "stix"));
            let steward = Principal {
                verbs: one.verbs.or(Verbs::of(&[Verb::Lifecycle])),
                ..one.clone()
            };
            let acts = if at == 1 { Kind::Steward } else { whole };
            assert_eq!(kind(&steward, &label("stix")), Some(acts));
            assert_eq!(kind(&steward, &label("base")), Some(narrow));
            let idle = Principal {
                verbs: Verbs::NONE,
                ..one
            };
            assert_eq!(kind(&idle, &label("base")), None);
        }
    }

    #[test]
    fn a_backend_is_one_only_on_a_base() {
        let who = Who::Backend {
            name: label("local"),
        };
        let backend = principal(who, &[Verb::Host], Prefix::EVERYTHING);
        assert_eq!(kind(&backend, &label("base")), Some(Kind::Backend));
        assert_eq!(kind(&backend, &label("stix")), None);
    }
}
