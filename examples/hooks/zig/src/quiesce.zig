//! Quiesces MariaDB: a global read lock, from before the freeze until after the thaw, and where the binary
//! log stood meanwhile. The lock belongs to the session, so that it ends with the hook, whatever happens to
//! either.

const std = @import("std");
const stillpoint = @import("stillpoint");

const Error = stillpoint.Error;
const Session = stillpoint.Session;
const no_timeout = stillpoint.no_timeout;

// A panic message would need WASI.
pub const panic = if (@import("builtin").is_test) std.debug.FullPanic(std.debug.defaultPanic) else std.debug.no_panic;

comptime {
    stillpoint.exportHook(Quiesce);
}

// What the hook asks for, whole and exact: the operator grants these texts, and the host sends no other.
const files = "SELECT @@GLOBAL.datadir, @@GLOBAL.log_bin_basename";
const bound_the_wait = "SET SESSION lock_wait_timeout = 5";
const lock = "FLUSH TABLES WITH READ LOCK";
const unfinished = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0";
const flush_logs = "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS";
const position = "SHOW MASTER STATUS";
const unlock = "UNLOCK TABLES";
const statements = [_][*:0]const u8{ files, bound_the_wait, lock, unfinished, flush_logs, position, unlock };

const schema =
    \\{
    \\  "$schema": "https://json-schema.org/draft/2020-12/schema",
    \\  "type": "object",
    \\  "additionalProperties": false,
    \\  "properties": {
    \\    "connection": {
    \\      "description": "The connection to lock: a name that the grant has under [[sql]]",
    \\      "type": "string",
    \\      "default": "main"
    \\    }
    \\  }
    \\}
;

/// How often the lock is tried while transactions are open under it, and the pause between: InnoDB answers
/// from a cache that is up to 0.1 s old.
const tries = 10;
const pause = 150 * stillpoint.millisecond;
/// Nothing is begun with less than this left of the phase: it is for giving back.
const reserve = 2 * stillpoint.second;

/// A place in the binary log. Every commit moves it.
const Position = struct {
    file: stillpoint.Text,
    offset: i64,

    fn ask(session: *const Session) Error!Position {
        var rows = try session.query(position, no_timeout);
        defer rows.free();
        const offset = try rows.integer(0, rows.column("Position"));
        return .{ .file = try rows.text(0, rows.column("File")), .offset = offset };
    }

    fn same(self: Position, other: Position) bool {
        return self.offset == other.offset and std.mem.eql(u8, self.file.slice(), other.file.slice());
    }
};

/// One value lives through one run.
pub const Quiesce = struct {
    session: ?Session,
    held_at: ?Position,

    pub const init: Quiesce = .{ .session = null, .held_at = null };

    pub fn describe(description: *stillpoint.Description) void {
        description.fill("mariadb-lock", "0.1.0", "Locks MariaDB, and saves where its binary log stands", schema);
        description.freeze_budget_ms = 20_000;
        description.needsSql(
            "main",
            .mariadb,
            &statements,
            "to find its files, to stop writes while the snapshot is taken, and to let them go on",
        );
    }

    pub fn validate(settings: stillpoint.Settings) Error!void {
        (try connectionName(settings)).free();
    }

    /// Everything that can be found out before anything is held.
    pub fn prepare(self: *Quiesce, settings: stillpoint.Settings, plan: *stillpoint.Plan) Error!void {
        const name = try connectionName(settings);
        defer name.free();
        self.session = try Session.open(name.slice());
        const session = &self.session.?;
        if (session.engine() != .mariadb) return stillpoint.fail(error.NotApplicable, "the server is not MariaDB");
        var rows = try session.query(files, no_timeout);
        defer rows.free();
        if (rows.isNull(0, 1)) {
            return stillpoint.fail(error.NotApplicable, "the server writes no binary log: set log_bin");
        }
        const data = try rows.text(0, 0);
        defer data.free();
        const log = try rows.text(0, 1);
        defer log.free();
        plan.path(data.slice());
        plan.path(directoryOf(log));
        plan.summarize("MariaDB");
    }

    /// Other clients wait from here to `postThaw`.
    pub fn preFreeze(self: *Quiesce, frozen: *stillpoint.Frozen) Error!void {
        errdefer self.release() catch {};
        const session = try self.open();
        const granted = try quiesce(session);
        const here = try Position.ask(session);
        self.held_at = here;
        frozen.consistency = .application;
        frozen.metadata.text("binlog-file", here.file.slice());
        frozen.metadata.integer("binlog-position", here.offset);
        const held = granted -| stillpoint.remaining();
        frozen.metadata.integer(stillpoint.held_before_freeze, @intCast(held));
    }

    /// The session that locked still answers, and nothing was written meanwhile.
    pub fn confirm(self: *Quiesce) Error!void {
        const then = self.held_at orelse return stillpoint.fail(error.Internal, "nothing is quiesced");
        const now = try Position.ask(try self.open());
        defer now.file.free();
        if (!then.same(now)) {
            return stillpoint.fail(error.Internal, "the lock did not hold: the binary log has moved");
        }
    }

    /// Called whenever `preFreeze` was, also when that failed: nothing left to do is a success.
    pub fn postThaw(self: *Quiesce, _: stillpoint.Outcome, _: *stillpoint.Metadata) Error!void {
        try self.release();
    }

    /// The lock is the session's, so that there is nothing to undo across instances.
    pub fn finish(self: *Quiesce) Error!void {
        if (self.session) |*session| session.close();
        self.session = null;
    }

    fn open(self: *Quiesce) Error!*Session {
        if (self.session) |*session| return session;
        return stillpoint.fail(error.Internal, "no session is open");
    }

    /// Closing releases too, but only once the server has noticed.
    fn release(self: *Quiesce) Error!void {
        if (self.session) |*session| {
            defer self.session = null;
            defer session.close();
            try session.execute(unlock, no_timeout);
        }
    }
};

/// The one setting.
fn connectionName(settings: stillpoint.Settings) Error!stillpoint.Text {
    const name = try settings.text("connection", "main");
    if (name.slice().len > 0) return name;
    name.free();
    return stillpoint.failSetting("/connection", "the name of a connection is wanted");
}

/// The directory of a file: its text is cut.
fn directoryOf(file: stillpoint.Text) [:0]const u8 {
    const slash = std.mem.lastIndexOfScalar(u8, file.slice(), '/') orelse return "/";
    if (slash == 0) return "/";
    file.ptr[slash] = 0;
    return file.slice();
}

/// Takes the lock with no transaction open under it: a copy would roll that back. Gives what was left of
/// the phase when the lock was granted.
fn quiesce(session: *const Session) Error!u64 {
    try session.execute(bound_the_wait, no_timeout);
    for (0..tries) |_| {
        try session.execute(lock, stillpoint.remainingBut(reserve));
        const granted = stillpoint.remaining();
        var rows = try session.query(unfinished, no_timeout);
        defer rows.free();
        if (try rows.integer(0, 0) == 0) {
            // What was committed is in the binary log; with this it is in InnoDB's files, too.
            try session.execute(flush_logs, stillpoint.remainingBut(reserve));
            return granted;
        }
        try session.execute(unlock, no_timeout);
        if (stillpoint.cancelled() or stillpoint.remainingBut(reserve) <= pause) break;
        stillpoint.sleep(pause);
    }
    return stillpoint.fail(error.Busy, "transactions were open whenever the lock was granted: try later");
}

// The hook against a scripted host: `make test` ------------------------------------------------

const fake = struct {
    extern fn fake_reset() void;
    extern fn fake_ok([*:0]const u8) void;
    extern fn fake_row([*:0]const u8, usize, [*]const [*:0]const u8, [*]const ?[*:0]const u8) void;
    extern fn fake_error([*:0]const u8, c_int, [*:0]const u8) void;
    extern fn fake_calls() [*:0]const u8;

    const file_names = [_][*:0]const u8{ "@@GLOBAL.datadir", "@@GLOBAL.log_bin_basename" };
    const file_cells = [_]?[*:0]const u8{ "/var/lib/mysql/", "/var/log/mysql/bin" };
    const count = [_][*:0]const u8{"COUNT(*)"};
    const none = [_]?[*:0]const u8{"0"};
    const one = [_]?[*:0]const u8{"1"};
    const position_names = [_][*:0]const u8{ "File", "Position" };
    const here = [_]?[*:0]const u8{ "bin.000001", "342" };
    const elsewhere = [_]?[*:0]const u8{ "bin.000001", "999" };

    /// A server on which nothing stands in the way, and the hook prepared.
    fn prepared() !Quiesce {
        fake_reset();
        fake_row(files, 2, &file_names, &file_cells);
        for ([_][*:0]const u8{ bound_the_wait, lock, flush_logs, unlock }) |statement| fake_ok(statement);
        fake_row(unfinished, 1, &count, &none);
        fake_row(position, 2, &position_names, &here);
        var hook: Quiesce = .init;
        var plan: stillpoint.Plan = std.mem.zeroes(stillpoint.Plan);
        try hook.prepare(.{ .raw = .{ .ptr = "{}", .len = 2 } }, &plan);
        try std.testing.expectEqual(@as(usize, 2), plan.paths.len);
        return hook;
    }

    fn endsWith(end: []const u8) !void {
        try std.testing.expect(std.mem.endsWith(u8, std.mem.span(fake_calls()), end));
    }
};

test "it locks, notes the position, and unlocks" {
    var hook = try fake.prepared();
    var frozen = std.mem.zeroes(stillpoint.Frozen);
    try hook.preFreeze(&frozen);
    try std.testing.expectEqual(stillpoint.Consistency.application, frozen.consistency);
    try hook.confirm();
    var metadata = std.mem.zeroes(stillpoint.Metadata);
    try hook.postThaw(.captured, &metadata);
    try hook.finish();
    try fake.endsWith("UNLOCK TABLES; close");
}

test "what it took is given back when a transaction stays open" {
    var hook = try fake.prepared();
    fake.fake_row(unfinished, 1, &fake.count, &fake.one);
    var frozen = std.mem.zeroes(stillpoint.Frozen);
    try std.testing.expectError(error.Busy, hook.preFreeze(&frozen));
    try fake.endsWith("UNLOCK TABLES; close");
}

test "a lock that is not granted is an error of the server" {
    var hook = try fake.prepared();
    fake.fake_error(lock, 1205, "Lock wait timeout exceeded");
    var frozen = std.mem.zeroes(stillpoint.Frozen);
    try std.testing.expectError(error.Application, hook.preFreeze(&frozen));
    try fake.endsWith("close");
}

test "what was written under the lock is told" {
    var hook = try fake.prepared();
    var frozen = std.mem.zeroes(stillpoint.Frozen);
    try hook.preFreeze(&frozen);
    fake.fake_row(position, 2, &fake.position_names, &fake.elsewhere);
    try std.testing.expectError(error.Internal, hook.confirm());
}
