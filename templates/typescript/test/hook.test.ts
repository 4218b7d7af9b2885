// The hook against a scripted host: no server is needed. `npm test`
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { Busy, SqlError } from "stillpoint-hook";
import { FakeHost, affected, answerError, rows } from "stillpoint-hook/testing";

import { Quiesce, STATEMENTS } from "../src/hook.ts";

const [FILES, , LOCK, UNFINISHED, , POSITION] = STATEMENTS;
const at = (offset: number) => rows(["File", "Position"], ["bin.000001", offset]);

let host: FakeHost;
let hook: Quiesce;

// A server on which nothing stands in the way.
beforeEach(() => {
  host = new FakeHost();
  for (const statement of STATEMENTS) host.on(statement).answers(affected(0));
  const names = ["@@GLOBAL.datadir", "@@GLOBAL.log_bin_basename"];
  host.on(FILES).answers(rows(names, ["/var/lib/mysql/", "/var/log/mysql/bin"]));
  host.on(UNFINISHED).answers(rows(["COUNT(*)"], [0]));
  host.on(POSITION).answers(at(342));
  hook = new Quiesce();
});

test("it locks, notes the position and unlocks", () => {
  assert.deepEqual(hook.prepare({}).paths, ["/var/lib/mysql/", "/var/log/mysql"]);
  const { consistency, metadata } = hook.preFreeze();
  assert.equal(consistency, "application");
  assert.equal(metadata["binlog-position"], 342);
  hook.confirm();
  hook.postThaw("captured");
  hook.finish();
  const order = host.order();
  assert.ok(order.indexOf(`1 ${LOCK}`) < order.lastIndexOf(`1 ${POSITION}`), order.join("\n"));
  assert.deepEqual(order.slice(-2), ["1 UNLOCK TABLES", "close 1"]);
});

test("what it took is given back when a transaction stays open", () => {
  host.on(UNFINISHED).answers(rows(["COUNT(*)"], [1]));
  hook.prepare({});
  assert.throws(() => hook.preFreeze(), Busy);
  assert.equal(host.order().at(-1), "close 1");
  hook.postThaw("aborted");
});

test("a lock that is not granted is an error of the server", () => {
  host.on(LOCK).answers(answerError(1205, "HY000", "Lock wait timeout exceeded"));
  hook.prepare({});
  assert.throws(() => hook.preFreeze(), SqlError);
  assert.equal(host.order().at(-1), "close 1");
});

test("what was written under the lock is told", () => {
  hook.prepare({});
  hook.preFreeze();
  host.on(POSITION).answers(at(999));
  assert.throws(() => hook.confirm(), /was at bin.000001:342 and is at bin.000001:999/);
});
