/*-------------------------------------------------------------------------
 *
 * task.c
 *	  Tasks: named kinds of work and their settings.
 *
 * Settings are read like a catalog: as they are committed now, whatever the
 * transaction's isolation level.  Each session keeps the tasks it has used;
 * whoever changes the table sends a relation cache invalidation for it, which
 * makes every session forget them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include <math.h>

#include "access.h"
#include "background.h"
#include "compat.h"
#include "routine.h"
#include "statement.h"
#include "store.h"
#include "task.h"

#define MAX_ATTEMPTS_MAX		10000
#define BACKOFF_FACTOR_MAX		1000
#define LEASE_MIN_US			USECS_PER_SEC
#define INTERVAL_MAX_MS			(INT64CONST(100) * MONTHS_PER_YEAR * DAYS_PER_MONTH * (USECS_PER_DAY / 1000))

/* One task that this session has used */
typedef struct CachedTask
{
	char		task_id[IDENTIFIER_MAX_BYTES + 1];	/* hash key */
	Task		task;
} CachedTask;

static HTAB *cache = NULL;
static MemoryContext cache_context = NULL;
static bool cache_stale = false;

PG_FUNCTION_INFO_V1(trigger_idem_task_create);
PG_FUNCTION_INFO_V1(trigger_idem_task_drop);

/* ---------- Checks that other rooms share ---------- */

/* The rules for names of tasks, queues, groups and environments: 22004, 22023 */
void
identifier_check(const char *what, const char *identifier)
{
	if (identifier == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
	if (identifier[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	if (strlen(identifier) > IDENTIFIER_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", what),
				 errdetail("The limit is %d bytes.", IDENTIFIER_MAX_BYTES)));
}

/* An interval's length, with months of 30 days as PostgreSQL compares them */
int64
interval_to_ms(const Interval *interval)
{
	return interval->time / 1000 +
		((int64) interval->day + (int64) interval->month * DAYS_PER_MONTH) *
		(USECS_PER_DAY / 1000);
}

/* Intervals can be infinite from PostgreSQL 17 on. */
static bool
interval_is_finite(const Interval *interval)
{
#ifdef INTERVAL_NOT_FINITE
	return !INTERVAL_NOT_FINITE(interval);
#else
	return true;
#endif
}

/*
 * Raise 22023 unless a duration is at least least_us microseconds and at most a
 * hundred years.
 */
void
interval_check(const char *name, const Interval *interval, int64 least_us)
{
	const char *detail = least_us == 0 ? _("It must be between zero and 100 years.") :
		least_us == 1 ? _("It must be positive, and at most 100 years.") :
		psprintf(_("It must be between %lld ms and 100 years."), (long long) (least_us / 1000));

	/*
	 * in milliseconds any interval has a length, in microseconds it might
	 * overflow
	 */
	if (!interval_is_finite(interval) || interval_to_ms(interval) > INTERVAL_MAX_MS ||
		interval_to_ms(interval) < 0 ||
		interval_to_ms(interval) * 1000 + interval->time % 1000 < least_us)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range", name),
				 errdetail_internal("%s", detail)));
}

/* Calendar arithmetic, in the session's time zone */
TimestampTz
timestamp_plus(TimestampTz start, const Interval *interval)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(start),
												   IntervalPGetDatum(interval)));
}

TimestampTz
timestamp_minus(TimestampTz end, const Interval *interval)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
												   TimestampTzGetDatum(end),
												   IntervalPGetDatum(interval)));
}

/* The bounds of max_attempts, for a task and for a run: 22023 */
void
max_attempts_check(int max_attempts)
{
	if (max_attempts < 1 || max_attempts > MAX_ATTEMPTS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_attempts is out of range"),
				 errdetail("It must be between 1 and %d.", MAX_ATTEMPTS_MAX)));
}

/* ---------- The cache ---------- */

static void
cache_invalidate(void)
{
	cache_stale = true;
}

/* Called once, when the library is loaded. */
void
task_init(void)
{
	store_on_invalidation(STORE_TASK, cache_invalidate);
}

static void
cache_reset(void)
{
	HASHCTL		info = {.keysize = IDENTIFIER_MAX_BYTES + 1,.entrysize = sizeof(CachedTask)};

	/* callers may still look at what they have found in this transaction */
	if (cache_context)
		MemoryContextSetParent(cache_context, TopTransactionContext);
	/* making others may fail */
	cache_context = NULL;
	cache = NULL;
	cache_context = AllocSetContextCreate(TopMemoryContext, "trigger_idem tasks",
										  ALLOCSET_DEFAULT_SIZES);
	info.hcxt = cache_context;
	cache = hash_create("trigger_idem tasks", 32, &info, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	cache_stale = false;
}

static char *
text_or_null(Datum value, bool isnull)
{
	return isnull ? NULL : TextDatumGetCString(value);
}

static Interval *
interval_or_null(Datum value, bool isnull)
{
	Interval   *copy;

	if (isnull)
		return NULL;
	copy = palloc(sizeof(Interval));
	*copy = *DatumGetIntervalP(value);
	return copy;
}

/* The bits of an array of names of final states */
static uint32
status_bits(ArrayType *names)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;
	uint32		bits = 0;

	deconstruct_array(names, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &count);
	if (count > RUN_STATUSES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("release_key_on names more states than there are")));
	for (int i = 0; i < count; i++)
	{
		RunStatus	status;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("release_key_on must not contain nulls")));
		if (!run_status_parse(TextDatumGetCString(values[i]), &status) ||
			!RUN_STATUS_IS_FINAL(status))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" is not a final run status", TextDatumGetCString(values[i])),
					 errhint("The final states are completed, failed, crashed, timed_out, canceled and expired.")));
		bits |= 1 << status;
	}
	return bits;
}

#define VALUE(column) values[(column) - 1]
#define ISNULL(column) nulls[(column) - 1]

/* Turn a row into a Task, in the current context. */
static void
task_from_row(Datum *values, bool *nulls, Task *task)
{
	task->task_id = TextDatumGetCString(VALUE(TASK_TASK_ID));
	task->owner = TextDatumGetCString(VALUE(TASK_OWNER));
	task->run_as = TextDatumGetCString(VALUE(TASK_RUN_AS));
	task->handler_schema = text_or_null(VALUE(TASK_HANDLER_SCHEMA), ISNULL(TASK_HANDLER_SCHEMA));
	task->handler_name = text_or_null(VALUE(TASK_HANDLER_NAME), ISNULL(TASK_HANDLER_NAME));
	task->handler_owner = text_or_null(VALUE(TASK_HANDLER_OWNER), ISNULL(TASK_HANDLER_OWNER));
	task->queue = TextDatumGetCString(VALUE(TASK_QUEUE));
	task->max_attempts = DatumGetInt32(VALUE(TASK_MAX_ATTEMPTS));
	task->min_backoff = *DatumGetIntervalP(VALUE(TASK_MIN_BACKOFF));
	task->max_backoff = *DatumGetIntervalP(VALUE(TASK_MAX_BACKOFF));
	task->backoff_factor = DatumGetFloat8(VALUE(TASK_BACKOFF_FACTOR));
	task->backoff_jitter = DatumGetBool(VALUE(TASK_BACKOFF_JITTER));
	task->lease_duration = *DatumGetIntervalP(VALUE(TASK_LEASE_DURATION));
	task->max_duration = interval_or_null(VALUE(TASK_MAX_DURATION), ISNULL(TASK_MAX_DURATION));
	task->idempotency_key_ttl = interval_or_null(VALUE(TASK_IDEMPOTENCY_KEY_TTL),
												 ISNULL(TASK_IDEMPOTENCY_KEY_TTL));
	task->release_key_on = status_bits(DatumGetArrayTypeP(VALUE(TASK_RELEASE_KEY_ON)));
	task->idempotency_group = text_or_null(VALUE(TASK_IDEMPOTENCY_GROUP),
										   ISNULL(TASK_IDEMPOTENCY_GROUP));
	task->compares_payloads =
		strcmp(TextDatumGetCString(VALUE(TASK_ON_PAYLOAD_MISMATCH)), "error") == 0;
	task->concurrency_limit = ISNULL(TASK_CONCURRENCY_LIMIT) ? 0 :
		DatumGetInt32(VALUE(TASK_CONCURRENCY_LIMIT));
	task->idempotency_key_required = DatumGetBool(VALUE(TASK_IDEMPOTENCY_KEY_REQUIRED));
	task->dropped = !ISNULL(TASK_DROPPED_AT);
}

/*
 * The task with this name, dropped ones included, or NULL.  Valid until the end
 * of the transaction.
 */
const Task *
task_find(const char *task_id)
{
	char		name[IDENTIFIER_MAX_BYTES + 1];
	CachedTask *cached;
	bool		found;
	Datum		values[TASK_COLUMNS];
	bool		nulls[TASK_COLUMNS];
	Snapshot	snapshot;

	if (strlen(task_id) > IDENTIFIER_MAX_BYTES)
		return NULL;
	strlcpy(name, task_id, sizeof(name));
	if (cache == NULL || cache_stale)
		cache_reset();
	cached = hash_search(cache, name, HASH_FIND, NULL);
	if (cached)
		return &cached->task;

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = store_fetch(STORE_TASK, CStringGetTextDatum(name), snapshot, values, nulls);
	UnregisterSnapshot(snapshot);
	if (!found)
		return NULL;

	/* the lookup may have brought in an invalidation */
	if (cache_stale)
		cache_reset();
	{
		MemoryContext caller = MemoryContextSwitchTo(cache_context);
		Task		task;

		task_from_row(values, nulls, &task);
		cached = hash_search(cache, name, HASH_ENTER, NULL);
		cached->task = task;
		MemoryContextSwitchTo(caller);
	}
	return &cached->task;
}

/* The task with this name; 42704 when there is none or it was dropped. */
const Task *
task_require(const char *task_id)
{
	const Task *task = task_find(task_id);

	if (task == NULL || task->dropped)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("task \"%s\" does not exist", task_id),
				 errhint("Create it with trigger_idem.task_create().")));
	return task;
}

/*
 * Has the task been dropped, or given to another owner, since it was looked up?
 * Asked once runs cannot change hands any more: 42704.
 */
void
task_require_same(const char *task_id, const char *owner)
{
	const Task *task = task_require(task_id);

	if (strcmp(task->owner, owner) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("task \"%s\" was dropped and made again by another role", task_id)));
}

/* Make every session read the tasks again once this transaction commits. */
static void
task_changed(void)
{
	CacheInvalidateRelcacheByRelid(store_table_id(STORE_TASK));
	CommandCounterIncrement();
}

/* ---------- task_create ---------- */

/* The arguments of task_create(), in their order */
enum
{
	ARG_TASK_ID,
	ARG_HANDLER,
	ARG_QUEUE,
	ARG_MAX_ATTEMPTS,
	ARG_MIN_BACKOFF,
	ARG_MAX_BACKOFF,
	ARG_BACKOFF_FACTOR,
	ARG_BACKOFF_JITTER,
	ARG_MAX_DURATION,
	ARG_LEASE_DURATION,
	ARG_IDEMPOTENCY_KEY_TTL,
	ARG_RELEASE_KEY_ON,
	ARG_IDEMPOTENCY_GROUP,
	ARG_ON_PAYLOAD_MISMATCH,
	ARG_CONCURRENCY_LIMIT,
	ARG_RUN_AS,
	ARG_IDEMPOTENCY_KEY_REQUIRED,
};

/* Settings that may not be null, and how messages call them */
static const struct
{
	int			argument;
	const char *name;
}			required_settings[] = {
	{ARG_MAX_ATTEMPTS, "max_attempts"},
	{ARG_MIN_BACKOFF, "min_backoff"},
	{ARG_MAX_BACKOFF, "max_backoff"},
	{ARG_BACKOFF_FACTOR, "backoff_factor"},
	{ARG_BACKOFF_JITTER, "backoff_jitter"},
	{ARG_LEASE_DURATION, "lease_duration"},
	{ARG_RELEASE_KEY_ON, "release_key_on"},
	{ARG_ON_PAYLOAD_MISMATCH, "on_payload_mismatch"},
	{ARG_IDEMPOTENCY_KEY_REQUIRED, "idempotency_key_required"},
};

static char *
text_arg(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

/* Check all settings but handler and roles. */
static void
settings_check(FunctionCallInfo fcinfo)
{
	Interval   *min_backoff;
	Interval   *max_backoff;
	float8		factor;
	char	   *on_mismatch;

	identifier_check("queue", text_arg(fcinfo, ARG_QUEUE));
	for (size_t i = 0; i < lengthof(required_settings); i++)
		if (PG_ARGISNULL(required_settings[i].argument))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", required_settings[i].name)));

	max_attempts_check(PG_GETARG_INT32(ARG_MAX_ATTEMPTS));
	min_backoff = PG_GETARG_INTERVAL_P(ARG_MIN_BACKOFF);
	max_backoff = PG_GETARG_INTERVAL_P(ARG_MAX_BACKOFF);
	interval_check("min_backoff", min_backoff, 0);
	interval_check("max_backoff", max_backoff, 0);
	if (interval_to_ms(max_backoff) < interval_to_ms(min_backoff))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_backoff is less than min_backoff")));
	factor = PG_GETARG_FLOAT8(ARG_BACKOFF_FACTOR);
	if (isnan(factor) || factor < 1 || factor > BACKOFF_FACTOR_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("backoff_factor is out of range"),
				 errdetail("It must be between 1 and %d.", BACKOFF_FACTOR_MAX)));
	interval_check("lease_duration", PG_GETARG_INTERVAL_P(ARG_LEASE_DURATION),
				   LEASE_MIN_US);
	if (!PG_ARGISNULL(ARG_MAX_DURATION))
		interval_check("max_duration", PG_GETARG_INTERVAL_P(ARG_MAX_DURATION), 1);
	if (!PG_ARGISNULL(ARG_IDEMPOTENCY_KEY_TTL))
		interval_check("idempotency_key_ttl",
					   PG_GETARG_INTERVAL_P(ARG_IDEMPOTENCY_KEY_TTL), 1);
	(void) status_bits(PG_GETARG_ARRAYTYPE_P(ARG_RELEASE_KEY_ON));
	if (!PG_ARGISNULL(ARG_IDEMPOTENCY_GROUP))
		identifier_check("idempotency_group", text_arg(fcinfo, ARG_IDEMPOTENCY_GROUP));
	on_mismatch = text_arg(fcinfo, ARG_ON_PAYLOAD_MISMATCH);
	if (strcmp(on_mismatch, "ignore") != 0 && strcmp(on_mismatch, "error") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown on_payload_mismatch \"%s\"", on_mismatch),
				 errhint("It is \"ignore\" or \"error\".")));
	if (!PG_ARGISNULL(ARG_CONCURRENCY_LIMIT) && PG_GETARG_INT32(ARG_CONCURRENCY_LIMIT) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("concurrency_limit must be at least 1")));
}

static Statement lock_task = {
	.sql = "SELECT t.owner, t.run_as, t.dropped_at IS NOT NULL FROM trigger_idem.task t "
	"WHERE t.task_id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTOID}
};

/* Wait for whoever is writing runs or keys, and let nobody begin to. */
static Statement lock_runs = {
	.sql = "LOCK TABLE trigger_idem.run, trigger_idem.idempotency_key IN SHARE MODE",
	.expected = SPI_OK_UTILITY
};

static Statement task_in_use = {
	.sql = "SELECT WHERE EXISTS (SELECT FROM trigger_idem.run r"
	"    WHERE r.task_id OPERATOR(pg_catalog.=) $1)"
	"  OR EXISTS (SELECT FROM trigger_idem.idempotency_key k"
	"    WHERE k.task_id OPERATOR(pg_catalog.=) $1)",
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTOID}
};

/* Who owns a task's name, and what was set before */
typedef struct TaskOwnership
{
	char	   *owner;			/* NULL: the name is free */
	char	   *run_as;
	bool		dropped;
} TaskOwnership;

/*
 * Lock the row of a task, if it is there, inside an owner scope.  A name
 * belongs to its owner until the task is dropped and nothing of it is left:
 * 42501 for others, but for those who may drop it all the same.  What is left
 * must be seen as it is now, so a name changes hands at READ COMMITTED only.
 */
static void
task_lock(OwnerScope *scope, const char *task_id, bool may_drop_others,
		  TaskOwnership *ownership)
{
	Datum		values[1] = {CStringGetTextDatum(task_id)};

	memset(ownership, 0, sizeof(*ownership));
	if (statement_run(&lock_task, values, NULL) == 0)
		return;
	ownership->owner = statement_text(scope, 0, 1);
	ownership->run_as = statement_text(scope, 0, 2);
	ownership->dropped = DatumGetBool(statement_value(0, 3, NULL));
	if (access_is_member(scope->user, ownership->owner) || may_drop_others)
		return;
	if (ownership->dropped && !IsolationUsesXactSnapshot())
	{
		statement_run(&lock_runs, NULL, NULL);
		if (statement_run(&task_in_use, values, NULL) == 0)
		{
			ownership->owner = NULL;
			access_forget_task(values[0]);
			return;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("must be owner of task \"%s\"", task_id),
			 !ownership->dropped ? 0 :
			 IsolationUsesXactSnapshot() ?
			 errdetail("It was dropped, but its name becomes another role's at READ COMMITTED only.") :
			 errdetail("It was dropped, but runs or keys of it remain.")));
}

static Statement claim_group = {
	.sql = "INSERT INTO trigger_idem.idempotency_group AS g (idempotency_group, owner) "
	"VALUES ($1, $2) ON CONFLICT (idempotency_group) DO UPDATE SET owner = g.owner "
	"RETURNING g.owner",
	.expected = SPI_OK_INSERT_RETURNING,
	.argtypes = {TEXTOID, TEXTOID}
};

/* An idempotency group belongs to the role that used it first: 42501 */
static void
group_claim(OwnerScope *scope, Datum group, Datum owner)
{
	Datum		values[2] = {group, owner};

	statement_run(&claim_group, values, NULL);
	if (!access_is_member(scope->user, TextDatumGetCString(statement_value(0, 1, NULL))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("idempotency group \"%s\" belongs to another role",
						TextDatumGetCString(group))));
}

static Statement upsert_task = {
	.sql = "INSERT INTO trigger_idem.task AS t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,"
	"  $12, $13, $14, $15, $16, $17, $18, $19, $20, pg_catalog.clock_timestamp(), NULL) "
	"ON CONFLICT (task_id) DO UPDATE SET owner = excluded.owner, run_as = excluded.run_as,"
	"  handler_schema = excluded.handler_schema, handler_name = excluded.handler_name,"
	"  handler_owner = excluded.handler_owner, queue = excluded.queue,"
	"  max_attempts = excluded.max_attempts, min_backoff = excluded.min_backoff,"
	"  max_backoff = excluded.max_backoff, backoff_factor = excluded.backoff_factor,"
	"  backoff_jitter = excluded.backoff_jitter, max_duration = excluded.max_duration,"
	"  lease_duration = excluded.lease_duration,"
	"  idempotency_key_ttl = excluded.idempotency_key_ttl,"
	"  release_key_on = excluded.release_key_on,"
	"  idempotency_group = excluded.idempotency_group,"
	"  on_payload_mismatch = excluded.on_payload_mismatch,"
	"  concurrency_limit = excluded.concurrency_limit,"
	"  idempotency_key_required = excluded.idempotency_key_required, dropped_at = NULL "
	/* without a row to lock before, another session may have been first */
	"WHERE $21 OR t.owner OPERATOR(pg_catalog.=) excluded.owner",
	.expected = SPI_OK_INSERT,
	.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID,
		INTERVALOID, INTERVALOID, FLOAT8OID, BOOLOID, INTERVALOID, INTERVALOID, INTERVALOID,
	TEXTARRAYOID, TEXTOID, TEXTOID, INT4OID, BOOLOID, BOOLOID}
};

/* The role with this name, or another one where there is none */
static Oid
role_or(const char *name, Oid otherwise)
{
	Oid			role = name ? get_role_oid(name, true) : InvalidOid;

	return OidIsValid(role) ? role : otherwise;
}

/* The owner must be able to become the role that the task runs as: 42501 */
static void
run_as_check(Oid owner, Oid run_as)
{
	if (!superuser_arg(owner) && !compat_may_set_role(owner, run_as))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not SET ROLE to \"%s\"",
						GetUserNameFromId(owner, false), GetUserNameFromId(run_as, false)),
				 errdetail("The owner of a task must be able to become the role that it runs as.")));
}

/*
 * Check what can change between two attempts of a task: who may work with
 * which handler.  42501; the handler is the one found now.
 */
void
task_check_handler(const Task *task, const Handler *handler)
{
	Oid			run_as = get_role_oid(task->run_as, false);

	run_as_check(get_role_oid(task->owner, false), run_as);
	handler_check_role(handler, run_as);
	if (strcmp(GetUserNameFromId(handler->owner, false), task->handler_owner) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("handler %s of task \"%s\" has another owner than when the task was created",
						quote_qualified_identifier(handler->schema, handler->name), task->task_id),
				 errhint("Call task_create() again to accept it.")));
}

/*
 * task_create(task_id text, handler regproc, queue text, max_attempts int, ...)
 *
 * The caller becomes the owner, if he may create tasks; of a task that is there,
 * settings are replaced and the owner stays.
 */
Datum
trigger_idem_task_create(PG_FUNCTION_ARGS)
{
	OwnerScope	scope;
	TaskOwnership before;
	Datum		values[21];
	char		nulls[21];
	char	   *task_id = text_arg(fcinfo, ARG_TASK_ID);
	Oid			owner = GetUserId();
	Oid			run_as;
	Handler		handler;
	bool		has_handler = !PG_ARGISNULL(ARG_HANDLER);
	const Task *known;

	identifier_check("task", task_id);
	known = task_find(task_id);
	if (known == NULL || !access_is_member(GetUserId(), known->owner))
		access_require_for_all(ACCESS_WORK, "task_create() of a new task");
	settings_check(fcinfo);
	if (has_handler)
		handler_describe(PG_GETARG_OID(ARG_HANDLER), &handler);

	owner_begin(&scope);
	task_lock(&scope, task_id, false, &before);
	/* a role that is gone is replaced by the caller, who is a superuser then */
	owner = role_or(before.owner, owner);
	run_as = !PG_ARGISNULL(ARG_RUN_AS) ? PG_GETARG_OID(ARG_RUN_AS) :
		role_or(before.owner ? before.run_as : NULL, owner);
	if (!superuser_arg(scope.user) && !compat_may_set_role(scope.user, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be able to SET ROLE to the owner of task \"%s\"", task_id)));
	run_as_check(owner, run_as);
	if (has_handler)
		handler_check_role(&handler, run_as);
	if (has_handler && background_is_there() && !background_may_be(run_as))
		ereport(WARNING,
				(errmsg("no background worker can work task \"%s\"", task_id),
				 errdetail("Role \"%s\" may not log in.", GetUserNameFromId(run_as, false)),
				 errhint("ALTER ROLE .. LOGIN CONNECTION LIMIT 0 lets background workers log in, and nobody else.")));

	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(task_id);
	values[1] = CStringGetTextDatum(GetUserNameFromId(owner, false));
	values[2] = CStringGetTextDatum(GetUserNameFromId(run_as, false));
	if (has_handler)
	{
		values[3] = CStringGetTextDatum(handler.schema);
		values[4] = CStringGetTextDatum(handler.name);
		values[5] = CStringGetTextDatum(GetUserNameFromId(handler.owner, false));
	}
	else
		nulls[3] = nulls[4] = nulls[5] = 'n';

	/* queue to concurrency_limit stand in the table as in the call */
	for (int argument = ARG_QUEUE; argument <= ARG_CONCURRENCY_LIMIT; argument++)
	{
		values[TASK_QUEUE - 1 + argument - ARG_QUEUE] = PG_GETARG_DATUM(argument);
		if (PG_ARGISNULL(argument))
			nulls[TASK_QUEUE - 1 + argument - ARG_QUEUE] = 'n';
	}
	values[19] = PG_GETARG_DATUM(ARG_IDEMPOTENCY_KEY_REQUIRED);
	values[20] = BoolGetDatum(before.owner != NULL || before.dropped);

	if (!PG_ARGISNULL(ARG_IDEMPOTENCY_GROUP))
		group_claim(&scope, PG_GETARG_DATUM(ARG_IDEMPOTENCY_GROUP), values[1]);
	if (statement_run(&upsert_task, values, nulls) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of task \"%s\"", task_id)));
	owner_end(&scope);
	task_changed();
	PG_RETURN_VOID();
}

/* ---------- task_drop ---------- */

static Statement drop_task = {
	.sql = "UPDATE trigger_idem.task SET dropped_at = pg_catalog.clock_timestamp() "
	"WHERE task_id OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_UPDATE,
	.argtypes = {TEXTOID}
};

/* task_drop(task_id text): true when there was such a task */
Datum
trigger_idem_task_drop(PG_FUNCTION_ARGS)
{
	OwnerScope	scope;
	TaskOwnership before;
	char	   *task_id = text_arg(fcinfo, 0);
	Datum		values[1];
	bool		may_drop_others;
	bool		dropped;

	identifier_check("task", task_id);
	values[0] = CStringGetTextDatum(task_id);

	may_drop_others = access_allows(ACCESS_ADMIN, task_id);

	owner_begin(&scope);
	task_lock(&scope, task_id, may_drop_others, &before);
	dropped = before.owner != NULL && !before.dropped;
	if (dropped)
		statement_run(&drop_task, values, NULL);
	owner_end(&scope);
	if (dropped)
		task_changed();
	PG_RETURN_BOOL(dropped);
}
