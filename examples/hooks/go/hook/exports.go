//go:build wasip1

// Package hook is between a hook in Go and its host: the functions of the contract (wit/hook.wit), lifted and
// lowered by hand as the component model's canonical ABI has them. Only what the hook of this template uses
// is here; programs, state, parameters and the log would be added in the same way.
package hook

import (
	"errors"
	"unsafe"
)

// Kind is why a hook fails; the operator's policy depends on it.
type Kind uint8

// The cases of `hook-error`, in the contract's order.
const (
	InvalidSettings Kind = iota
	NotApplicable
	Denied
	Busy
	Timeout
	Application
	Internal
)

// Error is what a function of a hook returns. Any other error is Internal, with its text.
type Error struct {
	Kind    Kind
	Message string
	// Of the application, or a JSON Pointer to the setting.
	Code      string
	Retryable bool
}

func (e *Error) Error() string { return e.Message }

// Description is what the hook is and what it asks for.
type Description struct {
	Name, Version, Summary string
	// JSON Schema of the settings.
	Schema         string
	FreezeBudgetMs uint32
	Needs          []SQLNeed
}

// SQLNeed asks for statements, as whole texts, on a connection of the operator's.
type SQLNeed struct {
	Connection string
	Engines    []Engine
	Statements []string
	Reason     string
}

// Plan is what Prepare found out.
type Plan struct {
	Paths   []string
	Summary string
}

// Entry is something for the manifest: a text or, without one, a number.
type Entry struct {
	Key, Text string
	Number    int64
}

// Hook is what a hook implements; one value lives through one run. What each function may do, its deadline
// and what an error means: wit/hook.wit.
type Hook interface {
	Describe() Description
	Prepare(settings string) (Plan, error)
	// PreFreeze quiesces: the snapshot then counts as the application's.
	PreFreeze() ([]Entry, error)
	Confirm() error
	PostThaw() error
	Finish() error
}

// Exported is the hook: set it in init, before the host calls anything.
var Exported Hook

//go:wasmexport stillpoint:hook/lifecycle@0.1.1#describe
func describe() uint32 {
	is := Exported.Describe()
	bytes, place := block(44)
	out := record(bytes)
	out.putText(0, is.Name)
	out.putText(8, is.Version)
	out.putText(16, is.Summary)
	out.putText(24, is.Schema)
	for index, need := range out.putList(32, len(is.Needs), 40) {
		is := is.Needs[index]
		need.putU8(0, 0)
		need.putText(4, is.Connection)
		for at, engine := range need.putList(12, len(is.Engines), 1) {
			engine.putU8(0, uint8(is.Engines[at]))
		}
		need.putTexts(20, is.Statements)
		need.putText(28, is.Reason)
		need.putBool(36, true)
	}
	out.putU32(40, is.FreezeBudgetMs)
	return place
}

//go:wasmexport stillpoint:hook/lifecycle@0.1.1#validate
func validate(_ unsafe.Pointer, _ uint32) uint32 { return told(nil, nil) }

//go:wasmexport stillpoint:hook/lifecycle@0.1.1#prepare
func prepare(settings unsafe.Pointer, length uint32) uint32 {
	plan, err := Exported.Prepare(string(at(address(settings), length)))
	return told(err, func(out record) {
		out.putTexts(0, plan.Paths)
		out.putText(8, plan.Summary)
	})
}

//go:wasmexport stillpoint:hook/lifecycle@0.1.1#pre-freeze
func preFreeze() uint32 {
	entries, err := Exported.PreFreeze()
	return told(err, func(out record) {
		out.putU8(0, 1) // application
		for index, entry := range out.putList(4, len(entries), 24) {
			is := entries[index]
			entry.putText(0, is.Key)
			if is.Text != "" {
				entry.putU8(8, 0)
				entry.putText(16, is.Text)
			} else {
				entry.putU8(8, 1)
				entry.putI64(16, is.Number)
			}
		}
	})
}

//go:wasmexport stillpoint:hook/lifecycle@0.1.1#confirm
func confirm() uint32 { return told(Exported.Confirm(), nil) }

//go:wasmexport stillpoint:hook/lifecycle@0.1.1#post-thaw
func postThaw(_ uint32) uint32 {
	return told(Exported.PostThaw(), func(out record) { out.putList(0, 0, 24) })
}

//go:wasmexport stillpoint:hook/lifecycle@0.1.1#finish
func finish() uint32 { return told(Exported.Finish(), nil) }

// told is a result in memory: what `good` writes, or the error.
func told(err error, good func(record)) uint32 {
	bytes, place := block(28)
	out := record(bytes)
	if err == nil {
		if good != nil {
			good(out[4:])
		}
		return place
	}
	out.putU8(0, 1)
	is := &Error{Kind: Internal, Message: err.Error()}
	if known := (*Error)(nil); errors.As(err, &known) {
		is = &Error{known.Kind, err.Error(), known.Code, known.Retryable}
	}
	out.putU8(4, uint8(is.Kind))
	switch is.Kind {
	case InvalidSettings:
		out.putText(8, is.Code)
		out.putText(16, is.Message)
	case Application:
		out.putText(8, is.Code)
		out.putText(16, is.Message)
		out.putBool(24, is.Retryable)
	default:
		out.putText(8, is.Message)
	}
	return place
}

// The host has read the result: what was made for the call may go.

//go:wasmexport cabi_post_stillpoint:hook/lifecycle@0.1.1#describe
func afterDescribe(_ uint32) { alive = nil }

//go:wasmexport cabi_post_stillpoint:hook/lifecycle@0.1.1#validate
func afterValidate(_ uint32) { alive = nil }

//go:wasmexport cabi_post_stillpoint:hook/lifecycle@0.1.1#prepare
func afterPrepare(_ uint32) { alive = nil }

//go:wasmexport cabi_post_stillpoint:hook/lifecycle@0.1.1#pre-freeze
func afterPreFreeze(_ uint32) { alive = nil }

//go:wasmexport cabi_post_stillpoint:hook/lifecycle@0.1.1#confirm
func afterConfirm(_ uint32) { alive = nil }

//go:wasmexport cabi_post_stillpoint:hook/lifecycle@0.1.1#post-thaw
func afterPostThaw(_ uint32) { alive = nil }

//go:wasmexport cabi_post_stillpoint:hook/lifecycle@0.1.1#finish
func afterFinish(_ uint32) { alive = nil }
