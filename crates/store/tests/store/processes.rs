//! Real processes: killed writers, readers beside writers, full disks, folders that can't be written.
//!
//! A child is this test program again, running the test [`child_process`] with a job in its environment.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crossmodal_store::{
    ErrorKind, ItemVectors, LocalStore, Metric, OpenOptions, SearchRequest, StoreError, VectorRecord, VectorStore,
};

use crate::sample::{Random, assert_search_is_exact, entries, entry, field, open_read, open_write, record, strings};

const JOB: &str = "CROSSMODAL_STORE_TEST_JOB";
const FOLDER: &str = "CROSSMODAL_STORE_TEST_FOLDER";
const FIRST: &str = "CROSSMODAL_STORE_TEST_FIRST";
/// Set for 200 rounds of the kill test instead of 40.
pub const LONG: &str = "CROSSMODAL_LONG_TESTS";
pub const DIMENSION: usize = 24;

/// Not a test but the entry of child processes; without a job it does nothing.
#[test]
fn child_process() {
    let Ok(job) = env::var(JOB) else { return };
    let folder = PathBuf::from(env::var(FOLDER).unwrap());
    let first = || env::var(FIRST).unwrap().parse().unwrap();
    match job.as_str() {
        "write" => write_from(&folder, first()),
        "write-and-index" => crate::killed_builds::write_and_index_for_ever(&folder, first()),
        "read" => read_for_ever(&folder),
        "hold" => hold_the_lock(&folder),
        "fill" => fill_the_disk(&folder),
        "take-turns" => crate::concurrency::take_turns(&folder),
        "read-only" => read_where_nothing_can_be_written(&folder),
        job => panic!("unknown job {job}"),
    }
}

/// What a child runs: this program, or a copy of it that other users can start.
fn child_arguments(command: &mut Command, job: &str, folder: &Path) {
    command.args(["--exact", "processes::child_process", "--nocapture", "--test-threads", "1"]);
    command.env(JOB, job).env(FOLDER, folder).stdout(Stdio::piped());
}

pub fn child(job: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    child_arguments(&mut command, job, folder);
    command
}

/// Lines that a child prints with a mark before them, as they come.
fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            // The test runner's own words may stand before the mark on the first line.
            if let Some((_, text)) = line.split_once("@@")
                && sender.send(text.to_owned()).is_err()
            {
                return;
            }
        }
    });
    receiver
}

pub fn say(text: &str) {
    use std::io::Write;
    let mut output = std::io::stdout();
    writeln!(output, "@@{text}").and_then(|()| output.flush()).expect("the parent reads");
}

/// A child's words after its successful end.
pub fn finish(mut child: Child) -> Vec<String> {
    let lines = lines_of(&mut child);
    let status = child.wait().unwrap();
    let lines: Vec<_> = lines.iter().collect();
    assert!(status.success(), "{status}: {lines:?}");
    lines
}

/// One operation of the writing child; a function of its number alone, so that the parent can follow.
enum Operation {
    Upsert(Vec<ItemVectors>),
    Remove(Vec<String>),
    Compact,
}

fn operation(number: u64) -> Operation {
    let mut random = Random::new(number);
    let id = |random: &mut Random| format!("id-{}", random.below(300));
    match random.below(12) {
        0..=8 => {
            let mut batch = BTreeMap::new();
            for _ in 0..=random.below(40) {
                let id = id(&mut random);
                let mut entry = entry(&id, "a", random.vector(DIMENSION));
                entry.item.metadata.insert("operation".to_owned(), number.into());
                if random.below(3) == 0 {
                    entry.vectors.push(VectorRecord { part: 1, ..record("a", random.vector(DIMENSION)) });
                }
                entry.vectors.push(record("b", random.vector(DIMENSION)));
                batch.insert(id, entry);
            }
            Operation::Upsert(batch.into_values().collect())
        }
        9 | 10 => Operation::Remove((0..random.below(20)).map(|_| id(&mut random)).collect()),
        _ => Operation::Compact,
    }
}

pub type Model = BTreeMap<String, ItemVectors>;

pub fn apply(model: &mut Model, number: u64) {
    match operation(number) {
        Operation::Upsert(batch) => model.extend(batch.into_iter().map(|entry| (entry.item.id.clone(), entry))),
        Operation::Remove(ids) => ids.iter().for_each(|id| drop(model.remove(id))),
        Operation::Compact => {}
    }
}

fn write_from(folder: &Path, first: u64) {
    let store = open_write(folder);
    for name in ["a", "b"] {
        store.ensure_field(&field(name, DIMENSION, Metric::InnerProduct)).unwrap();
    }
    write_for_ever(&store, first);
}

/// Carries operations out, each acknowledged to the parent.
pub fn write_for_ever(store: &LocalStore, first: u64) {
    for number in first.. {
        match operation(number) {
            Operation::Upsert(batch) => drop(store.upsert(&batch).unwrap()),
            Operation::Remove(ids) => drop(store.remove(&ids).unwrap()),
            Operation::Compact => drop(store.compact().unwrap()),
        }
        say(&format!("done {number}"));
    }
}

/// Whether the store holds just what the model says: items, exact vectors.
pub fn holds(store: &dyn VectorStore, model: &Model) -> bool {
    let mut items = store.list(&Default::default()).unwrap();
    items.sort_by(|a, b| a.item.id.cmp(&b.item.id));
    let same_items = items.iter().map(|stored| &stored.item).eq(model.values().map(|entry| &entry.item));
    same_items
        && model.iter().all(|(id, entry)| {
            let vectors = store.vectors(id).unwrap();
            vectors.iter().map(|vector| &vector.vector).eq(entry.vectors.iter().map(|record| &record.vector))
        })
}

fn assert_sound(store: &dyn VectorStore, model: &Model, seed: u64) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    for name in ["a", "b"] {
        let vectors = model.iter().flat_map(|(id, entry)| {
            let of_field = entry.vectors.iter().filter(|record| record.field == name);
            of_field.map(move |record| (id.as_str(), &record.vector[..]))
        });
        let query = Random::new(seed).vector(DIMENSION);
        assert_search_is_exact(store, name, Metric::InnerProduct, 10, &query, vectors);
    }
}

/// Lets a child do a job from operation `first` on and kills it after a while, counted from its start or, on a machine that has
/// much else to do, from its first word. Returns its words.
pub fn words_until_killed(job: &str, folder: &Path, first: u64, from_first_word: bool, after: Duration) -> Vec<String> {
    let mut child = child(job, folder).env(FIRST, first.to_string()).spawn().unwrap();
    let lines = lines_of(&mut child);
    let mut words: Vec<String> = Vec::new();
    if from_first_word {
        words.push(lines.recv_timeout(Duration::from_secs(60)).expect("the child begins"));
    }
    thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    words.extend(lines.iter());
    words
}

/// The first operation that a child didn't acknowledge, of those from `first` on.
pub fn unacknowledged(first: u64, words: &[String]) -> u64 {
    let last = words.iter().rev().find_map(|word| word.strip_prefix("done "));
    last.map_or(first, |number| number.parse::<u64>().unwrap() + 1)
}

/// What was acknowledged is there after kill -9 at any moment; of the operation in flight all or nothing is.
#[test]
fn a_killed_writer_loses_nothing() {
    let rounds = if env::var_os(LONG).is_some() { 200 } else { 40 };
    let mut random = Random::new(2024);
    let folder = tempfile::tempdir().unwrap();
    let (mut path, mut model, mut next) = (folder.path().join("0"), Model::new(), 0);
    let (mut in_flight_kept, mut operations) = (0, 0);
    for round in 0..rounds {
        if round % 10 == 0 {
            // A new collection, so that its creation is killed as well.
            (path, model) = (folder.path().join(round.to_string()), Model::new());
        }
        // The first rounds fall into the creation of the collection.
        let begun = round % 10 >= 4;
        let after = Duration::from_micros(random.below(if begun { 150_000 } else { 25_000 }));
        let unacknowledged = unacknowledged(next, &words_until_killed("write", &path, next, begun, after));
        operations += unacknowledged - next;
        (next..unacknowledged).for_each(|number| apply(&mut model, number));
        let mut with_in_flight = model.clone();
        apply(&mut with_in_flight, unacknowledged);
        next = unacknowledged + 1;
        // First as a reader, who finds the files as the killed writer left them.
        match LocalStore::open(&path, &OpenOptions::read()) {
            Ok(reader) => assert!(holds(&reader, &model) || holds(&reader, &with_in_flight), "round {round}"),
            Err(error) => assert!(error.kind() == ErrorKind::NotFound && model.is_empty(), "round {round}: {error}"),
        }
        let store = open_write(&path);
        for name in ["a", "b"] {
            store.ensure_field(&field(name, DIMENSION, Metric::InnerProduct)).unwrap();
        }
        if !holds(&store, &model) {
            assert!(holds(&store, &with_in_flight), "round {round}: neither before nor after operation {next}");
            model = with_in_flight;
            in_flight_kept += 1;
        }
        assert_sound(&store, &model, round);
    }
    println!("{rounds} rounds, {operations} acknowledged operations, {in_flight_kept} unacknowledged ones kept");
    assert!(operations > rounds, "the writer hardly got to write");
}

fn read_for_ever(folder: &Path) {
    let store = open_read(folder);
    for round in 0.. {
        // Every batch writes both vectors of an item or none, and no committed state has fewer than 40 items.
        let hits = store.search(&SearchRequest::new("a", vec![1.0; DIMENSION], 1000)).unwrap().remove(0);
        assert!(hits.len() >= 40 && hits.is_sorted_by(|a, b| a.score >= b.score), "{} hits", hits.len());
        for hit in hits.iter().take(5) {
            let vectors = store.vectors(&hit.item.id).unwrap();
            assert!(vectors.len() != 1, "half a batch is seen");
        }
        if round % 20 == 0 {
            let report = store.verify().unwrap();
            assert!(report.is_clean(), "{report:?}");
        }
        say("read");
    }
}

/// Two reading processes while this one writes, removes and compacts.
#[test]
fn readers_in_other_processes_see_whole_states() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let store = open_write(&path);
    for name in ["a", "b"] {
        store.ensure_field(&field(name, DIMENSION, Metric::Cosine)).unwrap();
    }
    let batch = |first: usize| {
        let mut entries = entries("a", DIMENSION, first..first + 10);
        for entry in &mut entries {
            entry.vectors.push(record("b", Random::new(first as u64).vector(DIMENSION)));
        }
        entries
    };
    (0..60).step_by(10).for_each(|first| drop(store.upsert(&batch(first)).unwrap()));
    let mut readers: Vec<_> = (0..2).map(|_| child("read", &path).spawn().unwrap()).collect();
    let lines: Vec<_> = readers.iter_mut().map(lines_of).collect();
    lines.iter().for_each(|lines| drop(lines.recv_timeout(Duration::from_secs(20)).expect("readers read")));
    let (start, mut compactions) = (Instant::now(), 0);
    for round in 0.. {
        if start.elapsed() > Duration::from_secs(3) && compactions >= 5 {
            break;
        }
        store.upsert(&batch(round * 10 % 90)).unwrap();
        if round % 3 == 0 {
            store.remove(&strings(&[&format!("item-{}", 60 + round % 30)])).unwrap();
        }
        if round % 4 == 0 {
            store.compact().unwrap();
            compactions += 1;
        }
    }
    for (reader, lines) in readers.iter_mut().zip(lines) {
        assert_eq!(reader.try_wait().unwrap(), None, "a reader failed");
        reader.kill().unwrap();
        reader.wait().unwrap();
        let reads = lines.iter().count();
        assert!(reads >= 5, "{reads} reads beside {compactions} compactions");
    }
    assert!(store.verify().unwrap().is_clean());
}

fn hold_the_lock(folder: &Path) {
    let _store = open_write(folder);
    say("held");
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn the_lock_dies_with_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let mut holder = child("hold", &path).spawn().unwrap();
    let lines = lines_of(&mut holder);
    lines.recv_timeout(Duration::from_secs(20)).expect("the child holds the lock");
    let error = LocalStore::open(&path, &OpenOptions::write()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains(&format!("process {}", holder.id())), "{error}");
    assert_eq!(open_read(&path).count(None).unwrap(), 0);
    holder.kill().unwrap();
    holder.wait().unwrap();
    drop(open_write(&path));
}

/// Writes until it fails, checks what is left, and says with which error and how many items are stored.
fn fill_the_disk(folder: &Path) {
    let store = open_write(folder);
    store.ensure_field(&field("f", 512, Metric::InnerProduct)).unwrap();
    let mut stored = 0;
    let error: StoreError = loop {
        match store.upsert(&entries("f", 512, stored..stored + 50)) {
            Ok(keys) => stored += keys.len(),
            Err(error) => break error,
        }
        assert!(stored < 100_000, "nothing limits the disk");
    };
    assert!(error.to_string().contains(folder.to_str().unwrap()), "{error}");
    // Failing again and again changes nothing.
    for _ in 0..3 {
        assert!(store.upsert(&entries("f", 512, stored..stored + 50)).is_err());
    }
    assert_eq!(store.count(None).unwrap(), stored as u64);
    let hits = store.search(&SearchRequest::new("f", vec![1.0; 512], 1_000_000)).unwrap();
    assert_eq!(hits[0].len(), stored);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    // A compaction has no room either, or nothing to do.
    let _ = store.compact();
    assert!(store.verify().unwrap().is_clean());
    say(&format!("{:?} {stored}", error.kind()));
}

fn assert_full_disk_was_survived(words: &[String], folder: &Path) {
    let (kind, stored) = words.last().unwrap().split_once(' ').unwrap();
    let stored: usize = stored.parse().unwrap();
    assert!(stored >= 50, "{words:?}");
    assert_eq!(kind, "DiskFull");
    let store = open_write(folder);
    assert_eq!(store.count(None).unwrap(), stored as u64);
    store.upsert(&entries("f", 512, stored..stored + 500)).unwrap();
    let report = store.verify().unwrap();
    assert!(report.is_clean() && report.vectors == stored as u64 + 500, "{report:?}");
}

/// A limit on the size of files, which any user can set.
#[cfg(unix)]
#[test]
fn a_file_size_limit_fails_the_batch_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let mut command = Command::new("sh");
    // In blocks of 512 bytes: 1 MiB. The signal is ignored, so that writing fails instead.
    command.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""]).arg(env::current_exe().unwrap());
    child_arguments(&mut command, "fill", &path);
    assert_full_disk_was_survived(&finish(command.spawn().unwrap()), &path);
}

/// A file system that is really full, where the system lets a test mount one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_file_system_fails_the_batch_only() {
    let folder = tempfile::tempdir().unwrap();
    let (mount, kept) = (folder.path().join("mount"), folder.path().join("kept"));
    fs::create_dir(&mount).unwrap();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=2m tmpfs \"$1\" || exit 77
                  shift; \"$0\" \"$@\" || exit 1
                  cp -r \"$MOUNT/c\" \"$KEPT\"";
    command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(env::current_exe().unwrap()).arg(&mount);
    child_arguments(&mut command, "fill", &mount.join("c"));
    command.env("MOUNT", &mount).env("KEPT", &kept);
    let output = command.output();
    let Ok(output) = output.as_ref().inspect_err(|error| println!("not checked: unshare: {error}")) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(77) || (!output.status.success() && !text.contains("running 1 test")) {
        println!("not checked: no file system can be mounted here: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let words: Vec<_> =
        text.lines().filter_map(|line| line.split_once("@@")).map(|(_, text)| text.to_owned()).collect();
    assert_full_disk_was_survived(&words, &kept);
}

fn read_where_nothing_can_be_written(folder: &Path) {
    let probe = fs::write(folder.join("probe"), "x");
    assert!(probe.is_err(), "the folder can be written, the test would show nothing");
    let store = open_read(folder);
    assert_eq!(store.search(&SearchRequest::new("f", vec![1.0; 8], 100)).unwrap()[0].len(), 20);
    assert_eq!((store.count(None).unwrap(), store.vectors("item-3").unwrap().len()), (20, 1));
    assert!(store.verify().unwrap().is_clean());
    drop(store);
    let error = LocalStore::open(folder, &OpenOptions::write()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert!(error.to_string().contains(folder.to_str().unwrap()), "{error}");
    let inside = LocalStore::open(&folder.join("new"), &OpenOptions::write()).map(|_| ()).unwrap_err();
    assert_eq!(inside.kind(), ErrorKind::ReadOnly, "{inside}");
    say("read");
}

/// As another user when this one may do everything, since permissions don't bind the superuser.
#[cfg(unix)]
#[test]
fn a_read_only_folder_can_be_read() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let store = open_write(&path);
    store.ensure_field(&field("f", 8, Metric::Cosine)).unwrap();
    store.upsert(&entries("f", 8, 0..20)).unwrap();
    drop(store);
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let program = folder.path().join("program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    [folder.path(), &path, &path.join("vectors"), &program].iter().for_each(|path| set(path, 0o555));
    for name in ["collection.sqlite", "collection.lock", "vectors/1-1.f32"] {
        set(&path.join(name), 0o444);
    }
    let mut command = Command::new(&program);
    child_arguments(&mut command, "read-only", &path);
    command.current_dir("/");
    if fs::metadata("/proc/self").map_or(u32::MAX, |metadata| metadata.uid()) == 0 {
        // The conventional user without rights.
        command.uid(65_534).gid(65_534);
    }
    let words = command.spawn().map(finish);
    [folder.path(), &path, &path.join("vectors")].iter().for_each(|path| set(path, 0o755));
    assert_eq!(words.unwrap(), ["read"]);
}
