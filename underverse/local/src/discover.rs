//! What this machine is found to have, as tags that all its servers carry: nobody need configure them.
//!
//! | tag | found when |
//! |---|---|
//! | `GPU` | there is `/dev/nvidia0` (any number) or a renderer without a screen, `/dev/dri/renderD128` (any number) |
//! | `mem-1g`, `mem-2g`, `mem-4g`, … | memory is of that many GiB or more, so `mem-16g` asks for at least 16 |
//!
//! An administrator may take a tag away that was found, and give one that was not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::limits;

/// A processor for graphics, or for whatever else it is good at.
const GPU: &str = "GPU";
/// Largest class of memory that is told. 1 PiB in GiB.
const CLASS_MAX: u64 = 1 << 20;
/// Of 16 parts of its memory a machine may keep one for itself and still be of the class that is written on it.
const KEPT: u64 = 16;
const GIB: u64 = 1 << 30;

/// The tags of the machine whose files are below `root`, which is `/` but in tests.
pub(crate) fn tags(root: &Path) -> BTreeSet<String> {
    let gpu = has_gpu(&root.join("dev")).then(|| GPU.to_owned());
    let memory = limits::memory(root).unwrap_or(0);
    let reached = |class: &u64| memory >= class * GIB / KEPT * (KEPT - 1);
    let classes = std::iter::successors(Some(1), |class| Some(class * 2));
    let classes = classes
        .take_while(|class| *class <= CLASS_MAX)
        .take_while(reached);
    let classes = classes.map(|class| format!("mem-{class}g"));
    gpu.into_iter().chain(classes).collect()
}

fn has_gpu(dev: &Path) -> bool {
    numbered(dev, "nvidia") || numbered(&dev.join("dri"), "renderD")
}

/// Whether the directory has something whose name is `word` and a number.
fn numbered(directory: &Path, word: &str) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.any(|name| {
        name.strip_prefix(word)
            .is_some_and(|rest| rest.parse::<u32>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, (files, memory_kib, limit): (&[&str], u64, &str), expected: &[&str]) {
        let root = std::env::temp_dir().join(format!("discover-{name}-{}", std::process::id()));
        for directory in ["dev/dri", "proc", "sys/fs/cgroup"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in files {
            fs::write(root.join("dev").join(file), "").unwrap();
        }
        let text = format!("MemFree: 1 kB\nMemTotal:  {memory_kib} kB\n");
        fs::write(root.join("proc/meminfo"), text).unwrap();
        fs::write(root.join("sys/fs/cgroup/memory.max"), limit).unwrap();
        let found = tags(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{name}");
    }

    #[test]
    fn what_is_there_is_found_and_nothing_else() {
        let gib = 1 << 20;
        check("bare", (&[], gib / 2, "max"), &[]);
        check("nvidia", (&["nvidia0"], gib / 2, "max"), &["GPU"]);
        check("render", (&["dri/renderD128"], gib / 2, "max"), &["GPU"]);
        let screens = ["nvidiactl", "nvidia-uvm", "dri/card0", "renderD1"];
        check("screen", (&screens, gib / 2, "max"), &[]);
        check(
            "four",
            (&[], 4 * gib, "max"),
            &["mem-1g", "mem-2g", "mem-4g"],
        );
        let real = ["mem-16g", "mem-1g", "mem-2g", "mem-4g", "mem-8g"];
        check("kept", (&[], 15 * gib + gib / 2, "max"), &real);
        check(
            "less",
            (&[], 3 * gib + gib / 2, "max"),
            &["mem-1g", "mem-2g"],
        );
        let limit = (2_u64 << 30).to_string();
        check("group", (&[], 16 * gib, &limit), &["mem-1g", "mem-2g"]);
    }

    #[test]
    fn where_nothing_can_be_read_nothing_is_found() {
        assert!(tags(Path::new("/no/such/root")).is_empty());
    }
}
