//! The file that keeps what must never fall, and the secret of our resets.
//!
//! ```text
//! floor: "radix flock floor 1", incarnation, sequence, term, one a line; replaced whole, synced before anything follows
//! reset: 32 random bytes
//! peers: where members were last, an address a line; hints for the next start, so it may be old, or missing
//! ```

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crux_core::flock::Floor;
use ring::rand::{SecureRandom, SystemRandom};

use super::Error;
use crate::durable;

const HEAD: &str = "radix flock floor 1";

/// Keeps a [`Floor`] on disk.
#[derive(Debug)]
pub(super) struct FloorStore {
    dir: PathBuf,
    floor: Floor,
    peers: Vec<SocketAddr>,
}

/// Most addresses remembered for the next start.
const PEERS_MAX: usize = 64;

fn fault(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Floor {
        operation,
        path: path.to_owned(),
        source,
    }
}

impl FloorStore {
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(fault("create", dir))?;
        let path = dir.join("floor");
        let floor = match fs::read_to_string(&path) {
            Ok(text) => {
                let damaged =
                    || io::Error::new(io::ErrorKind::InvalidData, "it is not what we wrote");
                parse(&text)
                    .ok_or_else(damaged)
                    .map_err(fault("read", &path))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Floor::default(),
            Err(error) => return Err(fault("read", &path)(error)),
        };
        let peers = fs::read_to_string(dir.join("peers")).unwrap_or_default();
        let peers = peers.lines().filter_map(|line| line.parse().ok());
        Ok(Self {
            dir: dir.to_owned(),
            floor,
            peers: peers.take(PEERS_MAX).collect(),
        })
    }

    pub(super) const fn floor(&self) -> Floor {
        self.floor
    }

    /// Where members were last.
    pub(super) fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// Remembers where members are. Losing it costs a restart its hints and nothing else, so it is not waited for.
    pub(super) fn remember(&mut self, mut peers: Vec<SocketAddr>) {
        peers.truncate(PEERS_MAX);
        if peers == self.peers || peers.is_empty() {
            return;
        }
        let text: String = peers.iter().map(|peer| format!("{peer}\n")).collect();
        let kept = durable::replace_unsynced(&self.dir.join("peers"), text.as_bytes());
        if let Err(error) = kept {
            tracing::warn!(%error, "where members are was not remembered");
        }
        self.peers = peers;
    }

    /// Makes `floor` durable.
    pub(super) fn keep(&mut self, floor: Floor) -> Result<(), Error> {
        let Floor {
            incarnation,
            sequence,
            term,
        } = floor;
        let text = format!("{HEAD}\n{incarnation}\n{sequence}\n{term}\n");
        self.replace("floor", text.as_bytes())?;
        self.floor = floor;
        Ok(())
    }

    /// The secret of our resets, made when first asked for.
    pub(super) fn reset_secret(&self) -> Result<[u8; 32], Error> {
        let path = self.dir.join("reset");
        if let Ok(bytes) = fs::read(&path)
            && let Ok(secret) = <[u8; 32]>::try_from(bytes)
        {
            return Ok(secret);
        }
        let secret = random()?;
        self.replace("reset", &secret)?;
        Ok(secret)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(name);
        durable::replace(&path, bytes).map_err(fault("replace", &path))
    }
}

fn parse(text: &str) -> Option<Floor> {
    let mut lines = text.lines();
    (lines.next()? == HEAD).then_some(())?;
    let mut number = || lines.next()?.parse().ok();
    Some(Floor {
        incarnation: number()?,
        sequence: number()?,
        term: number()?,
    })
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let fail = |_| fault("draw", Path::new("chance"))(io::Error::other("the system gives none"));
    SystemRandom::new().fill(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// A seed for the machine's own chance.
pub(super) fn seed() -> Result<u64, Error> {
    random().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_there_after_a_restart_and_damage_is_named() {
        let dir = std::env::temp_dir().join(format!("radix-floor-{}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        let mut store = FloorStore::open(&dir).expect("a fresh directory");
        assert_eq!(store.floor(), Floor::default());
        let floor = Floor {
            incarnation: 3,
            sequence: 2048,
            term: 9,
        };
        store.keep(floor).expect("it is writable");
        let secret = store.reset_secret().expect("it is writable");
        let again = FloorStore::open(&dir).expect("what was written");
        assert_eq!(
            (
                again.floor(),
                again.reset_secret().expect("what was written")
            ),
            (floor, secret)
        );
        fs::write(dir.join("floor"), b"radix flock floor 1\n7\n").expect("it is writable");
        assert!(matches!(
            FloorStore::open(&dir),
            Err(Error::Floor {
                operation: "read",
                ..
            })
        ));
        fs::remove_dir_all(&dir).expect("ours to remove");
    }
}
