//! `radix ca rotate`, `recovery` and `recover`: replacing the root key.

use crux_net::identity::{Error, OwnerStore};

use crate::connection::Base;
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::operator;
use crate::output;

/// Runs `radix ca rotate`.
pub(crate) async fn rotate(home: &Home, owner: &OwnerStore, yes: bool) -> Outcome<()> {
    output::talk(
        "the root key and the recovery key are replaced; the old ones are worth nothing afterwards",
    );
    output::ask("Rotate?", yes)?;
    // What it shows counts under the old charter and the new one.
    let base = Base::find(home).await?;
    owner.rotate().map_err(|error| {
        let failure = Failure::failed("cannot rotate").because(&error);
        match error {
            Error::NoRoot(_) => failure.with_fault(Fault::Refused),
            _ => failure,
        }
    })?;
    spread(home, base).await
}

/// Runs `radix ca recover`.
pub(crate) async fn recover(home: &Home, key: &str) -> Outcome<()> {
    let mut text = key.to_owned();
    if text == "-" {
        text.clear();
        std::io::stdin().read_line(&mut text)?;
    }
    OwnerStore::recover(home.root(), &text).map_err(|error| {
        let failure = Failure::failed("cannot recover").because(&error);
        match error {
            Error::Recovery(_) => failure.with_fault(Fault::Refused),
            _ => failure,
        }
    })?;
    spread(home, None).await
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
