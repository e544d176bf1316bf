//! A real base rnode, keeper and agent, with an owner and an operator of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crux_core::digest::Digest;
use crux_core::names::Label;
use crux_net::identity::{Credentials, Expect, OwnerStore};
use crux_net::store::Store;
use crux_wire::document::v1::{Document, Pin, SignedDocument};
use crux_wire::fulcrum::v1::PutDocumentRequest;
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::rexec::v1::rexec_client::RexecClient;
use fulcrum::config::{Executable, Isolation, RnodeConfig};
use prost::Message;
use tonic::transport::Channel;

use crate::rig::{Scratch, TESTEE, until};

/// A base rnode on loopback, at a free port.
pub(crate) struct Base {
    pub(crate) owner: OwnerStore,
    pub(crate) home: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) testee: Digest,
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
        };
        fs::create_dir_all(&config.memoir_dir).unwrap();
        config.save(&dir).unwrap();
        let invitation = owner.invite_named(&Label::base(), &Label::base()).unwrap();
        fs::write(dir.join("invitation"), invitation.encode()).unwrap();
        let mut base = Self {
            owner,
            home,
            dir,
            testee,
            keeper: None,
            _scratch: scratch,
        };
        base.start_keeper();
        base
    }

    pub(crate) fn start_keeper(&mut self) {
        let store = Store::open(self.home.join("store")).unwrap();
        let mut command = Command::new(store.path(&self.testee));
        command.arg("keep").arg("--dir").arg(&self.dir);
        command.env("RADIX_RNODE", self.mark()).stdin(Stdio::null());
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

    pub(crate) fn kill_keeper(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
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
