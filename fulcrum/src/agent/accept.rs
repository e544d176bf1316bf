//! Taking a document: signature, rule, disk, memoir, in this order, before anyone is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use crux_core::identity::{DOCUMENT_CONTEXT, Principal, Refusal, Signed, Verb, Who, is_as_signed};
use crux_core::names::Label;
use crux_net::identity::{Acceptance, Trust};
use crux_wire::document::v1::{Build, Document, SignedDocument};
use crux_wire::fulcrum::v1::{PutDocumentReply, PutDocumentRequest};
use prost::Message;
use tonic::Status;

use super::context::{Agent, BASE, fields};
use super::describe;
use super::documents::{Accepting, Judge, Verdict, judge};
use super::guard::covers;
use super::hordes::DISSOLVED;
use super::limits::DOCUMENT_BYTES_MAX;

/// How the refusal of a document begins where the rnode is about to end; another one may take it.
pub const EXITING: &str = "exiting:";

/// How the refusal to end begins where something has not ended that a base holds.
pub const OCCUPIED: &str = "occupied:";

/// What became of an offered document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is held now.
    New,
    /// It was held already, under this generation.
    Unchanged(u64),
}

/// Takes a document that a caller put.
///
/// # Errors
/// `FailedPrecondition` beginning with `stale:` for an old one, `PermissionDenied` for one that is not ours to take,
/// `Unavailable` beginning with [`EXITING`] where this rnode is about to end.
pub(crate) async fn put_document(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: PutDocumentRequest,
) -> Result<PutDocumentReply, Status> {
    let signed = request.document;
    let signed =
        signed.ok_or_else(|| Status::invalid_argument("take a document: there is none"))?;
    let (document, signer) = verify(agent, &signed, Acceptance::New)?;
    if !covers(caller, &document.namespace) {
        agent
            .memoir
            .refused(&caller.to_string(), "document/namespace");
        return Err(Status::permission_denied(format!(
            "take the document: {caller} has no say in {}",
            document.namespace
        )));
    }
    let turn = agent.accepting.lock().await;
    if !request.invite_grant.is_empty() && agent.is_base() {
        keep_grant(agent, &document, &request.invite_grant)?;
    }
    let generation = document.generation;
    let from = caller.to_string();
    let by = (&signer, from.as_str());
    let taken = take_in_turn(agent, *turn, (signed, document), by, request.take_over).await;
    match taken? {
        Taken::New => Ok(PutDocumentReply {
            generation,
            unchanged: false,
        }),
        Taken::Unchanged(generation) => Ok(PutDocumentReply {
            generation,
            unchanged: true,
        }),
    }
}

/// Refuses to end a base that holds what has not ended; to be asked with [`Agent::accepting`] held.
///
/// # Errors
/// `FailedPrecondition` beginning with [`OCCUPIED`], which names what the caller may know of; nothing changed.
pub(crate) fn refuse_occupied(agent: &Agent, caller: &Principal) -> Result<(), Status> {
    let mut living = describe::hordes(agent);
    living.retain(|horde| horde.phase != DISSOLVED);
    if living.is_empty() {
        return Ok(());
    }
    agent.memoir.refused(&caller.to_string(), "exit/occupied");
    let all = living.len();
    living.retain(|horde| covers(caller, &horde.namespace));
    let mut names: Vec<String> = living
        .iter()
        .map(|horde| format!("{} generation {}", horde.namespace, horde.generation))
        .collect();
    let hidden = all - names.len();
    if hidden > 0 {
        names.push(format!("{hidden} of others"));
    }
    Err(Status::failed_precondition(format!(
        "{OCCUPIED} this base holds what has not ended: {}",
        names.join(", ")
    )))
}

/// Checks size and signature (of one that others accepted before, without the clock), and that the signer may speak for the namespace.
///
/// # Errors
/// `InvalidArgument` or `PermissionDenied`; the latter is counted in the memoir.
pub(crate) fn verify(
    agent: &Agent,
    signed: &SignedDocument,
    acceptance: Acceptance,
) -> Result<(Document, Principal), Status> {
    if signed.encoded_len() > DOCUMENT_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "take a document of more than {DOCUMENT_BYTES_MAX} bytes"
        )));
    }
    let refuse = |reason: String| {
        agent.memoir.refused("document", &reason);
        Status::permission_denied(format!("take the document: {reason}"))
    };
    let thing = Signed {
        context: DOCUMENT_CONTEXT,
        payload: &signed.payload,
        signature: &signed.signature,
        chain: &signed.chain,
    };
    let signer = agent
        .identity
        .trust()
        .verify_signed(&thing, acceptance)
        .map_err(|refusal| refuse(refusal.to_string()))?;
    let document = Document::decode(signed.payload.as_slice())
        .map_err(|error| Status::invalid_argument(format!("read the document: {error}")))?;
    let namespace = Label::new(&document.namespace)
        .map_err(|error| Status::invalid_argument(format!("read the document: {error}")))?;
    let may = match &signer.who {
        Who::Operator { .. } => signer.may(Verb::Operator, &namespace),
        Who::Tool { .. }
        | Who::Rnode { .. }
        | Who::App { .. }
        | Who::Host { .. }
        | Who::Backend { .. } => {
            return Err(refuse(format!("{signer} may not sign documents")));
        }
    };
    may.map_err(|refusal| refuse(refusal.to_string()))?;
    Ok((document, signer))
}

/// Whether a document that lies on disk is as somebody of this owner signed it; whether that one still counts is judged
/// elsewhere.
pub(crate) fn is_whole(trust: &Trust, signed: &SignedDocument) -> bool {
    let thing = Signed {
        context: DOCUMENT_CONTEXT,
        payload: &signed.payload,
        signature: &signed.signature,
        chain: &signed.chain,
    };
    // The signature for itself: a chain that no longer counts is refused before it is looked at.
    is_as_signed(&thing).is_ok()
        && !matches!(
            trust.verify_signed(&thing, Acceptance::Kept),
            Err(Refusal::BadSignature
                | Refusal::NoCertificate
                | Refusal::ForeignOwner(_)
                | Refusal::Malformed(_)
                | Refusal::NotP256
                | Refusal::WrongUse(_))
        )
}

/// Judges and keeps a verified document.
///
/// # Errors
/// As [`put_document`].
pub(crate) async fn take(
    agent: &Agent,
    signed: SignedDocument,
    document: Document,
    (signer, caller): (&Principal, &str),
    take_over: bool,
) -> Result<Taken, Status> {
    // One at a time: two documents of one generation must not both be accepted.
    let turn = agent.accepting.lock().await;
    take_in_turn(
        agent,
        *turn,
        (signed, document),
        (signer, caller),
        take_over,
    )
    .await
}

async fn take_in_turn(
    agent: &Agent,
    accepting: Accepting,
    (signed, document): (SignedDocument, Document),
    (signer, caller): (&Principal, &str),
    take_over: bool,
) -> Result<Taken, Status> {
    let namespace = document.namespace.clone();
    let held = agent.documents.newest(&namespace);
    let owner = agent.me.owner.to_string();
    // One that is held back asks for nothing: the same again, well signed, is news.
    let acting = agent.documents.acting(&namespace);
    let verdict = judge(
        &Judge {
            owner: &owner,
            own_namespace: (!agent.is_base()).then(|| agent.me.namespace.as_str()),
            highest: agent.documents.highest(&namespace).generation,
            held: acting.as_ref().map(|held| &held.document),
            take_over,
            accepting,
        },
        &document,
    );
    match verdict {
        Verdict::Accept => {}
        Verdict::Unchanged => {
            let generation = held.map_or(document.generation, |held| held.document.generation);
            return Ok(Taken::Unchanged(generation));
        }
        Verdict::Stale(reason) => {
            agent.memoir.refused(caller, "document/stale");
            return Err(Status::failed_precondition(format!("stale: {reason}")));
        }
        Verdict::Exiting => {
            return Err(Status::unavailable(format!(
                "{EXITING} this rnode is about to end, and what it took would end with it"
            )));
        }
        Verdict::Refused(reason) => {
            agent.memoir.refused(caller, "document/refused");
            return Err(Status::permission_denied(format!(
                "take the document: {reason}"
            )));
        }
    }
    let commands: Vec<String> = document
        .pins
        .iter()
        .filter(|pin| !pin.command.is_empty())
        .map(|pin| format!("{}={}", pin.command, pin.digest))
        .collect();
    let record = fields! {
        "namespace": namespace.clone(), "generation": document.generation,
        "digest": document.digest.clone(), "signer": signer.to_string(),
        "caller": caller, "dissolved": document.dissolved, "commands": commands,
    };
    let recorded = agent.record("document.accept", record).await;
    recorded.map_err(|error| Status::internal(format!("write the memoir: {error}")))?;
    if agent.is_base() {
        let known = held.as_ref().map(|held| held.document.builds.as_slice());
        record_builds(agent, &document, known.unwrap_or_default()).await?;
    }
    let (generation, dissolved) = (document.generation, document.dissolved);
    let kept = agent.documents.accept(signed, document);
    kept.map_err(|error| Status::internal(format!("keep the document: {error}")))?;
    let what = if dissolved {
        "is to end"
    } else {
        "is accepted"
    };
    let text = format!("generation {generation} {what}");
    agent.tell_of(&namespace, "document", &namespace, &text);
    Ok(Taken::New)
}

/// Writes down the executions that made what a document asks for, but those that the last one told of.
async fn record_builds(agent: &Agent, document: &Document, known: &[Build]) -> Result<(), Status> {
    let mut told: BTreeSet<&str> = known.iter().map(|build| build.record.as_str()).collect();
    for build in &document.builds {
        if !told.insert(&build.record) {
            continue;
        }
        let made = document.builds.iter();
        let made = made.filter(|other| other.record == build.record);
        let outputs: Vec<String> = made
            .map(|made| format!("{}={}", made.path, made.digest))
            .collect();
        let record = fields! {
            "namespace": document.namespace.clone(), "generation": document.generation,
            "record": build.record.clone(), "name": build.name.clone(),
            "execution": build.dictum.clone(), "dictum": build.dictum_digest.clone(),
            "inputs": build.inputs_digest.clone(), "input_files": build.inputs,
            "outputs": outputs, "exit": build.exit,
            "started_unix_ms": build.started_unix_ms, "duration_ms": build.duration_ms,
        };
        let recorded = agent.record("build.execution", record).await;
        recorded.map_err(|error| Status::internal(format!("write the memoir: {error}")))?;
    }
    Ok(())
}

/// Keeps the grant to host a namespace, which comes with its document.
fn keep_grant(agent: &Agent, document: &Document, grant: &[Vec<u8>]) -> Result<(), Status> {
    if document.namespace == BASE {
        return Ok(());
    }
    let namespace = Label::new(&document.namespace)
        .map_err(|error| Status::invalid_argument(format!("read the document: {error}")))?;
    agent
        .identity
        .add_host_grant(&namespace, grant)
        .map_err(|error| Status::permission_denied(format!("keep the grant: {error}")))
}
