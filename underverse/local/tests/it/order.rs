//! In whatever order a pass starts what it may start at once, the same comes of it.

use std::collections::BTreeSet;

use crux_net::order::Order;
use underverse::{Effective, HordeSpec, Keep, Running, Underverse as _, finish};
use underverse_local::{Local, Subject};

use crate::fake::{World, generation, name, realised, spec};
use crate::realise::door;

const SEEDS: u64 = 32;
const COUNT: u32 = 9;

/// The backend that starts in this order.
fn ordered(world: &World, order: Order) -> Local {
    let mut settings = world.settings();
    settings.order = order;
    world.local_with(settings)
}

fn asked(count: u32) -> HordeSpec {
    let mut spec = spec(count);
    spec.network.ports = vec![door(8080), door(8081), door(8082)];
    spec
}

/// Ordinals in the order in which their cells were started.
fn started(world: &World) -> Vec<u32> {
    let table = world.base.table();
    let ordinal = |start: &underverse_local::Start| match start.label.subject {
        Subject::Cell { ordinal } => Some(ordinal),
        Subject::Forward { .. } => None,
    };
    table.starts.iter().filter_map(ordinal).collect()
}

/// What is told, without pids and directories, which are of one run.
async fn told(local: &Local) -> (Vec<Running>, Effective) {
    let mut running = local.running(&name()).await.unwrap();
    for one in &mut running {
        (one.pid, one.directory) = (None, None);
    }
    (running, local.effective(&name()).await.unwrap())
}

/// Realises, heals, grows and shrinks; what was told after each, and the order of the first starts.
async fn life(order: Order) -> (Vec<(Vec<Running>, Effective)>, Vec<u32>) {
    let world = World::new();
    let local = ordered(&world, order);
    realised(&local, 1, &asked(COUNT)).await;
    let first = started(&world);
    let mut all = vec![told(&local).await];
    for ordinal in [2, 5, 8] {
        world.base.kill(ordinal);
    }
    realised(&local, 1, &asked(COUNT)).await;
    all.push(told(&local).await);
    for (number, count) in [(2, COUNT + 4), (3, 2)] {
        realised(&local, number, &asked(count)).await;
        all.push(told(&local).await);
    }
    let end = finish(local.dissolve(generation(4), &name(), Keep::Nothing)).await;
    assert!(end.is_done(), "{order:?}: {end:?}");
    assert_eq!(world.base.cells(), [0_u32; 0], "{order:?}");
    (all, first)
}

// Shows in part: HRD-04
#[tokio::test(start_paused = true)]
async fn whatever_the_order_of_starts_the_same_is_obtained() {
    let (expected, _) = life(Order::default()).await;
    let mut orders = BTreeSet::new();
    for seed in 0..SEEDS {
        let order = Order::seeded(seed);
        let (got, first) = life(order).await;
        assert_eq!(got, expected, "seed {seed}");
        assert_eq!(first, order.arrange((1..=COUNT).collect()), "seed {seed}");
        orders.insert(first);
    }
    assert!(
        orders.len() > 28,
        "{} orders of {SEEDS} seeds",
        orders.len()
    );
}
