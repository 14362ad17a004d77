/*-------------------------------------------------------------------------
 *
 * acquire.c
 *	  Acquiring idempotency keys, and giving them back.
 *
 * A trigger first reads the key through its index.  A live key is a hit: the
 * run it stands for comes back and nothing is written, not even a transaction
 * id.  A free key is inserted, an expired one taken over.
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

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "acquire.h"
#include "current.h"
#include "environment.h"
#include "payload.h"
#include "statement.h"
#include "store.h"

PG_FUNCTION_INFO_V1(trigger_idem_idempotency_key_reset);

/* ---------- Looking at a key ---------- */

/* What a look at a key found */
typedef enum KeyState
{
	KEY_FREE,
	KEY_LIVE,
	KEY_EXPIRED,
	KEY_BUSY,					/* another transaction is about to take it */
} KeyState;

/* The row of a live key */
typedef struct LiveKey
{
	pg_uuid_t	run_id;
	bool		is_final;
	RunStatus	status;			/* if it is final */
	char	   *task_id;		/* of its run; NULL if it is final */
	bool		has_digest;
	Key			digest;			/* of its payload */
} LiveKey;

/* A transaction to wait for */
typedef struct KeyHolder
{
	TransactionId xid;
	uint32		speculative_token;
} KeyHolder;

/* Is the payload of a hit compared?  Not that of a schedule's tick. */
static bool
compares_payloads(const TriggerCall *trigger)
{
	return trigger->task->compares_payloads && !trigger->is_tick;
}

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

static void
key_read(const TriggerCall *trigger, TupleTableSlot *row, LiveKey *live)
{
	bool		isnull;
	Datum		value;

	live->run_id = *DatumGetUUIDP(slot_getattr(row, KEY_RUN_ID, &isnull));
	value = slot_getattr(row, KEY_STATUS, &isnull);
	live->is_final = !isnull;
	if (live->is_final)
		live->status = run_status_from_oid(DatumGetObjectId(value));
	else
		live->task_id = TextDatumGetCString(slot_getattr(row, KEY_TASK_ID, &isnull));
	live->has_digest = false;
	if (compares_payloads(trigger))
	{
		value = slot_getattr(row, KEY_PAYLOAD_DIGEST, &isnull);
		live->has_digest = !isnull;
		if (live->has_digest)
			key_from_bytea(value, &live->digest);
	}
}

/*
 * Look at the key as snapshot sees it.  A dirty snapshot, which also sees what
 * is not committed, can find a holder to wait for: one that inserts the key, or
 * takes an expired one over.  A live key that another transaction is deleting,
 * or writing a final status to, is what it was until that commits.
 */
static KeyState
key_look(const TriggerCall *trigger, Snapshot snapshot, LiveKey *live, KeyHolder *holder)
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
			key_read(trigger, lookup.slot, live);
		}
		else
			state = KEY_EXPIRED;
	}
	store_lookup_end(&lookup);
	return state;
}

/* Look at the key, committed or not, until nobody is about to take it. */
static KeyState
key_look_and_wait(TriggerCall *trigger, LiveKey *live)
{
	SnapshotData dirty;
	KeyHolder	holder;
	KeyState	state;

	InitDirtySnapshot(dirty);
	while ((state = key_look(trigger, &dirty, live, &holder)) == KEY_BUSY)
	{
		if (holder.speculative_token)
			SpeculativeInsertionWait(holder.xid, holder.speculative_token);
		else
			XactLockTableWait(holder.xid, NULL, NULL, XLTW_None);
		trigger_set_now(trigger, GetCurrentTimestamp());
	}
	return state;
}

pg_noreturn static void
key_serialization_error(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent trigger of the same idempotency key"),
			 errhint("The transaction might succeed if retried.")));
}

/* ---------- A live key ---------- */

/*
 * TI001: the key stands for a run with another payload.  Where they differ is
 * said only to whom may see the run; for others, visible_run is NULL.
 */
void
key_mismatch_error(const pg_uuid_t *visible_run, const char *where)
{
	ereport(ERROR,
			(errcode(ERRCODE_IDEMPOTENCY_KEY_PAYLOAD_MISMATCH),
			 errmsg("idempotency key was used with another payload"),
			 visible_run ? errdetail("The payload of run %s differs at %s.",
									 run_id_text(visible_run), where) : 0,
			 errhint("Trigger other work with another key.")));
}

static void
key_check_payload(const TriggerCall *trigger, const LiveKey *live, Snapshot snapshot)
{
	Datum		values[RUN_COLUMNS];
	bool		nulls[RUN_COLUMNS];
	bool		is_there;
	bool		is_visible;
	NullableDatum stored;
	Key			digest;
	char	   *where = NULL;

	if (live->has_digest)
	{
		payload_digest(trigger->payload, &digest);
		if (memcmp(digest.bytes, live->digest.bytes, KEY_BYTES) == 0)
			return;
	}
	is_there = store_fetch(STORE_RUN, UUIDPGetDatum(&live->run_id), snapshot, values, nulls);
	is_visible = is_there &&
		access_may_see_run(TextDatumGetCString(values[RUN_TASK_ID - 1]),
						   TextDatumGetCString(values[RUN_TRIGGERED_BY - 1]),
						   TextDatumGetCString(values[RUN_ENVIRONMENT - 1]));
	if (is_there)
	{
		stored.value = values[RUN_PAYLOAD - 1];
		stored.isnull = nulls[RUN_PAYLOAD - 1];
		where = payload_difference(stored, trigger->payload);
	}
	/* the key is from a time when the task did not compare payloads */
	if (!live->has_digest && where == NULL)
		return;
	key_mismatch_error(is_visible ? &live->run_id : NULL, where ? where : "$");
}

/* Does a run that was not started in time free its key? */
static bool
key_is_freed_by_expiry(const LiveKey *live)
{
	const Task *task = task_find(live->task_id);

	return task != NULL && (task->release_key_on & (1 << RUN_EXPIRED)) != 0;
}

/*
 * A live key is a hit, unless its run was not started in time and gives it up:
 * then the run is ended here, and the answer is false.  So it is when the run
 * has been finished and pruned since the look at the key, which knows of that by
 * now.
 */
static bool
key_hit(const TriggerCall *trigger, const LiveKey *live, TriggerResult *result)
{
	Snapshot	snapshot = NULL;
	bool		is_hit = true;

	result->run_id = live->run_id;
	result->status = live->status;
	if (live->is_final && !compares_payloads(trigger))
		return true;

	snapshot = store_snapshot();
	if (!live->is_final && !run_find_status(&live->run_id, snapshot, &result->status))
		is_hit = false;
	else if (!live->is_final && result->status == RUN_EXPIRED && key_is_freed_by_expiry(live))
	{
		trigger_prevent_read_only();
		/* a snapshot that does not see who was faster would not see it later */
		if (!run_end_unclaimed(&live->run_id, RUN_EXPIRED, true) && IsolationUsesXactSnapshot())
			key_serialization_error();
		is_hit = false;
	}
	else if (compares_payloads(trigger))
		key_check_payload(trigger, live, snapshot);
	UnregisterSnapshot(snapshot);
	return is_hit;
}

/* ---------- Taking a key ---------- */

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

	memset(nulls, true, KEY_COLUMNS * sizeof(bool));
#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
	SET(KEY_KEY_ID, UUIDPGetDatum(&trigger->key_id));
	SET(KEY_RUN_ID, UUIDPGetDatum(run_id));
	SET(KEY_CREATED_AT, TimestampTzGetDatum(trigger->now));
	if (!TIMESTAMP_NOT_FINITE(trigger->key_expires_at))
		SET(KEY_EXPIRES_AT, TimestampTzGetDatum(trigger->key_expires_at));
	SET(KEY_ENVIRONMENT, CStringGetTextDatum(trigger->environment));
	SET(KEY_TASK_ID, CStringGetTextDatum(task->task_id));
	if (task->idempotency_group && !trigger->is_tick)
		SET(KEY_IDEMPOTENCY_GROUP, CStringGetTextDatum(task->idempotency_group));
	SET(KEY_IDEMPOTENCY_KEY, key_to_bytea(&trigger->key));
	if (trigger->key_typed)
		SET(KEY_KEY, PointerGetDatum(trigger->key_typed));
	if (trigger->key_scope)
		SET(KEY_SCOPE, CStringGetTextDatum(trigger->key_scope));
	SET(KEY_TRIGGERED_BY, CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)));
	if (compares_payloads(trigger))
	{
		Key			digest;

		payload_digest(trigger->payload, &digest);
		SET(KEY_PAYLOAD_DIGEST, key_to_bytea(&digest));
	}
#undef SET
}

static Statement take_over_key = {
	.sql = "UPDATE trigger_idem.idempotency_key SET run_id = $2, created_at = $3,"
	"  expires_at = $4, status = $5::trigger_idem.run_status, idempotency_key = $6,"
	"  environment = $7, task_id = $8, idempotency_group = $9, key = $10, scope = $11,"
	"  triggered_by = $12, payload_digest = $13 "
	"WHERE key_id OPERATOR(pg_catalog.=) $1 AND expires_at OPERATOR(pg_catalog.<=) $3",
	.expected = SPI_OK_UPDATE,
	.argtypes = {UUIDOID, UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, BYTEAOID, TEXTOID,
	TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID}
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
	LiveKey		other;

	if (key_look_and_wait(trigger, &other) != KEY_FREE)
		key_serialization_error();
}

/*
 * Make the key stand for a new run, unless it is live: then the answer is false,
 * and result has the run that it stands for and its status.
 */
bool
key_acquire(TriggerCall *trigger, TriggerResult *result)
{
	for (int lost_hits = 0;;)
	{
		bool		mvcc = IsolationUsesXactSnapshot() || RecoveryInProgress();
		KeyState	state = KEY_FREE;
		LiveKey		live;

		CHECK_FOR_INTERRUPTS();
		if (!mvcc)
			state = key_look_and_wait(trigger, &live);

		/*
		 * A dirty scan can miss a row whose new version has gone where the
		 * scan was before.  An insert would notice; without one, look again.
		 */
		if (mvcc || (state != KEY_LIVE && XactReadOnly))
		{
			Snapshot	snapshot = store_snapshot();

			state = key_look(trigger, snapshot, &live, NULL);
			UnregisterSnapshot(snapshot);
		}

		if (state == KEY_LIVE)
		{
			if (key_hit(trigger, &live, result))
				return false;
			if (++lost_hits == 100)
				elog(ERROR, "idempotency key has no run");
			continue;
		}
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

/* Is the key live, as what is committed now has it?  Then result is its run. */
bool
key_peek(const TriggerCall *trigger, TriggerResult *result)
{
	Snapshot	snapshot = store_latest_snapshot();
	LiveKey		live;
	bool		is_live = key_look(trigger, snapshot, &live, NULL) == KEY_LIVE;

	if (is_live)
	{
		result->run_id = live.run_id;
		result->status = live.status;
		if (!live.is_final)
			is_live = run_find_status(&live.run_id, snapshot, &result->status) &&
				!(result->status == RUN_EXPIRED && key_is_freed_by_expiry(&live));
	}
	if (is_live && compares_payloads(trigger))
		key_check_payload(trigger, &live, snapshot);
	UnregisterSnapshot(snapshot);
	return is_live;
}

/* ---------- Giving a key back ---------- */

static Statement delete_key = {
	.sql = "DELETE FROM trigger_idem.idempotency_key "
	"WHERE key_id OPERATOR(pg_catalog.=) $1 AND run_id OPERATOR(pg_catalog.=) $2",
	.expected = SPI_OK_DELETE,
	.argtypes = {UUIDOID, UUIDOID}
};

/* Is a key, a row, live: not expired itself, nor given up by its run? */
static bool
key_is_live(const Datum *row, const bool *nulls, Snapshot snapshot)
{
	RunStatus	status;
	LiveKey		live = {.task_id = TextDatumGetCString(row[KEY_TASK_ID - 1])};

	if (!nulls[KEY_EXPIRES_AT - 1] &&
		DatumGetTimestampTz(row[KEY_EXPIRES_AT - 1]) <= GetCurrentTimestamp())
		return false;
	return !nulls[KEY_STATUS - 1] || !key_is_freed_by_expiry(&live) ||
		!run_find_status(DatumGetUUIDP(row[KEY_RUN_ID - 1]), snapshot, &status) ||
		status != RUN_EXPIRED;
}

/*
 * Delete a live key that the caller may reset; false when there is none.  Runs
 * that one may not see keep their keys, and are as unknown as if they had none;
 * those that one may only see, too: 42501
 */
static bool
key_release(const pg_uuid_t *id)
{
	Snapshot	snapshot = store_snapshot();
	OwnerScope	scope;
	Datum		row[KEY_COLUMNS];
	bool		nulls[KEY_COLUMNS];
	Datum		values[2] = {UUIDPGetDatum(id)};
	bool		released;
	char	   *task_id;
	char	   *triggered_by;
	char	   *environment;

	released = store_fetch(STORE_IDEMPOTENCY_KEY, values[0], snapshot, row, nulls) &&
		key_is_live(row, nulls, snapshot);
	UnregisterSnapshot(snapshot);
	if (!released)
		return false;
	task_id = TextDatumGetCString(row[KEY_TASK_ID - 1]);
	triggered_by = TextDatumGetCString(row[KEY_TRIGGERED_BY - 1]);
	environment = TextDatumGetCString(row[KEY_ENVIRONMENT - 1]);
	if (!access_may_control_run(task_id, triggered_by, environment))
	{
		if (access_may_see_run(task_id, triggered_by, environment))
			access_control_error();
		return false;
	}

	values[1] = row[KEY_RUN_ID - 1];
	owner_begin(&scope);
	released = statement_run(&delete_key, values, NULL) == 1;
	owner_end(&scope);
	return released;
}

/* idempotency_key_reset(task_id text, idempotency_key text, environment text) */
Datum
trigger_idem_idempotency_key_reset(PG_FUNCTION_ARGS)
{
	char	   *task_id = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	text	   *given = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	const char *environment;
	const Task *task;
	Key			key;
	pg_uuid_t	id;

	identifier_check("task", task_id);
	task = task_find(task_id);
	if (task == NULL)
		task = task_require(task_id);
	if (given == NULL || !key_parse_hex(given, &key))
	{
		key_check_text(given);
		key_from_parts(&given, 1, &key);
	}
	environment = environment_choose(PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2), task);
	key_id(&key, environment, task->task_id, task->idempotency_group, &id);
	PG_RETURN_BOOL(key_release(&id));
}
