//! Talking to the base rnode and, through its tunnel, to the rnodes of a namespace.

use std::time::Duration;

use crux_net::boundary::{Crossing, asks};
use crux_net::identity::Credentials;
use crux_net::rpc;
use crux_net::task::{Policy, spawn};
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fulcrum::v1 as wire;
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::keeper::v1::Execution;
use crux_wire::rexec::v1 as rexec;
use crux_wire::rexec::v1::rexec_client::RexecClient;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tower::ServiceExt as _;

use crate::failure::{Failure, Fault, Outcome, unheard};
use crate::home::Home;
use crate::operator;
use crate::view;

/// How long one question to a rnode may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a rnode's own address is tried before the way through the base is taken.
const DIRECT_TIME_MAX: Duration = Duration::from_millis(500);
/// Bytes in flight each way in a tunnel.
const TUNNEL_BYTES_MAX: usize = 64 * 1024;
/// Messages in flight to the base in a tunnel.
const TUNNEL_QUEUE_MAX: usize = 16;

/// Where an agent can be reached, as it wrote it down.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Contact {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) rnode: String,
}

impl Contact {
    /// The base's contact file, if there is one.
    pub(crate) fn of_base(home: &Home) -> Option<Self> {
        let text = std::fs::read(home.base().join("agent/contact")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// A rnode we talk to.
#[derive(Debug, Clone)]
pub(crate) struct RnodeConnection {
    channel: Channel,
}

/// The base rnode.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    rnode: RnodeConnection,
    credentials: Credentials,
    home: Home,
}

/// Why the base was not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unmet {
    /// None runs here, and nobody said where one is.
    Nowhere,
    /// What became of the last try.
    Because(String),
}

/// A namespace that has a horde, as the base tells it.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) horde: wire::HordeState,
}

/// A question that is answered in time, or fails.
pub(crate) fn limited<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIME_MAX);
    request
}

impl Base {
    /// The running base, or `None` when none answers.
    pub(crate) async fn find(home: &Home) -> Outcome<Option<Self>> {
        Ok(Self::meet(home).await?.ok())
    }

    /// The running base, or why none answers.
    pub(crate) async fn meet(home: &Home) -> Outcome<Result<Self, Unmet>> {
        home.refuse_copy()?;
        let Some(contact) = Contact::of_base(home) else {
            return Self::meet_elsewhere(home).await;
        };
        let credentials = operator::credentials(home)?;
        let expected = operator::expect_rnode(&contact.rnode)?;
        match rpc::connect(&contact.address(), &credentials, expected).await {
            Ok(channel) => Ok(Ok(Self {
                rnode: RnodeConnection { channel },
                credentials,
                home: home.clone(),
            })),
            Err(error) => Ok(Err(Unmet::Because(unheard(&error)))),
        }
    }

    /// The base on another machine that whoever logged in here was told of.
    async fn meet_elsewhere(home: &Home) -> Outcome<Result<Self, Unmet>> {
        let mut unmet = Unmet::Nowhere;
        if !home.join("operator/hints").exists() {
            return Ok(Err(unmet));
        }
        let hints = operator::owner(home)?
            .hints()
            .map_err(|error| Failure::failed("cannot read where the base is").because(&error))?;
        let credentials = operator::credentials(home)?;
        for hint in hints {
            let expected = operator::expect_label(operator::BASE, operator::BASE)?;
            match rpc::connect(&hint, &credentials, expected).await {
                Ok(channel) => {
                    return Ok(Ok(Self {
                        rnode: RnodeConnection { channel },
                        credentials,
                        home: home.clone(),
                    }));
                }
                Err(error) => unmet = Unmet::Because(unheard(&error)),
            }
        }
        Ok(Err(unmet))
    }

    /// The running base.
    pub(crate) async fn require(home: &Home) -> Outcome<Self> {
        let absent = || {
            Failure::failed(format!("nothing runs under {}", home.root().display()))
                .hint("start an application with `radix up DIR`")
        };
        if !home.root().is_dir() {
            return Err(absent());
        }
        home.refuse_foreign()?;
        let found = Self::find(home).await?;
        found.ok_or_else(|| {
            if operator::is_base_denied(home) {
                Failure::failed("this machine's base was denied, and so it has ended").hint(
                    "any `radix up` gives it another identity; what it hosts runs on until then",
                )
            } else {
                absent()
            }
        })
    }

    /// `failure` with the reason why the base refuses us, if it does.
    pub(crate) async fn explain(failure: Failure) -> Failure {
        match Self::refusal().await {
            Ok(Some(alert)) => failure.explained(&alert),
            Ok(None) | Err(_) => failure,
        }
    }

    /// How the base refuses us, wherever it is; `None` if it does not.
    async fn refusal() -> Outcome<Option<std::io::Error>> {
        let home = Home::locate()?;
        let credentials = operator::credentials(&home)?;
        let places = match Contact::of_base(&home) {
            Some(contact) => {
                vec![(contact.address(), operator::expect_rnode(&contact.rnode)?)]
            }
            None => {
                let hints = operator::owner(&home)?.hints().unwrap_or_default();
                let expected = operator::expect_label(operator::BASE, operator::BASE)?;
                let place = |hint| (hint, expected.clone());
                hints.into_iter().map(place).collect()
            }
        };
        for (address, expected) in places {
            let alert = rpc::refusal(&address, &credentials, expected).await;
            if alert.is_some() {
                return Ok(alert);
            }
        }
        Ok(None)
    }

    /// The state directory it belongs to.
    pub(crate) const fn home(&self) -> &Home {
        &self.home
    }

    /// The base rnode as a rnode.
    pub(crate) fn itself(&self) -> RnodeConnection {
        self.rnode.clone()
    }

    /// All hordes that the base's backends hold.
    pub(crate) async fn hordes(&self) -> Outcome<Vec<wire::HordeState>> {
        let request = limited(wire::HordesRequest::default());
        let reply = self.rnode.fulcrum().hordes(request).await;
        reply
            .map(|reply| reply.into_inner().hordes)
            .map_err(|status| Failure::status("list hordes", &status))
    }

    /// The namespace asked for, or the only one.
    pub(crate) async fn namespace(&self, name: Option<&str>) -> Outcome<Namespace> {
        let hordes = self.hordes().await?;
        let names: Vec<_> = hordes.iter().map(|horde| horde.namespace.clone()).collect();
        let known = || format!("namespaces here: {}", names.join(", "));
        let found = match name {
            Some(name) => hordes.into_iter().find(|horde| horde.namespace == name),
            None if names.len() > 1 => {
                return Err(Failure::usage("several namespaces run here")
                    .hint(format!("choose one with --namespace; {}", known())));
            }
            None => hordes.into_iter().next(),
        };
        found
            .map(|horde| Namespace {
                name: horde.namespace.clone(),
                horde,
            })
            .ok_or_else(|| {
                let message = name.map_or_else(
                    || "no application runs here".to_owned(),
                    |name| format!("no namespace `{name}` runs here"),
                );
                let failure = Failure::failed(message);
                if names.is_empty() {
                    failure.hint("start one with `radix up DIR`")
                } else {
                    failure.hint(known())
                }
            })
    }

    /// One rnode of a namespace by its label.
    pub(crate) async fn rnode(
        &self,
        namespace: Option<&str>,
        label: &str,
    ) -> Outcome<RnodeConnection> {
        if label == "base" {
            return Ok(self.itself());
        }
        let namespace = self.namespace(namespace).await?;
        let rnodes = &namespace.horde.rnodes;
        let Some(rnode) = rnodes.iter().find(|rnode| rnode.label == label) else {
            let labels: Vec<_> = rnodes.iter().map(|rnode| rnode.label.as_str()).collect();
            return Err(Failure::usage(format!(
                "namespace `{}` has no rnode `{label}`",
                namespace.name
            ))
            .hint(format!("rnodes: {}", labels.join(", "))));
        };
        self.reach(&namespace.name, rnode).await
    }

    /// Where a rnode's services are, for other rnodes.
    pub(crate) async fn address(&self, namespace: Option<&str>, label: &str) -> Outcome<String> {
        if label == "base" {
            let contact = Contact::of_base(&self.home);
            return contact
                .map(|contact| contact.address())
                .ok_or_else(|| Failure::failed("the base rnode has no address"));
        }
        let namespace = self.namespace(namespace).await?;
        let mut rnodes = namespace.horde.rnodes.iter();
        rnodes
            .find(|rnode| rnode.label == label)
            .map(|rnode| format!("{}:{}", rnode.host, rnode.port))
            .ok_or_else(|| {
                Failure::usage(format!(
                    "namespace `{}` has no rnode `{label}`",
                    namespace.name
                ))
            })
    }

    /// As [`Base::rnode`], past the base where its address can be reached from here: for much data.
    pub(crate) async fn direct(
        &self,
        namespace: Option<&str>,
        label: &str,
    ) -> Outcome<RnodeConnection> {
        if label == "base" {
            return Ok(self.itself());
        }
        let address = self.address(namespace, label).await?;
        let name = self.namespace(namespace).await?.name;
        let expected = operator::expect_label(&name, label)?;
        let connecting = rpc::connect(&address, &self.credentials, expected);
        match tokio::time::timeout(DIRECT_TIME_MAX, connecting).await {
            Ok(Ok(channel)) => Ok(RnodeConnection { channel }),
            _ => self.rnode(namespace, label).await,
        }
    }

    /// Some rnode of a namespace that answers.
    pub(crate) async fn any_rnode(&self, namespace: Option<&str>) -> Outcome<RnodeConnection> {
        if namespace == Some("base") {
            return Ok(self.itself());
        }
        let namespace = self.namespace(namespace).await?;
        self.any_of(&namespace).await
    }

    /// Some rnode of `namespace` that answers.
    pub(crate) async fn any_of(&self, namespace: &Namespace) -> Outcome<RnodeConnection> {
        let mut last = None;
        for rnode in &namespace.horde.rnodes {
            match self.reach(&namespace.name, rnode).await {
                Ok(connection) => return Ok(connection),
                Err(failure) => last = Some(failure),
            }
        }
        Err(self.unreachable(namespace, last))
    }

    /// Why nobody of `namespace` answers, the last reason being `last`.
    pub(crate) fn unreachable(&self, namespace: &Namespace, last: Option<Failure>) -> Failure {
        last.unwrap_or_else(|| {
            Failure::failed(format!("no rnode of `{}` runs yet", namespace.name))
                .hint("`radix events -n base` shows what the backend does")
        })
    }

    /// A session with a rnode, inside a tunnel through the base: TLS runs end to end.
    pub(crate) async fn reach(
        &self,
        namespace: &str,
        rnode: &wire::HordeRnode,
    ) -> Outcome<RnodeConnection> {
        let target = format!("{}:{}", rnode.host, rnode.port);
        let stream = self.tunnel(&target).await?;
        let expected = operator::expect_label(namespace, &rnode.label)?;
        let channel = rpc::connect_over(stream, &self.credentials, expected)
            .await
            .map_err(|error| {
                Failure::failed(format!(
                    "cannot talk to rnode {} of {namespace}: {}",
                    rnode.label,
                    unheard(&error)
                ))
                .broken(&error)
            })?;
        Ok(RnodeConnection { channel })
    }

    async fn tunnel(&self, target: &str) -> Outcome<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(TUNNEL_BYTES_MAX);
        let (sender, receiver) = tokio::sync::mpsc::channel(TUNNEL_QUEUE_MAX);
        let first = wire::TunnelBytes {
            target: target.to_owned(),
            bytes: Vec::new(),
        };
        let closed = |_| Failure::failed("failed to open a tunnel: its queue is closed");
        sender.send(first).await.map_err(closed)?;
        let replies = self
            .rnode
            .fulcrum()
            .tunnel(ReceiverStream::new(receiver))
            .await
            .map_err(|status| Failure::status("open a tunnel", &status))?
            .into_inner();
        let (reader, writer) = tokio::io::split(theirs);
        drop(spawn("tunnel-out", Policy::DRAIN, pump_out(reader, sender)));
        drop(spawn("tunnel-in", Policy::DRAIN, pump_in(replies, writer)));
        Ok(ours)
    }

    /// The status of a namespace: its flock's word and the base's.
    pub(crate) async fn status(&self, namespace: Option<&str>) -> Outcome<view::Status> {
        let namespace = self.namespace(namespace).await?;
        let reply = match self.any_of(&namespace).await {
            Ok(rnode) => rnode.status().await?,
            Err(failure) => wire::StatusReply {
                namespace: namespace.name.clone(),
                application: namespace.name.clone(),
                generation: namespace.horde.generation,
                problems: match view::is_ending(&namespace.horde) {
                    true => Vec::new(),
                    false => vec![failure.to_string()],
                },
                ..wire::StatusReply::default()
            },
        };
        let mut status = view::Status::from_wire(&reply, Some(&namespace.horde));
        crate::host_pid::translate(&mut status, &self.home);
        Ok(status)
    }
}

async fn pump_out(
    mut reader: tokio::io::ReadHalf<DuplexStream>,
    sender: tokio::sync::mpsc::Sender<wire::TunnelBytes>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = reader.read(&mut buffer).await {
        let bytes = wire::TunnelBytes {
            target: String::new(),
            bytes: buffer[..read].to_vec(),
        };
        if read == 0 || sender.send(bytes).await.is_err() {
            return;
        }
    }
}

async fn pump_in(
    mut replies: Streaming<wire::TunnelBytes>,
    mut writer: tokio::io::WriteHalf<DuplexStream>,
) {
    while let Ok(Some(part)) = replies.message().await {
        if writer.write_all(&part.bytes).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

impl RnodeConnection {
    /// The control service.
    pub(crate) fn fulcrum(&self) -> FulcrumClient<Crossing> {
        FulcrumClient::new(InterceptedService::new(self.channel.clone(), asks))
    }

    /// Sends a REST request over this session, and gives what comes back.
    pub(crate) async fn send(&self, request: http::Request<Body>) -> Outcome<http::Response<Body>> {
        let sent = self.channel.clone().oneshot(request).await;
        sent.map_err(|error| Failure::failed("failed to call the rnode").because(&error))
    }

    /// The service of its files.
    pub(crate) fn files(&self) -> FileIoClient<Channel> {
        FileIoClient::new(self.channel.clone())
    }

    fn rexec(&self) -> RexecClient<Crossing> {
        RexecClient::new(InterceptedService::new(self.channel.clone(), asks))
    }

    /// Who this rnode is.
    pub(crate) async fn describe(&self) -> Outcome<wire::DescribeReply> {
        let reply = self
            .fulcrum()
            .describe(limited(wire::DescribeRequest {}))
            .await;
        reply
            .map(tonic::Response::into_inner)
            .map_err(|status| fail("describe the rnode", &status))
    }

    /// Its flock.
    pub(crate) async fn flock(&self) -> Outcome<wire::FlockReply> {
        let reply = self.fulcrum().flock(limited(wire::FlockRequest {})).await;
        reply
            .map(tonic::Response::into_inner)
            .map_err(|status| fail("ask for the flock", &status))
    }

    /// Its service directory.
    pub(crate) async fn services(&self) -> Outcome<wire::ServicesReply> {
        let reply = self
            .fulcrum()
            .services(limited(wire::ServicesRequest::default()))
            .await;
        reply
            .map(tonic::Response::into_inner)
            .map_err(|status| fail("list services", &status))
    }

    /// Its namespace's status.
    pub(crate) async fn status(&self) -> Outcome<wire::StatusReply> {
        let reply = self.fulcrum().status(limited(wire::StatusRequest {})).await;
        reply
            .map(tonic::Response::into_inner)
            .map_err(|status| fail("ask for the status", &status))
    }

    /// The document it holds for a namespace.
    pub(crate) async fn document(
        &self,
        namespace: &str,
    ) -> Outcome<Option<crux_wire::document::v1::SignedDocument>> {
        let held = self.held(namespace).await?;
        Ok(held.document.filter(|_| held.found))
    }

    /// What it holds for a namespace, and whether it acts on it.
    pub(crate) async fn held(&self, namespace: &str) -> Outcome<wire::GetDocumentReply> {
        let request = wire::GetDocumentRequest {
            namespace: namespace.to_owned(),
        };
        let reply = self.fulcrum().get_document(limited(request)).await;
        reply
            .map(tonic::Response::into_inner)
            .map_err(|status| fail("read the document", &status))
    }

    /// Its events.
    pub(crate) async fn events(
        &self,
        after: String,
        follow: bool,
    ) -> Outcome<Streaming<wire::Event>> {
        let reply = self
            .fulcrum()
            .events(wire::EventsRequest { after, follow })
            .await;
        reply
            .map(tonic::Response::into_inner)
            .map_err(|status| fail("read events", &status))
    }

    /// The configurations that may run there.
    pub(crate) async fn configurations(&self) -> Outcome<Vec<rexec::Configuration>> {
        let reply = self
            .rexec()
            .configurations(limited(rexec::ConfigurationsRequest {}))
            .await;
        reply
            .map(|reply| reply.into_inner().configurations)
            .map_err(|status| fail("list what may run", &status))
    }

    /// Executions that its keeper lists.
    pub(crate) async fn executions(&self, request: rexec::ListRequest) -> Outcome<Vec<Execution>> {
        let reply = self.rexec().list(limited(request)).await;
        reply
            .map(|reply| reply.into_inner().executions)
            .map_err(|status| fail("list executions", &status))
    }

    /// Output of an execution.
    pub(crate) async fn output(
        &self,
        request: rexec::OutputRequest,
    ) -> Outcome<Streaming<rexec::OutputChunk>> {
        let reply = self.rexec().output(request).await;
        reply
            .map(tonic::Response::into_inner)
            .map_err(|status| fail("read output", &status))
    }

    /// Starts a command and follows it.
    pub(crate) async fn run(
        &self,
        inputs: ReceiverStream<rexec::RunInput>,
    ) -> Outcome<Streaming<rexec::RunOutput>> {
        let reply = self.rexec().run(inputs).await;
        reply.map(tonic::Response::into_inner).map_err(|status| {
            let failure = fail("start the command", &status);
            match status.code() {
                tonic::Code::NotFound => failure.with_fault(Fault::Code(127)),
                _ => failure,
            }
        })
    }
}

fn fail(doing: &str, status: &Status) -> Failure {
    Failure::status(doing, status)
}
