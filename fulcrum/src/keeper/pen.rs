//! The pen: the one lock on a rnode's directory, and the count of its agents' incarnations.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crux_net::durable;
use nix::fcntl::{Flock, FlockArg};

use crate::error::KeeperError;

/// How often a taken pen is tried again. A child that the last keeper had just forked may hold it for a moment.
const TRIES_MAX: u32 = 10;

/// How long to wait between tries.
const TRY_PAUSE: Duration = Duration::from_millis(20);

/// The right to write a rnode's state; given back when dropped.
#[derive(Debug)]
pub(crate) struct Pen {
    keeper_dir: PathBuf,
    _lock: Flock<File>,
}

impl Pen {
    /// Takes the pen of the rnode in `dir`.
    pub(crate) fn take(dir: &Path) -> Result<Self, KeeperError> {
        let keeper_dir = dir.join("keeper");
        let failed = |error| KeeperError::at("take the pen of", dir, error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&keeper_dir)
            .map_err(failed)?;
        let mut options = fs::OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(keeper_dir.join("pen")).map_err(failed)?;
        for _ in 0..TRIES_MAX {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) => {
                    sign(&mut lock).map_err(failed)?;
                    return Ok(Self {
                        keeper_dir,
                        _lock: lock,
                    });
                }
                Err((taken, nix::errno::Errno::EWOULDBLOCK)) => file = taken,
                Err((_, error)) => return Err(failed(error.into())),
            }
            std::thread::sleep(TRY_PAUSE);
        }
        let mut holder = String::new();
        // Only for the message.
        let _ = file.read_to_string(&mut holder);
        Err(KeeperError::PenTaken {
            directory: dir.to_owned(),
            pid: holder.trim().parse().ok(),
        })
    }

    /// Counts one more incarnation; it is durable when this returns.
    pub(crate) fn next_incarnation(&self) -> Result<u64, KeeperError> {
        let path = self.keeper_dir.join("incarnation");
        let failed = |error| KeeperError::at("count the incarnation in", &path, error);
        let last = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<u64>().map_err(|_| {
                // Counting anew could repeat an incarnation that the flock has seen.
                failed(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it holds no number",
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                durable::replace(&path, number(0).as_bytes()).map_err(failed)?;
                0
            }
            Err(error) => return Err(failed(error)),
        };
        // In place and of one length, so that it needs no room on a full disk; it lies within one sector.
        let write = || {
            let file = fs::OpenOptions::new().write(true).open(&path)?;
            file.write_all_at(number(last + 1).as_bytes(), 0)?;
            file.sync_data()
        };
        write().map_err(failed)?;
        Ok(last + 1)
    }
}

/// A number as it stands in the file.
fn number(number: u64) -> String {
    format!("{number:020}\n")
}

/// Writes our pid into the pen, for the message of whoever finds it taken.
fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
