//! `radix up`: builds, pins, signs, asks the base, and watches until all is ready.

use std::time::{Duration, Instant};

use crux_wire::document::v1::{Document, SignedDocument};
use crux_wire::fulcrum::v1::{HordeState, PutDocumentRequest};
use prost::Message as _;
use underverse_local::limits::Machine;

use crate::application::Described;
use crate::args;
use crate::base_start::{self, Ourselves, StartRight};
use crate::connection::{Base, Namespace};
use crate::document;
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::operator;
use crate::output::{self, Progress};
use crate::prepare;
use crate::proposal::Proposal;
use crate::room;
use crate::view::{Exposure, Status};

/// How often the namespace is looked at while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(60);

/// How long a base that is about to end may take: 20 s, four times what its keeper gives what runs there.
const ENDING_WAIT_MAX: Duration = Duration::from_secs(20);

/// Runs the command.
pub(crate) async fn run(args: args::Up) -> Outcome<()> {
    let described = Described::load(&args.target.dir, &args.backend)?;
    let home = Home::open()?;
    described.check_backend()?;
    let running = Base::find(&home).await?;
    // What a base that died left behind needs no more room; how much that is, it says when it is back.
    let first = running.is_none() && !home.base().join(fulcrum::config::FILE).exists();
    if first {
        room::check_machine(described.rnodes_wanted(), 0, &Machine::read())?;
    }
    let ourselves = Ourselves::stored(&home)?;
    let draft = prepare::draft(&home, &described, &ourselves)?;
    // A base that died left its forwarders running; only it can tell them from strangers.
    if running.is_some() || first {
        described.check_ports(running.as_ref()).await?;
    }
    if first {
        room::check(&home, &draft, draft.rnodes_wanted)?;
    }
    let base = base_start::ensure(&home, &ourselves).await?;
    let namespace = draft.namespace.clone();
    let held = base.itself().held(&namespace).await?;
    let hosts = held.hosts;
    refuse_unhosted(&home, &namespace, hosts)?;
    let held_back = held.held_back;
    let present = held.document.filter(|_| held.found);
    let present = present
        .as_ref()
        .map(decode)
        .transpose()?
        .filter(|document| !document.dissolved);
    let draft = document::keep_builtins(draft, present.as_ref());
    refuse_stale(
        &home,
        &described,
        (present.as_ref(), &draft),
        args.take_over,
    )?;

    if let Some(present) = present
        .as_ref()
        .filter(|present| present.digest == draft.digest && !held_back)
    {
        home.note_tree(&described.directory, &namespace, present.generation)?;
        if !hosts {
            // The base has another identity than when it was given this.
            put(&home, &base, present, args.take_over).await?;
        }
        return unchanged(&base, present, &described, &args).await;
    }
    let held = room::held(present.as_ref(), &base.hordes().await?);
    room::check_machine(draft.rnodes_wanted, held, &Machine::read())?;
    room::check(&home, &draft, draft.rnodes_wanted.saturating_sub(held))?;
    let proposal = Proposal::make(Some(&base), &described, &draft, present.as_ref()).await?;
    proposal.print();
    if held_back {
        output::line("  what it runs by is held back, its signer being denied: it is signed again");
    }
    if proposal.stops() > 0 {
        output::ask("Apply this plan?", args.yes)?;
    }
    let generation = home
        .generation(&namespace)
        .max(present.as_ref().map_or(0, |p| p.generation))
        + 1;
    let document = Document {
        generation,
        base: present.as_ref().map_or(0, |present| present.generation),
        signed_unix_ms: crate::clock::unix_ms(),
        ..draft
    };
    home.note_asked(&described.directory, &namespace, &document.digest)?;
    // Somebody else may have asked for the same meanwhile: then theirs is the generation to wait for.
    let (base, generation) = hand_over(&home, &ourselves, base, &document, args.take_over).await?;
    home.note_generation(&namespace, generation)?;
    home.note_tree(&described.directory, &namespace, generation)?;
    if args.no_wait {
        output::line(&format!("{namespace} generation {generation} accepted"));
        return Ok(());
    }
    let status = wait(&base, &namespace, generation, args.timeout).await?;
    announce(&base, &status, &described).await;
    Ok(())
}

/// Hands over a document to the base, or to the next one where that is about to end, and says which it was.
///
/// `down` ends the base under the same right: it comes before, and there is another base, or after, and sees what runs.
async fn hand_over(
    home: &Home,
    ourselves: &Ourselves,
    mut base: Base,
    document: &Document,
    take_over: bool,
) -> Outcome<(Base, u64)> {
    let right = StartRight::take(home).await?;
    let begin = Instant::now();
    let mut last = None;
    loop {
        if let Some(generation) = offer(home, &base, document, take_over).await? {
            return Ok((base, generation));
        }
        if begin.elapsed() > ENDING_WAIT_MAX {
            let stuck = || Failure::failed("the base is about to end, and does not");
            return Err(last.unwrap_or_else(stuck).hint("run `radix up` again"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        // While it ends it may answer still, and break off in the middle.
        match base_start::ensure_under(home, ourselves, &right).await {
            Ok(next) => base = next,
            Err(failure) => last = Some(failure),
        }
        if home.generation(&document.namespace) >= document.generation {
            return Err(changed_meanwhile(Failure::failed(format!(
                "{} was ended meanwhile",
                document.namespace
            ))));
        }
    }
}

/// Signs and hands over a document; returns the generation under which it is held.
pub(crate) async fn put(
    home: &Home,
    base: &Base,
    document: &Document,
    take_over: bool,
) -> Outcome<u64> {
    let generation = offer(home, base, document, take_over).await?;
    generation.ok_or_else(|| Failure::failed("the base is about to end").hint("try again"))
}

/// As [`put`]; `None` if the base is about to end, or has ended.
async fn offer(
    home: &Home,
    base: &Base,
    document: &Document,
    take_over: bool,
) -> Outcome<Option<u64>> {
    let described = match base.itself().describe().await {
        Ok(described) => described,
        Err(_) if Base::find(home).await?.is_none() => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let signed = operator::sign(home, document)?;
    let invite_grant = operator::host_grant(home, &described, &document.namespace)?;
    let request = PutDocumentRequest {
        document: Some(signed),
        take_over,
        invite_grant,
    };
    let status = match base.itself().fulcrum().put_document(request).await {
        Ok(reply) => return Ok(Some(reply.into_inner().generation)),
        Err(status) => status,
    };
    if status.message().starts_with(fulcrum::agent::EXITING) {
        return Ok(None);
    }
    let failure = Failure::status("hand over the document", &status);
    if status.message().starts_with("stale") {
        return Err(changed_meanwhile(failure));
    }
    Err(failure)
}

fn changed_meanwhile(failure: Failure) -> Failure {
    failure
        .with_fault(Fault::Refused)
        .hint("somebody changed the namespace meanwhile; look at `radix plan`, then try again")
}

/// The document inside a signed one, as the base gave it to us.
pub(crate) fn decode(signed: &SignedDocument) -> Outcome<Document> {
    Document::decode(signed.payload.as_slice()).map_err(|error| {
        Failure::failed("the base holds a document that cannot be read").because(&error)
    })
}

/// Hosting a namespace takes a grant of the root, which a base is given once: an operator who was invited cannot.
fn refuse_unhosted(home: &Home, namespace: &str, hosts: bool) -> Outcome<()> {
    if hosts || operator::owner(home)?.has_root() {
        return Ok(());
    }
    Err(Failure::new(
        Fault::Refused,
        format!("{namespace} is new to this base, and letting it host that takes the owner's root key, which is not here"),
    )
    .hint("its first `radix up` is made where the root key is; then any operator of it can go on"))
}

/// Refuses a directory that is older than what runs.
fn refuse_stale(
    home: &Home,
    described: &Described,
    documents: (Option<&Document>, &Document),
    take_over: bool,
) -> Outcome<()> {
    match stale(home, described, documents).filter(|_| !take_over) {
        None => Ok(()),
        Some(why) => Err(Failure::new(Fault::Refused, why)
            .hint("apply that directory, or pass --take-over to replace it by this one")),
    }
}

/// How a directory is older than what runs, if it is.
pub(crate) fn stale(
    home: &Home,
    described: &Described,
    (present, draft): (Option<&Document>, &Document),
) -> Option<String> {
    // The very same, whoever applied it: nothing is replaced.
    let present = present.filter(|present| present.digest != draft.digest)?;
    let ours = home
        .tree_generation(&described.directory)
        .filter(|generation| *generation > 0);
    // Asked for by an `up` that died before it could note that it was accepted.
    let asked = home.tree_asked(&described.directory);
    let is_ours = ours == Some(present.generation) || asked.as_ref() == Some(&present.digest);
    if is_ours {
        return None;
    }
    let other = home
        .tree_of_generation(&present.namespace, present.generation)
        .unwrap_or_else(|| "another directory or by another operator".to_owned());
    let ours = ours.map_or_else(
        || "was never applied".to_owned(),
        |generation| format!("was last applied as generation {generation}"),
    );
    Some(format!(
        "{} {ours}, but {} runs generation {}, applied from {other}",
        described.directory.display(),
        present.namespace,
        present.generation
    ))
}

/// The second `up`: waits until what was asked before is there, and says that nothing changed.
async fn unchanged(
    base: &Base,
    present: &Document,
    described: &Described,
    args: &args::Up,
) -> Outcome<()> {
    if !args.no_wait {
        let status = wait(base, &present.namespace, present.generation, args.timeout).await?;
        output::line(&format!(
            "{} generation {}: nothing to change",
            present.namespace, present.generation
        ));
        announce(base, &status, described).await;
        return Ok(());
    }
    output::line(&format!(
        "{} generation {}: nothing to change",
        present.namespace, present.generation
    ));
    Ok(())
}

/// Why waiting can end before all is ready.
fn refused(horde: &HordeState) -> Option<Failure> {
    let exposure = horde
        .exposures
        .iter()
        .find(|exposure| exposure.state == "refused");
    if let Some(exposure) = exposure {
        let message = format!("cannot expose {}: {}", exposure.address, exposure.message);
        return Some(Failure::new(Fault::Partial, message).hint(
            "free the port or change `expose` in the .rnodes file, then run `radix up` again",
        ));
    }
    (horde.phase == "refused").then(|| Failure::new(Fault::Unsatisfiable, horde.message.clone()))
}

/// Waits until `generation` is settled.
async fn wait(base: &Base, namespace: &str, generation: u64, limit: Duration) -> Outcome<Status> {
    let begin = Instant::now();
    let mut progress = Progress::default();
    let mut last = String::from("the base has not begun");
    let mut class = String::from("CLASS");
    let mut connection = None;
    loop {
        let horde = base
            .hordes()
            .await?
            .into_iter()
            .find(|horde| horde.namespace == namespace);
        if let Some(horde) = horde.filter(|horde| horde.generation >= generation) {
            if let Some(failure) = refused(&horde) {
                return Err(failure);
            }
            let known = Namespace {
                name: namespace.to_owned(),
                horde: horde.clone(),
            };
            if connection.is_none() {
                connection = base.any_of(&known).await.ok();
            }
            last = match &connection {
                None => format!("{} of the rnodes started", horde.rnodes.len()),
                Some(rnode) => match rnode.status().await {
                    Ok(reply) => {
                        let mut status = Status::from_wire(&reply, Some(&horde));
                        if status.settled {
                            // Only then is it worth looking at every process.
                            crate::host_pid::translate(&mut status, base.home());
                        }
                        if status.generation >= generation && status.settled {
                            return Ok(status);
                        }
                        if let Some(late) = late(&status) {
                            class = late;
                        }
                        blocking(&status)
                    }
                    Err(failure) => {
                        connection = None;
                        failure.to_string()
                    }
                },
            };
        }
        progress.show(&last);
        if begin.elapsed() > limit {
            progress.clear();
            return Err(
                Failure::new(Fault::Partial, format!("not ready in time: {last}"))
                    .hint(format!(
                        "it goes on without us; `radix status -n {namespace}` shows how far it is"
                    ))
                    .hint(format!(
                        "`radix logs -n {namespace} {class}` shows what instances say"
                    )),
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The class that is not ready, if one can be told.
fn late(status: &Status) -> Option<String> {
    let mut late = status.classes.iter().filter(|one| one.ready < one.wanted);
    late.next().map(|class| class.class.clone())
}

/// What is waited for, in one line.
fn blocking(status: &Status) -> String {
    if let Some(problem) = status.problems.first() {
        return problem.clone();
    }
    let waiting: Vec<_> = status
        .classes
        .iter()
        .filter(|class| class.ready < class.wanted)
        .map(|class| format!("{} {}/{}", class.class, class.ready, class.wanted))
        .collect();
    let shut = status
        .exposures
        .iter()
        .find(|exposure| exposure.state != "open");
    if let (true, Some(exposure)) = (waiting.is_empty(), shut) {
        format!("waiting for {}: {}", exposure.address, exposure.message)
    } else if waiting.is_empty() {
        format!(
            "{} of {} rnodes",
            status.rnodes_running, status.rnodes_wanted
        )
    } else {
        format!("waiting for {}", waiting.join(", "))
    }
}

/// What runs now, and what to type next.
async fn announce(base: &Base, status: &Status, described: &Described) {
    let classes = status
        .classes
        .iter()
        .map(|class| format!("{} {}", class.ready, class.class));
    let plural = if status.rnodes_running == 1 { "" } else { "s" };
    let rnodes = format!("{} rnode{plural}", status.rnodes_running);
    let parts: Vec<_> = std::iter::once(rnodes).chain(classes).collect();
    output::line(&format!(
        "{} is ready: {}",
        status.namespace,
        parts.join(", ")
    ));
    for weaker in &status.weaker {
        output::line(&format!("  weaker than asked: {weaker}"));
    }
    output::line("");
    output::line("next:");
    let for_connections = |exposure: &&Exposure| !exposure.address.ends_with("/udp");
    for exposure in status.exposures.iter().filter(for_connections) {
        output::line(&format!("  curl http://{}/", exposure.address));
    }
    // It is ready, whatever the base answers now; with its name, each of these is right.
    let alone = base.hordes().await.is_ok_and(|hordes| hordes.len() == 1);
    let which = match alone {
        true => String::new(),
        false => format!(" -n {}", status.namespace),
    };
    output::line(&format!("  radix status{which}"));
    if let Some(class) = status.classes.last() {
        output::line(&format!("  radix logs{which} {} -f", class.class));
    }
    output::line(&format!("  radix down {}", described.shown.display()));
}
