//! Real processes found and ended by their mark.

use std::process::{Child, Command, Stdio};

use underverse_local::mark::{RNODE_MARK, end_marked, marked, rnode_mark};

/// A child that is ended with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn sleeper(mark: &str, script: &str) -> Guard {
    let child = Command::new("sh")
        .args(["-c", script])
        .env(RNODE_MARK, mark)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut guard = Guard(child);
    // The script says when all its processes are there.
    let mut byte = [0];
    std::io::Read::read_exact(guard.0.stdout.as_mut().unwrap(), &mut byte).unwrap();
    guard
}

#[test]
fn every_process_with_the_mark_is_ended_and_nobody_else() {
    let own = rnode_mark(&format!("test{}", std::process::id()), "n1", "0123456789ab");
    let other = rnode_mark(
        &format!("test{}", std::process::id()),
        "n11",
        "0123456789ab",
    );
    let script = "sleep 600 & (setsid sleep 600 &) ; echo; wait";
    let (mut gone, mut stays) = (sleeper(&own, script), sleeper(&other, script));
    assert!(own.ends_with("/n1@01234567"));
    assert!(marked(RNODE_MARK, &own).unwrap().len() >= 2);
    assert!(end_marked(RNODE_MARK, &own).unwrap() >= 2);
    assert!(marked(RNODE_MARK, &own).unwrap().is_empty());
    assert!(gone.0.wait().is_ok());
    assert!(stays.0.try_wait().unwrap().is_none());
    end_marked(RNODE_MARK, &other).unwrap();
    assert_eq!(end_marked(RNODE_MARK, &own).unwrap(), 0);
}
