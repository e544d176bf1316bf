//! `files`: one large file, many small ones, a large one with edits, from rnode to rnode, beside scp and rsync
//! over a shared ssh connection (F7, F8, F9).
//!
//! Ours includes the start of `radix`, hashing at the source, and syncs what it wrote; the peers do not sync. What the
//! disk itself takes to write and sync the large file, without any network, stands beside them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::measure::{cost, median};
use crate::peer::ssh::Ssh;
use crate::peer::{find, folder};
use crate::radix::{Radix, succeeded};
use crate::row::{Row, show};

const ROUNDS: usize = 3;
const LARGE_BYTES: usize = 512 << 20;
const SMALL_FILES: usize = 10_000;
const SMALL_BYTES: usize = 2048;
const EDITS: usize = 64;

/// Six rnodes without an application.
const FOLDER: &str = "dev/bench/idle";

pub(super) fn run() -> Result<Vec<Row>, String> {
    let radix = Radix::fresh()?;
    radix.up(FOLDER)?;
    let peers = Peers::start()?;
    let bench = Bench {
        source: radix.home().join("hordes/idle/n1/files"),
        sink: radix.home().join("hordes/idle/n2/files"),
        radix: &radix,
        peers: &peers,
    };
    for side in [&bench.source, &bench.sink] {
        std::fs::create_dir_all(side).map_err(|error| format!("{}: {error}", side.display()))?;
    }
    let mut rows = bench.large()?;
    rows.extend(bench.small()?);
    rows.extend(bench.edits()?);
    Ok(rows)
}

/// What others take for the same.
struct Peers {
    ssh: Result<Ssh, String>,
    rsync: Option<PathBuf>,
    at: PathBuf,
}

impl Peers {
    fn start() -> Result<Self, String> {
        Ok(Self {
            ssh: Ssh::start(),
            rsync: find("rsync"),
            at: folder("files")?,
        })
    }

    fn scp(&self, from: &Path, recursive: bool) -> Result<Command, String> {
        let ssh = self.ssh.as_ref().map_err(Clone::clone)?;
        let program = find("scp").ok_or("apt-get install openssh-client")?;
        let mut command = Command::new(program);
        // The old protocol: the sshd of a bench has no sftp server.
        command.args(["-q", "-O", "-p", "-F", "/dev/null", "-o"]);
        command.arg(format!("ControlPath={}", ssh.socket().display()));
        if recursive {
            command.arg("-r");
        }
        command
            .arg(from)
            .arg(format!("127.0.0.1:{}", self.at.join("scp").display()));
        Ok(command)
    }

    fn dd(&self, from: &Path) -> Result<Command, String> {
        let program = find("dd").ok_or("apt-get install coreutils")?;
        let mut command = Command::new(program);
        let to = self.at.join("dd");
        command.arg(format!("if={}", from.display()));
        command.arg(format!("of={}", to.display()));
        command.args(["bs=1M", "conv=fsync"]);
        Ok(command)
    }

    fn rsync(&self, from: &Path, words: &[&str]) -> Result<Command, String> {
        let ssh = self.ssh.as_ref().map_err(Clone::clone)?;
        let program = self.rsync.as_ref().ok_or("apt-get install rsync")?;
        let mut command = Command::new(program);
        let shell = format!("ssh -F /dev/null -S {}", ssh.socket().display());
        command.args(["-a", "--stats", "-e", &shell]).args(words);
        command
            .arg(from)
            .arg(format!("127.0.0.1:{}", self.at.join("rsync").display()));
        Ok(command)
    }
}

struct Bench<'a> {
    radix: &'a Radix,
    peers: &'a Peers,
    source: PathBuf,
    sink: PathBuf,
}

impl Bench<'_> {
    /// F7.
    fn large(&self) -> Result<Vec<Row>, String> {
        let at = self.source.join("large");
        write(&at, &noise(LARGE_BYTES, 1))?;
        let (mut ours, mut scp, mut rsync) = (Times::default(), Times::default(), Times::default());
        let mut disk = Times::default();
        for _ in 0..ROUNDS {
            touch(&at)?;
            clear(&self.sink.join("large"));
            ours.take(|| self.cp("large"))?;
            same(&at, &self.sink.join("large"))?;
            clear(&self.peers.at.join("scp"));
            scp.take_peer(self.peers.scp(&at, false));
            clear(&self.peers.at.join("rsync"));
            rsync.take_peer(self.peers.rsync(&at, &["-W"]));
            clear(&self.peers.at.join("dd"));
            disk.take_peer(self.peers.dd(&at));
        }
        let what = |ours: Duration| {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = (LARGE_BYTES >> 20) as f64 / ours.as_secs_f64();
            format!("512 MiB from rnode to rnode, hashed, verified, synced ({rate:.0} MiB/s)")
        };
        Ok(vec![
            ours.beside(&what(ours.median()), "scp", &scp),
            ours.beside(&what(ours.median()), "rsync -W", &rsync),
            ours.beside(&what(ours.median()), "dd conv=fsync, no network", &disk),
        ])
    }

    /// F8.
    fn small(&self) -> Result<Vec<Row>, String> {
        let at = self.source.join("small");
        for number in 0..SMALL_FILES {
            let path = at.join(format!("{}/{number}", number % 100));
            write(&path, &noise(SMALL_BYTES, number as u64))?;
        }
        let mut first = [Times::default(), Times::default(), Times::default()];
        let mut again = [Times::default(), Times::default()];
        for _ in 0..ROUNDS {
            clear(&self.sink.join("small"));
            first[0].take(|| self.cp("small"))?;
            again[0].take(|| self.cp("small"))?;
            clear(&self.peers.at.join("rsync"));
            first[1].take_peer(self.peers.rsync(&at, &[]));
            again[1].take_peer(self.peers.rsync(&at, &[]));
            clear(&self.peers.at.join("scp"));
            first[2].take_peer(self.peers.scp(&at, true));
        }
        let what = "10 000 files of 2 KiB from rnode to rnode, synced";
        Ok(vec![
            first[0].beside(what, "rsync", &first[1]),
            first[0].beside(what, "scp -r", &first[2]),
            again[0].beside("the same again, nothing changed", "rsync", &again[1]),
        ])
    }

    /// F9.
    fn edits(&self) -> Result<Vec<Row>, String> {
        let at = self.source.join("large");
        clear(&self.peers.at.join("rsync"));
        self.cp("large")?;
        drop(
            self.peers
                .rsync(&at, &["-W"])
                .map(|mut command| command.output()),
        );
        let (mut ours, mut rsync) = (Times::default(), Times::default());
        let (mut moved, mut theirs) = (0, 0);
        for round in 0..ROUNDS {
            edit(&at, round)?;
            let text = ours.take(|| self.cp("large"))?;
            moved = number_after(&text, "\"bytes_moved\": ");
            same(&at, &self.sink.join("large"))?;
            let text = rsync.take_peer(self.peers.rsync(&at, &["--no-whole-file"]));
            theirs = number_after(&text, "Total bytes sent: ")
                + number_after(&text, "Total bytes received: ");
        }
        let what = format!("512 MiB with 64 edits in place ({} KiB moved)", moved >> 10);
        let peer = format!("rsync ({} KiB moved)", theirs >> 10);
        Ok(vec![ours.beside(&what, &peer, &rsync)])
    }

    fn cp(&self, name: &str) -> Result<String, String> {
        let (from, to) = (format!("n1:{name}"), format!("n2:{name}"));
        self.radix.run(&["cp", &from, &to, "--format", "json"])
    }
}

/// What rounds took, or why there were none.
#[derive(Debug, Default)]
struct Times {
    wall: Vec<Duration>,
    missing: Option<String>,
}

impl Times {
    fn take<T>(&mut self, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let (value, cost) = cost(work)?;
        self.wall.push(cost.wall);
        Ok(value)
    }

    /// Runs a peer's command and returns what it says.
    fn take_peer(&mut self, command: Result<Command, String>) -> String {
        let ran = command.and_then(|mut command| {
            let work = || {
                let output = command.stdin(Stdio::null()).output();
                succeeded("peer", output.map_err(|error| error.to_string())?)
            };
            cost(work)
        });
        match ran {
            Ok((text, cost)) => {
                self.wall.push(cost.wall);
                text
            }
            Err(reason) => {
                self.missing = Some(reason);
                String::new()
            }
        }
    }

    fn median(&self) -> Duration {
        median(self.wall.clone())
    }

    fn beside(&self, what: &str, peer: &str, theirs: &Self) -> Row {
        match &theirs.missing {
            None => Row::times(what, self.median(), peer, theirs.median()),
            Some(reason) => Row::missing(what, show(self.median()), peer, reason),
        }
    }
}

fn number_after(text: &str, before: &str) -> u64 {
    let digits = text.split_once(before).map_or("", |(_, rest)| rest);
    let digits: String = digits
        .chars()
        .take_while(|letter| letter.is_ascii_digit() || *letter == ',')
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap_or(0)
}

/// Bytes that nothing compresses and no two seeds share.
pub(super) fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(super) fn write(at: &Path, bytes: &[u8]) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", at.display());
    std::fs::create_dir_all(at.parent().unwrap_or(at)).map_err(failed)?;
    std::fs::write(at, bytes).map_err(failed)
}

/// Makes everybody look at the content again.
pub(super) fn touch(at: &Path) -> Result<(), String> {
    let touched = File::options()
        .write(true)
        .open(at)
        .and_then(|file| file.set_modified(SystemTime::now()));
    touched.map_err(|error| format!("{}: {error}", at.display()))
}

/// Changes a few bytes at places that differ from round to round.
fn edit(at: &Path, round: usize) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", at.display());
    let file = File::options().write(true).open(at).map_err(failed)?;
    for number in 0..EDITS {
        let offset = (number * (LARGE_BYTES / EDITS) + round * 100_003 + number * 977) as u64;
        let text = format!("edit {round} {number}");
        file.write_all_at(text.as_bytes(), offset).map_err(failed)?;
    }
    Ok(())
}

/// Removes a thing, for good: the work that a disk has with it is not counted to what comes next.
pub(super) fn clear(at: &Path) {
    if std::fs::remove_file(at).is_err() {
        drop(std::fs::remove_dir_all(at));
    }
    drop(Command::new("sync").status());
}

pub(super) fn same(one: &Path, other: &Path) -> Result<(), String> {
    let ran = Command::new("cmp").arg("-s").arg(one).arg(other).status();
    match ran {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("{} and {} differ", one.display(), other.display())),
    }
}
