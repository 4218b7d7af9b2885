// The short words of stillpoint.h, over the generated bindings.
#include "stillpoint.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static hook_string_t borrowed(const char *text) {
  return (hook_string_t){.ptr = (uint8_t *)text, .len = strlen(text)};
}

static hook_string_t copied(const char *text) {
  hook_string_t copy;
  hook_string_dup(&copy, text);
  return copy;
}

// A longer array; the generated bindings end the instance in the same way where memory ends.
static void *grown(void *array, size_t count, size_t size) {
  array = realloc(array, count * size);
  if (array == NULL) abort();
  return array;
}

// Errors ------------------------------------------------------------------------------------------

static char *joined(const char *text, va_list more) {
  char *whole = NULL;
  size_t length = 0;
  for (; text != NULL; text = va_arg(more, const char *)) {
    size_t part = strlen(text);
    whole = grown(whole, length + part + 1, 1);
    memcpy(whole + length, text, part + 1);
    length += part;
  }
  return whole;
}

bool sp_fail(sp_error *error, sp_kind kind, const char *text, ...) {
  va_list more;
  va_start(more, text);
  char *message = joined(text, more);
  va_end(more);
  error->tag = kind;
  error->val.internal = borrowed(message);
  return false;
}

bool sp_fail_setting(sp_error *error, const char *pointer, const char *message) {
  error->tag = STILLPOINT_HOOK_TYPES_HOOK_ERROR_INVALID_SETTINGS;
  error->val.invalid_settings.pointer = copied(pointer);
  error->val.invalid_settings.message = copied(message);
  return false;
}

bool sp_fail_application(sp_error *error, const char *code, const char *message, bool retryable) {
  error->tag = STILLPOINT_HOOK_TYPES_HOOK_ERROR_APPLICATION;
  error->val.application.code = copied(code);
  error->val.application.message = copied(message);
  error->val.application.retryable = retryable;
  return false;
}

// The number as text, at the end of a buffer.
static const char *decimal(int64_t number, char buffer[24]) {
  uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
  char *at = buffer + 23;
  *at = '\0';
  do {
    *--at = (char)('0' + rest % 10);
    rest /= 10;
  } while (rest > 0);
  if (number < 0) *--at = '-';
  return at;
}

// A text of the host's that is handed on: it is moved, not copied.
static bool moved(sp_error *error, sp_kind kind, hook_string_t text) {
  error->tag = kind;
  error->val.internal = text;
  return false;
}

static bool moved_application(sp_error *error, const char *code, hook_string_t message, bool retryable) {
  error->tag = STILLPOINT_HOOK_TYPES_HOOK_ERROR_APPLICATION;
  error->val.application.code = copied(code);
  error->val.application.message = message;
  error->val.application.retryable = retryable;
  return false;
}

// From what went wrong at the host to what the hook returns.
static bool failed(sp_error *error, stillpoint_hook_sql_error_t *cause) {
  char number[24];
  stillpoint_hook_sql_db_error_t *database = &cause->val.database;
  switch (cause->tag) {
    case STILLPOINT_HOOK_SQL_ERROR_DENIED:
      return moved(error, SP_DENIED, cause->val.denied);
    case STILLPOINT_HOOK_SQL_ERROR_TIMEOUT:
      return sp_fail(error, SP_TIMEOUT,
                     "the database did not answer in time; the host cancelled the statement and closed "
                     "the session", NULL);
    case STILLPOINT_HOOK_SQL_ERROR_UNAVAILABLE:
      return moved_application(error, "unavailable", cause->val.unavailable, true);
    case STILLPOINT_HOOK_SQL_ERROR_CONNECTION_LOST:
      return moved_application(error, "connection-lost", cause->val.connection_lost, true);
    case STILLPOINT_HOOK_SQL_ERROR_DATABASE:
      // Class 40 is a rolled back transaction; what else passes is for the hook to know.
      return moved_application(error, decimal(database->vendor_code, number), database->message,
                               database->sqlstate.len == 5 &&
                                   memcmp(database->sqlstate.ptr, "40", 2) == 0);
    default:
      return moved(error, SP_INTERNAL, cause->val.other);
  }
}

// Database sessions -------------------------------------------------------------------------------

static stillpoint_hook_sql_borrow_connection_t lent(const sp_session *session) {
  return stillpoint_hook_sql_borrow_connection(session->handle);
}

bool sp_open(sp_session *session, const char *name, sp_error *error) {
  hook_string_t text = borrowed(name);
  stillpoint_hook_sql_error_t cause;
  session->open = stillpoint_hook_sql_open(&text, &session->handle, &cause);
  return session->open || failed(error, &cause);
}

void sp_close(sp_session *session) {
  if (session->open) stillpoint_hook_sql_connection_drop_own(session->handle);
  session->open = false;
}

bool sp_is_alive(const sp_session *session) {
  return session->open && stillpoint_hook_sql_method_connection_is_alive(lent(session));
}

void sp_info(const sp_session *session, stillpoint_hook_sql_server_info_t *info) {
  stillpoint_hook_sql_method_connection_info(lent(session), info);
}

static bool closed(sp_error *error) {
  return sp_fail(error, SP_INTERNAL, "no session is open", NULL);
}

bool sp_execute(const sp_session *session, const char *statement, uint64_t timeout, sp_error *error) {
  if (!session->open) return closed(error);
  hook_string_t text = borrowed(statement);
  stillpoint_hook_sql_list_value_t none = {0};
  stillpoint_hook_sql_error_t cause;
  uint64_t affected;
  return stillpoint_hook_sql_method_connection_execute(lent(session), &text, &none,
                                                       timeout == SP_NO_TIMEOUT ? NULL : &timeout,
                                                       &affected, &cause) ||
         failed(error, &cause);
}

bool sp_query(const sp_session *session, const char *statement, uint64_t timeout, sp_rows *rows,
              sp_error *error) {
  if (!session->open) return closed(error);
  hook_string_t text = borrowed(statement);
  stillpoint_hook_sql_list_value_t none = {0};
  stillpoint_hook_sql_error_t cause;
  if (!stillpoint_hook_sql_method_connection_query(lent(session), &text, &none,
                                                   timeout == SP_NO_TIMEOUT ? NULL : &timeout, rows,
                                                   &cause)) {
    return failed(error, &cause);
  }
  if (!rows->truncated) return true;
  sp_rows_free(rows);
  return sp_fail(error, SP_INTERNAL, "the host cut the answer short: ", statement, NULL);
}

void sp_rows_free(sp_rows *rows) {
  stillpoint_hook_sql_row_set_free(rows);
  memset(rows, 0, sizeof *rows);
}

size_t sp_column(const sp_rows *rows, const char *name) {
  size_t length = strlen(name), column = 0;
  for (; column < rows->columns.len; column++) {
    const hook_string_t *known = &rows->columns.ptr[column].name;
    if (known->len == length && memcmp(known->ptr, name, length) == 0) break;
  }
  return column;
}

static const stillpoint_hook_sql_value_t *value_at(const sp_rows *rows, size_t row, size_t column) {
  if (row >= rows->rows.len || column >= rows->rows.ptr[row].len) return NULL;
  return &rows->rows.ptr[row].ptr[column];
}

bool sp_is_null(const sp_rows *rows, size_t row, size_t column) {
  const stillpoint_hook_sql_value_t *value = value_at(rows, row, column);
  return value == NULL || value->tag == STILLPOINT_HOOK_SQL_VALUE_NULL;
}

bool sp_text(const sp_rows *rows, size_t row, size_t column, char **text, sp_error *error) {
  const stillpoint_hook_sql_value_t *value = value_at(rows, row, column);
  // All of these, and bytes, are a pointer and a length.
  bool is_text = value != NULL && value->tag >= STILLPOINT_HOOK_SQL_VALUE_TEXT;
  if (!is_text) return sp_fail(error, SP_INTERNAL, "the server's answer has no text where one is", NULL);
  *text = grown(NULL, value->val.text.len + 1, 1);
  memcpy(*text, value->val.text.ptr, value->val.text.len);
  (*text)[value->val.text.len] = '\0';
  return true;
}

static bool parsed(const char *text, int64_t *number) {
  bool negative = *text == '-';
  uint64_t sum = 0;
  if (negative) text++;
  if (*text == '\0') return false;
  for (; *text != '\0'; text++) {
    if (*text < '0' || *text > '9' || sum > (INT64_MAX - 9) / 10) return false;
    sum = sum * 10 + (uint64_t)(*text - '0');
  }
  *number = negative ? -(int64_t)sum : (int64_t)sum;
  return true;
}

bool sp_integer(const sp_rows *rows, size_t row, size_t column, int64_t *number, sp_error *error) {
  const stillpoint_hook_sql_value_t *value = value_at(rows, row, column);
  if (value != NULL && value->tag == STILLPOINT_HOOK_SQL_VALUE_INT64) {
    *number = value->val.int64;
    return true;
  }
  if (value != NULL && value->tag == STILLPOINT_HOOK_SQL_VALUE_UINT64 && value->val.uint64 <= INT64_MAX) {
    *number = (int64_t)value->val.uint64;
    return true;
  }
  char *text;
  if (value != NULL && value->tag >= STILLPOINT_HOOK_SQL_VALUE_TEXT &&
      sp_text(rows, row, column, &text, error)) {
    bool is_number = parsed(text, number);
    free(text);
    if (is_number) return true;
  }
  return sp_fail(error, SP_INTERNAL, "the server's answer has no number where one is", NULL);
}

// Durable state ---------------------------------------------------------------------------------

static bool not_kept(sp_error *error, const char *key, stillpoint_hook_kv_error_t *cause) {
  switch (cause->tag) {
    case STILLPOINT_HOOK_KV_ERROR_DENIED:
      return sp_fail(error, SP_DENIED, "state (kv) is not granted, or not in this phase", NULL);
    case STILLPOINT_HOOK_KV_ERROR_TOO_LARGE:
      return sp_fail(error, SP_INTERNAL, "state under ", key, ": more bytes than are granted", NULL);
    default:
      return moved(error, SP_INTERNAL, cause->val.io);
  }
}

bool sp_kv_get(const char *key, uint8_t **bytes, size_t *length, sp_error *error) {
  hook_string_t text = borrowed(key);
  hook_option_list_u8_t found;
  stillpoint_hook_kv_error_t cause;
  if (!stillpoint_hook_kv_get(&text, &found, &cause)) return not_kept(error, key, &cause);
  *length = found.is_some ? found.val.len : 0;
  *bytes = found.is_some ? found.val.ptr : NULL;
  // Of no bytes the bindings give a pointer that nobody allocated.
  if (found.is_some && *length == 0) *bytes = grown(NULL, 1, 1);
  return true;
}

bool sp_kv_set(const char *key, const uint8_t *bytes, size_t length, sp_error *error) {
  hook_string_t text = borrowed(key);
  hook_list_u8_t value = {.ptr = (uint8_t *)bytes, .len = length};
  stillpoint_hook_kv_error_t cause;
  return stillpoint_hook_kv_set(&text, &value, &cause) || not_kept(error, key, &cause);
}

bool sp_kv_delete(const char *key, sp_error *error) {
  hook_string_t text = borrowed(key);
  stillpoint_hook_kv_error_t cause;
  return stillpoint_hook_kv_delete(&text, &cause) || not_kept(error, key, &cause);
}

bool sp_kv_keys(hook_list_string_t *keys, sp_error *error) {
  stillpoint_hook_kv_error_t cause;
  return stillpoint_hook_kv_keys(keys, &cause) || not_kept(error, "", &cause);
}

// What a hook returns -----------------------------------------------------------------------------

void sp_describe(sp_description *description, const char *name, const char *version,
                 const char *summary, const char *schema) {
  memset(description, 0, sizeof *description);
  description->name = copied(name);
  description->version = copied(version);
  description->summary = copied(summary);
  description->settings_schema = copied(schema);
  description->freeze_budget_ms = 10000;
}

static exports_stillpoint_hook_lifecycle_capability_need_t *one_more_need(sp_description *description) {
  size_t count = description->needs.len + 1;
  description->needs.ptr = grown(description->needs.ptr, count, sizeof *description->needs.ptr);
  description->needs.len = count;
  return memset(&description->needs.ptr[count - 1], 0, sizeof *description->needs.ptr);
}

void sp_needs_sql(sp_description *description, const char *connection,
                  stillpoint_hook_sql_engine_t engine, const char *const *statements, size_t count,
                  const char *reason) {
  exports_stillpoint_hook_lifecycle_capability_need_t *need = one_more_need(description);
  exports_stillpoint_hook_lifecycle_sql_need_t *sql = &need->val.sql;
  need->tag = EXPORTS_STILLPOINT_HOOK_LIFECYCLE_CAPABILITY_NEED_SQL;
  sql->connection = copied(connection);
  sql->engines.ptr = grown(NULL, 1, sizeof *sql->engines.ptr);
  sql->engines.ptr[0] = engine;
  sql->engines.len = 1;
  sql->statements.ptr = grown(NULL, count, sizeof *sql->statements.ptr);
  sql->statements.len = count;
  for (size_t at = 0; at < count; at++) sql->statements.ptr[at] = copied(statements[at]);
  sql->reason = copied(reason);
  sql->required = true;
}

void sp_needs_kv(sp_description *description, uint32_t bytes, const char *reason) {
  exports_stillpoint_hook_lifecycle_capability_need_t *need = one_more_need(description);
  need->tag = EXPORTS_STILLPOINT_HOOK_LIFECYCLE_CAPABILITY_NEED_KV;
  need->val.kv.bytes = bytes;
  need->val.kv.reason = copied(reason);
  need->val.kv.required = true;
}

void sp_plan_path(sp_plan *plan, const char *path) {
  size_t count = plan->paths.len + 1;
  plan->paths.ptr = grown(plan->paths.ptr, count, sizeof *plan->paths.ptr);
  plan->paths.ptr[count - 1] = copied(path);
  plan->paths.len = count;
}

static stillpoint_hook_types_meta_value_t *one_more_entry(sp_metadata *metadata, const char *key) {
  size_t count = metadata->len + 1;
  metadata->ptr = grown(metadata->ptr, count, sizeof *metadata->ptr);
  metadata->ptr[count - 1].key = copied(key);
  metadata->len = count;
  return &metadata->ptr[count - 1].value;
}

void sp_metadata_text(sp_metadata *metadata, const char *key, const char *text) {
  stillpoint_hook_types_meta_value_t *value = one_more_entry(metadata, key);
  value->tag = STILLPOINT_HOOK_TYPES_META_VALUE_TEXT;
  value->val.text = copied(text);
}

void sp_metadata_integer(sp_metadata *metadata, const char *key, int64_t number) {
  stillpoint_hook_types_meta_value_t *value = one_more_entry(metadata, key);
  value->tag = STILLPOINT_HOOK_TYPES_META_VALUE_INTEGER;
  value->val.integer = number;
}

// Settings, time, log -----------------------------------------------------------------------------

// From the quote at `at` to behind the one that ends the string.
static const char *past_string(const char *at, const char *end) {
  for (at++; at < end && *at != '"'; at++) {
    if (*at == '\\') at++;
  }
  return at < end ? at + 1 : end;
}

static const char *past_space(const char *at, const char *end) {
  while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
  return at;
}

// The value of the member `key` of the outermost object. The host has checked that this is JSON.
static const char *member(const char *at, const char *end, const char *key) {
  size_t length = strlen(key);
  int depth = 0;
  while (at < end) {
    if (*at == '"') {
      const char *name = at + 1;
      at = past_string(at, end);
      const char *colon = past_space(at, end);
      bool is_key = depth == 1 && colon < end && *colon == ':';
      if (is_key && (size_t)(at - 1 - name) == length && memcmp(name, key, length) == 0) {
        return past_space(colon + 1, end);
      }
      continue;
    }
    if (*at == '{' || *at == '[') depth++;
    if (*at == '}' || *at == ']') depth--;
    at++;
  }
  return NULL;
}

static bool wrong_setting(sp_error *error, const char *key, const char *message) {
  char *pointer = grown(NULL, strlen(key) + 2, 1);
  pointer[0] = '/';
  memcpy(pointer + 1, key, strlen(key) + 1);
  sp_fail_setting(error, pointer, message);
  free(pointer);
  return false;
}

bool sp_setting_text(const hook_string_t *settings, const char *key, const char *fallback, char **text,
                     sp_error *error) {
  const char *end = (const char *)settings->ptr + settings->len;
  const char *at = member((const char *)settings->ptr, end, key);
  if (at == NULL) {
    *text = grown(NULL, strlen(fallback) + 1, 1);
    memcpy(*text, fallback, strlen(fallback) + 1);
    return true;
  }
  if (at == end || *at != '"') return wrong_setting(error, key, "a text is wanted");
  const char *stop = past_string(at, end) - 1;
  char *to = *text = grown(NULL, (size_t)(stop - at) + 1, 1);
  for (at++; at < stop; at++) {
    if (*at == '\\' && strchr("\"\\/", *++at) == NULL) {
      free(*text);
      return wrong_setting(error, key, "it has an escape that this hook does not read");
    }
    *to++ = *at;
  }
  *to = '\0';
  return true;
}

uint64_t sp_remaining_but(uint64_t reserve) {
  uint64_t left = stillpoint_hook_run_remaining();
  return left > reserve ? left - reserve : 0;
}

void sp_log(stillpoint_hook_log_level_t level, const char *message) {
  hook_string_t text = borrowed(message);
  hook_list_tuple2_string_string_t none = {0};
  stillpoint_hook_log_write(level, &text, &none);
}
