#![doc = include_str!("../README.md")]

pub mod program;
pub mod settings;

use std::time::Duration;

use serde_json::{Value, json};
use stillpoint_hook::{
    CapabilityNeed, Consistency, Description, Frozen, Hook, HookError, MetadataEntry, Outcome,
    Plan, ProgramNeed, kv, run, warn,
};

use settings::{Call, MOST_ARGUMENTS, Settings};

/// The key under which it is kept that the application may be quiesced, and how it is released.
const KEY: &str = "to-be-released";

/// What that needs.
const KV_BYTES: u32 = 4096;

/// Between two tries of `release`; doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// The hook.
#[derive(Debug, Default)]
pub struct Exec {
    settings: Option<Settings>,
    /// `quiesce` may have had an effect.
    begun: bool,
    /// `quiesce` succeeded.
    quiesced: bool,
}

/// How to release: kept, because `finish` on a fresh instance is given no settings.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Release {
    call: Call,
    attempts: u32,
}

impl Hook for Exec {
    fn describe() -> Description {
        let description = Description::new(
            "exec",
            env!("CARGO_PKG_VERSION"),
            "The last resort: quiesces an application by programs of the operator's",
        )
        .settings_schema(settings::SCHEMA)
        .needs_kv(
            KV_BYTES,
            "what a program did is tied to no session: that it was begun is kept, so that `release` \
             runs after stillpoint was killed",
        );
        let programs = [
            (
                "prepare",
                "looks whether the application can be quiesced, and changes nothing",
                false,
            ),
            ("quiesce", "quiesces the application, and leaves it so when it ends", true),
            ("confirm", "says whether the application was quiesced all the time", false),
            (
                "release",
                "lets the application go on; is run again and again until it succeeds",
                true,
            ),
        ];
        programs.into_iter().fold(description, |description, (command, reason, required)| {
            description.needs(need(command, reason, required))
        })
    }

    fn validate(settings: &str) -> Result<(), HookError> {
        Settings::parse(settings).map(drop)
    }

    fn prepare(&mut self, settings: &str) -> Result<Plan, HookError> {
        let settings = Settings::parse(settings)?;
        let dry_run = run::info().dry_run;
        if !dry_run {
            // What an earlier run left, on a machine that went down and lost its journal.
            if let Some(release) = Release::kept()? {
                warn!("an earlier run was cut off: the application is released first");
                release.run()?;
            }
            if let Some(call) = &settings.prepare {
                program::call("prepare", call, run::remaining())?;
            }
            Release::of(&settings).keep()?;
        }
        let summary = match settings.claims_application {
            true => "programs of the operator's, who claims that they quiesce the application",
            false => "programs of the operator's",
        };
        let paths = settings.paths.clone();
        self.settings = Some(settings);
        Ok(paths.into_iter().fold(Plan::new(summary), Plan::with_path))
    }

    fn pre_freeze(&mut self) -> Result<Frozen, HookError> {
        let settings = self.settings()?.clone();
        let release = Release::of(&settings);
        // In memory as well as on the disk: it is there for whoever comes next.
        release.keep()?;
        self.begun = true;
        let reserve = settings.release.time.min(run::remaining() / 2);
        match program::call("quiesce", &settings.quiesce, run::remaining_but(reserve)) {
            Ok(()) => {
                self.quiesced = true;
                Ok(frozen(settings.claims_application))
            }
            Err(error) if program::was_not_run(&error) => {
                self.begun = false;
                Release::forget()?;
                Err(error)
            }
            Err(error) => Err(match self.release() {
                Ok(()) => error,
                Err(unproven) => error.also(&format!(
                    "and it is not certain that the application is released: {}",
                    unproven.message()
                )),
            }),
        }
    }

    fn confirm(&mut self) -> Result<(), HookError> {
        if !self.quiesced {
            return Err(HookError::Internal("nothing is quiesced".into()));
        }
        match &self.settings()?.confirm {
            Some(call) => program::call("confirm", call, run::remaining()),
            None => Ok(()),
        }
    }

    fn post_thaw(&mut self, _outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
        self.release()?;
        Ok(Vec::new())
    }

    fn finish(&mut self) -> Result<(), HookError> {
        let prepared_here = self.settings.is_some();
        if prepared_here && !self.begun {
            return Release::forget();
        }
        match Release::kept()? {
            Some(release) => release.run(),
            None => Ok(()),
        }
    }
}

impl Exec {
    fn settings(&self) -> Result<&Settings, HookError> {
        let settings = self.settings.as_ref();
        settings.ok_or_else(|| HookError::Internal("prepare was not called".into()))
    }

    /// Once it has succeeded there is nothing more to do.
    fn release(&mut self) -> Result<(), HookError> {
        if !self.begun {
            return Ok(());
        }
        Release::of(self.settings()?).run()?;
        self.begun = false;
        self.quiesced = false;
        Ok(())
    }
}

impl Release {
    fn of(settings: &Settings) -> Self {
        Release { call: settings.release.clone(), attempts: settings.release_attempts }
    }

    fn keep(&self) -> Result<(), HookError> {
        let document = json!({ "call": self.call.to_json(), "attempts": self.attempts });
        let kept = kv::set(KEY, document.to_string().as_bytes());
        kept.map_err(|error| {
            HookError::from(error).context("what is about to be done cannot be kept (`kv`)")
        })
    }

    fn kept() -> Result<Option<Self>, HookError> {
        let Some(bytes) = kv::get(KEY)? else { return Ok(None) };
        let document: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let read = || {
            Some(Release {
                call: Call::from_json(document.get("call")?)?,
                attempts: u32::try_from(document.get("attempts")?.as_u64()?).ok()?,
            })
        };
        read().map(Some).ok_or_else(|| {
            HookError::Internal(
                "what was kept of an earlier run cannot be read: release the application yourself, then remove this hook's file below /var/lib/stillpoint/state".into(),
            )
        })
    }

    fn forget() -> Result<(), HookError> {
        Ok(kv::delete(KEY)?)
    }

    /// Until it succeeds, or the tries or the time are used up; only then it is forgotten.
    fn run(&self) -> Result<(), HookError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let left = self.attempts.saturating_sub(attempt);
            match program::call("release", &self.call, run::remaining()) {
                Ok(()) => break,
                Err(error) if left == 0 || run::remaining() <= pause => {
                    return Err(error.also(
                        "the application may still be quiesced: `stillpoint recover` runs `release` again; or release it yourself",
                    ));
                }
                Err(error) => warn!("{}; trying again", error.message(); left = left),
            }
            run::sleep(pause);
            pause *= 2;
        }
        Self::forget()
    }
}

/// Exit codes are all that is known: what they are worth is the operator's word, or nothing.
fn frozen(claims_application: bool) -> Frozen {
    let consistency = if claims_application { Consistency::Application } else { Consistency::None };
    let metadata = vec![MetadataEntry::new("claimed-by-operator", claims_application)];
    Frozen { consistency, metadata }
}

/// Any list of so many words that both sides grant: what the words are is between the operator's
/// settings and his grant.
fn need(command: &str, reason: &str, required: bool) -> CapabilityNeed {
    let words = |count: usize| vec!["{name}".to_owned(); count];
    CapabilityNeed::Program(ProgramNeed {
        command: command.into(),
        arguments: (0..=MOST_ARGUMENTS).map(words).collect(),
        stdin_scripts: Vec::new(),
        reason: reason.into(),
        required,
    })
}

stillpoint_hook::export!(Exec);
