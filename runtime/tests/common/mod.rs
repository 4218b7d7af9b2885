//! Installations in temporary directories, and the puppet: a hook that does what its settings say.
#![expect(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use stillpoint::config::connections::Connections;
use stillpoint::config::grants::HookGrant;
use stillpoint::hook::{
    CancelToken, Compiler, Digest, Hook, HookLoadError, HookStore, InstallPolicy, InstallRequest,
    Quiesced, RunContext,
};
use stillpoint::manifest::{MetadataEntry, MetadataValue};
use stillpoint::paths::Paths;
use stillpoint::time::Deadline;
use tokio::sync::OnceCell;

/// The puppet as a component. Built once for each test binary.
pub fn puppet() -> &'static [u8] {
    static PUPPET: OnceLock<Vec<u8>> = OnceLock::new();
    PUPPET.get_or_init(|| guest("puppet"))
}

/// The component of `tests/guests/NAME`, built.
pub fn guest(name: &str) -> Vec<u8> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let status = Command::new(workspace.join("scripts/build-hooks"))
        .arg(name)
        .env("CARGO_TARGET_DIR", target())
        .status()
        .unwrap();
    assert!(status.success(), "the guest {name} does not build");
    std::fs::read(target().join(format!("hooks/{name}.wasm"))).unwrap()
}

/// The puppet as a core module, as the compiler gives it.
pub fn puppet_module() -> Vec<u8> {
    puppet();
    std::fs::read(target().join("hooks/stillpoint_test_puppet.wasm")).unwrap()
}

/// Cargo's target directory: the parent of its directory for tests.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// The puppet whose `describe` misbehaves: `trap`, `loop`, `eat`, `badname`.
pub fn puppet_that_describes(mode: &str) -> Vec<u8> {
    let marker = b"PUPPET-DESCRIBE=";
    let mut bytes = puppet().to_vec();
    let at = bytes.windows(marker.len()).position(|window| window == marker).unwrap();
    let value = &mut bytes[at + marker.len()..][..8];
    value.fill(b' ');
    value[..mode.len()].copy_from_slice(mode.as_bytes());
    bytes
}

/// An installation of its own, with a store.
pub struct Installation {
    pub root: tempfile::TempDir,
    pub paths: Paths,
    pub store: HookStore,
}

impl Installation {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        std::fs::create_dir_all(paths.grants()).unwrap();
        let store = store(&paths);
        Self { root, paths, store }
    }

    /// An installation with the puppet. Compiled once for each test binary, then copied.
    pub async fn with_puppet() -> (Self, Digest) {
        Self::with("puppet", puppet()).await
    }

    /// An installation with a hook of `hooks/`, or a guest, that is built first.
    pub async fn with_built(name: &str) -> (Self, Digest) {
        static BUILT: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
        let component = {
            let mut built = BUILT.lock().unwrap();
            built.entry(name.to_owned()).or_insert_with(|| guest(name)).clone()
        };
        Self::with(name, &component).await
    }

    /// An installation with one component, the same for all calls with that name in a test binary. Compiled
    /// once, then copied.
    pub async fn with(name: &str, component: &[u8]) -> (Self, Digest) {
        type Installed = Arc<OnceCell<(Paths, Digest)>>;
        static FIRST: Mutex<BTreeMap<String, Installed>> = Mutex::new(BTreeMap::new());
        let first = Arc::clone(FIRST.lock().unwrap().entry(name.to_owned()).or_default());
        // A static is never dropped, so not in a temporary directory; one for each test binary.
        let install = || async {
            let crate_name = format!("{}-{name}", env!("CARGO_CRATE_NAME"));
            let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(crate_name);
            let _ = std::fs::remove_dir_all(&root);
            let paths = Paths::under(&root);
            std::fs::create_dir_all(&root).unwrap();
            let file = root.join(format!("{name}.wasm"));
            std::fs::write(&file, component).unwrap();
            let installed = store(&paths).install(request(&file)).await.unwrap();
            (paths, installed.digest)
        };
        let (first, digest) = first.get_or_init(install).await;
        let installation = Self::new();
        for (from, to) in [
            (first.hooks(), installation.paths.hooks()),
            (first.images(), installation.paths.images()),
        ] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&to).unwrap();
            for entry in std::fs::read_dir(from).unwrap() {
                let file = entry.unwrap();
                std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
        (installation, *digest)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub async fn install(&self, bytes: &[u8]) -> Digest {
        let file = self.file("hook.wasm", bytes);
        self.store.install(request(&file)).await.unwrap().digest
    }

    /// Writes `hooks.d/<name>.toml` for a module: settings as JSON text, then more of TOML.
    pub fn grant(&self, name: &str, digest: &Digest, script: &[(&str, &[&str])], more: &str) {
        let mut text = format!("module = \"{digest}\"\n[settings]\n");
        for (phase, commands) in script {
            // JSON's strings are TOML's.
            text.push_str(&format!("{phase} = {}\n", serde_json::to_string(commands).unwrap()));
        }
        text.push_str(more);
        std::fs::write(self.paths.grants().join(format!("{name}.toml")), text).unwrap();
    }

    pub async fn load(&self, name: &str, run: &RunContext) -> Result<Box<dyn Hook>, HookLoadError> {
        let connections = Connections::load(&self.paths).unwrap();
        let file = self.paths.grants().join(format!("{name}.toml"));
        let grant = HookGrant::load(&file, &connections).unwrap();
        self.store.load(&grant, &connections, run).await
    }

    /// A hook called `name` that plays a script, without powers.
    pub async fn hook(
        &self,
        digest: &Digest,
        script: &[(&str, &[&str])],
        run: &RunContext,
    ) -> Box<dyn Hook> {
        self.grant("puppet", digest, script, "");
        self.load("puppet", run).await.unwrap()
    }
}

pub fn run() -> RunContext {
    RunContext::new("run-1", false, CancelToken::never())
}

pub fn within(milliseconds: u64) -> Deadline {
    Deadline::after(Duration::from_millis(milliseconds))
}

/// A time that only a hang would need.
pub fn plenty() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// What the puppet's commands gave.
pub fn results(metadata: &[MetadataEntry]) -> Vec<String> {
    let text = |entry: &MetadataEntry| match &entry.value {
        MetadataValue::Text(text) => text.clone(),
        other => format!("{other:?}"),
    };
    metadata.iter().map(text).collect()
}

pub fn quiesced(result: Result<Quiesced, stillpoint::hook::HookFailure>) -> Vec<String> {
    results(&result.unwrap().metadata)
}

/// A store whose compiler is the binary: this program's main is the test harness's.
pub fn store(paths: &Paths) -> HookStore {
    let compiler = Compiler::at(Path::new(env!("CARGO_BIN_EXE_stillpoint")));
    HookStore::new(paths).unwrap().compiled_by(compiler)
}

/// To install a file that nobody has signed.
pub fn request(file: &Path) -> InstallRequest {
    let policy = InstallPolicy { allow_unsigned: true, downgrade: false };
    InstallRequest::from_file(file).unwrap().with_policy(policy)
}

/// An authority and a certificate of it for `db.test`.
pub fn make_certificates(directory: &Path) {
    let openssl = |arguments: &str| {
        let mut openssl = Command::new("openssl");
        let output = openssl.current_dir(directory).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
    );
    openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=db.test");
    std::fs::write(
        directory.join("names"),
        "subjectAltName=DNS:db.test\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    );
}
