//! `wasi = "minimal"`: the interfaces that [`crate::capability::wasi`] names, and no other, from
//! wasmtime-wasi. Environment and arguments are empty, standard input is closed, output goes to the
//! hook's log, and waiting for a clock ends with the phase.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::p2::bindings::{cli, clocks, random};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_io::bindings::wasi::io;
use wasmtime_wasi_io::bytes::Bytes;

use super::Phase;
use super::host::HostState;
use super::logs::{HookLogs, LogLevel, LogLine};

/// Random bytes that one call may ask for.
const MOST_RANDOM_BYTES: u64 = 64 << 10;

/// Bytes that one write may have, and that a line has at most.
const LONGEST_WRITE: usize = 4 << 10;

/// Links the minimal part, each interface by itself.
pub(super) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    io::error::add_to_linker::<HostState, Table>(linker, |state| &mut state.resources)?;
    io::poll::add_to_linker::<HostState, Table>(linker, |state| &mut state.resources)?;
    io::streams::add_to_linker::<HostState, Table>(linker, |state| &mut state.resources)?;

    clocks::wall_clock::add_to_linker::<HostState, WasiClocks>(linker, HostState::clocks)?;
    clocks::monotonic_clock::add_to_linker::<HostState, HasSelf<HostState>>(linker, |s| s)?;

    random::random::add_to_linker::<HostState, WasiRandom>(linker, HostState::random)?;
    random::insecure::add_to_linker::<HostState, WasiRandom>(linker, HostState::random)?;
    random::insecure_seed::add_to_linker::<HostState, WasiRandom>(linker, HostState::random)?;

    cli::environment::add_to_linker::<HostState, WasiCli>(linker, HostState::cli)?;
    cli::exit::add_to_linker::<HostState, WasiCli>(linker, HostState::cli)?;
    cli::stdin::add_to_linker::<HostState, WasiCli>(linker, HostState::cli)?;
    cli::stdout::add_to_linker::<HostState, WasiCli>(linker, HostState::cli)?;
    cli::stderr::add_to_linker::<HostState, WasiCli>(linker, HostState::cli)?;
    cli::terminal_input::add_to_linker::<HostState, WasiCli>(linker, HostState::cli)?;
    cli::terminal_output::add_to_linker::<HostState, WasiCli>(linker, HostState::cli)?;
    cli::terminal_stdin::add_to_linker::<HostState, WasiCli>(linker, HostState::cli)?;
    cli::terminal_stdout::add_to_linker::<HostState, WasiCli>(linker, HostState::cli)?;
    cli::terminal_stderr::add_to_linker::<HostState, WasiCli>(linker, HostState::cli)
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// One instance's WASI. Made when it is first asked for: most hooks never do.
#[derive(Default)]
pub(super) struct WasiState {
    context: Option<WasiCtx>,
    outputs: Vec<Output>,
}

impl WasiState {
    /// A phase begins: what was written to its end without a line's end belongs to the one before.
    pub(super) fn enter(&self, phase: Phase) {
        for output in &self.outputs {
            output.enter(phase);
        }
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.context.is_none() {
            let outputs = [LogLevel::Info, LogLevel::Warn].map(|level| Output::of(self, level));
            let [stdout, stderr] = outputs.clone();
            let context = WasiCtx::builder()
                .max_random_size(MOST_RANDOM_BYTES)
                .stdout(stdout)
                .stderr(stderr)
                .build();
            self.wasi = WasiState { context: Some(context), outputs: outputs.into() };
        }
        let WasiState { context, .. } = &mut self.wasi;
        // Made just now, if it was not there.
        let ctx = context.get_or_insert_with(|| WasiCtx::builder().build());
        WasiCtxView { ctx, table: &mut self.resources }
    }
}

/// What a guest waits for by WASI ends with the phase at the latest: then it unwinds by itself, as
/// after a call of the contract that timed out.
impl clocks::monotonic_clock::Host for HostState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.clocks().now()
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.clocks().resolution()
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let duration = when.saturating_sub(clocks::monotonic_clock::Host::now(self)?);
        self.subscribe_duration(duration)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let duration = Duration::from_nanos(duration).min(self.clock.deadline.remaining());
        let duration = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.clocks().subscribe_duration(duration)
    }
}

/// Standard output or error: lines for the hook's log. Clones are the same output.
#[derive(Clone, Debug)]
struct Output(Arc<Mutex<Lines>>);

#[derive(Debug)]
struct Lines {
    hook: String,
    version: String,
    phase: Phase,
    level: LogLevel,
    logs: HookLogs,
    most: usize,
    /// What has no line's end yet.
    pending: Vec<u8>,
}

impl Output {
    fn of(state: &HostState, level: LogLevel) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            hook: state.identity.name.clone(),
            version: state.identity.version.clone(),
            phase: state.clock.phase,
            level,
            logs: state.run.logs.clone(),
            most: state.log_bytes(),
            pending: Vec::new(),
        })))
    }

    fn enter(&self, phase: Phase) {
        let mut lines = self.lines();
        lines.end_line();
        lines.phase = phase;
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' || self.pending.len() >= LONGEST_WRITE {
                self.end_line();
            }
            if *byte != b'\n' {
                self.pending.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let line = LogLine {
            hook: self.hook.clone(),
            version: self.version.clone(),
            phase: self.phase,
            level: self.level,
            message: String::from_utf8_lossy(&self.pending).into_owned(),
        };
        self.logs.push(line, &[], self.most);
        self.pending.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end_line();
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    /// For later versions of WASI, which are not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.lines().write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LONGEST_WRITE)
    }
}

impl fmt::Debug for WasiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasiState").field("used", &self.context.is_some()).finish_non_exhaustive()
    }
}
