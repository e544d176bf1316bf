//! Specs, tags, errors and plans.

use std::collections::BTreeSet;
use std::error::Error as _;

use futures_util::StreamExt as _;
use underverse::{
    Action, Capabilities, Capability, Effect, End, Error, ExecableBuilder, ExternalAddress,
    Generation, Horde, HordePlan, Kind, Limits, Members, MountSource, NetworkSpec, PlannedStep,
    PortConnect, Program, Protocol, Strength, Tag, TagRule, finish, first_broken, properties,
};

// Shows: HRD-02
#[test]
fn an_execable_holds_every_field_it_was_given_and_has_none_for_an_id() {
    let mut horde = Horde::new("the_shire").unwrap();
    let data = horde.alloc_file_tree(200_000, "robust");
    let temporary = horde.alloc_file_tree(5000, "fast");
    assert_ne!(data, temporary);
    let limits = Limits {
        processes: Some(64),
        ..Limits::none()
    };
    let hobbit = ExecableBuilder::command("hobbit", ["server", "-p", "45271", "-a", "frodo"])
        .unwrap()
        .count(3)
        .image("shireV2.3")
        .require("GPU")
        .unwrap()
        .require("!old")
        .unwrap()
        .add_tag("hobbit")
        .unwrap()
        .mount_storage(&data, "/data")
        .mount_host("/srv/maps", "/maps")
        .env("RING", "one")
        .limits(limits)
        .build();
    let horde = horde.execables([hobbit]);
    let spec = horde.spec().unwrap();
    let execable = &spec.execables[0];
    assert_eq!((execable.count, execable.role.as_str()), (3, "hobbit"));
    assert_eq!(execable.image.as_deref(), Some("shireV2.3"));
    assert!(matches!(&execable.program, Program::Command(words) if words.len() == 5));
    let rules: Vec<String> = execable.required.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["GPU", "!old"]);
    assert_eq!(
        execable.added,
        BTreeSet::from([Tag::new("hobbit").unwrap()])
    );
    assert_eq!(execable.mounts[0].source, MountSource::Storage(data));
    assert_eq!(
        execable.mounts[1].source,
        MountSource::Host("/srv/maps".into())
    );
    assert_eq!(execable.env["RING"], "one");
    assert_eq!(execable.limits, limits);
    assert_eq!(spec.storage[1].properties, properties(" fast,"));
    assert_eq!(spec.storage[0].capacity.get(), 200_000_000_000);
}

#[test]
fn a_spec_that_no_backend_could_realise_is_invalid() {
    let hobbit = || ExecableBuilder::command("hobbit", ["server"]).unwrap();
    let check = |horde: Horde, part: &str| {
        let error = horde.spec().unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(part), "{error}");
    };
    let horde = || Horde::new("the_shire").unwrap();
    let twice = [hobbit().build(), hobbit().build()];
    check(horde().execables(twice), "role hobbit is given twice");
    check(
        horde().execables([hobbit().mount_host("/a", "b").build()]),
        "absolute",
    );
    let mounts = hobbit().mount_host("/a", "/b").mount_host("/c", "/b");
    check(horde().execables([mounts.build()]), "/b is given twice");
    let foreign = Horde::new("mordor").unwrap().alloc_volume(1, "");
    check(
        horde().execables([hobbit().mount_storage(&foreign, "/b").build()]),
        "mordor",
    );
    let wordless = ExecableBuilder::command("hobbit", [] as [&str; 0]).unwrap();
    check(horde().execables([wordless.build()]), "no words");
    let port = PortConnect {
        external: ExternalAddress::Default,
        external_port: 28_735,
        internal_port: 45_271,
        members: Members::All,
        protocol: Protocol::Tcp,
    };
    let network = NetworkSpec {
        ports: vec![port.clone(), port],
        ..NetworkSpec::default()
    };
    check(horde().network(network), "28735 is given twice");
    assert_eq!(
        Horde::new("the shire").map_err(|e| e.kind()).err(),
        Some(Kind::Invalid)
    );
}

#[test]
fn rules_on_tags_hold_together_and_a_leading_mark_excludes() {
    let tags = |tags: &[&str]| tags.iter().map(|tag| Tag::new(*tag).unwrap()).collect();
    let rules: Vec<TagRule> = ["GPU", "!old"].map(|rule| rule.parse().unwrap()).into();
    let servers: [(&[&str], bool); 4] = [
        (&["GPU"], true),
        (&["GPU", "old"], false),
        (&["old"], false),
        (&[], false),
    ];
    for (server, fits) in servers {
        assert_eq!(
            first_broken(&rules, &tags(server)).is_none(),
            fits,
            "{server:?}"
        );
    }
    for bad in ["", "!", "!!x", "a b", "a,b", "a\nb", &"x".repeat(129)] {
        assert_eq!(
            bad.parse::<TagRule>().map_err(|e| e.kind()).err(),
            Some(Kind::Invalid)
        );
    }
    assert_eq!(
        "!x".parse::<Tag>().map_err(|e| e.kind()).err(),
        Some(Kind::Invalid)
    );
}

#[test]
fn an_error_reads_after_failed_to_and_keeps_its_cause_apart() {
    let cause = std::io::Error::other("disk on fire");
    let error = Error::new(Kind::Io, "start a rnode", "its directory cannot be written")
        .with("rnode", "n3")
        .with("horde", "stix")
        .effect(Effect::Unknown)
        .caused_by(cause);
    let text = "start a rnode (rnode n3, horde stix): its directory cannot be written";
    assert_eq!(error.to_string(), text);
    assert_eq!(error.chain(), format!("{text}: disk on fire"));
    assert!(error.source().is_some());
    assert_eq!(
        (error.kind(), error.what_changed()),
        (Kind::Io, Effect::Unknown)
    );
}

#[test]
fn a_capability_that_is_not_stated_is_absent() {
    let record = Capabilities::new().enforced(&[Capability::Resize]).with(
        Capability::FlockPrivate,
        Strength::Weak("by certificate only".to_owned()),
    );
    assert_eq!(record.iter().count(), Capability::ALL.len());
    assert_eq!(record.strength(Capability::Resize), Strength::Enforced);
    assert!(record.strength(Capability::FlockPrivate).is_present());
    assert!(!record.strength(Capability::Multicast).is_present());
    assert!(record.strength(Capability::Multicast).reason().is_some());
    let all: BTreeSet<Capability> = Capability::ALL.into_iter().collect();
    assert_eq!(all.len(), Capability::ALL.len());
    let words: BTreeSet<&str> = Capability::ALL.map(Capability::word).into();
    assert_eq!(words.len(), Capability::ALL.len());
    assert_eq!(Capability::HostMounts.to_string(), "host-mounts");
}

#[test]
fn generations_are_ordered_by_document_then_term() {
    let generation = |document, term| Generation { document, term };
    assert!(generation(2, 0) > generation(1, 9));
    assert!(generation(2, 1) > generation(2, 0));
    assert_eq!(generation(2, 0), Generation::of_document(2));
    assert_eq!(
        format!("{} {}", generation(2, 0), generation(2, 3)),
        "2 2.3"
    );
}

#[test]
fn a_plan_prints_a_step_a_line() {
    let step = |action, subject: &str, reason: &str| PlannedStep {
        action,
        subject: subject.to_owned(),
        reason: reason.to_owned(),
    };
    let steps = vec![
        step(Action::Stop, "n4", "the horde is smaller now"),
        step(Action::Start, "port 8080", "it is asked for"),
    ];
    let text = "- stop n4: the horde is smaller now\n+ start port 8080: it is asked for\n";
    assert_eq!(HordePlan { steps }.to_string(), text);
}

#[tokio::test]
async fn a_stream_that_does_not_say_how_it_ended_is_unknown() {
    let end = finish(futures_util::stream::empty().boxed()).await;
    assert!(matches!(end, End::Unknown(error) if error.kind() == Kind::Bug));
}
