//! `$RADIX_HOME`: where everything of this user is kept, and whether it may be used.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crux_net::boundary::{Kind, cross_file};
use crux_net::durable;

use crate::failure::{Failure, Fault, Outcome};

/// Directories in which a `radix` that was killed may have left the half of a write.
const STAGED: [&str; 10] = [
    "owner",
    "owner/issued",
    "owner/erased",
    "operator",
    "operator/invited",
    "operator/used",
    "generations",
    "trees",
    "begat",
    "begat/records",
];

/// The state directory of this user, checked.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    /// Finds the state directory without making it.
    ///
    /// Order: `RADIX_HOME`, `$XDG_STATE_HOME/radix`, `$HOME/.local/state/radix`.
    pub(crate) fn locate() -> Outcome<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = if let Some(home) = variable("RADIX_HOME") {
            PathBuf::from(home)
        } else if let Some(state) = variable("XDG_STATE_HOME") {
            Path::new(&state).join("radix")
        } else if let Some(home) = variable("HOME") {
            Path::new(&home).join(".local/state/radix")
        } else {
            return Err(
                Failure::usage("no state directory: RADIX_HOME and HOME are both unset")
                    .hint("set RADIX_HOME to a directory that you own"),
            );
        };
        let root = if root.is_absolute() {
            root
        } else {
            std::env::current_dir()?.join(root)
        };
        Ok(Self { root })
    }

    /// Finds the state directory and makes it ready for use, 0700.
    pub(crate) fn open() -> Outcome<Self> {
        let home = Self::locate()?;
        let refuse = |what: String| {
            Err(Failure::usage(what)
                .hint("set RADIX_HOME to a directory that you own and may write to"))
        };
        cross_file(Kind::Write, &home.root);
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&home.root);
        if let Err(error) = made {
            return refuse(format!(
                "cannot make the state directory {}: {error}",
                home.root.display()
            ));
        }
        home.refuse_foreign()?;
        let probe = home.root.join(".probe");
        if let Err(error) = std::fs::write(&probe, b"radix") {
            let _ = std::fs::remove_file(&probe);
            return refuse(format!(
                "cannot write in the state directory {}: {error}",
                home.root.display()
            ));
        }
        cross_file(Kind::Remove, &probe);
        match std::fs::remove_file(&probe) {
            // Another radix that came at the same time was faster.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        for directory in STAGED {
            crux_net::staged::sweep(&home.join(directory));
        }
        Ok(home)
    }

    /// Refuses a state directory of somebody else; one that is not there is nobody's.
    pub(crate) fn refuse_foreign(&self) -> Outcome<()> {
        let Ok(metadata) = std::fs::metadata(&self.root) else {
            return Ok(());
        };
        let uid = nix::unistd::geteuid().as_raw();
        if metadata.uid() == uid {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "the state directory {} belongs to uid {}, not to you (uid {uid})",
            self.root.display(),
            metadata.uid()
        ))
        .hint("set RADIX_HOME to a directory that you own and may write to"))
    }

    /// Refuses a copy of a state directory that is still there: the two would be one base rnode twice.
    ///
    /// `owner/place` says which directory it is, by its number in the file system and its path.
    pub(crate) fn refuse_copy(&self) -> Outcome<()> {
        let place = self.join("owner/place");
        let Ok(present) = std::fs::metadata(self.join("owner")) else {
            return Ok(());
        };
        let number = present.ino();
        let noted = std::fs::read_to_string(&place).unwrap_or_default();
        let noted = noted.split_once('\n').and_then(|(number, path)| {
            Some((number.parse::<u64>().ok()?, PathBuf::from(path.trim_end())))
        });
        if let Some((of, path)) = &noted {
            if (*of, path) == (number, &self.root) {
                return Ok(());
            }
            let original = std::fs::metadata(path.join("owner"));
            if *of != number && original.is_ok_and(|original| original.ino() == *of) {
                return Err(Failure::new(
                    Fault::Refused,
                    format!(
                        "{} is a copy of the state directory {}, which is still there: both would be the same base rnode",
                        self.root.display(),
                        path.display()
                    ),
                )
                .hint("use that one; another operator comes in by `radix ca invite --operator NAME` and `radix login`"));
            }
        }
        let text = format!("{number}\n{}\n", self.root.display());
        // Where nothing can be written, nothing is started either.
        write_durably(&place, text.as_bytes()).ok();
        Ok(())
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path below it.
    pub(crate) fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// The directory of the base rnode.
    pub(crate) fn base(&self) -> PathBuf {
        self.join("base")
    }

    /// The file that holds the highest generation a namespace ever had.
    pub(crate) fn generation_file(&self, namespace: &str) -> PathBuf {
        self.join("generations").join(namespace)
    }

    /// The highest generation a namespace ever had; 0 when there was none.
    pub(crate) fn generation(&self, namespace: &str) -> u64 {
        std::fs::read_to_string(self.generation_file(namespace))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Notes the highest generation of a namespace, durably.
    pub(crate) fn note_generation(&self, namespace: &str, generation: u64) -> Outcome<()> {
        if generation > self.generation(namespace) {
            write_durably(
                &self.generation_file(namespace),
                generation.to_string().as_bytes(),
            )?;
        }
        Ok(())
    }

    fn tree_file(&self, directory: &Path) -> PathBuf {
        let name = crux_core::digest::Digest::of(directory.as_os_str().as_encoded_bytes());
        self.join("trees").join(name.to_string())
    }

    /// The generation last applied from `directory` (canonical path), if any.
    pub(crate) fn tree_generation(&self, directory: &Path) -> Option<u64> {
        let text = std::fs::read_to_string(self.tree_file(directory)).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// The digest of the document that was last asked for from `directory`, until it is noted as applied.
    pub(crate) fn tree_asked(&self, directory: &Path) -> Option<String> {
        let text = std::fs::read_to_string(self.tree_file(directory)).ok()?;
        text.lines().nth(3).map(str::to_owned)
    }

    /// Notes what is about to be asked for from `directory`, durably.
    ///
    /// Whoever dies before it hears that it was accepted finds by this that what runs is its own.
    pub(crate) fn note_asked(
        &self,
        directory: &Path,
        namespace: &str,
        digest: &str,
    ) -> Outcome<()> {
        let applied = self.tree_generation(directory).unwrap_or(0);
        let text = format!(
            "{applied}\n{}\n{namespace}\n{digest}\n",
            directory.display()
        );
        write_durably(&self.tree_file(directory), text.as_bytes())?;
        Ok(())
    }

    /// The directory from which `generation` was applied, for messages.
    pub(crate) fn tree_of_generation(&self, namespace: &str, generation: u64) -> Option<String> {
        let entries = std::fs::read_dir(self.join("trees")).ok()?;
        entries.filter_map(Result::ok).find_map(|entry| {
            let text = std::fs::read_to_string(entry.path()).ok()?;
            let mut lines = text.lines();
            let same = lines.next()?.parse() == Ok(generation);
            let directory = lines.next()?.to_owned();
            (same && lines.next() == Some(namespace)).then_some(directory)
        })
    }

    /// Notes that `generation` of `namespace` was applied from `directory`, durably.
    pub(crate) fn note_tree(
        &self,
        directory: &Path,
        namespace: &str,
        generation: u64,
    ) -> Outcome<()> {
        let text = format!("{generation}\n{}\n{namespace}\n", directory.display());
        write_durably(&self.tree_file(directory), text.as_bytes())?;
        Ok(())
    }
}

/// Replaces a file, readable by us alone, and makes its folder; several of us may be at it.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    durable::replace_shared(path, bytes)
}
