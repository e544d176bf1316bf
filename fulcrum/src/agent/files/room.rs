//! What a rnode's quota leaves for copies.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crux_core::files::path::STAGING;
use crux_net::files::Room;

use crate::agent::context::Agent;
use crate::config::Isolation;

/// What is left now; `None` without a quota. Counts the store, the rnode's own files, and what was written below its
/// mounts, but not what is only staged: that is counted when it is wanted.
pub(crate) async fn room(agent: &Arc<Agent>) -> Option<Room> {
    let quota_bytes = agent.config.quota_bytes?;
    let counting = Arc::clone(agent);
    let counted = tokio::task::spawn_blocking(move || used(&counting)).await;
    let left_bytes = quota_bytes.saturating_sub(counted.unwrap_or(u64::MAX));
    Some(Room {
        quota_bytes,
        left_bytes,
    })
}

fn used(agent: &Agent) -> u64 {
    let blobs = agent.store.list();
    let blobs: u64 = blobs.map_or(u64::MAX, |blobs| {
        blobs.map(|blob| blob.size).fold(0, u64::saturating_add)
    });
    let written = match agent.config.isolation {
        Isolation::None => agent.dir.join("cell"),
        Isolation::PidMount => agent.dir.join("cell").join("layers"),
    };
    let files = [agent.dir.join(super::roots::OWN), written];
    let files = files.into_iter().map(bytes_below);
    files.fold(blobs, u64::saturating_add)
}

/// Bytes of all files below a folder; links are not followed.
fn bytes_below(top: PathBuf) -> u64 {
    let (mut folders, mut bytes) = (vec![top], 0u64);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() && entry.file_name() != STAGING {
                folders.push(entry.path());
            } else if metadata.is_file() {
                bytes = bytes.saturating_add(metadata.len());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_count_but_what_is_staged() {
        let top = std::env::temp_dir().join(format!("radix-room-{}", std::process::id()));
        let put = |path: &str, bytes: usize| {
            let path = top.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; bytes]).unwrap();
        };
        put("a", 10);
        put("deep/er/b", 200);
        put(&format!("{STAGING}/c"), 3000);
        std::os::unix::fs::symlink("/", top.join("link")).unwrap();
        assert_eq!(bytes_below(top.clone()), 210);
        fs::remove_dir_all(&top).unwrap();
        assert_eq!(bytes_below(top), 0);
    }
}
