//! Removes the directory of the flock's switch once nobody holds the switch: the twin of `fulcrum`'s `switch/holders.rs`.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::durable;
use crate::process::ProcessName;

/// How often the lock of a switch is tried, [`LOCK_PAUSE`] apart: half a second in all.
const LOCK_TRIES: u32 = 50;
/// Time that somebody who holds it is given to let go.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Removes it unless somebody holds the switch or is entering it.
///
/// Who enters takes the same lock and looks whether the directory is still there afterwards.
pub(crate) async fn remove_unless_held(dir: &Path) -> io::Result<()> {
    let lock = match fs::File::options().write(true).open(dir.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !lock_soon(&lock).await? {
        return Ok(());
    }
    if held(&dir.join("holders"))? {
        return Ok(());
    }
    durable::remove_tree(dir)
}

/// Takes a lock that everybody holds for a moment only; false if it is not to be had.
///
/// A process that was forked meanwhile has the descriptor of whoever held it too, and keeps it until it executes.
async fn lock_soon(lock: &fs::File) -> io::Result<bool> {
    for _ in 0..LOCK_TRIES {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Whether a process of those that are registered lives: files named `PID-STARTTICKS` in one directory a boot.
fn held(holders: &Path) -> io::Result<bool> {
    for boot in fs::read_dir(holders)? {
        for holder in fs::read_dir(boot?.path())? {
            let name = holder?.file_name();
            let named = name.to_str().and_then(|name| {
                let (pid, start_ticks) = name.split_once('-')?;
                Some(ProcessName {
                    pid: pid.parse().ok()?,
                    start_ticks: start_ticks.parse().ok()?,
                })
            });
            if named.is_some_and(ProcessName::is_alive) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_goes_when_its_last_holder_is_dead_and_not_before() {
        let dir = std::env::temp_dir().join(format!("radix-switch-{}", std::process::id()));
        let boot = dir.join("holders/boot");
        fs::create_dir_all(&boot).unwrap();
        fs::write(dir.join("lock"), "").unwrap();
        let own = ProcessName::of(std::process::id().cast_signed()).unwrap();
        let file = boot.join(format!("{}-{}", own.pid, own.start_ticks));
        fs::write(&file, "").unwrap();
        fs::write(
            boot.join(format!("{}-{}", own.pid, own.start_ticks + 1)),
            "",
        )
        .unwrap();
        remove_unless_held(&dir).await.unwrap();
        assert!(file.exists());
        fs::remove_file(file).unwrap();
        let entering = fs::File::options()
            .write(true)
            .open(dir.join("lock"))
            .unwrap();
        flock(&entering, FlockOperation::LockExclusive).unwrap();
        remove_unless_held(&dir).await.unwrap();
        assert!(dir.exists(), "somebody is entering");
        drop(entering);
        remove_unless_held(&dir).await.unwrap();
        assert!(!dir.exists());
        remove_unless_held(&dir).await.unwrap();
    }
}
