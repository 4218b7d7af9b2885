//! The compiler is a child that can do next to nothing: what it is seen to be, and what happens to a
//! component that would have it work for ever or use all memory.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Installation, puppet, request};
use stillpoint::hook::{CompileLimits, Compiler, HookStore, StoreError};

const BINARY: &str = env!("CARGO_BIN_EXE_stillpoint");

/// A component with one module of `functions` functions, each `groups` times "multiply and add": well
/// formed, useless, and as much work for the compiler as wanted.
fn laborious(functions: usize, groups: usize) -> Vec<u8> {
    let number = |mut value: usize| {
        let mut bytes = Vec::new();
        loop {
            let low = u8::try_from(value & 0x7f).unwrap();
            value >>= 7;
            if value == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    };
    let sized = |bytes: Vec<u8>| [number(bytes.len()), bytes].concat();
    let section = |id: u8, bytes: Vec<u8>| [vec![id], sized(bytes)].concat();
    // local 0 = local 0 * local 1 + 7; local 1 = local 0 rotated by local 1
    let group = [0x20, 0, 0x20, 1, 0x7e, 0x42, 7, 0x7c, 0x22, 0, 0x20, 1, 0x89, 0x21, 1];
    let body = [vec![1, 2, 0x7e], group.repeat(groups), vec![0x0b]].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, vec![1, 0x60, 0, 0]),
        section(3, [number(functions), vec![0; functions]].concat()),
        section(10, [number(functions), sized(body).repeat(functions)].concat()),
    ]
    .concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module)].concat()
}

async fn refusal(component: &[u8], limits: CompileLimits) -> (String, Option<String>) {
    let installation = Installation::new();
    let compiler = Compiler::at(BINARY.as_ref()).limited(limits);
    let store = HookStore::new(&installation.paths).unwrap().compiled_by(compiler);
    let file = installation.file("hook.wasm", component);
    let error = store.install(request(&file)).await.unwrap_err();
    assert!(!installation.paths.hooks().exists(), "a refused file leaves nothing behind");
    let StoreError::NotCompiled { source, .. } = &error else { panic!("{error}") };
    (source.to_string(), error.hint())
}

#[tokio::test]
async fn a_component_that_takes_too_long_to_compile_is_refused_in_time() {
    let time = Duration::from_millis(300);
    let limits = CompileLimits { time, ..CompileLimits::default() };
    let began = Instant::now();
    let (said, hint) = refusal(&laborious(4000, 300), limits).await;
    assert_eq!(said, "compiling it took longer than 0.3 s, and was ended");
    assert!(hint.unwrap().contains("nothing was kept"));
    // It is ended, not waited for.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_component_that_takes_too_much_processor_time_is_refused() {
    let processor_time = Duration::from_secs(1);
    let limits = CompileLimits { processor_time, ..CompileLimits::default() };
    let (said, _) = refusal(&laborious(4000, 300), limits).await;
    assert_eq!(said, "compiling it took longer than 1 s, and was ended");
}

#[tokio::test]
async fn a_component_that_needs_too_much_memory_is_refused_and_the_same_with_enough_is_not() {
    let limits = CompileLimits { memory_bytes: 64 << 20, ..CompileLimits::default() };
    let (said, hint) = refusal(&laborious(2, 60_000), limits).await;
    assert_eq!(said, "compiling it needs more than the 64 MiB of memory that the compiler gets");
    assert!(hint.unwrap().contains("nothing was kept"));

    let (installation, file) = (Installation::new(), laborious(2, 60_000));
    let file = installation.file("hook.wasm", &file);
    let error = installation.store.install(request(&file)).await.unwrap_err();
    assert!(error.to_string().contains("so it is no hook"), "{error}");
}

#[tokio::test]
async fn a_program_that_does_not_enter_compiles_nothing_in_its_own_process() {
    let installation = Installation::new();
    let store = HookStore::new(&installation.paths).unwrap();
    let file = installation.file("hook.wasm", puppet());
    let error = store.install(request(&file)).await.unwrap_err();
    assert!(error.hint().unwrap().contains("guard::enter()"), "{error}");
    assert!(!installation.paths.hooks().exists());
}

#[tokio::test]
async fn a_compiler_that_is_none_is_refused() {
    for (program, words) in [
        ("/bin/false", "ended with exit code 1"),
        ("/bin/true", "not one"),
        ("/nowhere", "cannot be started"),
    ] {
        let installation = Installation::new();
        let compiler = Compiler::at(program.as_ref());
        let store = HookStore::new(&installation.paths).unwrap().compiled_by(compiler);
        let file = installation.file("hook.wasm", puppet());
        let error = store.install(request(&file)).await.unwrap_err();
        let StoreError::NotCompiled { source, .. } = &error else { panic!("{error}") };
        assert!(source.to_string().contains(words), "{program}: {source}");
    }
}

/// An installation of a component that takes seconds, as a process of its own. It is ended with the test.
struct Installing {
    _installation: Installation,
    agent: Child,
}

impl Installing {
    fn start() -> Self {
        let installation = Installation::new();
        let file = installation.file("hook.wasm", &laborious(20_000, 300));
        let agent = Command::new(BINARY)
            .arg("--root")
            .arg(installation.root.path())
            .args(["hook", "install", "--allow-unsigned"])
            .arg(file)
            .env("STILLPOINT_CANARY", "in the environment")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { _installation: installation, agent }
    }

    /// The process that compiles, once it has confined itself.
    fn compiler(&self) -> Process {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            let confined = children_of(self.agent.id()).into_iter().find(Process::is_confined);
            if let Some(compiler) = confined {
                return compiler;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("no child of {} ever was without privileges", self.agent.id());
    }
}

impl Drop for Installing {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// A process as `/proc` shows it.
struct Process {
    id: u32,
    status: BTreeMap<String, String>,
}

impl Process {
    fn read(id: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let lines = status.lines().filter_map(|line| line.split_once(':'));
        let status = lines.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect();
        Some(Self { id, status })
    }

    /// The last that it does before it reads the component is to filter its system calls, twice; this
    /// test may run behind filters itself.
    fn is_confined(&self) -> bool {
        let filters = |process: &Self| process.status["Seccomp_filters"].parse::<u32>().unwrap();
        filters(self) == filters(&Self::read(std::process::id()).unwrap()) + 2
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.id)).unwrap_or_default()
    }

    fn is_there(&self) -> bool {
        Self::read(self.id).is_some_and(|now| !now.status["State"].starts_with('Z'))
    }
}

fn children_of(parent: u32) -> Vec<Process> {
    let ids = fs::read_dir("/proc").unwrap().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(Process::read)
        .filter(|process| process.status.get("PPid") == Some(&parent.to_string()))
        .collect()
}

#[test]
fn what_compiles_is_not_root_and_can_do_nothing_but_compile() {
    let installing = Installing::start();
    let compiler = installing.compiler();
    let status = &compiler.status;
    for ids in [&status["Uid"], &status["Gid"]] {
        let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert!(ids.iter().all(|id| (61_184..65_520).contains(id)), "{ids:?}");
    }
    assert_eq!(status["Groups"], "");
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[capabilities], "0000000000000000", "{capabilities}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(compiler.file("environ"), "");
    let limits = compiler.file("limits");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert_eq!(limit("Max cpu time"), "240");
    assert_eq!(limit("Max data size"), (2_u64 << 30).to_string());
    for bounded in ["Max address space", "Max open files", "Max file size"] {
        assert_ne!(limit(bounded), "unlimited", "{bounded}");
    }
    // Nothing is open but the three streams: pipes to the agent.
    let open: Vec<_> =
        fs::read_dir(format!("/proc/{}/fd", compiler.id)).unwrap().flatten().collect();
    for entry in open {
        let leads_to = fs::read_link(entry.path()).unwrap_or_default();
        let leads_to = leads_to.to_string_lossy().into_owned();
        let of_its_own =
            ["pipe:", "/memfd:", "anon_inode:"].iter().any(|own| leads_to.starts_with(own));
        assert!(of_its_own || leads_to.is_empty(), "{leads_to}");
    }
}

#[test]
fn what_compiles_ends_with_the_agent_that_wanted_it() {
    let mut installing = Installing::start();
    let compiler = installing.compiler();
    installing.agent.kill().unwrap();
    installing.agent.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while compiler.is_there() {
        assert!(Instant::now() < deadline, "process {} is left", compiler.id);
        thread::sleep(Duration::from_millis(5));
    }
}
