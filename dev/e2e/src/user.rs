//! Who runs the command under test: we, or an ordinary user.

use std::path::Path;
use std::process::Command;

/// An unprivileged uid and gid that no account of this machine uses.
const ORDINARY_ID: u32 = 64_123;

/// Who runs `radix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests.
    Ourselves,
    /// An ordinary user; only possible for root, who becomes one by `setpriv`.
    Ordinary,
}

impl User {
    /// A command that runs `program` as this user with nothing but `HOME` and `PATH` set.
    #[must_use]
    pub fn command(self, program: &Path, home: &Path) -> Command {
        let mut command = match self {
            Self::Ourselves => Command::new(program),
            Self::Ordinary => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={ORDINARY_ID}"))
                    .arg(format!("--regid={ORDINARY_ID}"))
                    .args(["--clear-groups", "--"])
                    .arg(program);
                command
            }
        };
        command
            .env_clear()
            .env("HOME", home)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if self == Self::Ourselves {
            for name in ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
            let cargo = std::env::var_os("CARGO_HOME").is_none();
            if let (true, Some(home)) = (cargo, std::env::var_os("HOME")) {
                command.env("CARGO_HOME", Path::new(&home).join(".cargo"));
                command.env("RUSTUP_HOME", Path::new(&home).join(".rustup"));
            }
        }
        command
    }

    /// Gives `path` and all below it to this user.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn own(self, path: &Path) -> std::io::Result<()> {
        if self == Self::Ourselves {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(ORDINARY_ID), Some(ORDINARY_ID))?;
        if path.is_dir() && !path.is_symlink() {
            for entry in std::fs::read_dir(path)? {
                self.own(&entry?.path())?;
            }
        }
        Ok(())
    }

    /// Whether this machine lets the tests become this user.
    #[must_use]
    pub fn possible(self) -> bool {
        self == Self::Ourselves || nix::unistd::geteuid().is_root()
    }
}
