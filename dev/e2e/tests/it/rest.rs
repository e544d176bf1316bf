//! `radix api`, and curl with the certificate that `radix ca leaf` writes.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use e2e::{Sandbox, User};
use serde_json::Value;

use crate::own_port;

/// Runs the words that `radix ca leaf` printed, with these after them.
fn curl(line: &str, more: &[&str]) -> Option<(i32, String)> {
    let mut words = line.split_whitespace().map(|word| word.trim_matches('\''));
    let mut command = Command::new(words.next()?);
    let output = command
        .args(words)
        .args(["--silent", "--show-error", "--max-time", "30"])
        .args(more)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => {
            let code = output.status.code().unwrap_or(-1);
            Some((code, String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Err(error) => {
            let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!ci, "curl cannot be run: {error}");
            None
        }
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

#[test]
fn any_method_is_called_with_json_on_any_rnode() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    own_port(&sandbox);
    let nothing_runs = sandbox.radix(&["api", "Describe"]);
    assert_eq!(nothing_runs.code, 1, "{}", nothing_runs.stderr);
    let _ = sandbox.up().expect(0);

    let label = |reply: &Value| reply["rnode"]["label"].as_str().map(str::to_owned);
    let base = sandbox.radix(&["api", "Describe"]).expect(0).json();
    assert_eq!(label(&base).as_deref(), Some("base"));
    let nested = ["api", "Fulcrum/Describe", "{}", "--rnode", "n2"];
    let nested = sandbox.radix(&nested).expect(0).json();
    assert_eq!(label(&nested).as_deref(), Some("n2"));
    let scanned = sandbox.radix(&["api", "Scan", r#"{"prefix":"/var/stix"}"#, "--rnode", "n1"]);
    assert!(lines(&scanned.expect(0).stdout).len() > 1);

    let file = sandbox.root().join("request.json");
    std::fs::write(&file, r#"{"prefix":"rnode"}"#).expect("it writes");
    let from_file = format!("@{}", file.display());
    let entries = sandbox.radix(&["api", "Entries", &from_file, "--rnode", "n1"]);
    let entries = entries.expect(0).json();
    assert_eq!(entries["entries"].as_array().map(Vec::len), Some(6));

    let told = |words: &[&str], code: i32, text: &str| {
        let reply = sandbox.radix(&[&["api"], words].concat()).expect(code);
        assert!(reply.stderr.contains(text), "{text}: {}", reply.stderr);
    };
    told(&["Descrbe"], 2, "did you mean `Describe`");
    told(&["Events", r#"{"aftr":""}"#], 2, "column");
    told(&["Events", "@/no/such/file"], 2, "/no/such/file");
    told(
        &["Invite", r#"{"namespace":"x","label":"y"}"#],
        5,
        "may not",
    );
    told(&["Wait", r#"{"execution":"none"}"#], 1, "none");
    told(&["Describe", "{}", "--rnode", "n9"], 2, "n9");
    assert!(
        sandbox
            .radix(&["api"])
            .expect(0)
            .stdout
            .contains("FileIo/Put")
    );
    let document = sandbox.radix(&["api", "--openapi"]).expect(0).json();

    let leaf = sandbox.root().join("leaf.pem");
    let written = sandbox
        .radix(&["ca", "leaf", &leaf.display().to_string()])
        .expect(0);
    let mode = std::fs::metadata(&leaf)
        .expect("the file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let line = written.stdout.trim();
    let Some((code, described)) = curl(line, &[]) else {
        return crate::skipped_because("curl is not here");
    };
    assert_eq!(code, 0, "{described}");
    let described: Value = serde_json::from_str(&described).expect("JSON");
    assert_eq!(described["publicKeyDer"], base["publicKeyDer"]);
    let (_, described) = curl(line, &["--http1.1"]).expect("curl again");
    assert!(described.contains("publicKeyDer"), "{described}");

    let (before, _) = line
        .rsplit_once("/radix.fulcrum")
        .expect("the URL of a method");
    let words = before.replace("--json '{}' ", "");
    let (_, served) = curl(&format!("{words}/openapi.json"), &[]).expect("curl again");
    assert_eq!(
        serde_json::from_str::<Value>(&served).expect("JSON"),
        document
    );
    // Without a certificate, and without TLS, nobody gets a word of HTTP.
    let bare = words.rsplit_once(' ').expect("a URL").1;
    let secure = format!("curl --insecure --include {bare}/openapi.json");
    let plain = secure.replace("https://", "http://");
    for line in [secure, plain] {
        let (code, text) = curl(&line, &[]).expect("curl again");
        assert!(code != 0 && !text.contains("HTTP"), "{line}: {text}");
    }
}
