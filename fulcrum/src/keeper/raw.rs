//! The few system calls that have no safe wrapper; all `unsafe` of keeper, cell and mounts is here.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::libc;
use nix::unistd::{ForkResult, Gid, Pid, Uid};

/// How a child ended and what it used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) status: Status,
    pub(crate) user_cpu_us: u64,
    pub(crate) system_cpu_us: u64,
    pub(crate) memory_peak_bytes: u64,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

/// Forks; `child` runs in the child, which exits with 127 should it come back or panic.
///
/// # Errors
/// The system's, or `Other` if this process has a second thread.
#[expect(unsafe_code, reason = "fork has no safe wrapper")]
pub(crate) fn fork(child: impl FnOnce() -> Infallible) -> io::Result<Pid> {
    // Linux counts a process's threads as links of this directory, beside its own two; where that is not so, they are counted.
    let alone = fs::metadata("/proc/self/task")?.nlink() == 3;
    if !alone && fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has more than one thread"));
    }
    // Safety: this is the only thread, so no lock or allocator state can be held by another one at the fork,
    // and the child may do whatever the parent may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            // The child must never unwind into the parent's frames.
            let _ = catch_unwind(AssertUnwindSafe(child));
            exit_now(127)
        }
    }
}

/// Ends this process without running anything registered for its exit.
#[expect(unsafe_code, reason = "_exit has no safe wrapper")]
pub(crate) fn exit_now(code: i32) -> ! {
    // Safety: `_exit` takes any code, touches no memory and does not return.
    unsafe { libc::_exit(code) }
}

/// A child that has ended and has not been reaped.
#[expect(
    unsafe_code,
    reason = "the wrappers fail on children ended by real-time signals"
)]
pub(crate) fn ended_child() -> io::Result<Option<i32>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // Safety: `info` is writable memory of the right type and outlives the call.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) {
            Ok(None)
        } else {
            Err(error)
        };
    }
    // Safety: all-zero bytes are a valid `siginfo_t`, and `waitid` filled in the child's fields or left them zero.
    let pid = unsafe { info.assume_init().si_pid() };
    Ok((pid != 0).then_some(pid))
}

/// Reaps a child that has ended.
#[expect(
    unsafe_code,
    reason = "wait4 has no wrapper that tells what the child used"
)]
pub(crate) fn reap(pid: i32) -> io::Result<Ended> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // Safety: both pointers are to writable memory of the right types that outlives the call.
    let reaped = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    if reaped != pid {
        return Err(io::Error::last_os_error());
    }
    // Safety: all-zero bytes are a valid `rusage`, and `wait4` filled it in.
    let usage = unsafe { usage.assume_init() };
    let us = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
            + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    Ok(Ended {
        status: if libc::WIFEXITED(status) {
            Status::Exited(libc::WEXITSTATUS(status))
        } else {
            Status::Signalled(libc::WTERMSIG(status))
        },
        user_cpu_us: us(usage.ru_utime),
        system_cpu_us: us(usage.ru_stime),
        memory_peak_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    })
}

/// Sends a signal by number to a process, or to a group by its negated number.
///
/// The wrappers know no real-time signals.
#[expect(unsafe_code, reason = "the wrappers know no real-time signals")]
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // Safety: `kill` takes any two numbers and touches no memory.
    if unsafe { libc::kill(pid, signal) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends a signal by number to the process behind a pidfd.
#[expect(unsafe_code, reason = "the wrappers know no real-time signals")]
pub(crate) fn kill_fd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // Safety: the descriptor is open while it is borrowed; a null info asks for the default one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            no_info,
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// In a child before exec: makes `number` a copy of `fd` that stays open across exec.
#[expect(unsafe_code, reason = "a fixed descriptor number has no owner")]
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // Safety: both are plain numbers to the kernel; the caller is a child before exec that owns nothing at `number`.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if result == number {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// In a child before exec: marks every descriptor from `first` on to be closed by exec.
#[expect(unsafe_code, reason = "close_range has no wrapper")]
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // Safety: only flags of descriptors change, nothing is closed here.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// In a child before exec: gives SIGPIPE, which the Rust runtime ignores, its default effect.
#[expect(unsafe_code, reason = "changing a signal's effect has no safe wrapper")]
pub(crate) fn default_sigpipe() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // Safety: the default effect is no handler, so nothing of ours runs in signal context.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}

/// Gives this thread, and no other, the identity of a user for files: no groups, and nothing of root's way around permissions.
///
/// There is no way back; the thread is to end.
#[expect(unsafe_code, reason = "the wrapper changes the groups of every thread")]
pub(crate) fn see_files_as(uid: Uid, gid: Gid) -> io::Result<()> {
    let none = std::ptr::null::<libc::gid_t>();
    // Safety: no list is read, since its length is 0; the kernel changes the groups of the calling thread alone.
    if unsafe { libc::syscall(libc::SYS_setgroups, 0, none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Ordering: the user last, which takes away the right to change the group. Both answer what was before, so ask again.
    nix::unistd::setfsgid(gid);
    nix::unistd::setfsuid(uid);
    let nobody = u32::MAX;
    let now = (
        nix::unistd::setfsuid(Uid::from_raw(nobody)),
        nix::unistd::setfsgid(Gid::from_raw(nobody)),
    );
    if now == (uid, gid) {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Whether this thread could open a file so: at `path`, or, where that is empty, what `fd` is.
#[expect(
    unsafe_code,
    reason = "the wrapper knows neither this call nor empty paths"
)]
pub(crate) fn may_open(
    fd: Option<BorrowedFd<'_>>,
    path: &CStr,
    mode: libc::c_int,
) -> io::Result<()> {
    let (fd, empty) = match fd {
        Some(fd) => (fd.as_raw_fd(), libc::AT_EMPTY_PATH),
        None => (libc::AT_FDCWD, 0),
    };
    let flags = libc::AT_EACCESS | empty;
    // Safety: `path` is a C string that lives over the call; nothing is written.
    let result = unsafe { libc::syscall(libc::SYS_faccessat2, fd, path.as_ptr(), mode, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ask `/dev/loop-control` for the number of a device that nothing uses.
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
/// Binds a loop device to a file.
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
/// Of a loop device: nothing is written; and it is freed when its last user closes it.
const LO_FLAGS: (u32, u32) = (1, 4);

/// `struct loop_config` of the kernel, with its `loop_info64` in place.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// Device, inode, raw device, offset and limit of size: none.
    numbers: [u64; 5],
    /// Number, type and size of a key: none.
    keys: [u32; 3],
    flags: u32,
    /// Names and keys: none.
    names: [u8; 64 + 64 + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// The number of a loop device that nothing used just now.
#[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
pub(crate) fn free_loop(control: BorrowedFd<'_>) -> io::Result<u32> {
    // Safety: this request takes no argument and touches no memory of ours.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Binds a loop device to an open file until its last user closes it.
///
/// # Errors
/// `ResourceBusy` if another was faster.
#[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
pub(crate) fn bind_loop(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    writable: bool,
) -> io::Result<()> {
    let (read_only, auto_clear) = LO_FLAGS;
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?,
        block_size: 0,
        numbers: [0; 5],
        keys: [0; 3],
        flags: auto_clear | if writable { 0 } else { read_only },
        names: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    // Safety: `config` has the kernel's layout (its size is asserted below), is only read, and outlives the call.
    let result = unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            LOOP_CONFIGURE,
            std::ptr::from_ref(&config),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

const _: () = assert!(size_of::<LoopConfig>() == 304);
