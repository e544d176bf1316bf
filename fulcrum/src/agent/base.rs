//! What only a base rnode answers: invitations and the state of hordes.

use std::sync::Arc;

use crux_core::identity::Principal;
use crux_core::names::Label;
use crux_wire::fulcrum::v1::{
    InviteReply, InviteRequest, PutHordeStateReply, PutHordeStateRequest,
};
use tonic::Status;

use super::context::{Agent, fields};
use super::documents::is_namespace;

/// Makes a named invitation for a nested rnode, with the grant that came with its namespace's document.
///
/// # Errors
/// `FailedPrecondition` without a live document, `PermissionDenied` without a grant.
pub(crate) async fn invite(
    agent: &Agent,
    caller: &Principal,
    wanted: &InviteRequest,
) -> Result<InviteReply, Status> {
    only_base(agent)?;
    let parse = |text: &str| {
        Label::new(text).map_err(|error| Status::invalid_argument(format!("invite: {error}")))
    };
    let (namespace, label) = (parse(&wanted.namespace)?, parse(&wanted.label)?);
    let live = agent.documents.acting(namespace.as_str());
    if live.is_none_or(|held| held.document.dissolved) {
        return Err(Status::failed_precondition(format!(
            "invite into {namespace}: no live document is held"
        )));
    }
    let inviter = agent
        .identity
        .inviter(&namespace)
        .map_err(|error| Status::permission_denied(format!("invite into {namespace}: {error}")))?
        .ok_or_else(|| {
            Status::permission_denied(format!("invite into {namespace}: no grant is held"))
        })?;
    let record = fields! {
        "namespace": wanted.namespace.clone(), "label": wanted.label.clone(),
        "caller": caller.to_string(),
    };
    let recorded = agent.record("invite", record).await;
    recorded.map_err(|error| Status::internal(format!("write the memoir: {error}")))?;
    let invitation = inviter
        .invite_named(&label)
        .map_err(|error| Status::internal(format!("invite into {namespace}: {error}")))?;
    super::invitations::keep_own(agent, &invitation)?;
    Ok(InviteReply {
        invitation: invitation.encode(),
    })
}

/// Keeps what a backend says of a horde, and passes its events on.
///
/// # Errors
/// `InvalidArgument`, or `FailedPrecondition` if a newer state is held.
pub(crate) async fn put_horde_state(
    agent: &Arc<Agent>,
    request: PutHordeStateRequest,
) -> Result<PutHordeStateReply, Status> {
    only_base(agent)?;
    let events = request.events;
    let pass_on = || {
        events
            .into_iter()
            .for_each(|event| agent.events.pass_on(event))
    };
    let Some(state) = request.state else {
        pass_on();
        return Ok(PutHordeStateReply {});
    };
    if !is_namespace(&state.namespace) {
        return Err(Status::invalid_argument(
            "keep a horde's state: its namespace is no label",
        ));
    }
    let (namespace, phase) = (state.namespace.clone(), state.phase.clone());
    let (generation, message) = (state.generation, state.message.clone());
    let before = agent
        .hordes
        .put(state)
        .map_err(|error| Status::failed_precondition(format!("keep a horde's state: {error}")))?;
    // Ordering: only with the state that they led to; what is not kept is told again, with its events.
    pass_on();
    if before.is_none_or(|before| before.phase != phase || before.generation != generation) {
        let fields = fields! {
            "namespace": namespace.clone(), "phase": phase.clone(), "generation": generation,
            "message": message.clone(),
        };
        agent.note("horde", fields).await;
        let text = if message.is_empty() {
            phase
        } else {
            format!("{phase}: {message}")
        };
        agent.tell_of(&namespace, "horde", &namespace, &text);
    }
    Ok(PutHordeStateReply {})
}

fn only_base(agent: &Agent) -> Result<(), Status> {
    if agent.is_base() {
        return Ok(());
    }
    Err(Status::unimplemented("serve this: only a base rnode does"))
}
