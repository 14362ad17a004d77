/*-------------------------------------------------------------------------
 *
 * trigger.c
 *	  trigger_task(): one run for each live idempotency key.
 *
 * The options of a call are checked, all of them, before the key is looked up;
 * acquire.c then finds out whether the key is free.  Key, run and queue entry
 * are inserted in the transaction of the caller.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "access.h"
#include "acquire.h"
#include "current.h"
#include "environment.h"
#include "limit.h"
#include "stats.h"
#include "store.h"
#include "trigger.h"
#include "wait.h"
#include "wake.h"

#define PRIORITY_MAX	1000000
#define TAG_MAX_CHARS	128

/* From here on the longest ttl may end later than any time can be. */
#define RUN_AT_MAX_WITH_TTL	(END_TIMESTAMP - 101 * INT64CONST(366) * USECS_PER_DAY)

PG_FUNCTION_INFO_V1(trigger_idem_trigger_task);

/* ---------- Options ---------- */

static char *
text_option(const NullableDatum *options, TriggerOption option)
{
	return options[option].isnull ? NULL : TextDatumGetCString(options[option].value);
}

pg_noreturn static void
option_error(const char *option, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s is out of range", option),
			 errdetail_internal("%s", detail)));
}

/* When the run is to be due: after a delay, or at a time, or at once */
static void
due_options(const NullableDatum *options, TriggerCall *trigger)
{
	trigger->delay = options[OPTION_DELAY];
	trigger->given_run_at = DT_NOBEGIN;
	if (!trigger->delay.isnull && !options[OPTION_RUN_AT].isnull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delay and run_at exclude each other")));
	if (!trigger->delay.isnull)
		interval_check("delay", DatumGetIntervalP(trigger->delay.value), 0);
	if (!options[OPTION_RUN_AT].isnull)
	{
		trigger->given_run_at = DatumGetTimestampTz(options[OPTION_RUN_AT].value);
		if (TIMESTAMP_NOT_FINITE(trigger->given_run_at))
			option_error("run_at", _("It must be finite."));
	}
	trigger->ttl = options[OPTION_TTL];
	if (!trigger->ttl.isnull)
	{
		interval_check("ttl", DatumGetIntervalP(trigger->ttl.value), 1);
		if (trigger->given_run_at >= RUN_AT_MAX_WITH_TTL)
			option_error("run_at", _("It is too late for a ttl to be counted from it."));
	}
}

/* The trigger takes place now; it may have waited for another one before. */
void
trigger_set_now(TriggerCall *trigger, TimestampTz now)
{
	trigger->now = now;
	trigger->run_at = Max(trigger->given_run_at, now);
	if (!trigger->delay.isnull)
		trigger->run_at = Max(timestamp_plus(now, DatumGetIntervalP(trigger->delay.value)), now);
	trigger->expires_at = trigger->ttl.isnull ? DT_NOEND :
		timestamp_plus(trigger->run_at, DatumGetIntervalP(trigger->ttl.value));
}

/* A list of tags has one dimension, and no nulls, empty or long ones. */
static void
tags_check(NullableDatum option)
{
	ArrayType  *tags;
	Datum	   *values;
	bool	   *nulls;
	int			count;

	if (option.isnull)
		return;
	tags = DatumGetArrayTypeP(option.value);
	if (ARR_NDIM(tags) > 1)
		option_error("tags", _("It must be an array of one dimension."));
	deconstruct_array(tags, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &count);
	limit_tags(count);
	for (int i = 0; i < count; i++)
	{
		char	   *tag = nulls[i] ? NULL : TextDatumGetCString(values[i]);

		if (tag == NULL || *tag == '\0')
			option_error("tags", _("A tag must not be null or empty."));
		if (pg_mbstrlen(tag) > TAG_MAX_CHARS)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("tag is too long"),
					 errdetail("The limit is %d characters.", TAG_MAX_CHARS)));
	}
}

/* The key, its scope and its time to live */
static void
key_options(const NullableDatum *options, TriggerReason reason, TriggerCall *trigger)
{
	const Task *task = trigger->task;
	char	   *scope_name = text_option(options, OPTION_IDEMPOTENCY_KEY_SCOPE);
	KeyScope	scope;

	if (scope_name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idempotency key scope must not be null")));
	scope = key_scope_parse(scope_name);

	trigger->key_ttl = task->idempotency_key_ttl;
	if (!options[OPTION_IDEMPOTENCY_KEY_TTL].isnull)
	{
		trigger->key_ttl = DatumGetIntervalP(options[OPTION_IDEMPOTENCY_KEY_TTL].value);
		interval_check("idempotency_key_ttl", trigger->key_ttl, 1);
	}

	trigger->has_key = !options[OPTION_IDEMPOTENCY_KEY].isnull;
	trigger->key_typed = NULL;
	trigger->key_scope = NULL;
	if (trigger->has_key)
	{
		text	   *given = DatumGetTextPP(options[OPTION_IDEMPOTENCY_KEY].value);

		if (key_parse_hex(given, &trigger->key))
			trigger->key_typed = key_recall(&trigger->key, &trigger->key_scope);
		else
		{
			key_from_text(given, scope, &trigger->key, &scope);
			trigger->key_typed = given;
			trigger->key_scope = key_scope_name(scope);
		}
		key_id(&trigger->key, trigger->environment, task->task_id, task->idempotency_group,
			   &trigger->key_id);
	}
	else if (task->idempotency_key_required && reason == TRIGGER_CALL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("task \"%s\" requires an idempotency key", task->task_id)));
}

/* Check the options, all of them before anything is looked up by key. */
void
trigger_prepare(const NullableDatum *options, TriggerReason reason, TriggerCall *trigger)
{
	char	   *task_id = text_option(options, OPTION_TASK_ID);
	NullableDatum environment = options[OPTION_ENVIRONMENT];

	wait_check_not_begun();
	trigger->is_awaited = false;
	trigger->is_tick = reason == TRIGGER_TICK;
	if (task_id == NULL)
		identifier_check("task", NULL);
	trigger->task = task_require(task_id);
	access_require(ACCESS_TRIGGER, trigger->task);

	due_options(options, trigger);
	trigger_set_now(trigger, GetCurrentTimestamp());
	trigger->priority = options[OPTION_PRIORITY].isnull ? 0 :
		DatumGetInt32(options[OPTION_PRIORITY].value);
	if (trigger->priority < 0 || trigger->priority > PRIORITY_MAX)
		option_error("priority", psprintf(_("It must be between 0 and %d seconds."), PRIORITY_MAX));
	trigger->queue = options[OPTION_QUEUE];
	if (!trigger->queue.isnull)
		identifier_check("queue", text_option(options, OPTION_QUEUE));
	trigger->concurrency_key = options[OPTION_CONCURRENCY_KEY];
	if (!trigger->concurrency_key.isnull)
		identifier_check("concurrency_key", text_option(options, OPTION_CONCURRENCY_KEY));
	trigger->max_attempts = trigger->task->max_attempts;
	if (!options[OPTION_MAX_ATTEMPTS].isnull)
	{
		trigger->max_attempts = DatumGetInt32(options[OPTION_MAX_ATTEMPTS].value);
		max_attempts_check(trigger->max_attempts);
	}
	trigger->payload = options[OPTION_PAYLOAD];
	limit_payload(trigger->payload);
	trigger->tags = options[OPTION_TAGS];
	tags_check(trigger->tags);
	trigger->metadata = options[OPTION_METADATA];
	limit_metadata(trigger->metadata);

	trigger->environment = environment_choose(environment.isnull ? NULL :
											  DatumGetTextPP(environment.value), trigger->task);
	environment_check_run_as(trigger->environment, trigger->task);
	key_options(options, reason, trigger);
}

/* ---------- The run ---------- */

/* Refuse to write where that is not possible: 25006 */
void
trigger_prevent_read_only(void)
{
	PreventCommandDuringRecovery("trigger_task() of a new run");
	PreventCommandIfReadOnly("trigger_task() of a new run");
}

#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
#define SET_NULLABLE(column, nullable) \
	(values[(column) - 1] = (nullable).value, nulls[(column) - 1] = (nullable).isnull)

static Datum
trigger_queue(const TriggerCall *trigger)
{
	return trigger->queue.isnull ? CStringGetTextDatum(trigger->task->queue) :
		trigger->queue.value;
}

/* Fill in the columns of a new run. */
void
trigger_run_row(const TriggerCall *trigger, const pg_uuid_t *run_id, Datum *values, bool *nulls)
{
	const CurrentRun *parent = current_run();

	memset(nulls, true, RUN_COLUMNS * sizeof(bool));
	SET(RUN_RUN_ID, UUIDPGetDatum(run_id));
	SET(RUN_CREATED_AT, TimestampTzGetDatum(trigger->now));
	SET(RUN_RUN_AT, TimestampTzGetDatum(trigger->run_at));
	SET(RUN_MAX_ATTEMPTS, Int32GetDatum(trigger->max_attempts));
	SET(RUN_PRIORITY, Int32GetDatum(trigger->priority));
	SET_NULLABLE(RUN_TTL, trigger->ttl);
	SET(RUN_ENVIRONMENT, CStringGetTextDatum(trigger->environment));
	SET(RUN_TASK_ID, CStringGetTextDatum(trigger->task->task_id));
	SET(RUN_QUEUE, trigger_queue(trigger));
	SET_NULLABLE(RUN_CONCURRENCY_KEY, trigger->concurrency_key);
	SET(RUN_TRIGGERED_BY, CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)));
	if (parent)
		SET(RUN_PARENT_RUN_ID, UUIDPGetDatum(&parent->run_id));
	if (trigger->has_key)
	{
		SET(RUN_KEY_ID, UUIDPGetDatum(&trigger->key_id));
		SET(RUN_IDEMPOTENCY_KEY, PointerGetDatum(trigger->key_typed ? trigger->key_typed :
												 key_to_hex(&trigger->key)));
		if (trigger->key_scope)
			SET(RUN_IDEMPOTENCY_KEY_SCOPE, CStringGetTextDatum(trigger->key_scope));
		if (!TIMESTAMP_NOT_FINITE(trigger->key_expires_at))
			SET(RUN_KEY_EXPIRES_AT, TimestampTzGetDatum(trigger->key_expires_at));
	}
	SET_NULLABLE(RUN_TAGS, trigger->tags);
	SET_NULLABLE(RUN_METADATA, trigger->metadata);
	SET_NULLABLE(RUN_PAYLOAD, trigger->payload);
}

/* Fill in the columns of its queue entry. */
void
trigger_entry_row(const TriggerCall *trigger, const pg_uuid_t *run_id, Datum *values, bool *nulls)
{
	const CurrentRun *parent = current_run();

	memset(nulls, true, ENTRY_COLUMNS * sizeof(bool));
	SET(ENTRY_RUN_ID, UUIDPGetDatum(run_id));
	SET(ENTRY_ORD, TimestampTzGetDatum(trigger->run_at - trigger->priority * USECS_PER_SEC));
	SET(ENTRY_VISIBLE_FROM, TimestampTzGetDatum(trigger->run_at));
	if (!TIMESTAMP_NOT_FINITE(trigger->expires_at))
		SET(ENTRY_EXPIRES_AT, TimestampTzGetDatum(trigger->expires_at));
	if (parent)
		SET(ENTRY_PARENT_RUN_ID, UUIDPGetDatum(&parent->run_id));
	SET(ENTRY_ATTEMPT, Int32GetDatum(0));
	SET(ENTRY_FAILURES, Int32GetDatum(0));
	SET(ENTRY_STEADY_ATTEMPT, Int32GetDatum(1));
	SET(ENTRY_MAX_ATTEMPTS, Int32GetDatum(trigger->max_attempts));
	SET(ENTRY_PRIORITY, Int32GetDatum(trigger->priority));
	SET(ENTRY_QUEUE, trigger_queue(trigger));
	SET(ENTRY_ENVIRONMENT, CStringGetTextDatum(trigger->environment));
	SET(ENTRY_TASK_ID, CStringGetTextDatum(trigger->task->task_id));
	SET_NULLABLE(ENTRY_CONCURRENCY_KEY, trigger->concurrency_key);
	if (trigger->is_awaited)
		SET(ENTRY_IS_AWAITED, BoolGetDatum(true));
}

#undef SET
#undef SET_NULLABLE

/*
 * Find out whether there is to be a new run, and its id.  With a key that is
 * live there is not: result is the run that the key stands for.
 */
void
trigger_acquire(TriggerCall *trigger, TriggerResult *result)
{
	result->is_cached = trigger->has_key && !key_acquire(trigger, result);
	stats_count(result->is_cached ? STAT_HITS : STAT_TRIGGERS);
	if (result->is_cached)
		return;
	if (!trigger->has_key)
	{
		trigger_prevent_read_only();
		run_id_generate(&result->run_id, trigger->now);
	}
	result->status = trigger->run_at > trigger->now ? RUN_DELAYED : RUN_QUEUED;
}

/* After the rows of a new run were inserted, or are about to be */
void
trigger_inserted(const TriggerCall *trigger, const TriggerResult *result)
{
	if (result->status == RUN_QUEUED)
		wake_workers(trigger->queue.isnull ? trigger->task->queue :
					 TextDatumGetCString(trigger->queue.value), trigger->task);
	else
		wake_later(trigger->run_at);
}

/* After all of them */
void
trigger_finish(const TriggerCall *trigger)
{
	/* we have locked the table of runs: the task's name stays its owner's */
	task_require_same(trigger->task->task_id, trigger->task->owner);
	environment_keep(trigger->environment, trigger->task);
	/* a second trigger in the same command must see these rows */
	CommandCounterIncrement();
}

/* Would a trigger be a hit, as far as can be seen?  Nothing is written. */
bool
trigger_peek(TriggerCall *trigger, TriggerResult *result)
{
	result->is_cached = trigger->has_key && key_peek(trigger, result);
	return result->is_cached;
}

/* Do what a trigger asks for. */
void
trigger_one(TriggerCall *trigger, TriggerResult *result)
{
	Datum		values[STORE_MAX_COLUMNS];
	bool		nulls[STORE_MAX_COLUMNS];

	trigger_acquire(trigger, result);
	if (result->is_cached)
		return;
	limit_active_runs(trigger->environment, 1);
	trigger_run_row(trigger, &result->run_id, values, nulls);
	store_insert(STORE_RUN, values, nulls);
	trigger_entry_row(trigger, &result->run_id, values, nulls);
	store_insert(STORE_QUEUE_ENTRY, values, nulls);
	trigger_inserted(trigger, result);
	trigger_finish(trigger);
}

/* ---------- trigger_task ---------- */

/*
 * The shape of the answer: kept for the session, for looking it up in the
 * catalogs costs more than the rest of a hit.
 */
static TupleDesc
result_descriptor(void)
{
	static TupleDesc desc = NULL;

	if (desc == NULL || TupleDescAttr(desc, 2)->atttypid != store_run_status_type())
	{
		MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

		TupleDesc	made = CreateTemplateTupleDesc(3);

		TupleDescInitEntry(made, 1, "run_id", UUIDOID, -1, 0);
		TupleDescInitEntry(made, 2, "is_cached", BOOLOID, -1, 0);
		TupleDescInitEntry(made, 3, "status", store_run_status_type(), -1, 0);
		desc = BlessTupleDesc(made);
		MemoryContextSwitchTo(caller);
	}
	return desc;
}

/* trigger_task(task_id text, payload jsonb, idempotency_key text, ...) */
Datum
trigger_idem_trigger_task(PG_FUNCTION_ARGS)
{
	TriggerCall trigger;
	TriggerResult result;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	trigger_prepare(fcinfo->args, TRIGGER_CALL, &trigger);
	trigger_one(&trigger, &result);

	values[0] = UUIDPGetDatum(&result.run_id);
	values[1] = BoolGetDatum(result.is_cached);
	values[2] = ObjectIdGetDatum(run_status_oid(result.status));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(result_descriptor(), values, nulls)));
}
