import { host } from "#host";
import { RowError, SqlError, calling } from "./errors.js";
import { nanoseconds } from "./run.js";

/** One server session: open until it is closed, and so are its locks. */
export class Connection {
  #session;

  static open(name) {
    const session = calling(SqlError, () => host().sql.open(name));
    return new Connection(session);
  }
  constructor(session) {
    this.#session = session;
  }
  get info() {
    return this.#open().info();
  }
  get sessionId() {
    return calling(SqlError, () => this.#open().sessionId());
  }
  get isAlive() {
    return this.#session !== undefined && this.#session.isAlive();
  }
  query(statement, params = [], { timeoutMs } = {}) {
    const [values, timeout] = [params.map(toValue), nanoseconds(timeoutMs)];
    return new RowSet(calling(SqlError, () => this.#open().query(statement, values, timeout)));
  }
  execute(statement, params = [], { timeoutMs } = {}) {
    const [values, timeout] = [params.map(toValue), nanoseconds(timeoutMs)];
    return calling(SqlError, () => this.#open().execute(statement, values, timeout));
  }
  close() {
    this.#session?.[Symbol.dispose]();
    this.#session = undefined;
  }
  #open() {
    if (this.#session === undefined) throw new SqlError("connection-lost", "the hook closed this session");
    return this.#session;
  }
}

/** The names of the connections that are granted to this hook, sorted. */
export const granted = () => host().sql.granted();

/** What a statement gave. */
export class RowSet {
  constructor({ columns, rows, truncated }) {
    this.columns = columns;
    this.truncated = truncated;
    this.rows = rows.map((values) => new Row(columns, values));
  }
  first() {
    if (this.rows.length === 0) throw new RowError("the answer has no row");
    return this.rows[0];
  }
  complete() {
    if (this.truncated) throw new RowError("the answer was cut at the host's limit");
    return this;
  }
  [Symbol.iterator]() {
    return this.rows[Symbol.iterator]();
  }
}

/** One row. Columns go by their name, upper and lower case the same, or by their number from 0. */
export class Row {
  #columns;
  #values;

  constructor(columns, values) {
    this.#columns = columns;
    this.#values = values;
  }
  isNull(column) {
    return this.#at(column).tag === "null";
  }
  text(column) {
    const { tag, val } = this.#at(column);
    switch (tag) {
      case "text":
      case "decimal":
      case "temporal":
      case "other":
        return val;
      case "int64":
      case "uint64":
        return String(this.integer(column));
      case "binary":
        return utf8(val) ?? this.#wrong(column, "a text", "bytes that are not UTF-8");
      default:
        return this.#wrong(column, "a text", tag);
    }
  }
  integer(column) {
    const { tag, val } = this.#at(column);
    const whole = tag === "int64" || tag === "uint64";
    const written = tag === "text" || tag === "decimal" ? val : "";
    const number = whole ? val : /^[+-]?\d+$/.test(written) ? Number(written) : undefined;
    if (number === undefined) return this.#wrong(column, "a whole number", tag);
    if (Number.isSafeInteger(number)) return number;
    return this.#wrong(column, "a whole number below 2^53", "a greater one: read it as text");
  }
  boolean(column) {
    const { tag, val } = this.#at(column);
    if (tag === "boolean") return val;
    const word = String(val).toLowerCase();
    if (["1", "on", "yes", "true"].includes(word)) return true;
    if (["0", "off", "no", "false"].includes(word)) return false;
    return this.#wrong(column, "true or false", tag);
  }
  bytes(column) {
    const { tag, val } = this.#at(column);
    return tag === "binary" ? Uint8Array.from(val) : this.#wrong(column, "bytes", tag);
  }
  /** The value as the contract has it: `{ tag, val }`. */
  value(column) {
    return this.#at(column);
  }
  #at(column) {
    const wanted = String(column).toLowerCase();
    const named = this.#columns.findIndex(({ name }) => name.toLowerCase() === wanted);
    const value = this.#values[typeof column === "number" ? column : named];
    if (value === undefined) throw new RowError(`the answer has no column ${column}`);
    return value;
  }
  #wrong(column, wanted, found) {
    throw new RowError(`column ${column}: ${wanted} was expected, and it is ${found}`);
  }
}

function utf8(bytes) {
  try {
    return decodeURIComponent(Array.from(bytes, (byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""));
  } catch {
    return undefined;
  }
}

/** A parameter, as the contract has it. */
function toValue(value) {
  switch (typeof value) {
    case "string":
      return { tag: "text", val: value };
    case "boolean":
      return { tag: "boolean", val: value };
    case "number":
      return Number.isInteger(value) ? wholeNumber(value) : { tag: "float64", val: value };
  }
  if (value === null) return { tag: "null" };
  if (value instanceof Uint8Array) return { tag: "binary", val: value };
  throw new TypeError(`a parameter is null, a text, a number, true or false, or bytes; not ${typeof value}`);
}

function wholeNumber(value) {
  if (Number.isSafeInteger(value)) return { tag: "int64", val: value };
  throw new RangeError(`the parameter ${value} is not exact beyond 2^53: give it as text`);
}
