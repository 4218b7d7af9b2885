//! The languages that there are templates for: one entry each, and a directory `templates/<name>`.

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Language {
    /// As `--lang` takes it; also the directory of its template.
    pub name: &'static str,
    /// What a project gets of `hooks-sdk/`: files or directories there, and where they go.
    pub sdk: &'static [(&'static str, &'static str)],
    /// What runs its unit tests, to be typed in the project.
    pub test: &'static str,
    /// What is to be known before it is used, if there is something.
    pub note: Option<&'static str>,
}

/// The contract, for tool chains that make bindings of their own.
const WIT: (&str, &str) = ("wit/since_v0_1_1", "wit");

/// The JavaScript SDK, and the contract where its tool looks for it.
const JAVASCRIPT: [(&str, &str); 2] = [("javascript", "sdk"), ("wit/since_v0_1_1", "sdk/wit")];

/// All of them, in the order in which they are shown.
pub const LANGUAGES: &[Language] = &[
    Language {
        name: "rust",
        sdk: &[
            ("Cargo.toml", "sdk/Cargo.toml"),
            ("LICENSE", "sdk/LICENSE"),
            ("README.md", "sdk/README.md"),
            ("src", "sdk/src"),
            ("wit", "sdk/wit"),
        ],
        test: "cargo test",
        note: None,
    },
    Language { name: "c", sdk: &[("c", "sdk"), WIT], test: "make test", note: None },
    Language {
        name: "zig",
        sdk: &[("zig", "sdk"), ("c", "sdk/c"), WIT],
        test: "make test",
        note: None,
    },
    Language {
        name: "go",
        sdk: &[WIT],
        test: "go test ./...",
        note: Some("programs, durable state and the log are not in its bindings: see its README"),
    },
    Language { name: "javascript", sdk: &JAVASCRIPT, test: "npm ci && npm test", note: None },
    Language { name: "typescript", sdk: &JAVASCRIPT, test: "npm ci && npm test", note: None },
    Language {
        name: "python",
        sdk: &[("python/stillpoint_hook", "stillpoint_hook"), WIT],
        test: "python3 -m unittest",
        note: None,
    },
];
