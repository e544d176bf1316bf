//! An sshd on loopback with keys of its own, and one shared connection to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Running, find, folder};
use crate::radix::{scratch, succeeded};

/// Server and shared connection; both end when this is dropped.
#[derive(Debug)]
pub(crate) struct Ssh {
    client: Running,
    server: Running,
    socket: PathBuf,
}

impl Ssh {
    /// Starts both.
    ///
    /// # Errors
    ///
    /// When either program cannot be had or does not start.
    pub(crate) fn start() -> Result<Self, String> {
        let sshd = server_program()?;
        let at = folder("ssh")?;
        for name in ["host", "user"] {
            let mut keygen = Command::new(find("ssh-keygen").ok_or("no ssh-keygen")?);
            keygen
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at.join(name));
            run("ssh-keygen", &mut keygen)?;
        }
        let port = free_port()?;
        let server = Running::start(
            "sshd",
            server_command(&sshd, &at, port)?.stderr(Stdio::null()),
        )?;
        let socket = at.join("socket");
        let client = Running::start("ssh", &mut client_command(&at, port, &socket)?)?;
        let ssh = Self {
            client,
            server,
            socket,
        };
        ssh.wait()?;
        Ok(ssh)
    }

    fn wait(&self) -> Result<(), String> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if self.socket.exists() && self.run(&["true"]).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let (client, server) = (&self.client, &self.server);
        Err(format!(
            "the shared ssh connection does not come up: {client:?}, {server:?}"
        ))
    }

    /// The shared connection, for other programs.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs a command over the shared connection.
    ///
    /// # Errors
    ///
    /// When it does not succeed.
    pub(crate) fn run(&self, words: &[&str]) -> Result<(), String> {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-S"])
            .arg(&self.socket)
            .arg("127.0.0.1")
            .args(words);
        run("ssh", ssh.stdin(Stdio::null()))
    }
}

/// The installed sshd, or one fetched from Debian into the bench's own folder.
fn server_program() -> Result<PathBuf, String> {
    if let Some(installed) = find("sshd") {
        return Ok(installed);
    }
    let at = scratch().join("sshd");
    let program = at.join("usr/sbin/sshd");
    if !program.is_file() {
        std::fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        let script = "apt-get download openssh-server libwrap0 \
                      && for file in *.deb; do dpkg-deb -x \"$file\" . || exit; done";
        run(
            "apt-get download",
            Command::new("sh").args(["-c", script]).current_dir(&at),
        )?;
    }
    Ok(program)
}

/// Root's sshd wants a user and a folder of its own; it gets them in a mount namespace, where
/// root's shell is the plain one, so that no profile is timed.
fn server_command(sshd: &Path, at: &Path, port: u16) -> Result<Command, String> {
    let mut command = if is_root() {
        let passwd = at.join("passwd");
        std::fs::write(&passwd, users()?).map_err(|error| error.to_string())?;
        let script = "mount --bind \"$1\" /etc/passwd && mount -t tmpfs none /run \
                      && mkdir -p -m 755 /run/sshd && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sshd"])
            .arg(passwd)
            .arg(sshd);
        command
    } else {
        Command::new(sshd)
    };
    command
        .args([
            "-D",
            "-f",
            "/dev/null",
            "-o",
            "ListenAddress=127.0.0.1",
            "-o",
            "UsePAM=no",
        ])
        .args(["-o", "StrictModes=no", "-o", &format!("Port={port}")])
        .args(["-o", &format!("HostKey={}", at.join("host").display())])
        .args([
            "-o",
            &format!("AuthorizedKeysFile={}", at.join("user.pub").display()),
        ])
        .args(["-o", &format!("PidFile={}", at.join("pid").display())])
        .env(
            "LD_LIBRARY_PATH",
            scratch().join("sshd/usr/lib/x86_64-linux-gnu"),
        );
    Ok(command)
}

fn client_command(at: &Path, port: u16, socket: &Path) -> Result<Command, String> {
    let mut command = Command::new(find("ssh").ok_or("no ssh")?);
    command
        .args([
            "-M",
            "-N",
            "-F",
            "/dev/null",
            "-o",
            "StrictHostKeyChecking=no",
        ])
        .args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "ConnectionAttempts=20",
        ])
        .args(["-o", "LogLevel=ERROR", "-p", &port.to_string(), "-S"])
        .arg(socket)
        .arg("-i")
        .arg(at.join("user"))
        .arg("127.0.0.1");
    Ok(command)
}

/// This machine's users with a plain shell for root, and sshd's own.
fn users() -> Result<String, String> {
    let text = std::fs::read_to_string("/etc/passwd").map_err(|error| error.to_string())?;
    let mut users = String::from("sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n");
    for line in text.lines().filter(|line| !line.starts_with("sshd:")) {
        match (line.starts_with("root:"), line.rsplit_once(':')) {
            (true, Some((before, _))) => users.push_str(&format!("{before}:/bin/sh\n")),
            _ => users.push_str(&format!("{line}\n")),
        }
    }
    Ok(users)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn run(name: &str, command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    succeeded(name, output).map(drop)
}

fn free_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}
