//! Tags of virtual servers.

use underverse::{ExecableBuilder, HordeSpec, Kind, Tag, Underverse as _};

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
