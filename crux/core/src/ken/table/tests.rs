//! The shared map: merging, limits, fingerprints.

use super::*;
use crate::ken::Draft;
use crate::names::NamespaceId;

const LATER: Duration = Duration::from_secs(10);

fn owner(id: u8) -> RnodeId {
    RnodeId::from_bytes([id; 32])
}

fn entry(id: u8, (generation, sequence): (u64, u64), key: &str, value: Option<&[u8]>) -> Entry {
    let draft = Draft {
        owner: owner(id),
        generation,
        sequence,
        key,
        value,
    };
    draft
        .sign(&NamespaceId::from_bytes([0; 32]), |_| vec![id])
        .expect("within the limits")
}

fn shown(table: &Table) -> Vec<(String, Vec<u8>)> {
    table
        .entries("")
        .map(|entry| (entry.key().to_owned(), entry.value().to_vec()))
        .collect()
}

/// Shows: KEN-07
#[test]
fn merging_in_any_order_and_with_repeats_gives_the_same() {
    let entries = [
        entry(1, (1, 1), "a", Some(b"old")),
        entry(1, (1, 2), "a", Some(b"new")),
        entry(1, (1, 3), "b", Some(b"gone soon")),
        entry(1, (1, 4), "b", None),
        entry(2, (7, 1), "a", Some(b"another owner's")),
    ];
    let mut expected = None;
    for shift in 0..entries.len() {
        for stride in [1, 2, 3, 4] {
            let mut table = Table::default();
            for round in 0..entries.len() * 2 {
                table.offer(
                    entries[(shift + round * stride) % entries.len()].clone(),
                    LATER,
                );
            }
            let marks = (table.mark(&owner(1)), table.mark(&owner(2)), shown(&table));
            assert_eq!(expected.get_or_insert_with(|| marks.clone()), &marks);
        }
    }
}

#[test]
fn a_new_generation_keeps_what_it_replaces_until_its_time_is_up() {
    let mut table = Table::default();
    table.offer(entry(1, (1, 1), "stays", Some(b"1")), LATER);
    table.offer(entry(1, (1, 2), "goes", Some(b"1")), LATER);
    assert_eq!(
        table.offer(entry(1, (2, 1), "stays", Some(b"2")), LATER),
        Novelty::New
    );
    assert_eq!(
        table.offer(entry(1, (1, 9), "late", Some(b"1")), LATER),
        Novelty::Old
    );
    assert_eq!(
        table.get(&owner(1), "goes").map(Entry::value),
        Some(&b"1"[..])
    );
    assert_eq!(
        table.get(&owner(1), "stays").map(Entry::value),
        Some(&b"2"[..])
    );
    assert_eq!(
        table.mark(&owner(1)).fingerprint,
        entry(1, (2, 1), "stays", Some(b"2")).mark()
    );
    assert_eq!(table.next_expiry(), Some(LATER));
    assert_eq!(table.expire(LATER), vec![(owner(1), "goes".into())]);
    assert_eq!(shown(&table), [("stays".to_owned(), b"2".to_vec())]);
}

#[test]
fn a_lost_owner_is_kept_for_a_while_and_then_gone() {
    let mut table = Table::default();
    table.offer(entry(1, (1, 1), "a", Some(b"1")), LATER);
    table.expire_at(&owner(1), LATER);
    table.keep(&owner(1));
    assert!(table.expire(LATER).is_empty());
    table.expire_at(&owner(1), LATER);
    assert_eq!(table.expire(LATER), vec![(owner(1), "a".into())]);
    assert_eq!((shown(&table).len(), table.owner_count()), (0, 0));
}

#[test]
fn an_owner_has_no_more_than_its_limits() {
    let mut table = Table::default();
    for sequence in 0..OWNER_ENTRIES_MAX as u64 {
        assert_eq!(
            table.offer(
                entry(1, (1, sequence + 1), &format!("{sequence}"), Some(b"v")),
                LATER
            ),
            Novelty::New
        );
    }
    assert_eq!(
        table.offer(entry(1, (1, 9000), "one more", Some(b"v")), LATER),
        Novelty::Full
    );
    assert_eq!(
        table.offer(entry(1, (1, 9000), "7", Some(b"w")), LATER),
        Novelty::New
    );
}

#[test]
fn sweeping_forgets_withdrawn_keys_and_lets_no_old_value_back() {
    let mut table = Table::default();
    table.offer(entry(1, (1, 1), "kept", Some(b"v")), LATER);
    let mut sequence = 1;
    for key in 0..SWEEP_FROM {
        for value in [Some(&b"v"[..]), None] {
            sequence += 1;
            table.offer(entry(1, (1, sequence), &format!("k{key}"), value), LATER);
        }
    }
    let sweep = table.compaction(&owner(1)).expect("enough is withdrawn");
    assert_eq!(
        sweep.renew.iter().map(Entry::key).collect::<Vec<_>>(),
        ["kept"]
    );
    table.offer(entry(1, (1, sequence + 1), "kept", Some(b"v")), LATER);
    table.sweep(&owner(1), sweep.floor);
    assert_eq!(table.since(&owner(1), 0).len(), 1);
    assert_eq!(
        table.offer(entry(1, (1, 2), "k0", Some(b"v")), LATER),
        Novelty::Old
    );
    assert_eq!(table.compaction(&owner(1)), None);
}
