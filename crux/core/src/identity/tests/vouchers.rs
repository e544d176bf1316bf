//! Whom the root vouches for stays; the denied operator's key, however it is used, brings nobody in.

use super::world::*;
use crate::identity::{
    Denied, Grant, LEAF_BACKDATE_SECONDS, Moment, Novelty, Prefix, Principal, Refusal, Role,
    Vouchers, Window, verify,
};

/// An operator enrolled rnode n1 of stix, and was denied since.
struct Scene {
    world: World,
    throwaway: Key,
    rnode: Key,
    enrolment: Vec<u8>,
    invited: Grant,
    vouchers: Vouchers,
}

fn invited_window() -> Window {
    Window {
        from: NOW.minus(LEAF_BACKDATE_SECONDS),
        until: NOW.plus(DAY),
    }
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new();
        let (throwaway, rnode_key) = (Key::new(), Key::new());
        let invited = invitation("stix", Some("n1"), 1);
        let enrolment = throwaway.certify(&rnode_key, &rnode("stix", "n1", 0), always());
        world.denies.deny(Denied::Key(world.operator.public().id()));
        let mut vouchers = Vouchers::default();
        let closed = Grant {
            claim_by: NOW,
            ..invited.clone()
        };
        let voucher = world.root.certify(&throwaway, &closed, invited_window());
        assert_eq!(vouchers.add(&voucher, &world.charter), Ok(Novelty::New));
        assert_eq!(vouchers.add(&voucher, &world.charter), Ok(Novelty::Known));
        Self {
            world,
            throwaway,
            rnode: rnode_key,
            enrolment,
            invited,
            vouchers,
        }
    }

    /// A chain for `key` as the operator's key can make it, with the invitation it pleases.
    fn by_operator(
        &self,
        key: &Key,
        grant: &Grant,
        enrolment: Vec<u8>,
        (throwaway, invited): (&Key, &Grant),
    ) -> Vec<Vec<u8>> {
        let window = invited_window();
        let mut chain = vec![
            key.certify(&Key::new(), &leaf(grant), leaf_window(NOW)),
            enrolment,
            self.world.operator.certify(throwaway, invited, window),
        ];
        chain.extend(self.world.operator_chain());
        chain
    }

    /// What holders of the vouchers make of a chain that a denial broke.
    fn judge(&self, chain: &[Vec<u8>]) -> Result<Principal, Refusal> {
        let world = &self.world;
        let judge =
            |chain: &[Vec<u8>]| verify(chain, &world.charter, &world.denies, Moment::Now(NOW));
        let plain = judge(chain);
        assert!(matches!(plain, Err(Refusal::Denied(_))), "{plain:?}");
        let below = self.vouchers.below(chain);
        below
            .iter()
            .map(|chain| judge(chain))
            .next()
            .unwrap_or(plain)
    }
}

#[test]
fn whom_the_root_vouches_for_is_judged_as_before() {
    let scene = Scene::new();
    let of_n1 = rnode("stix", "n1", 0);
    let invited = (&scene.throwaway, &scene.invited);
    let shown = scene.by_operator(&scene.rnode, &of_n1, scene.enrolment.clone(), invited);
    let seen = scene.judge(&shown).expect("it stays");
    assert_eq!(seen.rnode(), Some(scene.rnode.public().rnode_id()));
    let claim = seen.enrolment.expect("an enrolment").claim;
    assert_eq!(claim.invitation, scene.throwaway.public().invitation_id());
    // Denied by itself, or its invitation, it goes.
    let mut scene = scene;
    let denies = scene.world.denies.clone();
    for denied in [
        Denied::Rnode(scene.rnode.public().rnode_id()),
        Denied::Invitation(scene.throwaway.public().invitation_id()),
    ] {
        scene.world.denies.deny(denied);
        assert!(matches!(scene.judge(&shown), Err(Refusal::Denied(_))));
        scene.world.denies = denies.clone();
    }
}

#[test]
fn a_stolen_operator_key_enrols_nobody_whatever_it_dates_and_whomever_it_knows() {
    let scene = Scene::new();
    // An invitation of its own, back-dated as it likes: no voucher is for it.
    let (thief, other) = (Key::new(), Key::new());
    let of_thief = rnode("stix", "n1", 0);
    let early = Window {
        from: NOW.minus(LEAF_BACKDATE_SECONDS),
        ..always()
    };
    let enrolment = other.certify(&thief, &of_thief, early);
    let invited = (&other, &scene.invited);
    let shown = scene.by_operator(&thief, &of_thief, enrolment, invited);
    assert!(matches!(scene.judge(&shown), Err(Refusal::Denied(_))));

    // With a rnode that kept the throwaway key it can certify that key anew, as wide as it likes: the voucher counts.
    let wide = Grant {
        prefix: Prefix::EVERYTHING,
        uses: 9,
        role: invitation("stix", None, 9).role,
        ..scene.invited.clone()
    };
    let attempts = [
        (rnode("stix", "n1", 1), always()),
        (rnode("stix", "n2", 0), always()),
        (rnode("base", "n1", 0), always()),
        // Claimed after the root vouched.
        (
            rnode("stix", "n1", 0),
            Window {
                from: NOW.plus(1),
                ..always()
            },
        ),
    ];
    for (grant, window) in attempts {
        let enrolment = scene.throwaway.certify(&thief, &grant, window);
        let shown = scene.by_operator(&thief, &grant, enrolment, (&scene.throwaway, &wide));
        assert!(scene.judge(&shown).is_err(), "{grant:?}");
    }
}

#[test]
fn a_voucher_is_the_roots_and_for_rnodes() {
    let world = World::new();
    let key = Key::new();
    let mut vouchers = Vouchers::default();
    let window = invited_window();
    let mut refuse = |der: &[u8]| assert!(vouchers.add(der, &world.charter).is_err());
    refuse(
        &world
            .operator
            .certify(&key, &invitation("stix", None, 1), window),
    );
    refuse(&Key::new().certify(&key, &invitation("stix", None, 1), window));
    refuse(&world.root.certify(&key, &tool_invitation("stix"), window));
    refuse(
        &world
            .root
            .certify(&key, &operator_invitation("stix"), window),
    );
    refuse(&world.root.certify(&key, &host("stix"), window));
    refuse(b"nothing");
    assert!(vouchers.is_empty());
    let pool = Role::Invitation {
        enrols: crate::identity::Enrols::Rnode,
        label: None,
    };
    let before = crate::digest::Digest::of(b"denials");
    assert_eq!(vouchers.mark(before), before);
    let grant = Grant {
        role: pool,
        ..invitation("stix", None, 3)
    };
    let der = world.root.certify(&key, &grant, window);
    vouchers.add(&der, &world.charter).expect("it counts");
    assert_ne!(vouchers.mark(before), before);
    // Under another owner, or a root that did not carry it over, it is worth nothing.
    vouchers.settle(&World::new().charter);
    assert!(vouchers.is_empty());
}
