//! What the machine has, as its operating system tells it.

use std::path::Path;

use crux_wire::document::v1::Resources;

/// Processors, memory and storage of this rnode; 0 for what the system does not tell.
pub(crate) fn discover(dir: &Path) -> Resources {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let (storage_bytes, storage_free_bytes) = storage(dir).unwrap_or_default();
    Resources {
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory_bytes: memory(),
        storage_bytes,
        storage_free_bytes,
    }
}

fn memory() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else {
        return 0;
    };
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

fn storage(dir: &Path) -> Option<(u64, u64)> {
    let found = nix::sys::statvfs::statvfs(dir).ok()?;
    let piece = found.fragment_size();
    Some((
        found.blocks().saturating_mul(piece),
        found.blocks_available().saturating_mul(piece),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Shows in part: RND-08
    #[test]
    fn processors_memory_and_storage_are_what_the_system_tells() {
        let found = discover(&std::env::temp_dir());
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let kib: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert_eq!(found.memory_bytes, kib * 1024);
        assert!(found.cpus > 0);
        assert!(found.storage_bytes >= found.storage_free_bytes);
    }
}
