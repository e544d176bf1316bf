//! For authors of backends: what each would write again. None of it is needed to keep the contract.
//!
//! [`Hordes`] keeps hordes below a root, [`Journal`] their events, [`kept`] keeps what was asked and which generation was seen, [`process`] runs containers
//! that are processes, and [`plain_effective`] tells what a backend without a network of its own obtained.

mod hordes;
mod journal;
pub mod kept;
pub mod process;

pub use hordes::Hordes;
pub use journal::Journal;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt as _;
use underverse::{
    Effect, Effective, EffectiveNetwork, EffectiveRole, End, Error, Execable, Failure, Generation,
    HordeName, HordeSpec, Kind, Obtained, Progress, ProgressStream, Role, Strength, Tag, Weaker,
};

/// What a command finds in its environment (`command.environment` of the contract), beside what its execable adds.
#[must_use]
pub fn environment(
    horde: &HordeName,
    ordinal: u32,
    execable: &Execable,
    (server, tags): (&str, &BTreeSet<Tag>),
) -> BTreeMap<String, String> {
    let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
    let facts = [
        ("RADIX_HORDE", horde.to_string()),
        ("RADIX_NAME", format!("n{ordinal}")),
        ("RADIX_ROLE", execable.role.to_string()),
        ("RADIX_ORDINAL", ordinal.to_string()),
        ("RADIX_SERVER", server.to_owned()),
        ("RADIX_TAGS", tags.join(" ")),
    ];
    let mut environment = execable.env.clone();
    environment.extend(facts.map(|(name, value)| (name.to_owned(), value)));
    environment
}

/// A pass that tells its end and no steps: an error of `work` that changed nothing is a refusal, another is not known;
/// past `deadline`, what `late` says was obtained.
pub fn pass<'a>(
    deadline: Duration,
    work: impl Future<Output = Result<End, Error>> + Send + 'a,
    late: impl FnOnce() -> Effective + Send + 'a,
) -> ProgressStream<'a> {
    let end = async move {
        let end = match tokio::time::timeout(deadline, work).await {
            Ok(Ok(end)) => end,
            Ok(Err(error)) if error.what_changed() == Effect::None => End::Refused(error),
            Ok(Err(error)) => End::Unknown(error),
            Err(_) => {
                let message = format!("{} s have passed", deadline.as_secs_f32());
                let error = Error::new(Kind::DeadlineExceeded, "finish in time", message)
                    .effect(Effect::Unknown);
                End::Partial(
                    late(),
                    vec![Failure {
                        subject: "the pass".to_owned(),
                        error,
                    }],
                )
            }
        };
        Progress::End(Box::new(end))
    };
    Box::pin(end.into_stream())
}

/// What was obtained of `kept` by a backend that has containers and nothing else; `obtained` counts those of a role.
#[must_use]
pub fn plain_effective(
    name: &HordeName,
    kept: Option<&(Generation, HordeSpec)>,
    obtained: impl Fn(&Role) -> u32,
) -> Effective {
    let absent = || Strength::Absent("this backend leaves the network as it is".to_owned());
    let open = || Obtained {
        value: false,
        strength: absent(),
    };
    let asked = kept.map(|(_, spec)| &spec.network);
    let mut weaker = Vec::new();
    if let Some(network) = asked {
        let restrictions = [
            (network.horde_private, "horde-private"),
            (network.flock_private, "flock-private"),
            (
                network.external_connections_max.is_some(),
                "external-connection-limit",
            ),
        ];
        let obtained = "nothing: this backend leaves the network as it is";
        weaker.extend(
            restrictions
                .into_iter()
                .filter(|(asked, _)| *asked)
                .map(|(_, what)| Weaker {
                    asked: what.to_owned(),
                    obtained: obtained.to_owned(),
                }),
        );
    }
    let role = |execable: &Execable| {
        let obtained = obtained(&execable.role);
        let short = obtained < execable.count;
        EffectiveRole {
            role: execable.role.clone(),
            wanted: execable.count,
            obtained,
            shortfall: short
                .then(|| format!("{} ended, or not started yet", execable.count - obtained)),
        }
    };
    Effective {
        name: name.clone(),
        generation: kept.map_or_else(Generation::default, |(generation, _)| *generation),
        roles: kept.map_or_else(Vec::new, |(_, spec)| {
            spec.execables.iter().map(role).collect()
        }),
        network: EffectiveNetwork {
            horde_private: open(),
            flock_private: open(),
            horde_connected: Obtained {
                value: true,
                strength: Strength::Weak("they share this machine".to_owned()),
            },
            external_connections_max: Obtained {
                value: None,
                strength: absent(),
            },
            ports: Vec::new(),
            probes: Vec::new(),
        },
        storage: Vec::new(),
        weaker,
    }
}
