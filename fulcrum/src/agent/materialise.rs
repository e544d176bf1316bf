//! Puts pinned files where the application sees them, whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crux_core::digest::Digest;
use crux_net::store::Store;
use crux_wire::document::v1::Pin;

use super::paths::{Paths, Place, digest};
use super::verified::Verifier;

/// What became of the pinned files of one instance.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Materialised {
    /// Where each path lies that is not where the application names it.
    pub(crate) moved: BTreeMap<String, PathBuf>,
    /// What was obtained in weaker form than asked.
    pub(crate) weaker: Vec<String>,
}

/// Makes each of `pins` present at its place. May copy and hash: call it off the runtime.
///
/// # Errors
/// The path and the reason; files before it are in place.
pub(crate) fn materialise(
    store: &Store,
    verifier: &Verifier,
    paths: &Paths,
    pins: &[Pin],
) -> Result<Materialised, String> {
    let mut done = Materialised::default();
    for pin in pins {
        let wanted = digest(&pin.digest).ok_or_else(|| format!("{}: no digest", pin.path))?;
        match paths.place(&pin.path) {
            // `blake3:…` and `builtin:…` have no path of their own.
            None => {
                done.moved
                    .insert(format!("blake3:{wanted}"), store.path(&wanted));
            }
            Some(Place::Written(path)) => {
                if verifier.open(&path, &wanted).is_err() {
                    write(store, &wanted, pin.executable, &path)
                        .map_err(|error| format!("write {}: {error}", path.display()))?;
                }
                if path != Path::new(&pin.path) {
                    done.moved.insert(pin.path.clone(), path);
                }
            }
            Some(Place::Outside(path)) => {
                if verifier.open(&path, &wanted).is_err() {
                    if !pin.executable {
                        done.weaker
                            .push(format!("{} is read from the store", pin.path));
                    }
                    done.moved.insert(pin.path.clone(), store.path(&wanted));
                }
            }
        }
    }
    if paths.rewrites() && !done.moved.is_empty() {
        done.weaker.push("paths rewritten".to_owned());
    }
    Ok(done)
}

fn write(store: &Store, wanted: &Digest, executable: bool, path: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path names no file",
        ));
    };
    fs::create_dir_all(dir)?;
    let (mut blob, _) = store.open_verified(wanted).map_err(io::Error::other)?;
    let beside = dir.join(format!(".{}.radix-new", name.to_string_lossy()));
    remove_if_there(&beside)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let copied = io::copy(&mut blob, &mut file).and_then(|_| {
        file.set_permissions(Permissions::from_mode(if executable {
            0o555
        } else {
            0o444
        }))?;
        file.sync_all()?;
        drop(file);
        fs::rename(&beside, path)?;
        File::open(dir)?.sync_all()
    });
    if copied.is_err() {
        // What is left would be in nobody's way, but it may fill the disk.
        let _ = fs::remove_file(&beside);
    }
    copied
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Executable, Isolation, Mount, RnodeConfig};

    fn config(dir: &Path) -> RnodeConfig {
        RnodeConfig {
            label: "n1".into(),
            namespace: "stix".into(),
            host: std::net::IpAddr::from([127, 0, 0, 1]),
            tcp_port: 0,
            flock_port: 0,
            hints: vec![],
            base: None,
            memoir_dir: dir.join("memoir"),
            store_dir: dir.join("store"),
            executable: Executable {
                path: "/radix".into(),
                digest: Digest::of(b""),
            },
            mounts: vec![Mount {
                host: "/src".into(),
                target: "/var/stix".into(),
                writable: false,
            }],
            isolation: Isolation::None,
            user_range_start: None,
            tags: vec![],
            network: None,
            quota_bytes: None,
        }
    }

    // Shows in part: FIO-08
    #[test]
    fn a_pinned_file_appears_whole_and_a_changed_one_is_put_right() {
        let dir = std::env::temp_dir().join(format!("radix-materialise-{}", std::process::id()));
        let store = Store::open(dir.join("store")).unwrap();
        let blob = store.put_bytes(b"a,b\n1,2\n").unwrap();
        let paths = Paths::new(&dir, &config(&dir));
        let verifier = Verifier::default();
        let pin = Pin {
            path: "/var/stix/prods.csv".into(),
            digest: blob.digest.to_string(),
            ..Pin::default()
        };
        let done = materialise(&store, &verifier, &paths, std::slice::from_ref(&pin)).unwrap();
        let path = dir.join("cell/var/stix/prods.csv");
        assert_eq!(done.moved["/var/stix/prods.csv"], path);
        assert_eq!(done.weaker, ["paths rewritten"]);
        assert_eq!(fs::read(&path).unwrap(), b"a,b\n1,2\n");

        fs::remove_file(&path).unwrap();
        fs::write(&path, b"tampered").unwrap();
        materialise(&store, &verifier, &paths, std::slice::from_ref(&pin)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"a,b\n1,2\n");

        let missing = Pin {
            digest: Digest::of(b"other").to_string(),
            ..pin
        };
        assert!(materialise(&store, &verifier, &paths, &[missing]).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"a,b\n1,2\n");
        let _ = fs::remove_dir_all(&dir);
    }
}
