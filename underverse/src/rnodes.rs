//! From a block of a `.rnodes` file to the horde it asks for. Pure; the file's grammar is `crux_core::adf`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use crux_core::adf::rnodes::{self, Block, Provider, RnodesFile};
use crux_core::adf::{At, Code, Diagnostic, SourceMap, Span};

use crate::name::{HordeName, Role};
use crate::spec::{
    Execable, ExternalAddress, HordeSpec, Members, Mount, MountSource, NetworkSpec, PortConnect,
    Program, Protocol, ServerSpec, UserSource, UserSpec,
};
use crate::tag::Tag;

/// The role that a block's rnodes have.
const ROLE: &str = "rnode";
/// Last part of a program that means a rnode of Radix.
const FULCRUM: &str = "fulcrum";

/// What a block is read with.
#[derive(Debug, Clone, Copy)]
pub struct FromRnodes<'a> {
    /// Name of the horde.
    pub name: &'a HordeName,
    /// Name of the backend that will realise it; `myriad` blocks are for any.
    pub backend: &'a str,
    /// Where relative sources of mounts start: absolute.
    pub directory: &'a Path,
    /// The files read, for messages.
    pub files: &'a SourceMap,
}

/// The name of the backend that a file asks for; `default` for a `myriad` block or where there is none.
#[must_use]
pub fn backend_of<'a>(file: &RnodesFile, default: &'a str) -> &'a str {
    match file.blocks.first().map(|block| block.provider.value) {
        None | Some(Provider::Myriad) => default,
        Some(provider) => provider.word(),
    }
}

/// Turns the file's block for this backend into what it asks for.
///
/// # Errors
/// Every finding, with its place: no block for the backend, no count or command, a bad tag, a mount from nowhere.
pub fn from_rnodes(
    file: &RnodesFile,
    request: &FromRnodes<'_>,
) -> Result<HordeSpec, Vec<Diagnostic>> {
    let block = block_for(file, request)?;
    let mut findings = Findings {
        files: request.files,
        found: Vec::new(),
    };
    let count = findings.count(block);
    let program = findings.program(block);
    let mounts = findings.mounts(block, request.directory);
    let added = findings.tags(&block.tags);
    let servers = findings.servers(block);
    let role = Role::new(ROLE).ok();
    let (Some(count), Some(program), Some(role), true) =
        (count, program, role, findings.found.is_empty())
    else {
        return Err(findings.found);
    };
    let execable = Execable {
        count,
        added,
        mounts,
        ..Execable::new(role, program)
    };
    Ok(HordeSpec {
        name: request.name.clone(),
        execables: vec![execable],
        network: NetworkSpec {
            ports: ports(block),
            ..NetworkSpec::default()
        },
        storage: Vec::new(),
        users: users(block),
        servers,
        settings: settings(block),
    })
}

fn block_for<'f>(
    file: &'f RnodesFile,
    request: &FromRnodes<'_>,
) -> Result<&'f At<Block>, Vec<Diagnostic>> {
    let fits = |block: &&At<Block>| {
        let provider = block.provider.value;
        provider == Provider::Myriad || provider.word() == request.backend
    };
    if let Some(block) = file.blocks.iter().find(fits) {
        return Ok(block);
    }
    let (span, message) = match file.blocks.first() {
        Some(block) => (
            block.provider.span,
            format!(
                "this block is for backend {}, and {} was chosen",
                block.provider.word(),
                request.backend
            ),
        ),
        None => (
            Span::default(),
            "no block says where the rnodes come from".to_owned(),
        ),
    };
    let found = request.files.error(Code::UnknownProvider, span, message);
    let expected = format!("`{} {{` or `myriad {{`", request.backend);
    Err(vec![found.expecting(expected)])
}

/// Collects what is wrong while it reads on.
struct Findings<'a> {
    files: &'a SourceMap,
    found: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn push(&mut self, code: Code, span: Span, message: impl Into<String>) {
        self.found.push(self.files.error(code, span, message));
    }

    fn count(&mut self, block: &At<Block>) -> Option<u32> {
        match &block.count {
            Some(count) if count.value > 0 => Some(count.value),
            Some(count) => {
                self.push(
                    Code::OutOfRange,
                    count.span,
                    "a horde has at least one rnode",
                );
                None
            }
            None => {
                self.push(
                    Code::MissingKey,
                    block.provider.span,
                    "the block does not say `n = …`",
                );
                None
            }
        }
    }

    fn program(&mut self, block: &At<Block>) -> Option<Program> {
        let Some(command) = &block.command else {
            self.push(
                Code::MissingKey,
                block.provider.span,
                "the block does not say `cmd = …`",
            );
            return None;
        };
        let Some(first) = command.value.first() else {
            self.push(Code::BadValue, command.span, "the command has no words");
            return None;
        };
        let words = command.value.clone();
        let fulcrum = first.rsplit('/').next() == Some(FULCRUM);
        Some(if fulcrum {
            Program::Fulcrum(words)
        } else {
            Program::Command(words)
        })
    }

    fn mounts(&mut self, block: &At<Block>, directory: &Path) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for mount in &block.mounts {
            match absolute(directory, Path::new(&mount.host.value)) {
                Some(host) => mounts.push(Mount {
                    source: MountSource::Host(host),
                    target: PathBuf::from(&mount.path.value),
                }),
                None => self.push(
                    Code::BadValue,
                    mount.host.span,
                    "the source of a mount does not say where it starts, or climbs above the root",
                ),
            }
        }
        mounts
    }

    fn tags(&mut self, tags: &[At<String>]) -> BTreeSet<Tag> {
        let mut read = BTreeSet::new();
        for tag in tags {
            match Tag::new(tag.value.clone()) {
                Ok(tag) => drop(read.insert(tag)),
                Err(error) => self.push(Code::BadValue, tag.span, error.message()),
            }
        }
        read
    }

    fn servers(&mut self, block: &At<Block>) -> Vec<ServerSpec> {
        let server = |server: &At<rnodes::Server>| ServerSpec {
            name: server.name.value.clone(),
            tags: self.tags(&server.tags),
        };
        block.servers.iter().map(server).collect()
    }
}

/// `path` from `directory` without `.` and `..`; `None` if it has no beginning or climbs above the root.
fn absolute(directory: &Path, path: &Path) -> Option<PathBuf> {
    let joined = directory.join(path);
    if !joined.is_absolute() {
        return None;
    }
    let mut clean = PathBuf::from("/");
    for part in joined.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir if !clean.pop() => return None,
            Component::ParentDir
            | Component::RootDir
            | Component::CurDir
            | Component::Prefix(_) => {}
        }
    }
    Some(clean)
}

fn ports(block: &Block) -> Vec<PortConnect> {
    let port = |expose: &At<rnodes::Expose>| PortConnect {
        external: ExternalAddress::Default,
        external_port: expose.external.value,
        internal_port: expose.internal.value,
        members: Members::Class(expose.class.value.clone()),
        protocol: match expose.carries {
            rnodes::Carries::Tcp => Protocol::Tcp,
            rnodes::Carries::Udp => Protocol::Udp,
        },
    };
    block.exposes.iter().map(port).collect()
}

fn users(block: &Block) -> Vec<UserSpec> {
    let user = |user: &At<rnodes::User>| UserSpec {
        name: user.name.value.clone(),
        source: match user.source.value {
            rnodes::UserSource::Oneself => UserSource::Oneself,
            rnodes::UserSource::Auto => UserSource::Auto,
        },
    };
    block.users.iter().map(user).collect()
}

fn settings(block: &Block) -> BTreeMap<String, Vec<String>> {
    let words = |words: &[At<String>]| words.iter().map(|word| word.value.clone()).collect();
    let settings = block.settings.iter();
    settings
        .map(|setting| (setting.key.value.clone(), words(&setting.words)))
        .collect()
}
