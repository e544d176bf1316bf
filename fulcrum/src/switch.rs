//! The switch: a network namespace with a bridge in it that joins the containers of a private horde, and nothing that leads out.
//!
//! Nobody runs it. Every process that needs it enters it and is a *holder*: cells, forwarders, the uplink.
//! The first one makes it; the death of any takes nothing from the others; with the last one the kernel takes all of it away.
//! For an ordinary user it lies in a user namespace of its own, which everybody on it shares.
//! Why it is so stands in docs/design/network.md; links are made in `switch/link.rs`, holders kept in `switch/holders.rs`.

mod carry;
mod holders;
mod link;
mod names;
mod netlink;
mod network;
mod nft;
mod probe;
mod rights;
mod uplink;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;

pub use self::carry::{CONNECTIONS_MAX, carry};
use self::holders::Holders;
pub use self::names::{Names, open as open_names};
pub use self::network::Network;
pub use self::probe::{Found, Granted, OUTBOUND_TRIED_MAX, OUTSIDE, Probes, granted, probe, trial};
pub(crate) use self::rights::give_up as give_up_rights;
pub use self::uplink::{Uplink, open as open_uplink};
use crate::cell::{CellError, map_user};

/// Address of the bridge: where doors come from, and the way out where there is one.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 254);
/// Bits that all members of all hordes on a switch share.
pub const PREFIX: u8 = 16;
/// Name of the bridge inside the switch.
const BRIDGE: &str = "switch";

/// The switch this process is in.
#[derive(Debug)]
pub struct Switch {
    net: File,
    holders: std::path::PathBuf,
}

/// A network namespace plugged into a switch: a container's.
#[derive(Debug)]
pub struct Plugged {
    net: File,
}

impl Switch {
    /// Enters the switch in `dir`, making it if nobody holds it, and holds it until this process ends.
    ///
    /// The process must have one thread. Sockets it made before stay where they were made.
    ///
    /// # Errors
    /// [`CellError`], naming what is not allowed here; the process is good for nothing else then.
    pub fn enter(dir: &Path) -> Result<Self, CellError> {
        let (switch, holders) = Self::join(dir)?;
        holders
            .register("")
            .map_err(|error| CellError::io("hold the switch", error))?;
        Ok(switch)
    }

    fn join(dir: &Path) -> Result<(Self, Holders), CellError> {
        let failed = |error| CellError::at("open the switch in", dir, error);
        let holders = Holders::lock(dir).map_err(failed)?;
        match holders.living().map_err(failed)? {
            Some(held) => {
                enter_user(&held.user)?;
                setns(&held.net, CloneFlags::CLONE_NEWNET)
                    .map_err(|error| CellError::io("enter the switch", error))?;
            }
            None => make()?,
        }
        let net = own_network().map_err(failed)?;
        let switch = Self {
            net,
            holders: dir.to_owned(),
        };
        Ok((switch, holders))
    }

    /// Enters the switch in `dir` and plugs a new network namespace into it, whose address is `address`.
    ///
    /// A container that had the address before is unplugged.
    /// This process is in the switch afterwards, and holds it until it ends.
    ///
    /// # Errors
    /// As [`Switch::enter`].
    pub fn plug(dir: &Path, address: Ipv4Addr) -> Result<(Self, Plugged), CellError> {
        let failed = |error| CellError::io(format!("plug {address} into the switch"), error);
        let (switch, holders) = Self::join(dir)?;
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|error| CellError::io("leave the host's network", error))?;
        let plugged = Plugged {
            net: own_network().map_err(failed)?,
        };
        switch.back().map_err(failed)?;
        let [.., horde, member] = address.octets();
        let cable = format!("c{horde}.{member}");
        link::remove_link(&cable).map_err(failed)?;
        let hardware = link::hardware(address);
        link::add_cable(BRIDGE, &cable, plugged.net.as_fd(), hardware).map_err(failed)?;
        plugged.enter().map_err(failed)?;
        let configured = configure(address);
        switch.back().map_err(failed)?;
        configured.map_err(failed)?;
        for name in [&cable, BRIDGE] {
            link::until_carrying(name).map_err(failed)?;
        }
        let member = format!("{address} {}", plugged.net.as_raw_fd());
        holders.register(&member).map_err(failed)?;
        Ok((switch, plugged))
    }

    /// Goes back into the switch from a namespace plugged into it.
    fn back(&self) -> io::Result<()> {
        Ok(setns(&self.net, CloneFlags::CLONE_NEWNET)?)
    }

    /// Where its holders are kept.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.holders
    }
}

impl Plugged {
    /// Enters the container's network, with the calling thread.
    ///
    /// # Errors
    /// The system's; the thread is where it was.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.net, CloneFlags::CLONE_NEWNET)?)
    }
}

/// Makes a switch and is in it afterwards.
fn make() -> Result<(), CellError> {
    let user = !geteuid().is_root();
    let mut flags = CloneFlags::CLONE_NEWNET;
    flags.set(CloneFlags::CLONE_NEWUSER, user);
    let ids = (geteuid(), nix::unistd::getegid());
    unshare(flags).map_err(|error| CellError::io("leave the host's network", error))?;
    if user {
        map_user(ids)?;
    }
    let failed = |error| CellError::io("make the switch", error);
    link::up("lo").map_err(failed)?;
    link::add_bridge(BRIDGE, GATEWAY, PREFIX).map_err(failed)
}

/// Enters a holder's user namespace unless we are in it.
fn enter_user(user: &File) -> Result<(), CellError> {
    use std::os::unix::fs::MetadataExt;
    let failed = |error| CellError::io("enter the switch's user namespace", error);
    let same = |a: &File, b: &File| -> io::Result<bool> {
        let (a, b) = (a.metadata()?, b.metadata()?);
        Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
    };
    let own = File::open("/proc/self/ns/user").map_err(failed)?;
    if same(user, &own).map_err(failed)? {
        return Ok(());
    }
    setns(user, CloneFlags::CLONE_NEWUSER)
        .map_err(|error| CellError::io("enter the switch's user namespace", error))
}

fn own_network() -> io::Result<File> {
    File::open("/proc/self/ns/net")
}

/// Gives a container's namespace its address; it is in there.
fn configure(address: Ipv4Addr) -> io::Result<()> {
    link::up("lo")?;
    link::add_address(link::CONTAINER_LINK, address, PREFIX)?;
    link::up(link::CONTAINER_LINK)?;
    link::add_default_route(GATEWAY)
}
