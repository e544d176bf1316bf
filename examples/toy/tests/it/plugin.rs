//! The toy as a process: how it ends, dies, comes back, and what it says to people.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use underverse::{
    End, Execable, Generation, Horde, HordeSpec, Kind, Program, Role, Underverse as _, finish,
};
use underverse_conformance::{Below as _, Disturbance, Scratch, TAP_VARIABLE, Tap};
use underverse_plugin::{ATTEMPTS_MAX, GROUND_VARIABLE, Launch};

use crate::suite::launch;

const DEADLINE: Duration = Duration::from_secs(60);

fn spec(count: u32) -> HordeSpec {
    let words = ["sleep", "100000"].map(str::to_owned).to_vec();
    let mut one = Execable::new(Role::new("hobbit").unwrap(), Program::Command(words));
    one.count = count;
    Horde::new("shire")
        .unwrap()
        .execables([one])
        .spec()
        .unwrap()
        .clone()
}

/// A ground that is swept with the test.
struct Ground {
    scratch: Scratch,
    tap: Tap,
}

impl Ground {
    fn new() -> Self {
        let scratch = Scratch::new("plugin").unwrap();
        let tap = scratch.path().join("tap");
        std::fs::create_dir(&tap).unwrap();
        std::fs::create_dir(scratch.path().join("ground")).unwrap();
        Self {
            tap: Tap::at(tap),
            scratch,
        }
    }

    fn root(&self) -> std::path::PathBuf {
        self.scratch.path().join("ground")
    }

    fn launch(&self) -> Launch {
        launch()
            .env(GROUND_VARIABLE, self.root())
            .env(TAP_VARIABLE, self.scratch.path().join("tap"))
    }

    async fn containers(&self) -> usize {
        let all = toy::ToyBelow.inventory(&self.root()).await.unwrap();
        all.iter()
            .filter(|line| line.starts_with("process group"))
            .count()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        toy::ToyBelow.sweep(&self.root());
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Waits until a process is gone, or only its parent has not heard of it.
async fn gone(pid: u32) {
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat"));
    while stat().is_ok_and(|stat| !stat.contains(") Z")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plug_in_that_dies_in_mid_realise_is_restarted_and_the_pass_is_finished() {
    let _turn = crate::TURN.lock().await;
    let ground = Ground::new();
    let plugin = ground.launch().start().await.unwrap();
    let first = plugin.pid().unwrap();
    ground.tap.disturb(Disturbance::HangAt(4)).unwrap();
    let spec = spec(3);
    let (end, ()) = futures_util::future::join(
        finish(plugin.realise(Generation::of_document(1), &spec, DEADLINE)),
        async {
            ground.tap.hung().await;
            ground.tap.disturb(Disturbance::None).unwrap();
            kill(first);
        },
    )
    .await;
    assert!(matches!(end, End::Done(_)), "{end:?}");
    assert_ne!(plugin.pid().unwrap(), first);
    assert_eq!(ground.containers().await, 3);
    assert_eq!(plugin.running(&spec.name).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plug_in_that_is_silent_beyond_a_pass_s_deadline_is_ended() {
    let _turn = crate::TURN.lock().await;
    let ground = Ground::new();
    let brief = Duration::from_secs(3);
    let plugin = ground.launch().patience(brief).start().await.unwrap();
    let first = plugin.pid().unwrap();
    ground.tap.disturb(Disturbance::HangAt(1)).unwrap();
    let spec = spec(1);
    let pass = finish(plugin.realise(Generation::of_document(1), &spec, brief));
    let (end, ()) = futures_util::future::join(pass, async {
        ground.tap.hung().await;
        ground.tap.disturb(Disturbance::None).unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    })
    .await;
    let End::Unknown(error) = end else {
        panic!("{end:?}")
    };
    assert!(error.to_string().contains("neither ended"), "{error}");
    gone(first).await;
    let next = ground.launch().start().await.unwrap();
    let end = finish(next.realise(Generation::of_document(1), &spec, DEADLINE)).await;
    assert!(matches!(end, End::Done(_)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_that_kills_every_plug_in_ends_without_knowing() {
    let _turn = crate::TURN.lock().await;
    let ground = Ground::new();
    let plugin = ground.launch().start().await.unwrap();
    let spec = spec(1);
    ground.tap.disturb(Disturbance::HangAt(1)).unwrap();
    let killing = async {
        loop {
            ground.tap.hung().await;
            let pid = plugin.pid().unwrap();
            // Ordering: before the death, since the next process may be through before we look again.
            ground.tap.disturb(Disturbance::HangAt(1)).unwrap();
            kill(pid);
            while plugin.pid() == Some(pid) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let pass = finish(plugin.realise(Generation::of_document(1), &spec, DEADLINE));
    let end = tokio::select! {
        end = pass => end,
        () = killing => unreachable!("it goes on for ever"),
    };
    let End::Unknown(error) = end else {
        panic!("{end:?}")
    };
    assert_eq!(error.kind(), Kind::Unavailable);
    let died = format!("it died {ATTEMPTS_MAX} times");
    assert!(error.message().contains(&died), "{error}");
}

#[tokio::test]
async fn a_plug_in_ends_with_its_last_handle_and_its_horde_goes_on() {
    let _turn = crate::TURN.lock().await;
    let ground = Ground::new();
    let plugin = ground.launch().start().await.unwrap();
    let (pid, other) = (plugin.pid().unwrap(), plugin.clone());
    let end = finish(plugin.realise(Generation::of_document(1), &spec(2), DEADLINE)).await;
    assert!(end.is_done(), "{end:?}");
    drop(plugin);
    assert_eq!(other.list().await.unwrap().len(), 1);
    drop(other);
    gone(pid).await;
    assert_eq!(ground.containers().await, 2);
}

#[tokio::test]
async fn a_plug_in_ends_itself_when_its_caller_is_gone() {
    let _turn = crate::TURN.lock().await;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let ground = Ground::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_radix-underverse-toy"))
        .env(underverse_plugin::PLUGIN_VARIABLE, "1")
        .env(GROUND_VARIABLE, ground.root())
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    assert!(child.try_wait().unwrap().is_none());
    drop(ours);
    gone(child.id()).await;
    child.wait().unwrap();
}

#[tokio::test]
async fn what_is_no_plug_in_is_told_as_such() {
    let _turn = crate::TURN.lock().await;
    let kind = |path: &str, name: &str| {
        let launch = Launch::at(name, path);
        async move { launch.start().await.map(drop).map_err(|error| error.kind()) }
    };
    assert_eq!(kind("/no/such/program", "toy").await, Err(Kind::NotFound));
    assert_eq!(kind("/bin/true", "toy").await, Err(Kind::Unavailable));
    let toy = env!("CARGO_BIN_EXE_radix-underverse-toy");
    assert_eq!(kind(toy, "other").await, Err(Kind::Invalid));
    let error = Launch::find("no-such-backend").unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(
        error
            .to_string()
            .contains("radix-underverse-no-such-backend"),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_plug_in_writes_is_passed_on_under_its_name_and_cut() {
    let _turn = crate::TURN.lock().await;
    let scratch = Scratch::new("loud").unwrap();
    let script = scratch.path().join("loud");
    let toy = env!("CARGO_BIN_EXE_radix-underverse-toy");
    let text = format!(
        "#!/bin/sh\necho hello\nhead -c 10000 /dev/zero | tr '\\0' x >&2\necho >&2\nexec {toy}\n"
    );
    std::fs::write(&script, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let heard: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let log = Arc::clone(&heard);
    let launch = Launch::at("toy", &script).env(GROUND_VARIABLE, scratch.path());
    let launch = launch.log(Arc::new(move |name, line| {
        log.lock().unwrap().push((name.to_owned(), line.len()));
    }));
    let plugin = launch.start().await.unwrap();
    while heard.lock().unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(plugin);
    let mut heard = heard.lock().unwrap().clone();
    heard.sort();
    assert_eq!(heard, [("toy".to_owned(), 5), ("toy".to_owned(), 4_096)]);
}

fn by_hand(words: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_radix-underverse-toy"))
        .args(words)
        .env_remove(underverse_plugin::PLUGIN_VARIABLE)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn started_by_hand_it_says_what_it_is() {
    let (code, out, err) = by_hand(&[]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("is a backend of Radix and is started by who uses it"),
        "{err}"
    );
    let (code, out, _) = by_hand(&["--version"]);
    assert_eq!(
        (code, out.trim_end()),
        (
            0,
            concat!("radix-underverse-toy ", env!("CARGO_PKG_VERSION"))
        )
    );
    let (code, out, _) = by_hand(&["--describe"]);
    assert_eq!(code, 0);
    assert!(
        out.contains("protocol 1 to 1") && out.contains("commands                   yes"),
        "{out}"
    );
    assert_eq!(by_hand(&["--nonsense"]).0, 2);
}
