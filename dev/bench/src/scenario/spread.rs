//! `spread`: 64 MiB from one rnode to 16, each on a link of 200 Mbit/s both ways, beside a star without relays (F10).
//!
//! Real keepers and agents, one a network namespace, on a bridge; a `tbf` queue shapes what enters and what leaves
//! each namespace. Its burst is 512 KiB, 20 ms of the link: one of 64 KiB cuts the kernel's large packets up, and what is
//! measured then is how fast this machine does that. All of it lives in namespaces of this bench, and is gone with them.
//! Sessions with the sinks stand before the time is taken; hashing at the source is in it, as is the sync at every sink.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crux_net::files::{Reached, Thing, spread};
use crux_net::identity::{Expect, OwnerStore};
use crux_net::rpc;
use crux_net::store::Store;
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{CopyRequest, OfferReply, OfferRequest};
use fulcrum::config::{Executable, Isolation, RnodeConfig};

use super::files::{clear, noise, same, touch, write};
use crate::measure::median;
use crate::peer::{Running, folder};
use crate::radix::succeeded;
use crate::row::{Row, show};

const ROUNDS: usize = 3;
const BYTES: usize = 64 << 20;
const SINKS: usize = 16;
/// Tells the bench that it runs within the namespaces it asked for.
const INSIDE: &str = "RADIX_BENCH_INSIDE";
const NAMESPACE: &str = "spread";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// Brings up the bridge on which the rnodes hang. What `ip netns` keeps lies on a private /run.
const BRIDGE: &str = "mount -t tmpfs none /run && ip link set lo up && ip link add br0 type bridge \
     && ip addr add 10.77.0.254/24 dev br0 && ip link set br0 up";
/// One namespace: `$1` its number, `$2` its address.
const LINK: &str = "ip netns add r$1 && ip link add v$1 type veth peer name e0 netns r$1 \
     && ip link set v$1 master br0 up && ip -n r$1 addr add $2/24 dev e0 && ip -n r$1 link set e0 up \
     && ip -n r$1 link set lo up \
     && tc -n r$1 qdisc add dev e0 root tbf rate 200mbit burst 512kb latency 50ms \
     && tc qdisc add dev v$1 root tbf rate 200mbit burst 512kb latency 50ms";

pub(super) fn run() -> Result<Vec<Row>, String> {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        return runtime.block_on(inside());
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child"]);
        command.arg("--mount-proc").stdin(Stdio::null());
        command
    };
    let script = format!("{BRIDGE} && set 0 10.77.0.1 && {LINK}");
    let probe = unshare().args(["sh", "-c", &script]).output();
    let probe = probe.map_err(|error| error.to_string());
    if let Err(reason) = probe.and_then(|output| succeeded("unshare", output)) {
        let what = "64 MiB from 1 to 16 rnodes at 200 Mbit/s (F10)";
        let bring = format!("root, network namespaces, iproute2 with tbf: {reason}");
        return Ok(vec![Row::missing(what, "–".to_owned(), "a star", &bring)]);
    }
    let bench = std::env::current_exe().map_err(|error| error.to_string())?;
    let status = unshare().arg(bench).arg("spread").env(INSIDE, "1").status();
    match status.map_err(|error| error.to_string())? {
        // It has printed its rows.
        status if status.success() => Ok(Vec::new()),
        status => Err(format!("within its namespaces: {status}")),
    }
}

async fn inside() -> Result<Vec<Row>, String> {
    let mut field = Field::start().await?;
    let all: Vec<usize> = (1..=SINKS).collect();
    let (mut one, mut many, mut killed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        one.push(field.spread(&all[..1], None).await?);
        many.push(field.spread(&all, None).await?);
        let relay = SINKS * round / (ROUNDS + 1);
        killed.push(field.spread(&all, Some(relay)).await?);
        field.rnodes[relay].start()?;
        field.reach(relay).await?;
    }
    let star = field.star(&all).await?;
    eprintln!("one {one:?}, many {many:?}, killed {killed:?}");
    let (one, many, killed) = (median(one), median(many), median(killed));
    let ratio = many.as_secs_f64() / one.as_secs_f64();
    let what = "64 MiB from 1 to 16 rnodes, each at 200 Mbit/s both ways";
    let more = show(killed.saturating_sub(many));
    Ok(vec![
        Row::alone("64 MiB from rnode to rnode at 200 Mbit/s", show(one)),
        Row::times(
            &format!("{what} ({ratio:.2} times one copy; F10)"),
            many,
            "a star, relays off",
            star,
        ),
        Row::alone(
            &format!("the same, a relay killed half-way: {more} more to the other 15 (F10)"),
            show(killed),
        ),
    ])
}

/// Rnode 0, which has the file, and the sinks.
struct Field {
    home: PathBuf,
    owner: OwnerStore,
    rnodes: Vec<Rnode>,
    /// Copies go to names of their own.
    copies: usize,
}

struct Rnode {
    number: usize,
    dir: PathBuf,
    mark: String,
    program: PathBuf,
    keeper: Option<Running>,
    reached: Option<Reached>,
}

impl Field {
    async fn start() -> Result<Self, String> {
        shell(BRIDGE, &[])?;
        let home = folder("spread")?;
        let owner = OwnerStore::open_or_create(&home).map_err(|error| error.to_string())?;
        let mut field = Self {
            home,
            owner,
            rnodes: Vec::new(),
            copies: 0,
        };
        for number in 0..=SINKS {
            shell(LINK, &[&number.to_string(), &address(number).to_string()])?;
            let mut rnode = field.rnode(number)?;
            rnode.start()?;
            field.rnodes.push(rnode);
        }
        for number in 0..=SINKS {
            field.reach(number).await?;
        }
        write(&field.rnodes[0].dir.join("files/large"), &noise(BYTES, 64))?;
        Ok(field)
    }

    /// Prepares a rnode that belongs to nobody else.
    fn rnode(&self, number: usize) -> Result<Rnode, String> {
        let failed = |error: &dyn std::fmt::Display| format!("rnode {number}: {error}");
        let radix = std::env::var_os("RADIX_BIN").ok_or("RADIX_BIN names no radix")?;
        let label = format!("n{number}");
        let dir = self.home.join(&label);
        let store = Store::open(self.home.join("store")).map_err(|error| failed(&error))?;
        let stored = store.put_file(Path::new(&radix));
        let digest = stored.map_err(|error| failed(&error))?.digest;
        let config = RnodeConfig {
            label: label.clone(),
            namespace: NAMESPACE.to_owned(),
            host: address(number),
            tcp_port: 0,
            flock_port: 0,
            hints: Vec::new(),
            base: None,
            memoir_dir: dir.join("memoir"),
            store_dir: dir.join("store"),
            executable: Executable {
                path: store.path(&digest),
                digest,
            },
            mounts: Vec::new(),
            isolation: Isolation::None,
            user_range_start: None,
            tags: Vec::new(),
            network: None,
            quota_bytes: None,
        };
        std::fs::create_dir_all(&config.memoir_dir).map_err(|error| failed(&error))?;
        config.save(&dir).map_err(|error| failed(&error))?;
        let namespace = NAMESPACE.parse().map_err(|error| failed(&error))?;
        let name = label.parse().map_err(|error| failed(&error))?;
        let invitation = self.owner.invite_named(&namespace, &name);
        let invitation = invitation.map_err(|error| failed(&error))?.encode();
        std::fs::write(dir.join("invitation"), invitation).map_err(|error| failed(&error))?;
        Ok(Rnode {
            number,
            mark: format!("{NAMESPACE}/{label}@bench"),
            dir,
            program: store.path(&digest),
            keeper: None,
            reached: None,
        })
    }

    /// Opens a session with a rnode as soon as it answers.
    async fn reach(&mut self, number: usize) -> Result<(), String> {
        let credentials = self.owner.credentials();
        let credentials = credentials.map_err(|error| error.to_string())?;
        let began = Instant::now();
        let (channel, address) = loop {
            let connected = match self.rnodes[number].contact() {
                Some(address) => rpc::connect(&address, &credentials, Expect::Owner)
                    .await
                    .map(|channel| (channel, address))
                    .map_err(|error| error.to_string()),
                None => Err("it tells no address".to_owned()),
            };
            match connected {
                Ok(connected) => break connected,
                Err(reason) if began.elapsed() > PATIENCE => {
                    return Err(format!("rnode {number} does not come up: {reason}"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        self.rnodes[number].reached = Some(Reached {
            files: FileIoClient::new(channel),
            address,
        });
        Ok(())
    }

    fn reached(&self, number: usize) -> Result<Reached, String> {
        let reached = self.rnodes[number].reached.clone();
        reached.ok_or_else(|| format!("rnode {number} is not reached"))
    }

    /// Copies to these sinks; one of them may die half-way. How long until the others have it.
    async fn spread(&mut self, to: &[usize], dies: Option<usize>) -> Result<Duration, String> {
        let (path, source) = self.begin(to)?;
        let mut sinks = Vec::new();
        for number in to {
            // They begin in the order in which they answer, which is about that of their numbers.
            sinks.push((format!("{number:02}"), self.reached(*number)?));
        }
        let others = to.iter().filter(|number| Some(**number) != dies);
        let wanted: Vec<PathBuf> = others
            .map(|number| self.rnodes[*number].place(&path))
            .collect();
        let began = Instant::now();
        let offered = offer(&source).await?;
        let thing = Thing {
            source: &source.address,
            ticket: &offered.ticket,
            manifest: &offered.manifest,
            bytes: offered.bytes,
            path: &path,
        };
        let copying = spread(&thing, sinks.len(), tokio_stream::iter(sinks), &|_| {});
        let took = match dies {
            None => {
                let outcomes = copying.await;
                for (sink, outcome) in outcomes {
                    outcome.map_err(|status| format!("rnode {sink}: {status}"))?;
                }
                began.elapsed()
            }
            Some(relay) => {
                let rnode = &mut self.rnodes[relay];
                let dying = async {
                    rnode.half_way(&path).await?;
                    rnode.kill()?;
                    rnode.is_half_way(&path)?;
                    all_there(&wanted).await
                };
                // Whoever dies decides, so that no copy counts that ended before.
                let beside = async {
                    copying.await;
                    std::future::pending().await
                };
                tokio::select! {
                    there = dying => there?,
                    () = beside => {}
                }
                began.elapsed()
            }
        };
        self.check(&wanted)?;
        Ok(took)
    }

    /// Has each sink take it from the source, as if there were no relays.
    async fn star(&mut self, to: &[usize]) -> Result<Duration, String> {
        let (path, source) = self.begin(to)?;
        let wanted: Vec<PathBuf> = to.iter().map(|at| self.rnodes[*at].place(&path)).collect();
        let began = Instant::now();
        let offered = offer(&source).await?;
        let mut streams = Vec::new();
        for number in to {
            let request = CopyRequest {
                ticket: offered.ticket.clone(),
                sources: vec![source.address.clone()],
                path: path.clone(),
                ..CopyRequest::default()
            };
            let copied = self.reached(*number)?.files.copy(request).await;
            streams.push(copied.map_err(|status| status.to_string())?.into_inner());
        }
        for mut stream in streams {
            while let Some(progress) = stream
                .message()
                .await
                .map_err(|status| status.to_string())?
            {
                if progress.done {
                    break;
                }
            }
        }
        let took = began.elapsed();
        self.check(&wanted)?;
        Ok(took)
    }

    /// The next copy's name, with nothing of the one before left, and its source.
    fn begin(&mut self, to: &[usize]) -> Result<(String, Reached), String> {
        let before = format!("copy-{}", self.copies);
        for rnode in &self.rnodes {
            drop(std::fs::remove_file(rnode.place(&before)));
            drop(std::fs::remove_dir_all(
                rnode.dir.join("files/.radix-partial"),
            ));
        }
        // Also writes out what the copy before left to be written.
        clear(&self.home.join(before));
        self.copies += 1;
        let path = format!("copy-{}", self.copies);
        for rnode in &self.rnodes {
            rnode.is_fresh(&path)?;
        }
        touch(&self.rnodes[0].dir.join("files/large"))?;
        eprintln!("bench: copy {} to {}", self.copies, to.len());
        Ok((path, self.reached(0)?))
    }

    fn check(&self, copies: &[PathBuf]) -> Result<(), String> {
        let large = self.rnodes[0].dir.join("files/large");
        copies.iter().try_for_each(|copy| same(&large, copy))
    }
}

impl Rnode {
    fn start(&mut self) -> Result<(), String> {
        drop(std::fs::remove_file(self.dir.join("agent/contact")));
        let mut command = Command::new("ip");
        let namespace = format!("r{}", self.number);
        command
            .args(["netns", "exec", &namespace])
            .arg(&self.program);
        command.arg("keep").arg("--dir").arg(&self.dir);
        command.env("RADIX_RNODE", &self.mark).env_remove(INSIDE);
        self.keeper = Some(Running::start("radix keep", &mut command)?);
        Ok(())
    }

    /// Ends its keeper and its agent at once, as a crash of its machine would.
    fn kill(&mut self) -> Result<(), String> {
        let ended = fulcrum::mark::end_marked(&self.mark, PATIENCE);
        ended.map_err(|error| format!("{}: {error}", self.mark))?;
        self.keeper = None;
        Ok(())
    }

    fn contact(&self) -> Option<String> {
        let text = std::fs::read(self.dir.join("agent/contact")).ok()?;
        let contact: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(format!("{}:{}", contact["host"].as_str()?, contact["port"]))
    }

    fn place(&self, path: &str) -> PathBuf {
        self.dir.join("files").join(path)
    }

    /// Waits until half of the file is staged here.
    async fn half_way(&self, path: &str) -> Result<(), String> {
        wait(|| self.staged() >= BYTES as u64 / 2 || self.place(path).exists()).await
    }

    /// Refuses what would be no measurement: a relay that had all of it to give when it died.
    fn is_half_way(&self, path: &str) -> Result<(), String> {
        let staged = self.staged();
        if self.place(path).exists() || !(BYTES as u64 / 2..BYTES as u64).contains(&staged) {
            let number = self.number;
            return Err(format!(
                "rnode {number} was not half-way when it died: {staged} bytes"
            ));
        }
        Ok(())
    }

    /// Refuses a rnode that has something of what it is about to get.
    fn is_fresh(&self, path: &str) -> Result<(), String> {
        let staging = self.dir.join("files/.radix-partial");
        if self.place(path).exists() || staging.exists() {
            return Err(format!(
                "rnode {} has something of {path} already",
                self.number
            ));
        }
        Ok(())
    }

    /// Bytes of the longest file that is staged here.
    fn staged(&self) -> u64 {
        let staging = std::fs::read_dir(self.dir.join("files/.radix-partial"));
        let staged = staging.into_iter().flatten().flatten();
        let lengths = staged.filter_map(|entry| Some(entry.metadata().ok()?.len()));
        lengths.max().unwrap_or(0)
    }
}

async fn offer(source: &Reached) -> Result<OfferReply, String> {
    let path = "large".to_owned();
    let offered = source.files.clone().offer(OfferRequest { path }).await;
    offered
        .map(tonic::Response::into_inner)
        .map_err(|status| status.to_string())
}

async fn all_there(wanted: &[PathBuf]) -> Result<(), String> {
    wait(|| wanted.iter().all(|path| path.exists())).await
}

async fn wait(mut for_what: impl FnMut() -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !for_what() {
        if began.elapsed() > PATIENCE {
            return Err("it does not come about".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn address(number: usize) -> IpAddr {
    let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
    IpAddr::from(Ipv4Addr::new(10, 77, 0, last))
}

fn shell(script: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(words)
        .output();
    succeeded("sh", output.map_err(|error| error.to_string())?).map(drop)
}
