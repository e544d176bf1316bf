//! Tags of this machine's servers, found and said, as real containers and rnodes carry them; and what is told of both.

#![expect(clippy::unwrap_used, reason = "what a helper cannot do fails its test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use e2e::{Sandbox, User, wait_for};
use underverse::{
    End, Execable, ExecableBuilder, Generation, Horde, Keep, Running, Tag, Underverse as _,
    UnderverseAdmin as _,
};
use underverse_local::{Local, on_this_machine};

use crate::tiny;

fn tags(words: &[&str]) -> BTreeSet<Tag> {
    words.iter().map(|word| Tag::new(*word).unwrap()).collect()
}

/// A role whose containers say which tags they were told.
fn role(role: &str, count: u32) -> ExecableBuilder {
    let words = ["/bin/sh", "-c", "echo $RADIX_TAGS; exec sleep 1000000"];
    ExecableBuilder::command(role, words).unwrap().count(count)
}

fn horde(generation: u64, roles: impl IntoIterator<Item = Execable>) -> Horde {
    let horde = Horde::new("the_shire").unwrap().execables(roles);
    horde.generation(Generation::of_document(generation))
}

/// What a container itself was told.
fn heard(container: &Running) -> BTreeSet<Tag> {
    let file = container.directory.clone().unwrap().join("stdout");
    let line = || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.contains('\n').then_some(text)
    };
    let text = wait_for(Duration::from_secs(30), line).unwrap();
    tags(&text.trim().split(',').collect::<Vec<_>>())
}

async fn realised(horde: &Horde, local: &Local) -> Vec<Running> {
    let end = horde.realise(local).await;
    assert!(end.is_done(), "{end:?}");
    let running = horde.running(local).await.unwrap();
    for one in &running {
        assert_eq!(heard(one), one.tags, "{}", one.label);
    }
    running
}

async fn released(horde: &Horde, local: &Local) {
    let end = horde.release(local, Keep::Nothing).await;
    assert!(end.is_done(), "{end:?}");
}

fn block_on(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(body);
}

/// The files by which tags are found: a renderer if there is to be one, and six GiB of memory.
fn machine(root: &Path, gpu: Option<&str>) {
    std::fs::create_dir_all(root.join("dev/dri")).unwrap();
    std::fs::create_dir_all(root.join("proc")).unwrap();
    if let Some(gpu) = gpu {
        std::fs::write(root.join("dev/dri").join(gpu), "").unwrap();
    }
    std::fs::write(root.join("proc/meminfo"), "MemTotal: 6291456 kB\n").unwrap();
}

// Shows: TAG-05
#[test]
fn what_a_machine_has_is_told_to_its_containers_and_a_tag_is_given_and_taken_by_hand() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let root = sandbox.root().join("machine");
    machine(&root, Some("renderD128"));
    block_on(async {
        let local = on_this_machine(&sandbox.home(), &sandbox.binary()).await;
        let local = local.unwrap().with_machine_root(&root);
        let found = ["GPU", "mem-1g", "mem-2g", "mem-4g"];
        assert_eq!(local.servers().await.unwrap()[0].tags, tags(&found));
        let asked = |count| role("hobbit", count).require("GPU").unwrap().build();
        let running = realised(&horde(1, [asked(1)]), &local).await;
        assert_eq!(running[0].tags, tags(&found));

        let said = |words: [&str; 3]| {
            let words = [&["server", "tag", "local"], &words[..]].concat();
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            let _ = sandbox.radix(&words).expect(0);
        };
        said(["--add", "lab", ""]);
        let running = realised(&horde(2, [asked(2)]), &local).await;
        assert_eq!(running[1].tags, tags(&[&found[..], &["lab"]].concat()));
        said(["--remove=lab", "--remove", "mem-1g"]);
        let running = realised(&horde(3, [asked(3)]), &local).await;
        assert_eq!(running[2].tags, tags(&["GPU", "mem-2g", "mem-4g"]));
        assert_eq!(running[0].tags, tags(&found), "who runs keeps its tags");
        released(&horde(4, [asked(3)]), &local).await;
    });
    let listed = sandbox.radix(&["server", "list", "--format", "json"]);
    let listed = listed.expect(0).json();
    assert_eq!(listed[0]["taken"], serde_json::json!(["lab", "mem-1g"]));
    let reply = sandbox.radix(&["server", "tag", "mordor", "--add", "dark"]);
    assert!(reply.expect(2).stderr.contains("mordor"));
}

// Shows in part: TAG-05
#[test]
fn what_is_found_on_this_machine_is_what_is_there() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let listed = sandbox.radix(&["server", "list", "--format", "json"]);
    let listed = listed.expect(0).json();
    let found = |tag: &str| {
        let found = listed[0]["found"].as_array().unwrap();
        found.iter().any(|one| one == tag)
    };
    let shell = "ls /dev /dev/dri 2>/dev/null | grep -Eq '^(nvidia|renderD)[0-9]+$'";
    let mut look = sandbox.command_of(Path::new("/bin/sh"), &["-c", shell]);
    assert_eq!(found("GPU"), sandbox.run(&mut look).code == 0);
    let memory = underverse_local::limits::Machine::read().memory;
    assert_eq!(
        found("mem-1g"),
        memory >= underverse::ByteCount::mebibytes(960)
    );
    assert!(!found("mem-1048576g"), "a PiB is nowhere");
}

// Shows: HRD-03
#[test]
fn what_runs_is_told_with_its_own_id_and_tags_and_a_shortfall_with_its_reason() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let root = sandbox.root().join("machine");
    machine(&root, Some("renderD128"));
    block_on(async {
        let local = on_this_machine(&sandbox.home(), &sandbox.binary()).await;
        let local = local.unwrap().with_machine_root(&root);
        let administrator = local.administrator();
        let lab: Vec<Tag> = tags(&["lab"]).into_iter().collect();
        administrator.tag("local", &lab, &[]).await.unwrap();
        let inherited = ["GPU", "mem-1g", "mem-2g", "mem-4g", "lab"];
        let added = |role: ExecableBuilder, tag: &str| role.add_tag(tag).unwrap();
        let hobbits = || added(added(role("hobbit", 5), "brave"), "small").build();
        let whole = horde(1, [hobbits(), role("wizard", 2).build()]);
        let running = realised(&whole, &local).await;
        let effective = local.effective(whole.name()).await.unwrap();
        assert_eq!(effective.missing(), 0);
        let counts: Vec<(u32, u32)> = effective
            .roles
            .iter()
            .map(|r| (r.wanted, r.obtained))
            .collect();
        assert_eq!(counts, [(5, 5), (2, 2)]);
        let ids: BTreeSet<_> = running.iter().map(|one| one.id.clone()).collect();
        assert_eq!((running.len(), ids.len()), (7, 7));
        let expected = |more: &[&str]| tags(&[&inherited[..], more].concat());
        for one in &running {
            let more: &[&str] = if one.role.as_str() == "hobbit" {
                &["brave", "small"]
            } else {
                &[]
            };
            assert_eq!(one.tags, expected(more), "{}", one.label);
        }

        let ring = ExecableBuilder::command("ring", ["/no/such/ring"]).unwrap();
        let short = horde(2, [hobbits(), role("wizard", 2).build(), ring.build()]);
        let end = short.realise(&local).await;
        let End::Partial(effective, failures) = end else {
            panic!("{end:?}");
        };
        assert_eq!(
            (effective.missing(), failures.len()),
            (1, 1),
            "{failures:?}"
        );
        let role = effective
            .roles
            .iter()
            .find(|one| one.role.as_str() == "ring")
            .unwrap();
        assert!(role.shortfall.is_some(), "{role:?}");
        let said = failures[0].error.chain();
        assert!(said.contains("/no/such/ring"), "{said}");
        let now = short.running(&local).await.unwrap();
        let ids: BTreeSet<_> = now.iter().map(|one| one.id.clone()).collect();
        assert!(
            running.iter().all(|one| ids.contains(&one.id)),
            "nobody else is touched"
        );
        released(&horde(3, [hobbits()]), &local).await;
    });
}

// Shows: RND-11, TAG-03
#[test]
fn rnodes_report_the_tags_of_their_server_and_the_added_one() {
    let sandbox = Sandbox::empty(User::Ourselves);
    tiny(&sandbox, 2);
    let file = sandbox.root().join("tiny/tiny.rnodes");
    let text = std::fs::read_to_string(&file).unwrap();
    let more = "  tags = brave\n  server east = GPU\n  server west = GPU old\n}";
    std::fs::write(&file, text.replace('}', more)).unwrap();
    let directory = sandbox.root().join("tiny").display().to_string();
    let _ = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    let listed = sandbox.radix(&["server", "list", "--format", "json"]);
    let found = listed.expect(0).json()[0]["found"].clone();
    let found: Vec<String> = serde_json::from_value(found).unwrap();
    for (label, own) in [("n1", vec!["GPU"]), ("n2", vec!["GPU", "old"])] {
        let shown = sandbox.radix(&["rnode", "show", label, "--format", "json"]);
        let told: BTreeSet<String> =
            serde_json::from_value(shown.expect(0).json()["tags"].clone()).unwrap();
        let own = own.into_iter().chain(["brave"]).map(str::to_owned);
        assert_eq!(told, own.chain(found.clone()).collect(), "{label}");
    }
}
