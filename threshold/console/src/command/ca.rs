//! `radix ca` and `radix login`: the owner, its invitations, and operators elsewhere.

use std::path::Path;

use base64::Engine as _;
use crux_core::identity::{UnixTime, Verb};
use crux_core::names::Label;
use crux_net::identity::{Error, GrantLine, GrantTerms, Invitation, OwnerStore};
use crux_net::rpc;

use crate::args::{self, CaCommand, ToolVerb};
use crate::command::ca_deny::{Enrolled, Wanted};
use crate::connection::{Base, Contact};
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::operator::{self, label, owner};
use crate::output;

/// Refuses to look at, or change, an owner that nobody has made: only what lets somebody in makes one.
fn refuse_ownerless(home: &Home, command: &CaCommand) -> Outcome<()> {
    let makes = matches!(command, CaCommand::Invite { .. } | CaCommand::Issue { .. });
    if makes || home.join("owner").exists() {
        return Ok(());
    }
    let nobody = format!("{} has no owner yet", home.root().display());
    Err(Failure::failed(nobody).hint("the first `radix up DIR` makes its keys"))
}

/// Runs `radix ca …`.
pub(crate) async fn run(command: CaCommand) -> Outcome<()> {
    let home = Home::open()?;
    if let CaCommand::Recover { key } = &command {
        return super::ca_root::recover(&home, key).await;
    }
    if let CaCommand::Leaf { file } = &command {
        return leaf(file).await;
    }
    refuse_ownerless(&home, &command)?;
    let owner = owner(&home)?;
    match command {
        CaCommand::Deny {
            names,
            with_enrolled,
            reason,
            yes,
        } => {
            let enrolled = if with_enrolled {
                Enrolled::Denied
            } else {
                Enrolled::Kept
            };
            let wanted = Wanted {
                names: &names,
                reason: &reason,
                enrolled,
            };
            super::ca_deny::run(&home, &owner, &wanted, yes).await
        }
        CaCommand::List { format } => super::ca_deny::list(&home, &owner, format).await,
        CaCommand::Show => {
            show(&owner);
            Ok(())
        }
        CaCommand::Rotate { recovery, yes } => {
            super::ca_root::rotate(&home, &owner, recovery.as_deref(), yes).await
        }
        CaCommand::Recovery { erase } => super::ca_root::recovery(&owner, erase),
        // Handled above: they need no owner.
        CaCommand::Recover { .. } | CaCommand::Leaf { .. } => Ok(()),
        CaCommand::Issue {
            key,
            namespace,
            operator,
            tool,
            verbs,
            days,
        } => {
            let who = match (&operator, &tool) {
                (Some(name), _) => Kind::Operator(name),
                (None, Some(name)) => Kind::Tool(name),
                (None, None) => return Err(Failure::usage("nobody is named")),
            };
            let terms = terms(namespace.as_deref(), &verbs, days)?;
            let key = &key;
            issue(&home, &owner, &Issued { key, who, terms })
        }
        CaCommand::Invite {
            namespace,
            label: name,
            pool,
            operator,
            tool,
            verbs,
            days,
            within,
        } => {
            let owner = owner
                .claimable_within(within)
                .map_err(|error| Failure::usage("cannot make an invitation").because(&error))?;
            let terms = terms(namespace.as_deref(), &verbs, days)?;
            let namespace = terms.namespace.clone().unwrap_or_else(Label::base);
            let invitation = match (operator, tool, pool, name) {
                (Some(name), ..) => owner.invite_operator(&label("an operator", &name)?, &terms),
                (_, Some(name), ..) => owner.invite_tool(&label("a tool", &name)?, &terms),
                (_, _, Some(count), _) => owner.invite_pool(&namespace, count),
                (_, _, _, Some(name)) => owner.invite_named(&namespace, &label("a rnode", &name)?),
                _ => {
                    return Err(Failure::usage("nobody is named")
                        .hint("give a label, or --pool COUNT, --operator NAME or --tool NAME"));
                }
            };
            let invitation = invitation.map_err(|error| {
                let failure = Failure::failed("cannot make an invitation").because(&error);
                match error {
                    Error::NoRoot(_) | Error::Invitation(_) => failure.with_fault(Fault::Refused),
                    _ => failure,
                }
            })?;
            let base = Contact::of_base(&home).map(|contact| contact.address());
            let invitation = invitation.with_hints(base);
            match Base::find(&home).await? {
                Some(base) => drop(operator::hand_over_invitations(&owner, &base).await?),
                None => output::talk("no base runs to revoke it if nobody comes: `radix up` does"),
            }
            output::talk("whoever has this line can join once; hand it over by a safe way");
            output::line(&invitation.encode());
            Ok(())
        }
    }
}

fn terms(namespace: Option<&str>, verbs: &[ToolVerb], days: Option<u32>) -> Outcome<GrantTerms> {
    let namespace = namespace
        .map(|text| label("a namespace", text))
        .transpose()?;
    let verbs = verbs.iter().map(|verb| match verb {
        ToolVerb::Lifecycle => Verb::Lifecycle,
    });
    Ok(GrantTerms {
        namespace,
        verbs: verbs.collect(),
        days,
    })
}

/// Runs `radix ca issue`.
fn issue(home: &Home, owner: &OwnerStore, wanted: &Issued<'_>) -> Outcome<()> {
    let key = crux_net::identity::decode_key(wanted.key).map_err(|error| {
        Failure::usage("this is not a public key")
            .because(&error)
            .hint("`radix login --show-key` prints it, where the grant is to be used")
    })?;
    let line = match wanted.who {
        Kind::Operator(name) => {
            owner.issue_operator(&label("an operator", name)?, &wanted.terms, &key)
        }
        Kind::Tool(name) => owner.issue_tool(&label("a tool", name)?, &wanted.terms, &key),
    };
    let line = line.map_err(|error| Failure::failed("cannot issue a grant").because(&error))?;
    let base = Contact::of_base(home).map(|contact| contact.address());
    output::talk("this line is no secret: it helps nobody but the holder of that key");
    output::line(&line.with_hints(base).encode());
    Ok(())
}

/// What `radix ca issue` is asked for.
struct Issued<'a> {
    key: &'a str,
    who: Kind<'a>,
    terms: GrantTerms,
}

/// As whom somebody comes in, under a name.
enum Kind<'a> {
    Operator(&'a str),
    Tool(&'a str),
}

fn show(owner: &OwnerStore) {
    let charter = owner.charter();
    output::line(&format!("owner     {}", owner.owner()));
    output::line(&format!(
        "charter   {}, generation {}, {} root keys",
        charter.id().short(),
        charter.generation(),
        charter.roots().len()
    ));
    let root = if owner.has_root() {
        "here"
    } else {
        "elsewhere"
    };
    output::line(&format!("root key  {root}"));
    for line in operator::rival_lines(owner) {
        output::line(&format!("rival     {line}"));
    }
}

/// Runs `radix ca leaf`: a short-lived certificate in a file, and the words that call the base with it.
pub(crate) async fn leaf(file: &Path) -> Outcome<()> {
    let home = Home::locate()?;
    let credentials = crate::operator::credentials(&home)?;
    let until = credentials
        .export_leaf(file)
        .map_err(|error| Failure::failed("cannot write a leaf").because(&error))?;
    let minutes = until
        .seconds()
        .saturating_sub(crate::clock::unix_ms() / 1000)
        / 60;
    output::talk(&format!(
        "whoever has {} is you for {minutes} minutes; your key stays where it is",
        file.display()
    ));
    let Some(contact) = Contact::of_base(&home) else {
        return Ok(());
    };
    let expected = crate::operator::expect_rnode(&contact.rnode)?;
    let Ok(key) = rpc::key_of(&contact.address(), &credentials, expected).await else {
        output::talk("no base rnode answers; `radix up` starts one");
        return Ok(());
    };
    let digest = ring::digest::digest(&ring::digest::SHA256, &key.spki());
    let pin = base64::engine::general_purpose::STANDARD.encode(digest);
    output::line(&format!(
        "curl --cert {} --insecure --pinnedpubkey sha256//{pin} --json '{{}}' https://{}/radix.fulcrum.v1.Fulcrum/Describe",
        file.display(),
        contact.address()
    ));
    Ok(())
}

/// Runs `radix login`.
pub(crate) async fn login(args: &args::Login) -> Outcome<()> {
    if args.show_key {
        let home = Home::open()?;
        let key = OwnerStore::shown_key(home.root())
            .map_err(|error| Failure::failed("cannot show a key").because(&error))?;
        output::line(&crux_net::identity::encode_key(&key));
        return Ok(());
    }
    let mut text = args.invitation.clone().unwrap_or_default();
    if text == "-" {
        text.clear();
        std::io::stdin().read_line(&mut text)?;
    }
    let home = Home::open()?;
    let (owner, claim_by) = enrol(&home, text.trim())?;
    let who = owner
        .credentials()
        .map_err(|error| Failure::failed("cannot log in").because(&error))?
        .principal();
    let who = who.map_err(|error| Failure::failed("cannot log in").because(&error))?;
    output::line(&format!("{who} of owner {}", owner.owner()));
    // Who was never met is taken for somebody who did not come.
    let met = match Base::find(&home).await {
        Ok(Some(base)) => base.itself().describe().await.is_ok(),
        Ok(None) | Err(_) => false,
    };
    if let Some(claim_by) = claim_by.filter(|_| !met) {
        output::talk(&format!(
            "the base does not answer: call it, e.g. by `radix ps`, before {claim_by}, or the invitation is revoked"
        ));
    }
    Ok(())
}

/// Comes in by an invitation, which says until when, or with a grant for a key that was shown.
fn enrol(home: &Home, line: &str) -> Outcome<(OwnerStore, Option<UnixTime>)> {
    let failed = |error| Failure::failed("cannot log in").because(&error);
    if GrantLine::is_meant(line) {
        let grant = GrantLine::decode(line)
            .map_err(|error| Failure::usage("this is not a grant").because(&error))?;
        let owner = OwnerStore::login_with_grant(home.root(), &grant).map_err(failed)?;
        return Ok((owner, None));
    }
    let invitation = Invitation::decode(line)
        .map_err(|error| Failure::usage("this is not an invitation").because(&error))?;
    let owner = OwnerStore::login(home.root(), &invitation).map_err(failed)?;
    Ok((owner, Some(invitation.claim_by())))
}
