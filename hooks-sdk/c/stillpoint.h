// Write stillpoint hooks in C: what `hook.h`, the generated side of the contract, says in long words.
//
// Every function that can fail returns false and fills the error that the hook then returns as its own.
// What a hook returns is allocated (`hook_string_dup` and the functions here do that), and freed by the
// generated code. Times are nanoseconds. There is no clock, file, socket or environment: keep printf out,
// and use `stillpoint_hook_run_remaining` and `stillpoint_hook_run_sleep` for time.
#ifndef STILLPOINT_H
#define STILLPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hook.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SP_MILLISECOND UINT64_C(1000000)
#define SP_SECOND UINT64_C(1000000000)
// Only the phase's own deadline bounds the call (or the operator's limit for the connection, if less).
#define SP_NO_TIMEOUT UINT64_MAX

// Errors ------------------------------------------------------------------------------------------

typedef stillpoint_hook_types_hook_error_t sp_error;

// Why a hook fails. The operator's policy depends on it: see `hook-error` in the WIT.
typedef enum {
  SP_NOT_APPLICABLE = STILLPOINT_HOOK_TYPES_HOOK_ERROR_NOT_APPLICABLE,
  SP_DENIED = STILLPOINT_HOOK_TYPES_HOOK_ERROR_DENIED,
  SP_BUSY = STILLPOINT_HOOK_TYPES_HOOK_ERROR_BUSY,
  SP_TIMEOUT = STILLPOINT_HOOK_TYPES_HOOK_ERROR_TIMEOUT,
  SP_INTERNAL = STILLPOINT_HOOK_TYPES_HOOK_ERROR_INTERNAL,
} sp_kind;

// Fills the error with the texts one after the other, up to a NULL. Always false: `return sp_fail(…)`.
bool sp_fail(sp_error *error, sp_kind kind, const char *text, ...);
// The setting at `pointer` (a JSON Pointer, "" for all of them) is wrong. Always false.
bool sp_fail_setting(sp_error *error, const char *pointer, const char *message);
// The application answered with an error; `code` is its own. Always false.
bool sp_fail_application(sp_error *error, const char *code, const char *message, bool retryable);

// Database sessions -------------------------------------------------------------------------------

// A session at a server. Its locks live as long as it does; one that is all zero is closed.
typedef struct {
  stillpoint_hook_sql_own_connection_t handle;
  bool open;
} sp_session;

// Opens a session to what the operator calls `name`. SP_DENIED: not granted, or not in this phase.
// Application error "unavailable": server down, refused, wrong credentials. Bounded by the operator's
// connect time-out and by the phase.
bool sp_open(sp_session *session, const char *name, sp_error *error);
// Closes it, if it is open: the server then releases what it held, once it has noticed.
void sp_close(sp_session *session);
// Whether it is still the one that took the locks: the host asks the server.
bool sp_is_alive(const sp_session *session);
// What the server said it is. `hook_string_free` the version.
void sp_info(const sp_session *session, stillpoint_hook_sql_server_info_t *info);
// Runs a statement, granted as a whole text, and throws its rows away. SP_TIMEOUT: the host has
// cancelled it and closed the session, with its locks; close it, too.
bool sp_execute(const sp_session *session, const char *statement, uint64_t timeout, sp_error *error);

typedef stillpoint_hook_sql_row_set_t sp_rows;

// Runs a statement and gives its rows: `sp_rows_free` them. An answer that the host had to cut short is
// an error.
bool sp_query(const sp_session *session, const char *statement, uint64_t timeout, sp_rows *rows,
              sp_error *error);
void sp_rows_free(sp_rows *rows);
// Where the column of that name is; the number of columns if there is none.
size_t sp_column(const sp_rows *rows, const char *name);
bool sp_is_null(const sp_rows *rows, size_t row, size_t column);
// A text of the answer, as a C string to be freed with `free`. Numbers are no texts.
bool sp_text(const sp_rows *rows, size_t row, size_t column, char **text, sp_error *error);
// A number of the answer; a text that is a number counts (SHOW gives nothing else).
bool sp_integer(const sp_rows *rows, size_t row, size_t column, int64_t *number, sp_error *error);

// Durable state ---------------------------------------------------------------------------------

// For what a fresh instance must know to undo what an earlier one did: keep it first, then act. Asked for
// with sp_needs_kv; SP_DENIED without it, and SP_INTERNAL if it is too large or cannot be kept in time: what
// was there counts. Keys have 1 to 128 bytes.

// The bytes under a key, to be freed with `free`; NULL if there is none.
bool sp_kv_get(const char *key, uint8_t **bytes, size_t *length, sp_error *error);
// Replaces what was there. Durable when it returns.
bool sp_kv_set(const char *key, const uint8_t *bytes, size_t length, sp_error *error);
// Deleting what is not there is no error.
bool sp_kv_delete(const char *key, sp_error *error);
// The keys that are there, sorted: by them `finish` in a fresh instance sees what was begun.
// `hook_list_string_free` them. Since version 0.1.1 of the contract.
bool sp_kv_keys(hook_list_string_t *keys, sp_error *error);

// What a hook returns -----------------------------------------------------------------------------

typedef exports_stillpoint_hook_lifecycle_description_t sp_description;
typedef exports_stillpoint_hook_lifecycle_plan_t sp_plan;
typedef exports_stillpoint_hook_lifecycle_frozen_t sp_frozen;
typedef exports_stillpoint_hook_lifecycle_list_metadata_entry_t sp_metadata;

// A hook that asks for nothing, and for 10 s a phase. `schema`: JSON Schema of its settings.
void sp_describe(sp_description *description, const char *name, const char *version,
                 const char *summary, const char *schema);
// It needs these statements, whole texts, on a connection to such a server; `reason` is for the operator.
void sp_needs_sql(sp_description *description, const char *connection,
                  stillpoint_hook_sql_engine_t engine, const char *const *statements, size_t count,
                  const char *reason);
// It needs so many bytes of durable state.
void sp_needs_kv(sp_description *description, uint32_t bytes, const char *reason);
// A path whose file system must be in the snapshot.
void sp_plan_path(sp_plan *plan, const char *path);
// For the manifest; keys in kebab-case, no secrets.
void sp_metadata_text(sp_metadata *metadata, const char *key, const char *text);
void sp_metadata_integer(sp_metadata *metadata, const char *key, int64_t number);
// The key under which pre-freeze says, in nanoseconds, how long it held the application already.
#define SP_HELD_BEFORE_FREEZE "held-before-freeze-ns"

// Settings, time, log -----------------------------------------------------------------------------

// The string member `key` of the settings, to be freed with `free`; `fallback` if there is none. Escapes
// other than \" \\ and \/ are refused.
bool sp_setting_text(const hook_string_t *settings, const char *key, const char *fallback, char **text,
                     sp_error *error);
// What is left of the phase, less what is to be kept for giving back; 0 if that is nothing.
uint64_t sp_remaining_but(uint64_t reserve);
// A line for the operator.
void sp_log(stillpoint_hook_log_level_t level, const char *message);

#ifdef __cplusplus
}
#endif
#endif
