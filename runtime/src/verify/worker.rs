//! What happens in the sandbox: the first process of its name spaces. It is root there until the root
//! is put together; what it starts then is not.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::discover;
use super::file_systems::{self, Sound};
use super::job::{DatabaseJob, Engine, Event, HookJob, Job};
use super::keeper::tell;
use super::root;
use super::verifier::{self, Bench, Database, Stop, saved_text};

/// Its life; its exit status.
pub(crate) fn run() -> i32 {
    match work() {
        Ok(()) => {
            tell(&Event::Done);
            0
        }
        Err(Stop::NoDatabase { hook }) => {
            tell(&Event::NoDatabase { hook });
            1
        }
        Err(Stop::Sandbox { what, hint }) => {
            tell(&Event::Failed { what, hint });
            1
        }
    }
}

fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Stop {
    move |error| Stop::Sandbox { what: format!("{what}: {error}"), hint: None }
}

fn work() -> Result<(), Stop> {
    // Before anything: nothing of this outlives its keeper.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("no death signal"))?;
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).map_err(failed("no job"))?;
    let job: Job = serde_json::from_str(&text).map_err(failed("the job makes no sense"))?;
    let scratch = root::own_mounts().map_err(failed("no mounts of our own"))?;
    let sound: Vec<Sound> = job
        .file_systems
        .iter()
        .filter_map(|copied| file_systems::check(copied, &scratch))
        .collect();
    tell(&Event::Doing("mounting the copies".into()));
    root::enter(&sound).map_err(failed("the copies cannot be mounted where nobody sees them"))?;
    let places: Vec<PathBuf> = sound.into_iter().map(|it| it.mount_point).collect();
    tell(&Event::Doing("looking for databases".into()));
    let databases = databases(&job, &places)?;
    if databases.is_empty() {
        tell(&Event::NotChecked("databases: none is in the copy, only file systems were".into()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("no async runtime"))?;
    let bench = Bench { places: &places, runtime: &runtime, memory_bytes: job.memory_bytes };
    databases.iter().try_for_each(|database| verifier::verify(&bench, database))
}

/// Those that the operator named, and those that are found beside them; each with the hook of the
/// manifest that answers for it.
fn databases(job: &Job, places: &[PathBuf]) -> Result<Vec<Database>, Stop> {
    let mut named = job.databases.clone();
    named.retain(|database| places.iter().any(|place| database.directory.starts_with(place)));
    for place in places {
        for (engine, directory) in discover::databases(place, places) {
            if named.iter().all(|known| known.directory != directory) {
                named.push(DatabaseJob::found(engine, directory));
            }
        }
    }
    for hook in job.hooks.iter().filter(|hook| engine_of(hook) == Some(Engine::Redis)) {
        // Its files can have any name.
        let Some(directory) = saved_text(&hook.saved, "dir").map(PathBuf::from) else { continue };
        if directory.is_dir() && named.iter().all(|known| known.directory != directory) {
            named.push(DatabaseJob::found(Engine::Redis, directory));
        }
    }
    let mut databases = Vec::new();
    for mut found in named {
        if found.engine != Engine::Redis {
            found.queries.extend(job.queries.iter().cloned());
        }
        let meta = std::fs::metadata(&found.directory).map_err(failed("no data directory"))?;
        databases.push(Database { owner: (meta.uid(), meta.gid()), found, hook: None });
    }
    for hook in &job.hooks {
        let Some(engine) = engine_of(hook) else { continue };
        let mut served: Vec<&mut Database> = databases
            .iter_mut()
            .filter(|it| it.hook.is_none() && it.found.engine == engine)
            .filter(|it| is_of(hook, &it.found.directory))
            .collect();
        match served.as_mut_slice() {
            [] => return Err(Stop::NoDatabase { hook: hook.name.clone() }),
            [one] => one.hook = Some(hook.clone()),
            _ => tell(&Event::NotChecked(format!(
                "positions of hook {}: which of several {} databases is its is not known",
                hook.name,
                engine.name()
            ))),
        }
    }
    Ok(databases)
}

/// Known by what the first-party hooks save.
fn engine_of(hook: &HookJob) -> Option<Engine> {
    match saved_text(&hook.saved, "flavour").as_deref() {
        Some("mariadb" | "mysql") => Some(Engine::Mariadb),
        Some("redis") => Some(Engine::Redis),
        _ => saved_text(&hook.saved, "system-identifier").map(|_| Engine::Postgresql),
    }
}

fn is_of(hook: &HookJob, directory: &Path) -> bool {
    let says = |key| saved_text(&hook.saved, key);
    if let Some(dir) = says("dir") {
        return Path::new(&dir) == directory;
    }
    match says("system-identifier") {
        Some(identifier) => {
            verifier::system_identifier(directory).is_none_or(|it| it == identifier)
        }
        None => true,
    }
}
