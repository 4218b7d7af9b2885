/** A scripted host for unit tests in Node: no server, no component. The clock is a fake one, in milliseconds. */
import type { Engine, Phase } from "./index.js";

export interface Answer {}
/** Rows under these column names. */
export function rows(names: string[], ...lines: (null | boolean | number | string | Uint8Array)[][]): Answer;
/** No rows, and so many that were changed. */
export function affected(count: number): Answer;
/** An error of the server. The session stays open. */
export function answerError(vendorCode: number, sqlstate: string, message: string): Answer;
/** The session is lost. */
export function lost(): Answer;
/** It never comes: the statement runs into its time-out, and the host closes the session. */
export function never(): Answer;

export interface Script {
  /** The next answer; the last one is repeated. */
  answers(answer: Answer): Script;
}

/**
 * The host of all hooks in this process, until the next one is made. At the start: one connection `main` to a
 * MariaDB, phase `pre-freeze` with 60 s left, no program, 64 KiB of state. A statement without an answer is denied.
 */
export class FakeHost {
  /** Bytes of keys and values that are granted. */
  kvBytes: number;
  /** Grants a connection, or changes what kind of server is behind one. */
  connection(name: string, engine: Engine, version: string): void;
  /** From now on no session can be opened there. */
  refuse(name: string, why: string): void;
  /** Scripts the answers to a statement, in order. Scripting it again starts anew. */
  on(statement: string): Script;
  /** Grants a program; `behaviour` gives its output, or throws `{ tag, val }`. */
  program(command: string, behaviour: (args: string[], stdin: Uint8Array | null) => object): void;
  /** Begins a phase with this much time. */
  begin(phase: Phase, budgetMs: number): void;
  /** Lets time pass outside the hook. */
  advance(ms: number): void;
  /** The operator asks to stop. */
  cancel(): void;
  /** Ends a session from outside; sessions are numbered from 1. */
  kill(session: number): void;
  /** What the hook did, in words: `open 1 main`, `1 UNLOCK TABLES`, `close 1`, `sleep 150 ms`, `run tool --flag`. */
  order(): string[];
  /** The lines that the hook wrote. */
  log(): { level: string; message: string; fields: [string, string][] }[];
  /** The numbers of the sessions that are open. */
  openSessions(): number[];
  /** The state. */
  kv(): Map<string, Uint8Array>;
}
