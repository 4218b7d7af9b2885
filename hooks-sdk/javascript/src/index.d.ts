/** Write stillpoint hooks in JavaScript or TypeScript. Times are milliseconds; whole numbers are exact below 2^53. */

/** A value of the manifest: a text, a whole number below 2^53, true or false, or bytes. */
export type Meta = string | number | boolean | Uint8Array;
/** Entries of the manifest; keys in kebab-case, no secrets. */
export type Metadata = Record<string, Meta>;
/** Settings as the operator's file has them; the host has checked that they fit `settingsSchema`. */
export type Settings = Record<string, unknown>;
/** How consistent the captured state is; the host records the weakest of all hooks. */
export type Consistency = "crash" | "application" | "none";
/** The snapshot's fate: its point in time was fixed; it was asked for and failed; it was not asked for. */
export type Outcome = "captured" | "failed" | "aborted";
export type Phase = "describe" | "validate" | "prepare" | "pre-freeze" | "confirm" | "post-thaw" | "finish";

/** What a hook asks for; made by `needsSql`, `needsProgram`, `needsKv`. */
export interface Need {
  tag: string;
  val: unknown;
}

export interface Description {
  /** Kebab-case. */
  name: string;
  /** Semantic. */
  version: string;
  /** One line. */
  summary: string;
  /** JSON Schema (2020-12) of the settings, at most 64 KiB; without one the hook has no settings. */
  settingsSchema?: object;
  needs?: Need[];
  /** What the hook would like per phase, in milliseconds; 10,000 by default. The operator's limits win. */
  freezeBudgetMs?: number;
}

export interface Plan {
  /** Paths whose file systems must be in the snapshot. */
  paths?: string[];
  /** One line for people. */
  summary: string;
}

export interface Frozen {
  consistency: Consistency;
  metadata?: Metadata;
}

/**
 * One application's hook. One object lives through one run, from `prepare` to `finish`: what it keeps between
 * `preFreeze` and `postThaw`, above all an open connection, is what keeps the application quiesced. When it goes
 * away, in whatever way, the host closes its sessions, and the server releases what they locked.
 *
 * Each function has a deadline (`run.remainingMs`). One that is not back in time costs the instance; one that gets a
 * typed time-out and returns keeps it. A `HookError` that is thrown is the phase's error; a `SqlError`,
 * `ProcessError` or `KvError` becomes the one that fits, and anything else is `Internal`.
 */
export abstract class Hook {
  /** What the hook is and what it asks for. Always the same; no function of the host may be called. */
  static describe(): Description;
  /** What a schema cannot say; contacts nothing. Throws `InvalidSettings`. By default everything is accepted. */
  validate(settings: Settings): void;
  /** Everything that can be found out before anything is held; takes no lock. */
  prepare(settings: Settings): Plan;
  /** Quiesces, and leaves it so. Other clients wait from here to `postThaw`. When it throws, everything that it took
   * is given back. */
  abstract preFreeze(): Frozen;
  /** Proves, after the thaw and before anything is released, that the application was quiesced all the time, or
   * throws: then the snapshot's level is lowered. */
  abstract confirm(): void;
  /** Releases. Called whenever `preFreeze` was called, also if that failed. What it gives is added to the manifest. */
  abstract postThaw(outcome: Outcome): Metadata | void;
  /** Cleans up. Always called, always last, and on a fresh object if the first one is gone: what must be undone then
   * has to be in `kv`. By default nothing. */
  finish(): void;
}

/** The key under which `preFreeze` says, in nanoseconds, for how long the application had been held when it
 * returned: the host then does not count waiting for a lock as holding it. */
export const HELD_BEFORE_FREEZE: "held-before-freeze-ns";

/** `export const lifecycle = component(MyHook);` makes a class what the component exports. */
export function component(hook: { new (): Hook; describe(): Description }): object;

export type Engine = "mysql" | "mariadb" | "postgresql" | "sqlite" | "mssql" | "oracle" | "other";

/** Asks for these statements, as whole texts, on a connection of the operator's. `reason` is for the operator who
 * decides; without a need that is `required` (the default) the hook does not run. */
export function needsSql(need: {
  connection: string;
  engines: Engine[];
  statements: string[];
  reason: string;
  required?: boolean;
}): Need;
/** Asks for a program with one of these lists of arguments. */
export function needsProgram(need: {
  command: string;
  arguments: string[][];
  stdinScripts?: string[];
  reason: string;
  required?: boolean;
}): Need;
/** Asks for so many bytes of durable state. */
export function needsKv(need: { bytes: number; reason: string; required?: boolean }): Need;

/** What a hook's function throws: one subclass for each case of the contract. The text is one line, shown to the
 * operator: what happened, what to do next. */
export class HookError extends Error {
  constructor(tag: string, message: string, options?: ErrorOptions);
  readonly tag: string;
  /** The same error with more said, before: `context: message`. */
  context(text: string): this;
  /** The same error with more said, after: `message; more`. */
  also(text: string): this;
}
/** Settings are wrong at `pointer`, a JSON Pointer, `""` for the whole of them. Never retried. */
export class InvalidSettings extends HookError {
  constructor(pointer: string, message: string, options?: ErrorOptions);
  readonly pointer: string;
}
/** The application is not here, or not running: the host may skip this hook. */
export class NotApplicable extends HookError {
  constructor(message: string, options?: ErrorOptions);
}
/** A capability that the hook needs was not granted. */
export class Denied extends HookError {
  constructor(message: string, options?: ErrorOptions);
}
/** The application cannot be quiesced now; later it may. */
export class Busy extends HookError {
  constructor(message: string, options?: ErrorOptions);
}
/** The phase ran out of its deadline, and undid what it did. */
export class Timeout extends HookError {
  constructor(message: string, options?: ErrorOptions);
}
/** The application answered with an error; `code` is its own (`1205`, `55P03`). */
export class ApplicationError extends HookError {
  constructor(code: string | number, message: string, options?: ErrorOptions & { retryable?: boolean });
  readonly code: string;
  readonly retryable: boolean;
}
/** Anything else. */
export class Internal extends HookError {
  constructor(message: string, options?: ErrorOptions);
}
/** What was thrown, as one of the contract's errors. */
export function toHookError(thrown: unknown): HookError;

/** A statement was not answered. */
export class SqlError extends Error {
  readonly tag:
    | "denied"
    | "unavailable"
    | "timeout"
    | "connection-lost"
    | "database"
    | "limit"
    | "unsupported"
    | "other";
  /** The session is gone with this error, and with it every lock that it held: `timeout`, `connection-lost`. */
  readonly sessionIsGone: boolean;
  /** The server's own number; 0 if this is not an error of the server's. */
  readonly vendorCode: number;
  /** Five characters; empty if this is not an error of the server's. */
  readonly sqlstate: string;
  toHookError(): HookError;
}
/** A program was not run to its end. */
export class ProcessError extends Error {
  readonly tag: "denied" | "not-found" | "timeout" | "failed" | "other";
  /** After `timeout`: what it had written when it was killed. */
  readonly output?: process.Output;
  toHookError(): HookError;
}
/** The state could not be read or written; after `too-large` what was there is there still. */
export class KvError extends Error {
  readonly tag: "denied" | "too-large" | "io" | "other";
  toHookError(): HookError;
}
/** An answer did not have the shape that the hook expected. Becomes `Internal`. */
export class RowError extends Error {}

/** SQL on connections that the operator named: no address, no password, and only the statements that were asked for
 * and granted, as whole texts. What varies is a parameter (`?`). */
export namespace sql {
  /** A parameter. Whole numbers beyond 2^53 go as text. */
  type Param = null | boolean | number | string | Uint8Array;
  interface Options {
    /** Clamped to what is left of the phase, which is also what counts without one (or the operator's limit for the
     * connection, if that is less). 0 is a time-out at once. */
    timeoutMs?: number;
  }
  /** One server session. It is open until it is closed, and so are its locks. The host never reconnects behind it. */
  class Connection {
    /** Opens a session to what the operator calls `name`, bounded by the operator's connect time-out and by the
     * phase. Throws `SqlError`: `denied`, `unavailable`, `limit` (too many open), `timeout`. */
    static open(name: string): Connection;
    /** Engine and version, as the server said when the session was opened. No round trip. */
    readonly info: { engine: Engine; version: string };
    /** The server's id of this session, as other sessions see it. No round trip. */
    readonly sessionId: string;
    /** Whether the session is still open: the host asks the server by a ping, at most to the end of the phase. */
    readonly isAlive: boolean;
    /** Runs a statement and gives its rows: by default at most 10,000 rows and 1 MiB. Throws `SqlError`: after
     * `timeout` and `connection-lost` the session is gone with its locks; after `database` it is open, and holds
     * what it held; after `denied` it is unharmed. */
    query(statement: string, params?: Param[], options?: Options): RowSet;
    /** Runs a statement without rows; gives the number of affected rows, 0 where the server tells none. Throws as
     * `query` does. */
    execute(statement: string, params?: Param[], options?: Options): number;
    /** Closes the session; the server releases its locks. A second time there is nothing to do. */
    close(): void;
  }
  /** The names of the connections that are granted to this hook, sorted. Contacts nothing. */
  function granted(): string[];
  interface RowSet extends Iterable<Row> {
    readonly columns: { name: string; dbType: string }[];
    readonly rows: Row[];
    /** There was more than the host's limits allow; what is here is the beginning. */
    readonly truncated: boolean;
    /** The first row. Throws `RowError` if there is none. */
    first(): Row;
    /** The set itself. Throws `RowError` if it was truncated. */
    complete(): RowSet;
  }
  /** Columns go by their name, upper and lower case the same, or by their number from 0. Reading is as lenient as
   * servers are various (a number may come as its text), and never loses anything: else `RowError`. */
  interface Row {
    isNull(column: string | number): boolean;
    text(column: string | number): string;
    /** A whole number below 2^53; read a greater one as text: have the server cast it. */
    integer(column: string | number): number;
    /** True or false, 1 or 0, ON or OFF, YES or NO. */
    boolean(column: string | number): boolean;
    bytes(column: string | number): Uint8Array;
    /** The value as the contract has it. */
    value(column: string | number): { tag: string; val?: unknown };
  }
}

/** Programs that the operator granted, with these arguments. No shell. */
export namespace process {
  /** Exactly one of `exitCode` and `signal` is there. `truncated`: a stream passed the host's limit, and the rest was
   * thrown away. */
  interface Output {
    exitCode: number | null;
    signal: number | null;
    stdout: Uint8Array;
    stderr: Uint8Array;
    truncated: boolean;
  }
  /** Runs a program to its end; an exit code other than 0 is no error here. Throws `ProcessError`. At the time-out,
   * and at the end of the phase, it is killed with all its children. */
  function run(
    command: string,
    args?: string[],
    options?: { stdin?: Uint8Array; timeoutMs?: number },
  ): Output;
}

/** Small durable state, private to this hook on this machine. Keep here what you are about to do, before you do it,
 * if no session undoes it; undo what `finish` finds, then delete it. What is set in `prepare` survives a power cut;
 * what is set later survives the host's death, not a reboot. Keys have 1 to 128 bytes; keys and values together have
 * the bytes that the operator granted. Each function throws `KvError`. */
export namespace kv {
  export function get(key: string): Uint8Array | undefined;
  /** Replaces what was there; durable when it returns. */
  export function set(key: string, value: Uint8Array): void;
  /** Deleting what is not there is no error. */
  function _delete(key: string): void;
  export { _delete as delete };
  /** The keys that are there, sorted: by them `finish` on a fresh object sees what was begun, also by an older version
   * of the hook. Since version 0.1.1 of the contract. */
  export function keys(): string[];
}

/** What this run is, and the clock that it runs against. */
export namespace run {
  /** In a dry run the hook looks, and neither changes nor locks anything. */
  function info(): { runId: string; hookName: string; dryRun: boolean };
  function currentPhase(): Phase;
  /** What is left of this phase before the host interrupts the hook; 0 when it has passed. */
  function remainingMs(): number;
  /** What is left after `reserveMs` are kept for undoing; never below 0. */
  function remainingBut(reserveMs: number): number;
  /** True once somebody asked to stop: unwind now. */
  function cancelled(): boolean;
  /** Waits. Ends early when the run is cancelled, and at the end of the phase. */
  function sleep(ms: number): void;
}

/** Lines for the operator. They never block and never fail; the host counts what it had to drop. No secrets. */
export namespace log {
  type Fields = Record<string, unknown>;
  function trace(message: string, fields?: Fields): void;
  function debug(message: string, fields?: Fields): void;
  function info(message: string, fields?: Fields): void;
  function warn(message: string, fields?: Fields): void;
  function error(message: string, fields?: Fields): void;
}
