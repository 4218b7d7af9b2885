// Package quiesce locks MariaDB while the snapshot is taken, and notes where the binary log stood. The lock
// belongs to the session, so that it ends with the hook, whatever happens to either.
//
// It knows the host only by two interfaces, so that it is tested natively; README.md says what is between
// them and the component.
package quiesce

import (
	"errors"
	"fmt"
	"path"
	"time"
)

// What the hook asks for, whole and exact: the operator grants these texts, and the host sends no other.
const (
	Files        = "SELECT @@GLOBAL.datadir, @@GLOBAL.log_bin_basename"
	BoundTheWait = "SET SESSION lock_wait_timeout = 5"
	Lock         = "FLUSH TABLES WITH READ LOCK"
	Unfinished   = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0"
	FlushLogs    = "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS"
	Where        = "SHOW MASTER STATUS"
	Unlock       = "UNLOCK TABLES"
)

// Statements is all of them.
var Statements = []string{Files, BoundTheWait, Lock, Unfinished, FlushLogs, Where, Unlock}

// How often the lock is tried while transactions are open under it, and the pause between.
const (
	tries = 10
	pause = 150 * time.Millisecond
	// Nothing is begun with less than this left of the phase: it is for giving back.
	reserve = 2 * time.Second
)

// Errors that the contract has a case for; the others are its `internal`.
var (
	ErrNotApplicable = errors.New("not applicable")
	ErrBusy          = errors.New("busy")
)

// Session is one session at the server: `sql.connection`.
type Session interface {
	// Query gives the rows; a timeout of 0 is the phase's own.
	Query(statement string, timeout time.Duration) ([]map[string]string, error)
	Close()
}

// Host is what the hook asks of its host besides.
type Host interface {
	Open(connection string) (Session, error)
	Remaining() time.Duration
	Cancelled() bool
	Sleep(time.Duration)
}

// Position is a place in the binary log. Every commit moves it.
type Position struct{ File, Offset string }

// Hook lives through one run.
type Hook struct {
	Host    Host
	session Session
	heldAt  *Position
}

// Prepare finds out everything that can be found out before anything is held: the directories that must be
// in the snapshot.
func (h *Hook) Prepare(connection string) ([]string, error) {
	session, err := h.Host.Open(connection)
	if err != nil {
		return nil, err
	}
	h.session = session
	row, err := h.one(Files)
	if err != nil {
		return nil, err
	}
	log := row["@@GLOBAL.log_bin_basename"]
	if log == "" {
		return nil, fmt.Errorf("%w: the server writes no binary log: set log_bin", ErrNotApplicable)
	}
	return []string{row["@@GLOBAL.datadir"], path.Dir(log)}, nil
}

// PreFreeze takes the lock with no transaction open under it: a copy would roll that back. On an error
// nothing is held any more.
func (h *Hook) PreFreeze() (Position, error) {
	position, err := h.quiesce()
	if err != nil {
		_ = h.PostThaw()
		return Position{}, err
	}
	h.heldAt = &position
	return position, nil
}

func (h *Hook) quiesce() (Position, error) {
	if err := h.run(BoundTheWait, 0); err != nil {
		return Position{}, err
	}
	for range tries {
		if err := h.run(Lock, h.Host.Remaining()-reserve); err != nil {
			return Position{}, err
		}
		row, err := h.one(Unfinished)
		if err != nil {
			return Position{}, err
		}
		if row["COUNT(*)"] == "0" {
			// What was committed is in the binary log; with this it is in InnoDB's files, too.
			if err := h.run(FlushLogs, h.Host.Remaining()-reserve); err != nil {
				return Position{}, err
			}
			return h.position()
		}
		if err := h.run(Unlock, 0); err != nil {
			return Position{}, err
		}
		if h.Host.Cancelled() || h.Host.Remaining()-reserve <= pause {
			break
		}
		h.Host.Sleep(pause)
	}
	return Position{}, fmt.Errorf("%w: transactions were open whenever the lock was granted: try later", ErrBusy)
}

// Confirm proves that the session that locked still answers, and that nothing was written meanwhile.
func (h *Hook) Confirm() error {
	if h.heldAt == nil {
		return errors.New("nothing is quiesced")
	}
	now, err := h.position()
	if err != nil {
		return err
	}
	if now != *h.heldAt {
		return fmt.Errorf("the lock did not hold: the binary log was at %v and is at %v", *h.heldAt, now)
	}
	return nil
}

// PostThaw releases. It is called whenever PreFreeze was, also when that failed: nothing left to do is a
// success.
func (h *Hook) PostThaw() error {
	if h.session == nil {
		return nil
	}
	err := h.run(Unlock, 0)
	h.session.Close()
	h.session = nil
	return err
}

func (h *Hook) position() (Position, error) {
	row, err := h.one(Where)
	return Position{row["File"], row["Position"]}, err
}

func (h *Hook) run(statement string, timeout time.Duration) error {
	if h.session == nil {
		return errors.New("no session is open")
	}
	_, err := h.session.Query(statement, timeout)
	return err
}

func (h *Hook) one(statement string) (map[string]string, error) {
	if h.session == nil {
		return nil, errors.New("no session is open")
	}
	rows, err := h.session.Query(statement, 0)
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("%s: no row", statement)
	}
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}
