//! Bombs: memory, tables, recursion, instances, code that is large or never ends, and threads.

use super::module::{Module, with_more_modules};
use super::{Table, whole_life};

const MEMORY: &str = "memory and table bombs";
const CODE: &str = "code bombs";
const TIME: &str = "endless loops and deep recursion, in text";

pub async fn attack(table: &mut Table) {
    memory(table).await;
    code(table).await;
    time(table).await;
}

/// A hook with one more module in it.
fn beside(text: &str) -> Vec<u8> {
    with_more_modules(&Module::new().component(), text, 1)
}

async fn memory(table: &mut Table) {
    let grow = "loop $l i32.const 1 memory.grow drop br $l end unreachable";
    let table_of = |text: &str| Module::new().items(text);
    let bombs: Vec<(&str, Vec<u8>)> = vec![
        (
            "a memory of 4 GiB",
            Module::new().memory("(memory (export \"memory\") 65535)").component(),
        ),
        ("a memory that grows for ever", Module::new().body("prepare", grow).component()),
        (
            "a memory that grows at its start",
            Module::new().items(format!("(func $s {grow}) (start $s)")).component(),
        ),
        (
            "a memory that grows while text is put into it",
            Module::new().realloc("i32.const 65535 memory.grow drop i32.const 4096").component(),
        ),
        ("a table of ten million", table_of("(table 10000000 funcref)").component()),
        (
            "a table that grows for ever",
            table_of("(table $t 1 funcref)")
                .body(
                    "prepare",
                    "loop $l ref.null func i32.const 1000 table.grow $t drop br $l end unreachable",
                )
                .component(),
        ),
        ("two hundred tables", beside(&format!("(module {})", "(table 1000 funcref)".repeat(200)))),
        (
            "ninety tables, each as large as one may be",
            table_of(&"(table 99000 funcref)".repeat(90)).component(),
        ),
        (
            "a hundred instances with 60 MiB each",
            with_more_modules(
                &Module::new().component(),
                "(module (memory 960) (func $s
                   (memory.fill (i32.const 0) (i32.const 1) (i32.const 62914560))) (start $s))",
                100,
            ),
        ),
        (
            "a thousand instances",
            with_more_modules(&Module::new().component(), "(module (memory 0))", 1000),
        ),
        (
            "a hundred memories in one module",
            beside(&format!("(module {})", "(memory 900)".repeat(100))),
        ),
        (
            "a memory of 64 bits",
            with_more_modules(
                &Module::new().component(),
                "(module (memory i64 1) (func $s (drop (memory.grow (i64.const 0x100000)))) (start $s))",
                1,
            ),
        ),
        (
            "shared memory",
            with_more_modules(&Module::new().component(), "(module (memory 1 65536 shared))", 1),
        ),
        (
            "a wait that nobody ends",
            with_more_modules(
                &Module::new().component(),
                "(module (memory 1 1 shared) (func $s (drop (memory.atomic.wait32
                   (i32.const 0) (i32.const 0) (i64.const -1)))) (start $s))",
                1,
            ),
        ),
        (
            "data beyond memory",
            Module::new().items("(data (i32.const 65530) \"0123456789\")").component(),
        ),
        (
            "elements beyond the table",
            table_of("(table 1 funcref) (elem (i32.const 1) $realloc)").component(),
        ),
        (
            "elements by the ten thousand",
            table_of(&format!(
                "(table 1 funcref) (elem (i32.const 0) func {})",
                "$realloc ".repeat(20_000)
            ))
            .component(),
        ),
    ];
    for (name, bytes) in bombs {
        table.attack(MEMORY, name, "", whole_life(&bytes)).await;
    }
}

async fn code(table: &mut Table) {
    let nested = format!("{}{}", "block ".repeat(10_000), "end ".repeat(10_000));
    let body = |text: &str| beside(&format!("(module (func $s {text}) (start $s))"));
    let bombs: Vec<(&str, Vec<u8>)> = vec![
        ("fifty thousand locals", body(&format!("(local {}) unreachable", "i64 ".repeat(50_001)))),
        ("blocks ten thousand deep", body(&format!("{nested} unreachable"))),
        (
            "thirty thousand functions",
            beside(&format!(
                "(module (func $s unreachable) (start $s) {})",
                "(func)".repeat(30_000)
            )),
        ),
        (
            "a jump table of a million",
            body(&format!(
                "block $b i32.const 0 br_table {} end unreachable",
                "$b ".repeat(1_000_000)
            )),
        ),
        (
            "twenty thousand exports",
            Module::new()
                .items(
                    (0..20_000)
                        .map(|n| format!("(export \"e{n}\" (func $realloc))"))
                        .collect::<String>(),
                )
                .body("finish", "unreachable")
                .component(),
        ),
        (
            "a call with a type that is not the function's",
            Module::new()
                .items("(table 1 funcref) (elem (i32.const 0) $realloc)")
                .body("prepare", "i32.const 0 call_indirect (result i32)")
                .component(),
        ),
        (
            "a call into nothing",
            Module::new()
                .items("(table 10 funcref)")
                .body("prepare", "i32.const 5 call_indirect (result i32)")
                .component(),
        ),
        (
            "a division by zero",
            Module::new().body("prepare", "i32.const 1 i32.const 0 i32.div_u").component(),
        ),
        (
            "a load beyond memory",
            Module::new().body("prepare", "i32.const -4 i32.load").component(),
        ),
        (
            "a fill beyond memory",
            Module::new()
                .body(
                    "prepare",
                    "i32.const 0 i32.const 1 i32.const 65537 memory.fill i32.const 1024",
                )
                .component(),
        ),
    ];
    for (name, bytes) in bombs {
        table.attack(CODE, name, "", whole_life(&bytes)).await;
    }
    // Each type is a list of the one before it.
    let lists: String = (1..2000).map(|n| format!("(type $t{n} (list $t{}))", n - 1)).collect();
    let text =
        format!("(component (type $t0 (list u8)) {lists} (type (func (param \"x\" $t1999))))");
    let bytes = wat::parse_str(&text).unwrap();
    table.attack(CODE, "types two thousand deep", "", whole_life(&bytes)).await;
}

async fn time(table: &mut Table) {
    let forever = "loop $l br $l end unreachable";
    for export in
        ["describe", "validate", "prepare", "pre-freeze", "confirm", "post-thaw", "finish"]
    {
        let bytes = Module::new().body(export, forever).component();
        table
            .attack(TIME, format!("a loop in {export}"), "instance was stopped", whole_life(&bytes))
            .await;
        let recursion = Module::new()
            .items("(func $deeper (result i32) call $deeper i32.const 1 i32.add)")
            .body(export, "call $deeper");
        let bytes = recursion.component();
        table.attack(TIME, format!("recursion in {export}"), "stack", whole_life(&bytes)).await;
        let bytes = Module::new().body(export, "unreachable").component();
        table.attack(TIME, format!("a trap in {export}"), "unreachable", whole_life(&bytes)).await;
    }
    let start = Module::new().items(format!("(func $s {forever}) (start $s)")).component();
    table.attack(TIME, "a start that loops", "instance was stopped", whole_life(&start)).await;
    let start = Module::new().items("(func $s call $s) (start $s)").component();
    table.attack(TIME, "a start that recurses", "stack", whole_life(&start)).await;
    let start = Module::new().items("(func $s unreachable) (start $s)").component();
    table.attack(TIME, "a start that traps", "unreachable", whole_life(&start)).await;
    // Each fill is one instruction that cannot be interrupted; a loop of them can.
    let fills = Module::new().body(
        "prepare",
        "i32.const 900 memory.grow drop
         loop $l i32.const 0 i32.const 1 i32.const 58000000 memory.fill br $l end unreachable",
    );
    table
        .attack(
            TIME,
            "a loop of large fills",
            "instance was stopped",
            whole_life(&fills.component()),
        )
        .await;
}
