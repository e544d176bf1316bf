//! `radix ca deny` and `radix ca list`: whom the owner no longer lets in.

use crux_core::identity::{Denied, Enrols, Role};
use crux_net::identity::{IssuedCertificate, OwnerStore};
use serde::Serialize;

use crate::connection::Base;
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::operator;
use crate::output::{self, Format};

/// Runs `radix ca deny`.
pub(crate) async fn run(
    home: &Home,
    owner: &OwnerStore,
    names: &[String],
    reason: &str,
    yes: bool,
) -> Outcome<()> {
    let base = Base::find(home).await?;
    let mut denied = Vec::new();
    for name in names {
        denied.extend(resolve(owner, base.as_ref(), name).await?);
    }
    for one in &denied {
        output::talk(&format!("denies {one}, with all it vouches for"));
    }
    output::ask("This cannot be taken back. Deny?", yes)?;
    owner
        .deny(denied, reason)
        .map_err(|error| Failure::new(Fault::Refused, "cannot deny").because(&error))?;
    let Some(base) = base else {
        output::line("denied; rnodes are told at the next `radix up`");
        return Ok(());
    };
    operator::exchange_authority(owner, &base).await?;
    output::line("denied; the base is told, and tells its rnodes");
    Ok(())
}

/// What a name means: an id, an operator or tool the root knows, or a rnode that the base hosts.
async fn resolve(owner: &OwnerStore, base: Option<&Base>, name: &str) -> Outcome<Vec<Denied>> {
    if let Ok(denied) = name.parse() {
        return refuse_root(owner, vec![denied]);
    }
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let name = name.to_ascii_lowercase();
        let kinds = ["key", "rnode", "invitation"];
        let of = |kind| format!("{kind} {name}").parse().ok();
        return refuse_root(owner, kinds.into_iter().filter_map(of).collect());
    }
    let issued = owner
        .issued()
        .map_err(|error| Failure::failed("cannot read what was issued").because(&error))?;
    let mut found: Vec<(String, Denied)> =
        issued.iter().filter_map(|held| known(held, name)).collect();
    if let Some(base) = base {
        for horde in base.hordes().await? {
            let namespace = horde.namespace;
            let status = base.status(Some(&namespace)).await?;
            for rnode in &status.rnodes {
                let whole = format!("{namespace}/{}", rnode.label);
                if (rnode.label == name || whole == name)
                    && let Ok(id) = rnode.id.parse()
                {
                    found.push((format!("rnode {whole}"), Denied::Rnode(id)));
                }
            }
        }
    }
    let mut kinds: Vec<&str> = found.iter().map(|(what, _)| what.as_str()).collect();
    kinds.dedup();
    match kinds.as_slice() {
        [] => Err(Failure::usage(format!("nobody is known as `{name}`"))
            .hint("name a rnode as NAMESPACE/LABEL while it runs, or give a whole id")
            .hint("`radix rnodes --format json` and `radix ca show` print ids")),
        [_] => Ok(found.into_iter().map(|(_, denied)| denied).collect()),
        several => Err(Failure::usage(format!("`{name}` is more than one"))
            .hint(format!("{}; give a whole id", several.join(", ")))),
    }
}

/// An operator or tool by its label; one that came by invitation is denied with the invitation.
fn known(held: &IssuedCertificate, name: &str) -> Option<(String, Denied)> {
    match &held.grant.role {
        Role::Operator { label } if *label == *name => {
            Some((format!("operator {name}"), Denied::Key(held.key.id())))
        }
        Role::Tool { label } if *label == *name => {
            Some((format!("tool {name}"), Denied::Key(held.key.id())))
        }
        Role::Invitation {
            enrols: Enrols::Operator,
            label: Some(label),
        } if *label == *name => Some((
            format!("operator {name}"),
            Denied::Invitation(held.key.invitation_id()),
        )),
        _ => None,
    }
}

fn refuse_root(owner: &OwnerStore, denied: Vec<Denied>) -> Outcome<Vec<Denied>> {
    let roots = owner.charter().roots().iter();
    let mut ids = roots.map(|root| Denied::Key(root.id()));
    if ids.any(|root| denied.contains(&root)) {
        return Err(Failure::new(Fault::Refused, "a root key cannot be denied")
            .hint("`radix ca rotate` replaces it"));
    }
    Ok(denied)
}

/// One notice, as `--format json` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    denied: Vec<String>,
    reason: String,
    signer: String,
    at: u64,
}

/// Runs `radix ca list`.
pub(crate) fn list(owner: &OwnerStore, format: Format) -> Outcome<()> {
    let shown: Vec<Shown> = owner
        .trust()
        .notices()
        .into_iter()
        .map(|(notice, signer)| Shown {
            denied: notice.denied.iter().map(ToString::to_string).collect(),
            reason: notice.reason,
            signer,
            at: notice.at.seconds(),
        })
        .collect();
    if format == Format::Json {
        return output::json(&shown);
    }
    let rows: Vec<_> = shown
        .iter()
        .flat_map(|notice| {
            notice
                .denied
                .iter()
                .map(|denied| vec![denied.clone(), notice.signer.clone(), notice.reason.clone()])
        })
        .collect();
    output::table(&["DENIED", "BY", "REASON"], &rows);
    Ok(())
}
