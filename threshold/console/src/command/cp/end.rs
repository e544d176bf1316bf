//! The two ends of a copy: a path of this machine, or a path of one or more rnodes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crux_core::files::path::RelPath;
use crux_core::names::Label;
use crux_net::files::Root;

use crate::failure::{Failure, Outcome};

/// One end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Local(Local),
    Remote(Remote),
}

/// A path of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local(PathBuf);

/// A path of rnodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// `ALL` stands alone.
    pub(super) labels: Vec<String>,
    pub(super) path: String,
}

impl End {
    /// `LABEL:PATH` or `LABEL,LABEL:PATH` names rnodes, everything else a path of this machine.
    pub(super) fn parse(word: &str) -> Outcome<Self> {
        if word == "-" {
            // Elsewhere it means a stream, which a copy is not: it is verified whole, and resumed.
            return Err(
                Failure::usage("`-` is no path: files are copied, not streams")
                    .hint("write ./- for a file of that name"),
            );
        }
        let local = || Ok(Self::Local(Local(PathBuf::from(word))));
        let Some((labels, path)) = word.split_once(':') else {
            return local();
        };
        if labels.contains('/') || labels.starts_with('.') {
            return local();
        }
        let labels: Vec<String> = labels.split(',').map(str::to_owned).collect();
        if let Some(wrong) = labels
            .iter()
            .find(|label| *label != "ALL" && Label::new(label).is_err())
        {
            return Err(Failure::usage(format!("`{wrong}` is no label of a rnode"))
                .hint("write ./NAME for a file of this machine with a colon in it"));
        }
        Ok(Self::Remote(Remote {
            labels,
            path: path.to_owned(),
        }))
    }
}

impl Remote {
    /// The one rnode it names.
    pub(super) fn one(&self) -> Outcome<&str> {
        match &self.labels[..] {
            [one] if one != "ALL" => Ok(one),
            _ => Err(Failure::usage("only the destination may be several rnodes")),
        }
    }
}

impl Local {
    /// The root and path of something that is there; the last link is followed, as by `cp`.
    pub(super) fn source(&self) -> Outcome<(Arc<Root>, RelPath)> {
        let real = self
            .0
            .canonicalize()
            .map_err(|error| Failure::usage(format!("{self}: {error}")))?;
        Self::below(&real)
    }

    /// The name of a single file that is there, as it is offered; `None` for a folder.
    pub(super) fn file_name(&self) -> Option<String> {
        let real = self.0.canonicalize().ok().filter(|real| real.is_file())?;
        Some(real.file_name()?.to_string_lossy().into_owned())
    }

    /// The root and path of where something is to be; a folder that is there is the root itself.
    pub(super) fn sink(&self) -> Outcome<(Arc<Root>, RelPath)> {
        if self.0.is_dir() {
            return Ok((open(&self.0)?, RelPath::ROOT));
        }
        let absolute = std::path::absolute(&self.0)
            .map_err(|error| Failure::usage(format!("{self}: {error}")))?;
        Self::below(&absolute)
    }

    fn below(path: &Path) -> Outcome<(Arc<Root>, RelPath)> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok((open(path)?, RelPath::ROOT));
        };
        let name = RelPath::from_bytes(name.as_encoded_bytes())
            .map_err(|refusal| Failure::usage(format!("{}: {refusal}", path.display())))?;
        Ok((open(folder)?, name))
    }
}

fn open(path: &Path) -> Outcome<Arc<Root>> {
    Root::open(path)
        .map(Arc::new)
        .map_err(|error| Failure::usage(error.to_string()))
}

impl fmt::Display for Local {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_names_rnodes() {
        let check = |word: &str, labels: &[&str], path: &str| {
            let remote = Remote {
                labels: labels.iter().map(ToString::to_string).collect(),
                path: path.to_owned(),
            };
            assert_eq!(End::parse(word).unwrap(), End::Remote(remote), "{word}");
        };
        check("n1:/var/stix/x", &["n1"], "/var/stix/x");
        check("n1,n2:x:y", &["n1", "n2"], "x:y");
        check("ALL:", &["ALL"], "");
        for word in ["x", "./-", "./n1:x", "/tmp/n1:x", "dir/n1:x"] {
            assert!(matches!(End::parse(word), Ok(End::Local(_))), "{word}");
        }
        assert!(End::parse("no good:x").is_err());
        assert!(End::parse("-").is_err());
    }
}
