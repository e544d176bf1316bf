//! Where the executable is that cells run from.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use underverse::{Error, Kind};

use crate::config::Isolation;

/// Variable that names the executable.
const RADIX_BIN: &str = "RADIX_BIN";
/// The executable's name.
const RADIX: &str = "radix";
/// How far above this program's directory it is looked for: a test or example lies one below.
const ABOVE: usize = 2;

/// Finds the executable `radix`: named by `RADIX_BIN`, beside this program or one directory above, or on `PATH`.
///
/// # Errors
/// `NotFound`, naming the places.
pub fn find_radix() -> Result<PathBuf, Error> {
    if let Some(named) = env::var_os(RADIX_BIN) {
        let named = PathBuf::from(named);
        return if named.is_file() {
            std::path::absolute(&named).map_err(crate::execute::io_at("find radix", &named))
        } else {
            let message = format!("{RADIX_BIN} names {}, which is no file", named.display());
            Err(Error::new(Kind::NotFound, "find radix", message))
        };
    }
    let own = env::current_exe().unwrap_or_default();
    let beside = own.ancestors().skip(1).take(ABOVE).map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = env::split_paths(&path).collect();
    let mut places = beside.chain(path).map(|directory| directory.join(RADIX));
    places
        .find(|place| place.is_absolute() && place.is_file())
        .ok_or_else(|| {
            let message = format!(
                "it is neither beside {} nor on PATH, and {RADIX_BIN} is not set",
                own.display()
            );
            Error::new(Kind::NotFound, "find radix", message)
        })
}

/// The strongest isolation that a cell in `directory` gets, found out by trying it, and why not more.
///
/// Blocks for some milliseconds; leaves nothing behind.
pub(super) fn probe_isolation(radix: &Path, directory: &Path) -> (Isolation, Option<String>) {
    let mut command = Command::new(radix);
    command
        .args(["cell", "--probe", "--dir"])
        .arg(directory)
        .stdin(Stdio::null());
    let output = match command.output() {
        Ok(output) if output.status.success() => return (Isolation::PidMount, None),
        Ok(output) => output,
        Err(error) => {
            return (
                Isolation::None,
                Some(format!("it cannot be tried: {error}")),
            );
        }
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty());
    let reason = last.map_or_else(
        || format!("the trial ended with {}", output.status),
        str::to_owned,
    );
    (Isolation::None, Some(reason))
}
