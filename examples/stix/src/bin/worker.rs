//! Answers lookups in the CSV that it was given: over gRPC for slaves, over HTTP for people.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use crux::{Blackboard, core::digest::Digest};
use http::StatusCode;
use stix::answer::{Answer, Origin};
use stix::flags::Flags;
use stix::program::{Failure, Me, asked_to_end, finish, say};
use stix::results;
use stix::table::{TABLE_BYTES_MAX, Table};
use stix::web::{self, Page};
use stix::wire::prods_server::{Prods, ProdsServer};
use stix::wire::{LookupReply, LookupRequest};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Port of the HTTP face.
const HTTP_PORT: u16 = 45271;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    finish(Box::pin(run()).await)
}

async fn run() -> Result<(), Failure> {
    let flags = Flags::parse(std::env::args().skip(1), &["prod", "port", "grpc"])
        .map_err(|reason| Failure::Usage(format!("worker: {reason}")))?;
    let path = flags
        .get("prod")
        .ok_or_else(|| Failure::Usage("worker: -prod is missing".into()))?;
    let (table, csv) = load(path)?;
    let http = bind(&flags, "port", HTTP_PORT).await?;
    let grpc = bind(&flags, "grpc", 0).await?;
    let me = Me::learn(&flags).await?;
    let origin = Origin {
        worker: me.instance.clone(),
        rnode: me.rnode.clone(),
        csv,
    };
    let desk = Arc::new(Desk {
        table,
        origin,
        board: me.agent.as_ref().map(Blackboard::new),
    });
    say(format_args!(
        "{} on {}: {}",
        me.instance,
        me.rnode,
        desk.about()
    ));
    let pages = Arc::clone(&desk);
    let pages_served = web::serve(http, move |path| {
        let desk = Arc::clone(&pages);
        async move { desk.page(&path).await }
    });
    tokio::select! {
        ended = pages_served => ended.map_err(|error| Failure::to("serve HTTP", error)),
        ended = answer(&me, grpc, desk) => ended,
    }
}

/// Serves gRPC until this process is asked to end; offered as a service only now that all is loaded.
async fn answer(me: &Me, listener: TcpListener, desk: Arc<Desk>) -> Result<(), Failure> {
    let routes = Routes::new(ProdsServer::from_arc(desk));
    let failed = |error: &dyn std::error::Error| {
        Failure::Failed(format!(
            "failed to serve gRPC: {}",
            stix::program::chain(error)
        ))
    };
    let end = async {
        // Without signals there is nothing to wait for, and whoever started us may still kill us.
        if asked_to_end().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    match &me.agent {
        Some(agent) => crux::serve(agent, &me.class, listener, routes, end)
            .await
            .map_err(|error| failed(&error)),
        None => tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                tonic::transport::server::TcpIncoming::from(listener),
                end,
            )
            .await
            .map_err(|error| failed(&error)),
    }
}

/// Reads the whole file once, so that the digest is that of what is answered from.
fn load(path: &str) -> Result<(Table, String), Failure> {
    let read = |error| Failure::to(&format!("read {path}"), error);
    let size = std::fs::metadata(path).map_err(read)?.len();
    if size > TABLE_BYTES_MAX {
        return Err(Failure::Failed(format!(
            "{path}: over {TABLE_BYTES_MAX} bytes"
        )));
    }
    let bytes = std::fs::read(path).map_err(read)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|error| Failure::to(&format!("read {path}"), error))?;
    let table =
        Table::parse(text).map_err(|reason| Failure::Failed(format!("{path}: {reason}")))?;
    Ok((table, Digest::of(&bytes).to_string()))
}

async fn bind(flags: &Flags, flag: &str, default: u16) -> Result<TcpListener, Failure> {
    let address = SocketAddr::new(flags.ip, flags.port(flag, default).map_err(Failure::Usage)?);
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| Failure::to(&format!("listen on {address}"), error))
}

/// Where questions are answered.
struct Desk {
    table: Table,
    origin: Origin,
    board: Option<Blackboard>,
}

impl Desk {
    fn about(&self) -> String {
        format!("{} rows of csv {}", self.table.len(), self.origin.csv)
    }

    async fn page(&self, path: &str) -> Page {
        match path.strip_prefix("/lookup/") {
            Some(key) => self.lookup_page(key),
            None => match path {
                "/" => self.front().await,
                "/results" => match self.results().await {
                    Ok(results) => Page::json(StatusCode::OK, &results),
                    Err(failure) => unavailable(&failure),
                },
                _ => Page::text(StatusCode::NOT_FOUND, "try /, /lookup/KEY or /results\n"),
            },
        }
    }

    fn lookup_page(&self, key: &str) -> Page {
        match self.table.find(key) {
            Some(row) => Page::json(StatusCode::OK, &Answer::new(key, row, &self.origin)),
            None => Page::text(StatusCode::NOT_FOUND, format!("there is no row `{key}`\n")),
        }
    }

    async fn front(&self) -> Page {
        let Origin { worker, rnode, .. } = &self.origin;
        let mut text = format!("{worker} on {rnode}: {}\n", self.about());
        match self.results().await {
            Ok(results) => {
                for answer in results::newest(&results) {
                    text.push_str(&answer.line());
                    text.push('\n');
                }
                Page::text(StatusCode::OK, text)
            }
            Err(failure) => unavailable(&failure),
        }
    }

    async fn results(&self) -> Result<Vec<Answer>, Failure> {
        match &self.board {
            Some(board) => results::all(board).await,
            None => Ok(Vec::new()),
        }
    }
}

fn unavailable(failure: &Failure) -> Page {
    Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n"))
}

#[tonic::async_trait]
impl Prods for Desk {
    async fn lookup(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<LookupReply>, Status> {
        let LookupRequest { key, nth } = request.into_inner();
        let row = if key.is_empty() {
            Some(self.table.nth(nth))
        } else {
            self.table.find(&key)
        };
        let Origin { worker, rnode, csv } = self.origin.clone();
        Ok(Response::new(LookupReply {
            found: row.is_some(),
            row: row.map_or(0, |row| row.number()),
            columns: row.map(|row| row.columns()).unwrap_or_default(),
            worker,
            rnode,
            csv,
        }))
    }
}
