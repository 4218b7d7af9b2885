#include "fake_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../hook.h"

typedef struct {
  const char *statement;
  size_t columns;
  const char *const *names;
  const char *const *cells;
  int code;
  const char *message;
} answer;

static answer answers[64];
static size_t count;
static char calls[1 << 16];
static uint64_t left;

// State: as many keys as a test needs, kept sorted.
static struct {
  char key[129];
  uint8_t *bytes;
  size_t length;
} kept[16];
static size_t kept_count;

void fake_reset(void) {
  count = 0;
  calls[0] = '\0';
  while (kept_count > 0) free(kept[--kept_count].bytes);
  left = UINT64_C(60000000000);
}

// Scripted again, a statement's answer is another.
static void script(answer given) {
  for (size_t at = 0; at < count; at++) {
    if (strcmp(answers[at].statement, given.statement) == 0) {
      answers[at] = given;
      return;
    }
  }
  if (count == sizeof answers / sizeof *answers) abort();
  answers[count++] = given;
}

void fake_ok(const char *statement) { script((answer){.statement = statement}); }

void fake_row(const char *statement, size_t columns, const char *const *names, const char *const *cells) {
  script((answer){.statement = statement, .columns = columns, .names = names, .cells = cells});
}

void fake_error(const char *statement, int code, const char *message) {
  script((answer){.statement = statement, .code = code, .message = message});
}

const char *fake_calls(void) { return calls; }

static void called(const char *verb, const uint8_t *text, size_t length) {
  size_t used = strlen(calls);
  snprintf(calls + used, sizeof calls - used, "%s%s%.*s", used > 0 ? "; " : "", verb, (int)length,
           (const char *)text);
}

// The host's side of hook.h --------------------------------------------------------------------------

bool stillpoint_hook_sql_open(hook_string_t *name, stillpoint_hook_sql_own_connection_t *ret,
                              stillpoint_hook_sql_error_t *err) {
  (void)err;
  called("open ", name->ptr, name->len);
  ret->__handle = 1;
  return true;
}

void stillpoint_hook_sql_connection_drop_own(stillpoint_hook_sql_own_connection_t handle) {
  (void)handle;
  called("close", NULL, 0);
}

stillpoint_hook_sql_borrow_connection_t
stillpoint_hook_sql_borrow_connection(stillpoint_hook_sql_own_connection_t handle) {
  return (stillpoint_hook_sql_borrow_connection_t){handle.__handle};
}

void stillpoint_hook_sql_method_connection_info(stillpoint_hook_sql_borrow_connection_t self,
                                                stillpoint_hook_sql_server_info_t *ret) {
  (void)self;
  ret->engine = STILLPOINT_HOOK_SQL_ENGINE_MARIADB;
  hook_string_dup(&ret->version, "10.11.0-MariaDB");
}

bool stillpoint_hook_sql_method_connection_is_alive(stillpoint_hook_sql_borrow_connection_t self) {
  (void)self;
  return true;
}

static void rows_of(const answer *given, stillpoint_hook_sql_row_set_t *ret) {
  memset(ret, 0, sizeof *ret);
  if (given->columns == 0) return;
  ret->columns.ptr = calloc(given->columns, sizeof *ret->columns.ptr);
  ret->columns.len = given->columns;
  ret->rows.ptr = calloc(1, sizeof *ret->rows.ptr);
  ret->rows.len = 1;
  ret->rows.ptr[0].ptr = calloc(given->columns, sizeof *ret->rows.ptr[0].ptr);
  ret->rows.ptr[0].len = given->columns;
  for (size_t at = 0; at < given->columns; at++) {
    hook_string_dup(&ret->columns.ptr[at].name, given->names[at]);
    if (given->cells[at] == NULL) continue;
    ret->rows.ptr[0].ptr[at].tag = STILLPOINT_HOOK_SQL_VALUE_TEXT;
    hook_string_dup(&ret->rows.ptr[0].ptr[at].val.text, given->cells[at]);
  }
}

static bool refused(stillpoint_hook_sql_error_t *err, const answer *given) {
  memset(err, 0, sizeof *err);
  if (given == NULL) {
    err->tag = STILLPOINT_HOOK_SQL_ERROR_DENIED;
    hook_string_dup(&err->val.denied, "the statement is not granted");
    return false;
  }
  err->tag = STILLPOINT_HOOK_SQL_ERROR_DATABASE;
  err->val.database.vendor_code = given->code;
  hook_string_dup(&err->val.database.message, given->message);
  return false;
}

bool stillpoint_hook_sql_method_connection_query(stillpoint_hook_sql_borrow_connection_t self,
                                                 hook_string_t *statement,
                                                 stillpoint_hook_sql_list_value_t *params,
                                                 stillpoint_hook_sql_duration_ns_t *maybe_timeout,
                                                 stillpoint_hook_sql_row_set_t *ret,
                                                 stillpoint_hook_sql_error_t *err) {
  (void)self, (void)params, (void)maybe_timeout;
  called("", statement->ptr, statement->len);
  for (size_t at = 0; at < count; at++) {
    const answer *given = &answers[at];
    bool same = strlen(given->statement) == statement->len &&
                memcmp(given->statement, statement->ptr, statement->len) == 0;
    if (!same) continue;
    if (given->message != NULL) return refused(err, given);
    rows_of(given, ret);
    return true;
  }
  return refused(err, NULL);
}

bool stillpoint_hook_sql_method_connection_execute(stillpoint_hook_sql_borrow_connection_t self,
                                                   hook_string_t *statement,
                                                   stillpoint_hook_sql_list_value_t *params,
                                                   stillpoint_hook_sql_duration_ns_t *maybe_timeout,
                                                   uint64_t *ret, stillpoint_hook_sql_error_t *err) {
  stillpoint_hook_sql_row_set_t rows;
  *ret = 0;
  if (!stillpoint_hook_sql_method_connection_query(self, statement, params, maybe_timeout, &rows, err)) {
    return false;
  }
  stillpoint_hook_sql_row_set_free(&rows);
  return true;
}

// Where a key is, or where it belongs.
static size_t place_of(const hook_string_t *key, bool *found) {
  for (size_t at = 0; at < kept_count; at++) {
    size_t length = strlen(kept[at].key);
    int order = memcmp(kept[at].key, key->ptr, length < key->len ? length : key->len);
    if (order == 0 && length == key->len) return *found = true, at;
    if (order > 0 || (order == 0 && length > key->len)) return *found = false, at;
  }
  return *found = false, kept_count;
}

static bool is_key(const hook_string_t *key, stillpoint_hook_kv_error_t *err) {
  if (key->len >= 1 && key->len <= 128) return true;
  err->tag = STILLPOINT_HOOK_KV_ERROR_OTHER;
  hook_string_dup(&err->val.other, "a key has 1 to 128 bytes");
  return false;
}

bool stillpoint_hook_kv_get(hook_string_t *key, hook_option_list_u8_t *ret,
                            stillpoint_hook_kv_error_t *err) {
  if (!is_key(key, err)) return false;
  size_t at = place_of(key, &ret->is_some);
  if (!ret->is_some) return true;
  ret->val.len = kept[at].length;
  ret->val.ptr = malloc(kept[at].length + 1);
  memcpy(ret->val.ptr, kept[at].bytes, kept[at].length);
  return true;
}

bool stillpoint_hook_kv_delete(hook_string_t *key, stillpoint_hook_kv_error_t *err) {
  if (!is_key(key, err)) return false;
  bool found;
  size_t at = place_of(key, &found);
  if (!found) return true;
  free(kept[at].bytes);
  memmove(&kept[at], &kept[at + 1], (--kept_count - at) * sizeof *kept);
  return true;
}

bool stillpoint_hook_kv_set(hook_string_t *key, hook_list_u8_t *value, stillpoint_hook_kv_error_t *err) {
  if (!stillpoint_hook_kv_delete(key, err)) return false;
  if (kept_count == sizeof kept / sizeof *kept) abort();
  bool found;
  size_t at = place_of(key, &found);
  memmove(&kept[at + 1], &kept[at], (kept_count++ - at) * sizeof *kept);
  memcpy(kept[at].key, key->ptr, key->len);
  kept[at].key[key->len] = '\0';
  kept[at].length = value->len;
  kept[at].bytes = malloc(value->len + 1);
  memcpy(kept[at].bytes, value->ptr, value->len);
  return true;
}

bool stillpoint_hook_kv_keys(hook_list_string_t *ret, stillpoint_hook_kv_error_t *err) {
  (void)err;
  ret->len = kept_count;
  ret->ptr = calloc(kept_count + 1, sizeof *ret->ptr);
  for (size_t at = 0; at < kept_count; at++) hook_string_dup(&ret->ptr[at], kept[at].key);
  return true;
}

uint64_t stillpoint_hook_run_remaining(void) { return left; }
bool stillpoint_hook_run_cancelled(void) { return false; }
void stillpoint_hook_run_sleep(uint64_t duration) { left = left > duration ? left - duration : 0; }

void stillpoint_hook_log_write(stillpoint_hook_log_level_t level, hook_string_t *message,
                               hook_list_tuple2_string_string_t *fields) {
  (void)level, (void)fields;
  fprintf(stderr, "log: %.*s\n", (int)message->len, (const char *)message->ptr);
}

// The generated helpers that hooks use ---------------------------------------------------------------

void hook_string_dup(hook_string_t *ret, const char *text) {
  ret->len = strlen(text);
  ret->ptr = malloc(ret->len + 1);
  memcpy(ret->ptr, text, ret->len + 1);
}

void hook_string_free(hook_string_t *ret) {
  free(ret->ptr);
  memset(ret, 0, sizeof *ret);
}

void hook_list_string_free(hook_list_string_t *ptr) {
  for (size_t at = 0; at < ptr->len; at++) hook_string_free(&ptr->ptr[at]);
  free(ptr->ptr);
}

void stillpoint_hook_sql_row_set_free(stillpoint_hook_sql_row_set_t *ptr) {
  for (size_t at = 0; at < ptr->columns.len; at++) {
    hook_string_free(&ptr->columns.ptr[at].name);
    stillpoint_hook_sql_value_t *value = &ptr->rows.ptr[0].ptr[at];
    if (value->tag == STILLPOINT_HOOK_SQL_VALUE_TEXT) hook_string_free(&value->val.text);
  }
  free(ptr->columns.ptr);
  if (ptr->rows.len > 0) free(ptr->rows.ptr[0].ptr);
  free(ptr->rows.ptr);
}
