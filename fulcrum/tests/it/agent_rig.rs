//! A real base rnode, keeper and agent, with an owner and an operator of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crux_core::digest::Digest;
use crux_core::names::Label;
use crux_net::identity::{Credentials, Expect, OwnerStore};
use crux_net::store::{Put, Store};
use crux_wire::document::v1::{Document, Pin, SignedDocument, SourceFile};
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{DescribeRequest, PutDocumentRequest, StatusReply, StatusRequest};
use crux_wire::rexec::v1::rexec_client::RexecClient;
use fulcrum::config::{Executable, HostPort, Isolation, Mount, RnodeConfig};
use prost::Message;
use tonic::transport::Channel;

use crate::rig::{PATIENCE, Scratch, TESTEE, until};

/// A base rnode on loopback, at a free port.
pub(crate) struct Base {
    pub(crate) owner: OwnerStore,
    pub(crate) home: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) testee: Digest,
    /// The testee again, as other content.
    pub(crate) worker: Digest,
    keeper: Option<Child>,
    // Dropped last, after the processes that use it.
    _scratch: Scratch,
}

impl Base {
    /// Makes an owner and a base rnode, and starts its keeper.
    pub(crate) fn start() -> Self {
        let scratch = Scratch::new();
        let home = scratch.path().join("home");
        let owner = OwnerStore::open_or_create(&home).unwrap();
        let dir = home.join("base");
        fs::create_dir_all(&dir).unwrap();
        let store = Store::open(home.join("store")).unwrap();
        let testee = store.put_file(TESTEE.as_ref()).unwrap().digest;
        let config = RnodeConfig {
            label: "base".to_owned(),
            namespace: "base".to_owned(),
            host: std::net::IpAddr::from([127, 0, 0, 1]),
            tcp_port: 0,
            flock_port: 0,
            hints: Vec::new(),
            base: None,
            memoir_dir: home.join("memoirs/base/base"),
            store_dir: home.join("store"),
            executable: Executable {
                path: store.path(&testee),
                digest: testee,
            },
            mounts: Vec::new(),
            isolation: Isolation::None,
            user_range_start: None,
            tags: Vec::new(),
            network: None,
            quota_bytes: None,
        };
        fs::create_dir_all(&config.memoir_dir).unwrap();
        config.save(&dir).unwrap();
        let invitation = owner.invite_named(&Label::base(), &Label::base()).unwrap();
        fs::write(dir.join("invitation"), invitation.encode()).unwrap();
        let mut worker = fs::read(TESTEE).unwrap();
        worker.extend_from_slice(b"worker");
        let put = Put {
            expected: None,
            executable: true,
        };
        let worker = store
            .put_reader(&mut worker.as_slice(), put)
            .unwrap()
            .digest;
        let mut base = Self {
            owner,
            home,
            dir,
            testee,
            worker,
            keeper: None,
            _scratch: scratch,
        };
        base.start_keeper();
        base
    }

    pub(crate) fn start_keeper(&mut self) {
        self.start_keeper_with(None);
    }

    /// The same, with one more variable in its environment.
    pub(crate) fn start_keeper_with(&mut self, variable: Option<(&str, &std::path::Path)>) {
        let store = Store::open(self.home.join("store")).unwrap();
        let mut command = Command::new(store.path(&self.testee));
        command.arg("keep").arg("--dir").arg(&self.dir);
        command.env("RADIX_RNODE", self.mark()).stdin(Stdio::null());
        command.envs(variable);
        self.keeper = Some(command.spawn().unwrap());
    }

    pub(crate) fn mark(&self) -> String {
        format!("base/base@{}", self.owner.owner().short())
    }

    /// Field of the contact file, once it is there.
    pub(crate) async fn contact(&self) -> serde_json::Value {
        let path = self.dir.join("agent/contact");
        until(async || path.exists()).await;
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    pub(crate) fn operator(&self) -> Credentials {
        self.owner.credentials().unwrap()
    }

    /// A channel to the agent, by whoever holds `credentials`.
    pub(crate) async fn connect(&self, credentials: &Credentials) -> Channel {
        let mut channel = None;
        until(async || {
            let contact = self.contact().await;
            let address = format!("{}:{}", contact["host"].as_str().unwrap(), contact["port"]);
            let connected = crux_net::rpc::connect(&address, credentials, Expect::Owner).await;
            channel = connected.ok();
            channel.is_some()
        })
        .await;
        channel.unwrap()
    }

    pub(crate) async fn fulcrum(&self) -> FulcrumClient<Channel> {
        FulcrumClient::new(self.connect(&self.operator()).await)
    }

    pub(crate) async fn rexec(&self) -> RexecClient<Channel> {
        RexecClient::new(self.connect(&self.operator()).await)
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.home.join("store")).unwrap()
    }

    /// The base's own document: the testee is its one command.
    pub(crate) fn document(&self, generation: u64, base: u64) -> Document {
        let path = self.store().path(&self.testee).display().to_string();
        let pin = Pin {
            path,
            digest: self.testee.to_string(),
            executable: true,
            command: "radix".to_owned(),
            ..Pin::default()
        };
        Document {
            owner: self.owner.owner().to_string(),
            namespace: "base".to_owned(),
            application: "radix".to_owned(),
            generation,
            base,
            digest: format!("content {generation}"),
            pins: vec![pin],
            ..Document::default()
        }
    }

    pub(crate) fn sign(&self, document: &Document) -> SignedDocument {
        let payload = document.encode_to_vec();
        let (signature, chain) = self.owner.sign_document(&payload).unwrap();
        SignedDocument {
            payload,
            signature,
            chain,
        }
    }

    pub(crate) fn put(&self, document: &Document) -> PutDocumentRequest {
        PutDocumentRequest {
            document: Some(self.sign(document)),
            ..PutDocumentRequest::default()
        }
    }

    /// Makes the base know its own document.
    pub(crate) async fn ready(&self) {
        let request = self.put(&self.document(1, 0));
        self.fulcrum().await.put_document(request).await.unwrap();
    }

    /// Records of the base's memoir, oldest first.
    pub(crate) fn memoir(&self) -> Vec<fulcrum::memoir::Record> {
        fulcrum::memoir::read(&self.home.join("memoirs/base/base"), 0).unwrap()
    }

    /// Waits for the keeper's own end.
    pub(crate) async fn keeper_ended(&mut self) -> std::process::ExitStatus {
        let mut keeper = self.keeper.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || keeper.wait().unwrap());
        tokio::time::timeout(PATIENCE, ended)
            .await
            .expect("the keeper goes on")
            .unwrap()
    }

    pub(crate) fn kill_keeper(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
    }
}

/// A nested rnode of a base, alone in its flock.
pub(crate) struct Nested {
    pub(crate) dir: PathBuf,
    pub(crate) label: String,
    mark: String,
    keeper: Option<Child>,
    isolation: Isolation,
}

/// The namespace and application of nested rnodes.
pub(crate) const APP: &str = "app";

impl Nested {
    /// Starts a keeper on a directory of its own, invited by the owner.
    pub(crate) async fn start(base: &Base, label: &str) -> Self {
        Self::join(base, label, None).await
    }

    /// The same, which may keep so many bytes.
    pub(crate) async fn within(base: &Base, label: &str, quota_bytes: u64) -> Self {
        Self::begin(base, label, None, (Isolation::None, Some(quota_bytes))).await
    }

    /// The same, told where another rnode is.
    pub(crate) async fn join(base: &Base, label: &str, other: Option<&Self>) -> Self {
        Self::begin(base, label, other, (Isolation::None, None)).await
    }

    /// The same in a cell of its own, with a mount at `/var/app` over an empty folder of the host.
    pub(crate) async fn in_cell(base: &Base, label: &str) -> Self {
        Self::begin(base, label, None, (Isolation::PidMount, None)).await
    }

    /// The pid of its agent on the host.
    pub(crate) fn agent_pid(&self) -> i32 {
        let mut marked = fulcrum::mark::marked(&self.mark).unwrap().into_iter();
        let agent = marked.find(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).nth(1) == Some(b"agent")
        });
        agent.unwrap_or(0)
    }

    async fn begin(
        base: &Base,
        label: &str,
        other: Option<&Self>,
        limits: (Isolation, Option<u64>),
    ) -> Self {
        let (namespace, name) = (APP.parse().unwrap(), label.parse().unwrap());
        let invitation = base.owner.invite_named(&namespace, &name).unwrap();
        Self::enter(base, (label, label), &invitation.encode(), other, limits).await
    }

    /// A rnode in a directory of this name that comes in as `label` by an invitation, which may be used already.
    pub(crate) async fn by(
        base: &Base,
        names: (&str, &str),
        invitation: &str,
        other: Option<&Self>,
    ) -> Self {
        Self::enter(base, names, invitation, other, (Isolation::None, None)).await
    }

    async fn enter(
        base: &Base,
        (folder, label): (&str, &str),
        invitation: &str,
        other: Option<&Self>,
        (isolation, quota_bytes): (Isolation, Option<u64>),
    ) -> Self {
        let mut hints = Vec::new();
        if let Some(other) = other {
            let port = other.contact().await["flock_port"].as_u64().unwrap();
            hints.push(HostPort::new("127.0.0.1", u16::try_from(port).unwrap()));
        }
        let dir = base.home.join("hordes").join(APP).join(folder);
        fs::create_dir_all(&dir).unwrap();
        let contact = base.contact().await;
        let port = u16::try_from(contact["port"].as_u64().unwrap()).unwrap();
        let store = base.store();
        // A layer does not lie within the folder it is laid over.
        let host = match isolation {
            Isolation::None => dir.clone(),
            Isolation::PidMount => base.home.join("host").join(folder),
        };
        fs::create_dir_all(&host).unwrap();
        let config = RnodeConfig {
            label: label.to_owned(),
            namespace: APP.to_owned(),
            host: std::net::IpAddr::from([127, 0, 0, 1]),
            tcp_port: 0,
            flock_port: 0,
            hints,
            base: Some(HostPort::new("127.0.0.1", port)),
            memoir_dir: dir.join("memoir"),
            store_dir: dir.join("store"),
            executable: Executable {
                path: store.path(&base.testee),
                digest: base.testee,
            },
            mounts: vec![Mount {
                host,
                target: "/var/app".into(),
                writable: false,
            }],
            isolation,
            user_range_start: None,
            tags: Vec::new(),
            network: None,
            quota_bytes,
        };
        fs::create_dir_all(&config.memoir_dir).unwrap();
        config.save(&dir).unwrap();
        fs::write(dir.join("invitation"), invitation).unwrap();
        let mark = format!("{APP}/{folder}@{}", base.owner.owner().short());
        let mut nested = Self {
            dir,
            label: label.to_owned(),
            mark,
            keeper: None,
            isolation,
        };
        nested.start_again(base);
        nested
    }

    /// Starts a keeper for which `disk` is a file system of 2 MiB that nobody else sees.
    pub(crate) fn start_on_small_disk(&mut self, base: &Base, disk: &std::path::Path) {
        let _ = fs::remove_file(self.dir.join("agent/contact"));
        let script = "mount -t tmpfs -o size=2m none \"$0\" && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(disk)
            .arg(base.store().path(&base.testee))
            .arg("keep")
            .arg("--dir")
            .arg(&self.dir)
            .env("RADIX_RNODE", &self.mark)
            .stdin(Stdio::null());
        self.keeper = Some(command.spawn().unwrap());
    }

    /// Starts a keeper on the same directory, where none runs.
    pub(crate) fn start_again(&mut self, base: &Base) {
        let _ = fs::remove_file(self.dir.join("agent/contact"));
        let mut command = Command::new(base.store().path(&base.testee));
        command
            .arg(match self.isolation {
                Isolation::None => "keep",
                Isolation::PidMount => "cell",
            })
            .arg("--dir")
            .arg(&self.dir)
            .env("RADIX_RNODE", &self.mark)
            .stdin(Stdio::null());
        self.keeper = Some(command.spawn().unwrap());
    }

    /// Records of its memoir, oldest first.
    pub(crate) fn memoir(&self) -> Vec<fulcrum::memoir::Record> {
        fulcrum::memoir::read(&self.dir.join("memoir"), 0).unwrap()
    }

    pub(crate) async fn contact(&self) -> serde_json::Value {
        let path = self.dir.join("agent/contact");
        until(async || path.exists()).await;
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    pub(crate) async fn channel(&self, base: &Base) -> Channel {
        let expect = Expect::Label {
            namespace: APP.parse().unwrap(),
            label: self.label.parse().unwrap(),
        };
        let mut channel = None;
        until(async || {
            let contact = self.contact().await;
            let address = format!("{}:{}", contact["host"].as_str().unwrap(), contact["port"]);
            let connected =
                crux_net::rpc::connect(&address, &base.operator(), expect.clone()).await;
            channel = connected.ok();
            channel.is_some()
        })
        .await;
        channel.unwrap()
    }

    pub(crate) async fn fulcrum(&self, base: &Base) -> FulcrumClient<Channel> {
        FulcrumClient::new(self.channel(base).await)
    }

    /// The status, once it is as wanted.
    pub(crate) async fn status(
        &self,
        base: &Base,
        wanted: impl Fn(&StatusReply) -> bool,
    ) -> StatusReply {
        let mut status = StatusReply::default();
        let began = std::time::Instant::now();
        let asked = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Ok(reply) = self.fulcrum(base).await.status(StatusRequest {}).await {
                    status = reply.into_inner();
                    if wanted(&status) {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(
            asked.await.is_ok(),
            "after {:?}: {status:#?}",
            began.elapsed()
        );
        status
    }
}

impl Nested {
    /// Ends the rnode for good, as if its machine had gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
        if let Err(error) = fulcrum::mark::end_marked(&self.mark, Duration::from_secs(10)) {
            eprintln!("processes of {} are left: {error}", self.mark);
        }
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Base {
    /// A document of the nested application: one class `prog1`, whose worker is the testee with these words.
    pub(crate) fn application(&self, generation: u64, words: &str) -> Document {
        self.application_with(generation, "", words)
    }

    /// The same, with attributes.
    pub(crate) fn application_with(&self, generation: u64, head: &str, words: &str) -> Document {
        let file = |name: &str, text: String| SourceFile {
            name: name.to_owned(),
            text,
            library: false,
        };
        let files = vec![
            file(
                "app.begat",
                format!("prog1: rexec/worker{head}\n      rexec/worker {words}\n"),
            ),
            file("app.rexec", "worker = /var/app/bin/worker\n".to_owned()),
            file("app.khan", "pick(prog1, 1, ALL)\n".to_owned()),
            file(
                "app.rnodes",
                "local {\n  n = 1\n  cmd = /var/radix/bin/fulcrum\n  mount . = /var/app\n}\n"
                    .to_owned(),
            ),
        ];
        let pin = Pin {
            path: "/var/app/bin/worker".to_owned(),
            digest: self.worker.to_string(),
            executable: true,
            command: "worker".to_owned(),
            ..Pin::default()
        };
        Document {
            owner: self.owner.owner().to_string(),
            namespace: APP.to_owned(),
            application: APP.to_owned(),
            generation,
            base: generation - 1,
            digest: format!("content {generation}"),
            files,
            pins: vec![pin],
            rnodes_wanted: 1,
            ..Document::default()
        }
    }

    /// Puts a document to the base, with the grant to host its namespace, and to a nested rnode.
    pub(crate) async fn apply(&self, nested: &Nested, document: &Document) {
        let mut fulcrum = self.fulcrum().await;
        let key = fulcrum
            .describe(DescribeRequest {})
            .await
            .unwrap()
            .into_inner()
            .public_key_der;
        let invite_grant = self.owner.grant_host(&key, &APP.parse().unwrap()).unwrap();
        let request = PutDocumentRequest {
            invite_grant,
            ..self.put(document)
        };
        fulcrum.put_document(request).await.unwrap();
        nested
            .fulcrum(self)
            .await
            .put_document(self.put(document))
            .await
            .unwrap();
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        self.kill_keeper();
        if let Err(error) = fulcrum::mark::end_marked(&self.mark(), Duration::from_secs(10)) {
            eprintln!("processes of {} are left: {error}", self.mark());
        }
    }
}
