//! Picks a backend by name. Everything else in this example knows the contract only.

use std::path::Path;

use underverse::{Error, Kind, Underverse, UnderverseAdmin};
use underverse_local::{find_radix, on_this_machine};

/// A backend in its two roles: what users may do, and what an administrator may.
pub(crate) struct Backend {
    pub(crate) underverse: Box<dyn Underverse>,
    pub(crate) administrator: Box<dyn UnderverseAdmin>,
}

/// The backend called `name`, with its state in `home`.
pub(crate) async fn named(name: &str, home: &Path) -> Result<Backend, Error> {
    match name {
        "local" => {
            let local = on_this_machine(home, &find_radix()?).await?;
            Ok(Backend {
                administrator: Box::new(local.administrator()),
                underverse: Box::new(local),
            })
        }
        other => {
            let message = format!("there is none called {other:?} here; local is linked in");
            Err(Error::new(Kind::NotFound, "find a backend", message))
        }
    }
}
