//! The network of a horde of commands on `local`: who reaches whom, what goes out, and that the record says so.
//!
//! Nothing is sent off this machine: whoever is outside asks no router.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use std::io::{Read as _, Write as _};

use e2e::{Inventory, Sandbox, User, kill, wait_for};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, socket, sockopt};
use nix::unistd::geteuid;
use underverse::{
    Capability, Execable, ExecableBuilder, ExternalAddress, Generation, Horde, Keep, Members,
    NetworkSpec, PortConnect, Protocol, Running, Strength, Underverse, Zone,
};
use underverse_local::names::TTL_SECONDS;
use underverse_local::{Local, on_this_machine};

use crate::skipped_because;

const NOBODY: u32 = 65_534;
/// Set in a run of this program as an ordinary user.
const AS_NOBODY: &str = "RADIX_TEST_AS_NOBODY";
/// Set in a container that runs this program: the port to serve, or `none`.
const MEMBER: &str = "RADIX_TEST_MEMBER";
const PORT: u16 = 45_271;
const CONNECT: Duration = Duration::from_secs(5);

/// Runs `body` as an ordinary user in a process of its own, if we are root, and then as ourselves.
fn as_every_user(name: &str, body: impl FnOnce()) {
    if geteuid().is_root() {
        let test = name.rsplit(':').next().unwrap();
        let scratch = format!("radix-{test}-{}", std::process::id());
        let scratch = std::env::temp_dir().join(scratch);
        std::fs::create_dir_all(&scratch).unwrap();
        std::fs::set_permissions(&scratch, std::fs::Permissions::from_mode(0o755)).unwrap();
        let [test, radix] = ["test", "radix"].map(|file| scratch.join(file));
        std::fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
        std::fs::copy(std::env::var_os("RADIX_BIN").unwrap(), &radix).unwrap();
        let output = Command::new(&test)
            .args(["--exact", name, "--nocapture"])
            .env(AS_NOBODY, "1")
            .env("RADIX_BIN", &radix)
            .current_dir(&scratch)
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        std::fs::remove_dir_all(&scratch).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "as an ordinary user: {text}\n{errors}"
        );
    }
    body();
}

/// In a container: serves a port and obeys what is asked in the file `ask`, answering in `answer`.
#[test]
fn member() {
    let Ok(port) = std::env::var(MEMBER) else {
        return;
    };
    let own: IpAddr = std::env::var("RADIX_IP").unwrap().parse().unwrap();
    let label = std::env::var("RADIX_NAME").unwrap();
    if let Ok(port) = port.parse::<u16>() {
        let listener = TcpListener::bind((own, port)).unwrap();
        let serve = move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.write_all(label.as_bytes());
            }
        };
        std::thread::Builder::new().spawn(serve).unwrap();
    }
    loop {
        if let Ok(ask) = std::fs::read_to_string("ask") {
            std::fs::remove_file("ask").unwrap();
            std::fs::write("answer.new", ask_of(&ask)).unwrap();
            std::fs::rename("answer.new", "answer").unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What is heard at an address, given by number or name.
fn ask_of(address: &str) -> String {
    use std::net::ToSocketAddrs as _;
    if let Some(name) = address.strip_prefix("resolve ") {
        let found = (name, PORT).to_socket_addrs().into_iter().flatten();
        let found: std::collections::BTreeSet<_> = found.map(|one| one.ip().to_string()).collect();
        return found.into_iter().collect::<Vec<_>>().join(" ");
    }
    let Ok(mut addresses) = address.to_socket_addrs() else {
        return "no name".to_owned();
    };
    let stream = TcpStream::connect_timeout(&addresses.next().unwrap(), CONNECT);
    let mut text = String::new();
    match stream.and_then(|mut stream| stream.read_to_string(&mut text)) {
        Ok(_) => format!("yes {text}"),
        Err(error) => format!("no {:?}", error.kind()),
    }
}

/// Whether somebody on this machine, who asks no router, reaches an address.
fn outside_reaches(address: SocketAddr) -> bool {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    nix::sys::socket::setsockopt(&socket, sockopt::DontRoute, &true).unwrap();
    use std::os::fd::AsRawFd as _;
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)).is_ok()
}

/// Asks a container to connect.
fn ask(container: &Running, address: &str) -> String {
    let work = container.directory.clone().unwrap().join("work");
    // It may be that the cell has not begun yet.
    std::fs::create_dir_all(&work).unwrap();
    let _ = std::fs::remove_file(work.join("answer"));
    std::fs::write(work.join("ask.new"), address).unwrap();
    std::fs::rename(work.join("ask.new"), work.join("ask")).unwrap();
    let answer = || std::fs::read_to_string(work.join("answer")).ok();
    wait_for(Duration::from_secs(30), answer)
        .unwrap_or_else(|| panic!("{} is silent", container.label))
}

fn reaches(container: &Running, other: &Running) -> bool {
    ask(container, &at(other).to_string()).starts_with("yes")
}

fn at(container: &Running) -> SocketAddr {
    SocketAddr::new(container.address.unwrap(), PORT)
}

/// A sandbox and the backend in it.
struct World {
    local: Local,
    program: PathBuf,
    sandbox: Sandbox,
}

impl World {
    async fn new() -> Self {
        let sandbox = Sandbox::empty(User::Ourselves);
        let local = on_this_machine(&sandbox.home(), &sandbox.binary())
            .await
            .unwrap();
        // Where whoever runs a container may read it.
        let program = sandbox.binary().with_file_name("member");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        Self {
            local,
            program,
            sandbox,
        }
    }

    fn role(&self, role: &str, count: u32, port: &str) -> Execable {
        let program = self.program.to_str().unwrap();
        let words = [program, "--exact", "network::member", "--nocapture"];
        ExecableBuilder::command(role, words)
            .unwrap()
            .count(count)
            .env(MEMBER, port)
            .build()
    }

    fn horde(&self, name: &str, count: u32, network: NetworkSpec) -> Horde {
        let members = self.role("hobbit", count, &PORT.to_string());
        Horde::new(name)
            .unwrap()
            .execables([members])
            .network(network)
    }

    async fn realised(&self, horde: &Horde) -> Vec<Running> {
        let end = horde.realise(&self.local).await;
        assert!(end.is_done(), "{end:?}");
        let running = horde.running(&self.local).await.unwrap();
        for container in running.iter().filter(|one| one.role.as_str() == "hobbit") {
            let itself = || reaches(container, container).then_some(());
            wait_for(Duration::from_secs(30), itself).unwrap();
        }
        running
    }

    async fn released(&self, horde: &Horde) {
        let end = horde.release(&self.local, Keep::Nothing).await;
        assert!(end.is_done(), "{end:?}");
    }
}

fn block_on(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(body);
}

// Shows: NET-02
// Shows: NET-03
// Shows in part: NET-06
#[test]
fn who_reaches_whom_is_the_table_or_the_record_says_what_is_weaker() {
    as_every_user(
        "network::who_reaches_whom_is_the_table_or_the_record_says_what_is_weaker",
        || block_on(table()),
    );
}

async fn table() {
    let world = World::new().await;
    let enforced = world
        .local
        .capabilities()
        .strength(Capability::HordePrivate)
        == Strength::Enforced;
    let before = Inventory::take(&world.sandbox.home());
    for (horde_private, flock_private) in
        [(false, false), (false, true), (true, false), (true, true)]
    {
        let spec = NetworkSpec {
            horde_private,
            flock_private,
            ..NetworkSpec::default()
        };
        let horde = world.horde("the_shire", 3, spec.clone());
        let neighbour = world.horde("rivendell", 1, spec.clone());
        let members = world.realised(&horde).await;
        let elrond = world.realised(&neighbour).await.remove(0);
        for from in &members {
            for to in &members {
                assert!(
                    reaches(from, to),
                    "{spec:?}: {} to {}",
                    from.label,
                    to.label
                );
            }
        }
        let effective = world.local.effective(horde.name()).await.unwrap();
        let expected = |zone| spec.admits(zone) || !enforced;
        for to in &members {
            assert_eq!(reaches(&elrond, to), expected(Zone::Flock), "{spec:?}");
            assert_eq!(
                outside_reaches(at(to)),
                expected(Zone::Internet),
                "{spec:?}"
            );
        }
        let network = &effective.network;
        assert!(network.horde_connected.value);
        if enforced && (horde_private || flock_private) {
            assert_eq!(effective.weaker, [], "{spec:?}");
            assert_eq!(network.horde_private.value, horde_private);
            assert!(network.flock_private.value);
            assert_eq!(network.flock_private.strength, Strength::Enforced);
            let tried: Vec<bool> = network.probes.iter().map(|probe| probe.connected).collect();
            assert_eq!(tried, [true, false, true], "{:?}", network.probes);
        } else {
            let weaker = usize::from(horde_private) + usize::from(flock_private);
            assert_eq!(effective.weaker.len(), weaker, "{:?}", effective.weaker);
            assert!(!network.horde_private.value);
        }
        world.released(&horde).await;
        world.released(&neighbour).await;
    }
    let after = Inventory::take(&world.sandbox.home());
    assert_eq!(
        (before.processes, before.mounts),
        (after.processes, after.mounts)
    );
}

// Shows: NET-05
#[test]
fn a_door_leads_into_a_private_horde_and_follows_it() {
    as_every_user(
        "network::a_door_leads_into_a_private_horde_and_follows_it",
        || block_on(door()),
    );
}

async fn door() {
    let world = World::new().await;
    let id = "the_shire".parse().unwrap();
    let (address, host) = world.local.acquire_address(&id, "door").await.unwrap();
    let spec = NetworkSpec {
        horde_private: true,
        ports: vec![PortConnect {
            external: ExternalAddress::Acquired(address.clone()),
            external_port: 28_735,
            internal_port: PORT,
            members: Members::All,
            protocol: Protocol::Tcp,
        }],
        ..NetworkSpec::default()
    };
    let deaf = world.role("deaf", 1, "none");
    let horde = world.horde("the_shire", 3, spec);
    let mut all = horde.spec().unwrap().execables.clone();
    all.push(deaf);
    let horde = horde.execables(all);
    let members = world.realised(&horde).await;
    let door = SocketAddr::new(host, 28_735);
    wait_for(CONNECT, || TcpStream::connect(door).ok()).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..300 {
        *counts.entry(heard(door)).or_insert(0_u32) += 1;
    }
    let labels: Vec<&str> = counts.keys().map(String::as_str).collect();
    assert_eq!(labels, ["n1", "n2", "n3"], "{counts:?}");
    assert!(
        counts.values().all(|count| (90..=110).contains(count)),
        "{counts:?}"
    );
    assert!(
        world.local.release_address(&address).await.is_err(),
        "a door is there"
    );
    if world
        .local
        .capabilities()
        .strength(Capability::Names)
        .is_present()
    {
        for name in ["n2", "n2.the_shire"] {
            assert_eq!(ask(&members[0], &format!("{name}:{PORT}")), "yes n2");
        }
    }

    // Any of them may die; it has its address again, and the door leads to it.
    kill(members[1].pid.unwrap());
    let failed = || async { horde.running(&world.local).await.unwrap().remove(1) };
    while failed().await.state == underverse::RunningState::Started {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let again = world.realised(&horde).await;
    assert_ne!(again[1].id, members[1].id);
    assert_eq!(again[1].address, members[1].address);
    assert!(reaches(&again[0], &again[1]) && reaches(&again[1], &again[0]));
    let to_it = || (heard(door) == "n2").then_some(());
    wait_for(Duration::from_secs(10), to_it).unwrap();

    world.released(&horde).await;
    world.local.release_address(&address).await.unwrap();
    assert!(TcpStream::connect(door).is_err());
}

// Shows: NET-09
#[test]
fn a_name_follows_a_container_that_is_moved_and_is_asked_like_any_other() {
    as_every_user(
        "network::a_name_follows_a_container_that_is_moved_and_is_asked_like_any_other",
        || block_on(names()),
    );
}

async fn names() {
    let world = World::new().await;
    if world.local.capabilities().strength(Capability::Names) != Strength::Enforced {
        return skipped_because("this machine grants no networks");
    }
    let told = |one: &Running| one.address.unwrap().to_string();
    let horde = |name: &str, count, generation| {
        let horde = world.horde(name, count, NetworkSpec::default());
        horde.generation(Generation::of_document(generation))
    };
    let shire = horde("the_shire", 2, 1);
    let bree = horde("bree", 1, 1);
    let members = world.realised(&shire).await;
    let before = world.realised(&bree).await.remove(0);
    let asks = |name: &str, expected: &str| {
        let right = || (ask(&members[0], &format!("resolve {name}")) == expected).then_some(());
        wait_for(Duration::from_secs(30), right)
            .unwrap_or_else(|| panic!("{name} is not {expected}"));
    };
    asks("n1.bree", &told(&before));
    let both = format!("{} {}", told(&members[0]), told(&members[1]));
    asks("hobbit.the_shire", &both);

    // It comes back where another horde has taken its place.
    world.released(&bree).await;
    asks("n1.bree", "");
    let moria = horde("moria", 1, 1);
    world.realised(&moria).await;
    let bree = horde("bree", 1, 3);
    let after = world.realised(&bree).await.remove(0);
    assert_ne!(told(&before), told(&after));
    tokio::time::sleep(Duration::from_secs(TTL_SECONDS.into())).await;
    assert_eq!(ask(&members[0], "resolve n1.bree"), told(&after));
    assert_eq!(ask(&members[0], &format!("n1.bree:{PORT}")), "yes n1");
    // Nobody is asked for what is not ours: there is no way out with names that tells.
    assert_eq!(ask(&members[0], "resolve n9.bree"), "");

    for horde in [&shire, &bree, &moria] {
        world.released(horde).await;
    }
}

/// Set in a run of this program where the kernel refuses network namespaces.
const REFUSED: &str = "RADIX_TEST_REFUSED";
/// Runs the words after it as root of a user namespace in which no network namespace may be made.
const REFUSING: [&str; 5] = [
    "unshare",
    "-Ur",
    "/bin/sh",
    "-c",
    "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$0\" \"$@\"",
];

// Shows in part: NET-06
#[test]
fn where_the_kernel_refuses_networks_hordes_are_told_what_they_get_instead() {
    let name = "network::where_the_kernel_refuses_networks_hordes_are_told_what_they_get_instead";
    if std::env::var_os(REFUSED).is_some() {
        return block_on(weaker());
    }
    let refusing = || {
        let mut command = Command::new(REFUSING[0]);
        command.args(&REFUSING[1..]);
        command
    };
    let can = refusing().arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skipped_because("no user namespace can be made here");
    }
    let output = refusing()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(REFUSED, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "where networks are refused: {text}\n{errors}"
    );
}

async fn weaker() {
    let world = World::new().await;
    let record = world.local.capabilities();
    let strength = record.strength(Capability::HordePrivate);
    assert!(!strength.is_present(), "{strength}");
    assert!(
        strength.reason().unwrap().contains("No space left"),
        "{strength}"
    );
    let private = NetworkSpec {
        horde_private: true,
        ..NetworkSpec::default()
    };
    let horde = world.horde("the_shire", 2, private.clone());
    let neighbour = world.horde("rivendell", 1, private);
    let end = horde.realise(&world.local).await;
    let underverse::End::Done(warned) = end else {
        panic!("{end:?}");
    };
    let said: Vec<&str> = warned.weaker.iter().map(|one| one.asked.as_str()).collect();
    assert!(said.contains(&"horde-private network"), "{said:?}");
    let members = world.realised(&horde).await;
    let elrond = world.realised(&neighbour).await.remove(0);
    let effective = world.local.effective(horde.name()).await.unwrap();
    assert!(!effective.network.horde_private.value, "{effective:?}");
    assert_eq!(effective.weaker, warned.weaker);
    assert!(reaches(&elrond, &members[0]), "and that is the truth");
    assert!(outside_reaches(at(&members[1])));
    world.released(&horde).await;
    world.released(&neighbour).await;
    // What the suite asks of such a backend, it does: in this program and as a plug-in.
    for way in [&[][..], &["--plug-in"]] {
        let words = ["backend", "check", "local", "--only", "realise.weaker"];
        let reply = world.sandbox.radix(&[&words[..], way].concat()).expect(0);
        let counts = reply.stdout.lines().last().unwrap_or_default();
        assert!(
            counts.ends_with("1 cases: 1 passed, 0 refused, 0 skipped, 0 failed"),
            "{counts}"
        );
    }
}

/// Numbers of hordes on switches, as network.md has them.
const NUMBERS: u8 = 253;

// Shows in part: NET-06
#[test]
fn a_horde_that_found_no_network_free_is_left_running_where_it_is_when_one_becomes_free() {
    block_on(async {
        let world = World::new().await;
        if world.local.capabilities().strength(Capability::Names) != Strength::Enforced {
            return skipped_because("this machine grants no networks");
        }
        let [first, late] = ["first", "late"].map(|name| {
            let horde = world.horde(name, 1, NetworkSpec::default());
            horde.generation(Generation::of_document(1))
        });
        world.realised(&first).await;
        // Other hordes, as far as a look at their records goes.
        let hordes = world.sandbox.home().join("hordes");
        let record = std::fs::read_to_string(hordes.join("first/horde.json")).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["switch"]["number"], 1);
        let others: Vec<PathBuf> = (2..=NUMBERS)
            .map(|number| hordes.join(format!("other{number}")))
            .collect();
        for (number, other) in (2..=NUMBERS).zip(&others) {
            record["switch"]["number"] = number.into();
            std::fs::create_dir(other).unwrap();
            std::fs::write(other.join("horde.json"), record.to_string()).unwrap();
        }
        let running = world.realised(&late).await;
        let effective = world.local.effective(late.name()).await.unwrap();
        assert!(
            matches!(effective.network.flock_private.strength, Strength::Weak(_)),
            "{effective:?}"
        );
        for other in &others {
            std::fs::remove_dir_all(other).unwrap();
        }
        let spec = late.spec().unwrap();
        let plan = world.local.plan(Generation::of_document(1), spec).await;
        assert!(plan.as_ref().unwrap().steps.is_empty(), "{plan:?}");
        assert_eq!(world.realised(&late).await, running);
        // Asked for another network, it gets one.
        let network = NetworkSpec {
            horde_private: true,
            ..NetworkSpec::default()
        };
        let late = world.horde("late", 1, network);
        let late = late.generation(Generation::of_document(2));
        world.realised(&late).await;
        let effective = world.local.effective(late.name()).await.unwrap();
        assert_eq!(effective.network.horde_private.strength, Strength::Enforced);
        for horde in [&first, &late] {
            world.released(horde).await;
        }
    });
}

// What root has in a container on a switch is not enough to leave it, or to hand itself another network.
#[test]
fn a_container_of_root_can_neither_leave_its_network_nor_make_one() {
    block_on(async {
        let world = World::new().await;
        let isolated = world
            .local
            .capabilities()
            .strength(Capability::NetworkIsolation);
        let tries = "for t in 'unshare -n true' 'nsenter -t 1 -n true' 'mount -t proc p /proc'; \
                     do $t 2>/dev/null && echo could $t; done; echo tried; exec sleep 1000000";
        let members = ExecableBuilder::command("hobbit", ["/bin/sh", "-c", tries]).unwrap();
        let horde = Horde::new("the_shire")
            .unwrap()
            .execables([members.build()]);
        let end = horde.realise(&world.local).await;
        assert!(end.is_done(), "{end:?}");
        let member = horde.running(&world.local).await.unwrap().remove(0);
        let said = member.directory.unwrap().join("stdout");
        let tried = || {
            let text = std::fs::read_to_string(&said).ok()?;
            text.ends_with("tried\n").then_some(text)
        };
        let text = wait_for(Duration::from_secs(30), tried).unwrap();
        if isolated == Strength::Enforced {
            assert_eq!(text, "tried\n");
        }
        world.released(&horde).await;
    });
}

// Shows in part: NET-05
#[test]
fn one_port_of_an_application_is_a_door_for_connections_and_for_datagrams_to_classes() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let port = crate::tiny(&sandbox, 2);
    let file = sandbox.root().join("tiny/tiny.rnodes");
    let text = std::fs::read_to_string(&file).unwrap();
    let more = format!("  expose {port}/udp = stay:{PORT}\n}}");
    std::fs::write(&file, text.replace('}', &more)).unwrap();
    let directory = sandbox.root().join("tiny").display().to_string();
    let up = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    assert_eq!(
        up.stdout.matches("curl http://").count(),
        1,
        "{}",
        up.stdout
    );
    let door = SocketAddr::from(([127, 0, 0, 1], port));
    let opened = crate::get(&door.to_string(), "/v1/status/leader").is_some();
    assert!(opened || TcpStream::connect(door).is_ok());

    // Whoever answers stands where the instances of the class would: it is this machine's network.
    let status = sandbox.status();
    let rnodes = status["rnodes"].as_array().unwrap();
    let members = rnodes.iter().map(|rnode| {
        let address: SocketAddr = rnode["address"].as_str().unwrap().parse().unwrap();
        let socket = std::net::UdpSocket::bind((address.ip(), PORT)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let members: Vec<_> = members.collect();
    let mut heard = vec![0; members.len()];
    for number in 0..6 {
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(door).unwrap();
        sender.set_nonblocking(true).unwrap();
        let text = format!("hello {number}");
        sender.send(text.as_bytes()).unwrap();
        let mut bytes = [0; 64];
        let answer = wait_for(Duration::from_secs(20), || {
            for (member, heard) in members.iter().zip(&mut heard) {
                if let Ok((length, from)) = member.recv_from(&mut bytes) {
                    *heard += 1;
                    member.send_to(&bytes[..length], from).unwrap();
                }
            }
            let length = sender.recv(&mut bytes).ok()?;
            Some(bytes[..length].to_vec())
        });
        assert_eq!(answer.as_deref(), Some(text.as_bytes()));
    }
    assert_eq!(heard, [3, 3], "in turn");
    let udp = format!("{door}/udp");
    sandbox.until("a door to two members", |status| {
        let exposures = status["exposures"].as_array()?;
        let told = exposures
            .iter()
            .find(|one| one["address"] == udp.as_str())?;
        (told["state"] == "open" && told["members"] == 2).then_some(())
    });
    let _ = sandbox.radix(&["down", "--yes"]).expect(0);
}

fn heard(door: SocketAddr) -> String {
    let mut stream = TcpStream::connect(door).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn what_goes_out_of_a_horde_is_what_was_asked_and_changes_with_it() {
    as_every_user(
        "network::what_goes_out_of_a_horde_is_what_was_asked_and_changes_with_it",
        || block_on(outward()),
    );
}

async fn outward() {
    let world = World::new().await;
    let limits = world
        .local
        .capabilities()
        .strength(Capability::ExternalConnectionLimit);
    let mut ids = None;
    for (generation, limit) in [(1, Some(0)), (2, Some(2)), (3, None), (4, Some(0))] {
        let spec = NetworkSpec {
            external_connections_max: limit,
            ..NetworkSpec::default()
        };
        let horde = world.horde("the_shire", 2, spec);
        let horde = horde.generation(Generation::of_document(generation));
        let members = world.realised(&horde).await;
        let effective = world.local.effective(horde.name()).await.unwrap();
        let out = &effective.network.external_connections_max;
        if limits != Strength::Enforced {
            assert_eq!(
                effective.weaker.is_empty(),
                limit.is_none(),
                "{effective:?}"
            );
            world.released(&horde).await;
            continue;
        }
        assert_eq!(
            (out.value, &out.strength),
            (limit, &Strength::Enforced),
            "{effective:?}"
        );
        let probe = effective.network.probes.last().unwrap();
        let let_in = match limit {
            Some(0) => "0 of 1",
            Some(_) => "2 of 3",
            None => "1 of 1",
        };
        assert!(probe.how.contains(let_in), "{probe:?}");
        // Another limit is no reason to start a container anew.
        let now: Vec<_> = members.iter().map(|member| member.id.clone()).collect();
        assert_eq!(ids.get_or_insert_with(|| now.clone()), &now);
        if limit == Some(0) {
            assert!(ask(&members[0], "192.0.2.1:9").starts_with("no "));
        }
        if generation == 4 {
            world.released(&horde).await;
        }
    }
    let files = Inventory::take(&world.sandbox.home()).files;
    let left = |file: &&PathBuf| file.starts_with("hordes") || file.starts_with("switch");
    assert_eq!(files.iter().find(left), None);
}
