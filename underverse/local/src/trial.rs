//! Asks `radix` to try: what networks this machine grants, and what the network of a horde lets through.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::network::{Granted, ProbeAsk, ProbeFound};

impl Granted {
    /// What `radix`, run in `directory`, finds that this machine grants to this user.
    ///
    /// Blocks for some milliseconds; leaves nothing behind.
    #[must_use]
    pub fn find(radix: &Path, directory: &Path) -> Self {
        let mut command = Command::new(radix);
        command.args(["switch", "--trial", "--dir"]).arg(directory);
        match run(command) {
            Ok(output) if output.status.success() => Self {
                switch: None,
                outbound: last_line(&output),
            },
            Ok(output) => Self::nothing(last_line(&output).unwrap_or_else(|| {
                let status = output.status;
                format!("the trial ended with {status}")
            })),
            Err(error) => Self::nothing(format!("it cannot be tried: {error}")),
        }
    }

    fn nothing(reason: String) -> Self {
        Self {
            switch: Some(reason.clone()),
            outbound: Some(reason),
        }
    }
}

impl ProbeAsk {
    /// Tries it. Blocks for some milliseconds, or for seconds where connections do not come about.
    ///
    /// # Errors
    /// What `radix` says.
    pub(crate) fn run(&self) -> io::Result<ProbeFound> {
        let mut command = Command::new(&self.radix);
        command
            .args(["switch", "--probe", "--dir"])
            .arg(&self.switch)
            .args(["--from", &self.from.to_string()])
            .args(["--to", &self.to.to_string()])
            .args(["--outbound", &self.outbound.to_string()]);
        let output = run(command)?;
        if output.status.success() {
            return serde_json::from_slice(&output.stdout).map_err(io::Error::from);
        }
        let status = output.status;
        let reason = last_line(&output).unwrap_or_else(|| format!("it ended with {status}"));
        Err(io::Error::other(reason))
    }
}

fn run(mut command: Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).output()
}

fn last_line(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let mut lines = text.lines().rev().map(str::trim);
    lines.find(|line| !line.is_empty()).map(str::to_owned)
}
