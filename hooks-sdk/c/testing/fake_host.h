// A host for tests that run natively: it answers from a script and writes down what the hook did.
// Link testing/fake_host.c in place of hook.c.
#ifndef STILLPOINT_FAKE_HOST_H
#define STILLPOINT_FAKE_HOST_H

#include <stddef.h>

// Begins anew: MariaDB behind every connection, 60 s left of the phase, no state, and no statement answered,
// which is to say denied.
void fake_reset(void);
// This statement succeeds and has no rows.
void fake_ok(const char *statement);
// This statement gives one row of texts; NULL is a null.
void fake_row(const char *statement, size_t columns, const char *const *names, const char *const *cells);
// This statement fails with the server's error of that number; the session stays open.
void fake_error(const char *statement, int code, const char *message);
// What the hook did, one after the other: "open main; FLUSH TABLES; close".
const char *fake_calls(void);

#endif
