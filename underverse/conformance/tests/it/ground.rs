//! The ground below the model: its world, looked at and disturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use underverse::{HordeName, Program, Protocol, Running, StorageExposure, StorageKind, Zone};
use underverse_conformance::{
    Cannot, Disturbance, Fixture, Ground, Opened, Resolved, Take, Vantage,
};

use crate::model::{Container, Model, Rec, World};

/// The model, sound or with one fault; `lean`: with something absent and something weak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelFixture {
    pub(crate) fault: &'static str,
    pub(crate) lean: bool,
}

#[derive(Debug)]
struct ModelGround {
    fixture: ModelFixture,
    world: Arc<Mutex<World>>,
    gate: Arc<tokio::sync::Mutex<()>>,
    processes: AtomicU64,
}

#[async_trait]
impl Fixture for ModelFixture {
    fn name(&self) -> String {
        "model".to_owned()
    }

    async fn ground(&self, _label: &str) -> Result<Box<dyn Ground>, Cannot> {
        Ok(Box::new(ModelGround {
            fixture: *self,
            world: Arc::default(),
            gate: Arc::default(),
            processes: AtomicU64::new(0),
        }))
    }

    fn listener(&self, _port: u16) -> Option<Program> {
        Some(Program::Command(vec!["listen".to_owned()]))
    }

    fn taker(&self, _port: u16, what: Take) -> Option<Program> {
        let words = match what {
            Take::Memory(bytes) => ["take".to_owned(), "memory".to_owned(), bytes.to_string()],
            Take::Processes(count) => {
                ["take".to_owned(), "processes".to_owned(), count.to_string()]
            }
            Take::Cpu(_) => ["take".to_owned(), "cpu".to_owned(), "1000".to_owned()],
        };
        Some(Program::Command(words.to_vec()))
    }
}

impl ModelGround {
    fn model(&self) -> Model {
        Model {
            world: Arc::clone(&self.world),
            fault: self.fixture.fault,
            lean: self.fixture.lean,
            process: self.processes.load(Ordering::Relaxed),
            gate: Arc::clone(&self.gate),
        }
    }

    fn find(world: &World, id: &str) -> Result<(HordeName, u32, Container), Cannot> {
        for (name, rec) in &world.hordes {
            if let Some((ordinal, one)) = rec.containers.iter().find(|(_, one)| one.id == id) {
                return Ok((name.clone(), *ordinal, one.clone()));
            }
        }
        Err(Cannot::Failed(format!("there is no {id}")))
    }

    /// The storage that a container sees at `/data`.
    fn key(world: &World, id: &str) -> Result<(HordeName, String), Cannot> {
        let (name, ordinal, _) = Self::find(world, id)?;
        let mine = format!("@n{ordinal}");
        let keys = world
            .allotted
            .keys()
            .filter(|(horde, key)| *horde == name && (key.ends_with(&mine) || !key.contains('@')));
        keys.into_iter()
            .next()
            .cloned()
            .ok_or_else(|| Cannot::Failed("nothing is mounted".to_owned()))
    }
}

fn answer(one: &Container, ordinal: u32) -> Option<String> {
    let listens = one
        .made
        .program
        .words()
        .first()
        .is_some_and(|word| word == "listen");
    (one.started && one.dead.is_none() && listens).then(|| format!("n{ordinal}"))
}

/// What a program that takes got, against the limits it was made with or against none.
fn took(one: &Container, unlimited: bool) -> Option<String> {
    let [verb, kind, wanted] = one.made.program.words() else {
        return None;
    };
    let limits = one.made.limits;
    let limit = match kind.as_str() {
        "memory" => limits.memory.map(|_| 0),
        "processes" => limits.processes.map(u64::from),
        _ => limits.cpu_thousandths.map(u64::from),
    };
    let wanted: u64 = wanted.parse().ok()?;
    let got = limit.filter(|_| !unlimited).unwrap_or(wanted).min(wanted);
    (verb == "take").then(|| got.to_string())
}

impl ModelGround {
    fn through_door(&self, world: &mut World, to: (SocketAddr, Protocol)) -> Option<String> {
        let rec: Rec = world
            .hordes
            .values()
            .find(|rec| rec.doors.contains_key(&to))?
            .clone();
        let fault = self.fixture.fault;
        let private = rec
            .asked
            .as_ref()
            .is_some_and(|(_, spec)| spec.network.horde_private);
        if fault == "network.door-private" && private {
            return None;
        }
        let members: Vec<String> = rec
            .containers
            .iter()
            .filter_map(|(ordinal, one)| answer(one, *ordinal))
            .collect();
        world.turn += usize::from(fault != "network.door");
        let first_only = fault == "network.resized" && members.len() > 1;
        let at = if first_only {
            0
        } else {
            world.turn % members.len().max(1)
        };
        members.get(at).cloned()
    }

    fn direct(&self, world: &World, from: Option<&HordeName>, to: SocketAddr) -> Option<String> {
        let fault = self.fixture.fault;
        for (name, rec) in &world.hordes {
            for (ordinal, one) in &rec.containers {
                if SocketAddr::new(one.address.into(), to.port()) != to {
                    continue;
                }
                let network = &rec.asked.as_ref()?.1.network;
                let zone = match from {
                    Some(from) if from == name => Zone::Horde,
                    Some(_) => Zone::Flock,
                    None => Zone::Internet,
                };
                let both = network.horde_private && network.flock_private;
                let open = (fault == "network.horde-private" && network.horde_private)
                    || (fault == "network.flock-private" && network.flock_private)
                    || (fault == "network.private-wins" && both);
                let shut = (fault == "network.open" && zone != Zone::Horde)
                    || (fault == "network.connected" && *ordinal == 3);
                return if (network.admits(zone) || open) && !shut {
                    took(one, fault == "command.limits").or_else(|| answer(one, *ordinal))
                } else {
                    None
                };
            }
        }
        None
    }
}

#[async_trait]
impl Ground for ModelGround {
    async fn open(&self) -> Result<Opened, Cannot> {
        self.processes.fetch_add(1, Ordering::Relaxed);
        let model = Arc::new(self.model());
        Ok(Opened {
            underverse: model.clone(),
            admin: Some(model),
            process: None,
        })
    }

    async fn inventory(&self) -> Result<BTreeSet<String>, Cannot> {
        let world = self.model().world().hordes.clone();
        let mut found = BTreeSet::new();
        for (name, rec) in &world {
            found.insert(format!("horde {name}"));
            found.extend(rec.doors.keys().map(|door| format!("door {door:?}")));
            for one in rec.containers.values() {
                found.insert(format!("container {}", one.id));
                found.extend(
                    (one.started && one.dead.is_none()).then(|| format!("process {}", one.id)),
                );
            }
        }
        let world = self.world.lock().expect("nobody panics with it");
        found.extend(
            world
                .allotted
                .keys()
                .map(|(horde, key)| format!("storage {horde} {key}")),
        );
        found.extend((0..world.junk).map(|number| format!("junk {number}")));
        Ok(found)
    }

    async fn remove(&self, container: &Running) -> Result<(), Cannot> {
        let mut world = self.world.lock().expect("nobody panics with it");
        for rec in world.hordes.values_mut() {
            for one in rec
                .containers
                .values_mut()
                .filter(|one| one.id == container.id.as_str())
            {
                one.dead = Some("was ended by a signal".to_owned());
            }
        }
        Ok(())
    }

    async fn mutations(&self) -> Result<u64, Cannot> {
        Ok(self.model().world().calls)
    }

    async fn disturb(&self, disturbance: Disturbance) -> Result<(), Cannot> {
        let mut world = self.world.lock().expect("nobody panics with it");
        let from_now = match disturbance {
            Disturbance::None => 0,
            Disturbance::HangAt(number) | Disturbance::FailAt(number) => number,
        };
        world.disturb = (from_now > 0).then_some((world.calls + from_now, disturbance));
        world.hung = false;
        Ok(())
    }

    async fn hung(&self) {
        while !self.model().world().hung {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn exposure(&self, number: u32) -> Option<StorageExposure> {
        Some(StorageExposure {
            server: "east".to_owned(),
            source: format!("/store{number}"),
            bind: "dir".to_owned(),
            kind: StorageKind::FileTree,
            tags: BTreeSet::new(),
            thin: false,
        })
    }

    async fn write_inside(&self, at: &Running, path: &str, text: &str) -> Result<(), Cannot> {
        let mut world = self.world.lock().expect("nobody panics with it");
        let key = Self::key(&world, at.id.as_str())?;
        if let Some((_, _, files)) = world.allotted.get_mut(&key) {
            files.insert(path.to_owned(), text.to_owned());
        }
        Ok(())
    }

    async fn read_inside(&self, at: &Running, path: &str) -> Result<Option<String>, Cannot> {
        let world = self.world.lock().expect("nobody panics with it");
        if path == "/etc/hosts" {
            let (name, ..) = Self::find(&world, at.id.as_str())?;
            let rec = world.hordes.get(&name).cloned().unwrap_or_default();
            let all = rec
                .containers
                .iter()
                .skip(usize::from(self.fixture.fault == "network.names"));
            return Ok(Some(
                all.map(|(ordinal, one)| format!("{} n{ordinal}\n", one.address))
                    .collect(),
            ));
        }
        let key = Self::key(&world, at.id.as_str())?;
        Ok(world
            .allotted
            .get(&key)
            .and_then(|(_, _, files)| files.get(path).cloned()))
    }

    async fn environment(&self, of: &Running) -> Result<BTreeMap<String, String>, Cannot> {
        let world = self.world.lock().expect("nobody panics with it");
        let (name, ordinal, one) = Self::find(&world, of.id.as_str())?;
        let mut found = one.made.env.clone();
        let tags: Vec<&str> = one.tags.iter().map(underverse::Tag::as_str).collect();
        let facts = [
            ("RADIX_HORDE", name.to_string()),
            ("RADIX_NAME", format!("n{ordinal}")),
            ("RADIX_ROLE", one.made.role.to_string()),
            ("RADIX_ORDINAL", ordinal.to_string()),
            ("RADIX_SERVER", one.server.clone()),
            ("RADIX_TAGS", tags.join(" ")),
            ("RADIX_IP", one.address.to_string()),
        ];
        let told = facts
            .into_iter()
            .skip(usize::from(self.fixture.fault == "command.environment"));
        found.extend(told.map(|(name, value)| (name.to_owned(), value)));
        Ok(found)
    }

    async fn reach(&self, from: Vantage<'_>, to: SocketAddr) -> Result<Option<String>, Cannot> {
        let mut world = self.world.lock().expect("nobody panics with it");
        if let Some(answer) = self.through_door(&mut world, (to, Protocol::Tcp)) {
            return Ok(Some(answer));
        }
        let inside = match from {
            Vantage::Inside(one) => Some(Self::find(&world, one.id.as_str())?.0),
            Vantage::Outside => None,
        };
        if let (Some(name), true) = (&inside, to.ip().to_string().starts_with("203.0.113.")) {
            let limit = world
                .hordes
                .get(name)
                .and_then(|rec| rec.asked.as_ref())
                .and_then(|(_, spec)| spec.network.external_connections_max);
            let shut = limit == Some(0) && self.fixture.fault != "network.outbound-none"
                || self.fixture.fault == "network.outbound";
            return Ok((!shut).then(|| "internet".to_owned()));
        }
        Ok(self.direct(&world, inside.as_ref(), to))
    }

    async fn exchange(
        &self,
        _from: Vantage<'_>,
        to: SocketAddr,
        text: &str,
    ) -> Result<Option<String>, Cannot> {
        let mut world = self.world.lock().expect("nobody panics with it");
        let cut = usize::from(self.fixture.fault == "network.door-udp");
        let text = &text[..text.len() - cut];
        let label = self.through_door(&mut world, (to, Protocol::Udp));
        Ok(label.map(|label| format!("{label} {text}")))
    }

    async fn hold(&self, from: &[&Running], _to: SocketAddr) -> Result<u32, Cannot> {
        let world = self.world.lock().expect("nobody panics with it");
        let (name, ..) = Self::find(&world, from[0].id.as_str())?;
        let limit = world
            .hordes
            .get(&name)
            .and_then(|rec| rec.asked.as_ref())
            .and_then(|(_, spec)| spec.network.external_connections_max)
            .filter(|_| self.fixture.fault != "network.outbound-limit");
        Ok(limit.unwrap_or(u32::MAX).min(from.len() as u32))
    }

    async fn resolve(&self, from: &Running, name: &str) -> Result<Vec<Resolved>, Cannot> {
        let world = self.world.lock().expect("nobody panics with it");
        let (own, ..) = Self::find(&world, from.id.as_str())?;
        let (label, horde) = name.split_once('.').unwrap_or((name, own.as_str()));
        let rec = world.hordes.iter().find(|(name, _)| name.as_str() == horde);
        let members = rec.iter().flat_map(|(_, rec)| &rec.containers);
        let named = members.filter(|(ordinal, one)| {
            format!("n{ordinal}") == label || one.made.role.as_str() == label
        });
        // The faulty one still tells of members that left.
        let stale =
            (self.fixture.fault == "network.names-current").then_some(IpAddr::from([10, 9, 9, 9]));
        let keep = Duration::from_secs(1);
        Ok(named
            .map(|(_, one)| IpAddr::V4(one.address))
            .chain(stale)
            .map(|address| Resolved { address, keep })
            .collect())
    }

    fn internet(&self) -> Option<SocketAddr> {
        Some(SocketAddr::from(([203, 0, 113, 7], 80)))
    }

    fn other_addresses(&self) -> Vec<IpAddr> {
        vec![IpAddr::from([198, 51, 100, 200])]
    }
}
