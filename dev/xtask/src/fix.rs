//! What the gate can mend by itself. Only this command edits files; `check` never does.

use crate::cargo::{cargo, succeed};
use crate::{openapi, proto, proto_history, requirements, tidy, tree};

/// Formats the code and writes every generated file anew.
///
/// # Errors
///
/// The first step that failed; those before it have been done.
pub(crate) fn run() -> Result<(), String> {
    proto::generate()?;
    openapi::write()?;
    proto_history::write()?;
    requirements::write(&tree::read(&crate::cargo::root())?)?;
    tidy::imports::write_table()?;
    tidy::numbers::write()?;
    succeed(cargo().args(["fmt", "--all"]))
}
