//! `--ground`: what the conformance suite asks of a plug-in's own program, in processes apart from the backend's.
//!
//! ```text
//! --ground program|listener PORT        what containers run: kind, then one word a line
//! --ground exposure DIR NUMBER          server, source, bind, kind and thin, one a line
//! --ground taker PORT memory|processes|cpu NUMBER     likewise, of what tries to take so much; cpu in milliseconds
//! --ground reach DIR ID|- ADDRESS       what is answered; nothing if there is no connection
//! --ground exchange DIR ID|- ADDRESS TEXT     what is answered to a datagram; nothing if nothing is
//! --ground hold DIR ADDRESS ID…         how many of the connections were answered, all kept at once
//! --ground resolve DIR ID NAME          the addresses of a name, one a line, each with the milliseconds it may be kept
//! --ground internet DIR                 the address that stands for it
//! --ground addresses                    other addresses of the substrate, one a line
//! --ground inventory|sweep DIR
//! --ground remove DIR ID
//! --ground inside DIR ID PATH
//! --ground environment DIR ID
//! ```

use std::net::SocketAddr;
use std::path::Path;

use underverse::{
    ContainerId, Generation, Program, Role, Running, RunningState, StorageExposure, StorageKind,
};
use underverse_conformance::{Below, Cannot, Take, Vantage};

/// How a ground says that it has no such thing, on the first line.
pub(crate) const NOT_OFFERED: &str = "not offered: ";

/// Stands for the id of a container where a connection comes from outside.
pub(crate) const NOBODY: &str = "-";

/// Answers one question of the suite.
pub(super) async fn run(below: Option<&dyn Below>, words: &[&str]) -> Result<String, String> {
    let below = below.ok_or("this program has no ground for the conformance suite")?;
    let answer = match *words {
        ["program"] => Ok(program(&below.program())),
        ["listener", port] => {
            let port = port.parse().map_err(|_| "no port".to_owned())?;
            below
                .listener(port)
                .map(|found| program(&found))
                .ok_or(Cannot::NotOffered("no program listens"))
        }
        ["exposure", directory, number] => {
            let number = number.parse().map_err(|_| "no number".to_owned())?;
            let found = below.exposure(Path::new(directory), number);
            found
                .map(|found| exposure(&found))
                .ok_or(Cannot::NotOffered("no storage is exposed"))
        }
        ["taker", port, kind, number] => {
            let port = port.parse().map_err(|_| "no port".to_owned())?;
            let what = Take::of_words(kind, number).ok_or("nothing that can be taken")?;
            below
                .taker(port, what)
                .map(|found| program(&found))
                .ok_or(Cannot::NotOffered("no program takes anything"))
        }
        ["reach", directory, id, to] => {
            let to = address(to)?;
            let inside = named(id)?;
            let from = vantage(&inside);
            below.reach(Path::new(directory), from, to).await.map(lines)
        }
        ["exchange", directory, id, to, text] => {
            let to = address(to)?;
            let inside = named(id)?;
            let from = vantage(&inside);
            let directory = Path::new(directory);
            below.exchange(directory, from, (to, text)).await.map(lines)
        }
        ["hold", directory, to, ref from @ ..] => {
            let held = below.hold(Path::new(directory), from, address(to)?).await;
            held.map(|count| lines([count]))
        }
        ["resolve", directory, id, name] => {
            let directory = Path::new(directory);
            let found = below.resolve(directory, &named(id)?, name).await;
            found.map(lines)
        }
        ["internet", directory] => below
            .internet(Path::new(directory))
            .map(|found| lines([found]))
            .ok_or(Cannot::NotOffered("nothing stands for the internet")),
        ["addresses"] => Ok(lines(below.other_addresses())),
        ["inventory", directory] => below.inventory(Path::new(directory)).await.map(lines),
        ["sweep", directory] => {
            below.sweep(Path::new(directory));
            Ok(String::new())
        }
        ["remove", directory, id] => below
            .remove(Path::new(directory), id)
            .await
            .map(|()| String::new()),
        ["inside", directory, id, path] => {
            let path = below.inside(Path::new(directory), &named(id)?, path).await;
            path.map(|path| format!("{}\n", path.display()))
        }
        ["environment", directory, id] => {
            let found = below.environment(Path::new(directory), &named(id)?).await;
            found.map(|found| lines(found.iter().map(|(name, value)| format!("{name}={value}"))))
        }
        _ => return Err("--ground is for the conformance suite".to_owned()),
    };
    match answer {
        Ok(text) => Ok(text),
        Err(Cannot::NotOffered(reason)) => Ok(format!("{NOT_OFFERED}{reason}\n")),
        Err(Cannot::Failed(reason)) => Err(reason),
    }
}

/// Where somebody looks from who is named so.
fn vantage(named: &Running) -> Vantage<'_> {
    if named.id.as_str() == NOBODY {
        Vantage::Outside
    } else {
        Vantage::Inside(named)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "no address".to_owned())
}

fn lines<T: std::fmt::Display>(of: impl IntoIterator<Item = T>) -> String {
    of.into_iter().map(|line| format!("{line}\n")).collect()
}

fn program(of: &Program) -> String {
    let kind = match of {
        Program::Fulcrum(_) => "fulcrum",
        Program::Command(_) => "command",
    };
    format!("{kind}\n{}", lines(of.words()))
}

fn exposure(of: &StorageExposure) -> String {
    let kind = match of.kind {
        StorageKind::FileTree => "file-tree",
        StorageKind::Volume => "volume",
    };
    let thin = if of.thin { "thin" } else { "thick" };
    lines([
        of.server.as_str(),
        of.source.as_str(),
        of.bind.as_str(),
        kind,
        thin,
    ])
}

/// A container of which only the id is known.
fn named(id: &str) -> Result<Running, String> {
    Ok(Running {
        id: ContainerId::from_backend(id),
        ordinal: 0,
        label: String::new(),
        role: Role::new("unknown").map_err(|error| error.to_string())?,
        server: String::new(),
        address: None,
        tags: std::collections::BTreeSet::new(),
        state: RunningState::Started,
        generation: Generation::default(),
        pid: None,
        directory: None,
    })
}
