//! What a process that was killed has written beside a file and never renamed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Between a file's name and the pid of whoever writes its next content.
const MARK: &str = ".new-";

/// A name beside `path` that nobody else uses: `NAME.new-PID-N`.
pub(crate) fn name_beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_owned();
    name.push(format!("{MARK}{}-{number}", std::process::id()));
    PathBuf::from(name)
}

/// Removes from `directory`, not from below it, what processes that have ended left as `NAME.new-PID…`.
///
/// Whatever cannot be read or removed stays: it is in nobody's way.
pub fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let writer = name.to_str().and_then(writer);
        if writer.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The pid in the name of a file that is being written.
fn writer(name: &str) -> Option<u32> {
    let (_, rest) = name.rsplit_once(MARK)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_were_writing_goes() {
        let dir = std::env::temp_dir().join(format!("radix-staged-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mine = format!("grant.new-{}-0", std::process::id());
        // The kernel gives no pid beyond 2^22.
        let names = ["tiny", "a.new-x", "tiny.new-9999999", "key.new-9999999-3"];
        for name in names.iter().copied().chain([mine.as_str()]) {
            fs::write(dir.join(name), "").unwrap();
        }
        sweep(&dir);
        let left = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
        let mut left: Vec<_> = left
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        left.sort();
        assert_eq!(left, ["a.new-x", mine.as_str(), "tiny"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
