//! Whether a user of this rnode may read, write or execute a file: found out by trying, not by reading mode bits.
//!
//! docs/design/access.md has the contract.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use crux_wire::fulcrum::v1::{AccessReply, AccessRequest};
use crux_wire::keeper::v1::User;
use nix::unistd::{Gid, Uid, getegid, geteuid};
use tonic::Status;

use super::application::Application;
use super::context::Agent;
use super::paths::Place;
use crate::config::Isolation;
use crate::keeper::raw;

/// What somebody would do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Read,
    Write,
    Execute,
}

impl Wish {
    const fn mode(self) -> nix::libc::c_int {
        match self {
            Self::Read => nix::libc::R_OK,
            Self::Write => nix::libc::W_OK,
            Self::Execute => nix::libc::X_OK,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Execute]
            .into_iter()
            .find(|wish| wish.to_string() == text)
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "execute",
        })
    }
}

/// Why the property could not be found to hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It does not hold: what the system answered.
    #[error("{0}")]
    Denied(#[source] io::Error),
    /// Who runs this rnode cannot act for that user, so nobody knows.
    #[error("only root can try what uid {0} may do; this rnode runs as uid {1}")]
    Unsupported(u32, u32),
    /// The trial itself failed.
    #[error("try it as uid {0}")]
    Failed(u32, #[source] io::Error),
}

/// What is asked about.
#[derive(Debug)]
pub(crate) enum Resource {
    /// A file and the way to it.
    Path(PathBuf),
    /// An open file: the way to it does not matter.
    Open(OwnedFd),
}

/// The user that processes of ours have unless told otherwise.
fn own() -> User {
    User {
        set: true,
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    }
}

/// Whether `user`, without further groups, may do this now. May block: call it off the runtime.
///
/// # Errors
/// [`Refused`].
pub(crate) fn holds(user: &User, wish: Wish, resource: Resource) -> Result<(), Refused> {
    let ours = own();
    if (user.uid, user.gid) == (ours.uid, ours.gid) {
        return look(&resource, wish).map_err(Refused::Denied);
    }
    if ours.uid != 0 {
        return Err(Refused::Unsupported(user.uid, ours.uid));
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let failed = move |error| Refused::Failed(uid.as_raw(), error);
    // The system keeps whose rights count for each thread; this one ends with them.
    let thread = std::thread::Builder::new().name("access".to_owned());
    let thread = thread.spawn(move || {
        raw::see_files_as(uid, gid).map_err(failed)?;
        look(&resource, wish).map_err(Refused::Denied)
    });
    let ended = thread.map_err(failed)?.join();
    ended.unwrap_or_else(|_| Err(failed(io::Error::other("the trial panicked"))))
}

fn look(resource: &Resource, wish: Wish) -> io::Result<()> {
    match resource {
        Resource::Open(fd) => raw::may_open(Some(fd.as_fd()), c"", wish.mode()),
        Resource::Path(path) => {
            let path = CString::new(path.as_os_str().as_encoded_bytes())?;
            raw::may_open(None, &path, wish.mode())
        }
    }
}

/// The unprivileged user that `name` of a description means on this rnode; `None`: it is the rnode's own.
///
/// The place in the file is stable for a document, and two users never share an id.
pub(crate) fn leased(agent: &Agent, application: &Application, name: &str) -> Option<User> {
    let start = agent.config.user_range_start?;
    if !geteuid().is_root() || agent.config.isolation != Isolation::PidMount {
        return None;
    }
    let users = &application.adf.block()?.value.users;
    let mut users = users.iter();
    let offset = users.position(|given| given.value.name.value == name)?;
    let uid = start.checked_add(u32::try_from(offset).ok()?)?;
    Some(User {
        set: true,
        uid,
        gid: uid,
    })
}

/// The property, for people: `(n1, stix) may execute /var/stix/bin/worker`.
pub(crate) fn property(agent: &Agent, user: &str, wish: Wish, path: &str) -> String {
    format!("({}, {user}) may {wish} {path}", agent.me.label)
}

/// Answers whether the property holds.
///
/// # Errors
/// `InvalidArgument` for what cannot be read, `NotFound` for a user that no description knows, `Unimplemented` when only root
/// could tell, `Internal` when the trial failed.
pub(crate) async fn answer(agent: &Agent, asked: AccessRequest) -> Result<AccessReply, Status> {
    let wish = Wish::parse(&asked.wish).ok_or_else(|| {
        Status::invalid_argument("check an access: it is to read, write or execute")
    })?;
    let place = agent.paths.place(&asked.path);
    let Some(Place::Written(path) | Place::Outside(path)) = place else {
        let text = "check an access: the path is not absolute";
        return Err(Status::invalid_argument(text));
    };
    let (user, name) = subject(agent, &asked.user)?;
    let uid = user.uid;
    let looked = tokio::task::spawn_blocking(move || holds(&user, wish, Resource::Path(path)));
    let looked = looked
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    let reason = match looked {
        Ok(()) => String::new(),
        Err(Refused::Denied(error)) => error.to_string(),
        Err(error @ Refused::Unsupported(..)) => {
            return Err(Status::unimplemented(format!("check an access: {error}")));
        }
        Err(Refused::Failed(uid, error)) => {
            return Err(Status::internal(format!(
                "check an access as uid {uid}: {error}"
            )));
        }
    };
    Ok(AccessReply {
        holds: reason.is_empty(),
        property: property(agent, &name, wish, &asked.path),
        reason,
        uid,
    })
}

/// Whom a caller means: nobody is the rnode's own user, a number that user, anything else a name of the description.
fn subject(agent: &Agent, text: &str) -> Result<(User, String), Status> {
    if text.is_empty() {
        let own = own();
        return Ok((own, format!("uid {}", own.uid)));
    }
    if let Ok(uid) = text.parse() {
        let user = User {
            set: true,
            uid,
            gid: uid,
        };
        return Ok((user, format!("uid {uid}")));
    }
    let live = agent.documents.acting(agent.me.namespace.as_str());
    let application = live.and_then(|live| agent.applications.get(agent, live.document.generation));
    let application = application
        .ok_or_else(|| Status::not_found(format!("find user {text}: there is no description")))?;
    let known = application.adf.block().is_some_and(|block| {
        let mut users = block.value.users.iter();
        users.any(|given| given.value.name.value == text)
    });
    if !known {
        return Err(Status::not_found(format!(
            "find user {text}: the description names no such user"
        )));
    }
    let user = leased(agent, &application, text).unwrap_or_else(own);
    Ok((user, text.to_owned()))
}

/// Refuses to start what its user may not execute.
///
/// # Errors
/// The property that does not hold, for people.
pub(crate) async fn check_program(
    agent: &Agent,
    user: User,
    path: &str,
    file: &std::fs::File,
) -> Result<(), String> {
    let open = file.try_clone().map_err(|error| error.to_string())?;
    let looked = tokio::task::spawn_blocking(move || {
        holds(&user, Wish::Execute, Resource::Open(open.into()))
    });
    let looked = looked.await.map_err(|error| error.to_string())?;
    match looked {
        Ok(()) => Ok(()),
        Err(Refused::Denied(error)) => {
            let property = property(agent, &format!("uid {}", user.uid), Wish::Execute, path);
            Err(format!("{property}: it does not: {error}"))
        }
        // The keeper tries it as well, and says why it cannot.
        Err(Refused::Unsupported(..) | Refused::Failed(..)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    /// Somebody who is not us and owns nothing here.
    const STRANGER: u32 = 2_000_000_123;

    fn scratch(name: &str) -> PathBuf {
        let name = format!("radix-access-{}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        dir
    }

    fn allowed(user: &User, wish: Wish, path: &Path) -> bool {
        match holds(user, wish, Resource::Path(path.to_owned())) {
            Ok(()) => true,
            Err(Refused::Denied(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn stranger() -> User {
        User {
            set: true,
            uid: STRANGER,
            gid: STRANGER,
        }
    }

    #[test]
    fn only_root_knows_what_others_may() {
        let dir = scratch("others");
        let looked = holds(&stranger(), Wish::Read, Resource::Path(dir.clone()));
        let is_root = geteuid().is_root();
        assert_eq!(looked.is_ok(), is_root);
        if !is_root {
            assert!(matches!(looked, Err(Refused::Unsupported(STRANGER, _))));
        }
        fs::remove_dir_all(dir).unwrap();
    }

    // Shows in part: SEC-06
    #[test]
    fn what_a_user_may_follows_the_file_and_the_way_to_it() {
        let dir = scratch("follows");
        let file = dir.join("file");
        fs::write(&file, "x").unwrap();
        let (own, stranger) = (own(), stranger());
        for (mode, mine, theirs) in [
            (0o700, true, false),
            (0o755, true, true),
            (0o600, false, false),
        ] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(allowed(&own, Wish::Execute, &file), mine, "{mode:o}");
            if own.uid == 0 {
                assert_eq!(allowed(&stranger, Wish::Execute, &file), theirs, "{mode:o}");
                let open = fs::File::open(&file).unwrap();
                let looked = holds(&stranger, Wish::Execute, Resource::Open(open.into()));
                assert_eq!(looked.is_ok(), theirs, "{mode:o}");
            }
        }
        if own.uid == 0 {
            fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
            assert!(allowed(&stranger, Wish::Read, &file));
            assert!(!allowed(&stranger, Wish::Write, &file));
            nix::unistd::chown(&file, Some(STRANGER.into()), None).unwrap();
            assert!(allowed(&stranger, Wish::Write, &file));
            // The way to it counts too, and the rights of this process are as they were.
            fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
            assert!(!allowed(&stranger, Wish::Read, &file));
            assert!(allowed(&own, Wish::Write, &file));
        }
        assert!(!allowed(&own, Wish::Read, &dir.join("missing")));
        fs::remove_dir_all(dir).unwrap();
    }
}
