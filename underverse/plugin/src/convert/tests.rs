//! What goes over the wire comes back as it was, whatever it is.

use std::time::Duration;

use proptest::prelude::*;
use prost::Message;
use underverse::{
    AddressId, ByteCount, Capabilities, Capability, Effect, Error, EventId, EventKind, Execable,
    ExternalAddress, Generation, HordeName, HordeSpec, Kind, Limits, MaintenancePolicy, Members,
    Mount, MountSource, NetworkSpec, PortConnect, Program, Protocol, Reply, Role, ServerChange,
    ServerSpec, StorageId, StorageKind, StorageRequest, Strength, Tag, TagRule, UnderverseEvent,
    UserSource, UserSpec,
};

use super::{capabilities, change, strengths};
use crate::wire;

/// Through bytes and back.
fn sent<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).expect("what was encoded is decoded")
}

fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(".*", 0..4)
}

fn tag() -> impl Strategy<Value = Tag> {
    "[a-zA-Z0-9=:]{1,20}".prop_map(|text| Tag::new(text).expect("a tag"))
}

fn role() -> impl Strategy<Value = Role> {
    "[a-z][a-z0-9_-]{0,20}".prop_map(|text| Role::new(text).expect("a role"))
}

fn storage_id() -> impl Strategy<Value = StorageId> {
    ".{0,12}".prop_map(StorageId::from_backend)
}

fn mount() -> impl Strategy<Value = Mount> {
    use std::os::unix::ffi::OsStringExt as _;
    let path = || {
        prop::collection::vec(any::<u8>(), 0..12)
            .prop_map(|bytes| std::ffi::OsString::from_vec(bytes).into())
    };
    let source = prop_oneof![
        path().prop_map(MountSource::Host),
        storage_id().prop_map(MountSource::Storage)
    ];
    (source, path()).prop_map(|(source, target)| Mount { source, target })
}

fn execable() -> impl Strategy<Value = Execable> {
    let program = (any::<bool>(), words()).prop_map(|(rnode, words)| match rnode {
        true => Program::Fulcrum(words),
        false => Program::Command(words),
    });
    let rule = (any::<bool>(), tag()).prop_map(|(has, tag)| {
        if has {
            TagRule::Has(tag)
        } else {
            TagRule::Lacks(tag)
        }
    });
    let limits = (
        any::<Option<u64>>(),
        any::<Option<u32>>(),
        any::<Option<u32>>(),
    )
        .prop_map(|(memory, cpu, processes)| Limits {
            memory: memory.map(ByteCount::bytes),
            cpu_thousandths: cpu,
            processes,
        });
    let first = (any::<u32>(), role(), prop::option::of(".*"), program);
    let second = (
        prop::collection::vec(rule, 0..3),
        prop::collection::btree_set(tag(), 0..3),
        prop::collection::vec(mount(), 0..3),
        prop::collection::btree_map(".*", ".*", 0..3),
        limits,
    );
    (first, second).prop_map(
        |((count, role, image, program), (required, added, mounts, env, limits))| Execable {
            count,
            role,
            image,
            program,
            required,
            added,
            mounts,
            env,
            limits,
        },
    )
}

fn port() -> impl Strategy<Value = PortConnect> {
    let external = prop_oneof![
        Just(ExternalAddress::Default),
        any::<std::net::IpAddr>().prop_map(ExternalAddress::Host),
        ".*".prop_map(|id| ExternalAddress::Acquired(AddressId::from_backend(id))),
    ];
    let members = prop_oneof![Just(Members::All), ".*".prop_map(Members::Class)];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    (external, any::<u16>(), any::<u16>(), members, protocol).prop_map(
        |(external, external_port, internal_port, members, protocol)| PortConnect {
            external,
            external_port,
            internal_port,
            members,
            protocol,
        },
    )
}

fn network() -> impl Strategy<Value = NetworkSpec> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (
        flags,
        any::<Option<u32>>(),
        prop::collection::vec(port(), 0..3),
    )
        .prop_map(|(flags, limit, ports)| NetworkSpec {
            horde_private: flags.0,
            flock_private: flags.1,
            horde_connected: flags.2,
            external_connections_max: limit,
            ports,
        })
}

fn spec() -> impl Strategy<Value = HordeSpec> {
    let kind = prop_oneof![Just(StorageKind::FileTree), Just(StorageKind::Volume)];
    let request = (
        storage_id(),
        kind,
        any::<u64>(),
        prop::collection::btree_set(".*", 0..3),
    )
        .prop_map(|(id, kind, capacity, properties)| StorageRequest {
            id,
            kind,
            capacity: ByteCount::bytes(capacity),
            properties,
        });
    let user = ("[a-z]{1,8}", any::<bool>()).prop_map(|(name, auto)| UserSpec {
        name,
        source: if auto {
            UserSource::Auto
        } else {
            UserSource::Oneself
        },
    });
    let server = (".*", prop::collection::btree_set(tag(), 0..3))
        .prop_map(|(name, tags)| ServerSpec { name, tags });
    (
        prop::collection::vec(execable(), 0..3),
        network(),
        prop::collection::vec(request, 0..3),
        prop::collection::vec(user, 0..3),
        prop::collection::vec(server, 0..3),
        prop::collection::btree_map(".*", words(), 0..3),
    )
        .prop_map(
            |(execables, network, storage, users, servers, settings)| HordeSpec {
                name: HordeName::new("the_shire").expect("a name"),
                execables,
                network,
                storage,
                users,
                servers,
                settings,
            },
        )
}

fn event_kind() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        (".*", ".*")
            .prop_map(|(container, reason)| EventKind::ContainerFailed { container, reason }),
        (".*", prop::option::of(".*")).prop_map(|(container, replaces)| {
            EventKind::ContainerStarted {
                container,
                replaces,
            }
        }),
        ".*".prop_map(EventKind::ServiceDegraded),
        any::<u64>().prop_map(|from_unix_ms| EventKind::InterruptionScheduled { from_unix_ms }),
        words().prop_map(|affected| EventKind::ServerRebooted { affected }),
        words().prop_map(|affected| EventKind::ServerGone { affected }),
        (".*", words())
            .prop_map(|(reason, affected)| EventKind::ServerDegraded { reason, affected }),
        Just(EventKind::ServerRestored),
        words().prop_map(EventKind::Partition),
        words().prop_map(EventKind::Healed),
        (any::<u64>(), words()).prop_map(|(from_unix_ms, affected)| {
            EventKind::MaintenancePlanned {
                from_unix_ms,
                affected,
            }
        }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        Just(Reply::Ack),
        Just(Reply::Maintenance(MaintenancePolicy::Staged)),
        any::<u64>()
            .prop_map(|unix_ms| Reply::Maintenance(MaintenancePolicy::DenyUntil { unix_ms })),
        (1_u32.., any::<u64>()).prop_map(|(at_once, apart)| {
            Reply::Maintenance(MaintenancePolicy::Rolling {
                at_once,
                apart: Duration::from_millis(apart),
            })
        }),
    ]
}

fn strength() -> impl Strategy<Value = Strength> {
    prop_oneof![
        Just(Strength::Enforced),
        ".*".prop_map(Strength::Weak),
        ".*".prop_map(Strength::Absent)
    ]
}

proptest! {
    #[test]
    fn a_horde_comes_through(spec in spec()) {
        let back = HordeSpec::try_from(sent(&wire::HordeSpec::from(&spec))).map_err(|error| error.chain());
        prop_assert_eq!(back, Ok(spec));
    }

    #[test]
    fn an_event_comes_through(id in any::<u64>(), unix_ms in any::<u64>(), subject in ".*", kind in event_kind()) {
        let horde = HordeName::new("the_shire").expect("a name");
        let event = UnderverseEvent { id: EventId(id), horde, unix_ms, subject, kind };
        let back = UnderverseEvent::try_from(sent(&wire::Event::from(&event))).map_err(|error| error.chain());
        prop_assert_eq!(back, Ok(event));
    }

    #[test]
    fn an_answer_comes_through(reply in reply()) {
        let back = Reply::try_from(wire::reply_request::Reply::from(&reply)).map_err(|error| error.chain());
        prop_assert_eq!(back, Ok(reply));
    }

    #[test]
    fn a_record_comes_through(held in prop::collection::vec(strength(), 28)) {
        let record = Capability::ALL.into_iter().zip(held).fold(Capabilities::new(), |record, (one, held)| record.with(one, held));
        prop_assert_eq!(capabilities(strengths(&record)), record);
    }

    #[test]
    fn an_error_comes_through(kind in 0_usize..12, effect in 0_usize..3, message in ".*", value in ".*", cause in ".*") {
        let kinds = [
            Kind::Invalid, Kind::Unsupported, Kind::NotFound, Kind::Taken, Kind::Stale, Kind::Unsatisfiable,
            Kind::Limit, Kind::Denied, Kind::Unavailable, Kind::DeadlineExceeded, Kind::Io, Kind::Bug,
        ];
        let effects = [Effect::None, Effect::Done, Effect::Unknown];
        let error = Error::new(kinds[kind], "start a cell", message)
            .effect(effects[effect])
            .with("horde", value)
            .caused_by(Error::new(Kind::Io, "read", cause));
        let back = Error::from(sent(&wire::Error::from(&error)));
        prop_assert_eq!((back.kind(), back.what_changed()), (error.kind(), error.what_changed()));
        prop_assert_eq!((back.operation(), back.message()), (error.operation(), error.message()));
        prop_assert_eq!(back.context(), error.context());
        prop_assert_eq!(back.chain(), error.chain());
    }

    #[test]
    fn hostile_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = wire::HordeSpec::decode(bytes.as_slice()) {
            drop(HordeSpec::try_from(message));
        }
        if let Ok(message) = wire::Progress::decode(bytes.as_slice()) {
            drop(underverse::Progress::try_from(message));
        }
    }
}

#[test]
fn what_a_newer_side_says_is_refused_in_requests_and_promises_less_in_answers() {
    let execable = wire::Execable {
        role: "hobbit".to_owned(),
        program: 9,
        ..wire::Execable::default()
    };
    let refused = Execable::try_from(execable).map_err(|error| error.kind());
    assert_eq!(refused, Err(Kind::Unsupported));
    let strong = wire::Strength {
        kind: 9,
        ..wire::Strength::default()
    };
    assert!(!Strength::from(strong).is_present());
    let event = wire::Event {
        id: 7,
        horde: "shire".to_owned(),
        ..wire::Event::default()
    };
    let event = UnderverseEvent::try_from(event).expect("it is told");
    assert_eq!(
        (event.id, event.kind.word()),
        (EventId(7), "service-degraded")
    );
    let error = Error::from(wire::Error {
        kind: 99,
        ..wire::Error::default()
    });
    assert_eq!(
        (error.kind(), error.what_changed()),
        (Kind::Bug, Effect::Unknown)
    );
    let known = wire::Strength {
        capability: "teleport".to_owned(),
        kind: 3,
        reason: String::new(),
    };
    assert_eq!(capabilities(vec![known]), Capabilities::new());
    assert_eq!(
        change(None).map_err(|error| error.kind()),
        Err(Kind::Invalid)
    );
    let changes = [
        ServerChange::Reboot,
        ServerChange::Degrade("x".to_owned()),
        ServerChange::Withdraw,
        ServerChange::Maintain { from_unix_ms: 5 },
        ServerChange::Restore,
    ];
    for asked in changes {
        let back = change(Some((&asked).into())).map_err(|error| error.kind());
        assert_eq!(back, Ok(asked));
    }
    let generation = Generation {
        document: 3,
        term: 4,
    };
    assert_eq!(
        Generation::from(wire::Generation::from(generation)),
        generation
    );
}
