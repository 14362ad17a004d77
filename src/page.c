/*-------------------------------------------------------------------------
 *
 * page.c
 *	  Finding what a page of runs shows, without reading all of them.
 *
 * A run's id begins with the time of its trigger, so the newest runs are found by
 * walking its primary key backwards.  The view of the runs cannot be walked like
 * that: it is a security barrier, behind which an ORDER BY and a LIMIT are not
 * known.  So the walk is here, with the rule of the view applied to every row,
 * and no walk reads more rows than it was allowed to.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "key.h"
#include "run.h"
#include "store.h"
#include "task.h"

PG_FUNCTION_INFO_V1(trigger_idem_runs_walk);
PG_FUNCTION_INFO_V1(trigger_idem_idempotency_key_holder);

/* Arguments of runs_walk(), in their order */
enum
{
	WALK_UNFINISHED,
	WALK_BEFORE,
	WALK_SINCE,
	WALK_UNTIL,
	WALK_ENVIRONMENT,
	WALK_TASK_ID,
	WALK_QUEUE,
	WALK_IDEMPOTENCY_KEY,
	WALK_TAG,
	WALK_MAX_READ,
};

/* Columns of its result */
enum
{
	FOUND_RUN_ID,
	FOUND_STATUS,
	FOUND_QUEUE,
	FOUND_CREATED_AT,
	FOUND_COLUMNS
};

/* What was decided for the last row, for the next one is often like it */
typedef struct Verdict
{
	text	   *task_id;
	text	   *triggered_by;
	text	   *environment;
	bool		may_see;
} Verdict;

static bool
text_equal(const text *one, const text *other)
{
	return VARSIZE_ANY_EXHDR(one) == VARSIZE_ANY_EXHDR(other) &&
		memcmp(VARDATA_ANY(one), VARDATA_ANY(other), VARSIZE_ANY_EXHDR(one)) == 0;
}

/* A column of a run that is never null, where it lies in the row */
static text *
run_text(TupleTableSlot *run, int column)
{
	bool		isnull;

	return DatumGetTextPP(slot_getattr(run, column, &isnull));
}

static text *
copy_text(const text *value)
{
	return cstring_to_text_with_len(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* May the caller see this run? */
static bool
verdict(Verdict *last, TupleTableSlot *run)
{
	text	   *task_id = run_text(run, RUN_TASK_ID);
	text	   *triggered_by = run_text(run, RUN_TRIGGERED_BY);
	text	   *environment = run_text(run, RUN_ENVIRONMENT);

	if (last->task_id && text_equal(last->task_id, task_id) &&
		text_equal(last->triggered_by, triggered_by) &&
		text_equal(last->environment, environment))
		return last->may_see;
	last->task_id = copy_text(task_id);
	last->triggered_by = copy_text(triggered_by);
	last->environment = copy_text(environment);
	last->may_see = access_may_see_run(text_to_cstring(task_id), text_to_cstring(triggered_by),
									   text_to_cstring(environment));
	return last->may_see;
}

/* Is a text that may be null the one that is wanted, if one is? */
static bool
is_wanted(FunctionCallInfo fcinfo, int argument, TupleTableSlot *run, int column)
{
	bool		isnull;
	Datum		value;

	if (PG_ARGISNULL(argument))
		return true;
	value = slot_getattr(run, column, &isnull);
	return !isnull && text_equal(DatumGetTextPP(value), PG_GETARG_TEXT_PP(argument));
}

/* Has a run the tag that is wanted, if one is? */
static bool
has_wanted_tag(FunctionCallInfo fcinfo, TupleTableSlot *run)
{
	bool		isnull;
	Datum		value;
	Datum	   *tags;
	int			count;

	if (PG_ARGISNULL(WALK_TAG))
		return true;
	value = slot_getattr(run, RUN_TAGS, &isnull);
	if (isnull)
		return false;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT,
					  &tags, NULL, &count);
	for (int i = 0; i < count; i++)
		if (text_equal(DatumGetTextPP(tags[i]), PG_GETARG_TEXT_PP(WALK_TAG)))
			return true;
	return false;
}

/* Where a run stands: one that is not final has a queue entry */
static Datum
found_status(TupleTableSlot *run, TupleTableSlot *entry)
{
	bool		isnull;
	Datum		value = slot_getattr(run, RUN_STATUS, &isnull);

	if (!isnull)
		return value;
	return ObjectIdGetDatum(run_status_oid(run_entry_status(entry, GetCurrentTimestamp())));
}

/* Is a run, which the caller may see, one that is wanted? */
static bool
walk_wants(FunctionCallInfo fcinfo, TupleTableSlot *run)
{
	return is_wanted(fcinfo, WALK_ENVIRONMENT, run, RUN_ENVIRONMENT) &&
		is_wanted(fcinfo, WALK_TASK_ID, run, RUN_TASK_ID) &&
		is_wanted(fcinfo, WALK_QUEUE, run, RUN_QUEUE) &&
		is_wanted(fcinfo, WALK_IDEMPOTENCY_KEY, run, RUN_IDEMPOTENCY_KEY) &&
		has_wanted_tag(fcinfo, run);
}

/* Put a run into the result. */
static void
walk_put(FunctionCallInfo fcinfo, TupleTableSlot *run, TupleTableSlot *entry)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[FOUND_COLUMNS];
	bool		nulls[FOUND_COLUMNS] = {false};
	bool		isnull;

	values[FOUND_RUN_ID] = slot_getattr(run, RUN_RUN_ID, &isnull);
	values[FOUND_STATUS] = found_status(run, entry);
	values[FOUND_QUEUE] = slot_getattr(run, RUN_QUEUE, &isnull);
	values[FOUND_CREATED_AT] = slot_getattr(run, RUN_CREATED_AT, &isnull);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* The bounds of a walk: ids from one on, and before another */
static void
walk_bounds(FunctionCallInfo fcinfo, pg_uuid_t *from, pg_uuid_t *before)
{
	memset(from, 0, sizeof(pg_uuid_t));
	memset(before, 0xff, sizeof(pg_uuid_t));
	if (!PG_ARGISNULL(WALK_SINCE))
		run_id_first(from, PG_GETARG_TIMESTAMPTZ(WALK_SINCE));
	if (!PG_ARGISNULL(WALK_UNTIL))
		run_id_first(before, PG_GETARG_TIMESTAMPTZ(WALK_UNTIL));
	if (!PG_ARGISNULL(WALK_BEFORE) &&
		memcmp(PG_GETARG_UUID_P(WALK_BEFORE), before, sizeof(pg_uuid_t)) < 0)
		*before = *PG_GETARG_UUID_P(WALK_BEFORE);
}

/* The walk was cut short: a last row without a status tells where to go on. */
static void
walk_put_cut(FunctionCallInfo fcinfo, pg_uuid_t *run_id)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[FOUND_COLUMNS] = {UUIDPGetDatum(run_id)};
	bool		nulls[FOUND_COLUMNS] = {false, true, true, true};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * runs_walk(unfinished boolean, before uuid, since timestamptz, ...): runs that the
 * caller may see, of all or of the unfinished ones, newest first.  At most max_read
 * are read; if there are more, the last row has the id before which to go on.
 */
Datum
trigger_idem_runs_walk(PG_FUNCTION_ARGS)
{
	bool		unfinished = !PG_ARGISNULL(WALK_UNFINISHED) && PG_GETARG_BOOL(WALK_UNFINISHED);
	int			max_read = PG_ARGISNULL(WALK_MAX_READ) ? 0 : PG_GETARG_INT32(WALK_MAX_READ);
	int			count = 0;
	Verdict		last = {.may_see = false};
	pg_uuid_t	from;
	pg_uuid_t	before;
	pg_uuid_t	cut = {{0}};
	StoreLookup walk;
	StoreLookup other;			/* the run of an entry, or the other way round */
	Snapshot	snapshot;

	InitMaterializedSRF(fcinfo, 0);
	walk_bounds(fcinfo, &from, &before);
	/* that of the statement, so that it agrees with the views */
	snapshot = RegisterSnapshot(GetActiveSnapshot());
	store_lookup_newest(&walk, unfinished ? STORE_QUEUE_ENTRY : STORE_RUN, &from, &before,
						snapshot);
	store_lookup_begin(&other, unfinished ? STORE_RUN : STORE_QUEUE_ENTRY, snapshot);
	while (store_lookup_previous(&walk))
	{
		TupleTableSlot *run = unfinished ? other.slot : walk.slot;
		TupleTableSlot *entry = unfinished ? walk.slot : other.slot;
		Datum		run_id;
		bool		isnull;
		bool		may_see;

		CHECK_FOR_INTERRUPTS();
		if (count++ == max_read)
		{
			walk_put_cut(fcinfo, &cut);
			break;
		}
		run_id = slot_getattr(walk.slot, 1, &isnull);
		if (unfinished && !store_lookup_seek(&other, STORE_RUN, run_id))
			elog(ERROR, "queue entry has no run");
		may_see = verdict(&last, run);
		if (may_see && walk_wants(fcinfo, run))
		{
			if (!unfinished && slot_attisnull(run, RUN_STATUS) &&
				!store_lookup_seek(&other, STORE_QUEUE_ENTRY, run_id))
				elog(ERROR, "unfinished run has no queue entry");
			walk_put(fcinfo, run, entry);
		}
		/* of a run that must not be seen no more is told than its time */
		cut = *DatumGetUUIDP(run_id);
		if (!may_see)
			memset(cut.data + 8, 0, UUID_LEN - 8);
	}
	store_lookup_end(&other);
	store_lookup_end(&walk);
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

/*
 * idempotency_key_holder(task_id text, idempotency_key text, environment text): the
 * run that a key stands for, be it live or expired; NULL when there is none that
 * the caller may see.  The key is 64 digits, or raw text, of scope global.
 */
Datum
trigger_idem_idempotency_key_holder(PG_FUNCTION_ARGS)
{
	Datum		row[KEY_COLUMNS];
	bool		nulls[KEY_COLUMNS];
	Snapshot	snapshot;
	const Task *task;
	text	   *given;
	Key			key;
	pg_uuid_t	id;
	bool		found;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	task = task_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (task == NULL)
		PG_RETURN_NULL();
	given = PG_GETARG_TEXT_PP(1);
	if (!key_parse_hex(given, &key))
	{
		key_check_text(given);
		key_from_parts(&given, 1, &key);
	}
	key_id(&key, text_to_cstring(PG_GETARG_TEXT_PP(2)), task->task_id, task->idempotency_group,
		   &id);
	snapshot = RegisterSnapshot(GetActiveSnapshot());
	found = store_fetch(STORE_IDEMPOTENCY_KEY, UUIDPGetDatum(&id), snapshot, row, nulls) &&
		access_may_see_run(TextDatumGetCString(row[KEY_TASK_ID - 1]),
						   TextDatumGetCString(row[KEY_TRIGGERED_BY - 1]),
						   TextDatumGetCString(row[KEY_ENVIRONMENT - 1]));
	UnregisterSnapshot(snapshot);
	if (!found)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(row[KEY_RUN_ID - 1]);
}
