//! The owner over time: denials, new roots, the recovery key.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crux_core::identity::{Denied, Refusal, Role, Who};
use crux_net::identity::{Error, GrantTerms, OwnerStore, Report, RnodeIdentity};

use crate::fixture::{World, label};
use crate::identity::chain_judged;

#[test]
fn a_denial_is_kept_passed_on_and_judged_by_each_for_itself() {
    let world = World::new();
    let (n1, n2, n3) = (
        world.rnode("stix", "n1"),
        world.rnode("stix", "n2"),
        world.rnode("stix", "n3"),
    );
    let owner = &world.owner;
    let shown = n3.credentials().expect("credentials").chain();
    let shown = shown.expect("a chain");
    assert!(chain_judged(&n1, &n3).is_ok() && chain_judged(&n2, &n3).is_ok());
    let too_long = "x".repeat(257);
    assert!(owner.deny(Vec::new(), "nobody").is_err());
    assert!(owner.deny(vec![Denied::Rnode(n3.id())], &too_long).is_err());
    owner
        .deny(vec![Denied::Rnode(n3.id())], "sold")
        .expect("denied");
    // Another process of this user knows it too.
    let again = OwnerStore::open(&world.dir.join("home"));
    let again = again.expect("it opens").expect("it is there");
    assert_eq!(again.trust().notices(), owner.trust().notices());
    assert_eq!(again.trust().notices().len(), 1);

    let mut authority = owner.trust().authority();
    let taken = n1.trust().take_authority(&authority).expect("kept");
    assert!(taken.changed && taken.refused.is_empty());
    let taken = n1.trust().take_authority(&authority).expect("kept");
    assert!(!taken.changed, "the same again is no news");
    assert!(matches!(
        chain_judged(&n1, &n3),
        Err(Refusal::Denied(Denied::Rnode(id))) if id == n3.id()
    ));
    assert_eq!(n1.trust().authority_mark(), owner.trust().authority_mark());
    // Passed on by a rnode, over two hands, and after a restart.
    n2.trust()
        .take_authority(&n1.trust().authority())
        .expect("kept");
    let n2 = RnodeIdentity::open(&world.rnode_dir("stix", "n2"));
    let n2 = n2.expect("it opens").expect("it is there");
    assert!(chain_judged(&n2, &n3).is_err() && chain_judged(&n2, &n1).is_ok());
    // The denied one cannot open its identity once it knows.
    n3.trust().take_authority(&authority).expect("kept");
    assert!(matches!(
        RnodeIdentity::open(&world.rnode_dir("stix", "n3")),
        Err(Error::Refused(Refusal::Denied(_)))
    ));
    // What is bent on the way is refused, and told.
    authority.notices[0].payload[60] ^= 1;
    authority.charters.push(vec![1, 2, 3]);
    let other = world.rnode("stix", "n4");
    let taken = other.trust().take_authority(&authority).expect("kept");
    assert!(!taken.changed);
    assert_eq!(taken.refused.len(), 2);
    assert!(other.trust().verify(&shown).is_ok());
}

#[test]
fn a_denied_operator_makes_itself_another_key_where_the_root_is() {
    let world = World::new();
    let home = world.dir.join("home");
    let before = world.owner.credentials().expect("credentials");
    let key = match before.principal().expect("an operator").who {
        Who::Operator { id, .. } => id,
        who => panic!("{who:?}"),
    };
    world
        .owner
        .deny(vec![Denied::Key(key)], "the laptop is gone")
        .expect("denied");
    assert!(matches!(before.principal(), Err(Refusal::Denied(_))));
    let again = OwnerStore::open(&home).expect("it opens").expect("there");
    let after = again.credentials().expect("credentials");
    assert!(matches!(
        after.principal().expect("an operator").who,
        Who::Operator { id, .. } if id != key
    ));
}

/// What a thief of the operator's key has: that key, its grant and the charter.
fn stolen(world: &World) -> OwnerStore {
    let (home, place) = (world.dir.join("home"), world.dir.join("thief"));
    for (from, to) in [
        ("operator/operator.key", "operator/operator.key"),
        ("operator/grant", "operator/grant"),
        ("owner/charter", "owner/charter"),
    ] {
        let to = place.join(to);
        for dir in [&place, to.parent().expect("a directory")] {
            fs::create_dir_all(dir).expect("made");
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("closed");
        }
        fs::copy(home.join(from), to).expect("copied");
    }
    opened(&place)
}

#[test]
fn a_denied_operators_rnodes_stay_where_the_root_vouches_and_its_stolen_key_enrols_none() {
    let world = World::new();
    let home = world.dir.join("home");
    let thief = stolen(&world);
    let (n1, n2) = (world.rnode("stix", "n1"), world.rnode("stix", "n2"));
    let tool = world
        .owner
        .invite_tool(&label("tuner"), &GrantTerms::default());
    let tool = OwnerStore::login(&world.dir.join("tuner"), &tool.expect("an invitation"));
    let tool = tool.expect("enrolled").credentials().expect("credentials");
    let tool = tool.chain().expect("a chain");
    assert!(n1.trust().verify(&tool).is_ok());
    let operator = world.owner.issued().expect("the list");
    let operator = operator.first().expect("the operator").clone();
    let enrolled = world.owner.enrolled_by(&operator.key).expect("the list");
    assert_eq!(enrolled.len(), 2, "tools are not among them");
    let key = Denied::Key(operator.key.id());

    world.owner.vouch(&enrolled).expect("vouched for");
    world.owner.deny(vec![key], "stolen").expect("denied");
    let authority = world.owner.trust().authority();
    n1.trust().take_authority(&authority).expect("kept");
    assert!(chain_judged(&n1, &n2).is_ok());
    assert!(n1.credentials().expect("own").principal().is_ok());
    assert!(matches!(n1.trust().verify(&tool), Err(Refusal::Denied(_))));
    let late = thief.invite_named(&label("stix"), &label("n9"));
    let late = late.expect("nobody there knows");
    let late = RnodeIdentity::claim(&world.dir.join("late"), &late, None).expect("a claim");
    assert!(matches!(chain_judged(&n1, &late), Err(Refusal::Denied(_))));
    // After a restart, and after a new root.
    let n1 = RnodeIdentity::open(&world.rnode_dir("stix", "n1"));
    let n1 = n1.expect("it opens").expect("it is there");
    assert!(chain_judged(&n1, &n2).is_ok());
    opened(&home).rotate(None).expect("rotated");
    let owner = opened(&home);
    let taken = n1.trust().take_authority(&owner.trust().authority());
    assert!(taken.expect("kept").changed);
    assert!(chain_judged(&n1, &n2).is_ok() && chain_judged(&n1, &late).is_err());
    assert_eq!(n1.trust().authority_mark(), owner.trust().authority_mark());
}

#[test]
fn a_denied_operators_rnodes_go_with_it_where_nobody_vouches() {
    let world = World::new();
    let (n1, n2) = (world.rnode("stix", "n1"), world.rnode("stix", "n2"));
    let operator = world.owner.issued().expect("the list")[0].key;
    let key = Denied::Key(operator.id());
    world.owner.deny(vec![key], "it goes").expect("denied");
    let authority = world.owner.trust().authority();
    n1.trust().take_authority(&authority).expect("kept");
    assert!(matches!(chain_judged(&n1, &n2), Err(Refusal::Denied(_))));
    // Without the root nobody can vouch.
    let thief = stolen(&world);
    let enrolled = world.owner.enrolled_by(&operator).expect("the list");
    assert!(matches!(thief.vouch(&enrolled), Err(Error::NoRoot(_))));
}

fn opened(home: &std::path::Path) -> OwnerStore {
    OwnerStore::open(home)
        .expect("it opens")
        .expect("it is there")
}

#[test]
fn a_rotated_root_is_followed_by_all_and_the_old_one_is_refused() {
    let world = World::new();
    let home = world.dir.join("home");
    let (n1, off) = (world.rnode("stix", "n1"), world.rnode("stix", "off"));
    let base = world.rnode("base", "base");
    let spki = base.public_key().spki();
    let host = world
        .owner
        .grant_host(&spki, &label("stix"))
        .expect("a grant");
    assert_eq!(
        world
            .owner
            .grant_host(&spki, &label("stix"))
            .expect("again"),
        host,
        "what has no end is issued once"
    );
    base.add_host_grant(&label("stix"), &host).expect("kept");
    let nested = base.inviter(&label("stix")).expect("open").expect("given");
    let nested = nested.invite_named(&label("n2")).expect("an invitation");
    let nested = RnodeIdentity::claim(&world.dir.join("n2"), &nested, None).expect("a claim");
    let denied = world.rnode("stix", "n9");
    world
        .owner
        .deny(vec![Denied::Rnode(denied.id())], "sold")
        .expect("denied");
    let stolen = fs::read(home.join("owner/root.key")).expect("the key");
    let first = fs::read(home.join("owner/charter")).expect("the charter");

    world.owner.rotate(None).expect("rotated");
    let once = opened(&home);
    assert_eq!(once.charter().generation(), 2);
    assert_ne!(
        fs::read(home.join("owner/root.key")).expect("a key"),
        stolen
    );
    once.rotate(None).expect("rotated again");
    let owner = opened(&home);
    assert_eq!(
        (owner.charter().generation(), owner.owner()),
        (3, world.owner.owner())
    );
    assert_eq!(
        owner.trust().notices().len(),
        1,
        "said again by the new root"
    );

    // Online or off meanwhile: each steps through the successors. Their enrolments hold on both sides.
    for rnode in [&n1, &off, &base, &nested] {
        let taken = rnode.trust().take_authority(&owner.trust().authority());
        let taken = taken.expect("kept");
        assert!(taken.changed && taken.refused.is_empty(), "{taken:?}");
        assert_eq!(rnode.trust().charter().generation(), 3);
        assert_eq!(
            rnode.trust().authority_mark(),
            owner.trust().authority_mark()
        );
        assert!(chain_judged(rnode, &off).is_ok() && chain_judged(rnode, &nested).is_ok());
        assert!(chain_judged(rnode, &base).is_ok());
        let operator = owner.credentials().expect("credentials").chain();
        assert!(rnode.trust().verify(&operator.expect("a leaf")).is_ok());
        assert!(
            rnode
                .trust()
                .recheck(
                    &denied
                        .credentials()
                        .expect("its own")
                        .chain()
                        .expect("a leaf")
                )
                .is_err()
        );
    }
    // One that has not heard yet and one that has still speak.
    let late = world.rnode("stix", "late");
    assert!(chain_judged(&late, &n1).is_ok() && chain_judged(&n1, &late).is_ok());

    the_old_root_is_worth_nothing(&world, &n1, &late, (&stolen, &first));
    // All of it is on disk.
    let again = RnodeIdentity::open(&world.rnode_dir("stix", "off"));
    let again = again.expect("it opens").expect("it is there");
    assert_eq!(
        again.trust().authority_mark(),
        owner.trust().authority_mark()
    );
    assert_eq!(again.trust().charter().generation(), 3);
}

/// Whoever has the old root key is a stranger where the new charter is known.
fn the_old_root_is_worth_nothing(
    world: &World,
    n1: &RnodeIdentity,
    late: &RnodeIdentity,
    (stolen, first): (&[u8], &[u8]),
) {
    let thief = world.dir.join("thief");
    fs::create_dir_all(thief.join("owner")).expect("made");
    for dir in [&thief, &thief.join("owner")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("set");
    }
    fs::write(thief.join("owner/root.key"), stolen).expect("written");
    fs::set_permissions(
        thief.join("owner/root.key"),
        fs::Permissions::from_mode(0o600),
    )
    .expect("set");
    fs::write(thief.join("owner/charter"), first).expect("written");
    let thief = opened(&thief);
    let shown = thief
        .credentials()
        .expect("its own")
        .chain()
        .expect("a leaf");
    assert!(
        late.trust().verify(&shown).is_ok(),
        "who has not heard cannot know"
    );
    assert!(matches!(
        n1.trust().verify(&shown),
        Err(Refusal::ForeignOwner(_))
    ));
    // Neither an older charter nor one that only the old root signs brings it back.
    let taken = n1.trust().take_authority(&thief.trust().authority());
    assert!(!taken.expect("kept").changed);
    assert_eq!(n1.trust().charter().generation(), 3);
    thief.rotate(None).expect("a rival");
    let rival = opened(&world.dir.join("thief"));
    let taken = n1.trust().take_authority(&rival.trust().authority());
    assert!(!taken.expect("kept").changed);
    rival.rotate(None).expect("a rival");
    opened(&world.dir.join("thief"))
        .rotate(None)
        .expect("a rival");
    let rival = opened(&world.dir.join("thief"));
    assert_eq!(rival.charter().generation(), 4, "newer in number");
    let taken = n1.trust().take_authority(&rival.trust().authority());
    let taken = taken.expect("kept");
    assert!(!taken.changed && !taken.refused.is_empty());
}

/// A copy of an owner's directories, as by a backup or a disk that was sold.
fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("set");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copied(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

fn exchange(rnodes: &[&RnodeIdentity]) {
    for _ in 0..2 {
        for one in rnodes {
            for other in rnodes {
                let told = one.trust().take_authority(&other.trust().authority());
                told.expect("kept");
            }
        }
    }
}

fn reports(rnode: &RnodeIdentity, counts: impl Fn(&Report) -> bool) -> usize {
    let reports = rnode.trust().take_reports().into_iter();
    reports.filter(|report| counts(report)).count()
}

#[test]
fn a_thief_s_rotation_that_the_owner_follows_is_overturned_by_the_recovery_key() {
    let world = World::new();
    let (home, copy) = (world.dir.join("home"), world.dir.join("copy"));
    let n1 = world.rnode("stix", "n1");
    let recovery = world.owner.recovery_key().expect("readable").expect("here");
    world.owner.erase_recovery_key().expect("erased");
    copied(&home, &copy);
    assert!(
        !opened(&copy)
            .rotate(None)
            .expect("by the root alone")
            .by_recovery
    );
    let stolen = opened(&copy).trust().authority();
    assert!(n1.trust().take_authority(&stolen).expect("kept").changed);

    // Nobody made another one, so the owner takes it for the next and is left without a root key.
    let heard = opened(&home).take_authority(&stolen);
    assert!(heard.expect("kept").changed);
    assert!(!opened(&home).has_root());
    OwnerStore::recover(&home, &recovery).expect("it is overturned");
    let owner = opened(&home);
    assert!(owner.has_root() && owner.trust().rivals().is_empty());
    let told = n1.trust().take_authority(&owner.trust().authority());
    assert!(told.expect("kept").changed);
    assert_eq!(n1.trust().charter().id(), owner.charter().id());
    let heard = opened(&copy).take_authority(&owner.trust().authority());
    assert!(heard.expect("kept").changed);
    assert!(!opened(&copy).has_root(), "the thief has nothing any more");
}

#[test]
fn rival_charters_stand_until_the_recovery_key_or_both_sides_end_it() {
    let world = World::new();
    let (home, copy) = (world.dir.join("home"), world.dir.join("copy"));
    let (n1, n2) = (world.rnode("stix", "n1"), world.rnode("stix", "n2"));
    let old = world.owner.recovery_key().expect("readable").expect("here");
    world.owner.erase_recovery_key().expect("erased");
    copied(&home, &copy);

    for (home, rnode) in [(&home, &n1), (&copy, &n2)] {
        assert!(
            !opened(home).rotate(None).expect("rotated").by_recovery,
            "by the root alone"
        );
        let told = rnode
            .trust()
            .take_authority(&opened(home).trust().authority());
        assert!(told.expect("kept").changed);
    }
    let held = [n1.trust().charter().id(), n2.trust().charter().id()];
    exchange(&[&n1, &n2]);
    for (rnode, (ours, theirs)) in [(&n1, (0, 1)), (&n2, (1, 0))] {
        assert_eq!(
            rnode.trust().charter().id(),
            held[ours],
            "nobody is taken over"
        );
        let rivals = rnode.trust().rivals();
        assert_eq!((rivals.len(), rivals[0].id()), (1, held[theirs]));
        let rival = Report::Rival {
            held: held[ours],
            rival: held[theirs],
        };
        assert_eq!(reports(rnode, |report| *report == rival), 1);
        assert!(chain_judged(rnode, &n1).is_ok() && chain_judged(rnode, &n2).is_ok());
    }
    assert_ne!(n1.trust().authority_mark(), n2.trust().authority_mark());
    let again = RnodeIdentity::open(&world.rnode_dir("stix", "n2"));
    let again = again.expect("it opens").expect("it is there");
    assert_eq!(
        (again.trust().charter().id(), again.trust().rivals().len()),
        (held[1], 1)
    );

    // Who knows of no rival cannot use a key that was replaced.
    assert!(OwnerStore::recover(&home, &old).is_err());
    let heard = opened(&home).take_authority(&n1.trust().authority());
    assert!(heard.expect("kept").changed);
    OwnerStore::recover(&home, &old).expect("it ends it");
    let owner = opened(&home);
    assert!(owner.has_root() && owner.trust().rivals().is_empty());
    let told = n2.trust().take_authority(&owner.trust().authority());
    assert!(told.expect("kept").changed);
    exchange(&[&n1, &n2]);
    for rnode in [&n1, &n2] {
        assert_eq!(
            rnode.trust().authority_mark(),
            owner.trust().authority_mark()
        );
        assert!(rnode.trust().rivals().is_empty());
        assert_eq!(
            reports(rnode, |report| matches!(report, Report::Overturned { .. })),
            1
        );
        let operator = owner.credentials().expect("credentials").chain();
        assert!(rnode.trust().verify(&operator.expect("a leaf")).is_ok());
    }
    // The other home hears of it; its root key is worth nothing now, and no reason not to open.
    let heard = opened(&copy).take_authority(&owner.trust().authority());
    assert!(heard.expect("kept").changed);
    assert!(!opened(&copy).has_root());

    // Again, with both keys in both places: now neither weighs more, and the two have to agree.
    copied(&home.join("owner"), &copy.join("owner"));
    for (home, rnode) in [(&home, &n1), (&copy, &n2)] {
        assert!(
            opened(home).rotate(None).expect("rotated").by_recovery,
            "the recovery key was here"
        );
        let told = rnode
            .trust()
            .take_authority(&opened(home).trust().authority());
        assert!(told.expect("kept").changed);
    }
    exchange(&[&n1, &n2]);
    let heard = opened(&home).take_authority(&n2.trust().authority());
    assert!(heard.expect("kept").changed);
    assert_eq!(opened(&home).trust().rivals().len(), 1);
    let theirs = opened(&copy)
        .recovery_key()
        .expect("readable")
        .expect("here");
    OwnerStore::recover(&home, &theirs).expect("both agree");
    let owner = opened(&home);
    let told = n2.trust().take_authority(&owner.trust().authority());
    assert!(told.expect("kept").changed);
    exchange(&[&n1, &n2]);
    for rnode in [&n1, &n2] {
        assert_eq!(
            rnode.trust().authority_mark(),
            owner.trust().authority_mark()
        );
        assert!(rnode.trust().rivals().is_empty());
    }
}

#[test]
fn the_recovery_key_replaces_a_lost_root_and_nothing_else_does() {
    let world = World::new();
    let home = world.dir.join("home");
    let n1 = world.rnode("stix", "n1");
    let key = world.owner.recovery_key().expect("readable").expect("here");
    world.owner.erase_recovery_key().expect("erased");
    assert_eq!(world.owner.recovery_key().expect("readable"), None);
    fs::remove_file(home.join("owner/root.key")).expect("lost");
    assert!(!opened(&home).has_root());
    assert!(matches!(opened(&home).rotate(None), Err(Error::NoRoot(_))));
    let other = World::new()
        .owner
        .recovery_key()
        .expect("readable")
        .expect("here");
    let mut bent = key.clone();
    bent.replace_range(40..41, if &key[40..41] == "A" { "B" } else { "A" });
    for wrong in [
        "",
        "radixrecovery1",
        &bent,
        &other,
        &key[..60],
        &"x".repeat(5_000),
    ] {
        let refused = OwnerStore::recover(&home, wrong);
        // A key, but of another owner; the others are none.
        match wrong == other {
            true => assert!(matches!(refused, Err(Error::Recovery(_)))),
            false => assert!(matches!(refused, Err(Error::RecoveryText(_)))),
        }
        assert_eq!(opened(&home).charter().generation(), 1);
    }
    OwnerStore::recover(&home, &key).expect("recovered");
    let owner = opened(&home);
    assert!(owner.has_root());
    assert_eq!(owner.charter().generation(), 2);
    let taken = n1.trust().take_authority(&owner.trust().authority());
    assert!(taken.expect("kept").changed);
    let fresh = owner
        .invite_named(&label("stix"), &label("n2"))
        .expect("an invitation");
    let fresh = RnodeIdentity::claim(&world.dir.join("n2"), &fresh, None).expect("a claim");
    assert!(chain_judged(&n1, &fresh).is_ok() && chain_judged(&fresh, &n1).is_ok());
    // It was good once.
    assert!(OwnerStore::recover(&home, &key).is_err());
}

#[test]
fn a_rotation_that_was_cut_off_is_finished_or_dropped() {
    let world = World::new();
    let home = world.dir.join("home");
    let owner = home.join("owner");
    let secret = |name: &str, bytes: &[u8]| {
        fs::write(owner.join(name), bytes).expect("written");
        fs::set_permissions(owner.join(name), fs::Permissions::from_mode(0o600)).expect("set");
    };
    // Cut off before the charter: the new keys are dropped.
    let before = fs::read(owner.join("root.key")).expect("a key");
    let recovery = fs::read(owner.join("recovery.key")).expect("a key");
    secret("root.key.next", &recovery[..20]);
    assert_eq!(opened(&home).charter().generation(), 1);
    assert!(!owner.join("root.key.next").exists());
    // After it: the new keys take their place, whichever of the two charters was written.
    let charter = fs::read(owner.join("charter")).expect("a charter");
    world.owner.rotate(None).expect("rotated");
    let after = fs::read(owner.join("root.key")).expect("a key");
    for with_charter in [true, false] {
        secret("root.key", &before);
        secret("root.key.next", &after);
        if !with_charter {
            fs::write(owner.join("charter"), &charter).expect("written");
        }
        assert_eq!(opened(&home).charter().generation(), 2);
        assert_eq!(fs::read(owner.join("root.key")).expect("a key"), after);
        assert!(!owner.join("root.key.next").exists());
    }
}

#[test]
fn a_rotation_carries_over_none_whom_the_root_denied_and_says_so_when_there_are_too_many() {
    let world = World::new();
    let home = world.dir.join("home");
    let invite = |number: usize| {
        let name = format!("person-{number}");
        let invited = world
            .owner
            .invite_operator(&label(&name), &GrantTerms::default());
        invited.expect("an invitation")
    };
    // With the operator's own grant there is one too many.
    let invited: Vec<_> = (0..256).map(invite).collect();
    let refused = opened(&home).rotate(None);
    assert!(matches!(refused, Err(Error::Full(_))), "{refused:?}");
    assert_eq!(opened(&home).charter().generation(), 1, "nothing changed");
    let kept = OwnerStore::login(&world.dir.join("kept"), &invited[0]).expect("enrolled");
    let issued = world.owner.issued().expect("the list");
    let of = |number: usize| {
        let name = label(&format!("person-{number}"));
        let mut named = issued.iter().filter(|held| {
            matches!(&held.grant.role, Role::Invitation { label: Some(label), .. } if *label == name)
        });
        named.next().expect("kept").clone()
    };
    let gone = of(7);
    let denied = vec![Denied::Invitation(gone.key.invitation_id())];
    world.owner.deny(denied, "he has left").expect("denied");
    let rotated = opened(&home).rotate(None).expect("rotated");
    assert_eq!(rotated.left_out, 0);
    let owner = opened(&home);
    assert_eq!(owner.charter().carried().len(), 256);
    assert!(!owner.charter().vouches_for(&gone.der));
    let shown = kept.credentials().expect("credentials").chain();
    assert!(owner.trust().verify(&shown.expect("a leaf")).is_ok());
    // The next rotation takes over what the last one carried, without whom is denied meanwhile.
    let denied = vec![Denied::Invitation(of(8).key.invitation_id())];
    owner.deny(denied, "she has left").expect("denied");
    owner.rotate(None).expect("rotated");
    let charter = opened(&home).charter().clone();
    assert!(!charter.vouches_for(&of(8).der) && charter.vouches_for(&of(0).der));
}

#[test]
fn what_a_base_was_granted_is_forgotten_with_it() {
    let world = World::new();
    let home = world.dir.join("home");
    let invite = || world.owner.invite_named(&label("base"), &label("base"));
    let identity = home.join("base/identity");
    let base = RnodeIdentity::claim(&identity, &invite().expect("made"), None).expect("a claim");
    let other = world.rnode("base", "other");
    let [host, others] = [&base, &other].map(|base| {
        let granted = world
            .owner
            .grant_host(&base.public_key().spki(), &label("stix"));
        granted.expect("a grant").remove(0)
    });
    // What is carried already is known by its digest alone afterwards.
    opened(&home).rotate(None).expect("rotated");
    let charter = opened(&home).charter().clone();
    assert!(charter.vouches_for(&host) && charter.vouches_for(&others));
    opened(&home).forget_base().expect("forgotten");
    let held = |der: &[u8]| {
        let issued = opened(&home).issued().expect("the list");
        issued.iter().any(|held| held.der == der)
    };
    assert!(!held(&host) && held(&others));
    // Somebody may still claim it.
    assert_eq!(opened(&home).invited().expect("the list").len(), 2);
    fs::remove_dir_all(home.join("base")).expect("gone");
    opened(&home).forget_base().expect("nothing is left to do");
    opened(&home).rotate(None).expect("rotated");
    let charter = opened(&home).charter().clone();
    assert!(!charter.vouches_for(&host) && charter.vouches_for(&others));
    let erased = fs::read_dir(home.join("owner/erased")).expect("listed");
    assert_eq!(erased.count(), 0, "it is said by what is left out");
}
