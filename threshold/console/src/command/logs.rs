//! `radix logs`: the output of instances, each line with its instance when there are several.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crux_wire::rexec::v1::{ListRequest, OutputChunk, OutputRequest};
use tonic::Streaming;

use crate::args;
use crate::connection::Base;
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output;
use crate::view::Instance;

/// Longest line kept together; a longer one is printed in pieces.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How long a rnode whose agent died may take to have another.
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts to find it.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) async fn run(args: args::Logs) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    let namespace = args.running.namespace.as_deref();
    let mut status = base.status(namespace).await?;
    let mut chosen = choose(&mut status.instances, args.instance.as_deref())?;
    for instance in chosen.iter_mut().filter(|one| one.execution.is_empty()) {
        instance.execution = last_execution(&base, namespace, instance).await?;
    }
    let reasons: Vec<String> = chosen.iter().map(|one| unstarted(one)).collect();
    chosen.retain(|instance| !instance.execution.is_empty());
    if chosen.is_empty() {
        let failure = Failure::failed("nothing of it was started yet, so there is no output");
        return Err(reasons.into_iter().fold(failure, Failure::hint));
    }
    let several = chosen.len() > 1;
    let base = Arc::new(base);
    let mut tasks = tokio::task::JoinSet::new();
    for instance in chosen {
        let streams: &[bool] = if args.stderr { &[true] } else { &[false, true] };
        for &stderr in streams {
            let request = OutputRequest {
                execution: instance.execution.clone(),
                stderr,
                offset: 0,
                follow: args.follow,
                tail_bytes: args.tail,
            };
            let prefix = if several {
                format!("{} | ", instance.instance)
            } else {
                String::new()
            };
            let source = Source {
                base: Arc::clone(&base),
                namespace: namespace.map(str::to_owned),
                label: instance.rnode.clone(),
            };
            tasks.spawn(async move { follow(&source, request, prefix).await });
        }
    }
    let mut first = None;
    while let Some(joined) = tasks.join_next().await {
        let result =
            joined.map_err(|error| Failure::failed(format!("failed to follow output: {error}")))?;
        if let Err(failure) = result {
            first.get_or_insert(failure);
        }
    }
    first.map_or(Ok(()), Err)
}

/// The instances that are meant: of a class, one, or all.
fn choose<'i>(
    instances: &'i mut [Instance],
    wanted: Option<&str>,
) -> Outcome<Vec<&'i mut Instance>> {
    let is_meant = |instance: &Instance| {
        wanted.is_none_or(|wanted| wanted == instance.class || wanted == instance.instance)
    };
    if !instances.iter().any(is_meant) {
        let mut classes: Vec<_> = instances.iter().map(|one| one.class.as_str()).collect();
        classes.dedup();
        let (failure, known) = match (wanted, classes.is_empty()) {
            (_, true) => (
                Failure::failed("nothing was placed yet"),
                "`radix status` says why".to_owned(),
            ),
            (None, false) => (Failure::failed("nothing runs here"), String::new()),
            (Some(wanted), false) => (
                Failure::usage(format!("nothing is called `{wanted}` here")),
                format!("classes here: {}", classes.join(", ")),
            ),
        };
        return Err(failure.hint(known));
    }
    Ok(instances.iter_mut().filter(|one| is_meant(one)).collect())
}

/// The execution that ended last, of an instance that waits to be tried again; empty if none is kept.
async fn last_execution(
    base: &Base,
    namespace: Option<&str>,
    instance: &Instance,
) -> Outcome<String> {
    let rnode = base.rnode(namespace, &instance.rnode).await?;
    let request = ListRequest {
        finished: true,
        prefixes: vec![format!("{}-{}-", instance.class, instance.index)],
        ..ListRequest::default()
    };
    let kept = rnode.executions(request).await?.into_iter();
    let named = format!("/{}", instance.instance);
    let newest = kept
        .filter(|one| one.instance.ends_with(&named))
        .max_by_key(|one| one.started_unix_ms);
    Ok(newest.map(|one| one.execution).unwrap_or_default())
}

/// Why an instance has no output.
fn unstarted(instance: &Instance) -> String {
    format!(
        "{} is {}: {}",
        instance.instance, instance.state, instance.reason
    )
}

/// Where an instance's output is.
struct Source {
    base: Arc<Base>,
    namespace: Option<String>,
    label: String,
}

impl Source {
    async fn open(&self, request: OutputRequest) -> Outcome<Streaming<OutputChunk>> {
        let namespace = self.namespace.as_deref();
        let rnode = self.base.rnode(namespace, &self.label).await?;
        rnode.output(request).await
    }

    /// Goes on behind `offset` once the rnode has an agent again.
    async fn reopen(
        &self,
        request: &OutputRequest,
        offset: u64,
    ) -> Outcome<Streaming<OutputChunk>> {
        let request = OutputRequest {
            offset,
            tail_bytes: 0,
            ..request.clone()
        };
        let begin = Instant::now();
        loop {
            let opened = self.open(request.clone()).await;
            if opened.is_ok() || begin.elapsed() > REOPEN_WAIT_MAX {
                return opened;
            }
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    }
}

/// Prints one stream until it ends; that the rnode's agent dies meanwhile makes no gap.
async fn follow(source: &Source, request: OutputRequest, prefix: String) -> Outcome<()> {
    let mut chunks = source.open(request.clone()).await?;
    let mut partial = Vec::new();
    let mut shown: Option<u64> = None;
    loop {
        let broken = match chunks.message().await {
            Ok(Some(chunk)) => Ok(chunk),
            Ok(None) => Err("the stream ended too early".to_owned()),
            Err(status) => Err(status.message().to_owned()),
        };
        let chunk = match broken {
            Ok(chunk) => chunk,
            // Before the first piece nobody knows where a tail would begin.
            Err(_) if request.follow && (shown.is_some() || request.tail_bytes == 0) => {
                let offset = shown.unwrap_or(request.offset);
                chunks = source.reopen(&request, offset).await?;
                continue;
            }
            Err(why) => return Err(Failure::failed(format!("failed to read output: {why}"))),
        };
        // Where a tail begins is told by its first piece only.
        let expected = shown.or_else(|| (request.tail_bytes == 0).then_some(request.offset));
        let gap = expected.map_or(0, |expected| chunk.offset.saturating_sub(expected));
        if gap > 0 {
            if !partial.is_empty() {
                print_line(&prefix, &std::mem::take(&mut partial));
            }
            let which = if request.stderr {
                "standard error"
            } else {
                "standard output"
            };
            output::talk(&output::missing(&prefix, gap, which));
        }
        let length = u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX);
        shown = Some(chunk.offset.saturating_add(length));
        if chunk.end {
            break;
        }
        if prefix.is_empty() {
            output::bytes(&chunk.bytes);
            continue;
        }
        partial.extend_from_slice(&chunk.bytes);
        while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
            let rest = partial.split_off(end + 1);
            print_line(&prefix, &partial);
            partial = rest;
        }
        if partial.len() > LINE_BYTES_MAX {
            print_line(&prefix, &partial);
            partial.clear();
        }
    }
    if !partial.is_empty() {
        print_line(&prefix, &partial);
    }
    Ok(())
}

fn print_line(prefix: &str, line: &[u8]) {
    let mut whole = prefix.as_bytes().to_vec();
    whole.extend_from_slice(line);
    if whole.last() != Some(&b'\n') {
        whole.push(b'\n');
    }
    output::bytes(&whole);
}
