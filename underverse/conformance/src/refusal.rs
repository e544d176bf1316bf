//! How a backend that lacks something must say so.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use underverse::{
    Capability, End, ExternalAddress, HordeSpec, Kind, Limits, Members, Mount, MountSource,
    PortConnect, Program, Protocol, StorageKind,
};

use crate::bed::{Bed, fails, horde, realise, refused};
use crate::case::{Judged, Stop, ensure, skip};

/// The port that doors lead to.
pub(crate) const INNER_PORT: u16 = 45_271;
/// Ports of this machine that doors are asked for at: below those that the kernel gives to whoever connects out, since one
/// that was free a moment ago would else be somebody's.
const PORTS: Range<u16> = 10_000..20_000;
/// How far apart the first ports of two processes with neighbouring numbers are: more doors than one run asks for.
const APART: u32 = 251;

/// What asking for a capability does.
pub(crate) enum Asking {
    /// Realising this asks for it; where it is absent, that is refused.
    Refused(Box<HordeSpec>),
    /// Realising this asks for it; where it is absent, `Effective::weaker` says so.
    Weaker(Box<HordeSpec>),
    /// It is not asked for in a spec.
    Elsewhere,
}

/// A door of `bed`'s horde at a free port of this machine.
pub(crate) fn door(protocol: Protocol) -> Result<PortConnect, Stop> {
    let free = (0..PORTS.len()).find_map(|_| free_port());
    let free = free.ok_or_else(|| Stop::Failed(format!("no port of {PORTS:?} is free")))?;
    Ok(PortConnect {
        external: ExternalAddress::Default,
        external_port: free,
        internal_port: INNER_PORT,
        members: Members::All,
        protocol,
    })
}

/// The next of [`PORTS`], if it is free for connections and for datagrams.
fn free_port() -> Option<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Suites that run side by side begin in places of their own.
    let first = std::process::id().wrapping_mul(APART);
    let offset = first.wrapping_add(number) % u32::from(PORTS.end - PORTS.start);
    let port = PORTS.start + u16::try_from(offset).ok()?;
    let address = (std::net::Ipv4Addr::LOCALHOST, port);
    let free = std::net::TcpListener::bind(address).is_ok();
    (free && std::net::UdpSocket::bind(address).is_ok()).then_some(port)
}

/// A spec that asks for `capability` and for nothing else that is special.
pub(crate) fn asking(bed: &Bed<'_>, capability: Capability) -> Result<Asking, Stop> {
    let mut spec = bed.spec(1)?;
    let execable = &mut spec.execables[0];
    match capability {
        Capability::Commands => {
            execable.program = Program::Command(vec!["sleep".to_owned(), "1000".to_owned()])
        }
        Capability::Fulcrums => execable.program = Program::Fulcrum(vec!["fulcrum".to_owned()]),
        Capability::Images => execable.image = Some("shireV2.3".to_owned()),
        Capability::HostMounts => execable.mounts.push(Mount {
            source: MountSource::Host("/etc".into()),
            target: "/mnt/suite".into(),
        }),
        Capability::Limits => {
            execable.limits = Limits {
                processes: Some(64),
                ..Limits::none()
            }
        }
        Capability::FileTrees => spec = with_storage(spec, StorageKind::FileTree, &[]),
        Capability::Volumes => spec = with_storage(spec, StorageKind::Volume, &[]),
        Capability::ExposeTcp => spec.network.ports.push(door(Protocol::Tcp)?),
        Capability::ExposeUdp => spec.network.ports.push(door(Protocol::Udp)?),
        Capability::HordePrivate => spec.network.horde_private = true,
        Capability::FlockPrivate => spec.network.flock_private = true,
        Capability::ExternalConnectionLimit => spec.network.external_connections_max = Some(0),
        _ => return Ok(Asking::Elsewhere),
    }
    let spec = Box::new(spec);
    Ok(match capability {
        Capability::HordePrivate
        | Capability::FlockPrivate
        | Capability::ExternalConnectionLimit => Asking::Weaker(spec),
        _ => Asking::Refused(spec),
    })
}

/// Adds a request of 8 MB with `properties`, mounted at `/data` in every container.
pub(crate) fn with_storage(
    mut spec: HordeSpec,
    kind: StorageKind,
    properties: &[&str],
) -> HordeSpec {
    let number = spec.storage.len() + 1;
    let id = underverse::StorageId::from_backend(format!("{}/storage/{number}", spec.name));
    spec.storage.push(underverse::StorageRequest {
        id: id.clone(),
        kind,
        capacity: underverse::ByteCount::megabytes(8),
        properties: properties.iter().map(|&word| word.to_owned()).collect(),
    });
    for execable in &mut spec.execables {
        execable.mounts.push(Mount {
            source: MountSource::Storage(id.clone()),
            target: "/data".into(),
        });
    }
    spec
}

/// Shows that what is absent is refused or reported, and that nothing is made by being refused.
pub(crate) async fn shown(bed: &Bed<'_>, capability: Capability) -> Judged {
    let opened = bed.open().await?;
    let before = bed.inventory().await?;
    match asking(bed, capability)? {
        Asking::Refused(spec) => {
            refused(realise(&opened, 1, &spec).await, Kind::Unsupported)?;
            let after = bed.inventory().await?;
            ensure(after == before, || {
                format!("refused for want of {capability}, yet something was made")
            })
        }
        Asking::Weaker(spec) => match realise(&opened, 1, &spec).await {
            End::Done(effective) | End::Partial(effective, _) => {
                ensure(!effective.weaker.is_empty(), || {
                    format!("no {capability}, and nothing is told as weaker")
                })
            }
            End::Refused(error) | End::Unknown(error) => Err(error.into()),
        },
        Asking::Elsewhere if capability == Capability::ExternalAddresses => fails(
            opened.underverse.acquire_address(&horde()?, "first").await,
            Kind::Unsupported,
        )
        .map(drop),
        Asking::Elsewhere => {
            let reason = bed
                .capabilities
                .strength(capability)
                .reason()
                .unwrap_or_default()
                .to_owned();
            skip(format!("no {capability}: {reason}"))
        }
    }
}
