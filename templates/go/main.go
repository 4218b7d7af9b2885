//go:build wasip1

// The hook of quiesce/ as a component: what it is and asks for, and the host behind its two interfaces.
package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"{{name}}/hook"
	"{{name}}/quiesce"
)

// There is no main program: the host calls what package hook exports.
func main() {}

func init() { hook.Exported = &lock{quiesce.Hook{Host: host{}}} }

const connection = "main"

type lock struct{ quiesce.Hook }

func (l *lock) Describe() hook.Description {
	return hook.Description{
		Name:           "{{name}}",
		Version:        "0.1.0",
		Summary:        "Locks MariaDB, and saves where its binary log stands",
		Schema:         `{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false}`,
		FreezeBudgetMs: 20_000,
		Needs: []hook.SQLNeed{{
			Connection: connection,
			Engines:    []hook.Engine{hook.MariaDB},
			Statements: quiesce.Statements,
			Reason:     "to find its files, to stop writes while the snapshot is taken, and to let them go on",
		}},
	}
}

func (l *lock) Prepare(string) (hook.Plan, error) {
	paths, err := l.Hook.Prepare(connection)
	return hook.Plan{Paths: paths, Summary: "MariaDB"}, typed(err)
}

func (l *lock) PreFreeze() ([]hook.Entry, error) {
	position, err := l.Hook.PreFreeze()
	if err != nil {
		return nil, typed(err)
	}
	offset, err := strconv.ParseInt(position.Offset, 10, 64)
	if err != nil {
		_ = l.Hook.PostThaw()
		return nil, fmt.Errorf("the position is no number: %w", err)
	}
	return []hook.Entry{
		{Key: "binlog-file", Text: position.File},
		{Key: "binlog-position", Number: offset},
	}, nil
}

func (l *lock) Confirm() error  { return typed(l.Hook.Confirm()) }
func (l *lock) PostThaw() error { return typed(l.Hook.PostThaw()) }

// The lock is the session's, so that there is nothing to undo across instances.
func (l *lock) Finish() error { return typed(l.Hook.PostThaw()) }

// typed gives the errors that quiesce knows their case of the contract; those of the host have one.
func typed(err error) error {
	switch {
	case errors.Is(err, quiesce.ErrBusy):
		return &hook.Error{Kind: hook.Busy, Message: err.Error()}
	case errors.Is(err, quiesce.ErrNotApplicable):
		return &hook.Error{Kind: hook.NotApplicable, Message: err.Error()}
	default:
		return err
	}
}

// host is quiesce's world: that of the component.
type host struct{}

func (host) Open(name string) (quiesce.Session, error) {
	session, err := hook.Open(name)
	if err != nil {
		return nil, err
	}
	if engine, version := session.Info(); engine != hook.MariaDB {
		session.Close()
		return nil, fmt.Errorf("%w: %s is not MariaDB", quiesce.ErrNotApplicable, version)
	}
	return session, nil
}

func (host) Remaining() time.Duration     { return hook.Remaining() }
func (host) Cancelled() bool              { return hook.Cancelled() }
func (host) Sleep(duration time.Duration) { hook.Sleep(duration) }
