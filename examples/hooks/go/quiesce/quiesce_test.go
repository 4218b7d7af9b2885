package quiesce

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

type server struct {
	open  string
	at    string
	calls []string
}

func (s *server) Open(name string) (Session, error) {
	s.calls = append(s.calls, "open "+name)
	return s, nil
}
func (s *server) Close()                   { s.calls = append(s.calls, "close") }
func (s *server) Remaining() time.Duration { return time.Minute }
func (s *server) Cancelled() bool          { return false }
func (s *server) Sleep(time.Duration)      {}

func (s *server) Query(statement string, _ time.Duration) ([]map[string]string, error) {
	s.calls = append(s.calls, statement)
	switch statement {
	case Files:
		return []map[string]string{{"@@GLOBAL.datadir": "/var/lib/mysql/", "@@GLOBAL.log_bin_basename": "/var/log/mysql/bin"}}, nil
	case Unfinished:
		return []map[string]string{{"COUNT(*)": s.open}}, nil
	case Where:
		return []map[string]string{{"File": "bin.000001", "Position": s.at}}, nil
	}
	return nil, nil
}

func prepared(t *testing.T, s *server) *Hook {
	hook := &Hook{Host: s}
	paths, err := hook.Prepare("main")
	if err != nil || !reflect.DeepEqual(paths, []string{"/var/lib/mysql/", "/var/log/mysql"}) {
		t.Fatal(paths, err)
	}
	return hook
}

func (s *server) last() []string { return s.calls[len(s.calls)-2:] }

func TestItLocksNotesThePositionAndUnlocks(t *testing.T) {
	s := &server{open: "0", at: "342"}
	hook := prepared(t, s)
	position, err := hook.PreFreeze()
	if err != nil || position != (Position{"bin.000001", "342"}) {
		t.Fatal(position, err)
	}
	if err := errors.Join(hook.Confirm(), hook.PostThaw(), hook.PostThaw()); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s.last(), []string{Unlock, "close"}) {
		t.Fatal(s.calls)
	}
}

func TestWhatItTookIsGivenBackWhenATransactionStaysOpen(t *testing.T) {
	s := &server{open: "1"}
	hook := prepared(t, s)
	if _, err := hook.PreFreeze(); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s.last(), []string{Unlock, "close"}) {
		t.Fatal(s.calls)
	}
}

func TestWhatWasWrittenUnderTheLockIsTold(t *testing.T) {
	s := &server{open: "0", at: "342"}
	hook := prepared(t, s)
	_, _ = hook.PreFreeze()
	s.at = "999"
	if hook.Confirm() == nil {
		t.Fatal("it was not told")
	}
}
