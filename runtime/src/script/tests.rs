//! Real scripts, real cgroups; as root. Each rule is tested next to a pair that keeps it.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;

const SOON: Duration = Duration::from_secs(30);

/// A directory with a pair of scripts that keeps every rule.
struct Pair {
    directory: tempfile::TempDir,
}

impl Pair {
    fn new(pre: &str, post: &str) -> Self {
        let pair = Self { directory: tempfile::tempdir().unwrap() };
        install(&pair.path("pre.sh"), pre);
        install(&pair.path("post.sh"), post);
        pair
    }

    fn harmless() -> Self {
        Self::new("#!/bin/sh\n", "#!/bin/sh\n")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn settings(&self) -> ScriptSettings {
        ScriptSettings { pre: self.path("pre.sh"), post: self.path("post.sh"), timeout: SOON }
    }

    fn check(&self) -> Result<Option<ScriptPair>, ScriptProblem> {
        ScriptPair::check(&self.settings())
    }

    fn problem(&self) -> ScriptProblem {
        self.check().unwrap_err()
    }

    async fn prepared(&self) -> ScriptPair {
        let mut scripts = self.check().unwrap().unwrap();
        scripts.prepare(Deadline::after(SOON)).await.unwrap();
        scripts
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

fn install(path: &Path, text: &str) {
    // Another thread's fork may hold a copy of a writing descriptor for a moment, and the check
    // would find it: `install(1)` writes in a process of its own.
    let source = path.with_extension("source");
    fs::write(&source, text).unwrap();
    let installed = std::process::Command::new("install")
        .args(["-m", "0700"])
        .arg(&source)
        .arg(path)
        .status()
        .unwrap();
    assert!(installed.success());
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn alive(pid: i32) -> bool {
    // A zombie is dead: only its parent does not know yet.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

fn pid_in(text: &str) -> i32 {
    text.trim().parse().unwrap()
}

// ---- The rules ----------------------------------------------------------------------------------

#[test]
fn a_pair_that_keeps_every_rule_is_accepted() {
    let pair = Pair::new("#!/bin/sh\necho a\n", "#! /usr/bin/env sh\n");
    let scripts = pair.check().unwrap().unwrap();
    let expected = std::process::Command::new("sha256sum").arg(pair.path("pre.sh")).output();
    let expected = String::from_utf8(expected.unwrap().stdout).unwrap();
    assert_eq!(scripts.digest().unwrap(), format!("sha256:{}", expected.get(..64).unwrap()));
}

#[test]
fn no_scripts_at_all_is_no_problem() {
    let pair = Pair::harmless();
    fs::remove_file(pair.path("pre.sh")).unwrap();
    fs::remove_file(pair.path("post.sh")).unwrap();
    assert!(pair.check().unwrap().is_none());
}

#[test]
fn one_of_the_pair_alone_is_refused_by_name() {
    for (absent, role) in [("pre.sh", Role::Pre), ("post.sh", Role::Post)] {
        let pair = Pair::harmless();
        fs::remove_file(pair.path(absent)).unwrap();
        let problem = pair.problem();
        assert!(matches!(problem.violation, Violation::Missing));
        assert_eq!((problem.role, problem.path), (role, pair.path(absent)));
    }
}

#[test]
fn the_second_script_is_checked_before_the_first_runs() {
    let pair = Pair::harmless();
    set_mode(&pair.path("post.sh"), 0o755);
    let problem = pair.problem();
    assert_eq!(problem.role, Role::Post);
    assert!(matches!(problem.violation, Violation::Mode { mode: 0o755 }));
}

#[test]
fn any_mode_but_0700_is_refused() {
    for mode in [0o600, 0o500, 0o710, 0o702, 0o777, 0o4700, 0o1700] {
        let pair = Pair::harmless();
        set_mode(&pair.path("pre.sh"), mode);
        let problem = pair.problem();
        assert!(matches!(problem.violation, Violation::Mode { mode: found } if found == mode));
        assert_eq!(problem.hint(), format!("chmod 0700 {}", pair.path("pre.sh").display()));
    }
}

#[test]
fn a_script_of_somebody_else_is_refused() {
    let pair = Pair::harmless();
    chown(pair.path("pre.sh"), Some(65534), None).unwrap();
    let problem = pair.problem();
    assert!(matches!(problem.violation, Violation::Owner { uid: 65534 }));
    assert!(problem.to_string().ends_with("pre.sh: belongs to uid 65534, not to root"));
}

#[test]
fn a_symbolic_link_is_refused_as_the_file_and_on_the_way_to_it() {
    let pair = Pair::harmless();
    fs::rename(pair.path("pre.sh"), pair.path("real.sh")).unwrap();
    symlink(pair.path("real.sh"), pair.path("pre.sh")).unwrap();
    assert!(matches!(pair.problem().violation, Violation::Symlink { .. }));

    let pair = Pair::harmless();
    let link = tempfile::tempdir().unwrap();
    let directory = link.path().join("d");
    symlink(pair.directory.path(), &directory).unwrap();
    let settings = ScriptSettings { pre: directory.join("pre.sh"), ..pair.settings() };
    let problem = ScriptPair::check(&settings).unwrap_err();
    assert!(
        matches!(problem.violation, Violation::Symlink { component } if component == directory)
    );
}

#[test]
fn a_hard_link_is_refused() {
    let pair = Pair::harmless();
    fs::hard_link(pair.path("pre.sh"), pair.path("other")).unwrap();
    assert!(matches!(pair.problem().violation, Violation::HardLinks { links: 2 }));
}

#[test]
fn a_fifo_is_refused_and_does_not_block() {
    let pair = Pair::harmless();
    fs::remove_file(pair.path("pre.sh")).unwrap();
    nix::unistd::mkfifo(&pair.path("pre.sh"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(pair.problem().violation, Violation::NotRegular { found: "a FIFO" }));
}

#[test]
fn a_directory_is_refused() {
    let pair = Pair::harmless();
    fs::remove_file(pair.path("pre.sh")).unwrap();
    fs::create_dir(pair.path("pre.sh")).unwrap();
    assert!(matches!(pair.problem().violation, Violation::NotRegular { found: "a directory" }));
}

#[test]
fn an_open_writer_is_found_even_if_it_opened_before_the_file_became_roots() {
    let pair = Pair::harmless();
    let writer = File::options().append(true).open(pair.path("pre.sh")).unwrap();
    assert!(matches!(pair.problem().violation, Violation::OpenWriter));
    drop(writer);
    // A child that another test forks at this moment may hold a copy until it executes.
    let accepted = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        pair.check().is_ok()
    });
    assert!(accepted);
}

#[test]
fn a_directory_in_which_others_may_replace_the_script_is_refused() {
    let pair = Pair::harmless();
    set_mode(pair.directory.path(), 0o777);
    assert!(matches!(pair.problem().violation, Violation::Directory { .. }));
    set_mode(pair.directory.path(), 0o1777);
    assert!(pair.check().is_ok());
    chown(pair.directory.path(), Some(65534), None).unwrap();
    assert!(matches!(pair.problem().violation, Violation::Directory { .. }));
}

#[test]
fn a_path_that_is_not_whole_is_refused() {
    let pair = Pair::harmless();
    for pre in [PathBuf::from("pre.sh"), pair.path("../pre.sh")] {
        let problem = ScriptPair::check(&ScriptSettings { pre, ..pair.settings() }).unwrap_err();
        assert!(matches!(problem.violation, Violation::NotAbsolute));
    }
}

#[test]
fn a_script_that_is_too_long_is_refused() {
    let pair = Pair::harmless();
    File::options().write(true).open(pair.path("pre.sh")).unwrap().set_len(SIZE_LIMIT + 1).unwrap();
    assert!(matches!(pair.problem().violation, Violation::TooLarge { .. }));
}

#[test]
fn an_interpreter_that_cannot_serve_is_named() {
    let violation = |first_line: &str| Pair::new(first_line, "#!/bin/sh\n").problem().violation;
    assert!(matches!(violation("echo\n"), Violation::NoInterpreterLine));
    assert!(matches!(violation("#!\n"), Violation::NoInterpreterLine));
    assert!(matches!(violation(""), Violation::NoInterpreterLine));
    let long = format!("#!/{}\n", "x".repeat(300));
    assert!(matches!(violation(&long), Violation::NoInterpreterLine));
    assert!(matches!(violation("#!sh\n"), Violation::InterpreterNotAbsolute { .. }));
    assert!(matches!(violation("#!/no/such -e\n"), Violation::Interpreter { .. }));
    assert!(matches!(violation("#!/etc/passwd\n"), Violation::Interpreter { .. }));
    assert!(matches!(violation("#!/tmp\n"), Violation::Interpreter { .. }));
}

#[test]
fn an_interpreter_that_others_can_change_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let shell = directory.path().join("sh");
    fs::copy("/bin/sh", &shell).unwrap();
    let pair = Pair::new(&format!("#!{}\n", shell.display()), "#!/bin/sh\n");
    assert!(pair.check().is_ok());
    set_mode(&shell, 0o757);
    assert!(matches!(pair.problem().violation, Violation::Interpreter { .. }));
}

#[test]
fn windows_line_ends_are_called_so() {
    let pair = Pair::new("#!/bin/sh\r\necho\r\n", "#!/bin/sh\n");
    let problem = pair.problem();
    assert!(matches!(problem.violation, Violation::CarriageReturn));
    assert!(problem.hint().starts_with("sed -i"));
}

#[test]
fn a_noexec_mount_is_called_so() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let directory = tempfile::tempdir().unwrap();
    let none: Option<&str> = None;
    mount(Some("tmpfs"), directory.path(), Some("tmpfs"), MsFlags::MS_NOEXEC, Some("mode=755"))
        .unwrap();
    let (pre, post) = (directory.path().join("pre.sh"), directory.path().join("post.sh"));
    for script in [&pre, &post] {
        install(script, "#!/bin/sh\n");
    }
    let settings = ScriptSettings { pre, post, timeout: SOON };
    let refused = ScriptPair::check(&settings);
    mount(none, directory.path(), none, MsFlags::MS_REMOUNT, none).unwrap();
    let accepted = ScriptPair::check(&settings).map(|pair| pair.is_some());
    umount2(directory.path(), MntFlags::MNT_DETACH).unwrap();
    assert!(matches!(refused.unwrap_err().violation, Violation::NoExec));
    assert!(accepted.unwrap());
}

// ---- Running ------------------------------------------------------------------------------------

#[tokio::test]
async fn both_run_in_order_and_reach_the_level_application() {
    let log = "echo $STILLPOINT_PHASE $STILLPOINT_OUTCOME >> $(dirname $STILLPOINT_SCRIPT)/log\n";
    let pair = Pair::new(&format!("#!/bin/sh\n{log}"), &format!("#!/bin/sh\n{log}"));
    let mut scripts = pair.prepared().await;
    let quiesced = scripts.pre_freeze(Deadline::after(SOON)).await.unwrap();
    assert_eq!(quiesced.level, Level::Application);
    scripts.confirm(Deadline::after(SOON)).await.unwrap();
    scripts.post_thaw(Outcome::Captured, Deadline::after(SOON)).await.unwrap();
    scripts.finish(Deadline::after(SOON)).await.unwrap();
    assert_eq!(pair.read("log"), "pre-freeze\npost-thaw captured\n");
}

#[tokio::test]
async fn what_was_checked_is_what_runs_whatever_the_path_names_later() {
    let pair = Pair::new("#!/bin/sh\necho checked\n", "#!/bin/sh\n");
    let mut scripts = pair.prepared().await;
    install(&pair.path("attack.sh"), "#!/bin/sh\necho swapped\n");
    fs::rename(pair.path("attack.sh"), pair.path("pre.sh")).unwrap();
    scripts.pre_freeze(Deadline::after(SOON)).await.unwrap();
    assert_eq!(scripts.report(Role::Pre).unwrap().1.stdout, "checked\n");
}

#[tokio::test]
async fn a_first_script_that_was_edited_after_the_check_does_not_run() {
    let pair = Pair::new("#!/bin/sh\n", "#!/bin/sh\n");
    let mut scripts = pair.prepared().await;
    File::options().append(true).open(pair.path("pre.sh")).unwrap().write_all(b"exit\n").unwrap();
    let failure = scripts.pre_freeze(Deadline::after(SOON)).await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::Host);
    assert!(failure.message.contains("edited after it was checked"));
}

#[tokio::test]
async fn a_script_finds_a_known_environment_and_nothing_of_the_agents() {
    let listing = "#!/bin/sh\nenv | sort\npwd\nreadlink /proc/self/fd/0\nls /proc/self/fd\nulimit -H -n >/dev/null\numask\n";
    let pair = Pair::new(listing, "#!/bin/sh\n");
    // Inheritable on purpose, as a careless library would leave it.
    let leaked = File::options().read(true).custom_flags(0).open("/etc/passwd").unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut scripts = pair.prepared().await;
    scripts.pre_freeze(Deadline::after(SOON)).await.unwrap();
    let output = scripts.report(Role::Pre).unwrap().1.stdout;
    let script_fd = scripts.pre.file.as_raw_fd();
    let names: Vec<&str> =
        output.lines().filter_map(|line| line.split_once('=').map(|(name, _)| name)).collect();
    // PWD and _ are the shell's own.
    let ours: Vec<&&str> =
        names.iter().filter(|name| !["PWD", "_", "OLDPWD", "SHLVL"].contains(name)).collect();
    assert_eq!(
        ours,
        [&"HOME", &"LOGNAME", &"PATH", &"STILLPOINT_PHASE", &"STILLPOINT_SCRIPT", &"USER"]
    );
    let rest: Vec<&str> = output.lines().filter(|line| !line.contains('=')).collect();
    assert_eq!(rest.first(), Some(&"/"));
    assert_eq!(rest.get(1), Some(&"/dev/null"));
    assert_eq!(rest.last(), Some(&"0022"));
    let mut fds: Vec<i32> = rest
        .get(2..rest.len() - 1)
        .unwrap()
        .iter()
        .map(|fd| fd.parse().unwrap())
        .filter(|&fd| fd != script_fd)
        .collect();
    fds.sort_unstable();
    // 3 (or the next free one) is the directory that `ls` itself has open.
    assert_eq!(fds.len(), 4, "{fds:?}");
    assert_eq!(fds.get(..3), Some([0, 1, 2].as_slice()));
    assert!(!fds.contains(&leaked.as_raw_fd()) || fds.get(3) == Some(&leaked.as_raw_fd()));
}

#[tokio::test]
async fn a_failing_script_reports_its_status_and_its_last_lines() {
    let pair = Pair::new(
        "#!/bin/sh\necho one >&2\nprintf 'cannot \\033[31mreach\\033[0m db\\n' >&2\nexit 7\n",
        "#!/bin/sh\n",
    );
    let mut scripts = pair.prepared().await;
    let failure = scripts.pre_freeze(Deadline::after(SOON)).await.unwrap_err();
    assert_eq!((failure.phase, failure.kind), (Phase::PreFreeze, HookFailureKind::Application));
    assert_eq!(
        failure.to_string(),
        format!(
            "hook scripts: pre-freeze: pre-freeze script {} exited with status 7; its last lines: one | cannot [31mreach[0m db",
            pair.path("pre.sh").display()
        )
    );
}

#[tokio::test]
async fn the_second_script_is_told_that_the_first_failed_and_runs_as_its_undo() {
    let pair = Pair::new("#!/bin/sh\nexit 1\n", "#!/bin/sh\necho $STILLPOINT_OUTCOME\n");
    let mut scripts = pair.prepared().await;
    scripts.pre_freeze(Deadline::after(SOON)).await.unwrap_err();
    scripts.post_thaw(Outcome::Aborted, Deadline::after(SOON)).await.unwrap();
    assert_eq!(scripts.report(Role::Post).unwrap().1.stdout, "aborted\n");
}

#[tokio::test]
async fn at_the_time_out_nothing_survives_not_even_a_daemon() {
    let pair = Pair::new(
        "#!/bin/sh\ntrap '' TERM\nsetsid sh -c 'trap \"\" TERM; echo $$ > \"$0.tmp\"; mv \"$0.tmp\" \"$0\"; sleep 1000' \"$(dirname \"$STILLPOINT_SCRIPT\")/pid\" &\nsleep 1000\n",
        "#!/bin/sh\n",
    );
    let mut scripts = pair.prepared().await;
    let pid_file = pair.path("pid");
    let began = Instant::now();
    let run = scripts.pre_freeze(Deadline::after(Duration::from_millis(1500)));
    let failure = run.await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::Timeout);
    assert!(failure.message.contains("was killed after 1.5 s"), "{}", failure.message);
    // 1.5 s, 2 s grace for a script that ignores SIGTERM, and a little.
    assert!(began.elapsed() < Duration::from_secs(6));
    let daemon = pid_in(&fs::read_to_string(pid_file).unwrap());
    assert!(!alive(daemon), "daemon {daemon} survived");
}

#[tokio::test]
async fn a_script_may_clean_up_when_its_time_is_over() {
    let pair = Pair::new(
        "#!/bin/sh\ntrap 'echo undone; exit 1' TERM\nwhile :; do sleep 0.05; done\n",
        "#!/bin/sh\n",
    );
    let mut scripts = pair.prepared().await;
    let run = scripts.pre_freeze(Deadline::after(Duration::from_millis(500)));
    run.await.unwrap_err();
    assert_eq!(scripts.report(Role::Pre).unwrap().1.stdout, "undone\n");
}

#[tokio::test]
async fn a_background_process_of_the_first_script_lives_until_the_second_has_run() {
    let pair = Pair::new(
        "#!/bin/sh\nsetsid sleep 1000 >/dev/null 2>&1 &\necho $! \n",
        "#!/bin/sh\nkill -0 $(cat \"$(dirname \"$STILLPOINT_SCRIPT\")/pid\") && echo still there\n",
    );
    let mut scripts = pair.prepared().await;
    scripts.pre_freeze(Deadline::after(SOON)).await.unwrap();
    let holder = pid_in(&scripts.report(Role::Pre).unwrap().1.stdout);
    fs::write(pair.path("pid"), holder.to_string()).unwrap();
    scripts.post_thaw(Outcome::Captured, Deadline::after(SOON)).await.unwrap();
    assert_eq!(scripts.report(Role::Post).unwrap().1.stdout, "still there\n");
    scripts.finish(Deadline::after(SOON)).await.unwrap();
    assert!(!alive(holder));
}

#[tokio::test]
async fn a_service_that_the_second_script_started_lives_on() {
    let pair =
        Pair::new("#!/bin/sh\n", "#!/bin/sh\nsetsid sleep 1000 >/dev/null 2>&1 &\necho $!\n");
    let mut scripts = pair.prepared().await;
    scripts.pre_freeze(Deadline::after(SOON)).await.unwrap();
    scripts.post_thaw(Outcome::Captured, Deadline::after(SOON)).await.unwrap();
    let service = pid_in(&scripts.report(Role::Post).unwrap().1.stdout);
    scripts.finish(Deadline::after(SOON)).await.unwrap();
    drop(scripts);
    let lives = alive(service);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(service), nix::sys::signal::SIGKILL).unwrap();
    assert!(lives);
}

#[tokio::test]
async fn dropping_the_pair_ends_what_the_first_script_left() {
    let pair =
        Pair::new("#!/bin/sh\nsetsid sleep 1000 >/dev/null 2>&1 &\necho $!\n", "#!/bin/sh\n");
    let mut scripts = pair.prepared().await;
    scripts.pre_freeze(Deadline::after(SOON)).await.unwrap();
    let holder = pid_in(&scripts.report(Role::Pre).unwrap().1.stdout);
    let cgroup = scripts.pre_cgroup.as_ref().unwrap().members();
    assert_eq!(cgroup, [holder]);
    drop(scripts);
    assert!(!alive(holder));
}

#[tokio::test]
async fn a_gigabyte_of_output_is_read_to_the_end_and_kept_to_a_bound() {
    let pair =
        Pair::new("#!/bin/sh\nhead -c 1G /dev/zero | tr '\\0' x\necho the end\n", "#!/bin/sh\n");
    let mut scripts = pair.prepared().await;
    scripts.pre_freeze(Deadline::after(SOON)).await.unwrap();
    let (_, output) = scripts.report(Role::Pre).unwrap();
    assert!(output.stdout.ends_with("xthe end\n"));
    assert_eq!(output.stdout.len(), OUTPUT_LIMIT);
    let written = 1024 * 1024 * 1024 + "the end\n".len();
    assert_eq!(output.dropped, (written - OUTPUT_LIMIT) as u64);
    assert_eq!(scripts.output_dropped(), output.dropped);
}

#[tokio::test]
async fn an_unprepared_pair_runs_nothing() {
    let pair = Pair::harmless();
    let mut scripts = pair.check().unwrap().unwrap();
    let failure = scripts.pre_freeze(Deadline::after(SOON)).await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::Host);
}

#[tokio::test]
async fn no_cgroup_of_ours_stays_behind() {
    let pair = Pair::harmless();
    let mut scripts = pair.prepared().await;
    let mine: Vec<PathBuf> = [&scripts.pre_cgroup, &scripts.post_cgroup]
        .into_iter()
        .flatten()
        .map(|cgroup| cgroup.directory().to_owned())
        .collect();
    assert!(mine.iter().all(|directory| directory.is_dir()));
    scripts.pre_freeze(Deadline::after(SOON)).await.unwrap();
    scripts.post_thaw(Outcome::Captured, Deadline::after(SOON)).await.unwrap();
    scripts.finish(Deadline::after(SOON)).await.unwrap();
    assert!(mine.iter().all(|directory| !directory.exists()));
}

#[tokio::test]
async fn what_a_dead_agent_left_is_ended_and_undone() {
    let log = "echo $STILLPOINT_PHASE $STILLPOINT_OUTCOME >> $(dirname $STILLPOINT_SCRIPT)/log\n";
    let pair = Pair::new("#!/bin/sh\n", &format!("#!/bin/sh\n{log}"));
    // The agent is a process that lives as long as the stage is set: other tests sweep, too.
    let mut agent = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let started = crate::journal::ProcessId::of(agent.id()).unwrap().started;
    let remains = |part| format!("stillpoint-script-{}-{started}-0-{part}", agent.id());
    let holder = Cgroup::create(&remains("pre")).unwrap();
    let service = Cgroup::create(&remains("post")).unwrap();
    let ours = Cgroup::create(&cgroup::name_for(Part::Pre)).unwrap();
    let mut sleepers: Vec<_> = [&holder, &service, &ours]
        .map(|cgroup| {
            let sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
            fs::write(cgroup.directory().join("cgroup.procs"), sleeper.id().to_string()).unwrap();
            sleeper
        })
        .into();
    let directories = [holder.directory().to_owned(), service.directory().to_owned()];
    // An agent that dies drops nothing.
    std::mem::forget((holder, service));
    agent.kill().unwrap();
    agent.wait().unwrap();

    let recovered = recover(&pair.settings(), Deadline::after(SOON)).await;
    let gone = |directory: &PathBuf| !directory.exists();
    let deadline = Deadline::after(SOON);
    while !directories.iter().all(gone) && !deadline.has_passed() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let states: Vec<bool> = sleepers.iter_mut().map(|s| s.try_wait().unwrap().is_none()).collect();
    for mut sleeper in sleepers {
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
    assert!(recovered.undone, "{:?}", recovered.lines);
    assert_eq!(states, [false, true, true]);
    assert_eq!(pair.read("log"), "post-thaw aborted\n");
    assert!(directories.iter().all(gone));
}

#[tokio::test]
async fn what_cannot_be_undone_is_told() {
    let pair = Pair::new("#!/bin/sh\n", "#!/bin/sh\nexit 1\n");
    let recovered = recover(&pair.settings(), Deadline::after(SOON)).await;
    assert!(!recovered.undone);
    assert!(recovered.lines.iter().any(|line| line.contains("exited with status 1")));
    fs::remove_file(pair.path("post.sh")).unwrap();
    let recovered = recover(&pair.settings(), Deadline::after(SOON)).await;
    assert!(!recovered.undone);
    assert!(recovered.lines.iter().any(|line| line.contains("post.sh")));
}

#[tokio::test]
async fn where_only_cgroup_v1_is_there_nothing_survives_either() {
    for hierarchy in ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids"] {
        if !Path::new(hierarchy).join("cgroup.procs").exists() {
            eprintln!("not tested here: {hierarchy} is not mounted");
            continue;
        }
        let pair = Pair::new(
            "#!/bin/sh\nfor i in 1 2 3; do setsid sh -c 'trap \"\" TERM; sleep 1000' & done\nwait\n",
            "#!/bin/sh\n",
        );
        let mut scripts = pair.prepared().await;
        let name = format!("stillpoint-test-{}", std::process::id());
        let cgroup = Cgroup::create_in(Path::new(hierarchy), &name).unwrap();
        let directory = cgroup.directory().to_owned();
        scripts.pre_cgroup = Some(cgroup);
        let run = scripts.pre_freeze(Deadline::after(Duration::from_millis(500)));
        let failure = run.await.unwrap_err();
        assert_eq!(failure.kind, HookFailureKind::Timeout);
        assert_eq!(scripts.pre_cgroup.as_ref().unwrap().members(), Vec::<i32>::new());
        scripts.finish(Deadline::after(SOON)).await.unwrap();
        assert!(!directory.exists());
    }
}
