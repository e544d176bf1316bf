//! The others: a shell loop, supervisord, sshd. Each is ended when its value is dropped.

pub(crate) mod ssh;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::radix::{scratch, succeeded};

/// Finds an executable on PATH and in the folders that hold system commands.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// A process in a group of its own; it is told to end and waited for when dropped, and whatever
/// is left of its group is killed.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self, String> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        child.map(Self).map_err(|error| format!("{name}: {error}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        drop(Command::new("kill").args(["-TERM", &pid]).status());
        drop(self.0.wait());
        let group = format!("-{pid}");
        let sweep = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        drop(sweep);
    }
}

/// A folder of a peer's own, emptied.
///
/// # Errors
///
/// When it cannot be made.
pub(crate) fn folder(name: &str) -> Result<PathBuf, String> {
    let path = scratch().join(name);
    drop(std::fs::remove_dir_all(&path));
    std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Waits until `folder` holds `count` marks; each started process leaves one.
///
/// # Errors
///
/// When they are not there within a minute.
pub(crate) fn wait_for_marks(folder: &Path, count: usize) -> Result<(), String> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        let listing = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
        if listing.count() >= count {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(format!(
        "{}: not {count} processes within a minute",
        folder.display()
    ))
}

/// What each started process does: leaves its mark, then waits to be ended.
fn body(marks: &Path, index: usize) -> String {
    format!("touch {}/{index}; exec sleep 3600", marks.display())
}

/// Starts `count` processes from a shell loop.
///
/// # Errors
///
/// When there is no shell, or they do not start.
pub(crate) fn shell_loop(marks: &Path, count: usize) -> Result<Running, String> {
    let mut script = String::new();
    for index in 0..count {
        script.push_str(&format!("sh -c '{}' &\n", body(marks, index)));
    }
    script.push_str("wait\n");
    let running = Running::start("sh", Command::new("sh").args(["-c", &script]))?;
    wait_for_marks(marks, count)?;
    Ok(running)
}

/// supervisord in a virtual environment of its own.
#[derive(Debug)]
pub(crate) struct Supervisor {
    bin: PathBuf,
}

impl Supervisor {
    /// Finds it, or makes its virtual environment; says why it cannot be had.
    ///
    /// # Errors
    ///
    /// When there is no Python, or PyPI cannot be reached.
    pub(crate) fn get() -> Result<Self, String> {
        let venv = scratch().join("venv");
        let bin = venv.join("bin");
        if !bin.join("supervisord").is_file() {
            let python = find("python3").ok_or("no python3")?;
            let made = Command::new(python)
                .args(["-m", "venv"])
                .arg(&venv)
                .output();
            succeeded("python3 -m venv", made.map_err(|error| error.to_string())?)?;
            let pip = Command::new(bin.join("pip"))
                .args(["install", "--quiet", "setuptools<81", "supervisor"])
                .output();
            succeeded(
                "pip install supervisor",
                pip.map_err(|error| error.to_string())?,
            )?;
        }
        Ok(Self { bin })
    }

    /// Starts it with `count` programs and waits until all run.
    ///
    /// # Errors
    ///
    /// When it does not start, or they do not.
    pub(crate) fn start(&self, folder: &Path, count: usize) -> Result<Running, String> {
        let marks = folder.join("marks");
        std::fs::create_dir_all(&marks).map_err(|error| error.to_string())?;
        let running = self.serve(folder, &configuration(folder, &marks, count))?;
        wait_for_marks(&marks, count)?;
        Ok(running)
    }

    fn serve(&self, folder: &Path, configuration: &str) -> Result<Running, String> {
        let file = folder.join("supervisord.conf");
        std::fs::write(&file, configuration).map_err(|error| error.to_string())?;
        let mut command = Command::new(self.bin.join("supervisord"));
        command.arg("--nodaemon").arg("--configuration").arg(&file);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Running::start("supervisord", &mut command)
    }

    /// Starts it with this one program.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub(crate) fn run(&self, folder: &Path, words: &[&str]) -> Result<Running, String> {
        let program = format!("[program:one]\ncommand={}\n", words.join(" "));
        self.serve(folder, &(head(folder) + &program))
    }

    /// Asks it for the state of all programs.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub(crate) fn status(&self, folder: &Path) -> Result<(), String> {
        let file = folder.join("supervisord.conf");
        let output = Command::new(self.bin.join("supervisorctl"))
            .arg("--configuration")
            .arg(file)
            .arg("status")
            .output()
            .map_err(|error| error.to_string())?;
        succeeded("supervisorctl status", output).map(drop)
    }
}

/// Where supervisord keeps what it keeps, and how it is asked.
fn head(folder: &Path) -> String {
    let at = folder.display();
    format!(
        "[supervisord]\nlogfile={at}/log\npidfile={at}/pid\nchildlogdir={at}\n\
         [unix_http_server]\nfile={at}/socket\n\
         [rpcinterface:supervisor]\n\
         supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\nserverurl=unix://{at}/socket\n"
    )
}

fn configuration(folder: &Path, marks: &Path, count: usize) -> String {
    let mut text = head(folder);
    for index in 0..count {
        let body = body(marks, index);
        text.push_str(&format!("[program:p{index}]\ncommand=sh -c '{body}'\n"));
    }
    text
}

/// runit's supervisor of one service, where Debian's package is installed.
#[derive(Debug)]
pub(crate) struct Runit;

impl Runit {
    /// Starts it with this one program.
    ///
    /// # Errors
    ///
    /// When it is not installed, or does not start.
    pub(crate) fn run(folder: &Path, words: &[&str]) -> Result<Running, String> {
        use std::os::unix::fs::PermissionsExt as _;
        let runsv = find("runsv").ok_or("apt-get install runit")?;
        let script = folder.join("run");
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            std::fs::write(&script, format!("#!/bin/sh\nexec {}\n", words.join(" ")))?;
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))
        };
        write().map_err(|error| format!("{}: {error}", script.display()))?;
        Running::start("runsv", Command::new(runsv).arg(folder))
    }
}
