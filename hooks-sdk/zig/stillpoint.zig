//! Write stillpoint hooks in Zig: typed errors and values over the C side of the contract.
//!
//! A hook is a struct with `init`, `describe`, `validate`, `prepare`, `preFreeze`, `confirm`, `postThaw` and
//! `finish`, exported once by `comptime { stillpoint.exportHook(MyHook); }`. One value lives through one
//! run; a session in it is what holds the lock. What each function may do, its deadlines and limits:
//! README.md, and the WIT.
//!
//! There is no clock, file, socket or environment; `std.debug.print` would need WASI: use `log`, `remaining`
//! and `sleep`. Times are nanoseconds.

/// Why a hook fails; the operator's policy depends on it. The text that goes with it is kept by the
/// function that failed, or by `fail`.
pub const Error = error{
    InvalidSettings,
    NotApplicable,
    Denied,
    Busy,
    Timeout,
    Application,
    Internal,
};

pub const millisecond: u64 = 1_000_000;
pub const second: u64 = 1_000_000_000;
/// Only the phase's own deadline bounds the call, or the operator's limit for the connection, if less.
pub const no_timeout: u64 = ~@as(u64, 0);

pub const Engine = enum(u8) { mysql, mariadb, postgresql, sqlite, mssql, oracle, other };
pub const Outcome = enum(u8) { captured, failed, aborted };
pub const Consistency = enum(u8) { crash, application, none };
pub const Level = enum(u8) { trace, debug, info, warn, @"error" };

/// A text of the contract. It is freed by who made it.
pub const String = extern struct {
    ptr: [*]const u8,
    len: usize,

    pub fn slice(self: String) []const u8 {
        return self.ptr[0..self.len];
    }
};

const Failure = extern struct {
    tag: u8 = 6,
    val: extern union {
        text: String,
        settings: extern struct { pointer: String, message: String },
        application: extern struct { code: String, message: String, retryable: bool },
    } = .{ .text = .{ .ptr = "", .len = 0 } },
};

/// What the last function that failed said.
var failure: Failure = .{};
/// Whether there is something in it.
var failed = false;

/// The tags of `hook-error`, in their order.
fn errorOf(tag: u8) Error {
    return switch (tag) {
        0 => error.InvalidSettings,
        1 => error.NotApplicable,
        2 => error.Denied,
        3 => error.Busy,
        4 => error.Timeout,
        5 => error.Application,
        else => error.Internal,
    };
}

fn check(ok: bool) Error!void {
    failed = !ok;
    if (!ok) return errorOf(failure.tag);
}

/// Fails with this text: `return stillpoint.fail(error.Busy, "…")`.
pub fn fail(kind: Error, text: [:0]const u8) Error {
    keep(kind, text);
    return kind;
}

fn keep(kind: Error, text: [:0]const u8) void {
    failed = true;
    switch (kind) {
        error.InvalidSettings => _ = c.sp_fail_setting(&failure, "", text),
        error.Application => _ = c.sp_fail_application(&failure, "", text, false),
        error.NotApplicable => _ = c.sp_fail(&failure, 1, text, @as(?[*:0]const u8, null)),
        error.Denied => _ = c.sp_fail(&failure, 2, text, @as(?[*:0]const u8, null)),
        error.Busy => _ = c.sp_fail(&failure, 3, text, @as(?[*:0]const u8, null)),
        error.Timeout => _ = c.sp_fail(&failure, 4, text, @as(?[*:0]const u8, null)),
        error.Internal => _ = c.sp_fail(&failure, 6, text, @as(?[*:0]const u8, null)),
    }
}

/// The setting at `pointer`, a JSON Pointer, is wrong.
pub fn failSetting(pointer: [:0]const u8, message: [:0]const u8) Error {
    failed = !c.sp_fail_setting(&failure, pointer, message);
    return error.InvalidSettings;
}

/// A text that came from the host or the server; `free` it.
pub const Text = struct {
    ptr: [*:0]u8,

    pub fn slice(self: Text) [:0]const u8 {
        return @import("std").mem.span(self.ptr);
    }

    pub fn free(self: Text) void {
        c.free(self.ptr);
    }
};

/// A session at a database server. Its locks live as long as it does.
pub const Session = struct {
    raw: c.Session,

    /// Opens a session to what the operator calls `name`. Denied: not granted, or not in this phase.
    /// Application ("unavailable"): server down, refused, wrong credentials. Bounded by the operator's
    /// connect time-out and by the phase.
    pub fn open(name: [:0]const u8) Error!Session {
        var session: Session = .{ .raw = .{ .handle = 0, .open = false } };
        try check(c.sp_open(&session.raw, name, &failure));
        return session;
    }

    /// Closes it: the server then releases what it held, once it has noticed.
    pub fn close(self: *Session) void {
        c.sp_close(&self.raw);
    }

    /// Whether it is still the one that took the locks: the host asks the server.
    pub fn isAlive(self: *const Session) bool {
        return c.sp_is_alive(&self.raw);
    }

    /// What kind of server it is.
    pub fn engine(self: *const Session) Engine {
        var info: c.ServerInfo = undefined;
        c.sp_info(&self.raw, &info);
        c.hook_string_free(&info.version);
        return @enumFromInt(info.engine);
    }

    /// Runs a statement, granted as a whole text, and throws its rows away. Timeout: the host has
    /// cancelled it and closed the session, with its locks.
    pub fn execute(self: *const Session, statement: [:0]const u8, timeout: u64) Error!void {
        try check(c.sp_execute(&self.raw, statement, timeout, &failure));
    }

    /// Runs a statement and gives its rows: `free` them. An answer that the host had to cut short is an
    /// error.
    pub fn query(self: *const Session, statement: [:0]const u8, timeout: u64) Error!Rows {
        var rows: Rows = undefined;
        try check(c.sp_query(&self.raw, statement, timeout, &rows.raw, &failure));
        return rows;
    }
};

/// A server's answer.
pub const Rows = struct {
    raw: c.Rows,

    pub fn free(self: *Rows) void {
        c.sp_rows_free(&self.raw);
    }

    pub fn count(self: *const Rows) usize {
        return self.raw.rows.len;
    }

    /// Where the column of that name is; behind the last if there is none, which no value is at.
    pub fn column(self: *const Rows, name: [:0]const u8) usize {
        return c.sp_column(&self.raw, name);
    }

    pub fn isNull(self: *const Rows, row: usize, at: usize) bool {
        return c.sp_is_null(&self.raw, row, at);
    }

    /// A text; a number is none.
    pub fn text(self: *const Rows, row: usize, at: usize) Error!Text {
        var result: Text = undefined;
        try check(c.sp_text(&self.raw, row, at, &result.ptr, &failure));
        return result;
    }

    /// A number; a text that is one counts (SHOW gives nothing else).
    pub fn integer(self: *const Rows, row: usize, at: usize) Error!i64 {
        var number: i64 = 0;
        try check(c.sp_integer(&self.raw, row, at, &number, &failure));
        return number;
    }
};

/// The operator's settings, JSON. The host has checked them against the hook's schema.
pub const Settings = struct {
    raw: String,

    /// The text `key`; `fallback` if there is none. `free` it.
    pub fn text(self: *const Settings, key: [:0]const u8, fallback: [:0]const u8) Error!Text {
        var result: Text = undefined;
        try check(c.sp_setting_text(&self.raw, key, fallback, &result.ptr, &failure));
        return result;
    }
};

/// What a hook is, and asks for.
pub const Description = extern struct {
    name: String,
    version: String,
    summary: String,
    settings_schema: String,
    needs: List,
    freeze_budget_ms: u32,

    /// A hook that asks for nothing, and for 10 s a phase.
    pub fn fill(
        self: *Description,
        name: [:0]const u8,
        version: [:0]const u8,
        summary: [:0]const u8,
        schema: [:0]const u8,
    ) void {
        c.sp_describe(self, name, version, summary, schema);
    }

    /// It needs these statements, whole texts, on a connection to such a server.
    pub fn needsSql(
        self: *Description,
        connection: [:0]const u8,
        engine: Engine,
        statements: []const [*:0]const u8,
        reason: [:0]const u8,
    ) void {
        c.sp_needs_sql(self, connection, @intFromEnum(engine), statements.ptr, statements.len, reason);
    }

    /// It needs so many bytes of durable state.
    pub fn needsKv(self: *Description, bytes: u32, reason: [:0]const u8) void {
        c.sp_needs_kv(self, bytes, reason);
    }
};

/// What `prepare` found out.
pub const Plan = extern struct {
    paths: List,
    summary: String,

    /// A path whose file system must be in the snapshot.
    pub fn path(self: *Plan, it: [:0]const u8) void {
        c.sp_plan_path(self, it);
    }

    /// One line for people.
    pub fn summarize(self: *Plan, it: [:0]const u8) void {
        c.hook_string_dup(&self.summary, it);
    }
};

/// Entries of the manifest: keys in kebab-case, no secrets.
pub const Metadata = extern struct {
    list: List,

    pub fn text(self: *Metadata, key: [:0]const u8, value: [:0]const u8) void {
        c.sp_metadata_text(self, key, value);
    }

    pub fn integer(self: *Metadata, key: [:0]const u8, value: i64) void {
        c.sp_metadata_integer(self, key, value);
    }
};

/// What `preFreeze` reached.
pub const Frozen = extern struct {
    consistency: Consistency,
    metadata: Metadata,
};

/// The key under which `preFreeze` says, in nanoseconds, how long it held the application already.
pub const held_before_freeze = "held-before-freeze-ns";

/// What is left of the phase.
pub fn remaining() u64 {
    return c.stillpoint_hook_run_remaining();
}

/// What is left of the phase, less what is to be kept for giving back.
pub fn remainingBut(reserve: u64) u64 {
    return c.sp_remaining_but(reserve);
}

/// True once the operator or the coordinator asked to stop: unwind now.
pub fn cancelled() bool {
    return c.stillpoint_hook_run_cancelled();
}

/// Waits; ends early on cancellation, and with the phase.
pub fn sleep(duration: u64) void {
    c.stillpoint_hook_run_sleep(duration);
}

/// Durable state, for what a fresh instance must know to undo what an earlier one did: keep it first, then
/// act. Denied without `needsKv`; Internal if it is too large or cannot be kept in time, and then what was
/// there counts. Keys have 1 to 128 bytes.
pub const kv = struct {
    /// Bytes that are kept; `free` them.
    pub const Bytes = struct {
        ptr: [*]u8,
        len: usize,

        pub fn slice(self: Bytes) []const u8 {
            return self.ptr[0..self.len];
        }

        pub fn free(self: Bytes) void {
            c.free(self.ptr);
        }
    };

    /// The keys that are there; `free` them.
    pub const Keys = struct {
        raw: List,

        pub fn len(self: Keys) usize {
            return self.raw.len;
        }

        pub fn at(self: Keys, index: usize) []const u8 {
            const texts: [*]const String = @ptrCast(@alignCast(self.raw.ptr.?));
            return texts[index].slice();
        }

        pub fn free(self: *Keys) void {
            c.hook_list_string_free(&self.raw);
        }
    };

    /// What is under a key; null if nothing is.
    pub fn get(key: [:0]const u8) Error!?Bytes {
        var found: ?[*]u8 = null;
        var length: usize = 0;
        try check(c.sp_kv_get(key, &found, &length, &failure));
        return if (found) |ptr| .{ .ptr = ptr, .len = length } else null;
    }

    /// Replaces what was there. Durable when it returns.
    pub fn set(key: [:0]const u8, bytes: []const u8) Error!void {
        try check(c.sp_kv_set(key, bytes.ptr, bytes.len, &failure));
    }

    /// Deleting what is not there is no error.
    pub fn delete(key: [:0]const u8) Error!void {
        try check(c.sp_kv_delete(key, &failure));
    }

    /// The keys that are there, sorted: by them `finish` in a fresh instance sees what was begun. Since
    /// version 0.1.1 of the contract.
    pub fn keys() Error!Keys {
        var found: Keys = .{ .raw = .{ .ptr = null, .len = 0 } };
        try check(c.sp_kv_keys(&found.raw, &failure));
        return found;
    }
};

/// A line for the operator.
pub fn log(level: Level, message: [:0]const u8) void {
    c.sp_log(@intFromEnum(level), message);
}

const List = extern struct { ptr: ?*anyopaque, len: usize };

/// The C side, as `stillpoint.h` and `hook.h` have it.
const c = struct {
    const Session = extern struct { handle: i32, open: bool };
    const Rows = extern struct { columns: List, rows: List, truncated: bool };
    const ServerInfo = extern struct { engine: u8, version: String };

    extern fn free(?*anyopaque) void;
    extern fn hook_string_dup(*String, [*:0]const u8) void;
    extern fn hook_string_free(*String) void;
    extern fn sp_fail(*Failure, c_uint, [*:0]const u8, ...) bool;
    extern fn sp_fail_setting(*Failure, [*:0]const u8, [*:0]const u8) bool;
    extern fn sp_fail_application(*Failure, [*:0]const u8, [*:0]const u8, bool) bool;
    extern fn sp_open(*c.Session, [*:0]const u8, *Failure) bool;
    extern fn sp_close(*c.Session) void;
    extern fn sp_is_alive(*const c.Session) bool;
    extern fn sp_info(*const c.Session, *ServerInfo) void;
    extern fn sp_execute(*const c.Session, [*:0]const u8, u64, *Failure) bool;
    extern fn sp_query(*const c.Session, [*:0]const u8, u64, *c.Rows, *Failure) bool;
    extern fn sp_rows_free(*c.Rows) void;
    extern fn sp_column(*const c.Rows, [*:0]const u8) usize;
    extern fn sp_is_null(*const c.Rows, usize, usize) bool;
    extern fn sp_text(*const c.Rows, usize, usize, *[*:0]u8, *Failure) bool;
    extern fn sp_integer(*const c.Rows, usize, usize, *i64, *Failure) bool;
    extern fn sp_describe(*Description, [*:0]const u8, [*:0]const u8, [*:0]const u8, [*:0]const u8) void;
    extern fn sp_needs_sql(*Description, [*:0]const u8, u8, [*]const [*:0]const u8, usize, [*:0]const u8) void;
    extern fn sp_needs_kv(*Description, u32, [*:0]const u8) void;
    extern fn sp_kv_get([*:0]const u8, *?[*]u8, *usize, *Failure) bool;
    extern fn sp_kv_set([*:0]const u8, [*]const u8, usize, *Failure) bool;
    extern fn sp_kv_delete([*:0]const u8, *Failure) bool;
    extern fn sp_kv_keys(*List, *Failure) bool;
    extern fn hook_list_string_free(*List) void;
    extern fn sp_plan_path(*Plan, [*:0]const u8) void;
    extern fn sp_metadata_text(*Metadata, [*:0]const u8, [*:0]const u8) void;
    extern fn sp_metadata_integer(*Metadata, [*:0]const u8, i64) void;
    extern fn sp_setting_text(*const String, [*:0]const u8, [*:0]const u8, *[*:0]u8, *Failure) bool;
    extern fn sp_remaining_but(u64) u64;
    extern fn sp_log(u8, [*:0]const u8) void;
    extern fn stillpoint_hook_run_remaining() u64;
    extern fn stillpoint_hook_run_cancelled() bool;
    extern fn stillpoint_hook_run_sleep(u64) void;
};

/// Exports a hook. Once, in the root file.
pub fn exportHook(comptime Hook: type) void {
    const Exported = struct {
        var hook: Hook = .init;

        fn told(err: *Failure, outcome: Error!void) bool {
            outcome catch |reason| {
                // An error that was made without `fail` has no text.
                if (!failed or errorOf(failure.tag) != reason) keep(reason, @errorName(reason));
                err.* = failure;
                failed = false;
                return false;
            };
            return true;
        }

        fn describe(ret: *Description) callconv(.c) void {
            Hook.describe(ret);
        }
        fn validate(settings: *String, err: *Failure) callconv(.c) bool {
            return told(err, Hook.validate(.{ .raw = settings.* }));
        }
        fn prepare(settings: *String, ret: *Plan, err: *Failure) callconv(.c) bool {
            ret.* = .{ .paths = .{ .ptr = null, .len = 0 }, .summary = .{ .ptr = "", .len = 0 } };
            return told(err, hook.prepare(.{ .raw = settings.* }, ret));
        }
        fn preFreeze(ret: *Frozen, err: *Failure) callconv(.c) bool {
            ret.* = .{ .consistency = .none, .metadata = .{ .list = .{ .ptr = null, .len = 0 } } };
            return told(err, hook.preFreeze(ret));
        }
        fn confirm(err: *Failure) callconv(.c) bool {
            return told(err, hook.confirm());
        }
        fn postThaw(outcome: u8, ret: *Metadata, err: *Failure) callconv(.c) bool {
            ret.* = .{ .list = .{ .ptr = null, .len = 0 } };
            return told(err, hook.postThaw(@enumFromInt(outcome), ret));
        }
        fn finish(err: *Failure) callconv(.c) bool {
            return told(err, hook.finish());
        }
    };
    const prefix = "exports_stillpoint_hook_lifecycle_";
    @export(&Exported.describe, .{ .name = prefix ++ "describe" });
    @export(&Exported.validate, .{ .name = prefix ++ "validate" });
    @export(&Exported.prepare, .{ .name = prefix ++ "prepare" });
    @export(&Exported.preFreeze, .{ .name = prefix ++ "pre_freeze" });
    @export(&Exported.confirm, .{ .name = prefix ++ "confirm" });
    @export(&Exported.postThaw, .{ .name = prefix ++ "post_thaw" });
    @export(&Exported.finish, .{ .name = prefix ++ "finish" });
}
