use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::super::Powers;
use super::file::{Content, decode, encode, path_of};
use super::*;
use crate::config::grants::Limits;
use crate::paths::Paths;
use crate::time::Deadline;

/// An installation, and one hook of it.
struct Bed {
    _root: tempfile::TempDir,
    paths: Paths,
    asked: Option<u32>,
    granted: Option<u32>,
}

impl Bed {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        Self { _root: root, paths, asked: Some(64), granted: Some(64) }
    }

    /// A new agent's view: nothing is known but what is in files.
    fn agent(&self) -> (KvHost, KvStates) {
        let states = KvStates::default();
        (self.hook("db", &states), states)
    }

    fn hook(&self, name: &str, states: &KvStates) -> KvHost {
        let mut powers = Powers::none(Limits::default()).at(&self.paths);
        powers.grant_file = "/etc/stillpoint/hooks.d/db.toml".into();
        powers.kv = KvPower { asked: self.asked, granted: self.granted };
        KvHost::new(name.into(), Arc::new(powers), states.clone(), None)
    }

    fn on_disk(&self) -> PathBuf {
        path_of(&self.paths.state(), "db")
    }

    fn in_memory(&self) -> PathBuf {
        path_of(&self.paths.state_in_memory(), "db")
    }

    /// Puts a file there, as an agent that died at some point has left it.
    fn leave(&self, path: &PathBuf, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn content(generation: u64, entries: &[(&str, &str)]) -> Content {
    let entries = entries.iter().map(|(key, value)| (key.to_string(), value.as_bytes().to_vec()));
    Content { generation, entries: entries.collect() }
}

async fn set(hook: &KvHost, key: &str, value: &str) -> Result<(), Refused> {
    hook.set(key, Some(value.into()), soon()).await
}

/// What is kept under `key`, as text.
async fn get(hook: &KvHost, key: &str) -> Option<String> {
    hook.get(key, soon()).await.unwrap().map(|value| String::from_utf8(value).unwrap())
}

fn failure(result: Result<(), Refused>) -> KvFailure {
    result.unwrap_err().failure
}

#[tokio::test]
async fn what_is_set_is_there_for_the_next_agent_and_for_no_other_hook() {
    let bed = Bed::new();
    let (hook, states) = bed.agent();
    set(&hook, "a", "1").await.unwrap();
    set(&hook, "b", "2").await.unwrap();
    hook.set("a", None, soon()).await.unwrap();
    hook.set("never there", None, soon()).await.unwrap();
    let other = bed.hook("other", &states);
    assert_eq!(get(&other, "b").await, None);

    let (hook, _) = bed.agent();
    assert_eq!(get(&hook, "a").await, None);
    assert_eq!(get(&hook, "b").await.as_deref(), Some("2"));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(bed.on_disk()), mode(bed.paths.state())), (0o600, 0o700));
}

#[tokio::test]
async fn state_needs_both_keys_and_a_denial_says_what_to_add() {
    for (asked, granted, hint) in [
        (Some(64), None, "add to /etc/stillpoint/hooks.d/db.toml: [kv] bytes = 64"),
        (None, Some(64), "add it to the needs in `describe`"),
        (None, None, "[kv] bytes = 4096"),
    ] {
        let bed = Bed { asked, granted, ..Bed::new() };
        let (hook, _) = bed.agent();
        let refused = set(&hook, "a", "1").await.unwrap_err();
        assert_eq!(refused.failure, KvFailure::Denied);
        assert!(refused.hint.as_ref().is_some_and(|said| said.contains(hint)), "{refused:?}");
        assert_eq!(hook.get("a", soon()).await.unwrap_err().failure, KvFailure::Denied);
        assert!(!bed.paths.state().exists());
    }
}

#[tokio::test]
async fn the_quota_is_the_lesser_of_both_and_counts_keys_and_values() {
    for (asked, granted) in [(10, 1000), (1000, 10)] {
        let bed = Bed { asked: Some(asked), granted: Some(granted), ..Bed::new() };
        let (hook, _) = bed.agent();
        set(&hook, "abc", "1234567").await.unwrap();
        let refused = set(&hook, "d", "").await.unwrap_err();
        assert_eq!(refused.failure, KvFailure::TooLarge);
        assert!(refused.hint.unwrap().contains("`bytes` under [kv]"));
        assert_eq!(failure(set(&hook, "abc", "12345678").await), KvFailure::TooLarge);
        assert_eq!(get(&hook, "abc").await.as_deref(), Some("1234567"), "as it was");
        set(&hook, "abc", "123456").await.unwrap();
        set(&hook, "d", "").await.unwrap();
    }
}

#[tokio::test]
async fn a_quota_that_was_lowered_keeps_what_is_there_and_lets_it_shrink() {
    let mut bed = Bed::new();
    set(&bed.agent().0, "a", "0123456789").await.unwrap();
    set(&bed.agent().0, "b", "0123456789").await.unwrap();
    bed.granted = Some(5);
    let (hook, _) = bed.agent();
    assert_eq!(get(&hook, "a").await.as_deref(), Some("0123456789"));
    assert_eq!(failure(set(&hook, "a", "0123456789!").await), KvFailure::TooLarge);
    set(&hook, "a", "0").await.unwrap();
    hook.set("b", None, soon()).await.unwrap();
    set(&hook, "a", "012").await.unwrap();
}

#[tokio::test]
async fn keys_are_data_and_no_paths() {
    let bed = Bed { asked: Some(4096), granted: Some(4096), ..Bed::new() };
    let (hook, _) = bed.agent();
    let longest = "k".repeat(128);
    let keys = ["../../../etc/passwd", "/", ".", "..", "a\0b", "\u{1b}[2J", "ключ", "\n", &longest];
    for key in keys {
        set(&hook, key, key).await.unwrap();
    }
    let (hook, _) = bed.agent();
    for key in keys {
        assert_eq!(get(&hook, key).await.as_deref(), Some(key));
    }
    let files: Vec<_> =
        fs::read_dir(bed.paths.state()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files, [bed.on_disk()]);
    for key in ["", &"k".repeat(129), &"é".repeat(65)] {
        assert!(matches!(failure(set(&hook, key, "").await), KvFailure::BadKey(_)), "{key:?}");
        assert!(hook.get(key, soon()).await.is_err());
    }
}

/// The agent dies while it writes: before, in the midst of and after the new file, before and after
/// the rename. What was there, or what shall be there, is read; never a mixture, never nothing.
#[tokio::test]
async fn a_death_in_the_midst_of_a_write_leaves_the_old_state_or_the_new_one() {
    let old = encode("db", &content(1, &[("a", "old")]));
    let new = encode("db", &content(2, &[("a", "new")]));
    for cut in 0..=new.len() {
        let bed = Bed::new();
        bed.leave(&bed.on_disk(), &old);
        bed.leave(&bed.paths.state().join(".db.new"), &new[..cut]);
        let (hook, _) = bed.agent();
        assert_eq!(get(&hook, "a").await.as_deref(), Some("old"));
        set(&hook, "b", "1").await.unwrap();
        let (hook, _) = bed.agent();
        assert_eq!(get(&hook, "a").await.as_deref(), Some("old"));
        assert_eq!(get(&hook, "b").await.as_deref(), Some("1"));
    }
}

#[tokio::test]
async fn a_torn_changed_or_foreign_file_is_told_and_never_emptied() {
    let whole = encode("db", &content(1, &[("intent", "unlock")]));
    let mut cases: Vec<Vec<u8>> = (0..whole.len()).map(|cut| whole[..cut].to_vec()).collect();
    cases.extend((0..whole.len()).map(|at| {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        changed
    }));
    cases.push([whole.as_slice(), b"more"].concat());
    cases.push(encode("other", &content(1, &[("intent", "unlock")])));
    cases.push(b"[kv]\nbytes = 1\n".to_vec());
    cases.push(vec![0xff; 100]);
    for bytes in cases {
        assert!(decode(&bytes, "db").is_err(), "{}", String::from_utf8_lossy(&bytes));
    }

    for (bytes, said) in [
        (&whole[..whole.len() - 1], "cut short"),
        (&[][..], "cut short"),
        (&encode("other", &content(1, &[]))[..], "it is the state of hook `other`"),
    ] {
        let bed = Bed::new();
        bed.leave(&bed.on_disk(), bytes);
        let (hook, _) = bed.agent();
        for refused in [
            hook.get("intent", soon()).await.unwrap_err(),
            set(&hook, "intent", "x").await.unwrap_err(),
        ] {
            let KvFailure::Io(words) = &refused.failure else { panic!("{refused:?}") };
            assert!(words.contains("/state/db.kv") && words.contains(said), "{words}");
            assert!(refused.hint.unwrap().contains("away"));
        }
        assert_eq!(fs::read(bed.on_disk()).unwrap(), bytes, "left as it was");
    }
}

#[tokio::test]
async fn a_file_that_others_could_have_written_is_not_believed() {
    let bed = Bed::new();
    bed.leave(&bed.on_disk(), &encode("db", &content(1, &[("a", "1")])));
    fs::set_permissions(bed.on_disk(), fs::Permissions::from_mode(0o604)).unwrap();
    let refused = bed.agent().0.get("a", soon()).await.unwrap_err();
    assert!(format!("{refused:?}").contains("chmod"), "{refused:?}");
    fs::remove_file(bed.on_disk()).unwrap();
    let real = bed.paths.root().join("real");
    bed.leave(&real, &encode("db", &content(1, &[("a", "1")])));
    std::os::unix::fs::symlink(real, bed.on_disk()).unwrap();
    let refused = bed.agent().0.get("a", soon()).await.unwrap_err();
    assert!(format!("{refused:?}").contains("symbolic link"), "{refused:?}");
}

#[tokio::test]
async fn while_applications_are_held_no_disk_is_written_and_afterwards_it_is() {
    let bed = Bed::new();
    let (hook, states) = bed.agent();
    set(&hook, "intent", "early").await.unwrap();
    let before = fs::read(bed.on_disk()).unwrap();
    states.hold();
    set(&hook, "intent", "late").await.unwrap();
    assert_eq!(get(&hook, "intent").await.as_deref(), Some("late"));
    assert_eq!(fs::read(bed.on_disk()).unwrap(), before);
    assert!(bed.in_memory().exists());

    assert_eq!(states.settle(soon()).await, [""; 0]);
    assert!(!bed.in_memory().exists());
    assert_eq!(get(&bed.agent().0, "intent").await.as_deref(), Some("late"));
    set(&hook, "intent", "later").await.unwrap();
    assert!(!bed.in_memory().exists(), "nothing is held any more");
}

#[tokio::test]
async fn what_a_killed_agent_left_in_memory_is_read_and_merged_at_the_next_start() {
    let bed = Bed::new();
    let (hook, states) = bed.agent();
    set(&hook, "intent", "early").await.unwrap();
    states.hold();
    set(&hook, "intent", "late").await.unwrap();
    // No more of this agent: kill -9.
    drop((hook, states));

    assert_eq!(get(&bed.agent().0, "intent").await.as_deref(), Some("late"), "before the merge");
    let merged = merge(&bed.paths, soon()).await;
    assert_eq!(merged.done, ["the last state of hook db was written to disk"]);
    assert_eq!(merged.left, [""; 0]);
    assert!(!bed.in_memory().exists());
    assert_eq!(get(&bed.agent().0, "intent").await.as_deref(), Some("late"));
    let again = merge(&bed.paths, soon()).await;
    assert!(again.done.is_empty() && again.left.is_empty(), "twice is harmless: {again:?}");
}

/// Every pair of files that a death can leave, and what must come of it.
#[tokio::test]
async fn a_merge_takes_the_newer_one_wherever_the_agent_died() {
    let one = encode("db", &content(1, &[("a", "one")]));
    let two = encode("db", &content(2, &[("a", "two")]));
    for (disk, memory, wanted) in [
        (None, Some(&one), "one"),       // before the first write to disk
        (Some(&one), Some(&two), "two"), // after the change, before the merge
        (Some(&two), Some(&two), "two"), // after the merge, before the file in memory is gone
        (Some(&two), Some(&one), "two"), // a write that was given up reached the disk late
        (Some(&two), None, "two"),       // after all of it
    ] {
        let bed = Bed::new();
        if let Some(bytes) = disk {
            bed.leave(&bed.on_disk(), bytes);
        }
        if let Some(bytes) = memory {
            bed.leave(&bed.in_memory(), bytes);
        }
        bed.leave(&bed.paths.state_in_memory().join(".db.new"), b"torn");
        merge(&bed.paths, soon()).await;
        assert!(!bed.in_memory().exists());
        assert_eq!(get(&bed.agent().0, "a").await.as_deref(), Some(wanted));
        let generation = decode(&fs::read(bed.on_disk()).unwrap(), "db").unwrap().generation;
        set(&bed.agent().0, "a", "next").await.unwrap();
        let next = decode(&fs::read(bed.on_disk()).unwrap(), "db").unwrap().generation;
        assert!(next > generation);
    }
}

#[tokio::test]
async fn a_damaged_file_in_memory_is_told_and_neither_file_is_touched() {
    let good = encode("db", &content(1, &[("a", "1")]));
    for (disk, memory) in [(&good[..], &good[..20]), (&good[..20], &good[..])] {
        let bed = Bed::new();
        bed.leave(&bed.on_disk(), disk);
        bed.leave(&bed.in_memory(), memory);
        let merged = merge(&bed.paths, soon()).await;
        assert!(merged.done.is_empty(), "{merged:?}");
        assert!(merged.left.len() == 1 && merged.left[0].contains("cut short"), "{merged:?}");
        assert_eq!(fs::read(bed.on_disk()).unwrap(), disk);
        assert_eq!(fs::read(bed.in_memory()).unwrap(), memory);
        assert!(matches!(
            bed.agent().0.get("a", soon()).await.unwrap_err().failure,
            KvFailure::Io(_)
        ));
    }
}

#[tokio::test]
async fn a_disk_that_hangs_costs_the_deadline_and_what_is_held_in_memory_goes_on() {
    let bed = Bed::new();
    let worker = Arc::new(worker::Worker::default());
    let state = state::HookState::new(
        "db".into(),
        states::places("db", &bed.paths.state(), &bed.paths.state_in_memory()),
        Arc::clone(&worker),
    );
    state.content(soon()).await.unwrap();
    let (release, hangs) = mpsc::channel::<()>();
    let now = Deadline::after(Duration::ZERO);
    assert!(worker.run(now, move || hangs.recv()).await.is_err());

    let began = Instant::now();
    let short = Deadline::after(Duration::from_millis(50));
    let late = state.replace(content(0, &[("a", "given up")]), false, short).await.unwrap_err();
    assert!(states::words(&late).contains("did not answer in time"));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(state.content(soon()).await.unwrap().entries.is_empty(), "not acknowledged");
    state.replace(content(0, &[("a", "held")]), true, soon()).await.unwrap();

    // The disk comes back: what was given up is written after all, and is older than what counts.
    release.send(()).unwrap();
    worker.run(soon(), || ()).await.unwrap();
    let on_disk = decode(&fs::read(bed.on_disk()).unwrap(), "db").unwrap();
    assert_eq!(on_disk.entries, content(0, &[("a", "given up")]).entries);
    merge(&bed.paths, soon()).await;
    assert_eq!(get(&bed.agent().0, "a").await.as_deref(), Some("held"));
}
