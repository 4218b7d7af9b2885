//! Where a hook is tested: an installation of its own in a temporary directory, with the component
//! installed, granted and loaded by the same code as for a real run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::error::TestError;
use super::script::Script;
use super::world::World;
use crate::capability::grant_template;
use crate::capability::sql::Flavour;
use crate::config::connections::Connections;
use crate::config::grants::HookGrant;
use crate::config::read::{ConfigError, Document};
use crate::hook::{
    Compiler, Description, Hook, HookStore, InstallPolicy, InstallRequest, Installed, Need, Phase,
    RunContext,
};
use crate::paths::Paths;

/// What a phase may take if nobody says otherwise.
const USUAL_DEADLINE: Duration = Duration::from_secs(5);

/// What is tested, and against what.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The component, a `.wasm` file.
    pub component: PathBuf,
    /// Which program compiles it.
    pub compiler: Compiler,
    /// What stands in for servers and programs; none for the real ones.
    pub script: Option<Script>,
    /// With the real ones: the installation whose `connections.toml` counts.
    pub paths: Paths,
    /// With the real ones: the grant to test with. Without one, all that the hook asks for is granted.
    pub grant: Option<PathBuf>,
    /// Without a grant: settings, a TOML file.
    pub settings: Option<PathBuf>,
    /// Without a grant: which connection is meant by the name that the hook uses.
    pub targets: Vec<(String, String)>,
    /// What each phase may take; the default is the script's word, else 5 s.
    pub deadline: Option<Duration>,
}

impl Setup {
    /// A component against a script.
    #[must_use]
    pub fn scripted(component: &Path, script: Script) -> Self {
        Self { script: Some(script), ..Self::real(component, &Paths::default()) }
    }

    /// A component against the real servers of an installation.
    #[must_use]
    pub fn real(component: &Path, paths: &Paths) -> Self {
        Self {
            component: component.to_owned(),
            compiler: Compiler::this_program(),
            script: None,
            paths: paths.clone(),
            grant: None,
            settings: None,
            targets: Vec::new(),
            deadline: None,
        }
    }
}

/// A hook that is ready to be tested.
#[derive(Debug)]
pub struct Bench {
    root: TempDir,
    store: HookStore,
    installed: Installed,
    grant: HookGrant,
    connections: Connections,
    script: Option<Arc<Script>>,
    deadline: Option<Duration>,
}

impl Bench {
    /// Installs the component in a place of its own, and grants it what the setup says.
    ///
    /// # Errors
    /// If it is no hook, or its grant, settings or script are wrong.
    pub async fn new(setup: Setup) -> Result<Self, TestError> {
        let root = tempfile::Builder::new()
            .prefix("stillpoint-hook-test-")
            .tempdir()
            .map_err(TestError::Directory)?;
        let paths = Paths::under(root.path());
        let store = HookStore::new(&paths)?.compiled_by(setup.compiler.clone());
        // Who vouches for it is asked when it is installed for real.
        let policy = InstallPolicy { allow_unsigned: true, downgrade: true };
        let request = InstallRequest::from_file(&setup.component)?.with_policy(policy);
        let installed = store.install(request).await?;
        let connections = connections(&setup, &installed.description)?;
        let grant = grant(&setup, &installed, &connections, &paths)?;
        let script = setup.script.map(Arc::new);
        let deadline = setup.deadline;
        Ok(Self { root, store, installed, grant, connections, script, deadline })
    }

    /// What is tested.
    #[must_use]
    pub fn installed(&self) -> &Installed {
        &self.installed
    }

    pub(super) fn script(&self) -> Option<&Arc<Script>> {
        self.script.as_ref()
    }

    pub(super) fn settings(&self) -> &serde_json::Value {
        &self.grant.settings
    }

    /// How long a phase may take.
    pub(super) fn deadline(&self, phase: Phase) -> Duration {
        let told = self.script.as_ref().and_then(|script| script.deadlines.get(&phase).copied());
        self.deadline.or(told).unwrap_or(USUAL_DEADLINE)
    }

    /// A place for what the hook keeps; empty if nobody was given the same name before.
    pub(super) fn place(&self, name: &str) -> Place {
        Place { paths: Paths::under(self.root.path().join("runs").join(name)) }
    }

    /// The hook for one run in that place, and the run.
    pub(super) async fn load(
        &self,
        place: &Place,
        world: &Arc<World>,
        dry_run: bool,
    ) -> Result<(Box<dyn Hook>, RunContext), TestError> {
        let mut run = RunContext::new("hook-test", dry_run, world.cancel_token());
        run.stage = Some(Arc::clone(world) as _);
        let store = self.store.with_state_at(&place.paths);
        let hook = store.load(&self.grant, &self.connections, &run).await?;
        Ok((hook, run))
    }
}

/// Where a hook keeps its state in one test, from run to run.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) paths: Paths,
}

/// The operator's connections; or in front of a script one for each that the hook asks for.
fn connections(setup: &Setup, description: &Description) -> Result<Connections, TestError> {
    let Some(script) = &setup.script else {
        return Ok(Connections::load(&setup.paths)?);
    };
    let mut text = String::new();
    for need in &description.needs {
        let Need::Sql { connection, engines, .. } = need else { continue };
        let told = script.connections.get(connection).map(|stand| stand.flavour);
        let engine = match (told, engines.first().map(String::as_str)) {
            (Some(Flavour::Mariadb | Flavour::Mysql), _) => "mysql",
            (Some(Flavour::Postgresql), _) | (None, Some("postgresql")) => "postgresql",
            (Some(Flavour::Redis), _) | (None, Some("other")) => "redis",
            (None, _) => "mysql",
        };
        let name = toml::Value::String(connection.clone());
        let _ =
            writeln!(text, "[connections.{name}]\nengine = \"{engine}\"\nsocket = \"/nowhere\"");
        match engine {
            "redis" => {}
            "postgresql" => text.push_str("user = \"test\"\ndatabase = \"test\"\n"),
            _ => text.push_str("user = \"test\"\n"),
        }
    }
    let path = Path::new("connections of the test");
    Ok(Connections::of(&Document::of(path, text))?)
}

/// The operator's grant with this component in it; or all that the hook asks for.
fn grant(
    setup: &Setup,
    installed: &Installed,
    connections: &Connections,
    paths: &Paths,
) -> Result<HookGrant, TestError> {
    if let Some(file) = &setup.grant {
        let granted = HookGrant::load(file, connections)?;
        return Ok(HookGrant { module: installed.digest, ..granted });
    }
    let mut description = installed.description.clone();
    let targets: BTreeMap<_, _> = setup.targets.iter().cloned().collect();
    let has = |asked: &String| connections.get(targets.get(asked).unwrap_or(asked)).is_some();
    for need in &description.needs {
        if let Need::Sql { connection, required: true, .. } = need
            && !has(connection)
        {
            return Err(TestError::Setup {
                what: format!("the hook needs a connection `{connection}`, and there is none"),
                hint: format!(
                    "describe [connections.{connection}] in {}, or say --connection {connection}=NAME for one that is there, or test it against a script with --script",
                    connections.path().display()
                ),
            });
        }
    }
    description.needs.retain(|need| match need {
        Need::Sql { connection, .. } => has(connection),
        _ => true,
    });
    let text = grant_template(&description, &installed.digest, &setup.targets);
    let (before, after) = text.split_once("[settings]\n").unwrap_or((&text, ""));
    let settings = settings(setup)?;
    let text = format!("{before}[settings]\n{settings}{after}");
    let file = paths.grants().join(format!("{}.toml", installed.description.name));
    Ok(HookGrant::of(&Document::of(&file, text), connections)?)
}

/// As lines of TOML, one for each setting.
fn settings(setup: &Setup) -> Result<String, TestError> {
    let table = match (&setup.script, &setup.settings) {
        (Some(script), None) => script.settings.clone(),
        (_, Some(file)) => {
            let unreadable = |source| ConfigError::Unreadable { path: file.clone(), source };
            let text = std::fs::read_to_string(file).map_err(unreadable)?;
            Document::of(file, text).parse()?
        }
        (None, None) => toml::Table::new(),
    };
    let mut text = String::new();
    for (key, value) in &table {
        let _ = writeln!(text, "{} = {value}", toml::Value::String(key.clone()));
    }
    Ok(text)
}
