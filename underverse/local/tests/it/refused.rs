//! What is refused, with which words, and that nothing was made.

use underverse::{
    ExecableBuilder, ExternalAddress, Horde, HordeSpec, Kind, Limits, Underverse as _, UserSource,
    UserSpec,
};

use crate::fake::{World, generation, realise, realised, refusal, spec};
use crate::realise::door;

/// Realises `spec` on a fresh machine and checks that it is refused without a trace.
async fn check(spec: HordeSpec, kind: Kind, parts: &[&str]) {
    let world = World::new();
    world
        .ground
        .missing
        .lock()
        .unwrap()
        .insert("/nowhere".into());
    let local = world.local();
    let planned = local
        .plan(generation(1), &spec)
        .await
        .map_err(|error| error.kind());
    assert_eq!(planned.err(), Some(kind));
    let error = refusal(realise(&local, 1, &spec).await);
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(world.base.table().mutations, 0);
    assert!(world.scratch.inventory().is_empty());
}

fn of(rnode: underverse::Execable) -> HordeSpec {
    let mut spec = spec(1);
    spec.execables = vec![rnode];
    spec
}

fn rnode() -> ExecableBuilder {
    ExecableBuilder::fulcrum("rnode").unwrap()
}

#[tokio::test]
async fn ten_thousand_rnodes_are_refused_with_the_reason() {
    let parts = [
        "10000 rnodes",
        "25.0 MiB each",
        "244.1 GiB",
        "20.0 GiB",
        "processes",
    ];
    check(of(rnode().count(10_000).build()), Kind::Limit, &parts).await;
}

#[tokio::test]
async fn a_mount_of_a_missing_directory_is_refused_by_name() {
    let execable = rnode().mount_host("/nowhere", "/var/stix").build();
    check(of(execable), Kind::Invalid, &["/nowhere", "/var/stix"]).await;
}

// Shows: HRD-05
#[tokio::test]
async fn impossible_storage_is_asked_for_freely_and_refused_when_realised() {
    let mut horde = Horde::new("stix").unwrap();
    let data = horde.alloc_file_tree(200_000, "robust");
    let horde = horde.execables([rnode().mount_storage(&data, "/data").build()]);
    let spec = horde.spec().unwrap().clone();
    let parts = ["/data", "stix/storage/1", "file tree of 186.2 GiB robust"];
    check(spec, Kind::Unsatisfiable, &parts).await;
}

// Shows: HRD-10
#[tokio::test]
async fn what_this_backend_lacks_is_unsupported_by_type() {
    check(
        of(rnode().image("shireV2.3").build()),
        Kind::Unsupported,
        &["shireV2.3"],
    )
    .await;
    let limits = Limits {
        processes: Some(5),
        ..Limits::none()
    };
    check(
        of(rnode().limits(limits).build()),
        Kind::Unsupported,
        &["limit"],
    )
    .await;
    let command = ExecableBuilder::command("hobbit", ["server", "-p", "45271"]).unwrap();
    check(of(command.build()), Kind::Unsupported, &["server -p 45271"]).await;
    let mut address = spec(1);
    let id = underverse::AddressId::from_backend("ip-1");
    address.network.ports = vec![underverse::PortConnect {
        external: ExternalAddress::Acquired(id),
        ..door(80)
    }];
    check(address, Kind::NotFound, &["ip-1"]).await;
}

#[tokio::test]
async fn nonsense_is_invalid() {
    let mut twice = spec(1);
    twice.network.ports = vec![door(80), door(80)];
    check(twice, Kind::Invalid, &["80", "twice"]).await;
    check(
        of(rnode().mount_host("/a", "relative").build()),
        Kind::Invalid,
        &["relative"],
    )
    .await;
    let mut setting = spec(1);
    setting
        .settings
        .insert("image".to_owned(), vec!["x".to_owned()]);
    check(setting, Kind::Invalid, &["no setting image"]).await;
    let mut setting = spec(1);
    setting
        .settings
        .insert("isolation".to_owned(), vec!["vm".to_owned()]);
    check(setting, Kind::Invalid, &["isolation vm"]).await;
}

#[tokio::test]
async fn hordes_that_are_realised_at_once_get_ranges_of_users_of_their_own() {
    let world = World::new();
    let local = world.local();
    let of = |horde: &str| {
        let mut spec = spec(1);
        spec.name = horde.parse().unwrap();
        spec.users = vec![UserSpec {
            name: "stix".to_owned(),
            source: UserSource::Auto,
        }];
        spec
    };
    let (a, b, c) = (of("a"), of("b"), of("c"));
    let _ = tokio::join!(
        realised(&local, 1, &a),
        realised(&local, 1, &b),
        realised(&local, 1, &c),
    );
    let start = |horde: &str| {
        let file = world.json(&format!("hordes/{horde}/n1/rnode.json"));
        file["user_range_start"].as_u64().unwrap()
    };
    let ranges = std::collections::BTreeSet::from(["a", "b", "c"].map(start));
    assert_eq!(ranges.len(), 3, "{ranges:?}");
}

#[tokio::test]
async fn a_user_of_its_own_is_leased_for_root_and_reported_weaker_for_others() {
    let mut spec = spec(2);
    spec.users = vec![UserSpec {
        name: "stix".to_owned(),
        source: UserSource::Auto,
    }];
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec).await;
    let start = |label: &str| world.json(&format!("hordes/stix/{label}/rnode.json"));
    assert_eq!(start("n1")["user_range_start"], 2_000_000_000);
    assert_eq!(start("n2")["user_range_start"], 2_000_000_016);
    let mut other = spec.clone();
    other.name = "other".parse().unwrap();
    realised(&local, 1, &other).await;
    let file = world.json("hordes/other/n1/rnode.json");
    assert_eq!(file["user_range_start"], 2_000_004_096);

    let world = World::new();
    world
        .ground
        .uid
        .store(1000, std::sync::atomic::Ordering::Relaxed);
    let local = world.local();
    realised(&local, 1, &spec).await;
    let file = world.json("hordes/stix/n1/rnode.json");
    assert!(file["user_range_start"].is_null());
    let effective = local.effective(&spec.name).await.unwrap();
    let weaker: Vec<String> = effective.weaker.iter().map(ToString::to_string).collect();
    assert!(
        weaker
            .iter()
            .any(|text| text.starts_with("user stix = auto: ")),
        "{weaker:?}"
    );
}

// Shows in part: HRD-12
#[tokio::test]
async fn a_base_that_refuses_one_start_leaves_the_others_and_a_later_pass_completes_it() {
    let world = World::new();
    let local = world.local();
    world.base.table().refused.insert("-n2-".to_owned());
    let end = realise(&local, 1, &spec(3)).await;
    let underverse::End::Partial(effective, failures) = end else {
        panic!("{end:?}")
    };
    assert_eq!(failures.len(), 1);
    assert_eq!(
        (failures[0].subject.as_str(), failures[0].error.kind()),
        ("n2", Kind::Denied)
    );
    assert_eq!((effective.roles[0].obtained, effective.missing()), (2, 1));
    assert_eq!(
        effective.roles[0].shortfall.as_deref(),
        Some("not started yet")
    );
    assert_eq!(world.base.cells(), [1, 3]);
    world.base.table().refused.clear();
    realised(&local, 1, &spec(3)).await;
    assert_eq!(world.base.cells(), [1, 2, 3]);
}
