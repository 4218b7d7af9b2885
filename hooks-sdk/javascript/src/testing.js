// A scripted host for unit tests in Node: no server, no component. The clock is a fake one.
import { useHost } from "./host-fake.js";

const NANOSECONDS = 1_000_000;
const LONGEST_KEY = 128;

/** An answer: rows under these column names. */
export const rows = (names, ...lines) => ({
  columns: names.map((name) => ({ name, dbType: "VAR_STRING" })),
  rows: lines.map((line) => line.map(value)),
  truncated: false,
});
/** An answer: no rows, and so many that were changed. */
export const affected = (count) => ({ affected: count });
/** An answer: an error of the server. The session stays open. */
export const answerError = (vendorCode, sqlstate, message) => ({
  error: { tag: "database", val: { sqlstate, vendorCode, message, extras: [] } },
});
/** An answer: the session is lost. */
export const lost = () => ({ error: { tag: "connection-lost", val: "the server closed the session" }, kills: true });
/** An answer that never comes: the statement runs into its time-out, and the host closes the session. */
export const never = () => ({ never: true });

const value = (it) => {
  if (it === null) return { tag: "null" };
  if (typeof it === "number") return { tag: "int64", val: it };
  if (typeof it === "boolean") return { tag: "boolean", val: it };
  if (it instanceof Uint8Array) return { tag: "binary", val: it };
  return { tag: "text", val: String(it) };
};
const folded = (text) => text.trim().split(/\s+/).join(" ");

/**
 * The host of all hooks in this process, until the next one is made. At the start: one connection `main` to a
 * MariaDB, phase `pre-freeze` with 60 s left, no program, 64 KiB of state. A statement without an answer is denied.
 */
export class FakeHost {
  #connections = new Map([["main", { engine: "mariadb", version: "10.11.6-MariaDB" }]]);
  #answers = new Map();
  #programs = new Map();
  #sessions = [];
  #order = [];
  #lines = [];
  #kv = new Map();
  #clockMs = 0;
  #endMs = 60_000;
  #phase = "pre-freeze";
  #cancelled = false;
  kvBytes = 64 * 1024;

  constructor() {
    useHost({
      sql: { open: (name) => this.#open(name), granted: () => [...this.#connections.keys()].sort() },
      process: { run: (...call) => this.#run(...call) },
      kv: {
        get: (key) => this.#kv.get(checkedKey(key)) ?? null,
        set: (key, bytes) => this.#set(checkedKey(key), bytes),
        delete: (key) => void this.#kv.delete(checkedKey(key)),
        keys: () => [...this.#kv.keys()].sort(),
      },
      run: {
        getInfo: () => ({ runId: "test", hookName: "test", dryRun: false }),
        currentPhase: () => this.#phase,
        remaining: () => this.#left() * NANOSECONDS,
        cancelled: () => this.#cancelled,
        sleep: (duration) => this.#sleep(duration / NANOSECONDS),
      },
      log: { write: (level, message, fields) => this.#lines.push({ level, message, fields }) },
    });
  }

  /** Grants a connection, or changes what kind of server is behind one. */
  connection(name, engine, version) {
    this.#connections.set(name, { engine, version });
  }
  /** From now on no session can be opened there. */
  refuse(name, why) {
    this.#connections.set(name, { refused: why });
  }
  /** Scripts the answers to a statement, in order; the last one is repeated. Scripting it again starts anew. */
  on(statement) {
    const answers = [];
    this.#answers.set(folded(statement), answers);
    const script = { answers: (answer) => (answers.push(answer), script) };
    return script;
  }
  /** Grants a program: `behaviour(args, stdin)` gives its output, or throws `{ tag, val }`. */
  program(command, behaviour) {
    this.#programs.set(command, behaviour);
  }
  /** Begins a phase with this much time. */
  begin(phase, budgetMs) {
    this.#phase = phase;
    this.#endMs = this.#clockMs + budgetMs;
  }
  /** Lets time pass outside the hook. */
  advance(ms) {
    this.#clockMs += ms;
  }
  /** The operator asks to stop. */
  cancel() {
    this.#cancelled = true;
  }
  /** Ends a session from outside; sessions are numbered from 1. */
  kill(number) {
    this.#sessions[number - 1].alive = false;
    this.#order.push(`killed ${number}`);
  }
  /** What the hook did, in words: `open 1 main`, `1 UNLOCK TABLES`, `close 1`, `sleep 150 ms`, `run tool --flag`. */
  order() {
    return [...this.#order];
  }
  /** The lines that the hook wrote: `{ level, message, fields }`. */
  log() {
    return [...this.#lines];
  }
  /** The numbers of the sessions that are open. */
  openSessions() {
    return this.#sessions.filter(({ open, alive }) => open && alive).map(({ number }) => number);
  }
  /** The state, as a map from key to bytes. */
  kv() {
    return new Map(this.#kv);
  }

  #left() {
    return Math.max(0, this.#endMs - this.#clockMs);
  }
  #sleep(ms) {
    this.#order.push(`sleep ${ms} ms`);
    if (!this.#cancelled) this.#clockMs += Math.min(ms, this.#left());
  }
  #set(key, bytes) {
    const others = [...this.#kv].filter(([name]) => name !== key);
    const used = others.reduce((sum, [name, { length }]) => sum + name.length + length, 0);
    if (used + key.length + bytes.length > this.kvBytes) throw { tag: "too-large" };
    this.#kv.set(key, Uint8Array.from(bytes));
  }
  #open(name) {
    if (["describe", "validate"].includes(this.#phase)) throw { tag: "denied", val: `not in ${this.#phase}` };
    const server = this.#connections.get(name);
    if (server === undefined) throw { tag: "denied", val: `connection ${name} is not granted` };
    if (server.refused !== undefined) throw { tag: "unavailable", val: server.refused };
    const number = this.#sessions.length + 1;
    const session = { number, open: true, alive: true };
    this.#sessions.push(session);
    this.#order.push(`open ${number} ${name}`);
    return {
      info: () => ({ ...server }),
      sessionId: () => String(100 + number),
      isAlive: () => session.alive,
      query: (...call) => resultSet(this.#answer(session, ...call)),
      execute: (...call) => this.#answer(session, ...call).affected ?? 0,
      [Symbol.dispose]: () => {
        if (session.open) this.#order.push(`close ${number}`);
        session.open = false;
      },
    };
  }
  #answer(session, statement, _params, timeout) {
    if (!session.alive) throw { tag: "connection-lost", val: "the session is gone" };
    const text = folded(statement);
    this.#order.push(`${session.number} ${text}`);
    const answers = this.#answers.get(text) ?? [];
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    if (answer === undefined) throw { tag: "denied", val: `statement \`${text}\` is not granted` };
    if (answer.never) {
      this.#clockMs += Math.min(timeout === null ? Infinity : timeout / NANOSECONDS, this.#left());
      this.kill(session.number);
      throw { tag: "timeout" };
    }
    if (answer.kills) this.kill(session.number);
    if (answer.error !== undefined) throw answer.error;
    return answer;
  }
  #run(command, args, stdin, _timeout) {
    this.#order.push(["run", command, ...args].join(" "));
    const behaviour = this.#programs.get(command);
    if (behaviour === undefined) throw { tag: "denied", val: `program ${command} is not granted` };
    return behaviour(args, stdin);
  }
}

const resultSet = ({ columns = [], rows: lines = [], truncated = false }) => ({ columns, rows: lines, truncated });

function checkedKey(key) {
  if (key.length === 0 || key.length > LONGEST_KEY) throw { tag: "other", val: `a key has 1 to ${LONGEST_KEY} bytes` };
  return key;
}

// Node 18 has no Symbol.dispose.
Symbol.dispose ??= Symbol.for("Symbol.dispose");
