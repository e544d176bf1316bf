//! Steps that make and start.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use underverse::{Error, Kind};

use super::{END_POLL, Pass, io_at};
use crate::address::{self, Lease};
use crate::base::Start;
use crate::command::{self, CommandFile};
use crate::config::{self, RnodeFile, RnodeMount};
use crate::label::{Label, rnode_label};
use crate::layout::LEAVING;
use crate::network::{Carries, OnSwitch, Way};
use crate::plan::rnode_users;
use crate::record::{ContainerRecord, Door, ForwardRecord};
use crate::servers::Tagging;
use crate::storage::{self, Allotment};
use crate::wanted::{HOSTS, RESOLVER, Wanted, WantedSwitch};
use crate::{durable, mark, myriad};

/// How often a leased port is tried before the rnode gets another address: 1 s in all.
const PROBES_MAX: u32 = 20;
/// File that shows that a rnode has enrolled.
const ENROLLED: &str = "identity/chain";
/// Says that a forwarder carries datagrams.
const UDP: &str = "--udp";
/// Holds a rnode's invitation until it is claimed.
const INVITATION: &str = "invitation";

impl Pass<'_> {
    pub(super) async fn lease(&self, ordinals: &[u32]) -> Result<(), Error> {
        let mut leases = self.leases.lock().await;
        let mut next = leases.clone();
        if let Some(switch) = self.switch() {
            next.retain(|lease| !ordinals.contains(&lease.ordinal));
            for &ordinal in ordinals {
                next.push(on_switch(switch.on, ordinal)?);
            }
            self.write_leases(&next)?;
            *leases = next;
            return Ok(());
        }
        let mut taken = self.taken(&next)?;
        let candidates: Vec<_> = address::candidates(self.local.ground().uid()).collect();
        for &ordinal in ordinals {
            let probe = |host, tcp, udp| self.probe(host, (tcp, udp));
            let lease = address::lease(ordinal, &candidates, &taken, &probe).ok_or_else(|| {
                let message = format!("none of {} loopback addresses is free", candidates.len());
                Error::new(Kind::Limit, "lease an address", message)
                    .with("rnode", rnode_label(ordinal))
            })?;
            taken.insert(lease.host);
            next.push(lease);
        }
        self.write_leases(&next)?;
        *leases = next;
        Ok(())
    }

    /// The switch the horde is on.
    fn switch(&self) -> Option<&WantedSwitch> {
        self.wanted?.switch.as_ref()
    }

    /// Claims an address and binds its ports once; a new claim is let go where they are taken.
    fn probe(&self, host: Ipv4Addr, (tcp, udp): (u16, u16)) -> io::Result<(u16, u16)> {
        let new = self.local.claim(self.horde, host)?;
        let probed = self.local.ground().probe(host, tcp, udp);
        if probed.is_err() && new {
            self.local.claims().release(self.horde, host);
        }
        probed
    }

    /// Allots storage; others than us must be able to write in it where containers have users of their own.
    pub(super) fn allot(&self, one: &Allotment) -> Result<(), Error> {
        let users = self.wanted.and_then(|wanted| wanted.user_range_start);
        let mode = users.map_or(0o700, |_| 0o1777);
        storage::allot(&self.local.settings().home, one, mode).map_err(|error| error.of(one))
    }

    pub(super) fn taken(&self, own: &[Lease]) -> Result<BTreeSet<Ipv4Addr>, Error> {
        let home = &self.local.settings().home;
        let mut taken = address::leased_elsewhere(home, self.horde.as_str())
            .map_err(io_at("read leased addresses", &home.hordes()))?;
        taken.extend(own.iter().map(|lease| lease.host));
        // Whoever ran them may have ended, and what it ran in the background may listen later.
        taken.extend(myriad::addresses(home)?);
        let base = self
            .base
            .address
            .as_ref()
            .and_then(|base| base.host.parse().ok());
        taken.extend::<Option<Ipv4Addr>>(base);
        Ok(taken)
    }

    pub(super) async fn number(
        &self,
        cells: &[(u32, u32)],
        forwards: &[(Door, u32)],
    ) -> Result<(), Error> {
        let Some(wanted) = self.wanted else {
            return Ok(());
        };
        let now = self.local.ground().unix_ms();
        let found = match cells {
            [] => BTreeSet::new(),
            _ => self.local.found(),
        };
        self.change(|record| {
            for &(ordinal, attempt) in cells {
                let replaces = record.cell_label(ordinal).map(|label| label.execution());
                let rnode = wanted.rnodes.iter().find(|rnode| rnode.ordinal == ordinal);
                let Some(rnode) = rnode else { continue };
                let left = record
                    .containers
                    .get(&ordinal)
                    .map(|held| held.server.clone());
                let left = left.filter(|left| *left != rnode.server);
                if let Some(maintenance) = left.and_then(|left| record.maintenance.get_mut(&left)) {
                    maintenance.moved += 1;
                    maintenance.last_unix_ms = now;
                }
                let tagging = rnode.tagging.clone().and(&found);
                let container = ContainerRecord {
                    role: rnode.role.clone(),
                    server: rnode.server.clone(),
                    tags: rnode.tags(&tagging),
                    tagging,
                    generation: wanted.generation,
                    attempt,
                    replaces,
                    announced: false,
                    ending: false,
                    buried: false,
                };
                record.containers.insert(ordinal, container);
            }
            for (door, attempt) in forwards {
                let forward = ForwardRecord {
                    door: door.clone(),
                    generation: wanted.generation,
                    attempt: *attempt,
                };
                record.forwards.insert(door.at(), forward);
            }
        })
        .await
    }

    pub(super) async fn prepare(&self, ordinal: u32) -> Result<(), Error> {
        let home = &self.local.settings().home;
        let label = rnode_label(ordinal);
        let directory = home.rnode(self.horde.as_str(), &label);
        durable::create_dir(&directory).map_err(io_at("make a rnode's directory", &directory))?;
        // The horde may have been made larger again before it was gone.
        let leaving = directory.join(LEAVING);
        durable::remove_file(&leaving).map_err(io_at("unmark a rnode", &leaving))?;
        self.settle_address(ordinal).await?;
        self.write_names().await?;
        if let Some(command) = self.command_file(ordinal).await {
            self.check_program(&command)?;
            self.make_groups(ordinal, &label)?;
            drop(std::fs::remove_file(directory.join(config::FILE)));
            let written = command.write(&directory);
            return written.map_err(io_at("write a command's configuration", &directory));
        }
        drop(std::fs::remove_file(directory.join(command::FILE)));
        let file = self.rnode_file(ordinal).await?;
        file.write(&directory)
            .map_err(io_at("write a rnode's configuration", &directory))?;
        let invitation = directory.join(INVITATION);
        // An empty one is what a machine that went down may have left.
        let held = std::fs::metadata(&invitation).is_ok_and(|held| held.len() > 0);
        if held || directory.join(ENROLLED).exists() {
            return Ok(());
        }
        let text = self
            .local
            .base()
            .invite(self.horde.as_str(), &label)
            .await?;
        durable::replace_unsynced(&invitation, text.as_bytes())
            .map_err(io_at("write a rnode's invitation", &invitation))
    }

    /// Makes the control groups that keep the container's limits.
    fn make_groups(&self, ordinal: u32, label: &str) -> Result<(), Error> {
        let rnodes = self.wanted.map_or(&[][..], |wanted| &wanted.rnodes);
        let rnode = rnodes.iter().find(|rnode| rnode.ordinal == ordinal);
        for group in rnode.iter().flat_map(|rnode| &rnode.groups) {
            let made = group.make();
            made.map_err(|error| {
                io_at("limit a container", &group.path)(error).with("container", label)
            })?;
        }
        Ok(())
    }

    /// Refuses a program that is named by its path and is not there: no cell need be started to find that out.
    fn check_program(&self, command: &CommandFile) -> Result<(), Error> {
        let program = Path::new(&command.argv[0]);
        let mounted = |mount: &RnodeMount| program.starts_with(&mount.target);
        let unseen = !program.is_absolute() || command.mounts.iter().any(mounted);
        if unseen || self.local.ground().exists(program) {
            return Ok(());
        }
        let message = format!("{} does not exist on this machine", program.display());
        let error = Error::new(Kind::NotFound, "prepare a command", message);
        Err(error.with("container", &command.label))
    }

    /// What the container's command is started with; `None` for a rnode.
    async fn command_file(&self, ordinal: u32) -> Option<CommandFile> {
        let wanted = self.wanted?;
        let rnode = wanted
            .rnodes
            .iter()
            .find(|rnode| rnode.ordinal == ordinal)?;
        let tags = rnode.tags(&self.numbered_tagging(ordinal).await?);
        let leases = self.leases.lock().await;
        let lease = leases.iter().find(|lease| lease.ordinal == ordinal)?;
        CommandFile::of(rnode, &tags, wanted, lease.host)
    }

    /// What was said of its server, and found, when the rnode got the number it is started under.
    async fn numbered_tagging(&self, ordinal: u32) -> Option<Tagging> {
        let record = self.record.lock().await;
        let held = record.as_ref()?.containers.get(&ordinal)?;
        Some(held.tagging.clone())
    }

    /// Keeps the rnode's address if its ports are free, else leases another.
    pub(super) async fn settle_address(&self, ordinal: u32) -> Result<(), Error> {
        let held = self
            .leases
            .lock()
            .await
            .iter()
            .find(|lease| lease.ordinal == ordinal)
            .cloned();
        let Some(lease) = held else {
            return self.lease(&[ordinal]).await;
        };
        if let Some(switch) = self.switch() {
            // Nobody else can have it: the switch is the horde's, or the number is.
            return match lease == on_switch(switch.on, ordinal)? {
                true => Ok(()),
                false => {
                    self.local.claims().release(self.horde, lease.host);
                    self.lease(&[ordinal]).await
                }
            };
        }
        for _ in 0..PROBES_MAX {
            let probed = self.probe(lease.host, (lease.tcp_port, lease.flock_port));
            if probed.is_ok() {
                return Ok(());
            }
            // What was just ended may hold its ports for a moment.
            tokio::time::sleep(END_POLL).await;
        }
        self.leases
            .lock()
            .await
            .retain(|lease| lease.ordinal != ordinal);
        self.local.claims().release(self.horde, lease.host);
        self.lease(&[ordinal]).await
    }

    pub(super) async fn rnode_file(&self, ordinal: u32) -> Result<RnodeFile, Error> {
        let settings = self.local.settings();
        let (home, namespace) = (&settings.home, self.horde.as_str());
        let label = rnode_label(ordinal);
        let missing = |what: &str| {
            Error::new(Kind::Bug, "configure a rnode", format!("{what} is missing"))
                .with("rnode", &label)
        };
        let wanted = self.wanted.ok_or_else(|| missing("what is wanted"))?;
        let rnode = wanted.rnodes.iter().find(|rnode| rnode.ordinal == ordinal);
        let rnode = rnode.ok_or_else(|| missing("the rnode"))?;
        let tagging = self.numbered_tagging(ordinal).await;
        let tagging = tagging.ok_or_else(|| missing("its number"))?;
        let leases = self.leases.lock().await;
        let of = |ordinal| leases.iter().find(|lease| lease.ordinal == ordinal);
        let lease = of(ordinal).ok_or_else(|| missing("its address"))?;
        // Told no more than one hint: the next one, round in a ring.
        let count = u32::try_from(wanted.rnodes.len()).unwrap_or(u32::MAX);
        let next = ordinal % count + 1;
        let hint = of(next).filter(|_| next != ordinal);
        Ok(RnodeFile {
            namespace: namespace.to_owned(),
            host: lease.host,
            tcp_port: lease.tcp_port,
            flock_port: lease.flock_port,
            hints: hint
                .map(|hint| format!("{}:{}", hint.host, hint.flock_port))
                .into_iter()
                .collect(),
            base: self.base.address.clone(),
            memoir_dir: home.memoir(namespace, &label),
            store_dir: home.rnode(namespace, &label).join("store"),
            executable: settings.executable.clone(),
            mounts: rnode.mounts.clone(),
            isolation: wanted.isolation,
            user_range_start: rnode_users(wanted, ordinal),
            tags: rnode.tags(&tagging),
            quota_bytes: wanted.quota_bytes,
            label,
        })
    }

    pub(super) async fn start_cell(&self, ordinal: u32) -> Result<(), Error> {
        let name = rnode_label(ordinal);
        let label = self
            .record
            .lock()
            .await
            .as_ref()
            .and_then(|record| record.cell_label(ordinal));
        let label = label.ok_or_else(|| {
            Error::new(Kind::Bug, "start a cell", "it has no number").with("rnode", &name)
        })?;
        let directory = self.local.settings().home.rnode(self.horde.as_str(), &name);
        let rnode = self
            .wanted
            .and_then(|wanted| wanted.rnodes.iter().find(|r| r.ordinal == ordinal));
        let mut env = rnode.map_or_else(Vec::new, |rnode| rnode.env.clone());
        let mark = mark::rnode_mark(self.horde.as_str(), &name, &self.base.owner);
        env.push((mark::RNODE_MARK.to_owned(), mark));
        let order = self.local.settings().order.variable();
        env.extend(order.map(|(name, seed)| (name.to_owned(), seed)));
        let args = vec![
            "cell".to_owned(),
            "--dir".to_owned(),
            directory.display().to_string(),
        ];
        self.local.base().start(Start { label, args, env }).await
    }

    pub(super) async fn start_forward(&self, door: &Door) -> Result<(), Error> {
        let record = self.record.lock().await;
        let label = record
            .as_ref()
            .and_then(|record| record.forward_label(door.at()));
        drop(record);
        let label =
            label.ok_or_else(|| Error::new(Kind::Bug, "open a port", "it has no number"))?;
        if let Way::OutOf(on, limit) = door.way {
            return self.start_uplink(label, on, limit).await;
        }
        if let Way::Names(on) = door.way {
            return self.start_names(label, on).await;
        }
        let leases = self.local.settings().home.addresses(self.horde.as_str());
        // Where a class is meant its agents tell who is ready; every member is known from its lease.
        let members = match door.class.is_empty() {
            true => vec![("--leases", leases.display().to_string())],
            false => vec![
                ("--namespace", self.horde.to_string()),
                ("--class", door.class.clone()),
            ],
        };
        let switch = match door.way {
            Way::Into(on) => vec![("--switch", self.switch_dir(on))],
            Way::Here | Way::OutOf(..) | Way::Names(_) => Vec::new(),
        };
        let carries = (door.carries == Carries::Udp).then(|| UDP.to_owned());
        let words: Vec<String> = [
            ("--listen", door.listen.to_string()),
            ("--port", door.port.to_string()),
        ]
        .into_iter()
        .chain(members)
        .chain(switch)
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .chain(carries)
        .collect();
        let args = std::iter::once("forward".to_owned()).chain(words).collect();
        self.local
            .base()
            .start(Start {
                label,
                args,
                env: Vec::new(),
            })
            .await
    }

    fn switch_dir(&self, on: OnSwitch) -> String {
        let dir = on.dir(&self.local.settings().home, self.horde.as_str());
        dir.display().to_string()
    }

    async fn start_uplink(
        &self,
        label: Label,
        on: OnSwitch,
        limit: Option<u32>,
    ) -> Result<(), Error> {
        let mut args: Vec<String> = ["uplink", "--dir", &self.switch_dir(on), "--number"]
            .map(str::to_owned)
            .to_vec();
        args.push(on.number.to_string());
        args.extend(
            limit
                .into_iter()
                .flat_map(|limit| ["--limit".to_owned(), limit.to_string()]),
        );
        let env = Vec::new();
        self.local.base().start(Start { label, args, env }).await
    }

    async fn start_names(&self, label: Label, on: OnSwitch) -> Result<(), Error> {
        let home = self.local.settings().home.path().display().to_string();
        let number = on.number.to_string();
        let words = [
            "names",
            "--dir",
            &self.switch_dir(on),
            "--number",
            &number,
            "--home",
            &home,
            "--horde",
            self.horde.as_str(),
        ];
        let args = words.map(str::to_owned).to_vec();
        let env = Vec::new();
        self.local.base().start(Start { label, args, env }).await
    }

    /// Writes what the containers see as `/etc/hosts` and `/etc/resolv.conf`; in its place, since they have the file itself.
    pub(super) async fn write_names(&self) -> Result<(), Error> {
        let Some(wanted) = self.wanted else {
            return Ok(());
        };
        let home = &self.local.settings().home;
        let machine = |path| std::fs::read_to_string(path).unwrap_or_default();
        let resolver = home.resolver(self.horde.as_str());
        if let Some(switch) = wanted.switch.as_ref().filter(|_| shows(wanted, &resolver)) {
            let out = wanted
                .doors
                .iter()
                .any(|door| door.listen == switch.on.out());
            let machine = out.then(|| machine(RESOLVER));
            let text = resolver_text(machine.as_deref(), switch.on, &wanted.namespace);
            write_in_place(&resolver, &text)?;
        }
        let path = home.hosts(self.horde.as_str());
        if !shows(wanted, &path) {
            return Ok(());
        }
        let leases = self.leases.lock().await;
        write_in_place(&path, &hosts(&machine(HOSTS), wanted, &leases))
    }
}

/// Whether a container of `wanted` sees the file.
fn shows(wanted: &Wanted, file: &Path) -> bool {
    let mut rnodes = wanted.rnodes.iter();
    rnodes.any(|rnode| rnode.mounts.iter().any(|mount| mount.host == file))
}

/// Writes a file that containers see, unless it says so already.
fn write_in_place(path: &Path, text: &str) -> Result<(), Error> {
    let write = || {
        if std::fs::read_to_string(path).is_ok_and(|held| held == text) {
            return Ok(());
        }
        std::fs::write(path, text)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
    };
    write().map_err(io_at("write the names of the horde", path))
}

/// The text of `/etc/resolv.conf` for the members of a horde on a switch: who answers for its names is asked first,
/// then, where there is a way out, whoever this machine asks; over TCP, since nothing else goes out.
fn resolver_text(machine: Option<&str>, on: OnSwitch, horde: &str) -> String {
    let mut text = format!("nameserver {}\nsearch {horde}\n", on.names().ip());
    if let Some(machine) = machine {
        let servers = machine
            .lines()
            .filter(|line| line.starts_with("nameserver"));
        for server in servers {
            text.push_str(server);
            text.push('\n');
        }
        text.push_str("options use-vc\n");
    }
    text
}

/// The text of `/etc/hosts` for the members of a horde: the machine's own, then label, label and horde, role of each.
fn hosts(machine: &str, wanted: &Wanted, leases: &[Lease]) -> String {
    let mut text = machine.trim_end().to_owned();
    for rnode in &wanted.rnodes {
        let label = rnode_label(rnode.ordinal);
        let (horde, role) = (&wanted.namespace, &rnode.role);
        let lease = leases.iter().find(|lease| lease.ordinal == rnode.ordinal);
        if let Some(Lease { host, .. }) = lease {
            text.push_str(&format!("\n{host} {label} {label}.{horde} {role}"));
        }
    }
    text.push('\n');
    text
}

/// The lease of a member of a switch: its address follows from its ordinal.
fn on_switch(on: OnSwitch, ordinal: u32) -> Result<Lease, Error> {
    let host = on.address(ordinal).ok_or_else(|| {
        let message = "a switch has no more addresses for a horde";
        Error::new(Kind::Limit, "lease an address", message).with("rnode", rnode_label(ordinal))
    })?;
    Ok(Lease {
        ordinal,
        host,
        tcp_port: address::PORT,
        flock_port: address::PORT,
    })
}
