//! The operator's side of identity: credentials, signatures, the base's invitation and its grants.

use crux_core::names::{Label, RnodeId};
use crux_net::identity::{AUTHORITY_BYTES_MAX, Credentials, Expect, OwnerStore, RnodeIdentity};
use crux_wire::document::v1::{Document, Pin, SignedDocument};
use crux_wire::fulcrum::v1::{
    DescribeReply, GetAuthorityRequest, PutAuthorityRequest, PutDocumentRequest,
};
use prost::Message as _;

use crate::base_start::Ourselves;
use crate::connection::{Base, limited};
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;

/// The namespace, application and label of a machine's own rnode.
pub(crate) const BASE: &str = "base";
/// The reserved configuration, and its one command.
pub(crate) const RADIX: &str = "radix";

/// The owner of this state directory, made at the first call.
pub(crate) fn owner(home: &Home) -> Outcome<OwnerStore> {
    let owner = OwnerStore::open_or_create(home.root()).map_err(|error| {
        Failure::usage("cannot open the owner's keys")
            .because(&error)
            .hint("set RADIX_HOME to a directory of your own")
    })?;
    if owner.is_new() {
        tell_recovery(&owner)?;
    }
    Ok(owner)
}

/// Shows the recovery key on a terminal, and erases it here; without one says how to see it.
pub(crate) fn tell_recovery(owner: &OwnerStore) -> Outcome<()> {
    let failed = |error| Failure::failed("cannot use the recovery key").because(&error);
    if !crate::output::watched() {
        crate::output::talk("`radix ca recovery` shows the key that can replace a lost root key");
        return Ok(());
    }
    if let Some(key) = owner.recovery_key().map_err(failed)? {
        crate::output::talk("the recovery key, shown once; keep it where this machine is not:");
        crate::output::talk(&key);
        owner.erase_recovery_key().map_err(failed)?;
    }
    Ok(())
}

/// What connections of the operator show.
pub(crate) fn credentials(home: &Home) -> Outcome<Credentials> {
    let owner = owner(home)?;
    owner
        .credentials()
        .map_err(|error| Failure::failed("cannot act as operator").because(&error))
}

/// The owner's id in hex.
pub(crate) fn owner_id(home: &Home) -> Outcome<String> {
    Ok(owner(home)?.owner().to_string())
}

/// A label, or a usage failure that names what it is for.
pub(crate) fn label(what: &str, text: &str) -> Outcome<Label> {
    Label::new(text)
        .map_err(|error| Failure::usage(format!("`{text}` cannot name {what}")).because(&error))
}

/// The rnode with this permanent name and no other.
pub(crate) fn expect_rnode(id: &str) -> Outcome<Expect> {
    let id: RnodeId = id
        .parse()
        .map_err(|_| Failure::failed(format!("`{id}` is not the name of a rnode")))?;
    Ok(Expect::Rnode(id))
}

/// A rnode with this label in this namespace.
pub(crate) fn expect_label(namespace: &str, name: &str) -> Outcome<Expect> {
    Ok(Expect::Label {
        namespace: label("a namespace", namespace)?,
        label: label("a rnode", name)?,
    })
}

/// The mark that processes of a rnode carry.
pub(crate) fn mark(home: &Home, namespace: &str, name: &str) -> Outcome<String> {
    let owner = owner_id(home)?;
    Ok(format!("{namespace}/{name}@{}", &owner[..8]))
}

/// Leaves an invitation for the base rnode, unless it has its identity already.
pub(crate) fn invite_base(home: &Home) -> Outcome<()> {
    let directory = home.base();
    let known = RnodeIdentity::open(&directory.join("identity"))
        .map_err(|error| Failure::failed("cannot read the base's identity").because(&error))?;
    if known.is_some() {
        return Ok(());
    }
    let invitation = owner(home)?
        .invite_named(&Label::base(), &Label::base())
        .map_err(|error| Failure::failed("cannot invite the base rnode").because(&error))?;
    crate::home::write_durably(
        &directory.join("invitation"),
        invitation.encode().as_bytes(),
    )?;
    Ok(())
}

/// Whether the identity of this machine's base is denied.
pub(crate) fn is_base_denied(home: &Home) -> bool {
    RnodeIdentity::is_denied(&home.base().join("identity"))
}

/// Gives the base another identity if its own is denied; its directories, and what it hosts, stay.
pub(crate) fn renew_base(home: &Home) -> Outcome<()> {
    if !is_base_denied(home) {
        return Ok(());
    }
    let identity = home.base().join("identity");
    crate::output::talk("note: the identity of this machine's base is denied; it gets another");
    RnodeIdentity::discard(&identity)
        .map_err(|error| Failure::failed("cannot discard the base's identity").because(&error))?;
    invite_base(home)
}

/// Signs a document as this operator.
pub(crate) fn sign(home: &Home, document: &Document) -> Outcome<SignedDocument> {
    let payload = document.encode_to_vec();
    let (signature, chain) = owner(home)?
        .sign_document(&payload)
        .map_err(|error| Failure::failed("cannot sign the document").because(&error))?;
    Ok(SignedDocument {
        payload,
        signature,
        chain,
    })
}

/// The grant that lets the base rnode host a namespace; empty without the root key.
pub(crate) fn host_grant(
    home: &Home,
    base: &DescribeReply,
    namespace: &str,
) -> Outcome<Vec<Vec<u8>>> {
    let owner = owner(home)?;
    if !owner.has_root() || namespace == BASE {
        return Ok(Vec::new());
    }
    owner
        .grant_host(&base.public_key_der, &label("a namespace", namespace)?)
        .map_err(|error| Failure::failed("cannot let the base host the namespace").because(&error))
}

/// Leaves charter and deny list in the identity of a base that does not run: it may have missed a rotation, and then
/// could not be told by an operator whose grant is newer.
pub(crate) fn leave_authority(home: &Home) -> Outcome<()> {
    let identity = home.base().join("identity");
    if !identity.join("chain").exists() || is_base_denied(home) {
        return Ok(());
    }
    let failed = |error| Failure::failed("cannot hand the deny list to the base").because(&error);
    let owner = owner(home)?;
    if let Some(base) = RnodeIdentity::open(&identity).map_err(failed)? {
        owner
            .take_authority(&base.trust().authority())
            .map_err(failed)?;
        base.trust()
            .take_authority(&owner.trust().authority())
            .map_err(failed)?;
    }
    Ok(())
}

/// Makes the base and this machine hold the same charter and deny list; nothing when they do already.
pub(crate) async fn exchange_authority(owner: &OwnerStore, base: &Base) -> Outcome<()> {
    let described = base.itself().describe().await?;
    if described.authority.as_ref() == Some(&owner.trust().authority_mark()) {
        return Ok(());
    }
    let mut fulcrum = base
        .itself()
        .fulcrum()
        .max_decoding_message_size(2 * AUTHORITY_BYTES_MAX);
    let theirs = fulcrum
        .get_authority(limited(GetAuthorityRequest::default()))
        .await;
    let theirs = theirs
        .map_err(|status| Failure::status("ask the base for the deny list", &status))?
        .into_inner();
    owner
        .take_authority(&theirs.authority.unwrap_or_default())
        .map_err(|error| Failure::failed("cannot keep the deny list").because(&error))?;
    let mark = owner.trust().authority_mark();
    if theirs.mark.as_ref() == Some(&mark) {
        return Ok(());
    }
    let request = PutAuthorityRequest {
        authority: Some(owner.trust().authority()),
        ..PutAuthorityRequest::default()
    };
    let told = fulcrum.put_authority(limited(request)).await;
    let told = told
        .map_err(|status| Failure::status("tell the base the deny list", &status))?
        .into_inner();
    if told.mark.as_ref() == Some(&mark) {
        return Ok(());
    }
    let rivals = owner.trust().rivals();
    if !rivals.is_empty() {
        for line in rival_lines(owner) {
            crate::output::talk(&format!("note: {line}"));
        }
        return Ok(());
    }
    let reasons = told.refused.join("; ");
    Err(Failure::new(
        Fault::Refused,
        format!("the base does not take all of it: {reasons}"),
    ))
}

/// Which charters stand against the one held here, and what ends it.
pub(crate) fn rival_lines(owner: &OwnerStore) -> Vec<String> {
    let held = owner.trust().charter();
    let rivals = owner.trust().rivals().into_iter();
    let lines = rivals.map(|rival| {
        format!(
            "charter {} (generation {}) stands against {} (generation {}), which is held here; \
             `radix ca recover KEY` ends it, with the recovery key of the last charter before the two, or, where the \
             root key is, of the other one",
            rival.id().short(),
            rival.generation(),
            held.id().short(),
            held.generation(),
        )
    });
    lines.collect()
}

/// Hands the invitations made here to the base, which revokes what nobody claims in time; answers how many.
pub(crate) async fn hand_over_invitations(owner: &OwnerStore, base: &Base) -> Outcome<usize> {
    let invitations = owner
        .pending_invitations()
        .map_err(|error| Failure::failed("cannot read the invitations made").because(&error))?;
    let count = invitations.len();
    if count == 0 {
        return Ok(0);
    }
    let request = PutAuthorityRequest {
        invitations,
        ..PutAuthorityRequest::default()
    };
    let told = base.itself().fulcrum().put_authority(request).await;
    let told = told
        .map_err(|status| Failure::status("hand the invitations to the base", &status))?
        .into_inner();
    for reason in told.refused {
        crate::output::talk(&format!("note: the base will not revoke this: {reason}"));
    }
    Ok(count)
}

/// Tells the base which radix executable it may run; nothing when it knows already.
pub(crate) async fn apply_base_document(
    home: &Home,
    base: &Base,
    ourselves: &Ourselves,
) -> Outcome<()> {
    let known = base.itself().held(BASE).await?;
    let present = known
        .document
        .as_ref()
        .filter(|_| known.found)
        .map(crate::command::up::decode)
        .transpose()?;
    let (_, size) = crate::base_start::open_store(home)?
        .open_verified(&ourselves.digest)
        .map_err(|error| Failure::failed("cannot read radix from the store").because(&error))?;
    let pin = Pin {
        path: ourselves.path.display().to_string(),
        digest: ourselves.digest.to_string(),
        size,
        executable: true,
        command: RADIX.to_owned(),
    };
    let mut document = Document {
        owner: owner_id(home)?,
        namespace: BASE.to_owned(),
        application: RADIX.to_owned(),
        pins: vec![pin],
        ..Document::default()
    };
    document.digest = crate::document::digest(&document).to_string();
    if present
        .as_ref()
        .is_some_and(|present| present.digest == document.digest && !known.held_back)
    {
        return Ok(());
    }
    let held = present.as_ref().map_or(0, |present| present.generation);
    document.generation = home.generation(BASE).max(held) + 1;
    document.base = held;
    document.signed_unix_ms = crate::clock::unix_ms();
    let request = PutDocumentRequest {
        document: Some(sign(home, &document)?),
        take_over: true,
        invite_grant: Vec::new(),
    };
    base.itself()
        .fulcrum()
        .put_document(request)
        .await
        .map_err(|status| Failure::status("hand over the base's document", &status))?;
    home.note_generation(BASE, document.generation)
}
