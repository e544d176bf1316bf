//! A grant over one namespace, at a base that holds several: it sees and does what is of that namespace, nothing else.

use crux_core::digest::Digest;
use crux_core::names::Label;
use crux_net::identity::{Credentials, GrantTerms, OwnerStore};
use crux_wire::document::v1::Document;
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{GetRequest, HaveRequest, PutChunk};
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{
    EventsRequest, ExitRequest, GetDocumentRequest, HordesRequest, MemoirRequest, TunnelBytes,
    WatchDocumentsRequest,
};
use prost::Message as _;
use tonic::Code;
use tonic::transport::Channel;

use crate::agent_base::start_backend;
use crate::agent_rig::{APP, Base, Nested};
use crate::rig::{until, within};

/// A namespace that nobody here has a grant for but the owner.
const OTHER: &str = "other";

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn document_of(base: &Base, namespace: &str, generation: u64) -> Document {
    Document {
        namespace: namespace.to_owned(),
        application: namespace.to_owned(),
        ..base.application(generation, "wait")
    }
}

/// A tool and an operator, each for `namespace` alone.
fn narrow(base: &Base, namespace: &str) -> [OwnerStore; 2] {
    let (owner, only) = (&base.owner, GrantTerms::over(Some(&label(namespace))));
    let tool = owner.invite_tool(&label("tuner"), &only).unwrap();
    let operator = owner.invite_operator(&label("bob"), &only).unwrap();
    [("tool", tool), ("operator", operator)].map(|(name, invitation)| {
        let home = base.home.join(format!("elsewhere/{name}-{namespace}"));
        std::fs::create_dir_all(home.parent().unwrap()).unwrap();
        OwnerStore::login(&home, &invitation).unwrap()
    })
}

async fn channel(base: &Base, who: &OwnerStore) -> Channel {
    let credentials: Credentials = who.credentials().unwrap();
    base.connect(&credentials).await
}

async fn all<T>(stream: tonic::Streaming<T>) -> Vec<T> {
    let mut stream = stream;
    let mut found = Vec::new();
    while let Some(one) = within(stream.message()).await.unwrap() {
        found.push(one);
    }
    found
}

/// What a caller sees of the namespaces at the base: by hordes, by documents and by events.
async fn seen(channel: &Channel) -> [Vec<String>; 3] {
    let mut fulcrum = FulcrumClient::new(channel.clone());
    let hordes = fulcrum.hordes(HordesRequest::default()).await.unwrap();
    let hordes = hordes.into_inner().hordes.into_iter();
    let watching = fulcrum.watch_documents(WatchDocumentsRequest {}).await;
    let mut watching = watching.unwrap().into_inner();
    let mut documents = Vec::new();
    // Documents come at once, in the order of their namespaces; then the stream is silent.
    let pause = std::time::Duration::from_millis(300);
    while let Ok(Ok(Some(reply))) = tokio::time::timeout(pause, watching.message()).await {
        let signed = reply.document.unwrap();
        let document = Document::decode(signed.payload.as_slice()).unwrap();
        documents.push(document.namespace);
    }
    let events = fulcrum.events(EventsRequest::default()).await.unwrap();
    let events = all(events.into_inner()).await.into_iter();
    let mut told: Vec<String> = events.map(|event| event.namespace).collect();
    told.sort();
    told.dedup();
    [
        hordes.map(|horde| horde.namespace).collect(),
        documents,
        told,
    ]
}

#[tokio::test]
async fn a_narrow_grant_sees_at_the_base_what_is_of_its_namespace_and_nothing_else() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    base.apply(&nested, &base.application(1, "wait")).await;
    let other = base.put(&document_of(&base, OTHER, 1));
    base.fulcrum().await.put_document(other).await.unwrap();
    let port = nested.contact().await["port"].to_string();
    start_backend(&base, &port).await;
    let whole = base.connect(&base.operator()).await;
    until(async || {
        let mut fulcrum = FulcrumClient::new(whole.clone());
        let hordes = fulcrum.hordes(HordesRequest::default()).await.unwrap();
        let hordes = hordes.into_inner().hordes;
        hordes.iter().any(|horde| !horde.rnodes.is_empty())
    })
    .await;
    let everything = seen(&whole).await;
    // Of the other no backend tells, but a document asks for it.
    assert_eq!(everything[0], [APP, OTHER]);
    assert_eq!(everything[1], [APP, "base", OTHER]);
    assert_eq!(everything[2], [APP, "base", OTHER]);

    let worker = base.worker.to_string();
    for namespace in [APP, OTHER] {
        for who in narrow(&base, namespace) {
            let channel = channel(&base, &who).await;
            let [of_hordes, documents, told] = seen(&channel).await;
            assert_eq!(of_hordes, [namespace]);
            assert_eq!(documents, [namespace]);
            assert_eq!(told, [namespace]);
            let mut fulcrum = FulcrumClient::new(channel.clone());
            for asked in ["", "base", APP, OTHER] {
                let request = GetDocumentRequest {
                    namespace: asked.to_owned(),
                };
                let got = fulcrum.get_document(request).await;
                assert_eq!(got.is_ok(), asked == namespace, "{asked}: {got:?}");
            }
            let first = TunnelBytes {
                target: format!("127.0.0.1:{port}"),
                bytes: Vec::new(),
            };
            let opened = fulcrum.tunnel(tokio_stream::iter([first])).await;
            assert_eq!(opened.is_ok(), namespace == APP, "{opened:?}");
            let memoir = fulcrum.memoir(MemoirRequest::default()).await;
            assert_eq!(memoir.unwrap_err().code(), Code::PermissionDenied);
            // Content is read by whoever has a document that pins it: here both do, the radix executable neither.
            let mut files = FileIoClient::new(channel);
            let wanted = HaveRequest {
                digests: vec![worker.clone(), base.testee.to_string()],
            };
            let have = files.have(wanted).await.unwrap().into_inner();
            assert_eq!(have.present, [worker.as_str()]);
            let get = |digest: &Digest| GetRequest {
                digest: digest.to_string(),
                ..GetRequest::default()
            };
            assert!(files.get(get(&base.worker)).await.is_ok());
            let refused = files.get(get(&base.testee)).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
        }
    }
}

#[tokio::test]
async fn a_narrow_operator_changes_its_namespace_and_no_other() {
    let base = Base::start();
    base.ready().await;
    let [tool, bob] = narrow(&base, APP);
    let signed_by = |who: &OwnerStore, namespace: &str| {
        let document = document_of(&base, namespace, 1);
        let payload = document.encode_to_vec();
        let (signature, chain) = who.sign_document(&payload).unwrap();
        let mut request = base.put(&document);
        let signed = request.document.as_mut().unwrap();
        (signed.signature, signed.chain) = (signature, chain);
        request
    };
    let channel_of_bob = channel(&base, &bob).await;
    let mut as_bob = FulcrumClient::new(channel_of_bob.clone());
    let put = as_bob.put_document(signed_by(&bob, APP)).await.unwrap();
    assert!(!put.into_inner().unchanged);
    for request in [
        signed_by(&bob, OTHER),
        signed_by(&bob, "base"),
        // Well signed, but not his to bring.
        base.put(&document_of(&base, OTHER, 1)),
        // A tool signs nothing.
        signed_by(&tool, APP),
    ] {
        let refused = as_bob.put_document(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }

    // He may bring content, but not learn of what is there, nor name or keep it.
    let mut files = FileIoClient::new(channel_of_bob);
    let executable = std::fs::read(base.store().path(&base.testee)).unwrap();
    let chunk = |bytes: &[u8], name: &str, persistent| PutChunk {
        digest: Digest::of(bytes).to_string(),
        total: bytes.len() as u64,
        bytes: bytes.to_vec(),
        name: name.to_owned(),
        persistent,
        ..PutChunk::default()
    };
    let pieces = |bytes: &[u8]| -> Vec<PutChunk> {
        let whole = chunk(bytes, "", false);
        let pieces = bytes.chunks(1 << 20).map(|piece| PutChunk {
            bytes: piece.to_vec(),
            ..whole.clone()
        });
        pieces.collect()
    };
    let put = files.put(tokio_stream::iter(pieces(b"new"))).await.unwrap();
    assert!(!put.into_inner().existed);
    let put = files.put(tokio_stream::iter(pieces(&executable))).await;
    assert!(!put.unwrap().into_inner().existed);
    for named in [chunk(b"x", "x", false), chunk(b"x", "", true)] {
        let refused = files.put(tokio_stream::iter([named])).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    // Refusals are summed by the minute; an agent that ends writes them at once.
    let mut operator = base.fulcrum().await;
    operator.exit(ExitRequest::default()).await.unwrap();
    let refused = |record: &fulcrum::memoir::Record| {
        let text = serde_json::to_string(&record.fields).unwrap();
        record.kind.contains("refus") && text.contains("operator bob")
    };
    until(async || base.memoir().iter().any(refused)).await;
}
