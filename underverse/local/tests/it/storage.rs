//! Storage: offered, asked for, bound; counted exactly; kept or freed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use underverse::{
    ByteCount, End, ExecableBuilder, Horde, HordeSpec, Keep, Kind, StorageExposure, StorageId,
    StorageKind, Strength, Underverse as _, UnderverseAdmin, finish,
};
use underverse_local::Local;

use crate::fake::{World, generation, name, realise, realised, refusal, server};

/// An exposure of a directory that the test makes.
fn offer(world: &World, server: &str, source: &str, tags: &[&str]) -> StorageExposure {
    let source = world.scratch.path().join(source);
    std::fs::create_dir_all(&source).unwrap();
    StorageExposure {
        server: server.to_owned(),
        source: source.display().to_string(),
        bind: "dir".to_owned(),
        kind: StorageKind::FileTree,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        thin: false,
    }
}

fn limited(offer: StorageExposure, bytes: u64) -> StorageExposure {
    StorageExposure {
        bind: format!("dir:max={bytes}"),
        ..offer
    }
}

/// A horde of `count` rnodes, each with storage of so many megabytes at `/data`.
fn asking(count: u32, megabytes: u64, properties: &str) -> HordeSpec {
    let mut horde = Horde::new("stix").unwrap();
    let data = horde.alloc_file_tree(megabytes, properties);
    with(horde, count, &data)
}

fn with(horde: Horde, count: u32, data: &StorageId) -> HordeSpec {
    let rnode = ExecableBuilder::fulcrum("rnode").unwrap();
    let rnode = rnode.count(count).mount_storage(data, "/data").build();
    horde.execables([rnode]).spec().unwrap().clone()
}

async fn allotted(local: &Local) -> Vec<(u64, Option<u64>)> {
    let exposed = local.administrator().exposures().await.unwrap();
    let figures =
        |one: &underverse::Exposed| (one.allotted.get(), one.available().map(ByteCount::get));
    exposed.iter().map(figures).collect()
}

fn mounted(world: &World, label: &str) -> PathBuf {
    let file = world.json(&format!("hordes/stix/{label}/rnode.json"));
    let mount = &file["mounts"][0];
    assert_eq!(
        (mount["target"].as_str(), mount["writable"].as_bool()),
        (Some("/data"), Some(true))
    );
    PathBuf::from(mount["host"].as_str().unwrap())
}

async fn dissolved(local: &Local, number: u64, keep: Keep) {
    let end = finish(local.dissolve(generation(number), &name(), keep)).await;
    assert!(end.is_done(), "{end:?}");
}

/// Three parties: who administers exposes, who holds only the underverse asks and binds.
// Shows: STO-01
#[tokio::test]
async fn an_administrator_exposes_and_a_user_asks_and_binds() {
    let world = World::new();
    let local = Arc::new(world.local());
    let administrator: Box<dyn UnderverseAdmin> = Box::new(local.administrator());
    administrator
        .expose(offer(&world, "local", "disk", &["robust"]))
        .await
        .unwrap();
    let user: Arc<dyn underverse::Underverse> = local;
    let mut horde = Horde::new("stix").unwrap();
    let data = horde.alloc_file_tree(1, "robust");
    let spec = with(horde, 2, &data);
    let end = finish(user.realise(generation(1), &spec, crate::fake::DEADLINE)).await;
    assert!(end.is_done(), "{end:?}");
    let trees: BTreeSet<PathBuf> = ["n1", "n2"].map(|label| mounted(&world, label)).into();
    assert_eq!(trees.len(), 2, "each container has its own");
    for tree in &trees {
        assert!(tree.is_dir() && tree.starts_with(world.scratch.path().join("disk")));
    }
}

// Shows: STO-04
#[tokio::test]
async fn nothing_is_consumed_before_realise_and_exactly_the_request_after_it() {
    let world = World::new();
    let local = world.local();
    let disk = limited(offer(&world, "local", "disk", &[]), 10_000_000);
    local.administrator().expose(disk).await.unwrap();
    let spec = asking(3, 2, "");
    assert_eq!(allotted(&local).await, [(0, Some(10_000_000))]);
    let plan = local.plan(generation(1), &spec).await.unwrap();
    assert!(
        plan.to_string().contains("storage stix/storage/1"),
        "{plan}"
    );
    assert_eq!(allotted(&local).await, [(0, Some(10_000_000))]);
    realised(&local, 1, &spec).await;
    assert_eq!(allotted(&local).await, [(6_000_000, Some(4_000_000))]);
    realised(&local, 1, &spec).await;
    assert_eq!(allotted(&local).await, [(6_000_000, Some(4_000_000))]);
    let effective = local.effective(&name()).await.unwrap();
    assert_eq!(effective.storage.len(), 3);
    let mine = &effective.storage[1];
    assert_eq!(mine.container.as_deref(), Some("n2"));
    assert_eq!(mine.capacity, ByteCount::megabytes(2));
    assert!(matches!(&mine.size, Strength::Weak(reason) if reason.contains("counted")));
    // Fewer give back what they held; one more than fits is refused, with mount, request and figures.
    realised(&local, 2, &asking(1, 2, "")).await;
    assert_eq!(allotted(&local).await, [(2_000_000, Some(8_000_000))]);
    let error = refusal(realise(&local, 3, &asking(6, 2, "")).await);
    assert_eq!(error.kind(), Kind::Limit);
    for part in [
        "/data",
        "stix/storage/1",
        "file tree of 1.9 MiB",
        "0 of 10000000 bytes",
    ] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(allotted(&local).await, [(2_000_000, Some(8_000_000))]);
    dissolved(&local, 3, Keep::Nothing).await;
    assert_eq!(allotted(&local).await, [(0, Some(10_000_000))]);
    assert_eq!(
        std::fs::read_dir(world.scratch.path().join("disk"))
            .unwrap()
            .count(),
        0
    );
}

// Shows: TAG-04
#[tokio::test]
async fn a_property_leads_to_an_exposure_that_has_it_and_to_its_server() {
    let world = World::new();
    let mut settings = world.settings();
    settings.servers = vec![server("a", &[]), server("b", &[]), server("c", &[])];
    let local = world.local_with(settings);
    let administrator = local.administrator();
    administrator
        .expose(offer(&world, "a", "slow", &["robust"]))
        .await
        .unwrap();
    administrator
        .expose(offer(&world, "b", "fast", &["fast", "robust"]))
        .await
        .unwrap();
    for (number, properties, place) in [(1, "fast", "fast"), (2, "robust fast", "fast")] {
        realised(&local, number, &asking(3, 1, properties)).await;
        let running = local.running(&name()).await.unwrap();
        assert!(running.iter().all(|one| one.server == "b"), "{running:?}");
        for label in ["n1", "n2", "n3"] {
            assert!(mounted(&world, label).starts_with(world.scratch.path().join(place)));
        }
        dissolved(&local, number, Keep::Nothing).await;
    }
    let error = refusal(realise(&local, 3, &asking(1, 1, "replicated fast")).await);
    assert_eq!(error.kind(), Kind::Unsatisfiable);
    assert!(error.message().contains("fast replicated"), "{error}");
}

// Shows: STO-03
#[tokio::test]
async fn an_exposure_is_read_by_the_plug_in_it_names_and_an_unknown_one_is_refused() {
    let world = World::new();
    let local = world.local();
    let administrator = local.administrator();
    let disk = offer(&world, "local", "disk", &[]);
    let refused = [
        (
            "ceph:pool",
            disk.source.clone(),
            "local",
            Kind::Unsupported,
            "ceph",
        ),
        (
            "dir:max=many",
            disk.source.clone(),
            "local",
            Kind::Invalid,
            "max=",
        ),
        (
            "dir",
            "/no/such/place".to_owned(),
            "local",
            Kind::Invalid,
            "/no/such/place",
        ),
        (
            "dir",
            disk.source.clone(),
            "elsewhere",
            Kind::NotFound,
            "elsewhere",
        ),
    ];
    for (bind, source, on, kind, part) in refused {
        let exposure = StorageExposure {
            bind: bind.to_owned(),
            source,
            server: on.to_owned(),
            ..disk.clone()
        };
        let error = administrator.expose(exposure).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert!(administrator.exposures().await.unwrap().is_empty());
    administrator.expose(disk.clone()).await.unwrap();
    administrator.expose(disk.clone()).await.unwrap();
    let exposed = administrator.exposures().await.unwrap();
    assert_eq!(exposed.len(), 1);
    assert!(exposed[0].capacity > ByteCount::bytes(0), "probed");
    let other = StorageExposure {
        thin: true,
        ..disk.clone()
    };
    let error = administrator.expose(other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Taken);

    realised(&local, 1, &asking(1, 1, "")).await;
    let taken = administrator
        .unexpose("local", &disk.source)
        .await
        .unwrap_err();
    assert_eq!(taken.kind(), Kind::Taken);
    dissolved(&local, 1, Keep::Nothing).await;
    administrator.unexpose("local", &disk.source).await.unwrap();
    let missing = administrator
        .unexpose("local", &disk.source)
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_volume_has_exactly_its_size_and_shared_storage_is_one_for_all() {
    let world = World::new();
    let local = world.local();
    let administrator = local.administrator();
    let volumes = StorageExposure {
        kind: StorageKind::Volume,
        ..offer(&world, "local", "blocks", &[])
    };
    administrator.expose(volumes).await.unwrap();
    administrator
        .expose(offer(&world, "local", "trees", &[]))
        .await
        .unwrap();
    let mut horde = Horde::new("stix").unwrap();
    let block = horde.alloc_volume(3, "");
    let common = horde.alloc_file_tree(1, "shared");
    let rnode = ExecableBuilder::fulcrum("rnode").unwrap().count(2);
    let rnode = rnode
        .mount_storage(&block, "/block")
        .mount_storage(&common, "/common");
    let spec = horde.execables([rnode.build()]).spec().unwrap().clone();
    realised(&local, 1, &spec).await;
    let sources = |label: &str, index: usize| {
        let file = world.json(&format!("hordes/stix/{label}/rnode.json"));
        PathBuf::from(file["mounts"][index]["host"].as_str().unwrap())
    };
    for label in ["n1", "n2"] {
        assert_eq!(sources(label, 0).metadata().unwrap().len(), 3_000_000);
    }
    assert_ne!(sources("n1", 0), sources("n2", 0));
    assert_eq!(sources("n1", 1), sources("n2", 1));
    let effective = local.effective(&name()).await.unwrap();
    let of = |id: &StorageId| effective.storage.iter().filter(|one| one.id == *id).count();
    assert_eq!((of(&block), of(&common)), (2, 1));
    let volume = effective
        .storage
        .iter()
        .find(|one| one.id == block)
        .unwrap();
    assert_eq!(volume.size, Strength::Enforced);
}

#[tokio::test]
async fn thin_storage_promises_more_than_there_is_and_says_so() {
    let world = World::new();
    let local = world.local();
    let thin = StorageExposure {
        thin: true,
        ..limited(offer(&world, "local", "disk", &["robust"]), 1)
    };
    local.administrator().expose(thin).await.unwrap();
    realised(&local, 1, &asking(3, 200_000, "robust")).await;
    assert_eq!(allotted(&local).await, [(600_000_000_000, None)]);
    let effective = local.effective(&name()).await.unwrap();
    let weaker: Vec<String> = effective.weaker.iter().map(ToString::to_string).collect();
    let said = "stix/storage/1, a file tree of 186.2 GiB robust: thin, size not enforced";
    assert!(weaker.contains(&said.to_owned()), "{weaker:?}");
}

/// What a container wrote stays over its death, a new backend process and, if asked, the end of the horde.
#[tokio::test]
async fn content_outlives_containers_and_on_request_the_horde() {
    let world = World::new();
    let local = world.local();
    local
        .administrator()
        .expose(offer(&world, "local", "disk", &[]))
        .await
        .unwrap();
    let spec = asking(2, 1, "");
    realised(&local, 1, &spec).await;
    let tree = mounted(&world, "n2");
    std::fs::write(tree.join("ring"), "one").unwrap();
    let ring = |tree: &Path| std::fs::read_to_string(tree.join("ring")).unwrap();
    let _ = world.base.kill(2);
    realised(&world.local(), 1, &spec).await;
    assert_eq!(ring(&mounted(&world, "n2")), "one");
    let local = world.local();
    dissolved(&local, 1, Keep::Storage).await;
    assert_eq!(allotted(&local).await[0].0, 2_000_000);
    assert!(local.list().await.unwrap().is_empty());
    realised(&local, 2, &spec).await;
    assert_eq!(ring(&mounted(&world, "n2")), "one");
    assert_eq!(allotted(&local).await[0].0, 2_000_000);
    // Kept, and then given up without being used again.
    dissolved(&local, 2, Keep::Storage).await;
    dissolved(&local, 2, Keep::Nothing).await;
    assert_eq!(allotted(&local).await[0].0, 0);
    assert!(!tree.exists());
}

#[tokio::test]
async fn storage_that_was_removed_behind_our_back_is_made_again() {
    let world = World::new();
    let local = world.local();
    local
        .administrator()
        .expose(offer(&world, "local", "disk", &[]))
        .await
        .unwrap();
    realised(&local, 1, &asking(2, 1, "")).await;
    let tree = mounted(&world, "n1");
    std::fs::remove_dir(&tree).unwrap();
    realised(&local, 1, &asking(2, 1, "")).await;
    assert!(tree.is_dir());
    // A source that is away fails that container only, and the next pass completes it.
    let disk = world.scratch.path().join("disk");
    std::fs::rename(&disk, world.scratch.path().join("away")).unwrap();
    std::fs::write(&disk, "").unwrap();
    let end = realise(&local, 2, &asking(3, 1, "")).await;
    let End::Partial(_, failures) = end else {
        panic!("{end:?}")
    };
    assert!(
        failures.iter().any(|failure| failure.subject == "n3"),
        "{failures:?}"
    );
    std::fs::remove_file(&disk).unwrap();
    std::fs::rename(world.scratch.path().join("away"), &disk).unwrap();
    realised(&local, 2, &asking(3, 1, "")).await;
    assert_eq!(world.base.cells(), [1, 2, 3]);
}
