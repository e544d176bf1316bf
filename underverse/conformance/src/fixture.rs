//! What a backend's author implements: a fresh ground for each case, and what can be seen and done on it from below.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use underverse::{Program, Running, StorageExposure, Underverse, UnderverseAdmin};

/// Why a ground cannot do what a case needs.
#[derive(Debug)]
pub enum Cannot {
    /// This kind of ground has no such thing: the case is skipped, with this reason.
    NotOffered(&'static str),
    /// It should have worked: the case fails.
    Failed(String),
}

impl fmt::Display for Cannot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered(reason) => formatter.write_str(reason),
            Self::Failed(reason) => formatter.write_str(reason),
        }
    }
}

impl From<std::io::Error> for Cannot {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What happens to a mutating call of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// Nothing.
    None,
    /// The call with this number from now on, from 1, is not carried out and never returns.
    HangAt(u64),
    /// The call with this number from now on, from 1, is not carried out and fails.
    FailAt(u64),
}

/// Where a connection is tried from.
#[derive(Debug, Clone, Copy)]
pub enum Vantage<'a> {
    /// Inside this container.
    Inside(&'a Running),
    /// This substrate, outside of every horde.
    Outside,
}

impl Vantage<'_> {
    /// The id of the container; `None` outside.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Inside(running) => Some(running.id.as_str()),
            Self::Outside => None,
        }
    }
}

/// A process of the backend, or what stands for one where it is linked in.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The user's face.
    pub underverse: Arc<dyn Underverse>,
    /// The administrator's face, where there is one.
    pub admin: Option<Arc<dyn UnderverseAdmin>>,
    /// Its process, where it has one of its own.
    pub process: Option<u32>,
}

/// Makes grounds for one backend.
#[async_trait]
pub trait Fixture: Send + Sync + Debug {
    /// The backend and the way it is reached, for the report: "toy, as a plug-in".
    fn name(&self) -> String;

    /// A fresh ground on which nothing exists; `label` is a short word for directories.
    ///
    /// # Errors
    /// When it cannot be made.
    async fn ground(&self, label: &str) -> Result<Box<dyn Ground>, Cannot>;

    /// What the containers of most cases run: it stays until it is ended.
    fn program(&self) -> Program {
        Program::Command(vec!["sleep".to_owned(), "100000".to_owned()])
    }

    /// A program that accepts TCP connections on `port` of its own address and answers each with its label,
    /// and each datagram there with its label, a space, and the datagram.
    fn listener(&self, _port: u16) -> Option<Program> {
        None
    }

    /// A program that tries to take so much, lets go of it, and then answers connections as the listener does, with the number it got.
    fn taker(&self, _port: u16, _what: Take) -> Option<Program> {
        None
    }
}

/// One address of a name. Written as the address, a space, and the milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolved {
    /// The address.
    pub address: IpAddr,
    /// How long whoever asked may keep it.
    pub keep: Duration,
}

impl fmt::Display for Resolved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.address, self.keep.as_millis())
    }
}

impl std::str::FromStr for Resolved {
    type Err = Cannot;

    fn from_str(text: &str) -> Result<Self, Cannot> {
        let read = || {
            let (address, keep) = text.split_once(' ')?;
            Some(Self {
                address: address.parse().ok()?,
                keep: Duration::from_millis(keep.parse().ok()?),
            })
        };
        read().ok_or_else(|| Cannot::Failed(format!("{text:?} is no address and time")))
    }
}

/// What a program tries to take of its machine, against a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// So many bytes of memory, written to; it answers 0 if what held them was ended, else all.
    Memory(u64),
    /// So many processes at once; it answers how many there were.
    Processes(u32),
    /// A whole processor for so long; it answers the thousandths of one that it got.
    Cpu(Duration),
}

impl Take {
    /// Two words for it, for a program's arguments; time in milliseconds.
    #[must_use]
    pub fn words(self) -> (&'static str, u128) {
        match self {
            Self::Memory(bytes) => ("memory", bytes.into()),
            Self::Processes(count) => ("processes", count.into()),
            Self::Cpu(time) => ("cpu", time.as_millis()),
        }
    }

    /// Reads what [`Take::words`] wrote; `None` for anything else.
    #[must_use]
    pub fn of_words(kind: &str, number: &str) -> Option<Self> {
        Some(match kind {
            "memory" => Self::Memory(number.parse().ok()?),
            "processes" => Self::Processes(number.parse().ok()?),
            "cpu" => Self::Cpu(Duration::from_millis(number.parse().ok()?)),
            _ => return None,
        })
    }
}

/// What is below a backend and outlives its processes. Dropping it removes whatever is left.
#[async_trait]
pub trait Ground: Send + Sync + Debug {
    /// Starts a process of the backend here.
    ///
    /// # Errors
    /// When it does not start.
    async fn open(&self) -> Result<Opened, Cannot>;

    /// Ends a process of the backend as suddenly as can be: SIGKILL. Where it is linked in, the suite drops its passes instead.
    ///
    /// # Errors
    /// When it goes on.
    async fn kill(&self, _opened: &Opened) -> Result<(), Cannot> {
        Ok(())
    }

    /// Everything that exists for hordes, one line an object, found without asking the backend: processes, directories, ports.
    ///
    /// Memoirs, and what the backend keeps for ever by contract (the last generation), are left out.
    ///
    /// # Errors
    /// When it cannot be looked at.
    async fn inventory(&self) -> Result<BTreeSet<String>, Cannot>;

    /// Ends a container behind the backend's back.
    ///
    /// # Errors
    /// When it cannot be ended.
    async fn remove(&self, container: &Running) -> Result<(), Cannot>;

    /// How many mutating calls the backend has made here so far.
    ///
    /// # Errors
    /// `NotOffered` where they cannot be counted.
    async fn mutations(&self) -> Result<u64, Cannot>;

    /// Says what happens to a later mutating call; replaces what was said before.
    ///
    /// # Errors
    /// `NotOffered` where calls cannot be disturbed.
    async fn disturb(&self, disturbance: Disturbance) -> Result<(), Cannot>;

    /// Returns when a call hangs.
    async fn hung(&self);

    /// Storage number `number`, from 0, that may be exposed here, of at least 64 MB, thin or not; each is another one.
    fn exposure(&self, _number: u32) -> Option<StorageExposure> {
        None
    }

    /// Writes a file as a container sees it.
    ///
    /// # Errors
    /// `NotOffered` where that cannot be done.
    async fn write_inside(&self, _at: &Running, _path: &str, _text: &str) -> Result<(), Cannot> {
        Err(Cannot::NotOffered("this ground cannot look inside"))
    }

    /// Reads a file as a container sees it; `None` if it is not there.
    ///
    /// # Errors
    /// `NotOffered` where that cannot be done.
    async fn read_inside(&self, _at: &Running, _path: &str) -> Result<Option<String>, Cannot> {
        Err(Cannot::NotOffered("this ground cannot look inside"))
    }

    /// The environment of a container's program.
    ///
    /// # Errors
    /// `NotOffered` where it cannot be read.
    async fn environment(&self, _of: &Running) -> Result<BTreeMap<String, String>, Cannot> {
        Err(Cannot::NotOffered("this ground cannot read environments"))
    }

    /// Connects over TCP and returns what is answered; `None` if there is no connection.
    ///
    /// # Errors
    /// `NotOffered` where connections cannot be tried.
    async fn reach(&self, _from: Vantage<'_>, _to: SocketAddr) -> Result<Option<String>, Cannot> {
        Err(Cannot::NotOffered("this ground cannot try connections"))
    }
    /// Sends a datagram and returns what is answered; `None` if nothing is.
    ///
    /// # Errors
    /// `NotOffered` where datagrams cannot be tried.
    async fn exchange(
        &self,
        _from: Vantage<'_>,
        _to: SocketAddr,
        _text: &str,
    ) -> Result<Option<String>, Cannot> {
        Err(Cannot::NotOffered("this ground cannot try datagrams"))
    }

    /// Connects to `to` from each of these containers in turn, keeps every connection until the last was tried,
    /// and returns how many were answered. One container may stand there more than once.
    ///
    /// # Errors
    /// `NotOffered` where connections cannot be kept.
    async fn hold(&self, _from: &[&Running], _to: SocketAddr) -> Result<u32, Cannot> {
        Err(Cannot::NotOffered("this ground cannot keep connections"))
    }

    /// The addresses of a name, as the name server tells that this container is told to ask; none if it has no such name.
    ///
    /// # Errors
    /// `NotOffered` where that cannot be asked.
    async fn resolve(&self, _from: &Running, _name: &str) -> Result<Vec<Resolved>, Cannot> {
        Err(Cannot::NotOffered("this ground cannot ask for names"))
    }

    /// An address that stands for the internet: it answers whoever is let out to it, and nothing leaves the ground for that.
    fn internet(&self) -> Option<SocketAddr> {
        None
    }

    /// Other addresses of the substrate, at which nothing of a horde may be unless a door says so.
    fn other_addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }
}
