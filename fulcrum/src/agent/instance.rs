//! Starting one instance: files in place, arguments expanded, then the same way as every command.

use std::sync::Arc;

use crux_core::adf::Values;
use crux_wire::keeper::v1::{EnvironmentVariable, User};

use super::access;
use super::context::{Agent, fields};
use super::label::InstanceLabel;
use super::launch::Launch;
use super::materialise::{Materialised, materialise};
use super::paths::rewrite;
use super::reconcile::InstanceId;
use super::wanted::Plan;

/// Starts an execution of an assigned instance and returns its id.
///
/// # Errors
/// The reason, for people; it counts as a failure of the instance.
pub(crate) async fn start(
    agent: &Arc<Agent>,
    plan: &Plan,
    instance: &InstanceId,
) -> Result<String, String> {
    let application = &plan.application;
    let assigned = plan
        .instances
        .iter()
        .find(|known| known.class == instance.class && known.index == instance.index)
        .ok_or("it is not assigned")?;
    let rule = application
        .class(&instance.class)
        .ok_or("its class is unknown")?;
    let pin = application
        .executable(rule)
        .ok_or("no file is pinned for it")?;
    let pins = application.pins(rule);
    let placed = in_place(agent, pins).await?;
    let values = values(agent, plan, instance, assigned.count);
    let (arguments, environment) = application.words(rule, &values)?;
    let args = application
        .builtin(rule)
        .map(str::to_owned)
        .into_iter()
        .chain(
            arguments
                .iter()
                .map(|argument| rewrite(argument, &placed.moved)),
        )
        .collect();
    let env = environment
        .into_iter()
        .map(|(name, value)| EnvironmentVariable {
            name,
            value: rewrite(&value, &placed.moved),
        })
        .collect();
    let mut weaker = placed.weaker;
    let user = user(agent, plan, instance, &mut weaker);
    tell_weaker(agent, &weaker).await;
    let label = InstanceLabel {
        class: instance.class.clone(),
        index: instance.index,
        count: assigned.count,
        spec: application.spec(&instance.class).to_string(),
        generation: plan.generation,
        term: plan.term,
        application: application.document().application.clone(),
    };
    let launch = Launch {
        execution: agent.new_execution(&format!("{}-{}", instance.class, instance.index)),
        instance: format!("{}/{instance}", label.application),
        configuration: label.application.clone(),
        command: rule.command.value.clone(),
        args,
        env,
        user,
        label: label.encode(),
        caller: format!("assignment {}.{}", plan.generation, plan.term),
        ..Launch::default()
    };
    let started = agent.launch(launch, pin, None).await;
    let execution = started.map_err(|status| status.message().to_owned())?;
    agent.tell(
        "instance.started",
        &instance.to_string(),
        &execution.execution,
    );
    Ok(execution.execution.clone())
}

/// Puts the pinned files where the application sees them.
async fn in_place(
    agent: &Arc<Agent>,
    pins: Vec<crux_wire::document::v1::Pin>,
) -> Result<Materialised, String> {
    let agent = Arc::clone(agent);
    let placed = tokio::task::spawn_blocking(move || {
        // What is in the store under another name than its own need not be copied there.
        let pins: Vec<_> = pins
            .into_iter()
            .filter(|pin| pin.digest != agent.own_digest() || !pin.executable)
            .collect();
        materialise(&agent.store, &agent.verifier, &agent.paths, &pins)
    });
    placed.await.map_err(|error| error.to_string())?
}

fn values(agent: &Agent, plan: &Plan, instance: &InstanceId, count: u32) -> Values {
    let mut values = Values::new();
    values
        .set("rnode", agent.me.label.to_string())
        .set("ip", agent.config.host.to_string())
        .set("index", instance.index.to_string())
        .set("count", count.to_string())
        .set("class", instance.class.clone())
        .set(
            "application",
            plan.application.document().application.clone(),
        )
        .set("namespace", agent.me.namespace.to_string());
    values
}

/// The unprivileged user of an instance that asks for one; oneself, and weaker, where that cannot be.
fn user(
    agent: &Agent,
    plan: &Plan,
    instance: &InstanceId,
    weaker: &mut Vec<String>,
) -> Option<User> {
    let application = &plan.application;
    let rule = application.class(&instance.class)?;
    let name = application.user_is_auto(rule)?;
    let user = access::leased(agent, application, &name);
    if user.is_none() {
        weaker.push(format!("user {name} is the rnode's own"));
    }
    user
}

/// Says once what was obtained in weaker form than asked.
async fn tell_weaker(agent: &Agent, weaker: &[String]) {
    for text in weaker {
        if agent
            .weaker
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(text.clone())
        {
            agent.tell("weaker", agent.me.label.as_str(), text);
            agent.note("weaker", fields! { "what": text.clone() }).await;
        }
    }
}
