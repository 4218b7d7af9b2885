"""The hook against a scripted host: no server is needed. `python3 -m unittest`"""

import unittest

from app import FILES, LOCK, POSITION, STATEMENTS, UNFINISHED, Quiesce
from stillpoint_hook import Busy, Internal, Outcome, SqlError
from stillpoint_hook.testing import FakeHost, affected, database_error, rows


def at(offset):
    return rows(["File", "Position"], ["bin.000001", offset])


class TestQuiesce(unittest.TestCase):
    def setUp(self):
        """A server on which nothing stands in the way."""
        self.host = FakeHost()
        self.addCleanup(self.host.close)
        for statement in STATEMENTS:
            self.host.on(statement).answers(affected(0))
        names = ["@@GLOBAL.datadir", "@@GLOBAL.log_bin_basename"]
        self.host.on(FILES).answers(rows(names, ["/var/lib/mysql/", "/var/log/mysql/bin"]))
        self.host.on(UNFINISHED).answers(rows(["COUNT(*)"], [0]))
        self.host.on(POSITION).answers(at(342))
        self.hook = Quiesce()

    def test_it_locks_notes_the_position_and_unlocks(self):
        self.assertEqual(list(self.hook.prepare({}).paths), ["/var/lib/mysql/", "/var/log/mysql"])
        self.assertEqual(self.hook.pre_freeze().metadata["binlog-position"], 342)
        self.hook.confirm()
        self.hook.post_thaw(Outcome.CAPTURED)
        self.hook.finish()
        order = self.host.order
        self.assertLess(order.index(f"1 {LOCK}"), len(order) - order[::-1].index(f"1 {POSITION}"))
        self.assertEqual(order[-2:], ["1 UNLOCK TABLES", "close 1"])

    def test_what_it_took_is_given_back_when_a_transaction_stays_open(self):
        self.host.on(UNFINISHED).answers(rows(["COUNT(*)"], [1]))
        self.hook.prepare({})
        self.assertRaises(Busy, self.hook.pre_freeze)
        self.assertEqual(self.host.order[-1], "close 1")
        self.hook.post_thaw(Outcome.ABORTED)

    def test_a_lock_that_is_not_granted_is_an_error_of_the_server(self):
        self.host.on(LOCK).answers(database_error(1205, "HY000", "Lock wait timeout exceeded"))
        self.hook.prepare({})
        self.assertRaises(SqlError, self.hook.pre_freeze)
        self.assertEqual(self.host.order[-1], "close 1")

    def test_what_was_written_under_the_lock_is_told(self):
        self.hook.prepare({})
        self.hook.pre_freeze()
        self.host.on(POSITION).answers(at(999))
        self.assertRaisesRegex(Internal, "bin.000001', 342.* and is at .*999", self.hook.confirm)


if __name__ == "__main__":
    unittest.main()
