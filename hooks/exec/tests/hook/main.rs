//! The hook, natively, with programs that are closures behind the fake host.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use stillpoint_hook::process::{Error, Output};
use stillpoint_hook::testing::{FakeHost, exited};
use stillpoint_hook::{CapabilityNeed, Consistency, Hook, HookError, Outcome, Phase, kv};
use stillpoint_hook_exec::Exec;
use stillpoint_hook_exec::settings::{Call, Settings};

/// What a program answers; then it succeeds.
type Answers = Rc<RefCell<VecDeque<Result<Output, Error>>>>;

/// A host with the four programs, and an application that is held or not.
struct Lab {
    host: FakeHost,
    held: Rc<RefCell<bool>>,
    answers: Vec<(&'static str, Answers)>,
    hook: Exec,
}

const COMMANDS: [&str; 4] = ["prepare", "quiesce", "confirm", "release"];
const ALL: &str = r#"{"prepare": {}, "confirm": {"arguments": ["orders", "7"]}, "claims": "application", "paths": ["/srv"]}"#;

impl Lab {
    fn new() -> Self {
        let host = FakeHost::new();
        let held = Rc::new(RefCell::new(false));
        let mut all = Vec::new();
        for command in COMMANDS {
            let answers: Answers = Answers::default();
            let (mine, held) = (Rc::clone(&answers), Rc::clone(&held));
            host.program(command, move |_run| {
                let answer = mine.borrow_mut().pop_front().unwrap_or(Ok(exited(0, "fine\n")));
                match (command, &answer) {
                    // Even one that fails may have had its effect.
                    ("quiesce", Ok(_) | Err(Error::Timeout(_))) => *held.borrow_mut() = true,
                    ("release", Ok(output)) if output.succeeded() => *held.borrow_mut() = false,
                    _ => {}
                }
                answer
            });
            all.push((command, answers));
        }
        Lab { host, held, answers: all, hook: Exec::default() }
    }

    fn answers(&self, command: &str, answer: Result<Output, Error>) {
        let (_, answers) = self.answers.iter().find(|(name, _)| *name == command).unwrap();
        answers.borrow_mut().push_back(answer);
    }

    fn prepare(&mut self, settings: &str) -> Result<stillpoint_hook::Plan, HookError> {
        self.host.begin(Phase::Prepare, Duration::from_secs(30));
        self.hook.prepare(settings)
    }

    fn pre_freeze(&mut self) -> Result<stillpoint_hook::Frozen, HookError> {
        self.host.begin(Phase::PreFreeze, Duration::from_secs(20));
        self.hook.pre_freeze()
    }

    fn confirm(&mut self) -> Result<(), HookError> {
        self.host.begin(Phase::Confirm, Duration::from_secs(5));
        self.hook.confirm()
    }

    fn post_thaw(&mut self) -> Result<(), HookError> {
        self.host.begin(Phase::PostThaw, Duration::from_secs(10));
        self.hook.post_thaw(Outcome::Captured).map(drop)
    }

    fn finish(&mut self) -> Result<(), HookError> {
        self.host.begin(Phase::Finish, Duration::from_secs(10));
        self.hook.finish()
    }

    fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    fn ran(&self, command: &str) -> usize {
        let word = format!("run {command}");
        let ran = |line: &&String| **line == word || line.starts_with(&format!("{word} "));
        self.host.order().iter().filter(ran).count()
    }
}

fn timeout() -> Result<Output, Error> {
    Err(Error::Timeout(exited(0, "half\n")))
}

#[test]
fn each_phase_runs_its_program_with_the_words_of_the_settings() {
    let mut lab = Lab::new();
    assert_eq!(lab.prepare(ALL).unwrap().paths, ["/srv"]);
    assert!(!lab.is_held());
    assert_eq!(lab.pre_freeze().unwrap().consistency, Consistency::Application);
    lab.confirm().unwrap();
    lab.post_thaw().unwrap();
    lab.finish().unwrap();
    assert_eq!(
        lab.host.order(),
        ["run prepare", "run quiesce", "run confirm orders 7", "run release"]
    );
    assert!(lab.host.kv().is_empty());
}

#[test]
fn without_the_operators_claim_the_hook_claims_nothing() {
    for settings in ["{}", r#"{"confirm": {}}"#, r#"{"claims": "file-system"}"#] {
        let mut lab = Lab::new();
        lab.prepare(settings).unwrap();
        assert_eq!(lab.pre_freeze().unwrap().consistency, Consistency::None);
        lab.confirm().unwrap();
        lab.post_thaw().unwrap();
        assert!(!lab.is_held());
    }
}

#[test]
fn a_quiesce_that_fails_in_any_way_is_released_at_once() {
    for answer in [Ok(exited(1, "no\n")), Ok(exited(75, "later\n")), timeout()] {
        let mut lab = Lab::new();
        lab.prepare(ALL).unwrap();
        lab.answers("quiesce", answer);
        let error = lab.pre_freeze().unwrap_err();
        assert!(!lab.is_held(), "{error:?}");
        assert_eq!(lab.ran("release"), 1);
        lab.post_thaw().unwrap();
        lab.finish().unwrap();
        assert_eq!(lab.ran("release"), 1, "once is enough");
        assert!(lab.host.kv().is_empty());
    }
}

#[test]
fn exit_codes_have_their_classes() {
    let refused = |command: &str, code: i32| {
        let mut lab = Lab::new();
        lab.answers(command, Ok(exited(code, "the queue is full\n")));
        match lab.prepare(ALL) {
            Err(error) => error,
            Ok(_) => lab.pre_freeze().unwrap_err(),
        }
    };
    assert!(matches!(refused("prepare", 69), HookError::NotApplicable(_)));
    assert!(matches!(refused("prepare", 75), HookError::Busy(_)));
    assert!(matches!(refused("prepare", 1), HookError::Application(_)));
    assert!(matches!(refused("quiesce", 75), HookError::Busy(_)));
    // Later than `prepare` an application that is gone is no reason to leave the hook out.
    assert!(matches!(refused("quiesce", 69), HookError::Application(_)));
    assert!(refused("quiesce", 75).message().contains("the queue is full"));
}

#[test]
fn what_was_not_run_needs_no_release() {
    let mut lab = Lab::new();
    lab.prepare(ALL).unwrap();
    lab.answers("quiesce", Err(Error::Denied("not granted".into())));
    lab.pre_freeze().unwrap_err();
    lab.post_thaw().unwrap();
    lab.finish().unwrap();
    assert_eq!(lab.ran("release"), 0);
    assert!(lab.host.kv().is_empty());
}

#[test]
fn a_release_that_fails_some_times_is_tried_again() {
    for failures in 0..3 {
        let mut lab = Lab::new();
        lab.prepare(ALL).unwrap();
        lab.pre_freeze().unwrap();
        (0..failures).for_each(|_| lab.answers("release", Ok(exited(1, "not yet\n"))));
        lab.post_thaw().unwrap();
        assert_eq!(lab.ran("release"), failures + 1);
        assert!(!lab.is_held());
    }
}

#[test]
fn a_release_that_fails_too_often_is_said_and_kept_and_done_later() {
    let mut lab = Lab::new();
    lab.prepare(ALL).unwrap();
    lab.pre_freeze().unwrap();
    (0..6).for_each(|_| lab.answers("release", Ok(exited(1, "never\n"))));
    let error = lab.post_thaw().unwrap_err();
    assert!(error.message().contains("`stillpoint recover`"), "{error:?}");
    lab.finish().unwrap_err();
    assert!(lab.is_held());
    lab.hook = Exec::default();
    lab.finish().unwrap();
    assert!(!lab.is_held());
    assert!(lab.host.kv().is_empty());
}

#[test]
fn a_fresh_instance_releases_what_a_dead_one_quiesced_with_its_words() {
    let mut lab = Lab::new();
    lab.prepare(r#"{"release": {"arguments": ["orders"], "seconds": 3}}"#).unwrap();
    lab.pre_freeze().unwrap();
    lab.hook = Exec::default();
    lab.finish().unwrap();
    assert!(!lab.is_held());
    assert_eq!(lab.host.order().last().unwrap(), "run release orders");
    lab.finish().unwrap();
    assert_eq!(lab.ran("release"), 1, "there is nothing left to do");
}

#[test]
fn the_next_run_releases_first_what_a_dead_one_left() {
    let mut lab = Lab::new();
    lab.prepare(ALL).unwrap();
    lab.pre_freeze().unwrap();
    lab.hook = Exec::default();
    lab.host.clear_order();
    lab.prepare(ALL).unwrap();
    assert_eq!(lab.host.order(), ["run release", "run prepare"]);
    assert!(!lab.is_held());
}

#[test]
fn without_state_nothing_is_run() {
    let mut lab = Lab::new();
    lab.host.kv_limit(5);
    lab.prepare("{}").unwrap_err();
    assert_eq!(lab.ran("quiesce"), 0);
    kv::delete("none").unwrap();
}

#[test]
fn what_the_programs_write_is_logged_within_bounds() {
    let mut lab = Lab::new();
    let flood = "line\n".repeat(1000);
    lab.answers("prepare", Ok(exited(0, &flood)));
    lab.prepare(ALL).unwrap();
    let log = lab.host.log();
    assert!(log.len() < 50, "{}", log.len());
    assert_eq!(log[0].message, "prepare: line");
}

#[test]
fn the_grant_file_grants_what_the_hook_asks_for() {
    let grant: toml::Table = include_str!("../../grant.toml").parse().unwrap();
    let settings = serde_json::to_string(&grant["settings"]).unwrap();
    let given = Settings::parse(&settings).unwrap();
    assert_eq!(given.release.arguments, ["release", "orders"]);
    let asked = Exec::describe().needs;
    for section in grant["program"].as_array().unwrap() {
        let command = section["command"].as_str().unwrap();
        let need = asked.iter().find_map(|need| match need {
            CapabilityNeed::Program(need) if need.command == command => Some(need),
            _ => None,
        });
        let call = match command {
            "prepare" => given.prepare.clone().unwrap(),
            "quiesce" => given.quiesce.clone(),
            "confirm" => given.confirm.clone().unwrap(),
            _ => given.release.clone(),
        };
        let list: Vec<&str> = section["arguments"][0]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(toml::Value::as_str)
            .collect();
        assert_eq!(list, call.arguments, "the settings give what is granted");
        assert!(need.unwrap().arguments.iter().any(|asked| asked.len() == list.len()));
    }
    assert_eq!(Call::default().time, Duration::from_secs(10));
}
