//! A base rnode and a machine in memory, with faults on request.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use crux_wire::document::v1::Document;
use crux_wire::fulcrum::v1::{Event, HordeState};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;
use underverse::{
    ByteCount, Effect, End, Error, ExecableBuilder, Generation, Horde, HordeName, HordeSpec, Kind,
    Strength, Tag, Underverse as _, finish,
};
use underverse_local::limits::Machine;
use underverse_local::{
    Abilities, Base, BaseView, Carries, Claim, EndSignal, Ended, Executable, ExecutionView, Ground,
    Home, HostPort, Isolation, Local, ProbeAsk, ProbeFound, Settings, Start, Subject,
    VirtualServer,
};

/// A directory that goes away with the test.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "underverse-local-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        // In memory where there is such a place: what is tested here is order, not the disk.
        let in_memory = std::path::Path::new("/dev/shm").join(&name);
        if std::fs::create_dir(&in_memory).is_ok() {
            return Self(in_memory);
        }
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Every path below, sorted.
    pub(crate) fn inventory(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut left = vec![self.0.clone()];
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    left.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        found
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and does nothing.
    Refuse,
    /// It is carried out and its answer is lost.
    LoseAnswer,
    /// It never returns, and does nothing.
    HangBefore,
    /// It is carried out and never returns.
    HangAfter,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) executions: Vec<ExecutionView>,
    pub(crate) starts: Vec<Start>,
    /// Calls that change something.
    pub(crate) mutations: u32,
    /// All calls.
    pub(crate) calls: u32,
    /// What happens to the call with this number, from 1.
    pub(crate) faults: BTreeMap<u32, Fault>,
    /// Labels whose start is refused.
    pub(crate) refused: BTreeSet<String>,
    /// Executions that do not heed being asked.
    pub(crate) stubborn: bool,
    pub(crate) reports: Vec<HordeState>,
    pub(crate) events: Vec<Event>,
    pub(crate) away: bool,
    clock: u64,
}

/// A base rnode in memory.
#[derive(Debug)]
pub(crate) struct FakeBase {
    table: Mutex<Table>,
    documents: watch::Sender<Vec<Document>>,
    /// Rings at each hang.
    pub(crate) hung: watch::Sender<u32>,
    /// Rings when a cell is killed.
    ended: watch::Sender<u32>,
    /// Rings at each report.
    pub(crate) reported: watch::Sender<u32>,
}

impl FakeBase {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            documents: watch::channel(Vec::new()).0,
            hung: watch::channel(0).0,
            reported: watch::channel(0).0,
            ended: watch::channel(0).0,
        })
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// The cells that run, by ordinal; a repeated one shows.
    pub(crate) fn cells(&self) -> Vec<u32> {
        let table = self.table();
        let running = table.executions.iter().filter(|view| view.ended.is_none());
        let mut cells: Vec<u32> = running
            .filter_map(|view| match view.label.subject {
                Subject::Cell { ordinal } => Some(ordinal),
                Subject::Forward { .. } => None,
            })
            .collect();
        cells.sort_unstable();
        cells
    }

    pub(crate) fn forwards(&self) -> Vec<SocketAddr> {
        let table = self.table();
        let running = table.executions.iter().filter(|view| view.ended.is_none());
        running
            .filter_map(|view| match view.label.subject {
                Subject::Forward { listen, .. } => Some(listen),
                Subject::Cell { .. } => None,
            })
            .collect()
    }

    /// Ends the running cell with `ordinal` as a kill would; returns its execution.
    pub(crate) fn kill(&self, ordinal: u32) -> String {
        let mut table = self.table();
        let now = table.tick();
        let cell = table
            .executions
            .iter_mut()
            .find(|view| view.ended.is_none() && view.label.subject == Subject::Cell { ordinal });
        let cell = cell.expect("a running cell");
        cell.ended = Some(Ended {
            how: "was ended by signal 9".to_owned(),
            unix_ms: now,
        });
        self.ended.send_modify(|count| *count += 1);
        cell.id.clone()
    }

    pub(crate) fn announce(&self, document: Document) {
        self.documents.send_modify(|held| {
            held.retain(|other| other.namespace != document.namespace);
            held.push(document);
        });
    }

    /// Counts the call and finds what happens to it.
    fn call(&self, mutates: bool) -> Option<Fault> {
        let mut table = self.table();
        table.calls += 1;
        table.mutations += u32::from(mutates);
        let number = table.calls;
        let away = table.away.then_some(Fault::Refuse);
        table.faults.get(&number).copied().or(away)
    }

    async fn carry_out<T>(
        &self,
        mutates: bool,
        act: impl FnOnce(&mut Table) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let fault = self.call(mutates);
        // Nobody is answered at once, so that who asks at the same time is heard in between.
        tokio::task::yield_now().await;
        let unavailable =
            |effect| Error::new(Kind::Unavailable, "call the base", "it is away").effect(effect);
        match fault {
            None => act(&mut self.table()),
            Some(Fault::Refuse) => Err(unavailable(Effect::None)),
            Some(Fault::LoseAnswer) => {
                act(&mut self.table())?;
                Err(unavailable(Effect::Unknown))
            }
            Some(Fault::HangBefore) => {
                self.hung.send_modify(|count| *count += 1);
                pending().await
            }
            Some(Fault::HangAfter) => {
                act(&mut self.table())?;
                self.hung.send_modify(|count| *count += 1);
                pending().await
            }
        }
    }
}

impl Table {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[async_trait]
impl Base for FakeBase {
    fn abilities(&self) -> Abilities {
        Abilities {
            fulcrums: Strength::Enforced,
            commands: Strength::Absent("signed commands only".to_owned()),
            class_doors: Strength::Enforced,
        }
    }

    async fn forget(&self, _namespace: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn describe(&self) -> Result<BaseView, Error> {
        let view = BaseView {
            owner: "0123456789abcdef".to_owned(),
            address: Some(HostPort {
                host: "127.64.0.1".to_owned(),
                port: 7400,
            }),
        };
        self.carry_out(false, |_| Ok(view)).await
    }

    async fn start(&self, start: Start) -> Result<(), Error> {
        let act = move |table: &mut Table| {
            let id = start.label.execution();
            if table.refused.iter().any(|part| id.contains(part)) {
                return Err(Error::new(
                    Kind::Denied,
                    "start an execution",
                    "not allowed",
                ));
            }
            if table.executions.iter().all(|view| view.id != id) {
                let now = table.tick();
                table.executions.push(ExecutionView {
                    id,
                    label: start.label.clone(),
                    pid: i32::try_from(1000 + now).unwrap(),
                    started_unix_ms: now,
                    linked: true,
                    ended: None,
                });
                table.starts.push(start);
            }
            Ok(())
        };
        self.carry_out(true, act).await
    }

    async fn list(&self, of: Option<&str>) -> Result<Vec<ExecutionView>, Error> {
        let mut executions = self
            .carry_out(false, |table| Ok(table.executions.clone()))
            .await?;
        executions.retain(|view| of.is_none_or(|namespace| view.label.namespace == namespace));
        Ok(executions)
    }

    async fn until_ended(&self, executions: &[String]) {
        let mut changes = self.ended.subscribe();
        loop {
            let ended =
                |view: &ExecutionView| view.ended.is_some() && executions.contains(&view.id);
            if self.table().away || self.table().executions.iter().any(ended) {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn signal(&self, execution: &str, signal: EndSignal) -> Result<(), Error> {
        let act = move |table: &mut Table| {
            let heeds = !table.stubborn || signal == EndSignal::Force;
            let now = table.tick();
            let view = table
                .executions
                .iter_mut()
                .find(|view| view.id == execution);
            let Some(view) = view else {
                return Err(Error::new(Kind::NotFound, "signal", "no such execution"));
            };
            if heeds && view.ended.is_none() {
                view.ended = Some(Ended {
                    how: "exited with code 0".to_owned(),
                    unix_ms: now,
                });
            }
            Ok(())
        };
        self.carry_out(true, act).await
    }

    async fn invite(&self, namespace: &str, label: &str) -> Result<String, Error> {
        let text = format!("invitation {namespace}/{label}");
        self.carry_out(true, |_| Ok(text)).await
    }

    async fn documents(&self) -> Result<BoxStream<'static, Result<Document, Error>>, Error> {
        let receiver = self.documents.subscribe();
        self.carry_out(false, |_| Ok(())).await?;
        let all = stream::unfold((receiver, true), |(mut receiver, first)| async move {
            if !first {
                receiver.changed().await.ok()?;
            }
            let held = receiver.borrow_and_update().clone();
            Some((stream::iter(held.into_iter().map(Ok)), (receiver, false)))
        });
        Ok(all.flatten().boxed())
    }

    async fn report(&self, state: HordeState, events: Vec<Event>) -> Result<(), Error> {
        let act = |table: &mut Table| {
            table.reports.push(state);
            table.events.extend(events);
            Ok(())
        };
        self.carry_out(false, act).await?;
        self.reported.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// A machine in memory.
#[derive(Debug, Default)]
pub(crate) struct FakeGround {
    pub(crate) busy: Mutex<BTreeSet<Ipv4Addr>>,
    /// Addresses that another state directory has claimed.
    pub(crate) claimed: Mutex<BTreeSet<Ipv4Addr>>,
    pub(crate) closed: Mutex<BTreeSet<SocketAddr>>,
    pub(crate) missing: Mutex<BTreeSet<PathBuf>>,
    pub(crate) swept: Mutex<Vec<String>>,
    /// What is found when a network is tried; `None`: it cannot be.
    pub(crate) found: Mutex<Option<ProbeFound>>,
    /// What was tried.
    pub(crate) asked: Mutex<Vec<ProbeAsk>>,
    pub(crate) uid: AtomicU32,
    pub(crate) clock: AtomicU64,
    pub(crate) boot: Mutex<String>,
    /// Memory that can be had; `None`: plenty.
    pub(crate) memory: Mutex<Option<ByteCount>>,
}

#[async_trait]
impl Ground for FakeGround {
    fn probe(&self, host: Ipv4Addr, tcp_port: u16, flock_port: u16) -> io::Result<(u16, u16)> {
        match self.busy.lock().unwrap().contains(&host) {
            true => Err(io::ErrorKind::AddrInUse.into()),
            false => Ok((tcp_port, flock_port)),
        }
    }

    fn claim(&self, host: Ipv4Addr) -> io::Result<Claim> {
        match self.claimed.lock().unwrap().contains(&host) {
            true => Err(io::ErrorKind::AddrInUse.into()),
            false => Ok(Claim::new(())),
        }
    }

    fn can_listen(&self, address: SocketAddr, _: Carries) -> io::Result<()> {
        match self.closed.lock().unwrap().contains(&address) {
            true => Err(io::ErrorKind::AddrInUse.into()),
            false => Ok(()),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        !self.missing.lock().unwrap().contains(path)
    }

    async fn sweep(&self, mark: String) -> io::Result<()> {
        self.swept.lock().unwrap().push(mark);
        Ok(())
    }

    async fn try_network(&self, ask: ProbeAsk) -> io::Result<ProbeFound> {
        self.asked.lock().unwrap().push(ask);
        let found = *self.found.lock().unwrap();
        found.ok_or_else(|| io::Error::other("the members are not there"))
    }

    fn keeper_of(&self, cell: i32) -> i32 {
        cell + 1
    }

    fn machine(&self) -> Machine {
        Machine {
            cpus: 2,
            memory: ByteCount::mebibytes(24 << 10),
            memory_available: self
                .memory
                .lock()
                .unwrap()
                .unwrap_or(ByteCount::mebibytes(20 << 10)),
            tasks_max: 32_768,
            tasks: 300,
        }
    }

    fn unix_ms(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn boot(&self) -> String {
        format!("boot {}", self.boot.lock().unwrap())
    }

    fn uid(&self) -> u32 {
        self.uid.load(Ordering::Relaxed)
    }
}

/// A home, a base and a machine: what outlives a backend process.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scratch: Scratch,
    pub(crate) base: Arc<FakeBase>,
    pub(crate) ground: Arc<FakeGround>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            scratch: Scratch::new(),
            base: FakeBase::new(),
            ground: Arc::default(),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        let executable = Executable {
            path: "/store/radix".into(),
            digest: "ab".repeat(32),
        };
        let home = Home::new(self.scratch.path());
        Settings {
            cell_grace: Duration::from_millis(200),
            machine_root: self.scratch.path().join("machine"),
            ..Settings::new(home, executable, Isolation::PidMount)
        }
    }

    /// A new backend process.
    pub(crate) fn local(&self) -> Local {
        self.local_with(self.settings())
    }

    pub(crate) fn local_with(&self, settings: Settings) -> Local {
        let base: Arc<FakeBase> = Arc::clone(&self.base);
        let ground: Arc<FakeGround> = Arc::clone(&self.ground);
        Local::new(settings, base, ground)
    }

    pub(crate) fn file(&self, path: &str) -> String {
        std::fs::read_to_string(self.scratch.path().join(path)).unwrap()
    }

    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.file(path)).unwrap()
    }
}

pub(crate) fn name() -> HordeName {
    HordeName::new("stix").unwrap()
}

/// A horde of `count` rnodes.
pub(crate) fn spec(count: u32) -> HordeSpec {
    let rnode = ExecableBuilder::fulcrum("rnode")
        .unwrap()
        .count(count)
        .build();
    Horde::new("stix")
        .unwrap()
        .execables([rnode])
        .spec()
        .unwrap()
        .clone()
}

pub(crate) fn generation(document: u64) -> Generation {
    Generation::of_document(document)
}

/// Time enough for every pass here.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) async fn realise(local: &Local, number: u64, spec: &HordeSpec) -> End {
    finish(local.realise(generation(number), spec, DEADLINE)).await
}

pub(crate) async fn realised(local: &Local, number: u64, spec: &HordeSpec) {
    let end = realise(local, number, spec).await;
    assert!(end.is_done(), "{end:?}");
}

#[track_caller]
pub(crate) fn refusal(end: End) -> Error {
    match end {
        End::Refused(error) => error,
        other => panic!("should be refused: {other:?}"),
    }
}

pub(crate) fn server(name: &str, tags: &[&str]) -> VirtualServer {
    let tags = tags.iter().map(|tag| Tag::new(*tag).unwrap()).collect();
    VirtualServer {
        name: name.to_owned(),
        tags,
    }
}
