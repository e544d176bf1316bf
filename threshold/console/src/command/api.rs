//! `radix api`: calls any method of a rnode with JSON, over the same relay as everything else.

use std::path::Path;

use crux_core::adf;
use crux_wire::rest::{Api, Method, OPENAPI, Problem, Shape};
use crux_wire::status::{Effect, Kind};
use futures_util::TryStreamExt as _;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;
use tonic::body::Body;

use crate::args;
use crate::connection::Base;
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::output::{self, Format};

/// Longest line of a reply that is taken, in bytes: four thirds of the largest reply a rnode turns into JSON.
const LINE_BYTES_MAX: usize = 96 << 20;

#[derive(Debug, Serialize)]
struct Listed<'a> {
    method: &'a str,
    path: &'a str,
    request: String,
    requests_stream: bool,
    reply: String,
    replies_stream: bool,
}

/// Runs the command.
pub(crate) async fn run(args: args::Api) -> Outcome<()> {
    if args.openapi {
        output::line(OPENAPI.trim_end());
        return Ok(());
    }
    let Some(word) = &args.method else {
        return list(args.format);
    };
    let method = find(word)?;
    let body = body(args.request.as_deref(), method.requests()).await?;
    let base = Base::require(&Home::locate()?).await?;
    let rnode = base
        .rnode(args.running.namespace.as_deref(), &args.rnode)
        .await?;
    let request = http::Request::post(method.path())
        .header(CONTENT_TYPE, method.requests().media_type())
        .body(body)
        .map_err(|error| Failure::failed("failed to make the request").because(&error))?;
    print(rnode.send(request).await?, method).await
}

/// The methods that a rnode's port serves.
fn served() -> impl Iterator<Item = &'static Method> {
    let on_the_port = |method: &&Method| !method.is_for_processes();
    Api::radix().methods().filter(on_the_port)
}

fn list(format: Format) -> Outcome<()> {
    let listed: Vec<_> = served()
        .map(|method| Listed {
            method: method.short_name(),
            path: method.path(),
            request: method.request_type(),
            requests_stream: method.requests() == Shape::Stream,
            reply: method.reply_type(),
            replies_stream: method.replies() == Shape::Stream,
        })
        .collect();
    if format == Format::Json {
        return output::json(&listed);
    }
    let shape = |name: &str, streams: bool| {
        let short = name.rsplit('.').next().unwrap_or(name);
        if streams {
            format!("{short} …")
        } else {
            short.to_owned()
        }
    };
    let rows: Vec<_> = listed
        .iter()
        .map(|one| {
            vec![
                one.method.to_owned(),
                shape(&one.request, one.requests_stream),
                shape(&one.reply, one.replies_stream),
            ]
        })
        .collect();
    output::table(&["METHOD", "REQUEST", "REPLY"], &rows);
    Ok(())
}

/// The one method that `word` means.
fn find(word: &str) -> Outcome<&'static Method> {
    let mut found = Api::radix().find(word);
    found.retain(|method| !method.is_for_processes());
    match found[..] {
        [one] => Ok(one),
        [] => Err(unknown(word)),
        _ => {
            let names: Vec<_> = found.iter().map(|method| method.short_name()).collect();
            Err(
                Failure::usage(format!("several methods are called `{word}`"))
                    .hint(format!("one of {}", names.join(", "))),
            )
        }
    }
}

fn unknown(word: &str) -> Failure {
    let failure = Failure::usage(format!("no method is called `{word}`"));
    let last = |name: &'static str| name.rsplit('/').next().unwrap_or(name);
    let word = word.trim_start_matches('/');
    let named = |method: &'static Method| [method.short_name(), last(method.short_name())];
    match adf::nearest(word, served().flat_map(named)) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("`radix api` lists them"),
    }
}

/// What is sent: read whole where it is one request, passed on as it comes where requests stream.
async fn body(request: Option<&str>, shape: Shape) -> Outcome<Body> {
    let text = match (request, shape) {
        (None, Shape::One) => "{}",
        (None, Shape::Stream) => "",
        (Some("-"), shape) => return read(tokio::io::stdin(), shape).await,
        (Some(word), shape) => match word.strip_prefix('@') {
            Some(file) => return read(open(file.as_ref()).await?, shape).await,
            None => word,
        },
    };
    Ok(Body::new(text.to_owned()))
}

async fn open(path: &Path) -> Outcome<tokio::fs::File> {
    tokio::fs::File::open(path)
        .await
        .map_err(|error| Failure::usage(format!("cannot read {}", path.display())).because(&error))
}

async fn read(from: impl AsyncRead + Send + 'static, shape: Shape) -> Outcome<Body> {
    let body = Body::new(StreamBody::new(ReaderStream::new(from).map_ok(Frame::data)));
    match shape {
        Shape::Stream => Ok(body),
        Shape::One => {
            let most = crux_net::rpc::REST_MESSAGE_BYTES_MAX;
            let limited = http_body_util::Limited::new(body, most);
            let read = limited.collect().await.map_err(|error| {
                Failure::usage(format!("cannot read the request: {error}"))
                    .hint(format!("a request has at most {most} bytes"))
            })?;
            Ok(Body::new(http_body_util::Full::new(read.to_bytes())))
        }
    }
}

/// Prints replies as they come; a failure is ours.
async fn print(response: http::Response<Body>, method: &Method) -> Outcome<()> {
    let status = response.status().as_u16();
    let media = response.headers().get(CONTENT_TYPE);
    if !media.is_some_and(|media| media.as_bytes().ends_with(b"json")) {
        return Err(Failure::failed("that rnode's agent does not speak REST")
            .hint("`radix up` replaces an older agent"));
    }
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| lost(method, &error.to_string()))?;
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            print_line(status, &line, method)?;
        }
        if text.len() > LINE_BYTES_MAX {
            return Err(lost(method, "a line of the answer is too long"));
        }
    }
    if text.is_empty() {
        Ok(())
    } else {
        print_line(status, &text, method)
    }
}

fn print_line(status: u16, line: &[u8], method: &Method) -> Outcome<()> {
    // No reply has a field `error`, so this line is either the failure or a reply.
    if status == 200 && !line.starts_with(b"{\"error\":{") {
        output::bytes(line);
        return Ok(());
    }
    match Problem::from_json(status, line) {
        Some(problem) => Err(failed(&problem, method)),
        None => Err(lost(method, &format!("HTTP status {status}"))),
    }
}

fn failed(problem: &Problem, method: &Method) -> Failure {
    let doing = format!("call {}", method.short_name());
    let failure = Failure::status(&doing, &problem.status());
    match (problem.kind, problem.effect) {
        (Kind::Unavailable | Kind::Cancelled, Effect::Unknown) => failure.with_fault(Fault::Lost),
        (_, Effect::Done) => failure.hint("it was done all the same"),
        _ => failure,
    }
}

fn lost(method: &Method, why: &str) -> Failure {
    let message = format!("the outcome of {} is unknown: {why}", method.short_name());
    Failure::new(Fault::Lost, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_named_by_what_only_it_has() {
        let found = |word: &str| {
            find(word)
                .map(Method::short_name)
                .map_err(|it| it.to_string())
        };
        assert_eq!(found("Describe").as_deref(), Ok("Fulcrum/Describe"));
        // The process socket has one of that name too, which no port serves.
        assert_eq!(found("Put").as_deref(), Ok("FileIo/Put"));
        assert!(
            found("Descrbe")
                .unwrap_err()
                .contains("did you mean `Describe`")
        );
        assert!(
            found("Fulcrum/Evnts")
                .unwrap_err()
                .contains("`Fulcrum/Events`")
        );
        assert!(found("Process/Whoami").is_err());
        assert!(found("").is_err());
    }

    #[test]
    fn every_failure_has_its_exit_code() {
        let method = find("Describe").unwrap();
        let code = |kind: Kind, effect| {
            let problem = Problem {
                effect,
                ..Problem::new(kind.http(), kind, "x")
            };
            failed(&problem, method).fault.code()
        };
        assert_eq!(code(Kind::Invalid, Effect::None), 2);
        assert_eq!(code(Kind::Limit, Effect::None), 3);
        assert_eq!(code(Kind::Timeout, Effect::Unknown), 4);
        assert_eq!(code(Kind::Refused, Effect::None), 5);
        assert_eq!(code(Kind::Unavailable, Effect::Unknown), 75);
        assert_eq!(code(Kind::Unavailable, Effect::None), 1);
        assert_eq!(code(Kind::Unsupported, Effect::None), 1);
    }
}
