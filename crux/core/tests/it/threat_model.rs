//! The page that says what identity and all above it take for granted.

// Shows: CRT-08
#[test]
fn the_threat_model_says_what_it_assumes() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/threat-model.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let (_, assumed) = page
        .split_once("## What is assumed")
        .expect("it has the table");
    for about in [
        "CPU and memory",
        "disks",
        "network cards",
        "operating system",
        "whoever writes an application",
    ] {
        let mut rows = assumed.lines().filter(|line| line.starts_with("| "));
        assert!(
            rows.any(|row| row
                .split('|')
                .nth(1)
                .is_some_and(|cell| cell.contains(about))),
            "{about}"
        );
    }
}
