//! `radix logs`: the output of instances, each line with its instance when there are several.

use std::collections::BTreeMap;

use crux_wire::rexec::v1::OutputRequest;

use crate::args;
use crate::connection::{Base, RnodeConnection};
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output;
use crate::view::Instance;

/// Longest line kept together; a longer one is printed in pieces.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Runs the command.
pub(crate) async fn run(args: args::Logs) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    let namespace = args.running.namespace.as_deref();
    let status = base.status(namespace).await?;
    let chosen: Vec<&Instance> = status
        .instances
        .iter()
        .filter(|instance| !instance.execution.is_empty())
        .filter(|instance| {
            args.instance
                .as_deref()
                .is_none_or(|wanted| wanted == instance.class || wanted == instance.instance)
        })
        .collect();
    if chosen.is_empty() {
        let mut classes: Vec<_> = status
            .instances
            .iter()
            .map(|instance| instance.class.as_str())
            .collect();
        classes.dedup();
        let wanted = args.instance.unwrap_or_else(|| "any instance".to_owned());
        return Err(Failure::usage(format!("nothing runs as `{wanted}`"))
            .hint(format!("classes here: {}", classes.join(", "))));
    }
    let several = chosen.len() > 1;
    let mut rnodes: BTreeMap<String, RnodeConnection> = BTreeMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    for instance in chosen {
        if !rnodes.contains_key(&instance.rnode) {
            let connection = base.rnode(namespace, &instance.rnode).await?;
            rnodes.insert(instance.rnode.clone(), connection);
        }
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
            let rnode = rnodes[&instance.rnode].clone();
            tasks.spawn(async move { follow(rnode, request, prefix).await });
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

/// Prints one stream until it ends.
async fn follow(rnode: RnodeConnection, request: OutputRequest, prefix: String) -> Outcome<()> {
    let mut chunks = rnode.output(request).await?;
    let mut partial = Vec::new();
    loop {
        let chunk = match chunks.message().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(status) => return Err(Failure::status("read output", &status)),
        };
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
