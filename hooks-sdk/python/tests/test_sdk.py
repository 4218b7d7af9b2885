"""What the SDK makes of answers and errors. ``python3 -m unittest tests.test_sdk``"""

import unittest

from stillpoint_hook import (
    ApplicationError,
    Busy,
    Consistency,
    Frozen,
    Hook,
    InvalidSettings,
    RowError,
    SqlTimeout,
    TooLarge,
    component,
    kv,
    process,
    run,
    sql,
)
from stillpoint_hook._host import Err, types
from stillpoint_hook.testing import FakeHost, affected, database_error, lost, never, rows


def answer(pre_freeze):
    """What goes out of a component whose `pre_freeze` is this."""

    class Only(Hook):
        def pre_freeze(self):
            return pre_freeze()

    try:
        return component(Only)().pre_freeze()
    except Err as error:
        return error.value


def raising(error):
    def pre_freeze():
        raise error

    return answer(pre_freeze)


class TestSdk(unittest.TestCase):
    def setUp(self):
        self.host = FakeHost()
        self.addCleanup(self.host.close)

    def query(self, scripted):
        self.host.on("SELECT 1").answers(scripted)
        return answer(lambda: sql.Connection("main").query("SELECT  1").first())

    def test_an_error_of_the_host_that_a_hook_lets_pass_goes_out_as_the_one_that_fits(self):
        expected = types.HookError_Application(types.AppError("1205", "too long", False))
        self.assertEqual(self.query(database_error(1205, "HY000", "too long")), expected)
        self.assertTrue(self.query(database_error(1213, "40001", "deadlock")).value.retryable)
        self.assertEqual(self.query(lost()).value.code, "connection-lost")
        self.assertIsInstance(self.query(never()), types.HookError_Timeout)
        self.assertIsInstance(answer(lambda: sql.Connection("other")), types.HookError_Denied)
        self.assertIsInstance(answer(lambda: process.run("rm")), types.HookError_Denied)
        self.assertIsInstance(answer(lambda: kv.set("", b"")), types.HookError_Internal)

    def test_what_a_hook_raises_goes_out_as_it_is_and_a_mistake_in_it_is_internal(self):
        self.assertEqual(raising(Busy("later").context("lock")), types.HookError_Busy("lock: later"))
        wrong = types.HookError_InvalidSettings(types.SettingsError("/a", "no"))
        self.assertEqual(raising(InvalidSettings("/a", "no")), wrong)
        expected = types.HookError_Application(types.AppError("7", "no", True))
        self.assertEqual(raising(ApplicationError(7, "no", retryable=True)), expected)
        self.assertEqual(raising(KeyError("x")), types.HookError_Internal("KeyError: 'x'"))
        self.assertEqual(self.query(rows(["n"])), types.HookError_Internal("RowError: the answer has no row"))

    def test_settings_that_are_not_json_are_the_operators_mistake(self):
        with self.assertRaises(Err) as caught:
            component(Hook)().validate("{")
        self.assertEqual(caught.exception.value.value.pointer, "")

    def test_values_are_read_leniently_and_never_wrongly(self):
        names = ["N", "Text", "On", "Null", "Big", "Bytes"]
        self.host.on("SELECT 1").answers(rows(names, [1, "2", "ON", None, "9007199254740993", "ü".encode()]))
        row = sql.Connection("main").query("SELECT 1").first()
        self.assertEqual([row.integer("n"), row.integer(1), row.boolean("on")], [1, 2, True])
        self.assertEqual([row.text("n"), row.text("bytes"), row.integer("big")], ["1", "ü", 9007199254740993])
        self.assertTrue(row.is_null("null"))
        for read, column in ((row.integer, "on"), (row.text, "null"), (row.text, "no"), (row.boolean, "big")):
            self.assertRaises(RowError, read, column)

    def test_what_cannot_be_sent_or_saved_is_refused(self):
        self.host.on("SELECT ?").answers(affected(0))
        self.assertRaises(TypeError, sql.Connection("main").execute, "SELECT ?", [{}])
        refused = answer(lambda: Frozen(Consistency.NONE, {"share": 0.5}))
        self.assertIsInstance(refused, types.HookError_Internal)

    def test_a_statement_that_times_out_costs_its_session_and_no_more_time_than_it_was_given(self):
        self.host.on("SELECT SLEEP(9)").answers(never())
        session = sql.Connection("main")
        self.assertRaises(SqlTimeout, session.query, "SELECT SLEEP(9)", timeout=1.0)
        self.assertEqual(run.remaining(), 59.0)
        self.assertFalse(session.is_alive)
        session.close()
        session.close()
        self.assertEqual(self.host.order, ["open 1 main", "1 SELECT SLEEP(9)", "killed 1", "close 1"])

    def test_state_has_a_quota_and_what_was_there_stays(self):
        self.host.state_bytes = 8
        kv.set("a", b"12")
        self.assertRaises(TooLarge, kv.set, "b", b"123456789")
        self.assertEqual(kv.get("a"), b"12")
        kv.set("A", b"3")
        self.assertEqual(kv.keys(), ["A", "a"])
        kv.delete("a")
        self.assertIsNone(kv.get("a"))
        self.assertEqual(kv.keys(), ["A"])


if __name__ == "__main__":
    unittest.main()
