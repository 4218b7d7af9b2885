// The hook against a scripted host: no server is needed. `make test`
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stillpoint.h"
#include "testing/fake_host.h"

static int failures;

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      fprintf(stderr, "%s:%d: %s\n  %s\n", __FILE__, __LINE__, #condition, fake_calls()); \
      failures++;                                                                  \
    }                                                                              \
  } while (0)

static const char *const FILE_NAMES[] = {"@@GLOBAL.datadir", "@@GLOBAL.log_bin_basename"};
static const char *const FILES[] = {"/var/lib/mysql/", "/var/log/mysql/bin"};
static const char *const COUNT[] = {"COUNT(*)"};
static const char *const NONE[] = {"0"};
static const char *const ONE[] = {"1"};
static const char *const POSITION[] = {"File", "Position"};
static const char *const HERE[] = {"bin.000001", "342"};
static const char *const ELSEWHERE[] = {"bin.000001", "999"};
#define UNFINISHED "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0"

static sp_error error;
static sp_plan plan;
static sp_frozen frozen;
static sp_metadata metadata;

// A server on which nothing stands in the way, and the hook prepared.
static void prepared(void) {
  hook_string_t settings = {(uint8_t *)"{}", 2};
  fake_reset();
  fake_row("SELECT @@GLOBAL.datadir, @@GLOBAL.log_bin_basename", 2, FILE_NAMES, FILES);
  fake_ok("SET SESSION lock_wait_timeout = 5");
  fake_ok("FLUSH TABLES WITH READ LOCK");
  fake_row(UNFINISHED, 1, COUNT, NONE);
  fake_ok("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS");
  fake_row("SHOW MASTER STATUS", 2, POSITION, HERE);
  fake_ok("UNLOCK TABLES");
  CHECK(exports_stillpoint_hook_lifecycle_prepare(&settings, &plan, &error));
}

static bool ends_with(const char *text, const char *end) {
  size_t length = strlen(text), tail = strlen(end);
  return length >= tail && strcmp(text + length - tail, end) == 0;
}

static void it_locks_notes_the_position_and_unlocks(void) {
  prepared();
  CHECK(plan.paths.len == 2);
  CHECK(exports_stillpoint_hook_lifecycle_pre_freeze(&frozen, &error));
  CHECK(frozen.metadata.len == 3 && frozen.metadata.ptr[1].value.val.integer == 342);
  CHECK(exports_stillpoint_hook_lifecycle_confirm(&error));
  CHECK(exports_stillpoint_hook_lifecycle_post_thaw(0, &metadata, &error));
  CHECK(exports_stillpoint_hook_lifecycle_finish(&error));
  CHECK(ends_with(fake_calls(), "UNLOCK TABLES; close"));
}

static void what_it_took_is_given_back_when_a_transaction_stays_open(void) {
  prepared();
  fake_row(UNFINISHED, 1, COUNT, ONE);
  CHECK(!exports_stillpoint_hook_lifecycle_pre_freeze(&frozen, &error));
  CHECK(error.tag == SP_BUSY);
  CHECK(ends_with(fake_calls(), "UNLOCK TABLES; close"));
}

static void a_lock_that_is_not_granted_is_an_error_of_the_server(void) {
  prepared();
  fake_error("FLUSH TABLES WITH READ LOCK", 1205, "Lock wait timeout exceeded");
  CHECK(!exports_stillpoint_hook_lifecycle_pre_freeze(&frozen, &error));
  CHECK(error.tag == STILLPOINT_HOOK_TYPES_HOOK_ERROR_APPLICATION);
  CHECK(memcmp(error.val.application.code.ptr, "1205", 4) == 0);
  CHECK(ends_with(fake_calls(), "close"));
}

static void what_was_written_under_the_lock_is_told(void) {
  prepared();
  CHECK(exports_stillpoint_hook_lifecycle_pre_freeze(&frozen, &error));
  fake_row("SHOW MASTER STATUS", 2, POSITION, ELSEWHERE);
  CHECK(!exports_stillpoint_hook_lifecycle_confirm(&error));
  CHECK(exports_stillpoint_hook_lifecycle_post_thaw(0, &metadata, &error));
}

static void settings_that_make_no_sense_are_named(void) {
  hook_string_t good = {(uint8_t *)"{\"other\": [\"connection\"], \"connection\": \"main\"}", 47};
  hook_string_t bad = {(uint8_t *)"{\"connection\": 7}", 17};
  CHECK(exports_stillpoint_hook_lifecycle_validate(&good, &error));
  CHECK(!exports_stillpoint_hook_lifecycle_validate(&bad, &error));
  CHECK(memcmp(error.val.invalid_settings.pointer.ptr, "/connection", 11) == 0);
}

int main(void) {
  it_locks_notes_the_position_and_unlocks();
  what_it_took_is_given_back_when_a_transaction_stays_open();
  a_lock_that_is_not_granted_is_an_error_of_the_server();
  what_was_written_under_the_lock_is_told();
  settings_that_make_no_sense_are_named();
  puts(failures == 0 ? "ok" : "FAILED");
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
