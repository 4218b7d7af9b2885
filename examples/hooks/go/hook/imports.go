//go:build wasip1

package hook

import (
	"fmt"
	"runtime"
	"strconv"
	"time"
	"unsafe"
)

//go:wasmimport stillpoint:hook/sql@0.1.1 open
func sqlOpen(name unsafe.Pointer, length uint32, result unsafe.Pointer)

//go:wasmimport stillpoint:hook/sql@0.1.1 [method]connection.info
func sqlInfo(session uint32, result unsafe.Pointer)

//go:wasmimport stillpoint:hook/sql@0.1.1 [method]connection.query
func sqlQuery(session uint32, statement unsafe.Pointer, length uint32, params unsafe.Pointer, count uint32, hasTimeout uint32, timeout uint64, result unsafe.Pointer)

//go:wasmimport stillpoint:hook/sql@0.1.1 [resource-drop]connection
func sqlClose(session uint32)

//go:wasmimport stillpoint:hook/run@0.1.1 remaining
func runRemaining() uint64

//go:wasmimport stillpoint:hook/run@0.1.1 cancelled
func runCancelled() uint32

//go:wasmimport stillpoint:hook/run@0.1.1 sleep
func runSleep(nanoseconds uint64)

// Remaining is what is left of this phase before the host interrupts the hook. There is no other clock.
func Remaining() time.Duration { return time.Duration(runRemaining()) }

// Cancelled is true once the operator asked to stop: unwind now.
func Cancelled() bool { return runCancelled() != 0 }

// Sleep waits; it ends early on cancellation, and with the phase.
func Sleep(duration time.Duration) { runSleep(uint64(max(duration, 0))) }

// Engine is what kind of server is behind a session.
type Engine uint8

// The engines, in the contract's order.
const (
	MySQL Engine = iota
	MariaDB
	PostgreSQL
	SQLite
	MSSQL
	Oracle
	OtherEngine
)

// Session is a session at a database server. Its locks live as long as it does.
type Session struct{ handle uint32 }

// Open opens a session to what the operator calls name. Bounded by the operator's connect time-out and by
// the phase.
func Open(name string) (*Session, error) {
	result, place := answer(36)
	sqlOpen(unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), place)
	runtime.KeepAlive(name)
	if result.u8(0) != 0 {
		return nil, sqlError(result[4:])
	}
	return &Session{result.u32(4)}, nil
}

// Info is what the server said it is.
func (s *Session) Info() (Engine, string) {
	result, place := answer(12)
	sqlInfo(s.handle, place)
	return Engine(result.u8(0)), result.text(4)
}

// Query runs a statement, granted as a whole text, and gives its rows: each value as text, by the name of
// its column; a null is not there. A timeout of 0 is the phase's own. An answer that the host had to cut
// short is an error.
func (s *Session) Query(statement string, timeout time.Duration) ([]map[string]string, error) {
	result, place := answer(36)
	var bounded uint32
	if timeout != 0 {
		bounded = 1
	}
	text := unsafe.Pointer(unsafe.StringData(statement))
	sqlQuery(s.handle, text, uint32(len(statement)), nil, 0, bounded, uint64(max(timeout, 0)), place)
	runtime.KeepAlive(statement)
	if result.u8(0) != 0 {
		return nil, sqlError(result[4:])
	}
	return rows(result[4:])
}

// Close ends the session: the server then releases what it held, once it has noticed.
func (s *Session) Close() { sqlClose(s.handle) }

func answer(size uint32) (record, unsafe.Pointer) {
	bytes, _ := block(size)
	return record(bytes), unsafe.Pointer(&bytes[0])
}

func rows(set record) ([]map[string]string, error) {
	if set.u8(16) != 0 {
		return nil, &Error{Kind: Internal, Message: "the host cut the answer short"}
	}
	columns := set.list(0, 16)
	var all []map[string]string
	for _, values := range set.list(8, 8) {
		row := map[string]string{}
		for index, value := range values.list(0, 16) {
			if text, isThere := valueText(value); isThere {
				row[columns[index].text(0)] = text
			}
		}
		all = append(all, row)
	}
	return all, nil
}

func valueText(value record) (string, bool) {
	switch value.u8(0) {
	case 0:
		return "", false
	case 1:
		return strconv.FormatBool(value.u8(8) != 0), true
	case 2:
		return strconv.FormatInt(value.i64(8), 10), true
	case 3:
		return strconv.FormatUint(uint64(value.i64(8)), 10), true
	case 4:
		return "", false // No lock or position is a fraction.
	default:
		return value.text(8), true
	}
}

// sqlError is the contract's `sql.error` as what the hook then returns.
func sqlError(cause record) error {
	switch cause.u8(0) {
	case 0:
		return &Error{Kind: Denied, Message: cause.text(4)}
	case 1:
		return &Error{Kind: Application, Code: "unavailable", Message: cause.text(4), Retryable: true}
	case 2:
		return &Error{Kind: Timeout, Message: "the server did not answer in time; its session is closed"}
	case 3:
		return &Error{Kind: Internal, Message: "the session is gone: " + cause.text(4)}
	case 4:
		code := int32(cause.u32(12))
		return &Error{Kind: Application, Code: fmt.Sprint(code), Message: cause.text(16)}
	default:
		return &Error{Kind: Internal, Message: cause.text(4)}
	}
}
