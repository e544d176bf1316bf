//! How a backend lets the suite count, refuse and stop its mutating calls, also from another process.
//!
//! ```text
//! DIR/calls    one line a call, in order
//! DIR/disturb  "hang N" or "fail N": what becomes of the call with that number, from 1
//! DIR/met      there once a call hangs
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use underverse::{Error, Kind};

use crate::fixture::{Cannot, Disturbance};

/// Names the directory of the tap in a backend's environment.
pub const TAP_VARIABLE: &str = "RADIX_UNDERVERSE_TAP";
/// Time between two looks for a call that hangs.
const LOOK: Duration = Duration::from_millis(4);

/// Where a backend's mutating calls pass. Closed, which is what everybody but the suite has, it does nothing.
#[derive(Debug, Clone, Default)]
pub struct Tap(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    directory: PathBuf,
    gate: Mutex<()>,
}

/// What becomes of a call.
enum Fate {
    Pass,
    Fail,
    Hang,
}

impl Tap {
    /// A tap that does nothing.
    #[must_use]
    pub fn closed() -> Self {
        Self::default()
    }

    /// The tap below `directory`, which must exist.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Self(Some(Arc::new(Open {
            directory,
            gate: Mutex::new(()),
        })))
    }

    /// The tap that the suite named in the environment; closed if it named none.
    #[must_use]
    pub fn from_env() -> Self {
        std::env::var_os(TAP_VARIABLE)
            .map_or_else(Self::closed, |directory| Self::at(PathBuf::from(directory)))
    }

    /// To be awaited before each mutating call, named `what`.
    ///
    /// # Errors
    /// `Unavailable` where the suite wants the call to fail; it must then not be made.
    pub async fn call(&self, what: &str) -> Result<(), Error> {
        let Some(open) = &self.0 else { return Ok(()) };
        match open.fate(what) {
            Ok(Fate::Pass) => Ok(()),
            Ok(Fate::Hang) => std::future::pending().await,
            Ok(Fate::Fail) => Err(Error::new(
                Kind::Unavailable,
                "call the substrate",
                "the suite refused it",
            )
            .with("call", what)),
            Err(error) => Err(Error::new(Kind::Io, "pass the tap", error.to_string())),
        }
    }

    /// How many calls have passed.
    ///
    /// # Errors
    /// `NotOffered` when closed.
    pub fn count(&self) -> Result<u64, Cannot> {
        Ok(self.open()?.count()?)
    }

    /// Says what happens to a later call.
    ///
    /// # Errors
    /// `NotOffered` when closed.
    pub fn disturb(&self, disturbance: Disturbance) -> Result<(), Cannot> {
        let open = self.open()?;
        let _held = open.gate.lock().unwrap_or_else(PoisonError::into_inner);
        for name in ["disturb", "met"] {
            match std::fs::remove_file(open.directory.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        let (word, from_now) = match disturbance {
            Disturbance::None => return Ok(()),
            Disturbance::HangAt(number) => ("hang", number),
            Disturbance::FailAt(number) => ("fail", number),
        };
        let number = open.count()? + from_now;
        Ok(std::fs::write(
            open.directory.join("disturb"),
            format!("{word} {number}"),
        )?)
    }

    /// Returns when a call hangs; never, when closed.
    pub async fn hung(&self) {
        let Some(open) = &self.0 else {
            return std::future::pending().await;
        };
        while !open.directory.join("met").exists() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn open(&self) -> Result<&Open, Cannot> {
        self.0
            .as_deref()
            .ok_or(Cannot::NotOffered("this backend's calls cannot be counted"))
    }
}

impl Open {
    fn path(&self, name: &str) -> PathBuf {
        Path::join(&self.directory, name)
    }

    fn count(&self) -> std::io::Result<u64> {
        match std::fs::read(self.path("calls")) {
            Ok(bytes) => Ok(bytes.iter().filter(|&&byte| byte == b'\n').count() as u64),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn fate(&self, what: &str) -> std::io::Result<Fate> {
        let _held = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("calls"))?;
        writeln!(file, "{what}")?;
        let number = self.count()?;
        let disturb = std::fs::read_to_string(self.path("disturb")).unwrap_or_default();
        Ok(match disturb.split_once(' ') {
            Some(("hang", at)) if at.parse() == Ok(number) => {
                std::fs::write(self.path("met"), what)?;
                Fate::Hang
            }
            Some(("fail", at)) if at.parse() == Ok(number) => Fate::Fail,
            _ => Fate::Pass,
        })
    }
}
