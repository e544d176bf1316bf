//! What an agent's death does not cost: output, exit codes, and whoever follows them.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::{Sandbox, User, kill, wait_for, wait_gone};
use serde_json::Value;

use crate::{own_port, pids};

/// Counts for ever, fast enough that a gap would show.
const COUNT: &str = "#!/bin/sh\ni=0\nwhile :; do echo $i; i=$((i+1)); sleep 0.005; done\n";

/// Ends with code 7 as soon as the file it is given is there.
const LATER: &str =
    "#!/bin/sh\necho begun\nwhile [ ! -e \"$1\" ]; do sleep 0.02; done\necho done\nexit 7\n";

/// A ready stix with one more class that counts, and a command that ends when it is told.
fn with_counter() -> Sandbox {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let _ = own_port(&sandbox);
    for (name, text) in [("count.sh", COUNT), ("later.sh", LATER)] {
        let path = sandbox.stix().join(name);
        std::fs::write(&path, text).expect("a script can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("a script can be made executable");
    }
    let rexec = "slave  = /var/stix/bin/slave";
    let more = "count = /var/stix/count.sh\nlater = /var/stix/later.sh\n";
    sandbox.edit("stix.rexec", rexec, &format!("{more}{rexec}"));
    let class = "counter: rexec/count rexec/later\n      rexec/count\n";
    sandbox.edit("stix.begat", "prog1:", &format!("{class}prog1:"));
    let pick = "pick(prog1, 2, ALL)";
    let more = "pick(counter, 1, ALL)";
    sandbox.edit("stix.khan", pick, &format!("{more}\n{pick}"));
    let _ = sandbox.up().expect(0);
    sandbox
}

/// A command that goes on, and what it has printed so far.
struct Following {
    child: Child,
    printed: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Following {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut child = sandbox
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("radix starts");
        let mut stdout = child.stdout.take().expect("its output is ours");
        let printed = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&printed);
        let reader = std::thread::Builder::new().spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut piece) {
                shared
                    .lock()
                    .expect("nobody panicked")
                    .extend_from_slice(&piece[..length]);
            }
        });
        Self {
            child,
            printed,
            reader: reader.expect("a thread can be started"),
        }
    }

    fn text(&self) -> String {
        let printed = self.printed.lock().expect("nobody panicked");
        String::from_utf8_lossy(&printed).into_owned()
    }

    fn lines(&self) -> usize {
        self.text().matches('\n').count()
    }

    /// Waits for more; fails the test if it does not come.
    #[track_caller]
    fn until(&self, what: &str, mut look: impl FnMut(&Self) -> bool) {
        let seen = wait_for(Duration::from_secs(60), || look(self).then_some(()));
        assert!(seen.is_some(), "never seen: {what} in\n{}", self.text());
    }

    /// Its exit code and all it printed.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().expect("it ends").code();
        self.reader.join().expect("the reader ends");
        let printed = self.printed.lock().expect("nobody panicked");
        (code, String::from_utf8_lossy(&printed).into_owned())
    }
}

/// The rnode with this label.
fn rnode<'s>(status: &'s Value, label: &str) -> &'s Value {
    let rnodes = status["rnodes"].as_array().into_iter().flatten();
    let mut found = rnodes.filter(|rnode| rnode["label"] == label);
    found
        .next()
        .unwrap_or_else(|| panic!("no {label}: {status}"))
}

fn agent_of(status: &Value, label: &str) -> i32 {
    let pid = rnode(status, label)["agent_pid"].as_i64().unwrap_or(0);
    i32::try_from(pid).expect("a pid")
}

/// Kills the agent of a rnode outright.
#[track_caller]
fn kill_agent(sandbox: &Sandbox, label: &str) {
    let agent = agent_of(&sandbox.status(), label);
    assert!(agent > 0, "{label} has an agent");
    kill(agent);
    assert!(wait_gone(agent));
}

/// Fails unless `text` counts from 0 without a gap; an unfinished last line does not count.
#[track_caller]
fn counts(text: &str) {
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    for (expected, line) in whole.lines().enumerate() {
        assert_eq!(line, expected.to_string(), "a gap or a repeat");
    }
}

#[test]
fn output_has_no_gap_when_the_agent_is_killed() {
    let sandbox = with_counter();
    let before = sandbox.until_settled(&[("counter", 1)]);
    let instances = before["instances"].as_array().into_iter().flatten();
    let counter = instances
        .filter(|instance| instance["class"] == "counter")
        .find_map(|instance| instance["rnode"].as_str())
        .expect("the counter runs somewhere")
        .to_owned();
    let mut following = Following::start(&sandbox, &["logs", "counter", "-f"]);
    following.until("a hundred lines", |logs| logs.lines() > 100);
    for _ in 0..3 {
        let seen = following.lines();
        kill_agent(&sandbox, &counter);
        following.until("more lines", |logs| logs.lines() > seen + 200);
    }
    following.child.kill().expect("it can be ended");
    let (_, followed) = following.end();
    counts(&followed);
    let after = sandbox.until_settled(&[("counter", 1)]);
    assert_eq!(pids(&before), pids(&after), "every process is the same");
    let whole = sandbox.radix(&["logs", "counter"]).expect(0).stdout;
    assert!(whole.lines().count() >= followed.lines().count());
    counts(&whole);
}

#[test]
fn an_exit_code_is_kept_when_the_agent_is_killed() {
    let sandbox = with_counter();
    let _ = sandbox.until_settled(&[("counter", 1)]);
    let go = sandbox.root().join("go");
    let file = go.display().to_string();
    let running = Following::start(&sandbox, &["exec", "n3", "later", "--", &file]);
    running.until("its first line", |exec| exec.text() == "begun\n");
    let agent = agent_of(&sandbox.status(), "n3");
    kill(agent);
    // It ends while nobody but the keeper is there to see it, or a moment later.
    std::fs::write(&go, "").expect("a file can be written");
    let (code, text) = running.end();
    assert_eq!((code, text.as_str()), (Some(7), "begun\ndone\n"));
}

#[test]
fn the_code_of_an_unknown_command_is_127_and_of_a_known_one_its_own() {
    let sandbox = with_counter();
    let _ = sandbox.until_settled(&[("counter", 1)]);
    let unknown = sandbox.radix(&["exec", "n1", "nobody"]).expect(127);
    assert!(unknown.stderr.contains("stix/later"), "{}", unknown.stderr);
    let _ = sandbox.radix(&["exec", "n1", "stix/nobody"]).expect(127);
    let _ = sandbox.radix(&["exec", "n1", "nobody/later"]).expect(127);
    let known = sandbox.radix(&["exec", "n1", "later", "--", "/dev/null"]);
    assert_eq!(known.expect(7).stdout, "begun\ndone\n");
    let limited = ["exec", "n1", "later", "--timeout", "1s", "--", "/no/such"];
    let _ = sandbox.radix(&limited).expect(124);
}
