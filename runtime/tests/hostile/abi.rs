//! Lies about the binary interface: pointers, lengths, encodings, handles, re-entrance.

use wit_component::StringEncoding;

use super::common::{Installation, request, run};
use super::mariadb::Server;
use super::module::{CONNECTION_AT, Module};
use super::{Played, Refused, Table, play, whole_life};

const RETURNS: &str = "lies in what exports return";
const CALLS: &str = "lies in what imports are given";
const HANDLES: &str = "forged and used-up handles";
const ENTERING: &str = "re-entrance and realloc";

/// Three words at 2048: a result's case, and the pointer and length that follow it.
fn returning(words: &[u32]) -> String {
    let stores: String = words
        .iter()
        .enumerate()
        .map(|(at, word)| format!("i32.const {} i32.const {word} i32.store\n", 2048 + 4 * at))
        .collect();
    format!("{stores} i32.const 2048")
}

/// `describe` with another name's pointer and length.
fn describing(pointer: u32, length: u32) -> String {
    format!(
        "i32.const 16 i32.const {pointer} i32.store i32.const 20 i32.const {length} i32.store i32.const 16"
    )
}

pub async fn attack(table: &mut Table) {
    returns(table).await;
    calls(table).await;
    handles(table).await;
    used_up(table).await;
    entering(table).await;
}

async fn returns(table: &mut Table) {
    let lies: Vec<(&str, Module)> = vec![
        ("a record beyond memory", Module::new().body("describe", "i32.const 0xfffffff0")),
        ("a record across the end of memory", Module::new().body("describe", "i32.const 65520")),
        ("a misaligned record", Module::new().body("describe", "i32.const 17")),
        ("a string beyond memory", Module::new().body("describe", describing(0xffff_0000, 8))),
        ("a string of 4 GiB", Module::new().body("describe", describing(0, u32::MAX))),
        ("a string that wraps around", Module::new().body("describe", describing(0xffff_fff0, 0x20))),
        (
            "a string that is not UTF-8",
            Module::new()
                .items("(data (i32.const 3000) \"\\ff\\fe\\c0\\80\")")
                .body("describe", describing(3000, 4)),
        ),
        (
            "a surrogate in UTF-8",
            Module::new()
                .items("(data (i32.const 3000) \"\\ed\\a0\\80\")")
                .body("describe", describing(3000, 3)),
        ),
        (
            "an odd pointer to UTF-16",
            Module::new().encoding(StringEncoding::UTF16).body("describe", describing(3001, 4)),
        ),
        (
            "a list of needs of 4 Gi",
            Module::new().body(
                "describe",
                "i32.const 52 i32.const -1 i32.store i32.const 16",
            ),
        ),
        (
            "a misaligned list",
            Module::new().body(
                "describe",
                "i32.const 48 i32.const 3001 i32.store i32.const 52 i32.const 1 i32.store i32.const 16",
            ),
        ),
        (
            "a need of an unknown case",
            Module::new().items("(data (i32.const 3000) \"\\09\")").body(
                "describe",
                "i32.const 48 i32.const 3000 i32.store i32.const 52 i32.const 1 i32.store i32.const 16",
            ),
        ),
        ("a result of an unknown case", Module::new().body("validate", returning(&[7]))),
        ("an error of an unknown case", Module::new().body("prepare", returning(&[1, 99]))),
        ("an error text beyond memory", Module::new().body("confirm", returning(&[1, 6, 0xffff_fff0, 9]))),
        ("a level of an unknown case", Module::new().body("pre-freeze", returning(&[0, 250, 0, 0]))),
        ("paths beyond memory", Module::new().body("prepare", returning(&[0, 0x7fff_fff0, 4, 0, 0]))),
        ("a list of paths of 2 Gi", Module::new().body("prepare", returning(&[0, 0, 0x7fff_ffff, 0, 0]))),
        ("metadata beyond memory", Module::new().body("pre-freeze", returning(&[0, 1, 0xffff_fff8, 1]))),
        ("misaligned metadata", Module::new().body("post-thaw", returning(&[0, 2049, 1]))),
        ("a misaligned result", Module::new().body("finish", "i32.const 1025")),
        ("a result beyond memory", Module::new().body("finish", "i32.const -4")),
        (
            "one page of text, told a thousand times",
            // Ten thousand paths, each the same 60 KiB: 600 MB on the host, if it believed it.
            Module::new().body(
                "prepare",
                "(local $n i32)
                 i32.const 20 memory.grow drop
                 i32.const 2048 i32.const 0 i32.store
                 i32.const 2052 i32.const 131072 i32.store
                 i32.const 2056 i32.const 10000 i32.store
                 loop $more
                   local.get $n i32.const 8 i32.mul i32.const 131072 i32.add i32.const 1 i32.store
                   local.get $n i32.const 8 i32.mul i32.const 131076 i32.add i32.const 60000 i32.store
                   local.get $n i32.const 1 i32.add local.tee $n i32.const 10000 i32.lt_u br_if $more
                 end
                 i32.const 2048",
            ),
        ),
    ];
    for (name, module) in lies {
        table.attack(RETURNS, name, "", whole_life(&module.component())).await;
    }
}

const LOG: &str =
    "(import \"stillpoint:hook/log@0.1.0\" \"write\" (func $log (param i32 i32 i32 i32 i32)))";
const OPEN: &str =
    "(import \"stillpoint:hook/sql@0.1.0\" \"open\" (func $open (param i32 i32 i32)))";
const KV: &str =
    "(import \"stillpoint:hook/kv@0.1.0\" \"set\" (func $set (param i32 i32 i32 i32 i32)))";
const RUN: &str = "(import \"stillpoint:hook/process@0.1.0\" \"run\"
    (func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32)))";

async fn calls(table: &mut Table) {
    let call = |import: &str, call: &str| {
        Module::new().imports(import).body("pre-freeze", format!("{call} i32.const 1024"))
    };
    let lies: Vec<(&str, Module)> = vec![
        (
            "a message beyond memory",
            call(LOG, "i32.const 0 i32.const -16 i32.const 99 i32.const 0 i32.const 0 call $log"),
        ),
        (
            "a message of 4 GiB",
            call(LOG, "i32.const 0 i32.const 0 i32.const -1 i32.const 0 i32.const 0 call $log"),
        ),
        (
            "a level of an unknown case",
            call(LOG, "i32.const 77 i32.const 0 i32.const 1 i32.const 0 i32.const 0 call $log"),
        ),
        (
            "fields without end",
            call(LOG, "i32.const 0 i32.const 0 i32.const 0 i32.const 0 i32.const 0x0fffffff call $log"),
        ),
        (
            "misaligned fields",
            call(LOG, "i32.const 0 i32.const 0 i32.const 0 i32.const 1 i32.const 1 call $log"),
        ),
        (
            "empty fields by the million",
            // Zeros are empty fields: 16 bytes each in the guest, 48 on the host.
            call(
                LOG,
                "i32.const 500 memory.grow drop
                 i32.const 0 i32.const 0 i32.const 0 i32.const 65536 i32.const 2000000 call $log",
            ),
        ),
        (
            "a connection's name of 30 MiB",
            call(OPEN, "i32.const 600 memory.grow drop
                        i32.const 65536 i32.const 31457280 i32.const 2048 call $open"),
        ),
        (
            "an answer to be written beyond memory",
            call(OPEN, "i32.const 16 i32.const 4 i32.const -8 call $open"),
        ),
        (
            "an answer to be written at an odd place",
            call(OPEN, "i32.const 16 i32.const 4 i32.const 2049 call $open"),
        ),
        (
            "a value of 40 MiB",
            call(KV, "i32.const 700 memory.grow drop
                      i32.const 16 i32.const 4 i32.const 65536 i32.const 41943040 i32.const 2048 call $set"),
        ),
        (
            "a key that is not UTF-8",
            call(KV, "i32.const 3000 i32.const 0xff i32.store8
                      i32.const 3000 i32.const 1 i32.const 0 i32.const 0 i32.const 2048 call $set"),
        ),
        (
            "arguments by the million",
            call(RUN, "i32.const 500 memory.grow drop
                       i32.const 16 i32.const 4 i32.const 65536 i32.const 3000000
                       i32.const 0 i32.const 0 i32.const 0 i32.const 0 i64.const 0 i32.const 2048 call $run"),
        ),
    ];
    for (name, module) in lies {
        table.attack(CALLS, name, "", whole_life(&module.component())).await;
    }
}

const ALIVE: &str = "(import \"stillpoint:hook/sql@0.1.0\" \"[method]connection.is-alive\"
    (func $alive (param i32) (result i32)))";
const DROP: &str =
    "(import \"stillpoint:hook/sql@0.1.0\" \"[resource-drop]connection\" (func $drop (param i32)))";
const QUERY: &str = "(import \"stillpoint:hook/sql@0.1.0\" \"[method]connection.query\"
    (func $query (param i32 i32 i32 i32 i32 i32 i64 i32)))";

async fn handles(table: &mut Table) {
    for handle in [0_i64, 1, 2, 77, 0x7fff_ffff, 0xffff_ffff] {
        for (call, import, text) in [
            ("asked whether it is alive", ALIVE, format!("i32.const {handle} call $alive drop")),
            ("dropped", DROP, format!("i32.const {handle} call $drop")),
            (
                "queried",
                QUERY,
                format!(
                    "i32.const {handle} i32.const 16 i32.const 4 i32.const 0 i32.const 0
                     i32.const 0 i64.const 0 i32.const 2048 call $query"
                ),
            ),
        ] {
            let module =
                Module::new().imports(import).body("pre-freeze", format!("{text} i32.const 1024"));
            let name = format!("handle {handle} that nobody gave, {call}");
            table.attack(HANDLES, name, "handle", whole_life(&module.component())).await;
        }
    }
}

/// Opens `main`; its handle is then at 2052.
fn opening() -> String {
    format!(
        "i32.const {CONNECTION_AT} i32.const 4 i32.const 2048 call $open
         i32.const 2048 i32.load8_u if unreachable end"
    )
}

/// What a guest can do with a handle that it once had. The server has no session afterwards.
async fn used_up(table: &mut Table) {
    let server = Server::start().await;
    let handle = "i32.const 2052 i32.load";
    let query = |handle: &str| {
        format!(
            "{handle} i32.const 16 i32.const 4 i32.const 0 i32.const 0
             i32.const 0 i64.const 0 i32.const 2048 call $query"
        )
    };
    let attacks = [
        ("a dropped handle, asked", format!("{handle} call $drop {handle} call $alive drop")),
        ("a dropped handle, queried", format!("{handle} call $drop {}", query(handle))),
        ("a handle dropped twice", format!("{handle} call $drop {handle} call $drop")),
        ("the handle after mine", format!("{handle} i32.const 1 i32.add call $alive drop")),
        ("the handle before mine", format!("{handle} i32.const 1 i32.sub call $drop")),
        (
            "a handle that was opened again, dropped twice",
            format!("{handle} call $drop {} {handle} call $drop {handle} call $drop", opening()),
        ),
    ];
    for (name, attack) in attacks {
        let module = Module::new()
            .asking()
            .imports(format!("{OPEN} {ALIVE} {DROP} {QUERY}"))
            .body("pre-freeze", format!("{} {attack} i32.const 1024", opening()));
        table.attack(HANDLES, name, "handle", on_server(&server, &module.component())).await;
        server.time_to_no_sessions().await;
    }
}

/// As [`whole_life`], with the connection `main` to a server.
async fn on_server(server: &Server, bytes: &[u8]) -> Result<Played, Refused> {
    let installation = Installation::new();
    let file = installation.file("hook.wasm", bytes);
    let digest = installation.store.install(request(&file)).await?.digest;
    let text = format!(
        "[connections.main]\nengine = \"mysql\"\nsocket = {:?}\nuser = \"root\"\n",
        server.socket()
    );
    std::fs::write(installation.paths.config().join("connections.toml"), text).unwrap();
    installation.grant(
        "attacker",
        &digest,
        &[],
        "[[sql]]\nconnection = \"main\"\nstatements = []\n",
    );
    let run = run();
    let mut hook = installation.load("attacker", &run).await?;
    play(&mut *hook, &run).await
}

async fn entering(table: &mut Table) {
    let log = "i32.const 0 i32.const 0 i32.const 0 i32.const 0 i32.const 0 call $log";
    let realloc = |body: &str| Module::new().realloc(body);
    let lies: Vec<(&str, &str, Module)> = vec![
        (
            "an import called from realloc",
            "cannot leave",
            realloc(&format!("{log} i32.const 4096")).imports(LOG),
        ),
        (
            "an import called after a result was read",
            "cannot leave",
            Module::new().imports(LOG).after("confirm", log),
        ),
        ("a realloc beyond memory", "", realloc("i32.const -16")),
        ("a realloc across the end of memory", "", realloc("i32.const 65535")),
        ("a realloc that loops", "", realloc("loop $l br $l end unreachable")),
        ("a realloc that traps", "", realloc("unreachable")),
        (
            "a realloc that recurses",
            "stack",
            realloc("local.get 0 local.get 1 local.get 2 local.get 3 call $realloc"),
        ),
        (
            "an end without end",
            "still computing",
            Module::new().after("prepare", "loop $l br $l end"),
        ),
        ("an end that traps", "", Module::new().after("post-thaw", "unreachable")),
        (
            "a start that calls out",
            "",
            Module::new().imports(LOG).items(format!("(func $s {log} unreachable) (start $s)")),
        ),
    ];
    for (name, expected, module) in lies {
        table.attack(ENTERING, name, expected, whole_life(&module.component())).await;
    }
}
