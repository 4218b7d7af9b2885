// Errors, typed. What the host answers becomes a SqlError, ProcessError or KvError; what a hook throws is a
// HookError, and the others become one on their way out (see `toHookError`).

/** What a hook's function throws. `tag` is the case of the contract's `hook-error`. */
export class HookError extends Error {
  constructor(tag, message, options) {
    super(message, options);
    this.name = this.constructor.name;
    this.tag = tag;
  }
  /** The value of the case, as the contract has it. */
  get payload() {
    return this.message;
  }
  /** The same error with more said, before: `context: message`. */
  context(text) {
    this.message = `${text}: ${this.message}`;
    return this;
  }
  /** The same error with more said, after: `message; more`. */
  also(text) {
    this.message = `${this.message}; ${text}`;
    return this;
  }
}

export class InvalidSettings extends HookError {
  constructor(pointer, message, options) {
    super("invalid-settings", message, options);
    this.pointer = pointer;
  }
  get payload() {
    return { pointer: this.pointer, message: this.message };
  }
}
export class NotApplicable extends HookError {
  constructor(message, options) {
    super("not-applicable", message, options);
  }
}
export class Denied extends HookError {
  constructor(message, options) {
    super("denied", message, options);
  }
}
export class Busy extends HookError {
  constructor(message, options) {
    super("busy", message, options);
  }
}
export class Timeout extends HookError {
  constructor(message, options) {
    super("timeout", message, options);
  }
}
export class ApplicationError extends HookError {
  constructor(code, message, { retryable = false, ...options } = {}) {
    super("application", message, options);
    this.code = String(code);
    this.retryable = retryable;
  }
  get payload() {
    return { code: this.code, message: this.message, retryable: this.retryable };
  }
}
export class Internal extends HookError {
  constructor(message, options) {
    super("internal", message, options);
  }
}

/** What a call of the host answered instead of a result. */
export class HostError extends Error {
  constructor(tag, message) {
    super(message);
    this.name = this.constructor.name;
    this.tag = tag;
  }
}

const TIMED_OUT =
  "the database did not answer in time; the host cancelled the statement and closed the session";

export class SqlError extends HostError {
  /** The session is gone with this error, and with it every lock that it held. */
  get sessionIsGone() {
    return this.tag === "timeout" || this.tag === "connection-lost";
  }
  /** The server's own number; 0 if this is not an error of the server's. */
  get vendorCode() {
    return this.database?.vendorCode ?? 0;
  }
  /** Five characters; empty if this is not an error of the server's. */
  get sqlstate() {
    return this.database?.sqlstate ?? "";
  }
  toHookError() {
    const options = { cause: this };
    switch (this.tag) {
      case "denied":
        return new Denied(this.message, options);
      case "timeout":
        return new Timeout(this.message, options);
      case "unavailable":
      case "connection-lost":
        return new ApplicationError(this.tag, this.message, { retryable: true, ...options });
      case "database": {
        const retryable = this.sqlstate.startsWith("40");
        const code = this.vendorCode === 0 ? this.sqlstate : this.vendorCode;
        return new ApplicationError(code, this.message, { retryable, ...options });
      }
      case "limit":
      case "unsupported":
        return new Internal(`${this.tag}: ${this.message}`, options);
      default:
        return new Internal(this.message, options);
    }
  }
  static from({ tag, val }) {
    if (tag === "timeout") return new SqlError(tag, TIMED_OUT);
    if (tag !== "database") return new SqlError(tag, val);
    return Object.assign(new SqlError(tag, val.message), { database: val });
  }
}

/** An answer did not have the shape that the hook expected. */
export class RowError extends Error {
  constructor(message) {
    super(message);
    this.name = "RowError";
  }
}

export class ProcessError extends HostError {
  toHookError() {
    const options = { cause: this };
    switch (this.tag) {
      case "denied":
        return new Denied(this.message, options);
      case "timeout":
        return new Timeout(this.message, options);
      case "not-found":
        return new ApplicationError("not-found", `no such program: ${this.message}`, options);
      case "failed":
        return new ApplicationError("failed", this.message, options);
      default:
        return new Internal(this.message, options);
    }
  }
  static from({ tag, val }) {
    if (tag !== "timeout") return new ProcessError(tag, val);
    const error = new ProcessError(tag, "the program did not end in time and was killed");
    return Object.assign(error, { output: val });
  }
}

export class KvError extends HostError {
  toHookError() {
    const options = { cause: this };
    return this.tag === "denied" ? new Denied(this.message, options) : new Internal(this.message, options);
  }
  static from({ tag, val }) {
    const texts = {
      denied: "no key-value state is granted: add `kv` to the hook's grant file",
      "too-large": "the granted key-value bytes are used up",
    };
    return new KvError(tag, texts[tag] ?? val);
  }
}

/** Runs a call of the host; its typed error is thrown as `Kind`. */
export function calling(Kind, call) {
  try {
    return call();
  } catch (thrown) {
    const answer = answerOf(thrown);
    if (answer === undefined) throw thrown;
    throw Kind.from(answer);
  }
}

// The error case of a host function: thrown as it is, or as the payload of an error.
function answerOf(thrown) {
  for (const value of [thrown, thrown?.payload]) {
    if (!(value instanceof Error) && typeof value?.tag === "string") return value;
  }
  return undefined;
}

/** What a hook threw, as the contract's `hook-error`. */
export function toHookError(thrown) {
  if (thrown instanceof HookError) return thrown;
  if (typeof thrown?.toHookError === "function") return thrown.toHookError();
  const text = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
  return new Internal(text, { cause: thrown });
}
