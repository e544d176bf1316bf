//! The horde of the Chronicles, built up step by step.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use underverse::{
    AddressId, Capability, Error, ExecableBuilder, ExternalAddress, Horde, HordeName, Kind,
    Members, NetworkSpec, PortConnect, Protocol, StorageExposure, StorageKind, Underverse,
};

use crate::backend::Backend;
use crate::report;

/// The horde's name.
const NAME: &str = "the_shire";
/// What each hobbit is called; each runs a slightly different command.
pub(crate) const HOBBITS: [&str; 3] = ["frodo", "samwise", "meriadoc"];
/// The image that all share, where the underverse has images.
const IMAGE: &str = "shireV2.3";
/// Port on which every hobbit listens.
const SERVICE_PORT: u16 = 45271;
/// Storage of a hobbit at `/data`, in megabytes, and at `/usr/tmp`.
const DATA_MEGABYTES: u64 = 200_000;
const TMP_MEGABYTES: u64 = 5_000;
/// Properties of what this example exposes, as an administrator would.
const EXPOSED: [&str; 2] = ["robust", "fast"];

/// Where the world finds the hobbits.
#[derive(Debug)]
pub(crate) struct Door {
    /// The address obtained; `None` where the underverse has none to give.
    pub(crate) id: Option<AddressId>,
    address: IpAddr,
}

impl Door {
    pub(crate) const fn shown(&self) -> IpAddr {
        self.address
    }

    pub(crate) const fn reached(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }
}

/// Obtains an external address, or says why there is none.
pub(crate) async fn address(underverse: &dyn Underverse) -> Result<Door, Error> {
    let horde = HordeName::new(NAME)?;
    match underverse.acquire_address(&horde, "door").await {
        Ok((id, address)) => Ok(Door {
            id: Some(id),
            address,
        }),
        Err(error) if error.kind() == Kind::Unsupported => {
            report::say(&format!("no external address: {}", error.message()));
            Ok(Door {
                id: None,
                address: Ipv4Addr::LOCALHOST.into(),
            })
        }
        Err(error) => Err(error),
    }
}

/// The administrator's part: exposes thin storage below `home`, unless somebody has exposed any.
///
/// Nobody has 615 GB to spare for an example, and thin storage says that it promises more than there is.
pub(crate) async fn expose(backend: &Backend, home: &Path) -> Result<(), Error> {
    if !backend.administrator.exposures().await?.is_empty() {
        return Ok(());
    }
    let servers = backend.underverse.servers().await?;
    for server in servers {
        for property in EXPOSED {
            let source = home.join("shire").join(&server.name).join(property);
            std::fs::create_dir_all(&source).map_err(|error| {
                let text = error.to_string();
                Error::new(Kind::Io, "make a directory to expose", text).caused_by(error)
            })?;
            let exposure = StorageExposure {
                server: server.name.clone(),
                source: source.display().to_string(),
                bind: "dir".to_owned(),
                kind: StorageKind::FileTree,
                tags: BTreeSet::from([property.to_owned()]),
                thin: true,
            };
            backend.administrator.expose(exposure).await?;
        }
    }
    Ok(())
}

/// Takes back what [`expose`] exposed; what somebody else exposed stays.
pub(crate) async fn withdraw(backend: &Backend) -> Result<(), Error> {
    for exposed in backend.administrator.exposures().await? {
        let exposure = exposed.exposure;
        let source = Path::new(&exposure.source);
        let ours = source.ancestors().any(|above| above.ends_with("shire"));
        if ours && exposed.allotted.get() == 0 {
            let administrator = backend.administrator.as_ref();
            administrator
                .unexpose(&exposure.server, &exposure.source)
                .await?;
            // The directory is empty now; one that is not stays.
            drop(std::fs::remove_dir(source));
        }
    }
    Ok(())
}

/// Three hobbits with storage of their own behind one door.
pub(crate) fn horde(underverse: &dyn Underverse, door: &Door, port: u16) -> Result<Horde, Error> {
    let capabilities = underverse.capabilities();
    let images = capabilities.strength(Capability::Images);
    // Without images a container sees the server's files, and the program is the one beside this one.
    let program = match images.reason() {
        Some(reason) if !images.is_present() => {
            report::say(&format!("no image {IMAGE}: {reason}"));
            beside()?
        }
        _ => "server".to_owned(),
    };
    let mut horde = Horde::new(NAME)?;
    let mut hobbits = Vec::new();
    for name in HOBBITS {
        let data = horde.alloc_file_tree(DATA_MEGABYTES, "robust");
        let tmp = horde.alloc_file_tree(TMP_MEGABYTES, "fast");
        let service_port = SERVICE_PORT.to_string();
        let words = [&program, "-p", &service_port, "-a", name, "-d", "/data"];
        let hobbit = ExecableBuilder::command(name, words)?
            .mount_storage(&data, "/data")
            .mount_storage(&tmp, "/usr/tmp");
        let hobbit = match images.is_present() {
            true => hobbit.image(IMAGE),
            false => hobbit,
        };
        hobbits.push(hobbit.build());
    }
    let external = match &door.id {
        Some(id) => ExternalAddress::Acquired(id.clone()),
        None => ExternalAddress::Default,
    };
    let network = NetworkSpec {
        horde_private: true,
        flock_private: false,
        horde_connected: true,
        external_connections_max: Some(0),
        ports: vec![PortConnect {
            external,
            external_port: port,
            internal_port: SERVICE_PORT,
            members: Members::All,
            protocol: Protocol::Tcp,
        }],
    };
    Ok(horde.execables(hobbits).network(network))
}

/// The server that was built with this program.
fn beside() -> Result<String, Error> {
    let failed = |text: String| Error::new(Kind::NotFound, "find the server", text);
    let own = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let server = own.with_file_name("server");
    if server.is_file() {
        Ok(server.display().to_string())
    } else {
        Err(failed(format!("{} is not there", server.display())))
    }
}
