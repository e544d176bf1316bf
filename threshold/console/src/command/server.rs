//! `radix server`: the servers of this machine, where their tags come from, and an administrator's say in it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use underverse::{Error, Kind, Tag, UnderverseAdmin as _};
use underverse_local::{LocalAdmin, ServerTags, Settings};

use crate::args::ServerCommand;
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output::{self, Format};

#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    found: BTreeSet<String>,
    given: BTreeSet<String>,
    taken: BTreeSet<String>,
}

impl From<ServerTags> for Shown {
    fn from(tags: ServerTags) -> Self {
        Self {
            name: tags.name,
            found: tags.found,
            given: tags.given,
            taken: tags.taken,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(command: ServerCommand) -> Outcome<()> {
    match command {
        ServerCommand::List { format } => list(&admin(Home::locate()?.root()), format),
        ServerCommand::Tag {
            server,
            add,
            remove,
        } => {
            let (add, remove) = (tags(&add)?, tags(&remove)?);
            let admin = admin(Home::open()?.root());
            let tagged = admin.tag(&server, &add, &remove).await;
            tagged.map_err(|error| failure(&error))?;
            output::talk("containers that run keep the tags they were started with");
            Ok(())
        }
    }
}

fn admin(home: impl Into<PathBuf>) -> LocalAdmin {
    LocalAdmin::new(underverse_local::Home::new(home), Settings::own_servers())
}

fn tags(words: &[String]) -> Outcome<Vec<Tag>> {
    let tags: Result<_, Error> = words.iter().map(Tag::new).collect();
    tags.map_err(|error| failure(&error))
}

fn list(admin: &LocalAdmin, format: Format) -> Outcome<()> {
    let servers = admin.server_tags().map_err(|error| failure(&error))?;
    let shown: Vec<Shown> = servers.into_iter().map(Shown::from).collect();
    if format == Format::Json {
        return output::json(&shown);
    }
    let words = |tags: &BTreeSet<String>| match tags.is_empty() {
        true => "-".to_owned(),
        false => tags
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" "),
    };
    let row = |one: &Shown| {
        vec![
            one.name.clone(),
            words(&one.found),
            words(&one.given),
            words(&one.taken),
        ]
    };
    let rows: Vec<_> = shown.iter().map(row).collect();
    output::table(&["SERVER", "FOUND", "GIVEN", "TAKEN"], &rows);
    Ok(())
}

fn failure(error: &Error) -> Failure {
    match error.kind() {
        Kind::Invalid | Kind::NotFound => Failure::usage(error.chain()),
        _ => Failure::failed(error.chain()),
    }
}
