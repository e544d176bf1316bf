//! The conformance suite on a plug-in: its program makes the grounds, and is killed as the cases want.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use underverse::{Program, Running, StorageExposure, StorageKind};
use underverse_conformance::{Below, Cannot, Opened, Resolved, TAP_VARIABLE, Take, Tap, Vantage};

use crate::launch::Launch;
use crate::serve::{NOBODY, NOT_OFFERED};

/// Tells a plug-in below which directory everything is that it makes; only the suite sets it.
pub const GROUND_VARIABLE: &str = "RADIX_UNDERVERSE_GROUND";

/// Time in which a plug-in's program must answer a question of the suite. 60 s: the slowest wait for a container to begin.
const GROUND_TIME_MAX: Duration = Duration::from_secs(60);
/// Time between two looks for the end of a process that was killed.
const LOOK: Duration = Duration::from_millis(2);

/// What is below a plug-in, asked of its own program with `--ground`, in processes apart from the backend's.
#[derive(Debug)]
pub struct PluginBelow {
    launch: Launch,
    program: Program,
}

impl PluginBelow {
    /// Asks the program what its containers run.
    ///
    /// # Errors
    /// When it has no ground for the suite.
    pub async fn new(launch: Launch) -> Result<Self, Cannot> {
        let program = parse(&ask(&launch, &["program".as_ref()]).await?)?;
        Ok(Self { launch, program })
    }

    async fn ask(&self, words: &[&Path]) -> Result<String, Cannot> {
        ask(&self.launch, words).await
    }
}

impl PluginBelow {
    /// As [`PluginBelow::ask`], where nothing can be awaited; `None` if it has no answer, or none in time.
    fn ask_now(&self, words: &[&Path]) -> Option<String> {
        let mut command = std::process::Command::new(&self.launch.program);
        command
            .args(&self.launch.args)
            .arg("--ground")
            .args(words)
            .stdin(Stdio::null());
        command.envs(self.launch.env.iter().map(|(name, value)| (name, value)));
        let text = output_within(&mut command, GROUND_TIME_MAX)?;
        (!text.starts_with(NOT_OFFERED)).then_some(text)
    }
}

/// What a command that ended well has written; `None` if it failed, or went on beyond `limit` and was ended.
fn output_within(command: &mut std::process::Command, limit: Duration) -> Option<String> {
    let deadline = Instant::now() + limit;
    let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let written = child.stdout.take();
    let text = written.and_then(|pipe| read_until(pipe, deadline));
    while text.is_some() && Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(LOOK),
            Ok(Some(status)) if status.success() => return text,
            Ok(Some(_)) | Err(_) => break,
        }
    }
    if Instant::now() >= deadline {
        let (program, limit) = (command.get_program(), limit.as_secs());
        tracing::warn!(?program, "a question was not answered in {limit} s");
    }
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// What comes through `pipe` until it is shut; `None` if it is open at the deadline.
fn read_until(mut pipe: ChildStdout, deadline: Instant) -> Option<String> {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok()?;
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&left)) {
            Ok(0) => return None,
            Ok(_) => match pipe.read(&mut buffer).ok()? {
                0 => return String::from_utf8(text).ok(),
                read => text.extend_from_slice(&buffer[..read]),
            },
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

async fn ask(launch: &Launch, words: &[&Path]) -> Result<String, Cannot> {
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.args)
        .arg("--ground")
        .args(words)
        .stdin(Stdio::null());
    command.envs(launch.env.iter().map(|(name, value)| (name, value)));
    command.kill_on_drop(true);
    let asked = || {
        let words: Vec<String> = words.iter().map(|one| one.display().to_string()).collect();
        format!("{} --ground {}", launch.program.display(), words.join(" "))
    };
    let answered = tokio::time::timeout(GROUND_TIME_MAX, command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = match answered {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(Cannot::Failed(format!("{}: {error}", asked()))),
        Err(_) => {
            let limit = GROUND_TIME_MAX.as_secs();
            let text = format!("{} does not answer in {limit} s", asked());
            return Err(Cannot::Failed(text));
        }
    };
    let text = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        let text = format!("{}: {status}: {}", asked(), said.trim());
        return Err(Cannot::Failed(text));
    }
    match text.strip_prefix(NOT_OFFERED) {
        Some(_) => Err(Cannot::NotOffered("the plug-in's ground does not offer it")),
        None => Ok(text),
    }
}

fn parse(text: &str) -> Result<Program, Cannot> {
    let mut lines = text.lines().map(str::to_owned);
    let kind = lines.next();
    let words = lines.collect();
    match kind.as_deref() {
        Some("command") => Ok(Program::Command(words)),
        Some("fulcrum") => Ok(Program::Fulcrum(words)),
        other => Err(Cannot::Failed(format!(
            "`--ground program` is to answer `command` or `fulcrum` and the words of a container, and nothing else on \
             standard output; it began with {:?}",
            other.unwrap_or_default()
        ))),
    }
}

#[async_trait]
impl Below for PluginBelow {
    async fn open(&self, directory: &Path, _tap: Tap) -> Result<Opened, Cannot> {
        let tap = directory.with_file_name("tap");
        let launch = self
            .launch
            .clone()
            .env(GROUND_VARIABLE, directory)
            .env(TAP_VARIABLE, tap);
        let plugin = launch
            .start()
            .await
            .map_err(|error| Cannot::Failed(error.chain()))?;
        let shared = Arc::new(plugin.clone());
        let admin = plugin
            .has_admin()
            .then(|| Arc::clone(&shared) as Arc<dyn underverse::UnderverseAdmin>);
        Ok(Opened {
            underverse: shared,
            admin,
            process: plugin.pid(),
        })
    }
    async fn kill(&self, opened: &Opened) -> Result<(), Cannot> {
        let number = opened.process.and_then(|pid| i32::try_from(pid).ok());
        let pid = number.and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Cannot::Failed("the plug-in has no process".to_owned()))?;
        match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(Cannot::Failed(error.to_string())),
        }
        // What it held is free once it is a zombie, or gone.
        while std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
            .is_ok_and(|stat| !stat.contains(") Z"))
        {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
    async fn inventory(&self, directory: &Path) -> Result<BTreeSet<String>, Cannot> {
        Ok(self
            .ask(&["inventory".as_ref(), directory])
            .await?
            .lines()
            .map(str::to_owned)
            .collect())
    }
    async fn remove(&self, directory: &Path, id: &str) -> Result<(), Cannot> {
        self.ask(&["remove".as_ref(), directory, id.as_ref()])
            .await
            .map(drop)
    }
    fn sweep(&self, directory: &Path) {
        if self.ask_now(&["sweep".as_ref(), directory]).is_none() {
            tracing::warn!(directory = %directory.display(), "a ground was not swept");
        }
    }
    async fn environment(
        &self,
        directory: &Path,
        of: &Running,
    ) -> Result<BTreeMap<String, String>, Cannot> {
        let text = self
            .ask(&["environment".as_ref(), directory, of.id.as_str().as_ref()])
            .await?;
        let pair = |line: &str| {
            line.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        Ok(text.lines().filter_map(pair).collect())
    }
    async fn inside(&self, directory: &Path, of: &Running, path: &str) -> Result<PathBuf, Cannot> {
        let text = self
            .ask(&[
                "inside".as_ref(),
                directory,
                of.id.as_str().as_ref(),
                path.as_ref(),
            ])
            .await?;
        Ok(text.trim_end().into())
    }
    fn exposure(&self, directory: &Path, number: u32) -> Option<StorageExposure> {
        let text = self.ask_now(&["exposure".as_ref(), directory, number.to_string().as_ref()])?;
        let mut lines = text.lines().map(str::to_owned);
        let (server, source, bind) = (lines.next()?, lines.next()?, lines.next()?);
        let kind = match lines.next()?.as_str() {
            "volume" => StorageKind::Volume,
            _ => StorageKind::FileTree,
        };
        let thin = lines.next()? == "thin";
        Some(StorageExposure {
            server,
            source,
            bind,
            kind,
            tags: BTreeSet::new(),
            thin,
        })
    }
    async fn reach(
        &self,
        directory: &Path,
        from: Vantage<'_>,
        to: SocketAddr,
    ) -> Result<Option<String>, Cannot> {
        let (id, to) = (from.id().unwrap_or(NOBODY), to.to_string());
        let text = self
            .ask(&["reach".as_ref(), directory, id.as_ref(), to.as_ref()])
            .await?;
        Ok(text.lines().next().map(str::to_owned))
    }
    async fn exchange(
        &self,
        directory: &Path,
        from: Vantage<'_>,
        (to, text): (SocketAddr, &str),
    ) -> Result<Option<String>, Cannot> {
        let (id, to) = (from.id().unwrap_or(NOBODY), to.to_string());
        let words = ["exchange".as_ref(), directory, id.as_ref(), to.as_ref()];
        let answer = self.ask(&[&words[..], &[text.as_ref()]].concat()).await?;
        Ok(answer.lines().next().map(str::to_owned))
    }
    async fn hold(&self, directory: &Path, from: &[&str], to: SocketAddr) -> Result<u32, Cannot> {
        let to = to.to_string();
        let mut words: Vec<&Path> = vec!["hold".as_ref(), directory, to.as_ref()];
        words.extend(from.iter().map(Path::new));
        let text = self.ask(&words).await?;
        let count = text.trim_end().parse();
        count.map_err(|_| Cannot::Failed(format!("{text:?} is no number")))
    }
    async fn resolve(
        &self,
        directory: &Path,
        from: &Running,
        name: &str,
    ) -> Result<Vec<Resolved>, Cannot> {
        let id = from.id.as_str().as_ref();
        let text = self
            .ask(&["resolve".as_ref(), directory, id, name.as_ref()])
            .await?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }
    fn internet(&self, directory: &Path) -> Option<SocketAddr> {
        let text = self.ask_now(&["internet".as_ref(), directory])?;
        text.trim_end().parse().ok()
    }
    fn other_addresses(&self) -> Vec<IpAddr> {
        let text = self.ask_now(&["addresses".as_ref()]).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
    fn listener(&self, port: u16) -> Option<Program> {
        parse(&self.ask_now(&["listener".as_ref(), port.to_string().as_ref()])?).ok()
    }
    fn taker(&self, port: u16, what: Take) -> Option<Program> {
        let (kind, number) = what.words();
        let words = [port.to_string(), kind.to_owned(), number.to_string()];
        let [port, kind, number] = words.each_ref().map(Path::new);
        parse(&self.ask_now(&["taker".as_ref(), port, kind, number])?).ok()
    }
    fn program(&self) -> Program {
        self.program.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_or_ended_at_its_limit() {
        let ask = |script: &str, limit: Duration| {
            let mut command = std::process::Command::new("/bin/sh");
            output_within(command.args(["-c", script]).stdin(Stdio::null()), limit)
        };
        assert_eq!(ask("echo yes", GROUND_TIME_MAX).as_deref(), Some("yes\n"));
        assert_eq!(ask("echo no; exit 1", GROUND_TIME_MAX), None);
        // Silent, silent with its output shut, and gone with a child that holds its output: without a limit, minutes.
        for silent in [
            "exec sleep 600",
            "exec >&-; exec sleep 600",
            "echo half; sleep 3 & exit 0",
        ] {
            assert_eq!(ask(silent, Duration::from_millis(200)), None, "{silent}");
        }
    }
}
