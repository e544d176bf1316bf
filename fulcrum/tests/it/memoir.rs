//! The memoir against crashes, tampering and floods.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use fulcrum::memoir::{Fields, Reader, Record, VerifyError, Writer, read, verify};
use serde_json::Value;

use crate::rig::{Scratch, TESTEE, within};

fn fields(name: &str, value: impl Into<Value>) -> Fields {
    Fields::from_iter([(name.to_owned(), value.into())])
}

async fn write(dir: &Path, count: u64) {
    let writer = Writer::open(dir).unwrap();
    for number in 0..count {
        within(writer.record_synced("exec.start", fields("number", number)))
            .await
            .unwrap();
    }
    within(writer.close()).await;
}

fn bad_line(dir: &Path) -> Option<u64> {
    match verify(dir) {
        Ok(_) => None,
        Err(VerifyError::Bad(bad)) => Some(bad.line),
        Err(error) => panic!("{error}"),
    }
}

// Shows: MEM-04
#[tokio::test]
async fn altering_dropping_or_moving_any_record_fails_at_its_index() {
    let scratch = Scratch::new();
    write(scratch.path(), 12).await;
    let file = scratch.path().join("memoir.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    assert_eq!(verify(scratch.path()).unwrap().records, 12);
    let put = |lines: &[&str]| {
        fs::write(
            &file,
            lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
        )
        .unwrap()
    };
    for index in 0..lines.len() {
        let at = index as u64 + 1;
        let altered = lines[index].replace("exec.start", "exec.stop_");
        let mut changed = lines.clone();
        changed[index] = &altered;
        put(&changed);
        assert_eq!(bad_line(scratch.path()), Some(at), "altered {index}");

        let mut changed = lines.clone();
        changed.remove(index);
        put(&changed);
        assert_eq!(bad_line(scratch.path()), Some(at), "dropped {index}");

        let mut changed = lines.clone();
        changed.insert(index, lines[index]);
        put(&changed);
        assert_eq!(bad_line(scratch.path()), Some(at + 1), "doubled {index}");

        for other in index + 1..lines.len() {
            let mut changed = lines.clone();
            changed.swap(index, other);
            put(&changed);
            assert_eq!(
                bad_line(scratch.path()),
                Some(at),
                "swapped {index} and {other}"
            );
        }
    }
    put(&lines);
    assert_eq!(bad_line(scratch.path()), None);
}

#[tokio::test]
async fn a_record_written_anew_with_a_fitting_hash_breaks_the_next_or_the_head() {
    let scratch = Scratch::new();
    write(scratch.path(), 5).await;
    let file = scratch.path().join("memoir.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for index in 0..lines.len() {
        let (body, _) = lines[index].rsplit_once(",\"hash\":").unwrap();
        let body = body.replace("exec.start", "exec.stop_");
        let forged = format!(
            "{body},\"hash\":\"{}\"}}",
            crux_core::digest::Digest::of(body.as_bytes())
        );
        let mut changed = lines.clone();
        changed[index] = &forged;
        fs::write(&file, changed.join("\n") + "\n").unwrap();
        let expected = (index as u64 + 2).min(lines.len() as u64);
        assert_eq!(bad_line(scratch.path()), Some(expected), "forged {index}");
    }
}

#[tokio::test]
async fn an_end_torn_anywhere_is_cut_and_noted_and_the_chain_goes_on() {
    let scratch = Scratch::new();
    write(scratch.path(), 3).await;
    let file = scratch.path().join("memoir.jsonl");
    let whole = fs::read(&file).unwrap();
    let second_end = whole
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .nth(1)
        .unwrap()
        .0
        + 1;
    let mut head = whole[..second_end].to_vec();
    // What the head says after two records.
    let second = &read(scratch.path(), 0).unwrap()[1];
    let note = format!("{:020} {}\n", second.seq, second.hash);
    for torn in 1..whole.len() - second_end {
        fs::remove_dir_all(scratch.path()).unwrap();
        fs::create_dir(scratch.path()).unwrap();
        head.truncate(second_end);
        head.extend(&whole[second_end..second_end + torn]);
        fs::write(&file, &head).unwrap();
        fs::write(scratch.path().join("memoir.head"), &note).unwrap();
        // A reader bears it, before anyone has mended it.
        assert_eq!(verify(scratch.path()).unwrap().torn_bytes, torn as u64);
        assert_eq!(read(scratch.path(), 0).unwrap().len(), 2);
        if torn % 16 == 1 {
            write(scratch.path(), 1).await;
            let records = read(scratch.path(), 0).unwrap();
            let kinds: Vec<_> = records.iter().map(|record| record.kind.as_str()).collect();
            assert_eq!(
                kinds,
                ["exec.start", "exec.start", "memoir.cut", "exec.start"]
            );
            assert_eq!(records[2].fields["bytes"], Value::from(torn));
            assert_eq!(verify(scratch.path()).unwrap().records, 4);
        }
    }
}

#[tokio::test]
async fn records_missing_at_the_end_are_noticed_and_noted() {
    let scratch = Scratch::new();
    write(scratch.path(), 3).await;
    let file = scratch.path().join("memoir.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{}\n", whole.lines().next().unwrap())).unwrap();
    assert_eq!(bad_line(scratch.path()), Some(2));
    write(scratch.path(), 1).await;
    let records = read(scratch.path(), 0).unwrap();
    assert_eq!(
        (
            records[1].kind.as_str(),
            &records[1].fields["last_known_seq"]
        ),
        ("memoir.short", &Value::from(2))
    );
}

// Shows in part: MEM-01
#[tokio::test]
async fn every_record_acknowledged_before_a_kill_is_readable() {
    let scratch = Scratch::new();
    for _ in 0..5 {
        let mut command = Command::new(TESTEE);
        command
            .arg("remember")
            .arg(scratch.path())
            .stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut acknowledged: Vec<u64> = (&mut lines)
            .take(50)
            .map(|line| line.unwrap().parse().unwrap())
            .collect();
        process.kill().unwrap();
        process.wait().unwrap();
        acknowledged.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|line| line.parse::<u64>().ok()),
        );
        let records = read(scratch.path(), 0).unwrap();
        let last = *acknowledged.last().unwrap();
        assert!(records.last().is_some_and(|record| record.seq >= last));
        verify(scratch.path()).unwrap();
    }
}

#[tokio::test]
async fn many_writers_share_syncs_and_each_gets_its_own_number() {
    let scratch = Scratch::new();
    let writer = Writer::open(scratch.path()).unwrap();
    let one = |number: u64| {
        let writer = writer.clone();
        async move {
            writer
                .record_synced("exec.start", fields("number", number))
                .await
                .unwrap()
        }
    };
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..500 {
        tasks.spawn(one(number));
    }
    let mut numbers = within(tasks.join_all()).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    within(writer.close()).await;
    assert_eq!(verify(scratch.path()).unwrap().records, 500);
    assert!(writer.record_synced("late", Fields::new()).await.is_err());
}

#[tokio::test]
async fn refusals_of_strangers_are_summed() {
    let scratch = Scratch::new();
    let writer = Writer::open(scratch.path()).unwrap();
    for number in 0..10_000 {
        writer.refused(&format!("127.0.0.{}", number % 2), "Rexec/Start");
    }
    within(writer.close()).await;
    let records = read(scratch.path(), 0).unwrap();
    let counts: u64 = records
        .iter()
        .filter_map(|record| record.fields["count"].as_u64())
        .sum();
    assert_eq!(counts, 10_000);
    // A test that straddles the turn of a minute sums twice.
    assert!((2..=4).contains(&records.len()), "{}", records.len());
}

#[tokio::test]
async fn a_reader_follows_a_memoir_that_is_being_written() {
    let scratch = Scratch::new();
    let writer = Writer::open(scratch.path()).unwrap();
    let mut reader = Reader::open(scratch.path(), 1).unwrap();
    assert_eq!(reader.next().unwrap(), None);
    for number in 0..5 {
        within(writer.record_synced("exec.start", fields("number", number)))
            .await
            .unwrap();
    }
    let seen: Vec<Record> = std::iter::from_fn(|| reader.next().unwrap()).collect();
    assert_eq!(
        seen.iter().map(|record| record.seq).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    within(writer.record("exec.end", Fields::new()))
        .await
        .unwrap();
    within(writer.close()).await;
    assert_eq!(reader.next().unwrap().unwrap().kind, "exec.end");
    assert_eq!(reader.next().unwrap(), None);
}

#[tokio::test]
async fn a_line_of_another_hand_is_an_error_with_its_place() {
    let scratch = Scratch::new();
    write(scratch.path(), 2).await;
    let path = scratch.path().join("memoir.jsonl");
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"seq\":2}\n").unwrap();
    let error = read(scratch.path(), 0).unwrap_err().to_string();
    assert!(error.contains("at line 3"), "{error}");
    assert_eq!(bad_line(scratch.path()), Some(3));
}

#[tokio::test]
async fn segments_wholly_below_the_first_record_asked_for_are_not_read() {
    let scratch = Scratch::new();
    write(scratch.path(), 12).await;
    let current = scratch.path().join("memoir.jsonl");
    let whole = fs::read_to_string(&current).unwrap();
    let all = read(scratch.path(), 0).unwrap();
    let lines: Vec<String> = whole.lines().map(|line| format!("{line}\n")).collect();
    let segment = |at: usize| {
        let name = format!("memoir.{:020}.jsonl", all[at].seq);
        scratch.path().join(name)
    };
    // What stands in the first cannot be read.
    fs::write(segment(0), "no record\n").unwrap();
    fs::write(segment(4), lines[4..8].concat()).unwrap();
    fs::write(&current, lines[8..].concat()).unwrap();
    for at in [4, 7, 8, 11] {
        let found = read(scratch.path(), all[at].seq).unwrap();
        let numbers = found.iter().map(|record| record.seq);
        assert!(
            numbers.eq(all[at..].iter().map(|record| record.seq)),
            "{at}"
        );
    }
    assert!(read(scratch.path(), all[3].seq).is_err());
}
