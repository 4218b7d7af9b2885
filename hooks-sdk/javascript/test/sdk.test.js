// What the SDK makes of answers and errors. `node --test test/sdk.test.js`
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { ApplicationError, Busy, Hook, InvalidSettings, KvError, RowError, component, kv, process, run, sql } from "stillpoint-hook";
import { FakeHost, affected, answerError, lost, never, rows } from "stillpoint-hook/testing";

let host;
beforeEach(() => {
  host = new FakeHost();
});

/** What goes out of a component whose `preFreeze` is this. */
function answer(preFreeze) {
  class Only extends Hook {
    static describe() {
      return { name: "only", version: "0.1.0", summary: "one phase" };
    }
    preFreeze() {
      return preFreeze();
    }
  }
  try {
    return component(Only).preFreeze();
  } catch (thrown) {
    return thrown;
  }
}

function query(scripted, read = () => {}) {
  host.on("SELECT 1").answers(scripted);
  return answer(() => {
    read(sql.Connection.open("main").query("SELECT  1"));
    return { consistency: "none" };
  });
}

test("an error of the host that a hook lets pass goes out as the one that fits", () => {
  const database = { code: "1205", message: "too long", retryable: false };
  assert.deepEqual(query(answerError(1205, "HY000", "too long")), { tag: "application", val: database });
  assert.equal(query(answerError(1213, "40001", "deadlock")).val.retryable, true);
  assert.equal(query(lost()).val.code, "connection-lost");
  assert.equal(query(never()).tag, "timeout");
  assert.equal(answer(() => sql.Connection.open("other")).tag, "denied");
  assert.equal(answer(() => process.run("rm")).tag, "denied");
  assert.equal(answer(() => kv.set("", new Uint8Array())).tag, "internal");
});

test("what a hook throws goes out as it is, and a mistake in it is internal", () => {
  const thrown = (error) => answer(() => { throw error; });
  assert.deepEqual(thrown(new Busy("later").context("lock")), { tag: "busy", val: "lock: later" });
  const wrong = { tag: "invalid-settings", val: { pointer: "/a", message: "no" } };
  assert.deepEqual(thrown(new InvalidSettings("/a", "no")), wrong);
  assert.deepEqual(thrown(new ApplicationError(7, "no", { retryable: true })).val, { code: "7", message: "no", retryable: true });
  assert.deepEqual(thrown(new TypeError("x is undefined")), { tag: "internal", val: "TypeError: x is undefined" });
  assert.deepEqual(thrown("just text"), { tag: "internal", val: "just text" });
});

test("settings that are not JSON are the operator's mistake, not the hook's", () => {
  class Any extends Hook {}
  assert.throws(() => component(Any).validate("{"), ({ tag, val }) => tag === "invalid-settings" && val.pointer === "");
});

test("values are read leniently and never wrongly", () => {
  const line = rows(["N", "Text", "On", "Null", "Big", "Bytes"], [1, "2", "ON", null, "9007199254740993", Uint8Array.of(0xc3, 0xbc)]);
  let row;
  assert.equal(query(line, (set) => (row = set.first())).consistency, "none");
  assert.deepEqual([row.integer("n"), row.integer(1), row.boolean("on"), row.isNull("null")], [1, 2, true, true]);
  assert.deepEqual([row.text("n"), row.text("bytes"), row.text("big")], ["1", "ü", "9007199254740993"]);
  for (const read of [() => row.integer("big"), () => row.integer("on"), () => row.text("null"), () => row.text("no")]) {
    assert.throws(read, RowError);
  }
  assert.equal(query(rows(["n"]), (set) => set.first()).val, "RowError: the answer has no row");
});

test("what cannot be sent or saved exactly is refused", () => {
  host.on("SELECT ?").answers(affected(0));
  const session = sql.Connection.open("main");
  assert.throws(() => session.execute("SELECT ?", [2 ** 60]), RangeError);
  assert.throws(() => session.execute("SELECT ?", [{}]), TypeError);
  assert.equal(answer(() => ({ consistency: "none", metadata: { share: 0.5 } })).tag, "internal");
});

test("a statement that times out costs its session, and no more time than it was given", () => {
  host.on("SELECT SLEEP(9)").answers(never());
  const session = sql.Connection.open("main");
  assert.throws(() => session.query("SELECT SLEEP(9)", [], { timeoutMs: 1_000 }), ({ sessionIsGone }) => sessionIsGone);
  assert.equal(run.remainingMs(), 59_000);
  assert.equal(session.isAlive, false);
  session.close();
  session.close();
  assert.deepEqual(host.order(), ["open 1 main", "1 SELECT SLEEP(9)", "killed 1", "close 1"]);
});

test("state has a quota, and what was there stays", () => {
  host.kvBytes = 8;
  kv.set("a", Uint8Array.of(1, 2));
  assert.throws(() => kv.set("b", new Uint8Array(9)), KvError);
  assert.deepEqual(kv.get("a"), Uint8Array.of(1, 2));
  kv.set("A", Uint8Array.of(3));
  assert.deepEqual(kv.keys(), ["A", "a"]);
  kv.delete("a");
  assert.equal(kv.get("a"), undefined);
  assert.deepEqual(kv.keys(), ["A"]);
});
