//! `radix ca rotate`, `recovery` and `recover`: replacing the root key.

use crux_net::identity::{Error, OwnerStore, Rotated};

use crate::connection::Base;
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::operator;
use crate::output;

/// Runs `radix ca rotate`.
pub(crate) async fn rotate(
    home: &Home,
    owner: &OwnerStore,
    recovery: Option<&str>,
    yes: bool,
) -> Outcome<()> {
    if !owner.has_root() {
        return Err(refused(
            "cannot rotate",
            &Error::NoRoot("replace the root key"),
        ));
    }
    output::talk("replaces the root key and the recovery key");
    output::ask("Rotate?", yes)?;
    let recovery = recovery.map(given).transpose()?;
    // What it shows counts under the old charter and the new one.
    let base = Base::find(home).await?;
    let rotated = owner
        .rotate(recovery.as_deref())
        .map_err(|error| refused("cannot rotate", &error))?;
    tell_left_out(rotated);
    output::talk(if rotated.by_recovery {
        "the old keys are worth nothing any more"
    } else {
        "the old recovery key did not sign: it can still overturn this, so destroy it"
    });
    spread(home, base).await
}

/// Runs `radix ca recover`.
pub(crate) async fn recover(home: &Home, key: &str) -> Outcome<()> {
    let text = given(key)?;
    let recovered = OwnerStore::recover(home.root(), &text);
    tell_left_out(recovered.map_err(|error| refused("cannot recover", &error))?);
    spread(home, None).await
}

/// Says what no longer counts although nobody denied it.
fn tell_left_out(rotated: Rotated) {
    if rotated.left_out > 0 {
        output::talk(&format!(
            "{} grants that have ended are not carried over, for want of room: what they signed is held back until the \
             next `radix up`",
            rotated.left_out
        ));
    }
}

/// A key as given, or from standard input.
fn given(key: &str) -> Outcome<String> {
    let mut text = key.to_owned();
    if text == "-" {
        text.clear();
        std::io::stdin().read_line(&mut text)?;
    }
    Ok(text)
}

fn refused(what: &str, error: &Error) -> Failure {
    let failure = Failure::failed(what).because(error);
    match error {
        Error::NoRoot(_) | Error::Recovery(_) | Error::NotCounted(_) => {
            failure.with_fault(Fault::Refused)
        }
        Error::RecoveryText(_) => failure
            .with_fault(Fault::Usage)
            .hint("`radix ca recovery` prints it, and it begins with radixrecovery1"),
        Error::Full(_) => failure.with_fault(Fault::Refused).hint(
            "`radix ca deny NAME` those who no longer need to come in, e.g. operators: whom the root denied is not carried \
             over; and what a base was granted goes with it, at the last `radix down`",
        ),
        _ => failure,
    }
}

/// Tells the base, and says what to do next.
async fn spread(home: &Home, base: Option<Base>) -> Outcome<()> {
    let owner = operator::owner(home)?;
    output::line(&format!(
        "charter generation {} holds; the root key is in owner/root.key",
        owner.charter().generation()
    ));
    let base = match base {
        Some(base) => Some(base),
        None => Base::find(home).await?,
    };
    match base {
        Some(base) => {
            operator::exchange_authority(&owner, &base).await?;
            output::line("the base is told, and tells its rnodes");
        }
        None => output::line("rnodes are told at the next `radix up`"),
    }
    operator::tell_recovery(&owner)
}

/// Runs `radix ca recovery`.
pub(crate) fn recovery(owner: &OwnerStore, erase: bool) -> Outcome<()> {
    let failed = |error| Failure::failed("cannot use the recovery key").because(&error);
    let Some(key) = owner.recovery_key().map_err(failed)? else {
        return Err(Failure::new(
            Fault::Refused,
            "the recovery key is not on this machine: it was shown and erased, or never here",
        )
        .hint("`radix ca rotate` makes a new one, where the root key is"));
    };
    output::line(&key);
    if erase {
        owner.erase_recovery_key().map_err(failed)?;
        output::talk("erased here; keep it where the root key is not");
    } else {
        output::talk("keep it where the root key is not, then erase it here with --erase");
    }
    Ok(())
}
