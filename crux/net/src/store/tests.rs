//! The store on a real disk.

use super::*;

/// A directory that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("radix-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn leftovers(store: &Store) -> usize {
    fs::read_dir(store.dir().join("tmp")).map_or(0, Iterator::count)
}

/// A reader that gives `good` bytes and then fails.
struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the source broke"));
        }
        let length = self.0.min(buffer.len());
        self.0 -= length;
        Ok(length)
    }
}

#[test]
fn what_is_put_is_found_under_its_digest() {
    let scratch = Scratch::new("put");
    let store = Store::open(&scratch.0).unwrap();
    let blob = store.put_bytes(b"hello").unwrap();
    assert_eq!(
        blob,
        Info {
            digest: Digest::of(b"hello"),
            size: 5,
            executable: false
        }
    );
    assert_eq!(
        store.put_bytes(b"hello").unwrap(),
        blob,
        "a repeat changes nothing"
    );
    let (mut file, size) = store.open_verified(&blob.digest).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), size), ("hello", 5));
    assert_eq!(store.list().unwrap().collect::<Vec<_>>(), [blob]);
    let mode = fs::metadata(store.path(&blob.digest))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o444);
    assert_eq!(
        fs::metadata(&scratch.0).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert!(store.remove(&blob.digest).unwrap() && !store.remove(&blob.digest).unwrap());
    assert_eq!(
        store.open_verified(&blob.digest).unwrap_err().kind(),
        Kind::NotFound
    );
}

#[test]
fn an_executable_stays_one_when_its_bytes_are_stored_again_as_data() {
    let scratch = Scratch::new("executable");
    let store = Store::open(&scratch.0).unwrap();
    let data = store.put_bytes(b"#!/bin/true\n").unwrap();
    let put = Put {
        executable: true,
        ..Put::default()
    };
    let program = store.put_reader(&mut &b"#!/bin/true\n"[..], put).unwrap();
    assert!(program.executable && program.digest == data.digest);
    assert!(store.put_bytes(b"#!/bin/true\n").unwrap().executable);
    let script = scratch.0.join("script");
    fs::write(&script, "#!/bin/false\n").unwrap();
    assert!(!store.put_file(&script).unwrap().executable);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(store.put_file(&script).unwrap().executable);
}

#[test]
fn what_does_not_arrive_whole_and_right_leaves_nothing() {
    let scratch = Scratch::new("partial");
    let store = Store::open_with(
        &scratch.0,
        Limits {
            blob_bytes_max: 1 << 20,
            ..Limits::default()
        },
    )
    .unwrap();
    let broken = store
        .put_reader(&mut Failing(300_000), Put::default())
        .unwrap_err();
    assert_eq!(broken.kind(), Kind::Io);
    let put = Put {
        expected: Some(Digest::of(b"one")),
        ..Put::default()
    };
    assert_eq!(
        store.put_reader(&mut &b"two"[..], put).unwrap_err().kind(),
        Kind::Mismatch
    );
    let endless = store
        .put_reader(&mut io::repeat(7), Put::default())
        .unwrap_err();
    assert_eq!(endless.kind(), Kind::TooLarge);
    assert_eq!(
        store.put_file(&scratch.0).unwrap_err().kind(),
        Kind::NotRegular
    );
    assert_eq!(store.list().unwrap().count(), 0);
    assert_eq!(leftovers(&store), 0);
}

#[test]
fn a_damaged_blob_is_refused_removed_and_can_be_stored_again() {
    let scratch = Scratch::new("damaged");
    let store = Store::open(&scratch.0).unwrap();
    let blob = store.put_bytes(b"good").unwrap();
    store.open_verified(&blob.digest).unwrap();
    let path = store.path(&blob.digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "evil").unwrap();
    assert_eq!(
        store.open_verified(&blob.digest).unwrap_err().kind(),
        Kind::Corrupt
    );
    assert!(!store.has(&blob.digest));
    fs::write(&path, "cut").unwrap();
    assert_eq!(
        store.put_bytes(b"good").unwrap(),
        blob,
        "put heals what it finds damaged"
    );
    assert_eq!(fs::read(&path).unwrap(), b"good");
}

#[test]
fn a_stream_carries_blobs_and_named_parts_to_another_store() {
    let scratch = Scratch::new("stream");
    let from = Store::open(scratch.0.join("from")).unwrap();
    let to = Store::open(scratch.0.join("to")).unwrap();
    let large = from.put_bytes(&vec![3; 700_000]).unwrap();
    let put = Put {
        executable: true,
        ..Put::default()
    };
    let program = from.put_reader(&mut &b"program"[..], put).unwrap();
    let mut bytes = Vec::new();
    let mut stream = stream::Writer::start(&mut bytes).unwrap();
    stream.named("begat/a.json", b"{}").unwrap();
    stream.blob(&from, &large.digest).unwrap();
    stream.blob(&from, &program.digest).unwrap();
    assert!(stream.named("../up", b"").is_err());
    stream.finish().unwrap();
    assert_eq!(to.import(&mut bytes.as_slice()).unwrap(), [large, program]);
    assert_eq!(to.list().unwrap().count(), 2);
    for (place, kind) in [
        (40, Kind::Format),
        (200, Kind::Mismatch),
        (bytes.len() - 4, Kind::Format),
    ] {
        let other = Store::open(scratch.0.join(format!("other{place}"))).unwrap();
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        let error = other.import(&mut damaged.as_slice()).unwrap_err();
        assert_eq!(error.kind(), kind, "byte {place}: {error}");
        assert!(stream::is_damage(&error));
        let cut = other.import(&mut &bytes[..place]).unwrap_err();
        assert_eq!(cut.kind(), Kind::Format, "cut at {place}");
        assert_eq!(leftovers(&other), 0);
    }
}

#[test]
fn a_named_temporary_file_works_where_nameless_ones_do_not() {
    let scratch = Scratch::new("named");
    let store = Store::open(&scratch.0).unwrap();
    let (file, path) = writer::named(&store.dir().join("tmp")).unwrap();
    writer::remove_unless_locked(&path);
    assert!(path.exists(), "a living writer's file is left alone");
    // Dropping it alone would leave the lock with processes that other tests are just forking.
    file.unlock().unwrap();
    drop(file);
    writer::remove_unless_locked(&path);
    assert!(!path.exists(), "a dead writer's file is swept");
}

#[test]
fn many_writers_of_the_same_bytes_agree() {
    let scratch = Scratch::new("race");
    let bytes = vec![9; 300_000];
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = Store::open(&scratch.0).unwrap();
                assert_eq!(store.put_bytes(&bytes).unwrap().digest, Digest::of(&bytes));
            });
        }
    });
    let store = Store::open(&scratch.0).unwrap();
    assert_eq!(store.list().unwrap().count(), 1);
    assert_eq!(leftovers(&store), 0);
}

const SMALL_DISK: &str = "RADIX_TEST_SMALL_DISK";

/// Runs inside its own mount namespace, on a file system of 256 KiB.
fn on_a_small_disk(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let small = store.put_bytes(b"fits").unwrap();
    let error = store.put_bytes(&vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), Kind::Full, "{error}");
    assert!(error.to_string().contains("no room"), "{error}");
    assert_eq!(leftovers(&store), 0);
    assert_eq!(store.list().unwrap().collect::<Vec<_>>(), [small]);
    store.put_bytes(&vec![2; 64 << 10]).unwrap();
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    if let Some(dir) = std::env::var_os(SMALL_DISK) {
        return on_a_small_disk(Path::new(&dir));
    }
    let scratch = Scratch::new("full");
    fs::create_dir_all(&scratch.0).unwrap();
    let script = "mount -t tmpfs -o size=256k tmpfs \"$1\" || exit 99; shift; exec \"$@\"";
    let name = "store::tests::a_full_disk_is_told_and_leaves_nothing_behind";
    let output = std::process::Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, "sh"])
        .arg(&scratch.0)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(SMALL_DISK, scratch.0.join("store"))
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stderr));
        }
        _ => println!("skipped: no private file system can be mounted here"),
    }
}

fn archive(path: &Path) {
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    for (name, bytes) in [("notes/b.txt", &b"beta"[..]), ("a.txt", b"alpha")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    tar.into_inner().unwrap();
}

// Shows: DAT-01
#[test]
fn each_form_of_data_is_registered_and_listed_with_members_and_hashes() {
    use data::{Catalogue, Form, Origin};
    let scratch = Scratch::new("data");
    let store = Store::open(scratch.0.join("store")).unwrap();
    let catalogue = Catalogue::open(&store).unwrap();
    let file = scratch.0.join("prods.csv");
    fs::write(&file, "id\n1\n").unwrap();
    let tarball = scratch.0.join("x.tar");
    archive(&tarball);
    let pouch = scratch.0.join("pouch");
    fs::create_dir_all(pouch.join("deep")).unwrap();
    fs::write(pouch.join("deep/one"), "one").unwrap();
    fs::write(pouch.join("two"), "two").unwrap();
    let image = scratch.0.join("image");
    fs::write(&image, [&b"hsqs"[..], &[0; 4096]].concat()).unwrap();
    let url = "https://example.org/feed";
    let mut stream = &b"bytes"[..];
    let sets = [
        catalogue.register("a-file", Origin::File(&file)).unwrap(),
        catalogue
            .register(
                "b-stream",
                Origin::Stream {
                    url,
                    reader: &mut stream,
                },
            )
            .unwrap(),
        catalogue
            .register("c-tarball", Origin::Tarball(&tarball))
            .unwrap(),
        catalogue
            .register("d-pouch", Origin::Pouch(&pouch))
            .unwrap(),
        catalogue
            .register("e-chunk", Origin::Chunk(&image))
            .unwrap(),
    ];
    assert_eq!(
        catalogue.list().unwrap(),
        sets,
        "what is listed is what was registered"
    );
    let shown: Vec<(Form, Vec<(&str, Digest)>)> = sets
        .iter()
        .map(|set| {
            (
                set.form,
                set.members
                    .iter()
                    .map(|one| (one.path.as_str(), one.digest))
                    .collect(),
            )
        })
        .collect();
    let expected = [
        (Form::File, vec![("prods.csv", Digest::of(b"id\n1\n"))]),
        (Form::Stream, vec![(url, Digest::of(b"bytes"))]),
        (
            Form::Tarball,
            vec![
                ("a.txt", Digest::of(b"alpha")),
                ("notes/b.txt", Digest::of(b"beta")),
            ],
        ),
        (
            Form::Pouch,
            vec![
                ("deep/one", Digest::of(b"one")),
                ("two", Digest::of(b"two")),
            ],
        ),
        (
            Form::Chunk,
            vec![("squashfs", Digest::of(&fs::read(&image).unwrap()))],
        ),
    ];
    assert_eq!(shown, expected);
    let parts = sets
        .iter()
        .flat_map(|set| set.members.iter().map(|member| member.digest));
    assert!(
        parts
            .chain(sets.iter().map(|set| set.digest))
            .all(|digest| store.has(&digest))
    );
}

#[test]
fn a_name_points_to_its_newest_version_and_the_older_one_stays_addressable() {
    use data::{Catalogue, Origin};
    let scratch = Scratch::new("versions");
    let store = Store::open(scratch.0.join("store")).unwrap();
    let catalogue = Catalogue::open(&store).unwrap();
    let file = scratch.0.join("f");
    fs::write(&file, "one").unwrap();
    let first = catalogue.register("f", Origin::File(&file)).unwrap();
    fs::write(&file, "two").unwrap();
    let second = catalogue.register("f", Origin::File(&file)).unwrap();
    assert_eq!(catalogue.find("f"), Some(second));
    assert!(store.open_verified(&first.digest).is_ok());
    // What is refused changes nothing.
    assert_eq!(
        catalogue
            .register("f", Origin::Chunk(&file))
            .unwrap_err()
            .kind(),
        Kind::Format
    );
    assert!(catalogue.register("f", Origin::Tarball(&file)).is_err());
    assert_eq!(
        catalogue
            .register("../f", Origin::File(&file))
            .unwrap_err()
            .kind(),
        Kind::Format
    );
    assert_eq!(catalogue.list().unwrap().len(), 1);
    assert!(catalogue.forget("f").unwrap() && !catalogue.forget("f").unwrap());
    assert!(store.has(&first.digest) && catalogue.find("f").is_none());
}
