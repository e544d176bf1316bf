//! Where a pinned path of an application lies on this rnode.
//!
//! Inside a cell the path is itself, below a mount's target. Without a cell it is rewritten below `DIR/cell`,
//! and so are the arguments that name it. What no mount covers is taken from the store.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crux_core::digest::Digest;

use crate::config::{Isolation, RnodeConfig};

/// The place of one pinned path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// We write the file there ourselves.
    Written(PathBuf),
    /// It is on this machine or it is not; never written by us.
    Outside(PathBuf),
}

/// Finds places for one rnode.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    targets: Vec<PathBuf>,
    rewritten_below: Option<PathBuf>,
}

impl Paths {
    /// Takes the rnode's mounts and isolation.
    pub(crate) fn new(dir: &Path, config: &RnodeConfig) -> Self {
        let targets = config
            .mounts
            .iter()
            .map(|mount| mount.target.clone())
            .collect();
        let rewritten_below = (config.isolation == Isolation::None).then(|| dir.join("cell"));
        Self {
            targets,
            rewritten_below,
        }
    }

    /// Whether paths are rewritten because the rnode has no mounts of its own.
    pub(crate) fn rewrites(&self) -> bool {
        self.rewritten_below.is_some() && !self.targets.is_empty()
    }

    /// The mount that covers an absolute `path`: where its target lies, and what is left of the path.
    pub(crate) fn mount_of<'p>(&self, path: &'p str) -> Option<(PathBuf, &'p str)> {
        let covering = self.targets.iter().filter_map(|target| {
            let rest = path.strip_prefix(target.to_str()?.trim_end_matches('/'))?;
            let rest = match rest.strip_prefix('/') {
                Some(rest) => rest,
                None if rest.is_empty() => rest,
                None => return None,
            };
            Some((target, rest))
        });
        let (target, rest) = covering.min_by_key(|(_, rest)| rest.len())?;
        let at = match &self.rewritten_below {
            Some(below) => below.join(target.strip_prefix("/").unwrap_or(target)),
            None => target.clone(),
        };
        Some((at, rest))
    }

    /// The place of `path`; `None` if it is not an absolute path without `..`.
    pub(crate) fn place(&self, path: &str) -> Option<Place> {
        let path = Path::new(path);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain {
            return None;
        }
        if !self.targets.iter().any(|target| path.starts_with(target)) {
            return Some(Place::Outside(path.to_owned()));
        }
        Some(Place::Written(self.rewritten_below.as_ref().map_or_else(
            || path.to_owned(),
            |below| below.join(path.strip_prefix("/").unwrap_or(path)),
        )))
    }
}

/// Replaces paths in arguments: whole ones, and those after a `=`.
pub(crate) fn rewrite(argument: &str, places: &BTreeMap<String, PathBuf>) -> String {
    if let Some(place) = places.get(argument) {
        return place.display().to_string();
    }
    match argument.split_once('=') {
        Some((name, value)) => places.get(value).map_or_else(
            || argument.to_owned(),
            |place| format!("{name}={}", place.display()),
        ),
        None => argument.to_owned(),
    }
}

/// A digest from its hex form.
pub(crate) fn digest(hex: &str) -> Option<Digest> {
    hex.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(below: Option<&str>) -> Paths {
        Paths {
            targets: vec!["/var/stix".into()],
            rewritten_below: below.map(PathBuf::from),
        }
    }

    #[test]
    fn a_path_below_a_mount_is_written_where_the_application_sees_it() {
        let place = paths(None).place("/var/stix/bin/worker");
        assert_eq!(place, Some(Place::Written("/var/stix/bin/worker".into())));
        let place = paths(None).place("/var/stixx/bin/worker");
        assert_eq!(place, Some(Place::Outside("/var/stixx/bin/worker".into())));
        assert_eq!(paths(None).place("/var/stix/../etc/passwd"), None);
        assert_eq!(paths(None).place("bin/worker"), None);
    }

    #[test]
    fn a_path_belongs_to_the_innermost_mount_that_covers_it() {
        let mut paths = paths(Some("/r/cell"));
        paths.targets.push("/var/stix/data".into());
        let check = |path: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(at, rest)| (PathBuf::from(at), rest));
            assert_eq!(paths.mount_of(path), expected, "{path}");
        };
        check("/var/stix/a/b", Some(("/r/cell/var/stix", "a/b")));
        check("/var/stix/data/b", Some(("/r/cell/var/stix/data", "b")));
        check("/var/stix", Some(("/r/cell/var/stix", "")));
        check("/var/stixx", None);
        check("/etc/passwd", None);
        check("var/stix/a", None);
    }

    #[test]
    fn without_a_cell_paths_are_rewritten_with_their_arguments() {
        let Some(Place::Written(path)) = paths(Some("/r/cell")).place("/var/stix/prods.csv") else {
            panic!("not written")
        };
        assert_eq!(path, Path::new("/r/cell/var/stix/prods.csv"));
        let places = BTreeMap::from([("/var/stix/prods.csv".to_owned(), path)]);
        assert_eq!(
            rewrite("/var/stix/prods.csv", &places),
            "/r/cell/var/stix/prods.csv"
        );
        assert_eq!(
            rewrite("--p=/var/stix/prods.csv", &places),
            "--p=/r/cell/var/stix/prods.csv"
        );
        assert_eq!(
            rewrite("see /var/stix/prods.csv", &places),
            "see /var/stix/prods.csv"
        );
    }
}
