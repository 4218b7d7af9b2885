// Quiesces MariaDB: a global read lock, from before the freeze until after the thaw, and where the binary
// log stood meanwhile. The lock belongs to the session, so that it ends with the hook, whatever happens to
// either.
#include <stdlib.h>
#include <string.h>

#include "stillpoint.h"

// What the hook asks for, whole and exact: the operator grants these texts, and the host sends no other.
#define FILES "SELECT @@GLOBAL.datadir, @@GLOBAL.log_bin_basename"
#define BOUND_THE_WAIT "SET SESSION lock_wait_timeout = 5"
#define LOCK "FLUSH TABLES WITH READ LOCK"
#define UNFINISHED "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0"
#define FLUSH_LOGS "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS"
#define POSITION "SHOW MASTER STATUS"
#define UNLOCK "UNLOCK TABLES"
static const char *const STATEMENTS[] = {FILES,      BOUND_THE_WAIT, LOCK,  UNFINISHED,
                                         FLUSH_LOGS, POSITION,       UNLOCK};

static const char SCHEMA[] =
    "{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\", \"type\": \"object\","
    " \"additionalProperties\": false, \"properties\": {\"connection\": {\"type\": \"string\","
    " \"description\": \"The connection to lock: a name that the grant has under [[sql]]\","
    " \"default\": \"main\"}}}";

// How often the lock is tried while transactions are open under it, and the pause between: InnoDB answers
// from a cache that is up to 0.1 s old.
#define TRIES 10
#define PAUSE (150 * SP_MILLISECOND)
// Nothing is begun with less than this left of the phase: it is for giving back.
#define RESERVE (2 * SP_SECOND)

// A place in the binary log. Every commit moves it.
typedef struct {
  char *file;
  int64_t offset;
} position;

// One instance serves one run, so the run's state is here.
static sp_session session;
static position held_at;

static bool ask_position(position *at, sp_error *error) {
  sp_rows rows;
  if (!sp_query(&session, POSITION, SP_NO_TIMEOUT, &rows, error)) return false;
  bool ok = sp_text(&rows, 0, sp_column(&rows, "File"), &at->file, error);
  if (ok && !sp_integer(&rows, 0, sp_column(&rows, "Position"), &at->offset, error)) {
    free(at->file);
    ok = false;
  }
  sp_rows_free(&rows);
  return ok;
}

void exports_stillpoint_hook_lifecycle_describe(sp_description *ret) {
  sp_describe(ret, "{{name}}", "0.1.0", "Locks MariaDB, and saves where its binary log stands", SCHEMA);
  ret->freeze_budget_ms = 20000;
  sp_needs_sql(ret, "main", STILLPOINT_HOOK_SQL_ENGINE_MARIADB, STATEMENTS,
               sizeof STATEMENTS / sizeof *STATEMENTS,
               "to find its files, to stop writes while the snapshot is taken, and to let them go on");
}

// The one setting, to be freed.
static bool connection_name(const hook_string_t *settings, char **name, sp_error *error) {
  if (!sp_setting_text(settings, "connection", "main", name, error)) return false;
  if (**name != '\0') return true;
  free(*name);
  return sp_fail_setting(error, "/connection", "the name of a connection is wanted");
}

bool exports_stillpoint_hook_lifecycle_validate(hook_string_t *settings, sp_error *err) {
  char *name;
  if (!connection_name(settings, &name, err)) return false;
  free(name);
  return true;
}

// The directories that must be in the snapshot.
static bool find_files(sp_plan *plan, sp_error *error) {
  sp_rows rows;
  char *data = NULL, *log = NULL;
  if (!sp_query(&session, FILES, SP_NO_TIMEOUT, &rows, error)) return false;
  bool ok = !sp_is_null(&rows, 0, 1) ||
            sp_fail(error, SP_NOT_APPLICABLE, "the server writes no binary log: set log_bin", NULL);
  ok = ok && sp_text(&rows, 0, 0, &data, error) && sp_text(&rows, 0, 1, &log, error);
  if (ok) {
    char *slash = strrchr(log, '/');
    if (slash != NULL) *slash = '\0';
    sp_plan_path(plan, data);
    sp_plan_path(plan, slash == NULL || slash == log ? "/" : log);
  }
  free(data);
  free(log);
  sp_rows_free(&rows);
  return ok;
}

// Everything that can be found out before anything is held.
bool exports_stillpoint_hook_lifecycle_prepare(hook_string_t *settings, sp_plan *ret, sp_error *err) {
  char *name;
  stillpoint_hook_sql_server_info_t server;
  memset(ret, 0, sizeof *ret);
  if (!connection_name(settings, &name, err)) return false;
  bool ok = sp_open(&session, name, err);
  free(name);
  if (!ok) return false;
  sp_info(&session, &server);
  bool is_mariadb = server.engine == STILLPOINT_HOOK_SQL_ENGINE_MARIADB;
  hook_string_free(&server.version);
  if (!is_mariadb) return sp_fail(err, SP_NOT_APPLICABLE, "the server is not MariaDB", NULL);
  hook_string_dup(&ret->summary, "MariaDB");
  return find_files(ret, err);
}

// Takes the lock with no transaction open under it: a copy would roll that back. `granted` is what was
// left of the phase when the lock was granted.
static bool quiesce(uint64_t *granted, sp_error *error) {
  if (!sp_execute(&session, BOUND_THE_WAIT, SP_NO_TIMEOUT, error)) return false;
  for (int attempt = 0; attempt < TRIES; attempt++) {
    sp_rows rows;
    int64_t open;
    if (!sp_execute(&session, LOCK, sp_remaining_but(RESERVE), error)) return false;
    *granted = stillpoint_hook_run_remaining();
    if (!sp_query(&session, UNFINISHED, SP_NO_TIMEOUT, &rows, error)) return false;
    bool ok = sp_integer(&rows, 0, 0, &open, error);
    sp_rows_free(&rows);
    if (!ok) return false;
    // What was committed is in the binary log; with the flush it is in InnoDB's files, too.
    if (open == 0) {
      return sp_execute(&session, FLUSH_LOGS, sp_remaining_but(RESERVE), error) &&
             ask_position(&held_at, error);
    }
    if (!sp_execute(&session, UNLOCK, SP_NO_TIMEOUT, error)) return false;
    if (stillpoint_hook_run_cancelled() || sp_remaining_but(RESERVE) <= PAUSE) break;
    stillpoint_hook_run_sleep(PAUSE);
  }
  return sp_fail(error, SP_BUSY, "transactions were open whenever the lock was granted: try later", NULL);
}

// Gives back, and closes: also what cannot be unlocked is released then, once the server has noticed.
static bool release(sp_error *error) {
  if (!session.open) return true;
  bool ok = sp_execute(&session, UNLOCK, SP_NO_TIMEOUT, error);
  sp_close(&session);
  return ok;
}

// Other clients wait from here to post_thaw.
bool exports_stillpoint_hook_lifecycle_pre_freeze(sp_frozen *ret, sp_error *err) {
  uint64_t granted = 0;
  memset(ret, 0, sizeof *ret);
  if (!quiesce(&granted, err)) {
    sp_error ignored;
    release(&ignored);
    return false;
  }
  ret->consistency = STILLPOINT_HOOK_TYPES_CONSISTENCY_APPLICATION;
  sp_metadata_text(&ret->metadata, "binlog-file", held_at.file);
  sp_metadata_integer(&ret->metadata, "binlog-position", held_at.offset);
  uint64_t left = stillpoint_hook_run_remaining();
  sp_metadata_integer(&ret->metadata, SP_HELD_BEFORE_FREEZE, (int64_t)(granted > left ? granted - left : 0));
  return true;
}

// The session that locked still answers, and nothing was written meanwhile.
bool exports_stillpoint_hook_lifecycle_confirm(sp_error *err) {
  position now;
  if (held_at.file == NULL) return sp_fail(err, SP_INTERNAL, "nothing is quiesced", NULL);
  if (!ask_position(&now, err)) return false;
  bool same = now.offset == held_at.offset && strcmp(now.file, held_at.file) == 0;
  free(now.file);
  return same || sp_fail(err, SP_INTERNAL, "the lock did not hold: the binary log has moved", NULL);
}

// Called whenever pre_freeze was, also when that failed: nothing left to do is a success.
bool exports_stillpoint_hook_lifecycle_post_thaw(exports_stillpoint_hook_lifecycle_outcome_t outcome,
                                                 sp_metadata *ret, sp_error *err) {
  (void)outcome;
  memset(ret, 0, sizeof *ret);
  return release(err);
}

// The lock is the session's, so that there is nothing to undo across instances.
bool exports_stillpoint_hook_lifecycle_finish(sp_error *err) {
  (void)err;
  sp_close(&session);
  return true;
}
