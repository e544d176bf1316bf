//! Blocks of `.rnodes` files.

use std::path::Path;

use crux_core::adf::{Diagnostic, FileKind, FileTree, SourceMap};
use underverse::{
    FromRnodes, HordeSpec, Members, Mount, MountSource, Program, UserSource, backend_of,
    from_rnodes,
};

fn read(text: &str, backend: &str) -> Result<HordeSpec, Vec<Diagnostic>> {
    let (tree, found) = FileTree::parse(FileKind::Rnodes, "stix.rnodes", text);
    assert!(found.iter().all(|found| !found.is_error()), "{found:?}");
    let FileTree::Rnodes(tree) = tree else {
        panic!("{tree:?}")
    };
    let mut files = SourceMap::default();
    files.add("stix.rnodes", text.to_owned(), false);
    let name = "stix".parse().unwrap();
    let directory = Path::new("/home/andrew/stix");
    from_rnodes(
        &tree,
        &FromRnodes {
            name: &name,
            backend,
            directory,
            files: &files,
        },
    )
}

#[track_caller]
fn check(text: &str, backend: &str, part: &str) {
    let found = read(text, backend).unwrap_err();
    let shown: String = found.iter().map(ToString::to_string).collect();
    assert!(shown.contains(part), "{part}: {shown}");
}

// Shows in part: MYR-02
#[test]
fn the_printed_block_is_six_rnodes_that_see_one_directory() {
    let text = "myriad {\n  n = 6\n  cmd = /var/radix/bin/fulcrum\n  \
                mount /user/andrew/code/stix = /var/stix\n}\n";
    for backend in ["local", "docker"] {
        let spec = read(text, backend).unwrap();
        let execable = &spec.execables[0];
        assert_eq!((spec.name.as_str(), execable.count), ("stix", 6));
        let words = vec!["/var/radix/bin/fulcrum".to_owned()];
        assert_eq!(execable.program, Program::Fulcrum(words));
        let source = MountSource::Host("/user/andrew/code/stix".into());
        assert_eq!(
            execable.mounts,
            [Mount {
                source,
                target: "/var/stix".into()
            }]
        );
        assert!(spec.validate().is_ok());
    }
}

#[test]
fn every_line_of_a_block_is_taken_over() {
    let text = "local {\n  n = 2\n  cmd = /bin/server -v\n  mount ../data/./x = /data\n  \
                expose 8080 = prog1:45271\n  user stix = auto\n  user me = self\n  \
                tags = fast near\n  server a = GPU\n  server b = GPU old\n  isolation = none\n}\n";
    let spec = read(text, "local").unwrap();
    let execable = &spec.execables[0];
    let words = ["/bin/server", "-v"].map(str::to_owned).to_vec();
    assert_eq!(execable.program, Program::Command(words));
    assert_eq!(
        execable.mounts[0].source,
        MountSource::Host("/home/andrew/data/x".into())
    );
    let port = &spec.network.ports[0];
    assert_eq!((port.external_port, port.internal_port), (8080, 45_271));
    assert_eq!(port.members, Members::Class("prog1".to_owned()));
    assert_eq!(spec.users[0].source, UserSource::Auto);
    assert_eq!(spec.users[1].source, UserSource::Oneself);
    assert_eq!(execable.added.len(), 2);
    assert_eq!(spec.servers.len(), 2);
    assert_eq!(spec.servers[1].tags.len(), 2);
    assert_eq!(spec.settings["isolation"], ["none"]);
}

#[test]
fn what_a_block_lacks_is_located() {
    let other = "docker {\n  n = 2\n  cmd = /bin/fulcrum\n}\n";
    check(other, "local", "stix.rnodes:1");
    check(other, "local", "backend docker, and local was chosen");
    check("", "local", "no block says where the rnodes come from");
    check("local {\n  cmd = /bin/fulcrum\n}\n", "local", "n = ");
    check("local {\n  n = 2\n}\n", "local", "cmd = ");
    let climbing = "local {\n  n = 1\n  cmd = /bin/fulcrum\n  mount ../../../../.. = /data\n}\n";
    check(climbing, "local", "stix.rnodes:4");
}

#[test]
fn a_myriad_block_is_for_the_backend_that_was_chosen() {
    let tree = |text: &str| match FileTree::parse(FileKind::Rnodes, "x.rnodes", text).0 {
        FileTree::Rnodes(tree) => tree,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        backend_of(&tree("myriad {\n  n = 1\n}\n"), "local"),
        "local"
    );
    assert_eq!(
        backend_of(&tree("k8s {\n  n = 1\n}\n"), "local"),
        "kubernetes"
    );
    assert_eq!(backend_of(&tree(""), "docker"), "docker");
}
