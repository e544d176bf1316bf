//! The system calls that mount and unmount, on descriptors that were walked to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tonic::Status;

use super::image::Form;
use crate::keeper::raw;

/// Devices tried while others are faster.
const LOOPS_TRIED: usize = 64;
/// Tries to unmount what may be in use by a walk of our own, and the pause between them.
const UNMOUNT_TRIES: u32 = 5;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);
const NONE: Option<&str> = None;
const KEPT_OUT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

fn by_descriptor(descriptor: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// Mounts an image over an empty folder. The device is free again when the last of its users has ended.
pub(super) fn image(
    file: &File,
    form: Form,
    folder: &OwnedFd,
    writable: bool,
) -> Result<(), Status> {
    // It is held until the mount holds it itself.
    let (device, _held) = bound_loop(file, writable).map_err(|error| {
        let refused = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
        );
        if refused {
            not_here(&format!("this rnode gets no loop device: {error}"))
        } else {
            Status::internal(format!("mount: bind a loop device: {error}"))
        }
    })?;
    let mut flags = KEPT_OUT;
    flags.set(MsFlags::MS_RDONLY, !writable);
    let done = mount(
        Some(device.as_str()),
        by_descriptor(folder).as_str(),
        Some(form.name()),
        flags,
        form.options(writable),
    );
    done.map_err(|errno| match errno {
        nix::Error::EPERM | nix::Error::EACCES => {
            not_here("the kernel lets this rnode mount nothing")
        }
        nix::Error::ENODEV => not_here(&format!("this kernel has no {}", form.name())),
        errno => Status::invalid_argument(format!(
            "mount: the kernel does not take it as {}: {errno}",
            form.name()
        )),
    })
}

/// Binds a folder over an empty one, with nothing that is mounted below it.
pub(super) fn folder(source: &OwnedFd, folder: &OwnedFd, writable: bool) -> Result<(), Status> {
    let failed = |errno| match errno {
        nix::Error::EPERM | nix::Error::EACCES => {
            not_here("the kernel lets this rnode mount nothing")
        }
        errno => Status::internal(format!("mount: bind the folder: {errno}")),
    };
    // Its descriptor stays the mount's root wherever that is moved, so it is limited by it, not by a name.
    let tree = rustix::mount::open_tree(
        source,
        "",
        rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
            | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC
            | rustix::mount::OpenTreeFlags::AT_EMPTY_PATH,
    )
    .map_err(|errno| failed(nix::Error::from_raw(errno.raw_os_error())))?;
    rustix::mount::move_mount(
        &tree,
        "",
        folder,
        "",
        rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
            | rustix::mount::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .map_err(|errno| failed(nix::Error::from_raw(errno.raw_os_error())))?;
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | KEPT_OUT;
    flags.set(MsFlags::MS_RDONLY, !writable);
    let at = by_descriptor(&tree);
    let limited = mount(NONE, at.as_str(), NONE, flags, NONE);
    limited.map_err(|errno| {
        // It stands writable where it was asked read-only: rather not at all.
        let _ = umount2(at.as_str(), MntFlags::MNT_DETACH);
        failed(errno)
    })
}

/// Unmounts what is mounted at `name`.
///
/// # Errors
/// `FailedPrecondition` while something uses it.
pub(super) fn unmount(parent: &OwnedFd, name: &str) -> Result<(), Status> {
    let at = format!("{}/{name}", by_descriptor(parent));
    let mut unmounted = umount2(at.as_str(), MntFlags::UMOUNT_NOFOLLOW);
    for _ in 1..UNMOUNT_TRIES {
        if unmounted != Err(nix::Error::EBUSY) {
            break;
        }
        std::thread::sleep(UNMOUNT_PAUSE);
        unmounted = umount2(at.as_str(), MntFlags::UMOUNT_NOFOLLOW);
    }
    unmounted.map_err(|errno| match errno {
        nix::Error::EBUSY => Status::failed_precondition(
            "unmount: a process has something of it open, or works in it",
        ),
        errno => Status::internal(format!("unmount: {errno}")),
    })
}

/// A loop device on a file: its path, and it, open.
fn bound_loop(file: &File, writable: bool) -> io::Result<(String, File)> {
    let control = open("/dev/loop-control", true)?;
    for _ in 0..LOOPS_TRIED {
        let path = format!("/dev/loop{}", raw::free_loop(control.as_fd())?);
        let device = open(&path, writable)?;
        match raw::bind_loop(device.as_fd(), file.as_fd(), writable) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            bound => return bound.map(|()| (path, device)),
        }
    }
    Err(io::Error::other("others are always faster"))
}

fn open(path: &str, writable: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(writable).open(path)
}

/// What the kernel does not offer here.
pub(super) fn not_here(why: &str) -> Status {
    Status::unimplemented(format!("mount: not offered here, because {why}"))
}
