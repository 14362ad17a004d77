/*-------------------------------------------------------------------------
 *
 * failure.c
 *	  Errors of handlers as they are stored:
 *	  {"code", "message", "detail", "hint", "context"}, absent parts null.
 *
 * A part is cut after PART_MAX_BYTES: an error must never be too large to be
 * recorded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/elog.h"

#include "compat.h"
#include "failure.h"

#define PART_MAX_BYTES (64 * 1024)

static void
failure_add(JsonbBuilder *builder, const char *name, const char *value)
{
	JsonbValue	item;

	item.type = jbvString;
	item.val.string.val = unconstify(char *, name);
	item.val.string.len = (int) strlen(name);
	compat_push_jsonb(builder, WJB_KEY, &item);

	if (value)
	{
		item.val.string.val = unconstify(char *, value);
		item.val.string.len = pg_mbcliplen(value, (int) strlen(value), PART_MAX_BYTES);
	}
	else
		item.type = jbvNull;
	compat_push_jsonb(builder, WJB_VALUE, &item);
}

static Jsonb *
failure_build(const char *code, const char *message, const char *detail, const char *hint,
			  const char *context)
{
	JsonbBuilder builder = {0};

	compat_push_jsonb(&builder, WJB_BEGIN_OBJECT, NULL);
	failure_add(&builder, "code", code);
	failure_add(&builder, "message", message);
	failure_add(&builder, "detail", detail);
	failure_add(&builder, "hint", hint);
	failure_add(&builder, "context", context);
	compat_push_jsonb(&builder, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(builder.result);
}

/* What is stored of an error that ended an attempt */
Jsonb *
failure_from_error(const ErrorData *error)
{
	return failure_build(unpack_sql_state(error->sqlerrcode), error->message, error->detail,
						 error->hint, error->context);
}

/* What is stored of an attempt whose worker is gone */
Jsonb *
failure_worker_died(void)
{
	return failure_build(unpack_sql_state(ERRCODE_CRASH_SHUTDOWN),
						 "the worker died or was silent for longer than its lease",
						 NULL, NULL, NULL);
}

/* What is stored of an attempt that took longer than its task allows */
Jsonb *
failure_timed_out(void)
{
	return failure_build(unpack_sql_state(ERRCODE_QUERY_CANCELED),
						 "the attempt took longer than max_duration",
						 NULL, NULL, NULL);
}
