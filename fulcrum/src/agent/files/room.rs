//! What counts against a rnode's quota: its store, its own files, and what was written below its mounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crux_core::files::path::STAGING;
use crux_net::files::Quota;
use crux_net::store::Store;

use crate::config::{Isolation, RnodeConfig};

/// The quota that all copies share; `None` without one. What is only staged is not walked: it is reserved.
pub(crate) fn quota(dir: &Path, config: &RnodeConfig, store: &Arc<Store>) -> Option<Arc<Quota>> {
    let quota_bytes = config.quota_bytes?;
    let written = match config.isolation {
        Isolation::None => dir.join("cell"),
        Isolation::PidMount => dir.join("cell").join("layers"),
    };
    let folders = [dir.join(super::roots::OWN), written];
    let walk = move || {
        let files = folders.iter().cloned().map(bytes_below);
        files.fold(0, u64::saturating_add)
    };
    let store = Arc::clone(store);
    let known = move || store.used_bytes();
    Some(Arc::new(Quota::new(quota_bytes, walk, known)))
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
