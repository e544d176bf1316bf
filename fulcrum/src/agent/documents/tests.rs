//! Which documents are taken, and which refused.

use crux_wire::document::v1::{Document, Pin, SignedDocument};
use prost::Message;

use super::{Accepting, Documents, Judge, Verdict, judge};

fn document(generation: u64, base: u64, digest: &str) -> Document {
    Document {
        owner: "ab".into(),
        namespace: "stix".into(),
        application: "stix".into(),
        generation,
        base,
        digest: digest.into(),
        pins: vec![Pin {
            digest: format!("pin{generation}"),
            ..Pin::default()
        }],
        ..Document::default()
    }
}

fn signed(document: &Document) -> SignedDocument {
    SignedDocument {
        payload: document.encode_to_vec(),
        ..SignedDocument::default()
    }
}

fn at(nested: bool, highest: u64, held: Option<&Document>) -> Judge<'_> {
    let own_namespace = nested.then_some("stix");
    Judge {
        owner: "ab",
        own_namespace,
        highest,
        held,
        take_over: false,
        accepting: Accepting::Documents,
    }
}

struct Dir(std::path::PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("radix-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_base_takes_only_what_was_edited_from_what_it_holds() {
    let held = document(4, 3, "d4");
    let base = at(false, 4, Some(&held));
    assert_eq!(judge(&base, &document(5, 4, "d5")), Verdict::Accept);
    assert!(matches!(
        judge(&base, &document(6, 3, "d5")),
        Verdict::Stale(_)
    ));
    assert!(matches!(
        judge(&base, &document(4, 4, "d5")),
        Verdict::Stale(_)
    ));
    assert_eq!(judge(&base, &document(5, 4, "d4")), Verdict::Unchanged);
    let insisting = Judge {
        take_over: true,
        ..base
    };
    assert_eq!(judge(&insisting, &document(6, 3, "d5")), Verdict::Accept);
}

#[test]
fn who_is_about_to_end_takes_nothing_and_does_not_call_it_wrong() {
    let held = document(3, 2, "d3");
    let ending = Judge {
        accepting: Accepting::Nothing,
        ..at(false, 3, Some(&held))
    };
    for offered in [&document(4, 3, "d4"), &held, &document(2, 1, "d2")] {
        assert_eq!(judge(&ending, offered), Verdict::Exiting);
    }
    let mut foreign = document(4, 3, "d4");
    foreign.owner = "cd".into();
    assert!(matches!(judge(&ending, &foreign), Verdict::Refused(_)));
}

#[test]
fn a_base_without_a_live_document_takes_any_higher_generation() {
    assert_eq!(
        judge(&at(false, 0, None), &document(9, 8, "d9")),
        Verdict::Accept
    );
    let mut gone = document(4, 3, "d4");
    gone.dissolved = true;
    assert_eq!(
        judge(&at(false, 4, Some(&gone)), &document(9, 2, "d9")),
        Verdict::Accept
    );
    assert!(matches!(
        judge(&at(false, 4, None), &document(4, 3, "d9")),
        Verdict::Stale(_)
    ));
}

#[test]
fn a_nested_rnode_takes_any_higher_generation_of_its_own_namespace() {
    let held = document(4, 3, "d4");
    let nested = at(true, 4, Some(&held));
    assert_eq!(judge(&nested, &document(9, 8, "d4")), Verdict::Accept);
    assert_eq!(judge(&nested, &document(4, 3, "d4")), Verdict::Unchanged);
    assert!(matches!(
        judge(&nested, &document(3, 2, "d3")),
        Verdict::Stale(_)
    ));
    let foreign = Document {
        namespace: "other".into(),
        ..document(9, 8, "d9")
    };
    assert!(matches!(judge(&nested, &foreign), Verdict::Refused(_)));
    let stranger = Document {
        owner: "cd".into(),
        ..document(9, 8, "d9")
    };
    assert!(matches!(judge(&nested, &stranger), Verdict::Refused(_)));
    let escape = Document {
        namespace: "../x".into(),
        ..document(9, 8, "d9")
    };
    assert!(matches!(
        judge(&at(false, 0, None), &escape),
        Verdict::Refused(_)
    ));
}

#[test]
fn accepted_documents_and_marks_are_there_after_a_restart() {
    let dir = Dir::new("documents");
    let documents = Documents::open(&dir.0, |_| true).unwrap();
    for generation in 1..=3 {
        let document = document(generation, generation - 1, "d");
        documents.accept(signed(&document), document).unwrap();
    }
    assert!(documents.assigned("stix", 3, 7).unwrap());
    drop(documents);

    let documents = Documents::open(&dir.0, |_| true).unwrap();
    assert_eq!(documents.newest("stix").unwrap().document.generation, 3);
    assert!(documents.generation("stix", 2).is_some());
    assert!(documents.generation("stix", 1).is_none());
    assert_eq!(documents.pinned("stix").len(), 2);
    assert!(!documents.assigned("stix", 3, 6).unwrap());
    assert!(!documents.assigned("stix", 2, 9).unwrap());
    assert!(documents.assigned("stix", 3, 7).unwrap());
    documents.forget("stix").unwrap();
    drop(documents);

    let documents = Documents::open(&dir.0, |_| true).unwrap();
    assert!(documents.newest("stix").is_none());
    assert_eq!(documents.highest("stix").generation, 3);
}
