//! Tags of virtual servers.

use underverse::{ExecableBuilder, HordeSpec, Kind, Tag, Underverse as _, UnderverseAdmin as _};

use crate::fake::{World, name, realise, realised, refusal, server, spec};

fn with(world: &World) -> underverse_local::Local {
    let mut settings = world.settings();
    settings.servers = vec![
        server("a", &["GPU"]),
        server("b", &["GPU", "old"]),
        server("c", &["old"]),
        server("d", &[]),
    ];
    world.local_with(settings)
}

fn asking(count: u32, rules: &[&str]) -> HordeSpec {
    let mut rnode = ExecableBuilder::fulcrum("rnode").unwrap().count(count);
    for rule in rules {
        rnode = rnode.require(rule).unwrap();
    }
    let mut spec = spec(1);
    spec.execables = vec![rnode.add_tag("mine").unwrap().build()];
    spec
}

// Shows in part: TAG-01, TAG-03, RND-11
#[tokio::test]
async fn containers_list_the_tags_of_their_server_and_their_own() {
    let world = World::new();
    let local = with(&world);
    realised(&local, 1, &asking(4, &[])).await;
    let running = local.running(&name()).await.unwrap();
    let servers = local.servers().await.unwrap();
    for running in &running {
        let server = servers
            .iter()
            .find(|server| server.name == running.server)
            .unwrap();
        let mut tags = server.tags.clone();
        tags.insert(Tag::new("mine").unwrap());
        assert_eq!(running.tags, tags);
        let file = world.json(&format!("hordes/stix/{}/rnode.json", running.label));
        assert_eq!(file["tags"].as_array().unwrap().len(), tags.len());
    }
    let on_gpu = running.iter().find(|running| running.server == "a");
    let both = ["GPU", "mine"].map(|tag| Tag::new(tag).unwrap());
    assert_eq!(on_gpu.unwrap().tags, both.into());
    let used: std::collections::BTreeSet<_> = running.iter().map(|r| &r.server).collect();
    assert_eq!(used.len(), 4, "spread over all");
}

// Shows: HRD-08, TAG-02
#[tokio::test]
async fn required_tags_all_hold_and_excluded_ones_do_not() {
    for (rules, servers) in [
        (vec!["GPU", "!old"], vec!["a", "a", "a"]),
        (vec!["GPU"], vec!["a", "b", "a"]),
        (vec!["!GPU"], vec!["c", "d", "c"]),
        (vec!["!GPU", "!old"], vec!["d", "d", "d"]),
    ] {
        let world = World::new();
        let local = with(&world);
        realised(&local, 1, &asking(3, &rules)).await;
        let running = local.running(&name()).await.unwrap();
        let got: Vec<_> = running
            .iter()
            .map(|running| running.server.as_str())
            .collect();
        assert_eq!(got, servers, "{rules:?}");
    }
    let world = World::new();
    let error = refusal(realise(&with(&world), 1, &asking(1, &["FPGA"])).await);
    assert_eq!(error.kind(), Kind::Unsatisfiable);
    assert!(error.message().contains("FPGA"), "{error}");
}

#[tokio::test]
async fn servers_may_be_declared_with_the_horde_and_a_rnode_stays_where_it_is() {
    let world = World::new();
    let local = world.local();
    let mut spec = asking(2, &["GPU"]);
    let gpu = [Tag::new("GPU").unwrap()].into();
    spec.servers = vec![underverse::ServerSpec {
        name: "x".to_owned(),
        tags: gpu,
    }];
    realised(&local, 1, &spec).await;
    let gpu = [Tag::new("GPU").unwrap()].into();
    spec.servers.insert(
        0,
        underverse::ServerSpec {
            name: "w".to_owned(),
            tags: gpu,
        },
    );
    spec.execables[0].count = 3;
    realised(&local, 2, &spec).await;
    let running = local.running(&name()).await.unwrap();
    let got: Vec<_> = running
        .iter()
        .map(|running| running.server.as_str())
        .collect();
    assert_eq!(got, ["x", "x", "w"]);
}

/// A machine with these files below `/dev` and so much memory.
fn machine(world: &World, devices: &[&str], gibibytes: u64) {
    let root = world.scratch.path().join("machine");
    drop(std::fs::remove_dir_all(&root));
    for directory in ["dev/dri", "proc"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    for device in devices {
        std::fs::write(root.join("dev").join(device), "").unwrap();
    }
    let text = format!("MemTotal: {} kB\n", gibibytes << 20);
    std::fs::write(root.join("proc/meminfo"), text).unwrap();
}

fn tags(words: &[&str]) -> std::collections::BTreeSet<Tag> {
    words.iter().map(|word| Tag::new(*word).unwrap()).collect()
}

/// The tags of the containers, by ordinal.
async fn told(local: &underverse_local::Local) -> Vec<std::collections::BTreeSet<Tag>> {
    let running = local.running(&name()).await.unwrap();
    running.into_iter().map(|running| running.tags).collect()
}

// Shows in part: TAG-05
#[tokio::test]
async fn what_the_machine_has_tags_its_servers_and_an_administrator_has_the_last_word() {
    let world = World::new();
    machine(&world, &["dri/renderD128"], 4);
    let local = world.local();
    let memory = ["mem-1g", "mem-2g", "mem-4g"];
    let with = |more: &[&str]| tags(&[&memory[..], more].concat());
    assert_eq!(local.servers().await.unwrap()[0].tags, with(&["GPU"]));
    let asked = |count| {
        let mut spec = asking(count, &["GPU", "mem-4g"]);
        spec.execables[0].added = tags(&["mine"]);
        spec
    };
    realised(&local, 1, &asked(1)).await;
    let first = local.running(&name()).await.unwrap().remove(0).id;

    let administrator = local.administrator();
    let tag = async |add: &[&str], remove: &[&str]| {
        let words = |words: &[&str]| tags(words).into_iter().collect::<Vec<_>>();
        let tagged = administrator
            .tag("local", &words(add), &words(remove))
            .await;
        tagged.unwrap();
    };
    tag(&["lab"], &["mem-1g"]).await;
    realised(&local, 2, &asked(2)).await;
    let second = tags(&["GPU", "mem-2g", "mem-4g", "lab", "mine"]);
    assert_eq!(told(&local).await, [with(&["GPU", "mine"]), second.clone()]);
    let running = local.running(&name()).await.unwrap();
    assert_eq!(running[0].id, first, "no tag starts anybody anew");

    // What was taken stays away, though it is found; what was given goes when it is taken.
    tag(&[], &["lab", "GPU"]).await;
    let error = refusal(realise(&local, 3, &asked(3)).await);
    assert_eq!(error.kind(), Kind::Unsatisfiable);
    assert!(error.message().contains("GPU"), "{error}");
    tag(&["GPU"], &[]).await;
    realised(&local, 3, &asked(3)).await;
    let third = tags(&["GPU", "mem-2g", "mem-4g", "mine"]);
    assert_eq!(told(&local).await[1..], [second, third]);
    let [own] = administrator.server_tags().unwrap().try_into().unwrap();
    assert_eq!(own.given, ["GPU".to_owned()].into());
    assert_eq!(own.taken, ["lab", "mem-1g"].map(str::to_owned).into());
}

// Shows in part: TAG-05
#[tokio::test]
async fn a_device_that_is_gone_tags_no_server_any_more_and_declared_servers_inherit_what_is_there()
{
    let world = World::new();
    machine(&world, &["nvidia0"], 1);
    let local = with(&world);
    let both = tags(&["GPU", "old", "mem-1g"]);
    let of = |servers: Vec<underverse::Server>| servers.into_iter().map(|server| server.tags);
    let found: Vec<_> = of(local.servers().await.unwrap()).collect();
    assert_eq!(found[1..3], [both.clone(), both]);
    machine(&world, &[], 1);
    let found: Vec<_> = of(local.servers().await.unwrap()).collect();
    assert_eq!(found[0], tags(&["GPU", "mem-1g"]), "declared");
    assert_eq!(found[3], tags(&["mem-1g"]));
}
