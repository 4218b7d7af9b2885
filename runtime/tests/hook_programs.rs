//! A hook that runs programs: what it may, what they see, how they end. Real ones, as root.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{Installation, plenty, quiesced, run, within};
use stillpoint::capability::grant_template;
use stillpoint::hook::{Hook, HookFailureKind, HookLoadError, RunContext};

/// A puppet that may run its probe, and the registry of what it runs.
struct Bench {
    installation: Installation,
    digest: stillpoint::hook::Digest,
    section: String,
    run: RunContext,
}

impl Bench {
    async fn new() -> Self {
        let (installation, digest) = Installation::with_puppet().await;
        let inspection = installation.store.inspect(&digest.to_string()).await.unwrap();
        let template = grant_template(&inspection.description, &digest, &[]);
        let at = template.find("[[program]]").unwrap();
        let section = template.get(at..).unwrap().to_owned();
        assert!(section.contains("path = \"/usr/bin/perl\"\n"), "{section}");
        Self { installation, digest, section, run: run() }
    }

    /// A hook that does this in `pre-freeze`; `change` is made to the section that the template has.
    async fn try_hook(
        &self,
        commands: &[&str],
        change: (&str, &str),
    ) -> Result<Box<dyn Hook>, HookLoadError> {
        let (from, to) = change;
        assert!(self.section.contains(from), "{}", self.section);
        let script: &[(&str, &[&str])] = &[("pre-freeze", commands)];
        let section = self.section.replace(from, to);
        self.installation.grant("puppet", &self.digest, script, &section);
        self.installation.load("puppet", &self.run).await
    }

    async fn results(&self, commands: &[&str], change: (&str, &str)) -> Vec<String> {
        let mut hook = self.try_hook(commands, change).await.unwrap();
        hook.prepare(plenty()).await.unwrap();
        let said = quiesced(hook.pre_freeze(plenty()).await);
        hook.finish(plenty()).await.unwrap();
        assert_eq!(self.run.programs.running("puppet"), 0);
        said
    }
}

const AS_GRANTED: (&str, &str) = ("user = \"nobody\"", "user = \"nobody\"");

#[tokio::test]
async fn what_the_template_grants_runs_as_nobody_with_nothing() {
    let bench = Bench::new().await;
    let environment = ("groups = []", "groups = []\nenvironment = { ORACLE_SID = \"ORCL\" }");
    let said = bench
        .results(
            &[
                "run perl -e @ environment",
                "run perl -e @ status",
                "run perl -e @ arguments two",
                "run perl -e @ copy < @",
                "run perl -e @ fail 7",
            ],
            environment,
        )
        .await;
    let stdout = |at: usize| {
        let (head, rest) = said[at].split_once("\nstdout ").unwrap();
        assert!(head.starts_with(if at == 4 { "exit Some(7)" } else { "exit Some(0)" }), "{head}");
        rest.split_once("\nstderr ").unwrap()
    };
    assert_eq!(stdout(0).0, "ORACLE_SID=ORCL\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n");
    let status = stdout(1).0;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "Umask:\t0077"] {
        assert!(status.contains(line), "no {line} in {status}");
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid;
    assert!(status.contains(&format!("Uid:\t{nobody}\t{nobody}\t{nobody}\t{nobody}\n")));
    assert_eq!(stdout(2).0, "two");
    assert_eq!(stdout(3).0, "SELECT 1;\nEXIT\n");
    assert_eq!(stdout(4).1, "no luck\n");
}

#[tokio::test]
async fn what_is_not_granted_is_denied_with_the_line_to_add() {
    let bench = Bench::new().await;
    for (command, change, message, line) in [
        (
            "run perl -e @ --version",
            AS_GRANTED,
            "is not granted",
            "add to `arguments` of [[program]] command = \"perl\" in ",
        ),
        ("run perl -e @", AS_GRANTED, "is not granted", "add to `arguments`"),
        ("run perl -e print(1) x", AS_GRANTED, "is not granted", "\"print(1)\", \"x\"],"),
        ("run perl -e @ arguments a;b", AS_GRANTED, "is not granted", "\"a;b\"],"),
        ("run perl -e @ arguments ../b", AS_GRANTED, "is not granted", "\"../b\"],"),
        ("run perl -e @ arguments a\u{1b}[2J", AS_GRANTED, "is not granted", "001B[2J\"],"),
        (
            "run perl -e @ copy < DROP",
            AS_GRANTED,
            "with the standard input `DROP` is not granted",
            "add to `stdin` of [[program]] command = \"perl\" in ",
        ),
        (
            "run sh -c id",
            AS_GRANTED,
            "program `sh` is not granted",
            "[[program]] command = \"sh\", path = \"/…\", arguments = [[\"-c\", \"id\"]]",
        ),
        // The operator's key alone is not enough.
        (
            "run perl -v",
            ("arguments = [", "arguments = [[\"-v\"],"),
            "is not in what the hook's `describe` asks for",
            "the hook's author must add it",
        ),
        (
            "run perl -e @ copy < DROP",
            ("stdin = [", "stdin = [\"DROP\","),
            "is not in what the hook's `describe` asks for",
            "the hook's author must add it",
        ),
        ("run tool", ("\"perl\"", "\"tool\""), "is not in what the hook's `describe`", "author"),
    ] {
        let mut hook = bench.try_hook(&[command], change).await.unwrap();
        hook.prepare(plenty()).await.unwrap();
        let failure = hook.pre_freeze(plenty()).await.unwrap_err();
        assert_eq!(failure.kind, HookFailureKind::Denied, "{command}: {failure}");
        assert!(failure.message.contains(message), "{command}: {failure}");
        let hint = failure.hint.unwrap();
        assert!(hint.contains(line), "{command}: {hint}");
        assert!(!hint.contains('\u{1b}'), "{hint}");
        hook.finish(plenty()).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_runs_while_a_hook_describes_itself_or_checks_its_settings() {
    let bench = Bench::new().await;
    let script: &[(&str, &[&str])] = &[("validate", &["run perl -e @ environment"])];
    bench.installation.grant("puppet", &bench.digest, script, &bench.section);
    let error = bench.installation.load("puppet", &bench.run).await.unwrap_err();
    assert!(error.to_string().contains("no program may run in validate"), "{error}");
}

#[tokio::test]
async fn output_beyond_its_bound_is_read_and_thrown_away() {
    let bench = Bench::new().await;
    let change = ("output-bytes = 65536", "output-bytes = 1000");
    let said = bench.results(&["run perl -e @ flood"], change).await;
    assert!(
        said[0].starts_with("exit Some(0) signal None truncated true bytes 1000 0"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_program_that_takes_too_long_costs_the_hook_nothing_but_its_time() {
    let bench = Bench::new().await;
    // By the hook's own time-out; the hook goes on.
    let said = bench
        .results(&["program 300ms perl -e @ sleep", "run perl -e @ arguments after"], AS_GRANTED)
        .await;
    assert!(said[0].starts_with("timeout, exit None signal None"), "{said:?}");
    assert!(said[0].contains("stdout begun\n"), "{said:?}");
    assert!(said[1].contains("stdout after"), "{said:?}");

    // By the phase's: the hook comes back by itself, with what was written.
    let mut hook = bench.try_hook(&["program perl -e @ sleep"], AS_GRANTED).await.unwrap();
    hook.prepare(plenty()).await.unwrap();
    let began = Instant::now();
    let said = quiesced(hook.pre_freeze(within(500)).await);
    let took = began.elapsed();
    assert!(said[0].starts_with("timeout"), "{said:?}");
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(3), "{took:?}");
    hook.confirm(plenty()).await.unwrap();
    hook.finish(plenty()).await.unwrap();
}

#[tokio::test]
async fn a_hook_that_is_dropped_in_a_call_takes_its_program_with_it() {
    let bench = Bench::new().await;
    let mut hook = bench.try_hook(&["run perl -e @ sleep"], AS_GRANTED).await.unwrap();
    hook.prepare(plenty()).await.unwrap();
    let call = hook.pre_freeze(plenty());
    assert!(tokio::time::timeout(Duration::from_millis(500), call).await.is_err());
    drop(hook);
    assert!(
        bench.run.programs.end_hook("puppet", Duration::from_secs(10)).await.programs.is_empty()
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_trusted_keeps_the_hook_from_being_loaded() {
    let bench = Bench::new().await;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("perl");
    let installed = std::process::Command::new("install")
        .args(["-m", "4755", "/usr/bin/perl"])
        .arg(&program)
        .status()
        .unwrap();
    assert!(installed.success());
    let path = format!("path = \"{}\"", program.display());
    let digest = "path = \"/usr/bin/perl\"\ndigest = \"sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"";
    for (to, problem, hint) in [
        (path.as_str(), "has mode 4755: programs that change their user", "set-user-ID"),
        (digest, "/usr/bin/perl has the digest sha256:", "digest = \"sha256:"),
        ("path = \"/proc/self/exe\"", "is a symbolic link", "write path"),
    ] {
        let change = ("path = \"/usr/bin/perl\"", to);
        let error = bench.try_hook(&["run perl -e @ status"], change).await.unwrap_err();
        assert!(error.to_string().contains("puppet.toml:"), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{error}: {:?}", error.hint());
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_not_found() {
    let bench = Bench::new().await;
    let absent = ("path = \"/usr/bin/perl\"", "path = \"/usr/bin/no-such-program\"");
    let said = bench.results(&["program perl -e @ status"], absent).await;
    assert!(said[0].contains("NotFound(\"there is no /usr/bin/no-such-program\")"), "{said:?}");
}
