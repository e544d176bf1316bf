//! Where plug-ins are: beside the running program, then on PATH.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// What the file names of plug-ins begin with.
pub const PREFIX: &str = "radix-underverse-";

/// The folders that are searched, in order: the running program's own, then those of PATH.
#[must_use]
pub fn folders() -> Vec<PathBuf> {
    let ours = std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    ours.into_iter()
        .chain(std::env::split_paths(&path).filter(|folder| folder.is_absolute()))
        .collect()
}

/// The plug-in `name` in the first of `folders` that has it.
#[must_use]
pub fn in_folders(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    if !is_name(name) {
        return None;
    }
    let file = format!("{PREFIX}{name}");
    folders
        .iter()
        .map(|folder| folder.join(&file))
        .find(|path| is_program(path))
}

/// The file that would be the plug-in `name` if it might be executed.
pub(crate) fn not_executable(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let file = format!("{PREFIX}{name}");
    let mut paths = folders.iter().map(|folder| folder.join(&file));
    paths.find(|path| is_name(name) && path.is_file() && !is_program(path))
}

/// Every plug-in in `folders` by name, each where it would be found.
#[must_use]
pub fn all(folders: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| {
            let name = entry.file_name().to_str()?.strip_prefix(PREFIX)?.to_owned();
            (is_name(&name) && is_program(&entry.path())).then_some((name, entry.path()))
        });
        for (name, path) in names {
            if found.iter().all(|(known, _)| *known != name) {
                found.push((name, path));
            }
        }
    }
    found.sort();
    found
}

/// A name that cannot leave its folder.
fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !name.is_empty() && name.len() <= underverse::NAME_BYTES_MAX && name.bytes().all(good)
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_wins_and_names_cannot_leave_it() {
        let base = std::env::temp_dir().join(format!("underverse-find-{}", std::process::id()));
        let (one, two) = (base.join("one"), base.join("two"));
        for folder in [&one, &two] {
            std::fs::create_dir_all(folder).unwrap();
            std::os::unix::fs::symlink("/bin/true", folder.join("radix-underverse-both")).unwrap();
        }
        std::os::unix::fs::symlink("/bin/true", two.join("radix-underverse-second")).unwrap();
        std::fs::write(one.join("radix-underverse-plain"), "no program").unwrap();
        let folders = [one.clone(), two.clone()];
        assert_eq!(
            in_folders("both", &folders),
            Some(one.join("radix-underverse-both"))
        );
        assert_eq!(
            in_folders("second", &folders),
            Some(two.join("radix-underverse-second"))
        );
        for missing in [
            "third",
            "plain",
            "",
            "../two/radix-underverse-second",
            "a/b",
        ] {
            assert_eq!(in_folders(missing, &folders), None, "{missing:?}");
        }
        let plain = one.join("radix-underverse-plain");
        assert_eq!(not_executable("plain", &folders), Some(plain));
        assert_eq!(not_executable("both", &folders), None);
        let names: Vec<String> = all(&folders).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["both", "second"]);
        std::fs::remove_dir_all(base).unwrap();
    }
}
