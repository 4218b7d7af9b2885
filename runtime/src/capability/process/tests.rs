//! Real programs, as root: what they see, what they may, how they end. `perl` is on every Debian.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;
use crate::config::grants::Limits;
use crate::hook::CancelSource;

const SOON: Duration = Duration::from_secs(30);

/// A hook `db` that asks for `probe` with whatever is granted.
struct Bench {
    host: ProcessHost,
    registry: ProgramRegistry,
    arguments: Vec<String>,
}

impl Bench {
    /// A program with one argument list.
    fn new(path: &str, arguments: &[&str]) -> Self {
        Self::with(path, arguments, |_| {})
    }

    fn with(path: &str, arguments: &[&str], change: impl FnOnce(&mut ProgramGrant)) -> Self {
        let real = fs::canonicalize(path).unwrap();
        let mut grant = ProgramGrant::of_test(real.to_str().unwrap(), &[arguments]);
        change(&mut grant);
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut power = ProgramPower::default();
        power.ask(
            std::slice::from_ref(&arguments),
            &grant.stdin.iter().cloned().collect::<Vec<_>>(),
        );
        power.granted = Some(Arc::new(GrantedProgram::open(&grant).unwrap()));
        let mut powers = Powers::none(Limits::default());
        powers.programs = BTreeMap::from([("probe".to_owned(), power)]);
        let registry = ProgramRegistry::default();
        let host = ProcessHost::new("db".into(), Arc::new(powers), registry.clone(), None);
        Self { host, registry, arguments }
    }

    fn perl(script: &str) -> Self {
        Self::new("/usr/bin/perl", &["-e", script])
    }

    fn call(&self, stdin: &str, timeout: Option<Duration>) -> Call {
        Call {
            command: "probe".into(),
            arguments: self.arguments.clone(),
            stdin: stdin.into(),
            timeout,
        }
    }

    async fn run(&self) -> Output {
        self.try_run(SOON).await.unwrap()
    }

    async fn try_run(&self, time: Duration) -> Result<Output, ProcessError> {
        let clock = (Phase::PreFreeze, Deadline::after(time));
        let ran = self.host.run(self.call("", None), clock, &CancelToken::never()).await;
        ran.map_err(|refusal| refusal.error)
    }

    async fn nothing_is_left(&self) {
        assert_eq!(self.registry.end_hook("db", SOON).await, Unfinished::default());
        assert_eq!(self.registry.running("db"), 0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The fields of `/proc/self/status`.
fn fields(status: &str) -> BTreeMap<String, String> {
    let split = |line: &str| line.split_once(':').map(|(k, v)| (k.to_owned(), v.trim().to_owned()));
    status.lines().filter_map(split).collect()
}

fn is_alive(pid: &str) -> bool {
    // A zombie is dead: only its parent does not know yet.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

// ---- What it sees -------------------------------------------------------------------------------

#[tokio::test]
async fn it_sees_the_path_and_the_granted_variables_and_nothing_of_the_agents_environment() {
    assert!(std::env::vars().count() > 1, "the agent of this test has an environment");
    let bench = Bench::with("/usr/bin/env", &[], |grant| {
        grant.environment = BTreeMap::from([("ORACLE_SID".into(), "ORCL".into())]);
    });
    let mut lines: Vec<String> =
        text(&bench.run().await.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["ORACLE_SID=ORCL", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
}

#[tokio::test]
async fn it_is_nobody_without_groups_capabilities_or_ways_to_get_them() {
    for (user, groups) in [("nobody", vec![]), ("nobody", vec![4, 6]), ("root", vec![])] {
        let bench = Bench::with("/usr/bin/cat", &["/proc/self/status"], |grant| {
            let found = nix::unistd::User::from_name(user).unwrap().unwrap();
            (grant.user.uid, grant.user.gid) = (found.uid.as_raw(), found.gid.as_raw());
            grant.user.groups.clone_from(&groups);
        });
        let seen = fields(&text(&bench.run().await.stdout));
        let found = nix::unistd::User::from_name(user).unwrap().unwrap();
        let four = |id: u32| [id.to_string().as_str(); 4].join("\t");
        assert_eq!(seen["Uid"], four(found.uid.as_raw()));
        assert_eq!(seen["Gid"], four(found.gid.as_raw()));
        let listed: Vec<String> = groups.iter().map(u32::to_string).collect();
        assert_eq!(seen["Groups"], listed.join(" "));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(seen[set], "0000000000000000", "{user} {set}");
        }
        assert_eq!(seen["NoNewPrivs"], "1");
        assert_eq!((seen["Seccomp"].as_str(), seen["Seccomp_filters"].as_str()), ("2", "2"));
        assert_eq!(seen["Umask"], "0077");
        assert_eq!(seen["SigBlk"], "0000000000000000");
        assert_eq!(seen["SigIgn"], "0000000000000000");
    }
}

#[tokio::test]
async fn it_has_three_descriptors_a_session_of_its_own_and_no_core_file() {
    let bench = Bench::perl(
        "use POSIX; use Cwd; opendir D, '/proc/self/fd'; my $own = fileno(D); \
         print join(',', sort grep { /^\\d/ && $_ > 2 && $_ != $own && -e \"/proc/self/fd/$_\" } readdir D), \"\\n\"; \
         print getpgrp() == $$ ? 'leads' : 'follows', \"\\n\", getcwd(), \"\\n\"; \
         open L, '/proc/self/limits'; print grep { /core file|open files/ } <L>; \
         open(S, '>', '/proc/self/fd/1') and print S \"opened again\\n\"",
    );
    let seen = text(&bench.run().await.stdout);
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..3], ["", "leads", "/"], "{seen}");
    assert!(seen.contains("opened again"), "{seen}");
    let limit = |name: &str| {
        let line = lines.iter().find(|line| line.contains(name)).unwrap();
        line.split_whitespace().rev().nth(1).unwrap().to_owned()
    };
    assert_eq!((limit("core file").as_str(), limit("open files").as_str()), ("0", "1024"));
}

#[tokio::test]
async fn it_reads_the_granted_text_or_nothing() {
    let script = "EXIT\n".repeat(10_000);
    let bench = Bench::with("/usr/bin/sha256sum", &[], |grant| {
        grant.stdin.insert(script.clone());
    });
    let clock = || (Phase::PostThaw, Deadline::after(SOON));
    let never = CancelToken::never();
    for given in [script.as_str(), ""] {
        let output = bench.host.run(bench.call(given, None), clock(), &never).await.unwrap();
        let expected = crate::hook::Digest::of(given.as_bytes()).hex();
        assert_eq!(text(&output.stdout), format!("{expected}  -\n"));
    }
    let denied = bench.host.run(bench.call("EXIT\n", None), clock(), &never).await.unwrap_err();
    let ProcessError::Denied(message) = &denied.error else { panic!("{denied:?}") };
    assert_eq!(message, "program `probe` with the standard input `EXIT ` is not granted");
    assert!(denied.hint.unwrap().ends_with(": \"EXIT\\n\","));
}

#[tokio::test]
async fn its_arguments_reach_it_as_they_are() {
    let words = ["-e", "print join('|', $0, @ARGV)", "a b", "$(reboot)", "", "*", "'\"\\", "-x"];
    let bench = Bench::new("/usr/bin/perl", &words);
    assert_eq!(text(&bench.run().await.stdout), "-e|a b|$(reboot)||*|'\"\\|-x");
    let name = Bench::perl("open F, '/proc/self/cmdline'; print <F>");
    let perl = fs::canonicalize("/usr/bin/perl").unwrap();
    assert!(text(&name.run().await.stdout).starts_with(&format!("{}\0", perl.display())));
}

// ---- What it may --------------------------------------------------------------------------------

/// True if this kernel has what a test is about; says so if not.
fn has_landlock(scopes: bool) -> bool {
    use landlock::{AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
    let strict = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let has = strict().handle_access(AccessFs::WriteFile).is_ok()
        && (!scopes || strict().scope(Scope::Signal).is_ok());
    if !has {
        eprintln!("not tested here: this kernel's landlock");
    }
    has
}

#[tokio::test]
async fn it_writes_where_the_grant_says_and_nowhere_else_even_as_root() {
    if !has_landlock(false) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (inside, outside) = (directory.path().join("inside"), directory.path().join("outside"));
    for place in [&inside, &outside] {
        fs::create_dir(place).unwrap();
        fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = format!(
        "for my $d ('{}', '{}') {{ print open(F, '>', \"$d/f\") ? 'wrote ' : \"$! \" }} \
         print open(N, '>', '/dev/null') ? 'null ' : \"$! \"; print mkdir('{}/d') ? 'made' : \"$!\"",
        inside.display(),
        outside.display(),
        outside.display(),
    );
    for user in ["nobody", "root"] {
        let granted = Bench::with("/usr/bin/perl", &["-e", &script], |grant| {
            let found = nix::unistd::User::from_name(user).unwrap().unwrap();
            (grant.user.uid, grant.user.gid) = (found.uid.as_raw(), found.gid.as_raw());
            grant.writable = vec![inside.clone()];
        });
        let said = text(&granted.run().await.stdout);
        assert_eq!(said, "wrote Permission denied null Permission denied", "{user}");
        fs::remove_file(inside.join("f")).unwrap();
    }
    let nowhere = Bench::perl(&script);
    let said = text(&nowhere.run().await.stdout);
    assert_eq!(said, "Permission denied Permission denied null Permission denied");
}

#[tokio::test]
async fn the_calls_that_change_the_machine_are_refused_even_to_root() {
    let directory = tempfile::tempdir().unwrap();
    let new_user = nix::libc::CLONE_NEWUSER;
    // Each of them with arguments that would do no harm.
    let refused = [
        format!("syscall({}, 0, 0, 0, 0, 0)", nix::libc::SYS_mount),
        format!("syscall({}, {new_user})", nix::libc::SYS_unshare),
        format!("syscall({}, {}, 0, 0, 0, 0)", nix::libc::SYS_clone, new_user),
        format!("syscall({}, 0, 0, 0, 0)", nix::libc::SYS_ptrace),
        format!("syscall({}, 0, 0, 0)", nix::libc::SYS_bpf),
        format!("syscall({}, 0, 0)", nix::libc::SYS_io_uring_setup),
        format!("syscall({}, 0, 0, 0, 0, 0)", nix::libc::SYS_keyctl),
        format!("syscall({}, 0, 0, 0)", nix::libc::SYS_init_module),
        format!("syscall({}, fileno(D), 0xc0045877, 0)", nix::libc::SYS_ioctl),
        format!("syscall({}, fileno(D), 0xc0045878, 0)", nix::libc::SYS_ioctl),
        // The upper half of a request does not count.
        format!("syscall({}, fileno(D), 0x1c0045877, 0)", nix::libc::SYS_ioctl),
        // The table of 32-bit pointers: mount.
        #[cfg(target_arch = "x86_64")]
        format!("syscall({}, 0, 0, 0, 0, 0)", 0x4000_0000 + nix::libc::SYS_mount),
    ];
    // Its twin: a call that is not on the list, and an ioctl that is not.
    let allowed = [
        format!("syscall({})", nix::libc::SYS_getpid),
        // FIONREAD
        format!("do {{ my $n = pack 'i', 0; syscall({}, 0, 0x541b, $n) }}", nix::libc::SYS_ioctl),
    ];
    let show = |call: &String| format!("$! = 0; print {call} < 0 ? $!+0 : 'ok', ' ';");
    let script = format!(
        "opendir D, '{}' or die; {} print '| '; {} pipe(R, W); open(STDIN, '<&R'); print '| '; {}",
        directory.path().display(),
        refused.iter().map(show).collect::<String>(),
        show(&format!("syscall({}, 0, 0)", nix::libc::SYS_clone3)),
        allowed.iter().map(show).collect::<String>(),
    );
    let bench = Bench::with("/usr/bin/perl", &["-e", &script], |grant| {
        (grant.user.uid, grant.user.gid) = (0, 0);
    });
    let output = bench.run().await;
    let said = text(&output.stdout);
    let parts: Vec<&str> = said.split('|').map(str::trim).collect();
    let eperm = vec![nix::libc::EPERM.to_string(); refused.len()].join(" ");
    assert_eq!(parts[0], eperm, "{refused:#?} {}", text(&output.stderr));
    assert_eq!(parts[1], nix::libc::ENOSYS.to_string());
    assert_eq!(parts[2], "ok ok");
}

#[tokio::test]
async fn it_cannot_signal_who_runs_as_its_user() {
    use std::os::unix::process::CommandExt;
    // Linux 6.12.
    if !has_landlock(true) {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    struct Sleeper(std::process::Child);
    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut sleep = std::process::Command::new("sleep");
    let other = Sleeper(sleep.arg("1000").uid(nobody.uid.as_raw()).spawn().unwrap());
    let bench = Bench::perl(&format!("print kill('KILL', {}) ? 'killed' : \"$!\"", other.0.id()));
    let said = text(&bench.run().await.stdout);
    drop(other);
    assert_eq!(said, "Operation not permitted");
    // Its twin: what it has started itself.
    let own = Bench::perl("my $p = fork; if (!$p) { sleep 100 } print kill('KILL', $p)");
    assert_eq!(text(&own.run().await.stdout), "1");
}

// ---- What bounds it -----------------------------------------------------------------------------

#[tokio::test]
async fn a_fork_bomb_runs_against_its_bound() {
    let script = "my $n = 0; while ($n < 500) { my $p = fork; last unless defined $p; \
                  if (!$p) { sleep 1000 } $n++ } print $n";
    let bench = Bench::with("/usr/bin/perl", &["-e", script], |grant| grant.limits.processes = 20);
    assert_eq!(text(&bench.run().await.stdout), "19");
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn memory_runs_against_its_bound() {
    let script = "my @m; for (1..400) { push @m, 'x' x (1 << 20) } print 'all'";
    let bench =
        Bench::with("/usr/bin/perl", &["-e", script], |grant| grant.limits.memory_bytes = 64 << 20);
    let output = bench.run().await;
    assert!(output.exit_code != Some(0) && output.stdout.is_empty(), "{output:?}");
    // Its twin has enough.
    let bench =
        Bench::with("/usr/bin/perl", &["-e", script], |grant| grant.limits.memory_bytes = 1 << 30);
    assert_eq!(text(&bench.run().await.stdout), "all");
}

#[tokio::test]
async fn a_hundred_megabytes_of_output_are_read_and_the_first_are_kept() {
    let script = "$| = 1; my $b = 'x' x 65536; print STDERR 'e' x 70000; \
                  print $b for 1..1600; print STDERR 'end'";
    let bench = Bench::with("/usr/bin/perl", &["-e", script], |grant| {
        grant.limits.output_bytes = 100;
    });
    let output = bench.run().await;
    assert_eq!((output.exit_code, output.truncated), (Some(0), true));
    assert_eq!(text(&output.stdout), "x".repeat(100));
    assert_eq!(text(&output.stderr), "e".repeat(100));
    // Its twin fits to the byte.
    let bench = Bench::with("/usr/bin/perl", &["-e", "print 'x' x 100"], |grant| {
        grant.limits.output_bytes = 100;
    });
    let output = bench.run().await;
    assert_eq!((output.stdout.len(), output.truncated), (100, false));
}

#[tokio::test]
async fn a_file_that_it_may_write_has_a_bound_too() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let file = directory.path().join("f");
    let script =
        format!("open F, '>', '{}' or die; print F 'x' x 100000; close F or die", file.display());
    let bench = Bench::with("/usr/bin/perl", &["-e", &script], |grant| {
        grant.writable = vec![directory.path().to_owned()];
        grant.limits.file_bytes = 1000;
    });
    assert_eq!(bench.run().await.signal, Some(nix::libc::SIGXFSZ));
    assert_eq!(fs::metadata(&file).unwrap().len(), 1000);
}

// ---- How it ends --------------------------------------------------------------------------------

#[tokio::test]
async fn how_it_ended_is_told() {
    let exited = Bench::perl("print STDERR 'words'; exit 7").run().await;
    assert_eq!((exited.exit_code, exited.signal), (Some(7), None));
    assert_eq!(text(&exited.stderr), "words");
    let killed = Bench::perl("kill 'TERM', $$; sleep 10").run().await;
    assert_eq!((killed.exit_code, killed.signal), (None, Some(nix::libc::SIGTERM)));
}

#[tokio::test]
async fn what_it_leaves_in_the_background_ends_with_it() {
    let bench = Bench::perl(
        "use POSIX; $| = 1; $SIG{TERM} = 'IGNORE'; my $p = fork; \
         if (!$p) { setsid; my $q = fork; if (!$q) { sleep 1000 } print \"$q\\n\"; sleep 1000 } \
         print \"$p\\n\"; select undef, undef, undef, 0.3; exit 3",
    );
    let output = bench.run().await;
    let said = text(&output.stdout);
    assert_eq!((output.exit_code, said.lines().count()), (Some(3), 2), "{said}");
    bench.nothing_is_left().await;
    assert!(!said.lines().any(is_alive), "{said}");
}

#[tokio::test]
async fn at_its_deadline_it_is_killed_with_all_its_children_and_gives_what_it_had_written() {
    let script = "use POSIX; $| = 1; $SIG{TERM} = $SIG{HUP} = 'IGNORE'; \
        for (1..5) { my $p = fork; if (!$p) { setsid; sleep 1000 } print \"$p\\n\" } \
        print \"$$\\n\"; sleep 1000";
    // By the hook's own time-out, by the operator's, and by the phase's.
    for which in ["hook", "operator", "phase"] {
        let bench = Bench::with("/usr/bin/perl", &["-e", script], |grant| {
            grant.limits.seconds = if which == "operator" { 1 } else { 60 };
        });
        let timeout = (which == "hook").then_some(Duration::from_secs(1));
        let time = if which == "phase" { Duration::from_secs(1) } else { SOON };
        let clock = (Phase::PreFreeze, Deadline::after(time));
        let began = Instant::now();
        let ran = bench.host.run(bench.call("", timeout), clock, &CancelToken::never()).await;
        let took = began.elapsed();
        let Err(ProcessError::Timeout(output)) = ran.map_err(|refusal| refusal.error) else {
            panic!("no time-out by the {which}'s")
        };
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "{took:?}");
        assert_eq!((output.exit_code, output.signal), (None, None));
        let said = text(&output.stdout);
        assert_eq!(said.lines().count(), 6, "{said}");
        bench.nothing_is_left().await;
        assert!(!said.lines().any(is_alive), "{said}");
    }
}

#[tokio::test]
async fn a_run_that_is_asked_to_stop_waits_for_no_program_before_the_freeze() {
    let bench = Bench::perl("sleep 1000");
    for phase in [Phase::Prepare, Phase::PreFreeze] {
        let source = CancelSource::new();
        let token = source.token();
        let run = bench.host.run(bench.call("", None), (phase, Deadline::after(SOON)), &token);
        let stop = async {
            // Once it runs, and not before: one that is started later undoes something.
            while bench.registry.running("db") == 0 {
                tokio::task::yield_now().await;
            }
            source.cancel();
        };
        let (ran, ()) = tokio::join!(run, stop);
        assert!(matches!(ran.unwrap_err().error, ProcessError::Other(_)));
        bench.nothing_is_left().await;
    }
}

#[tokio::test]
async fn what_undoes_something_runs_to_its_end_in_a_run_that_is_asked_to_stop() {
    let bench = Bench::perl("print 'undone'");
    let source = CancelSource::new();
    source.cancel();
    for phase in [Phase::Prepare, Phase::PreFreeze, Phase::Confirm, Phase::PostThaw, Phase::Finish]
    {
        let clock = (phase, Deadline::after(SOON));
        let ran = bench.host.run(bench.call("", None), clock, &source.token()).await;
        assert_eq!(text(&ran.unwrap().stdout), "undone");
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_nothing() {
    let bench = Bench::perl("my $p = fork; sleep 1000");
    {
        let call = bench.call("", None);
        let clock = (Phase::PreFreeze, Deadline::after(SOON));
        let never = CancelToken::never();
        let run = bench.host.run(call, clock, &never);
        assert!(tokio::time::timeout(Duration::from_millis(300), run).await.is_err());
    }
    assert!(bench.registry.running("db") <= 1);
    // Nobody kills it here: the call did when it was dropped.
    let deadline = Deadline::after(SOON);
    while bench.registry.running("db") > 0 && !deadline.has_passed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.registry.running("db"), 0);
}

#[tokio::test]
async fn a_deadline_that_has_passed_starts_nothing() {
    let bench = Bench::perl("print 'ran'");
    let ran = bench.try_run(Duration::ZERO).await;
    assert_eq!(ran, Err(ProcessError::Timeout(Output::default())));
}

#[tokio::test]
async fn a_hook_whose_programs_do_not_die_gets_no_more_of_them() {
    let bench = Bench::perl("print 'ran'");
    // What a frozen file system holds is, to the registry, an entry whose last process is not gone.
    let mut held: Vec<_> =
        (0..MOST_UNFINISHED).map(|_| bench.registry.register("db", "probe")).collect();
    let others = bench.registry.register("another hook", "probe");
    let Err(ProcessError::Failed(why)) = bench.try_run(SOON).await else { panic!() };
    assert!(why.contains("4 programs of this hook were killed and are not dead yet"), "{why}");
    let unfinished = bench.registry.end_hook("db", Duration::from_millis(10)).await;
    assert_eq!(unfinished.programs.len(), MOST_UNFINISHED);
    // Its twin: one of them has died.
    held.pop();
    assert_eq!(text(&bench.run().await.stdout), "ran");
    drop((held, others));
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn no_cgroup_of_a_program_stays_behind() {
    let ours = format!("stillpoint-{}-{}-", run::PURPOSE, std::process::id());
    let bench = Bench::perl("print 1");
    bench.run().await;
    bench.nothing_is_left().await;
    // Other tests of this process run programs at the same time: theirs have members, or are gone
    // a moment later.
    let deadline = Deadline::after(SOON);
    loop {
        let mut left = Vec::new();
        for hierarchy in ["unified", "pids", "memory", "cpu", "."] {
            let entries = fs::read_dir(Path::new("/sys/fs/cgroup").join(hierarchy));
            let entries = entries.into_iter().flatten().filter_map(Result::ok);
            left.extend(entries.map(|entry| entry.path()).filter(|path: &PathBuf| {
                path.file_name().unwrap().to_string_lossy().starts_with(&ours)
            }));
        }
        if left.is_empty() || deadline.has_passed() {
            assert!(left.is_empty(), "{left:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// ---- Which file ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_path_that_is_swapped_after_it_was_checked_runs_what_was_checked() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    file::tests::install("/usr/bin/true", &program);
    let bench = Bench::new(program.to_str().unwrap(), &[]);
    let other = directory.path().join("other");
    file::tests::install("/usr/bin/false", &other);
    fs::rename(&other, &program).unwrap();
    assert_eq!(bench.run().await.exit_code, Some(0));
    // Its twin: loaded after the swap.
    let fresh = Bench::new(program.to_str().unwrap(), &[]);
    assert_eq!(fresh.run().await.exit_code, Some(1));
}

#[tokio::test]
async fn a_file_that_is_written_after_it_was_checked_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    file::tests::install("/usr/bin/true", &program);
    let bench = Bench::new(program.to_str().unwrap(), &[]);
    let mut longer = fs::read("/usr/bin/false").unwrap();
    longer.push(0);
    fs::write(&program, longer).unwrap();
    let Err(ProcessError::Failed(why)) = bench.try_run(SOON).await else { panic!() };
    assert!(why.contains("was changed after it was checked"), "{why}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_not_found_when_it_is_called() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent");
    let bench = Bench::with("/usr/bin/true", &[], |grant| grant.path = absent.clone());
    let error = bench.try_run(SOON).await.unwrap_err();
    assert_eq!(error, ProcessError::NotFound(format!("there is no {}", absent.display())));
}

#[test]
fn what_a_grant_says_of_a_file_is_checked_when_it_is_loaded_with_its_place() {
    let real = fs::canonicalize("/usr/bin/true").unwrap();
    let mut grant = ProgramGrant::of_test(real.to_str().unwrap(), &[&[]]);
    grant.path_at.line = 7;
    grant.digest = Some(crate::hook::Digest::of(b"something else"));
    let error = GrantedProgram::open(&grant).unwrap_err();
    let begin = format!("hooks.d/db.toml:7:1: {} has the digest sha256:", real.display());
    assert!(error.to_string().starts_with(&begin), "{error}");
    grant.digest = Some(crate::hook::Digest::of(&fs::read(&real).unwrap()));
    assert!(GrantedProgram::open(&grant).is_ok());
    grant.writable = vec!["/nowhere/at/all".into()];
    let error = GrantedProgram::open(&grant).unwrap_err();
    assert!(
        error.to_string().contains("/nowhere/at/all, which the program may write to"),
        "{error}"
    );
}
