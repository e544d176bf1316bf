//! schemathesis, which nobody here wrote, reads the OpenAPI document and calls a real agent.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crux_wire::fulcrum::v1::DescribeRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::agent_rig::Base;
use crate::rig::{TESTEE, until, within};

/// Time in which cases are made and sent; what is running then is brought to its end.
const FUZZ_SECONDS: &str = "25";
/// Cases a method and phase.
const EXAMPLES: &str = "15";
/// Longest a single answer may take, in seconds: nothing that is asked here waits.
const ANSWER_SECONDS: &str = "20";
/// After this the fuzzer hangs, whatever it waits for.
const PATIENCE: Duration = Duration::from_secs(180);

/// What must not be called: the one ends the agent, the other has no end.
const LEFT_OUT: &str = "/(Exit|WatchDocuments)$";

/// Where `cargo xtask services up` puts it: below the folder that this test was built into.
fn schemathesis() -> Option<PathBuf> {
    let target = Path::new(TESTEE).parent()?.parent()?;
    let program = target.join("services/schemathesis/bin/schemathesis");
    program.is_file().then_some(program)
}

fn ours(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The fuzzer against the agent at `address`, and its report.
async fn fuzz(program: PathBuf, base: &Base, address: &str) -> (bool, String) {
    let leaf = base.home.join("leaf.pem");
    base.operator().export_leaf(&leaf).unwrap();
    let report = base.home.join("report");
    let out = std::fs::File::create(&report).unwrap();
    let mut command = Command::new(program);
    command
        .arg("--config-file")
        .arg(ours("tests/fuzz/schemathesis.toml"))
        .arg("run")
        .arg(ours("../docs/formats/openapi.json"))
        .args(["--url", &format!("https://{address}")])
        .args(["--tls-verify", "false"])
        .arg("--request-cert")
        .arg(&leaf)
        .args(["--request-timeout", ANSWER_SECONDS])
        .args(["--max-time", FUZZ_SECONDS, "--max-examples", EXAMPLES])
        .args([
            "--phases",
            "coverage,fuzzing",
            "--seed",
            "1",
            "--workers",
            "1",
        ])
        .args(["--exclude-path-regex", LEFT_OUT])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance",
        ])
        .args(["--checks", "response_schema_conformance,unsupported_method"])
        .args([
            "--generation-database",
            "none",
            "--no-color",
            "--continue-on-failure",
        ])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .env("SCHEMATHESIS_HOOKS", ours("tests/fuzz/hooks.py"))
        .env("PYTHONWARNINGS", "ignore")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(&base.home)
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out);
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    let passed = ended.is_ok_and(|status| status.unwrap().success());
    let text = std::fs::read_to_string(&report).unwrap();
    (passed, text)
}

// Shows in part: FUL-05
#[tokio::test]
async fn a_fuzzer_that_reads_the_document_finds_no_fault() {
    let Some(program) = schemathesis() else {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "schemathesis is missing");
        eprintln!("skipped: schemathesis is missing; `cargo xtask services up` brings it");
        return;
    };
    let base = Base::start();
    base.ready().await;
    let describe = async || {
        let described = base.fulcrum().await.describe(DescribeRequest {}).await;
        described.unwrap().into_inner()
    };
    let before = describe().await;
    let contact = base.contact().await;
    let address = format!("127.0.0.1:{}", contact["port"]);
    let (passed, report) = fuzz(program, &base, &address).await;
    assert!(passed, "{report}");
    assert!(report.contains("No issues found"), "{report}");
    assert_eq!(describe().await.agent_pid, before.agent_pid);

    // Between all that, and after it, the port says nothing to who does not speak TLS.
    let mut plain = tokio::net::TcpStream::connect(&address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = within(plain.read_to_end(&mut said)).await;
    assert!(!String::from_utf8_lossy(&said).contains("HTTP"));
    until(async || {
        base.fulcrum()
            .await
            .describe(DescribeRequest {})
            .await
            .is_ok()
    })
    .await;
}
