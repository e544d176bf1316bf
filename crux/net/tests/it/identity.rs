//! Keys, invitations and claims on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crux_core::identity::{Claim, DOCUMENT_CONTEXT, Refusal, Signed, UnixTime, Verb, Weight, Who};
use crux_net::identity::{
    Acceptance, Credentials, Error, GrantTerms, Invitation, OwnerStore, Place, Report,
    RnodeIdentity, SecretKey, WallClock,
};
use crux_wire::document::v1::{Authority, Verdict};

use crate::fixture::{Dir, World, label, reopen};

const YEAR: u64 = 400 * 86_400;

#[test]
fn an_owner_is_made_once_and_opened_ever_after() {
    let dir = Dir::new();
    let home = dir.join("home");
    assert!(OwnerStore::open(&home).is_ok_and(|found| found.is_none()));
    let made = std::thread::scope(|scope| {
        let open = || OwnerStore::open_or_create(&home).map(|store| store.owner());
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic").expect("an owner"))
            .collect::<Vec<_>>()
    });
    assert!(made.windows(2).all(|pair| pair[0] == pair[1]));
    let found = OwnerStore::open(&home)
        .expect("it opens")
        .expect("it is there");
    assert_eq!(found.owner(), made[0]);
    for secret in ["owner/root.key", "operator/operator.key", "operator/grant"] {
        assert_eq!(
            fs::metadata(home.join(secret))
                .expect("it exists")
                .permissions()
                .mode()
                & 0o777,
            0o600,
            "{secret}"
        );
    }
    assert_eq!(
        fs::metadata(&home).expect("it exists").permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn a_first_up_that_died_is_finished_with_the_same_key() {
    let dir = Dir::new();
    let home = dir.join("home");
    let first = OwnerStore::open_or_create(&home).expect("an owner").owner();
    fs::remove_file(home.join("owner/charter")).expect("it was there");
    fs::remove_file(home.join("operator/grant")).expect("it was there");
    assert!(OwnerStore::open_or_create(&home).is_ok_and(|again| again.owner() == first));
    // Without the root key, a missing grant cannot be made good.
    fs::remove_file(home.join("owner/root.key")).expect("it was there");
    fs::remove_file(home.join("operator/grant")).expect("it was there");
    assert!(matches!(
        OwnerStore::open_or_create(&home),
        Err(Error::NoRoot(_))
    ));
}

#[test]
fn directories_and_keys_that_others_can_reach_are_refused() {
    let dir = Dir::new();
    let home = dir.join("home");
    OwnerStore::open_or_create(&home).expect("an owner");
    fs::set_permissions(
        home.join("owner/root.key"),
        fs::Permissions::from_mode(0o640),
    )
    .expect("ours");
    assert!(matches!(
        OwnerStore::open_or_create(&home),
        Err(Error::Exposed { may: "read", .. })
    ));
    fs::set_permissions(
        home.join("owner/root.key"),
        fs::Permissions::from_mode(0o600),
    )
    .expect("ours");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).expect("ours");
    assert!(matches!(
        OwnerStore::open_or_create(&home),
        Err(Error::Exposed {
            may: "write to",
            ..
        })
    ));
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("ours");
        nix::unistd::chown(&home, Some(nix::unistd::Uid::from_raw(12_345)), None).expect("as root");
        let refused = OwnerStore::open_or_create(&home);
        assert!(matches!(
            &refused,
            Err(Error::OtherUser { owner: 12_345, .. })
        ));
        assert!(refused.is_err_and(|error| error.to_string().contains("RADIX_HOME")));
    } else {
        println!("skipped: giving a directory to another user needs root");
    }
}

#[test]
fn documents_signed_by_the_operator_are_accepted_by_rnodes_of_the_owner_only() {
    let (ours, theirs) = (World::new(), World::new());
    let (signature, chain) = ours.owner.sign_document(b"document").expect("a signature");
    let signed = Signed {
        context: DOCUMENT_CONTEXT,
        payload: b"document",
        signature: &signature,
        chain: &chain,
    };
    let judged = ours
        .rnode("stix", "n1")
        .trust()
        .verify_signed(&signed, Acceptance::New)
        .expect("ours");
    assert!(judged.may(Verb::Operator, &label("stix")).is_ok());
    let refused = theirs
        .rnode("stix", "n1")
        .trust()
        .verify_signed(&signed, Acceptance::New);
    assert!(matches!(refused, Err(Refusal::ForeignOwner(_))));
}

// Shows in part: CRT-04
#[test]
fn an_invitation_is_one_line_that_reads_back() {
    let world = World::new();
    let made = world
        .owner
        .invite_named(&label("base"), &label("base"))
        .expect("an invitation");
    let made = made.with_hints(["127.0.0.1:7400"]);
    let text = made.encode();
    assert!(
        text.starts_with("radix1") && text.bytes().all(|byte| byte.is_ascii_graphic()),
        "{text}"
    );
    assert!(text.len() < 2_500, "{} bytes", text.len());
    let read = Invitation::decode(&format!("  {text}\n")).expect("it reads");
    assert_eq!(
        (read.id(), read.label(), read.hints()),
        (made.id(), made.label(), made.hints())
    );
    assert_eq!(read.encode(), text);
    for damaged in [
        "",
        "radix1",
        "radix2abc",
        &text[..text.len() - 1],
        &text.replacen('A', "B", 1),
        &"radix1".repeat(9_000),
    ] {
        assert!(Invitation::decode(damaged).is_err(), "{damaged}");
    }
}

// Shows: RND-04
#[test]
fn a_claim_can_be_repeated_and_another_invitation_cannot_take_its_place() {
    let world = World::new();
    let (dir, base) = (world.dir.join("n1"), label("stix"));
    let invitation = world
        .owner
        .invite_named(&base, &label("n1"))
        .expect("an invitation");
    let first = RnodeIdentity::claim(&dir, &invitation, None).expect("a claim");
    let again = RnodeIdentity::claim(&dir, &invitation, None).expect("the same claim");
    assert_eq!(
        (
            first.id(),
            first.label().as_str(),
            first.namespace().as_str()
        ),
        (again.id(), "n1", "stix")
    );
    // Interrupted after the key was made: the same key goes on.
    fs::remove_file(dir.join("chain")).expect("it was there");
    assert_eq!(
        RnodeIdentity::claim(&dir, &invitation, None)
            .expect("finished")
            .id(),
        first.id()
    );
    let other = world
        .owner
        .invite_named(&base, &label("n2"))
        .expect("an invitation");
    assert!(matches!(
        RnodeIdentity::claim(&dir, &other, None),
        Err(Error::Claimed(_))
    ));
    assert_eq!(
        RnodeIdentity::open(&dir)
            .expect("it opens")
            .expect("it is there")
            .id(),
        first.id()
    );
    assert!(RnodeIdentity::open(&world.dir.join("nobody")).is_ok_and(|found| found.is_none()));
    let elsewhere = world
        .owner
        .invite_named(&label("shire"), &label("n1"))
        .expect("an invitation");
    assert!(matches!(
        RnodeIdentity::claim(&dir, &elsewhere, None),
        Err(Error::Claimed(_))
    ));
    // Once it has left it may come in elsewhere, as somebody else.
    RnodeIdentity::discard(&dir).expect("it leaves");
    let next = RnodeIdentity::claim(&dir, &elsewhere, None).expect("a claim");
    assert_eq!(next.namespace().as_str(), "shire");
    assert_ne!(next.id(), first.id());
}

// Shows in part: CRT-04
#[test]
fn a_pool_lets_in_as_many_as_it_says() {
    let world = World::new();
    let pool = world.owner.invite_pool(&label("stix"), 2).expect("a pool");
    let join = |name: &str, ordinal| {
        RnodeIdentity::claim(
            &world.dir.join(name),
            &pool,
            Some(Place {
                label: label(name),
                ordinal,
            }),
        )
    };
    let (a, b) = (
        join("a", 0).expect("the first"),
        join("b", 1).expect("the second"),
    );
    assert!(matches!(
        join("c", 2),
        Err(Error::Refused(Refusal::WrongOrdinal {
            uses: 2,
            ordinal: 2
        }))
    ));
    assert!(RnodeIdentity::claim(&world.dir.join("d"), &pool, None).is_err());
    let judge = |one: &RnodeIdentity, other: &RnodeIdentity| chain_judged(one, other);
    assert!(judge(&a, &b).is_ok() && judge(&b, &a).is_ok());
    assert!(world.owner.invite_pool(&label("stix"), 0).is_err());
}

/// How `judge` sees a connection from `shown`.
pub(crate) fn chain_judged(judge: &RnodeIdentity, shown: &RnodeIdentity) -> Result<Who, Refusal> {
    let credentials = shown.credentials().expect("credentials");
    judge
        .trust()
        .verify(&credentials.chain().expect("a leaf"))
        .map(|principal| principal.who)
}

// Shows in part: CRT-04
#[test]
fn a_second_taker_of_an_invitation_is_refused_and_reported_once() {
    let world = World::new();
    let invitation = world
        .owner
        .invite_named(&label("stix"), &label("n1"))
        .expect("an invitation");
    let first = RnodeIdentity::claim(&world.dir.join("first"), &invitation, None).expect("a claim");
    let thief = RnodeIdentity::claim(&world.dir.join("thief"), &invitation, None)
        .expect("offline, it cannot know");
    let member = world.rnode("stix", "n2");
    let changes = member.trust().changes();
    assert!(chain_judged(&member, &first).is_ok());
    assert!(changes.has_changed().is_ok_and(|changed| !changed));
    for _ in 0..2 {
        let refused = chain_judged(&member, &thief);
        assert!(
            matches!(refused, Err(Refusal::AlreadyClaimed { holder, taker, .. }) if holder == first.id() && taker == thief.id())
        );
    }
    assert!(changes.has_changed().is_ok_and(|changed| changed));
    let claim = Claim {
        invitation: invitation.id(),
        ordinal: 0,
    };
    assert_eq!(
        member.trust().take_reports(),
        [Report::SecondTaker {
            claim,
            holder: first.id(),
            taker: thief.id()
        }]
    );
    assert_eq!(member.trust().take_reports(), []);
    // What the thief vouches for is refused with it.
    let process = |rnode: &RnodeIdentity| {
        let key = SecretKey::generate().expect("a key");
        let (class, spki) = (label("prog1"), key.public().spki());
        let leaf = rnode.leaf_issuer().issue(&label("stix"), &class, 0, &spki);
        member.trust().verify(&leaf.expect("a leaf").chain)
    };
    assert!(process(&first).is_ok());
    assert!(matches!(
        process(&thief),
        Err(Refusal::AlreadyClaimed { .. })
    ));
    // It is remembered on disk.
    let member = RnodeIdentity::open(&world.rnode_dir("stix", "n2"))
        .expect("it opens")
        .expect("it is there");
    assert!(chain_judged(&member, &thief).is_err() && chain_judged(&member, &first).is_ok());
}

#[test]
fn of_two_that_claimed_on_both_sides_of_a_split_one_goes_everywhere() {
    let world = World::new();
    let invitation = world
        .owner
        .invite_named(&label("stix"), &label("n1"))
        .expect("an invitation");
    let one = RnodeIdentity::claim(&world.dir.join("one"), &invitation, None).expect("a claim");
    let two = RnodeIdentity::claim(&world.dir.join("two"), &invitation, None).expect("a claim");
    let (here, there) = (world.rnode("stix", "n2"), world.rnode("stix", "n3"));
    assert!(chain_judged(&here, &one).is_ok() && chain_judged(&there, &two).is_ok());
    let heavy = Weight {
        class: 3,
        latched: false,
        flock: std::cmp::Reverse([7; 16]),
    };
    let light = Weight {
        class: 2,
        latched: false,
        flock: std::cmp::Reverse([8; 16]),
    };

    // The lighter half meets the other's taker first, and says so.
    assert!(chain_judged(&there, &one).is_err());
    let dispute = there.trust().disputes().pop().expect("it met both");
    assert_eq!((dispute.holder, dispute.rival), (two.id(), one.id()));
    let sign = |of: &RnodeIdentity, weight| {
        let dispute = of.trust().disputes().pop().expect("a dispute");
        of.sign_verdict(&dispute, weight).expect("signed")
    };
    assert_eq!(
        sign(&there, light),
        None,
        "the enrolment of the holder is not at hand"
    );
    assert!(chain_judged(&there, &two).is_ok());
    let of_light = sign(&there, light).expect("both were met");
    let pass = |verdict: &Verdict| Authority {
        verdicts: vec![verdict.clone()],
        ..Authority::default()
    };
    for member in [&there, &here] {
        let taken = member
            .trust()
            .take_authority(&pass(&of_light))
            .expect("kept");
        assert!(taken.changed && taken.refused.is_empty(), "{taken:?}");
    }
    // What the heavier one knew is not lost by hearing of it.
    assert!(matches!(
        chain_judged(&here, &one),
        Err(Refusal::LostClaim { .. })
    ));
    let claim = here
        .trust()
        .disputes()
        .pop()
        .expect("against what it saw")
        .claim;
    assert!(here.trust().outweighs(&claim, heavy) && !here.trust().outweighs(&claim, light));
    let of_heavy = sign(&here, heavy).expect("both enrolments stand in the verdict");
    for member in [&there, &here] {
        for (verdict, new) in [(&of_heavy, true), (&of_light, false)] {
            let taken = member.trust().take_authority(&pass(verdict)).expect("kept");
            assert!(
                taken.changed == new && taken.refused.is_empty(),
                "{taken:?}"
            );
        }
        assert!(chain_judged(member, &one).is_ok());
        let lost = chain_judged(member, &two);
        assert!(matches!(lost, Err(Refusal::LostClaim { holder, .. }) if holder == one.id()));
        assert_eq!(member.trust().verdicts().len(), 1);
        let verdicts = member.trust().take_reports().into_iter();
        let verdicts = verdicts.filter(|report| matches!(report, Report::Verdict(_)));
        assert_eq!(verdicts.count(), 2);
    }
    assert_eq!(
        here.trust().authority_mark(),
        there.trust().authority_mark()
    );
    let again = RnodeIdentity::open(&world.rnode_dir("stix", "n3"))
        .expect("it opens")
        .expect("it is there");
    assert!(chain_judged(&again, &two).is_err() && chain_judged(&again, &one).is_ok());
    // Neither of the two judges itself.
    assert_eq!(one.sign_verdict(&dispute, heavy).expect("nothing"), None);
    // The one that goes does not open again once it has heard.
    two.trust().take_authority(&pass(&of_heavy)).expect("kept");
    assert!(RnodeIdentity::open(&world.dir.join("two")).is_err());
}

#[test]
fn a_base_rnode_hosts_and_invites_only_where_it_was_told_to() {
    let world = World::new();
    let base = world.rnode("base", "base");
    let stix = label("stix");
    assert!(base.inviter(&stix).is_ok_and(|inviter| inviter.is_none()));
    let grant = world
        .owner
        .grant_host(&base.public_key().spki(), &stix)
        .expect("a grant");
    assert!(base.add_host_grant(&label("other"), &grant).is_err());
    base.add_host_grant(&stix, &grant).expect("kept");
    let other = world.rnode("base", "other");
    assert!(
        other.add_host_grant(&stix, &grant).is_err(),
        "it is for another key"
    );
    let inviter = base
        .inviter(&stix)
        .expect("it reads")
        .expect("it was granted");
    let text = inviter
        .invite_named(&label("n1"))
        .expect("an invitation")
        .encode();
    let invitation = Invitation::decode(&text).expect("it reads");
    let n1 = RnodeIdentity::claim(&world.dir.join("n1"), &invitation, None).expect("a claim");
    assert!(matches!(chain_judged(&base, &n1), Ok(Who::Rnode { id, .. }) if id == n1.id()));
    let host = base
        .host_credentials(&stix)
        .expect("it reads")
        .expect("it was granted");
    let seen = n1
        .trust()
        .verify(&host.chain().expect("a leaf"))
        .expect("its host");
    assert!(matches!(seen.who, Who::Host { id } if id == base.id()));
    assert!(seen.may(Verb::Host, &stix).is_ok() && seen.may(Verb::Operator, &stix).is_err());
    base.drop_host_grant(&stix).expect("dropped");
    assert!(
        base.host_credentials(&stix)
            .is_ok_and(|found| found.is_none())
    );
}

#[test]
fn a_process_gets_a_leaf_over_its_own_key() {
    let world = World::new();
    let (n1, n2) = (world.rnode("stix", "n1"), world.rnode("stix", "n2"));
    let key = SecretKey::generate().expect("a key");
    let leaf = n1
        .leaf_issuer()
        .issue(&label("stix"), &label("prog1"), 4, &key.public().spki())
        .expect("a leaf");
    let process =
        Credentials::for_app(&leaf.chain, &key, n1.trust().charter().encoded()).expect("good");
    let seen = n2
        .trust()
        .verify(&process.chain().expect("a leaf"))
        .expect("a process");
    assert_eq!(seen.to_string(), "stix/stix/prog1/4");
    assert!(
        n1.leaf_issuer()
            .issue(&label("stix"), &label("prog1"), 4, b"no key")
            .is_err()
    );
}

#[test]
fn an_operator_is_enrolled_elsewhere_by_invitation() {
    let world = World::new();
    let text = world
        .owner
        .invite_operator(&label("bob"), &GrantTerms::default())
        .expect("an invitation")
        .encode();
    let invitation = Invitation::decode(&text).expect("it reads");
    let bob = OwnerStore::login(&world.dir.join("bob"), &invitation).expect("enrolled");
    assert_eq!((bob.owner(), bob.has_root()), (world.owner.owner(), false));
    let n1 = world.rnode("stix", "n1");
    let seen = n1
        .trust()
        .verify(
            &bob.credentials()
                .expect("credentials")
                .chain()
                .expect("a leaf"),
        )
        .expect("bob");
    assert!(seen.may(Verb::Operator, &label("stix")).is_ok(), "{seen}");
    assert!(matches!(
        bob.grant_host(&n1.public_key().spki(), &label("stix")),
        Err(Error::NoRoot(_))
    ));
    assert!(
        OwnerStore::login(
            &world.dir.join("home"),
            &World::new()
                .owner
                .invite_operator(&label("eve"), &GrantTerms::default())
                .expect("one")
        )
        .is_err()
    );
    // A second taker of the same invitation is refused here too.
    let thief =
        OwnerStore::login(&world.dir.join("thief"), &invitation).expect("offline, it cannot know");
    let shown = thief
        .credentials()
        .expect("credentials")
        .chain()
        .expect("a leaf");
    assert!(matches!(
        n1.trust().verify(&shown),
        Err(Refusal::AlreadyClaimed { .. })
    ));
    assert!(RnodeIdentity::claim(&world.dir.join("x"), &invitation, None).is_err());
    let again = OwnerStore::open(&world.dir.join("bob"))
        .expect("it opens")
        .expect("it is there");
    assert_eq!(again.operator_chain(), bob.operator_chain());
}

#[test]
fn an_invitation_says_what_over_what_and_for_how_long() {
    let world = World::new();
    let n1 = world.rnode("stix", "n1");
    let terms = GrantTerms {
        namespace: Some(label("stix")),
        verbs: vec![Verb::Lifecycle],
        days: Some(7),
    };
    let enrolled = |place: &str, invitation: Invitation| {
        let text = invitation.encode();
        let invitation = Invitation::decode(&text).expect("it reads");
        OwnerStore::login(&world.dir.join(place), &invitation).expect("enrolled")
    };
    let seen = |who: &OwnerStore| {
        let chain = who.credentials().expect("credentials").chain();
        n1.trust().verify(&chain.expect("a leaf")).expect("known")
    };
    let invitation = world.owner.invite_tool(&label("tuner"), &terms);
    let tuner = enrolled("tuner", invitation.expect("an invitation"));
    let (stix, base) = (label("stix"), label("base"));
    let tool = seen(&tuner);
    assert!(tool.may(Verb::Tool, &stix).is_ok() && tool.may(Verb::Lifecycle, &stix).is_ok());
    assert!(tool.may(Verb::Tool, &base).is_err() && tool.may(Verb::Operator, &stix).is_err());
    let grant = &tuner.operator_chain()[0];
    let validity = crux_core::identity::validity_of_certificate(grant).expect("a validity");
    assert_eq!(validity.seconds(), 7 * 86_400);
    let invited = world.owner.invited().expect("the list").len();
    assert_eq!(invited, 2, "that of n1, and this one");

    let invitation = world.owner.invite_operator(&label("bob"), &terms);
    let bob = enrolled("bob", invitation.expect("an invitation"));
    assert!(seen(&bob).may(Verb::Operator, &stix).is_ok());
    assert!(seen(&bob).may(Verb::Operator, &base).is_err());
    // Who was invited invites nobody: there is no room for another link.
    for refused in [
        bob.invite_tool(&label("x"), &terms).map(drop),
        bob.invite_named(&stix, &label("n9")).map(drop),
        tuner.invite_tool(&label("x"), &terms).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Invitation(_))), "{refused:?}");
    }
    let long = GrantTerms {
        days: Some(91),
        ..terms
    };
    let refused = world.owner.invite_tool(&label("x"), &long);
    assert!(matches!(refused, Err(Error::Invitation(_))));
}

#[test]
fn a_flock_switched_off_for_a_year_starts() {
    let world = World::new();
    let base = world.rnode("base", "base");
    let grant = world
        .owner
        .grant_host(&base.public_key().spki(), &label("stix"))
        .expect("a grant");
    base.add_host_grant(&label("stix"), &grant).expect("kept");
    let inviter = base
        .inviter(&label("stix"))
        .expect("it reads")
        .expect("it was granted");
    for name in ["n1", "n2"] {
        let invitation = inviter.invite_named(&label(name)).expect("an invitation");
        RnodeIdentity::claim(&world.rnode_dir("stix", name), &invitation, None).expect("a claim");
    }
    let later = WallClock::manual(WallClock::system().now().plus(YEAR));
    let n1 = reopen(&world.rnode_dir("stix", "n1"), &later);
    let n2 = reopen(&world.rnode_dir("stix", "n2"), &later);
    let base = reopen(&world.rnode_dir("base", "base"), &later);
    for (judge, shown) in [(&n1, &n2), (&n2, &n1), (&n1, &base), (&base, &n1)] {
        assert!(chain_judged(judge, shown).is_ok());
    }
    // The document accepted then still holds; a new one from then does not.
    let (signature, chain) = world.owner.sign_document(b"document").expect("a signature");
    let signed = Signed {
        context: DOCUMENT_CONTEXT,
        payload: b"document",
        signature: &signature,
        chain: &chain,
    };
    assert!(n1.trust().verify_signed(&signed, Acceptance::Kept).is_ok());
    assert!(matches!(
        n1.trust().verify_signed(&signed, Acceptance::New),
        Err(Refusal::Expired(_))
    ));
    // And an invitation that nobody claimed is of no use.
    assert!(
        base.inviter(&label("stix")).expect("it reads").is_some(),
        "a host grant does not end"
    );
}

#[test]
fn an_invitation_is_not_claimed_after_its_time() {
    let world = World::new();
    let invitation = world
        .owner
        .invite_named(&label("stix"), &label("n1"))
        .expect("an invitation");
    let dir = world.dir.join("n1");
    // The floor says that it is later than the invitation allows.
    fs::create_dir(&dir).expect("a directory");
    fs::write(
        dir.join("floor"),
        (invitation.claim_by().seconds() + 1).to_string(),
    )
    .expect("a floor");
    let refused = RnodeIdentity::claim(&dir, &invitation, None);
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::ClaimedLate(_)))
    ));
    assert!(!dir.join("chain").exists());
}

#[test]
fn the_wall_clock_does_not_fall_below_its_floor() {
    let dir = Dir::new();
    let file = dir.join("floor");
    let ahead = WallClock::system().now().plus(YEAR);
    fs::write(&file, ahead.seconds().to_string()).expect("a floor");
    assert_eq!(WallClock::with_floor(&file).expect("it reads").now(), ahead);
    fs::write(&file, "soon").expect("a floor");
    assert!(matches!(
        WallClock::with_floor(&file),
        Err(Error::Damaged { .. })
    ));
    fs::remove_file(&file).expect("it was there");
    let clock = WallClock::with_floor(&file).expect("it reads");
    let now = clock.now();
    assert_eq!(
        fs::read_to_string(&file).expect("kept").parse(),
        Ok(now.seconds())
    );
    let manual = WallClock::manual(UnixTime::from_seconds(7));
    manual.set(UnixTime::from_seconds(5));
    assert_eq!(manual.now(), UnixTime::from_seconds(7));
}

#[test]
fn a_leaf_past_half_its_life_is_replaced_for_the_next_handshake() {
    let world = World::new();
    let rnode = world.rnode("stix", "n1");
    let clock = WallClock::manual(WallClock::system().now());
    let rnode = world.with_clock(&rnode, &clock);
    let credentials = Arc::new(rnode.credentials().expect("credentials"));
    let first = credentials.chain().expect("a leaf");
    assert_eq!(credentials.chain().expect("a leaf"), first);
    clock.set(credentials.renew_at());
    let second = credentials.chain().expect("a leaf");
    assert!(second[0] != first[0] && second[1..] == first[1..]);
    assert!(
        rnode.trust().verify(&first).is_ok(),
        "the old one holds until it ends"
    );
    clock.set(clock.now().plus(3_000));
    assert!(matches!(
        rnode.trust().verify(&first),
        Err(Refusal::Expired(_))
    ));
}

/// The DER parts of a PEM file under this label.
fn der_of(pem: &str, label: &str) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    pem.split(&begin)
        .skip(1)
        .filter_map(|rest| rest.split(&end).next())
        .map(|base64| {
            let base64: String = base64.split_whitespace().collect();
            let engine = base64::engine::general_purpose::STANDARD;
            engine.decode(base64).expect("base64")
        })
        .collect()
}

#[test]
fn an_exported_leaf_is_us_for_an_hour_and_holds_no_lasting_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let credentials = world.owner.credentials().expect("credentials");
    let path = world.dir.join("leaf.pem");
    std::fs::write(&path, "older, and readable by all").expect("it writes");
    let until = credentials.export_leaf(&path).expect("a leaf");
    let mode = std::fs::metadata(&path)
        .expect("the file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).expect("text");
    let chain = der_of(&text, "CERTIFICATE");
    let who = credentials.trust().verify(&chain).expect("a good chain");
    let us = credentials.principal().expect("a principal");
    assert_eq!(who.who, us.who);
    assert_eq!(who.valid.until, until);
    assert!(until.seconds() <= credentials.trust().clock().now().plus(3600).seconds());
    let keys = der_of(&text, "PRIVATE KEY");
    assert_eq!(keys.len(), 1);
    let operator = std::fs::read(world.dir.join("home/operator/operator.key")).expect("a key");
    assert_ne!(keys[0], operator);
    let key = SecretKey::from_pkcs8(&keys[0]).expect("a key");
    Credentials::for_app(&chain, &key, world.owner.charter().encoded()).expect("a pair");
}
