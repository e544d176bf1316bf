//! Removes the directory of the flock's switch once nobody holds the switch: the twin of `fulcrum`'s `switch/holders.rs`.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::durable;
use crate::process::ProcessName;

/// Removes it unless somebody holds the switch or is entering it.
///
/// Who enters takes the same lock and looks whether the directory is still there afterwards.
pub(crate) fn remove_unless_held(dir: &Path) -> io::Result<()> {
    let lock = match fs::File::options().write(true).open(dir.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if held(&dir.join("holders"))? {
        return Ok(());
    }
    durable::remove_tree(dir)
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

    #[test]
    fn it_goes_when_its_last_holder_is_dead_and_not_before() {
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
        remove_unless_held(&dir).unwrap();
        assert!(file.exists());
        fs::remove_file(file).unwrap();
        let entering = fs::File::options()
            .write(true)
            .open(dir.join("lock"))
            .unwrap();
        flock(&entering, FlockOperation::LockExclusive).unwrap();
        remove_unless_held(&dir).unwrap();
        assert!(dir.exists(), "somebody is entering");
        drop(entering);
        remove_unless_held(&dir).unwrap();
        assert!(!dir.exists());
        remove_unless_held(&dir).unwrap();
    }
}
