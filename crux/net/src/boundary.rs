//! A test switch: ends this process, as `kill -9` would, at a call boundary that a test has chosen.
//!
//! Shut, which it is unless [`VARIABLE`] names a directory that is ours alone and says in [`CONSENT_FILE`] that processes
//! may end themselves, a crossing costs one load and a branch. What counts as a boundary: docs/design/boundaries.md.
//!
//! ```text
//! DIR/consent     must hold exactly [`CONSENT`]
//! DIR/ROLE.arm    a number N: the Nth crossing from when ROLE.log was emptied ends the process; removed by that death
//! DIR/ROLE.log    one line a crossing: "KIND WHAT"
//! ```

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Signal, getpid, kill_process};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{GrpcMethod, Request, Status};

/// Names the directory of the switch.
pub const VARIABLE: &str = "RADIX_TEST_BOUNDARIES";
/// The file that says that processes may end themselves.
pub const CONSENT_FILE: &str = "consent";
/// What that file must hold.
pub const CONSENT: &str = "processes that find this may end themselves\n";

/// Methods that only look. Looking again changes nothing, so each is one boundary in the life of a process.
const LOOKS: [&str; 16] = [
    "Configurations",
    "Describe",
    "Entries",
    "Events",
    "Flock",
    "GetAuthority",
    "GetDocument",
    "Hordes",
    "List",
    "Memoir",
    "Output",
    "Services",
    "Status",
    "Tunnel",
    "Wait",
    "WatchDocuments",
];

/// Kinds of boundary; each crossing is *before* what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file or a directory is made or written.
    Write,
    /// What was written beside takes its final name.
    Rename,
    /// A file or a tree is removed.
    Remove,
    /// A call is sent.
    Ask,
    /// A call that arrived is carried out.
    Serve,
    /// The answer to a call leaves; its effect is there.
    Answer,
    /// The keeper is asked to change something.
    Keeper,
    /// A process is started.
    Start,
}

impl Kind {
    /// The word in the log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Ask => "ask",
            Self::Serve => "serve",
            Self::Answer => "answer",
            Self::Keeper => "keeper",
            Self::Start => "start",
        }
    }
}

static SWITCH: OnceLock<Option<Switch>> = OnceLock::new();

#[derive(Debug)]
struct Switch {
    directory: PathBuf,
    role: &'static str,
    /// Looks that were crossed, as the log names them.
    looked: Mutex<BTreeSet<String>>,
}

/// Says what this process is, and opens the switch if the environment asks for it. The first call counts.
pub fn begin(role: &'static str) {
    let _ = SWITCH.get_or_init(|| {
        let directory = PathBuf::from(std::env::var_os(VARIABLE)?);
        may(&directory).then(|| Switch {
            directory,
            role,
            looked: Mutex::default(),
        })
    });
}

/// The switch's directory, for the environment of those processes of ours that have boundaries too; `None` while shut.
#[must_use]
pub fn directory() -> Option<&'static Path> {
    SWITCH.get()?.as_ref().map(|open| open.directory.as_path())
}

/// To be passed before what `kind` and `what` name is done.
pub fn cross(kind: Kind, what: &str) {
    if let Some(open) = SWITCH.get().and_then(Option::as_ref) {
        open.cross(kind, what);
    }
}

/// [`cross`] for what happens to the file `path`.
pub fn cross_file(kind: Kind, path: &Path) {
    if SWITCH.get().is_some_and(Option::is_some) {
        cross(kind, &path.to_string_lossy());
    }
}

/// A channel whose calls are boundaries, made with [`asks`].
pub type Crossing = InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>>;

/// Makes a client cross a boundary before each of its calls; an interceptor for generated clients.
///
/// # Errors
/// None; the type is tonic's.
pub fn asks(request: Request<()>) -> Result<Request<()>, Status> {
    if let Some(method) = request.extensions().get::<GrpcMethod<'_>>() {
        cross(Kind::Ask, method.method());
    }
    Ok(request)
}

/// Whether `directory` is ours alone and says that we may.
fn may(directory: &Path) -> bool {
    let ours = fs::symlink_metadata(directory).is_ok_and(|found| {
        found.is_dir()
            && found.uid() == rustix::process::geteuid().as_raw()
            && found.mode() & 0o022 == 0
    });
    let consent = fs::read_to_string(directory.join(CONSENT_FILE));
    ours && consent.is_ok_and(|text| text == CONSENT)
}

impl Switch {
    fn cross(&self, kind: Kind, what: &str) {
        let line = format!("{} {what}", kind.word());
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if is_look(kind, what) && !looked.insert(line.clone()) {
            return;
        }
        // A switch whose directory went away is shut.
        if self.reached(&line).unwrap_or(false) {
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }

    /// Writes the crossing down; says whether it is the one that was chosen.
    fn reached(&self, line: &str) -> io::Result<bool> {
        let log = self.directory.join(format!("{}.log", self.role));
        let mut file = OpenOptions::new().create(true).append(true).open(&log)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        let arm = self.directory.join(format!("{}.arm", self.role));
        let chosen = match fs::read_to_string(&arm) {
            Ok(text) => text.trim().parse::<usize>().map_err(io::Error::other)?,
            Err(_) => return Ok(false),
        };
        let crossed = fs::read(&log)?
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        // Ordering: disarmed first, so that the process that comes after us lives.
        Ok(crossed >= chosen && fs::remove_file(&arm).is_ok())
    }
}

fn is_look(kind: Kind, what: &str) -> bool {
    let method = what.rsplit('/').next().unwrap_or(what);
    matches!(kind, Kind::Ask | Kind::Serve | Kind::Answer) && LOOKS.contains(&method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_consent_or_open_to_others_opens_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = std::env::temp_dir().join(format!("radix-boundary-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mode = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o700);
        assert!(!may(&dir), "no consent");
        fs::write(dir.join(CONSENT_FILE), "yes\n").unwrap();
        assert!(!may(&dir), "not the words");
        fs::write(dir.join(CONSENT_FILE), CONSENT).unwrap();
        assert!(may(&dir));
        mode(0o777);
        assert!(!may(&dir), "others may write there");
        assert!(!may(&dir.join("absent")));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_chosen_crossing_is_reached_once_and_a_look_counts_once() {
        let dir = std::env::temp_dir().join(format!("radix-crossing-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let switch = Switch {
            directory: dir.clone(),
            role: "test",
            looked: Mutex::default(),
        };
        fs::write(dir.join("test.arm"), "4").unwrap();
        switch.cross(Kind::Ask, "Hordes");
        switch.cross(Kind::Ask, "Hordes");
        switch.cross(Kind::Ask, "Invite");
        switch.cross(Kind::Ask, "Invite");
        let log = fs::read_to_string(dir.join("test.log")).unwrap();
        assert_eq!(log, "ask Hordes\nask Invite\nask Invite\n");
        assert!(switch.reached("write a").unwrap());
        assert!(!switch.reached("write b").unwrap(), "disarmed by the death");
        fs::remove_dir_all(&dir).unwrap();
    }
}
