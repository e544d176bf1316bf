//! `radix cp`: a file or folder to, from or between rnodes; whole, verified, resumed when run again.

mod end;
mod progress;
mod spread;

use std::sync::Arc;

use crux_net::files::{self, HardLinks, HashCache, Offered, Sink, Source};
use crux_wire::fileio::v1::{
    CopyProgress, CopyRequest, ExpectRequest, OfferReply, OfferRequest, PushRequest,
};
use serde::Serialize;
use tonic::{Status, Streaming};

use crate::args;
use crate::connection::{Base, RnodeConnection};
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::output::{self, Format};
use end::{End, Local};
use progress::Bar;

/// What a copy came to.
#[derive(Debug, Serialize)]
struct Copied {
    source: String,
    destination: String,
    files: u64,
    bytes: u64,
    bytes_moved: u64,
    bytes_kept: u64,
    manifest: String,
}

/// Runs the command.
pub(crate) async fn run(args: args::Cp) -> Outcome<()> {
    let (from, to) = (End::parse(&args.source)?, End::parse(&args.destination)?);
    if matches!((&from, &to), (End::Local(_), End::Local(_))) {
        return Err(Failure::usage("both ends are on this machine")
            .hint("name a rnode, as in n1:PATH, or use `cp`"));
    }
    let base = Base::require(&Home::locate()?).await?;
    let ways = Ways {
        base,
        namespace: args.running.namespace.clone(),
        bar: Bar::default(),
    };
    let copied = match (&from, &to) {
        (End::Local(from), End::Remote(to)) if to.one().is_ok() => {
            let path = match from.file_name() {
                Some(name) => into(&to.path, &name),
                None => folder(&to.path).to_owned(),
            };
            vec![ways.up(from, to.one()?, &path).await]
        }
        (End::Remote(from), End::Local(to)) => vec![ways.down(from.one()?, &from.path, to).await],
        (End::Remote(from), End::Remote(to)) if args.push => {
            let (source, sink) = (from.one()?, to.one()?);
            let path = ways.destination((source, &from.path), &to.path).await?;
            vec![ways.push((source, &from.path), (sink, &path)).await]
        }
        (from, End::Remote(to)) => spread::spread(&ways, from, to).await?,
        (End::Local(_), End::Local(_)) => Vec::new(),
    };
    ways.bar.clear();
    report(&args, copied)
}

/// Prints what was copied; partial success is told with its failures.
fn report(args: &args::Cp, copied: Vec<Outcome<Copied>>) -> Outcome<()> {
    let asked = copied.len();
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for copy in copied {
        match copy {
            Ok(copy) => done.push(copy),
            Err(failure) => failures.push(failure),
        }
    }
    match args.format {
        Format::Json => output::json(&done)?,
        Format::Text => done.iter().for_each(|copy| output::line(&sentence(copy))),
    }
    match failures.len() {
        0 => Ok(()),
        1 if asked == 1 => Err(failures.remove(0)),
        short => {
            let reasons: Vec<String> = failures.iter().map(ToString::to_string).collect();
            Err(Failure::new(
                Fault::Partial,
                format!("{short} of {asked} copies failed\n{}", reasons.join("\n")),
            ))
        }
    }
}

fn sentence(copy: &Copied) -> String {
    format!(
        "{} -> {}: {} file{}, {}; {} moved, {} were there",
        copy.source,
        copy.destination,
        copy.files,
        if copy.files == 1 { "" } else { "s" },
        progress::size(copy.bytes),
        progress::size(copy.bytes_moved),
        progress::size(copy.bytes_kept),
    )
}

/// How rnodes are reached, and who is told.
struct Ways {
    base: Base,
    namespace: Option<String>,
    bar: Bar,
}

impl Ways {
    async fn rnode(&self, label: &str) -> Outcome<RnodeConnection> {
        self.base.direct(self.namespace.as_deref(), label).await
    }

    /// From this machine to a rnode.
    async fn up(&self, from: &Local, label: &str, path: &str) -> Outcome<Copied> {
        let offered = local_offer(from).await?;
        let mut files = self.rnode(label).await?.files();
        let expect = ExpectRequest {
            path: path.to_owned(),
        };
        let ticket = files.expect(expect).await;
        let ticket = ticket
            .map_err(|status| failed(&status))?
            .into_inner()
            .ticket;
        let told = |progress: &CopyProgress| self.bar.show(progress);
        let done = files::give(&mut files, ticket, &offered, &told)
            .await
            .map_err(|error| failed(&Status::from(&error)))?;
        Ok(copied(from.to_string(), format!("{label}:{path}"), &done))
    }

    /// From a rnode to this machine.
    async fn down(&self, label: &str, path: &str, to: &Local) -> Outcome<Copied> {
        let rnode = self.rnode(label).await?;
        let offered = offer(&rnode, path).await?;
        let (root, dest) = to.sink()?;
        let sink = Arc::new(Sink::new(root, dest, Arc::new(HashCache::default())));
        let mut source = Source::pull(rnode.files(), offered.ticket, None);
        let told = |tally: &files::Tally| self.bar.show(&tally.message(false));
        let tally = files::take(&mut source, &offered.name, &sink, &told)
            .await
            .map_err(|error| failed(&Status::from(&error)))?;
        let done = tally.message(true);
        Ok(copied(format!("{label}:{path}"), to.to_string(), &done))
    }

    /// Where what a rnode has goes: a file into `to` where that ends in a slash, a folder becomes `to`.
    async fn destination(&self, (source, from): (&str, &str), to: &str) -> Outcome<String> {
        if !to.ends_with('/') {
            return Ok(to.to_owned());
        }
        let offered = offer(&self.rnode(source).await?, from).await?;
        Ok(match offered.folder {
            true => folder(to).to_owned(),
            false => into(to, &offered.name),
        })
    }

    /// Between rnodes: the source connects to the sink.
    async fn push(
        &self,
        (source, from): (&str, &str),
        (sink, to): (&str, &str),
    ) -> Outcome<Copied> {
        let address = self.base.address(self.namespace.as_deref(), sink).await?;
        let expect = ExpectRequest {
            path: to.to_owned(),
        };
        let ticket = self.rnode(sink).await?.files().expect(expect).await;
        let request = PushRequest {
            path: from.to_owned(),
            ticket: ticket
                .map_err(|status| failed(&status))?
                .into_inner()
                .ticket,
            sink: address,
        };
        let stream = self.rnode(source).await?.files().push(request).await;
        let done = self.follow(stream.map_err(|status| failed(&status))?.into_inner());
        let done = done.await?;
        Ok(copied(
            format!("{source}:{from}"),
            format!("{sink}:{to}"),
            &done,
        ))
    }

    /// Between rnodes: the sink connects to the source.
    async fn pull(
        &self,
        (source, from): (&str, &str),
        (sink, to): (&str, &str),
    ) -> Outcome<Copied> {
        let address = self.base.address(self.namespace.as_deref(), source).await?;
        let offered = offer(&self.rnode(source).await?, from).await?;
        let into = match offered.folder {
            true => folder(to).to_owned(),
            false => into(to, &offered.name),
        };
        let request = CopyRequest {
            ticket: offered.ticket,
            sources: vec![address],
            path: into,
            ..CopyRequest::default()
        };
        let stream = self.rnode(sink).await?.files().copy(request).await;
        let done = self.follow(stream.map_err(|status| failed(&status))?.into_inner());
        let done = done.await?;
        Ok(copied(
            format!("{source}:{from}"),
            format!("{sink}:{to}"),
            &done,
        ))
    }

    /// Shows progress until the last word.
    async fn follow(&self, mut stream: Streaming<CopyProgress>) -> Outcome<CopyProgress> {
        loop {
            match stream.message().await {
                Ok(Some(progress)) if progress.done => return Ok(progress),
                Ok(Some(progress)) => self.bar.show(&progress),
                Ok(None) => return Err(failed(&Status::unavailable("the rnode went away"))),
                Err(status) => return Err(failed(&status)),
            }
        }
    }
}

/// Where a single file goes: one that goes into a folder keeps its name only if we say it.
fn into(to: &str, name: &str) -> String {
    match to.strip_suffix('/') {
        Some(folder) => format!("{folder}/{name}"),
        None => to.to_owned(),
    }
}

/// Where a folder goes: itself, whether a slash stands behind it or not.
fn folder(to: &str) -> &str {
    to.strip_suffix('/').unwrap_or(to)
}

async fn local_offer(from: &Local) -> Outcome<Arc<Offered>> {
    let (root, path) = from.source()?;
    let walk = move || files::offer::offer(root, &path, HardLinks::AsFiles, &HashCache::default());
    let offered = tokio::task::spawn_blocking(walk).await;
    let offered = offered.map_err(|error| Failure::failed(error.to_string()))?;
    offered
        .map(Arc::new)
        .map_err(|error| failed(&Status::from(&error)))
}

async fn offer(rnode: &RnodeConnection, path: &str) -> Outcome<OfferReply> {
    let request = OfferRequest {
        path: path.trim_end_matches('/').to_owned(),
    };
    let offered = rnode.files().offer(request).await;
    offered
        .map(tonic::Response::into_inner)
        .map_err(|status| failed(&status))
}

fn copied(source: String, destination: String, done: &CopyProgress) -> Copied {
    Copied {
        source,
        destination,
        files: done.files,
        bytes: done.bytes,
        bytes_moved: done.bytes_moved,
        bytes_kept: done.bytes_kept,
        manifest: done.manifest.clone(),
    }
}

/// A rnode's refusal. What is cut is partial: running the command again goes on from there.
fn failed(status: &Status) -> Failure {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::Cancelled => Failure::new(
            Fault::Partial,
            format!("the copy was cut short: {}", status.message()),
        )
        .hint("run the command again: what was verified is not sent again"),
        _ => {
            let failure = Failure::status("copy", status);
            let text = status.message().strip_prefix("copy ");
            text.map_or(failure, |text| {
                Failure::status("copy", &Status::new(status.code(), text))
            })
        }
    }
}
