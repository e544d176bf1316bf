//! What lives in a state directory beside its base, and would lose what it lives in with it.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use underverse_local::myriad;

use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;

/// Where `radix fulcrum -rnode NAME` keeps its rnode.
pub(crate) const RNODES: &str = "rnodes";
/// Where `radix-underverse-local` keeps its hordes.
pub(crate) const PLUGIN: &str = "plugin-local";
/// Where a directory with hordes that no base holds has its executions.
const DIRECT: &str = "direct";
/// The lock of a keeper, below the rnode's directory.
const PEN: &str = "keeper/pen";

/// Refuses while anything but the base and its hordes lives in `home`, with what ends each.
pub(crate) fn refuse(home: &Home) -> Outcome<()> {
    let living = living(home.root())?;
    if living.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = living.iter().map(|(name, _)| name.as_str()).collect();
    let text = format!(
        "what runs here would lose what it lives in: {}; nothing was removed",
        names.join(", ")
    );
    let failure = Failure::new(Fault::Refused, text);
    let hinted =
        |failure: Failure, (name, end): &(String, String)| failure.hint(format!("{name}: {end}"));
    Err(living.iter().fold(failure, hinted))
}

/// What lives below `root`: its name, and how it is ended.
fn living(root: &Path) -> Outcome<Vec<(String, String)>> {
    let failed = |what: &str, error: &underverse::Error| {
        Failure::failed(format!("cannot tell {what}")).because(error)
    };
    let runs = myriad::live(&underverse_local::Home::new(root))
        .map_err(|error| failed("which myriads run", &error))?;
    let runs = runs.into_iter().map(|run| {
        let end = "end it with `radix myriad clean`".to_owned();
        (format!("myriad {run}"), end)
    });
    let rnodes = kept(&root.join(RNODES))?;
    let rnodes = rnodes.into_iter().map(|(rnode, keeper)| {
        let end = format!("end it with `kill {keeper}`, its keeper");
        (format!("rnode {rnode}"), end)
    });
    let mut living: Vec<_> = runs.chain(rnodes).collect();
    for place in places(root)? {
        let hordes = underverse_local::running_below(&underverse_local::Home::new(&place))
            .map_err(|error| failed("which hordes other programs hold", &error))?;
        let place = place.file_name().unwrap_or_default().to_string_lossy();
        let end = match place == PLUGIN {
            true => "dissolve it by the program that realised it with `radix-underverse-local`",
            false => "dissolve it by the program that realised it",
        };
        living.extend(hordes.into_iter().map(|horde| {
            let name = format!("horde {horde} of {place}");
            (name, end.to_owned())
        }));
    }
    Ok(living)
}

/// The directories below `root` where other programs keep hordes, sorted: of the plug-in, or of a user of the library.
fn places(root: &Path) -> Outcome<Vec<PathBuf>> {
    let mut places: Vec<PathBuf> = std::fs::read_dir(root)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    places.retain(|place| place.join(DIRECT).is_dir());
    places.sort();
    Ok(places)
}

/// The rnodes below `directory` whose keepers run, with the pid that each keeper wrote into its pen.
fn kept(directory: &Path) -> Outcome<Vec<(String, String)>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut rnodes: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    rnodes.retain(|rnode| is_kept(rnode));
    rnodes.sort();
    let named = |rnode: &PathBuf| {
        let name = rnode.file_name().unwrap_or_default().to_string_lossy();
        let keeper = std::fs::read_to_string(rnode.join(PEN)).unwrap_or_default();
        (name.into_owned(), keeper.trim().to_owned())
    };
    Ok(rnodes.iter().map(named).collect())
}

/// Whether a keeper runs on the rnode in `directory`: it holds the pen.
pub(crate) fn is_kept(directory: &Path) -> bool {
    let Ok(pen) = File::open(directory.join(PEN)) else {
        return false;
    };
    Flock::lock(pen, FlockArg::LockSharedNonblock).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is locked until it is dropped.
    fn locked(path: &Path, text: &str) -> Flock<File> {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        let file = File::open(path).unwrap();
        Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap()
    }

    #[test]
    fn what_runs_is_named_with_what_ends_it_and_what_has_ended_is_not() {
        let root = std::env::temp_dir().join(format!("living-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        assert!(living(&root).unwrap().is_empty());
        let pen = locked(&root.join("rnodes/n7/keeper/pen"), "4711\n");
        drop(locked(&root.join("rnodes/n8/keeper/pen"), "4712\n"));
        let alive = ["plugin-local", "the_shire"].map(|place| {
            let execution = root.join(place).join("direct/cell-shire-n1-g1-1");
            let alive = locked(&execution.join("alive"), "");
            let subject = r#"{"cell":{"ordinal":1}}"#;
            let label = format!(
                r#"{{"namespace":"shire","generation":[1,0],"attempt":1,"subject":{subject}}}"#
            );
            let start = format!(r#"{{"label":{label},"args":[],"started_unix_ms":0}}"#);
            std::fs::write(execution.join("start.json"), start).unwrap();
            alive
        });
        // A run is known by the process that its record names: here, ours.
        let ours = myriad::ProcessName::of(std::process::id().cast_signed()).unwrap();
        let process = format!(
            r#"{{"pid":{},"start_ticks":{}}}"#,
            ours.pid, ours.start_ticks
        );
        let process = format!(r#"{{"label":"n1","address":"127.64.0.16","process":{process}}}"#);
        let record = format!(r#"{{"file":"six.rnodes","processes":[{process}]}}"#);
        for (run, record) in [
            ("six-1", record.as_str()),
            ("six-2", r#"{"file":"six.rnodes","processes":[]}"#),
        ] {
            std::fs::create_dir_all(root.join("myriad").join(run)).unwrap();
            std::fs::write(root.join("myriad").join(run).join("run.json"), record).unwrap();
        }
        let found = living(&root).unwrap();
        let named: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        let all = [
            ("myriad six-1", "radix myriad clean"),
            ("rnode n7", "kill 4711"),
            ("horde shire of plugin-local", "radix-underverse-local"),
            ("horde shire of the_shire", "the program that realised it"),
        ];
        assert_eq!(named, all.map(|(name, _)| name));
        for ((_, end), (_, said)) in all.iter().zip(&found) {
            assert!(said.contains(end), "{said}");
        }
        drop((pen, alive));
        std::fs::remove_dir_all(root.join("myriad/six-1")).unwrap();
        assert!(living(&root).unwrap().is_empty());
        std::fs::remove_dir_all(root).unwrap();
    }
}
