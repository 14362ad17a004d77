/*-------------------------------------------------------------------------
 *
 * trigger.c
 *	  trigger_task(): one run for each live idempotency key.
 *
 * A trigger first reads the key through its index.  A live key is a hit: the
 * run it stands for comes back and nothing is written, not even a transaction
 * id.  A free key is inserted, an expired one taken over, and run and queue
 * entry follow in the same transaction.
 *
 * READ COMMITTED	the read sees what is committed now, and waits for a holder
 *					that has not committed; should another transaction be faster
 *					between read and insert, we begin anew and find its key
 * higher levels	the read sees the transaction's snapshot; a key that was
 *					committed after it raises 40001, as INSERT .. ON CONFLICT does
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "current.h"
#include "environment.h"
#include "key.h"
#include "run.h"
#include "statement.h"
#include "store.h"
#include "task.h"

#define PRIORITY_MAX 1000000

PG_FUNCTION_INFO_V1(trigger_idem_trigger_task);

/* The arguments of trigger_task(), in their order */
enum
{
	ARG_TASK_ID,
	ARG_PAYLOAD,
	ARG_IDEMPOTENCY_KEY,
	ARG_IDEMPOTENCY_KEY_TTL,
	ARG_DELAY,
	ARG_RUN_AT,
	ARG_TTL,
	ARG_PRIORITY,
	ARG_QUEUE,
	ARG_CONCURRENCY_KEY,
	ARG_MAX_ATTEMPTS,
	ARG_TAGS,
	ARG_METADATA,
	ARG_ENVIRONMENT,
	ARG_IDEMPOTENCY_KEY_SCOPE,
};

/* A trigger, its arguments checked and its defaults filled in */
typedef struct TriggerCall
{
	const Task *task;
	const char *environment;
	TimestampTz now;
	TimestampTz run_at;
	int			priority;
	int			max_attempts;
	Datum		queue;
	NullableDatum payload;
	NullableDatum tags;
	NullableDatum metadata;

	bool		has_key;
	Key			key;
	pg_uuid_t	key_id;
	text	   *key_typed;		/* NULL: given in its 64-digit form */
	const char *key_scope;		/* NULL: not known */
	const Interval *key_ttl;	/* NULL: for ever */
	TimestampTz key_expires_at; /* once the key is to be taken */
} TriggerCall;

/* What a trigger answers */
typedef struct TriggerResult
{
	pg_uuid_t	run_id;
	bool		is_cached;
	RunStatus	status;
	bool		is_final;		/* of a hit: the key knows the status */
} TriggerResult;

/* ---------- Arguments ---------- */

pg_noreturn static void
option_error(const char *option, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s is out of range", option),
			 errdetail_internal("%s", detail)));
}

static void
option_unsupported(FunctionCallInfo fcinfo, int argument, const char *option)
{
	if (!PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s is not supported by this version of %s", option, EXTENSION_NAME)));
}

/* Calendar arithmetic, in the session's time zone */
static TimestampTz
timestamp_plus(TimestampTz start, const Interval *interval)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(start),
												   IntervalPGetDatum(interval)));
}

/* When the run is due: now, after a delay, or at a time */
static TimestampTz
due_time(FunctionCallInfo fcinfo, TimestampTz now)
{
	if (!PG_ARGISNULL(ARG_DELAY) && !PG_ARGISNULL(ARG_RUN_AT))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delay and run_at exclude each other")));
	if (!PG_ARGISNULL(ARG_DELAY))
	{
		Interval   *delay = PG_GETARG_INTERVAL_P(ARG_DELAY);

		interval_check("delay", delay, 0);
		return timestamp_plus(now, delay);
	}
	if (!PG_ARGISNULL(ARG_RUN_AT))
	{
		TimestampTz run_at = PG_GETARG_TIMESTAMPTZ(ARG_RUN_AT);

		if (TIMESTAMP_NOT_FINITE(run_at))
			option_error("run_at", _("It must be finite."));
		return Max(run_at, now);
	}
	return now;
}

/* The key, its scope and its time to live */
static void
trigger_key(FunctionCallInfo fcinfo, TriggerCall *trigger)
{
	const Task *task = trigger->task;
	KeyScope	scope;

	if (PG_ARGISNULL(ARG_IDEMPOTENCY_KEY_SCOPE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idempotency key scope must not be null")));
	scope = key_scope_parse(text_to_cstring(PG_GETARG_TEXT_PP(ARG_IDEMPOTENCY_KEY_SCOPE)));

	trigger->key_ttl = task->idempotency_key_ttl;
	if (!PG_ARGISNULL(ARG_IDEMPOTENCY_KEY_TTL))
	{
		trigger->key_ttl = PG_GETARG_INTERVAL_P(ARG_IDEMPOTENCY_KEY_TTL);
		interval_check("idempotency_key_ttl", trigger->key_ttl, 1);
	}

	trigger->has_key = !PG_ARGISNULL(ARG_IDEMPOTENCY_KEY);
	trigger->key_typed = NULL;
	trigger->key_scope = NULL;
	if (trigger->has_key)
	{
		text	   *given = PG_GETARG_TEXT_PP(ARG_IDEMPOTENCY_KEY);

		if (!key_parse_hex(given, &trigger->key))
		{
			key_from_text(given, scope, &trigger->key, &scope);
			trigger->key_typed = given;
			trigger->key_scope = key_scope_name(scope);
		}
		key_id(&trigger->key, trigger->environment, task->task_id, task->idempotency_group,
			   &trigger->key_id);
	}
	else if (task->idempotency_key_required)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("task \"%s\" requires an idempotency key", task->task_id)));
}

static NullableDatum
nullable_arg(FunctionCallInfo fcinfo, int argument)
{
	return fcinfo->args[argument];
}

/* Check the arguments, all of them before anything is looked up by key. */
static void
trigger_arguments(FunctionCallInfo fcinfo, TriggerCall *trigger)
{
	char	   *task_id;

	trigger->now = GetCurrentTimestamp();
	if (PG_ARGISNULL(ARG_TASK_ID))
		identifier_check("task", NULL);
	task_id = text_to_cstring(PG_GETARG_TEXT_PP(ARG_TASK_ID));
	trigger->task = task_require(task_id);

	option_unsupported(fcinfo, ARG_TTL, "ttl");
	option_unsupported(fcinfo, ARG_CONCURRENCY_KEY, "concurrency_key");
	trigger->run_at = due_time(fcinfo, trigger->now);
	trigger->priority = PG_ARGISNULL(ARG_PRIORITY) ? 0 : PG_GETARG_INT32(ARG_PRIORITY);
	if (trigger->priority < 0 || trigger->priority > PRIORITY_MAX)
		option_error("priority", psprintf(_("It must be between 0 and %d seconds."), PRIORITY_MAX));
	trigger->max_attempts = trigger->task->max_attempts;
	if (!PG_ARGISNULL(ARG_MAX_ATTEMPTS))
	{
		trigger->max_attempts = PG_GETARG_INT32(ARG_MAX_ATTEMPTS);
		max_attempts_check(trigger->max_attempts);
	}
	if (!PG_ARGISNULL(ARG_QUEUE))
	{
		identifier_check("queue", text_to_cstring(PG_GETARG_TEXT_PP(ARG_QUEUE)));
		trigger->queue = PG_GETARG_DATUM(ARG_QUEUE);
	}
	else
		trigger->queue = (Datum) 0;
	trigger->payload = nullable_arg(fcinfo, ARG_PAYLOAD);
	trigger->tags = nullable_arg(fcinfo, ARG_TAGS);
	trigger->metadata = nullable_arg(fcinfo, ARG_METADATA);

	trigger->environment = environment_choose(PG_ARGISNULL(ARG_ENVIRONMENT) ? NULL :
											  PG_GETARG_TEXT_PP(ARG_ENVIRONMENT));
	trigger_key(fcinfo, trigger);
}

/* ---------- The key ---------- */

/* What a look at a key found */
typedef enum KeyState
{
	KEY_FREE,
	KEY_LIVE,
	KEY_EXPIRED,
	KEY_BUSY,					/* another transaction is about to take it */
} KeyState;

/* A transaction to wait for */
typedef struct KeyHolder
{
	TransactionId xid;
	uint32		speculative_token;
} KeyHolder;

/* The row found must be of the same key: a truncated hash never lies. */
static void
key_verify(const TriggerCall *trigger, TupleTableSlot *row)
{
	bool		isnull;
	bytea	   *stored = DatumGetByteaPP(slot_getattr(row, KEY_IDEMPOTENCY_KEY, &isnull));

	if (VARSIZE_ANY_EXHDR(stored) != KEY_BYTES ||
		memcmp(VARDATA_ANY(stored), trigger->key.bytes, KEY_BYTES) != 0)
		elog(ERROR, "two idempotency keys have the same id");
}

static bool
key_is_expired(TupleTableSlot *row, TimestampTz now)
{
	bool		never;
	Datum		expires_at = slot_getattr(row, KEY_EXPIRES_AT, &never);

	return !never && DatumGetTimestampTz(expires_at) <= now;
}

/* What a live key says of its run */
static void
key_read(TupleTableSlot *row, TriggerResult *result)
{
	bool		isnull;
	Datum		status;

	result->run_id = *DatumGetUUIDP(slot_getattr(row, KEY_RUN_ID, &isnull));
	status = slot_getattr(row, KEY_STATUS, &isnull);
	result->is_final = !isnull;
	if (result->is_final)
		result->status = run_status_from_oid(DatumGetObjectId(status));
}

/*
 * Look at the key as snapshot sees it; of a live one, result gets the run, and
 * its status if that is final.  A dirty snapshot, which also sees what is not
 * committed, can find a holder to wait for: one that inserts the key, or takes
 * an expired one over.  A live key that another transaction is deleting, or
 * writing a final status to, is what it was until that commits.
 */
static KeyState
key_look(const TriggerCall *trigger, Snapshot snapshot, TriggerResult *result,
		 KeyHolder *holder)
{
	bool		dirty = snapshot->snapshot_type == SNAPSHOT_DIRTY;
	KeyState	state = KEY_FREE;
	StoreLookup lookup;
	bool		found;

	found = store_lookup(&lookup, STORE_IDEMPOTENCY_KEY, UUIDPGetDatum(&trigger->key_id),
						 snapshot);
	for (; found && state != KEY_LIVE; found = store_lookup_next(&lookup))
	{
		bool		expired = key_is_expired(lookup.slot, trigger->now);
		TransactionId xid = InvalidTransactionId;

		key_verify(trigger, lookup.slot);
		if (dirty && TransactionIdIsValid(snapshot->xmin))
			xid = snapshot->xmin;
		else if (dirty && expired)
			xid = snapshot->xmax;
		if (TransactionIdIsValid(xid))
		{
			state = KEY_BUSY;
			holder->xid = xid;
			holder->speculative_token = xid == snapshot->xmin ? snapshot->speculativeToken : 0;
		}
		else if (!expired)
		{
			state = KEY_LIVE;
			key_read(lookup.slot, result);
		}
		else if (state == KEY_FREE)
			state = KEY_EXPIRED;
	}
	store_lookup_end(&lookup);
	return state;
}

/* Look at the key, committed or not, until nobody is about to take it. */
static KeyState
key_look_and_wait(TriggerCall *trigger, TriggerResult *result)
{
	SnapshotData dirty;
	KeyHolder	holder;
	KeyState	state;

	InitDirtySnapshot(dirty);
	while ((state = key_look(trigger, &dirty, result, &holder)) == KEY_BUSY)
	{
		if (holder.speculative_token)
			SpeculativeInsertionWait(holder.xid, holder.speculative_token);
		else
			XactLockTableWait(holder.xid, NULL, NULL, XLTW_None);
		trigger->now = GetCurrentTimestamp();
	}
	return state;
}

/* When the key will expire, if the trigger takes it; DT_NOEND: never */
static TimestampTz
key_expires_at(const TriggerCall *trigger)
{
	if (trigger->key_ttl == NULL)
		return DT_NOEND;
	return timestamp_plus(trigger->now, trigger->key_ttl);
}

/* Fill in the columns of the key's row. */
static void
key_row(const TriggerCall *trigger, const pg_uuid_t *run_id, Datum *values, bool *nulls)
{
	const Task *task = trigger->task;

	memset(nulls, false, KEY_COLUMNS * sizeof(bool));
	values[KEY_KEY_ID - 1] = UUIDPGetDatum(&trigger->key_id);
	values[KEY_RUN_ID - 1] = UUIDPGetDatum(run_id);
	values[KEY_CREATED_AT - 1] = TimestampTzGetDatum(trigger->now);
	values[KEY_EXPIRES_AT - 1] = TimestampTzGetDatum(trigger->key_expires_at);
	nulls[KEY_EXPIRES_AT - 1] = TIMESTAMP_NOT_FINITE(trigger->key_expires_at);
	nulls[KEY_STATUS - 1] = true;
	values[KEY_ENVIRONMENT - 1] = CStringGetTextDatum(trigger->environment);
	values[KEY_TASK_ID - 1] = CStringGetTextDatum(task->task_id);
	if (task->idempotency_group)
		values[KEY_IDEMPOTENCY_GROUP - 1] = CStringGetTextDatum(task->idempotency_group);
	else
		nulls[KEY_IDEMPOTENCY_GROUP - 1] = true;
	values[KEY_IDEMPOTENCY_KEY - 1] = key_to_bytea(&trigger->key);
	if (trigger->key_typed)
	{
		values[KEY_KEY - 1] = PointerGetDatum(trigger->key_typed);
		values[KEY_SCOPE - 1] = CStringGetTextDatum(trigger->key_scope);
	}
	else
		nulls[KEY_KEY - 1] = nulls[KEY_SCOPE - 1] = true;
}

static Statement take_over_key = {
	.sql = "UPDATE trigger_idem.idempotency_key SET run_id = $2, created_at = $3,"
	"  expires_at = $4, status = $5::trigger_idem.run_status, idempotency_key = $6,"
	"  environment = $7, task_id = $8, idempotency_group = $9, key = $10, scope = $11 "
	"WHERE key_id OPERATOR(pg_catalog.=) $1 AND expires_at OPERATOR(pg_catalog.<=) $3",
	.expected = SPI_OK_UPDATE,
	.argtypes = {UUIDOID, UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, BYTEAOID, TEXTOID,
	TEXTOID, TEXTOID, TEXTOID, TEXTOID}
};

/* Take an expired key over; false when somebody else was faster. */
static bool
key_take_over(const TriggerCall *trigger, const pg_uuid_t *run_id)
{
	OwnerScope	scope;
	Datum		values[KEY_COLUMNS];
	bool		nulls[KEY_COLUMNS];
	char		spi_nulls[KEY_COLUMNS];
	bool		taken;

	key_row(trigger, run_id, values, nulls);
	for (int i = 0; i < KEY_COLUMNS; i++)
		spi_nulls[i] = nulls[i] ? 'n' : ' ';
	owner_begin(&scope);
	taken = statement_run(&take_over_key, values, spi_nulls) == 1;
	owner_end(&scope);
	return taken;
}

/* Insert a free key; false when there is a row with this key by now. */
static bool
key_insert(const TriggerCall *trigger, const pg_uuid_t *run_id)
{
	Datum		values[KEY_COLUMNS];
	bool		nulls[KEY_COLUMNS];

	key_row(trigger, run_id, values, nulls);
	return store_insert_new(STORE_IDEMPOTENCY_KEY, values, nulls);
}

/*
 * The transaction's snapshot does not see the key, but there is one: wait for
 * its holder, and fail unless that rolls back.
 */
static void
key_conflict(TriggerCall *trigger)
{
	TriggerResult other;

	if (key_look_and_wait(trigger, &other) != KEY_FREE)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent trigger of the same idempotency key"),
				 errhint("The transaction might succeed if retried.")));
}

/* Refuse to write where that is not possible: 25006 */
static void
trigger_prevent_read_only(void)
{
	PreventCommandDuringRecovery("trigger_task() of a new run");
	PreventCommandIfReadOnly("trigger_task() of a new run");
}

/*
 * Make the key stand for a new run, unless it is live: then the answer is
 * false.  Either way result gets the run that it stands for.
 */
static bool
key_acquire(TriggerCall *trigger, TriggerResult *result)
{
	for (;;)
	{
		bool		mvcc = IsolationUsesXactSnapshot() || RecoveryInProgress();
		KeyState	state = KEY_FREE;

		CHECK_FOR_INTERRUPTS();
		if (!mvcc)
			state = key_look_and_wait(trigger, result);

		/*
		 * A dirty scan can miss a row whose new version has gone where the
		 * scan was before.  An insert would notice; without one, look again.
		 */
		if (mvcc || (state != KEY_LIVE && XactReadOnly))
		{
			Snapshot	snapshot = store_snapshot();

			state = key_look(trigger, snapshot, result, NULL);
			UnregisterSnapshot(snapshot);
		}

		if (state == KEY_LIVE)
			return false;
		trigger_prevent_read_only();
		run_id_generate(&result->run_id, trigger->now);
		trigger->key_expires_at = key_expires_at(trigger);
		if (state == KEY_EXPIRED ? key_take_over(trigger, &result->run_id) :
			key_insert(trigger, &result->run_id))
			return true;
		if (IsolationUsesXactSnapshot())
			key_conflict(trigger);
	}
}

/* ---------- The run ---------- */

static void
run_insert(const TriggerCall *trigger, const pg_uuid_t *run_id)
{
	Datum		values[RUN_COLUMNS];
	bool		nulls[RUN_COLUMNS];
	const CurrentRun *parent = current_run();

	memset(nulls, true, sizeof(nulls));
#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
	SET(RUN_RUN_ID, UUIDPGetDatum(run_id));
	SET(RUN_CREATED_AT, TimestampTzGetDatum(trigger->now));
	SET(RUN_RUN_AT, TimestampTzGetDatum(trigger->run_at));
	SET(RUN_MAX_ATTEMPTS, Int32GetDatum(trigger->max_attempts));
	SET(RUN_PRIORITY, Int32GetDatum(trigger->priority));
	SET(RUN_ENVIRONMENT, CStringGetTextDatum(trigger->environment));
	SET(RUN_TASK_ID, CStringGetTextDatum(trigger->task->task_id));
	SET(RUN_QUEUE, trigger->queue);
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
	if (!trigger->tags.isnull)
		SET(RUN_TAGS, trigger->tags.value);
	if (!trigger->metadata.isnull)
		SET(RUN_METADATA, trigger->metadata.value);
	if (!trigger->payload.isnull)
		SET(RUN_PAYLOAD, trigger->payload.value);
#undef SET
	store_insert(STORE_RUN, values, nulls);
}

static void
entry_insert(const TriggerCall *trigger, const pg_uuid_t *run_id)
{
	Datum		values[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];

	memset(nulls, true, sizeof(nulls));
#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
	SET(ENTRY_RUN_ID, UUIDPGetDatum(run_id));
	SET(ENTRY_ORD, TimestampTzGetDatum(trigger->run_at - trigger->priority * USECS_PER_SEC));
	SET(ENTRY_VISIBLE_FROM, TimestampTzGetDatum(trigger->run_at));
	SET(ENTRY_ATTEMPT, Int32GetDatum(0));
	SET(ENTRY_FAILURES, Int32GetDatum(0));
	SET(ENTRY_STEADY_ATTEMPT, Int32GetDatum(1));
	SET(ENTRY_MAX_ATTEMPTS, Int32GetDatum(trigger->max_attempts));
	SET(ENTRY_PRIORITY, Int32GetDatum(trigger->priority));
	SET(ENTRY_QUEUE, trigger->queue);
	SET(ENTRY_ENVIRONMENT, CStringGetTextDatum(trigger->environment));
	SET(ENTRY_TASK_ID, CStringGetTextDatum(trigger->task->task_id));
#undef SET
	store_insert(STORE_QUEUE_ENTRY, values, nulls);
}

/* Do what a trigger asks for. */
static void
trigger_run(TriggerCall *trigger, TriggerResult *result)
{
	result->is_cached = trigger->has_key && !key_acquire(trigger, result);
	if (result->is_cached)
	{
		Snapshot	snapshot;

		if (result->is_final)
			return;
		snapshot = store_snapshot();
		if (!run_find_status(&result->run_id, snapshot, &result->status))
			elog(ERROR, "idempotency key has no run");
		UnregisterSnapshot(snapshot);
		return;
	}

	if (!trigger->has_key)
	{
		trigger_prevent_read_only();
		run_id_generate(&result->run_id, trigger->now);
	}
	if (trigger->queue == (Datum) 0)
		trigger->queue = CStringGetTextDatum(trigger->task->queue);
	run_insert(trigger, &result->run_id);
	entry_insert(trigger, &result->run_id);

	/* we have locked the table of runs: the task's name stays its owner's */
	task_require_same(pstrdup(trigger->task->task_id), pstrdup(trigger->task->owner));
	/* a second trigger in the same command must see these rows */
	CommandCounterIncrement();

	result->status = trigger->run_at > trigger->now ? RUN_DELAYED : RUN_QUEUED;
}

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

		desc = CreateTemplateTupleDesc(3);
		TupleDescInitEntry(desc, 1, "run_id", UUIDOID, -1, 0);
		TupleDescInitEntry(desc, 2, "is_cached", BOOLOID, -1, 0);
		TupleDescInitEntry(desc, 3, "status", store_run_status_type(), -1, 0);
		BlessTupleDesc(desc);
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

	trigger_arguments(fcinfo, &trigger);
	trigger_run(&trigger, &result);

	values[0] = UUIDPGetDatum(&result.run_id);
	values[1] = BoolGetDatum(result.is_cached);
	values[2] = ObjectIdGetDatum(run_status_oid(result.status));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(result_descriptor(), values, nulls)));
}
