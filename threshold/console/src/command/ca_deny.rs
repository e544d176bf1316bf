//! `radix ca deny` and `radix ca list`: whom the owner no longer lets in.

use crux_core::identity::{Denied, Enrols, Refusal, Role, is_signed_by};
use crux_core::names::Label;
use crux_net::identity::{IssuedCertificate, OwnerStore, enrolled_chain};
use serde::Serialize;

use crate::connection::{Base, Unmet};
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::operator;
use crate::output::{self, Format};

/// What becomes of the rnodes that a denied operator enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enrolled {
    /// The root vouches for them.
    Kept,
    /// They are denied with it.
    Denied,
}

/// What is to be denied.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) names: &'a [String],
    pub(crate) reason: &'a str,
    pub(crate) enrolled: Enrolled,
}

/// Runs `radix ca deny`.
pub(crate) async fn run(
    home: &Home,
    owner: &OwnerStore,
    wanted: &Wanted<'_>,
    yes: bool,
) -> Outcome<()> {
    let base = Base::find(home).await?;
    let mut denied = Vec::new();
    for name in wanted.names {
        denied.extend(resolve(owner, base.as_ref(), name).await?);
    }
    let mut vouched = Vec::new();
    for one in &denied {
        let effect = effect(owner, one, wanted.enrolled)?;
        effect.lines.iter().for_each(|line| output::talk(line));
        vouched.extend(effect.vouched);
    }
    output::ask("This cannot be taken back. Deny?", yes)?;
    let refused = |error| Failure::new(Fault::Refused, "cannot deny").because(&error);
    // Ordering: cut off between the two, nobody is lost.
    owner.vouch(&vouched).map_err(refused)?;
    owner.deny(denied, wanted.reason).map_err(refused)?;
    let Some(base) = base else {
        output::line("denied; rnodes are told at the next `radix up`");
        return Ok(());
    };
    if owner.credentials().is_ok_and(|own| own.principal().is_ok()) {
        operator::exchange_authority(owner, &base).await?;
    } else if vouched.is_empty() {
        // Whoever hears of its own denial cuts us off before it answers.
        let _ = operator::exchange_authority(owner, &base).await;
    } else {
        // We denied our own key: where the root is, there is another at once.
        let owner = operator::owner(home)?;
        let base = Base::require(home).await?;
        operator::exchange_authority(&owner, &base).await?;
    }
    output::line("denied; the base is told, and tells its rnodes");
    if owner.has_root() && denies_our_base(home, owner) {
        output::line(
            "this machine's base ends with it: the next `radix up` gives it another identity",
        );
    }
    Ok(())
}

/// Whether the base of this machine came in by what is denied now.
fn denies_our_base(home: &Home, owner: &OwnerStore) -> bool {
    let chain = enrolled_chain(&home.base().join("identity"));
    chain.is_some_and(|chain| matches!(owner.trust().recheck(&chain), Err(Refusal::Denied(_))))
}

/// What a denial does besides.
struct Effect {
    /// For people, before they are asked.
    lines: Vec<String>,
    /// Invitations of rnodes for which the root is to vouch first.
    vouched: Vec<IssuedCertificate>,
}

/// What stops working with `denied`, and who stays.
fn effect(owner: &OwnerStore, denied: &Denied, enrolled: Enrolled) -> Outcome<Effect> {
    let failed = |error| Failure::failed("cannot read what was issued").because(&error);
    let issued = owner.issued().map_err(failed)?;
    let operator = issued.iter().find(|held| {
        matches!(held.grant.role, Role::Operator { .. }) && *denied == Denied::Key(held.key.id())
    });
    let Some(operator) = operator else {
        let whom = whom(owner, &issued, denied)?;
        return Ok(Effect {
            lines: vec![format!("denies {whom}, with all it vouches for")],
            vouched: Vec::new(),
        });
    };
    let mut lines = vec![format!(
        "denies operator {}; documents it signed are held back until another operator runs `radix up`",
        name_of(operator)
    )];
    let rnodes = owner.enrolled_by(&operator.key).map_err(failed)?;
    let keeps = enrolled == Enrolled::Kept && owner.has_root();
    for rnode in &rnodes {
        let fate = if keeps {
            "stays: the root vouches for whoever came in by its invitation"
        } else if owner.has_root() {
            "is denied with it"
        } else {
            "is denied with it: the root key, which could vouch for it, is not here"
        };
        lines.push(format!("  {} {fate}", name_of(rnode)));
    }
    let invited = owner.invited().map_err(failed)?;
    let tools = invited.iter().filter(|held| {
        matches!(
            held.grant.role,
            Role::Invitation {
                enrols: Enrols::Tool,
                ..
            }
        ) && is_signed_by(&held.der, &operator.key)
    });
    lines.extend(tools.map(|tool| format!("  {} is denied with it", name_of(tool))));
    Ok(Effect {
        lines,
        vouched: if keeps { rnodes } else { Vec::new() },
    })
}

/// Whom a denial means, for people: by name where it was certified here.
fn whom(owner: &OwnerStore, issued: &[IssuedCertificate], denied: &Denied) -> Outcome<String> {
    let failed = |error| Failure::failed("cannot read what was issued").because(&error);
    let invited = owner.invited().map_err(failed)?;
    let is_it = |held: &&IssuedCertificate| {
        *denied == Denied::Key(held.key.id())
            || *denied == Denied::Invitation(held.key.invitation_id())
    };
    let held = issued.iter().chain(&invited).find(is_it);
    Ok(held.map_or_else(
        || denied.to_string(),
        |held| format!("{} ({denied})", name_of(held)),
    ))
}

/// Whom a certificate is for, for people.
fn name_of(held: &IssuedCertificate) -> String {
    let namespace = held.grant.prefix.one_namespace();
    let over = namespace.map_or_else(|| "everything".to_owned(), ToString::to_string);
    match &held.grant.role {
        Role::Operator { label } => format!("{label} (key {})", held.key.id().short()),
        Role::Invitation { enrols, label } => {
            let label = label.as_ref().map_or("*", Label::as_str);
            match enrols {
                Enrols::Rnode => format!("rnode {over}/{label}"),
                Enrols::Operator => format!("operator {label}"),
                Enrols::Tool => format!("tool {label} of {over}"),
            }
        }
        role => role.name().to_owned(),
    }
}

/// What a name means: an id, an operator or tool that was certified here, or a rnode that the base hosts.
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
    let mut found = certified(owner, name)?;
    if let Some(base) = base {
        found.extend(hosted(base, name).await?);
    }
    found.sort_by_key(|(_, denied)| *denied);
    found.dedup_by_key(|(_, denied)| *denied);
    match found.as_slice() {
        [] => Err(Failure::usage(format!("nobody is known as `{name}`"))
            .hint("name a rnode as NAMESPACE/LABEL while it runs, or give a whole id")
            .hint("`radix rnodes --format json` and `radix ca show` print ids")),
        [(_, denied)] => Ok(vec![*denied]),
        several => {
            let failure = Failure::usage(format!("`{name}` is more than one; give a whole id"));
            Err(several.iter().fold(failure, |failure, (what, denied)| {
                failure.hint(format!("{what}: \"{denied}\""))
            }))
        }
    }
}

/// Operators and tools of this label that count.
fn certified(owner: &OwnerStore, name: &str) -> Outcome<Vec<(String, Denied)>> {
    let failed = |error| Failure::failed("cannot read what was issued").because(&error);
    let denies = owner.trust().denies();
    let held = owner.issued().map_err(failed)?.into_iter();
    let held = held.chain(owner.invited().map_err(failed)?);
    let counts = held.filter(|held| denies.find(&held.key).is_none());
    Ok(counts.filter_map(|held| known(&held, name)).collect())
}

/// Rnodes of this label that the base hosts.
async fn hosted(base: &Base, name: &str) -> Outcome<Vec<(String, Denied)>> {
    let mut found = Vec::new();
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
    Ok(found)
}

/// An operator or tool by its label; one that came by invitation is denied with the invitation.
fn known(held: &IssuedCertificate, name: &str) -> Option<(String, Denied)> {
    let denied = match &held.grant.role {
        Role::Operator { label } | Role::Tool { label } if *label == *name => {
            Denied::Key(held.key.id())
        }
        Role::Invitation {
            enrols: Enrols::Operator | Enrols::Tool,
            label: Some(label),
        } if *label == *name => Denied::Invitation(held.key.invitation_id()),
        _ => return None,
    };
    Some((name_of(held), denied))
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

/// One notice or verdict, as `--format json` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    denied: Vec<String>,
    reason: String,
    signer: String,
    /// When, in Unix seconds; `null` for a verdict, which says no time.
    at: Option<u64>,
}

/// Hears from the base what it knows, if there is one; else says why not.
async fn hear(home: &Home, owner: &OwnerStore) -> Result<(), String> {
    let base = match Base::meet(home).await {
        Ok(Ok(base)) => base,
        Ok(Err(Unmet::Nowhere)) => return Ok(()),
        Ok(Err(Unmet::Because(why))) => return Err(why),
        Err(failure) => return Err(failure.line()),
    };
    let heard = operator::exchange_authority(owner, &base).await;
    heard.map_err(|failure| failure.line())
}

/// Runs `radix ca list`.
pub(crate) async fn list(home: &Home, owner: &OwnerStore, format: Format) -> Outcome<()> {
    // What rnodes found out among themselves the base knows first.
    if let Err(why) = hear(home, owner).await {
        output::talk(&format!(
            "note: the base was not heard: {why}; this is what is known here"
        ));
    }
    let trust = owner.trust();
    let notices = trust.notices().into_iter().map(|(notice, signer)| Shown {
        denied: notice.lines(),
        reason: notice.reason,
        signer,
        at: Some(notice.at.seconds()),
    });
    let verdicts = trust.verdicts().into_iter().map(|judged| Shown {
        denied: vec![format!("rnode {}", judged.rival)],
        reason: format!(
            "invitation {} was claimed twice in a split; rnode {} stays",
            judged.claim.invitation, judged.holder
        ),
        signer: format!("rnode {}", judged.signer.taker),
        at: None,
    });
    let shown: Vec<Shown> = notices.chain(verdicts).collect();
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
