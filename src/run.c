/*-------------------------------------------------------------------------
 *
 * run.c
 *	  Runs: their ids, their status, and the one place that changes it.
 *
 * A run that is not final has a queue entry, and its status follows from it:
 *
 *	executing	the entry has a worker
 *	expired		it never had one, and expires_at has passed
 *	waiting		it names a wait that is not over, and visible_from is to come
 *	delayed		visible_from is to come
 *	queued		otherwise
 *
 * A run that is final has no entry, and its status is in its row.  Every
 * transition locks the entry FOR UPDATE first and checks the attempt it comes
 * from; README.md has the picture.
 *
 * Lock order: queue entry, run, idempotency key.  trigger_task() locks a key
 * and then inserts the other two, which nobody else can see yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include <math.h>

#include "awaited.h"
#include "failure.h"
#include "key.h"
#include "run.h"
#include "statement.h"
#include "stats.h"
#include "store.h"
#include "task.h"
#include "wake.h"
#include "worker.h"

static const char *const status_names[RUN_STATUSES] = {
	[RUN_DELAYED] = "delayed",
	[RUN_QUEUED] = "queued",
	[RUN_EXECUTING] = "executing",
	[RUN_WAITING] = "waiting",
	[RUN_COMPLETED] = "completed",
	[RUN_FAILED] = "failed",
	[RUN_CRASHED] = "crashed",
	[RUN_TIMED_OUT] = "timed_out",
	[RUN_CANCELED] = "canceled",
	[RUN_EXPIRED] = "expired",
};

/* ---------- Ids ---------- */

/* Random bytes, fetched many at a time: each fetch is a system call. */
static void
random_bytes(uint8 *bytes, size_t count)
{
	static uint8 pool[512];
	static size_t left = 0;

	if (left < count)
	{
		if (!pg_strong_random(pool, sizeof(pool)))
			elog(ERROR, "could not generate random values");
		left = sizeof(pool);
	}
	left -= count;
	memcpy(bytes, pool + left, count);
}

/* A UUIDv7 has 48 bits for the milliseconds since 1970. */
#define UUID_TIME_BEGIN	(-(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)
#define UUID_TIME_END	(UUID_TIME_BEGIN + (INT64CONST(1) << 48) * 1000)

/* The part of a UUIDv7 that is the time: milliseconds, and 12 bits of a fraction */
static void
uuid_set_time(pg_uuid_t *uuid, TimestampTz time)
{
	int64		us = time - UUID_TIME_BEGIN;
	uint64		ms = us / 1000;
	uint32		fraction = (us % 1000) * 4096 / 1000;

	for (int i = 0; i < 6; i++)
		uuid->data[i] = (uint8) (ms >> (40 - 8 * i));
	uuid->data[6] = 0x70 | (fraction >> 8);
	uuid->data[7] = fraction & 0xff;
}

/*
 * A UUIDv7: the time, 10 bits of shard number, 52 random bits.  Ids made one
 * after the other go to the right edge of an index.
 */
void
run_id_generate(pg_uuid_t *run_id, TimestampTz now)
{
	uuid_set_time(run_id, now);
	random_bytes(run_id->data + 8, 8);
	run_id->data[8] = 0x80 | (trigger_idem_shard >> 4);
	run_id->data[9] = (trigger_idem_shard & 0x0f) << 4 | (run_id->data[9] & 0x0f);
}

/* No run that is made at this time, which may be infinite, or later has a lower id. */
void
run_id_first(pg_uuid_t *run_id, TimestampTz time)
{
	memset(run_id, time < UUID_TIME_END ? 0 : 0xff, sizeof(pg_uuid_t));
	if (time > UUID_TIME_BEGIN && time < UUID_TIME_END)
		uuid_set_time(run_id, time);
}

char *
run_id_text(const pg_uuid_t *run_id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(run_id)));
}

/* 42704: there is no such run, or the caller may not see it. */
void
run_unknown_error(const pg_uuid_t *run_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("run %s does not exist", run_id_text(run_id)),
			 errhint("The view trigger_idem.runs has those that you may see.")));
}

/* ---------- Status ---------- */

const char *
run_status_name(RunStatus status)
{
	return status_names[status];
}

bool
run_status_parse(const char *name, RunStatus *status)
{
	for (int i = 0; i < RUN_STATUSES; i++)
		if (strcmp(name, status_names[i]) == 0)
		{
			*status = (RunStatus) i;
			return true;
		}
	return false;
}

/* The value of the SQL type trigger_idem.run_status */
Oid
run_status_oid(RunStatus status)
{
	return store_run_status(status);
}

RunStatus
run_status_from_oid(Oid oid)
{
	for (int status = 0; status < RUN_STATUSES; status++)
		if (store_run_status(status) == oid)
			return (RunStatus) status;
	elog(ERROR, "unknown run status %u", oid);
}

/* The status of a run that has this queue entry, by the clock */
RunStatus
run_entry_status(TupleTableSlot *entry, TimestampTz now)
{
	bool		isnull;
	Datum		expires_at;

	if (!slot_attisnull(entry, ENTRY_WORKER_TOKEN))
		return RUN_EXECUTING;
	expires_at = slot_getattr(entry, ENTRY_EXPIRES_AT, &isnull);
	if (!isnull && DatumGetTimestampTz(expires_at) <= now &&
		slot_attisnull(entry, ENTRY_FIRST_STARTED_AT))
		return RUN_EXPIRED;
	if (DatumGetTimestampTz(slot_getattr(entry, ENTRY_VISIBLE_FROM, &isnull)) <= now)
		return RUN_QUEUED;
	return !slot_attisnull(entry, ENTRY_WAIT_ID) && slot_attisnull(entry, ENTRY_WAIT_OVER) ?
		RUN_WAITING : RUN_DELAYED;
}

/* Is a run waiting?  By the clock its wait may be over. */
bool
run_entry_is_waiting(const Datum *entry, const bool *nulls)
{
	return nulls[ENTRY_WORKER_TOKEN - 1] && !nulls[ENTRY_WAIT_ID - 1] &&
		nulls[ENTRY_WAIT_OVER - 1];
}

/* The last wait of an entry that is executing */
void
run_entry_wait(const Datum *entry, const bool *nulls, EndedWait *wait)
{
	wait->has_ended = !nulls[ENTRY_WAIT_ID - 1] && !nulls[ENTRY_WAIT_OVER - 1];
	if (!wait->has_ended)
		return;
	wait->wait_id = *DatumGetUUIDP(entry[ENTRY_WAIT_ID - 1]);
	wait->timed_out = !DatumGetBool(entry[ENTRY_WAIT_OVER - 1]);
	wait->ended_at = DatumGetTimestampTz(entry[ENTRY_VISIBLE_FROM - 1]);
}

/* Was the run of this entry, a row, not started in time? */
bool
run_has_expired(const Datum *entry, const bool *nulls)
{
	return nulls[ENTRY_FIRST_STARTED_AT - 1] && !nulls[ENTRY_EXPIRES_AT - 1] &&
		DatumGetTimestampTz(entry[ENTRY_EXPIRES_AT - 1]) <= GetCurrentTimestamp();
}

/*
 * Find a run's status as snapshot sees it; false when there is no such run.
 * The queue is looked at first: it is small, and what is in it is not final.
 */
bool
run_find_status(const pg_uuid_t *run_id, Snapshot snapshot, RunStatus *status)
{
	StoreLookup lookup;
	bool		found;
	bool		isnull;

	found = store_lookup(&lookup, STORE_QUEUE_ENTRY, UUIDPGetDatum(run_id), snapshot);
	if (found)
		*status = run_entry_status(lookup.slot, GetCurrentTimestamp());
	store_lookup_end(&lookup);
	if (found)
		return true;

	found = store_lookup(&lookup, STORE_RUN, UUIDPGetDatum(run_id), snapshot);
	if (found)
	{
		Datum		value = slot_getattr(lookup.slot, RUN_STATUS, &isnull);

		if (isnull)
			elog(ERROR, "unfinished run has no queue entry");
		*status = run_status_from_oid(DatumGetObjectId(value));
	}
	store_lookup_end(&lookup);
	return found;
}

/* ---------- Transitions ---------- */

#define TO(status) (1 << (status))

/* From every status, those that a run may come to next */
static const uint32 transitions[RUN_STATUSES] = {
	[RUN_DELAYED] = TO(RUN_QUEUED) | TO(RUN_CANCELED) | TO(RUN_EXPIRED),
	[RUN_QUEUED] = TO(RUN_EXECUTING) | TO(RUN_CANCELED) | TO(RUN_EXPIRED),
	[RUN_EXECUTING] = TO(RUN_DELAYED) | TO(RUN_QUEUED) | TO(RUN_WAITING) | TO(RUN_COMPLETED) |
	TO(RUN_FAILED) | TO(RUN_CRASHED) | TO(RUN_TIMED_OUT) | TO(RUN_CANCELED),
	[RUN_WAITING] = TO(RUN_DELAYED) | TO(RUN_QUEUED) | TO(RUN_CANCELED),
};

/* Refuse what is not a transition. */
static void
transition_check(RunStatus from, RunStatus to)
{
	if ((transitions[from] & TO(to)) == 0)
		elog(ERROR, "a run cannot become %s when it is %s", status_names[to], status_names[from]);
}

/* ---------- The start of an attempt ---------- */

/*
 * The transition to executing: give the entry that the walk is at, and has
 * locked, to a worker, and raise its attempt.  The entry moves to the end of
 * the queue, so that no claim walks over it.  A worker inside the database has a
 * token, and nobody writes to the entry again while it is alive; one outside has
 * WORKER_OUTSIDE and a lease.
 */
void
run_begin_attempt(StoreWalk *entry, const char *worker_id, int64 worker_token,
				  TimestampTz lease_expires_at, TimestampTz now, ClaimedRun *claimed)
{
	Datum		values[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];
	bool		by_this_claim;

	transition_check(run_entry_status(entry->slot, now), RUN_EXECUTING);
	slot_getallattrs(entry->slot);
	memcpy(values, entry->slot->tts_values, sizeof(values));
	memcpy(nulls, entry->slot->tts_isnull, sizeof(nulls));

	claimed->run_id = *DatumGetUUIDP(values[ENTRY_RUN_ID - 1]);
	claimed->attempt = DatumGetInt32(values[ENTRY_ATTEMPT - 1]) + 1;
	claimed->steady_attempt = DatumGetInt32(values[ENTRY_STEADY_ATTEMPT - 1]);
	claimed->environment = TextDatumGetCString(values[ENTRY_ENVIRONMENT - 1]);
	claimed->task_id = TextDatumGetCString(values[ENTRY_TASK_ID - 1]);
	stats_count_latency(STAT_CLAIM, DatumGetTimestampTz(values[ENTRY_VISIBLE_FROM - 1]), now);

#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
	SET(ENTRY_ATTEMPT, Int32GetDatum(claimed->attempt));
	SET(ENTRY_WORKER_ID, CStringGetTextDatum(worker_id));
	SET(ENTRY_WORKER_TOKEN, Int64GetDatum(worker_token));
	SET(ENTRY_STARTED_AT, TimestampTzGetDatum(now));
	if (!TIMESTAMP_NOT_FINITE(lease_expires_at))
		SET(ENTRY_LEASE_EXPIRES_AT, TimestampTzGetDatum(lease_expires_at));
	if (nulls[ENTRY_FIRST_STARTED_AT - 1])
		SET(ENTRY_FIRST_STARTED_AT, TimestampTzGetDatum(now));
	/* the wait is over, by the clock: from here on that is its answer */
	by_this_claim = !nulls[ENTRY_WAIT_ID - 1] && nulls[ENTRY_WAIT_OVER - 1];
	if (by_this_claim)
		SET(ENTRY_WAIT_OVER, BoolGetDatum(false));
	run_entry_wait(values, nulls, &claimed->wait);
	claimed->wait.by_this_claim = by_this_claim;
	SET(ENTRY_ORD, TimestampTzGetDatum(DT_NOEND));
#undef SET
	store_walk_update(entry, values, nulls);
}

/* The payload of a run that was claimed, in the current context */
void
run_read_payload(ClaimedRun *claimed)
{
	Snapshot	snapshot = store_latest_snapshot();
	Datum		values[RUN_COLUMNS];
	bool		nulls[RUN_COLUMNS];

	if (!store_fetch(STORE_RUN, UUIDPGetDatum(&claimed->run_id), snapshot, values, nulls))
		elog(ERROR, "queue entry has no run");
	claimed->payload_isnull = nulls[RUN_PAYLOAD - 1];
	claimed->payload = claimed->payload_isnull ? (Datum) 0 :
		PointerGetDatum(PG_DETOAST_DATUM_COPY(values[RUN_PAYLOAD - 1]));
	UnregisterSnapshot(snapshot);
}

/* ---------- The end of an attempt ---------- */

/* What an end is called in the table of attempts, and makes of the run */
static const struct
{
	const char *attempt_status;
	RunStatus	run_status;		/* unless the run is tried again */
	bool		counts;			/* among the failures */
}			ends[] = {
	[ATTEMPT_COMPLETED] = {"completed", RUN_COMPLETED, false},
	[ATTEMPT_FAILED] = {"failed", RUN_FAILED, true},
	[ATTEMPT_ABORTED] = {"failed", RUN_FAILED, true},
	[ATTEMPT_CRASHED] = {"crashed", RUN_CRASHED, true},
	[ATTEMPT_TIMED_OUT] = {"timed_out", RUN_TIMED_OUT, true},
	[ATTEMPT_CANCELED] = {"canceled", RUN_CANCELED, false},
	[ATTEMPT_RELEASED] = {"released", RUN_QUEUED, false},
	[ATTEMPT_WAITING] = {"waiting", RUN_WAITING, false},
};

/* A locked entry */
typedef struct Entry
{
	StoreRow	row;
	Datum		values[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];
	const Task *task;			/* or NULL */
} Entry;

#define ENTRY_INT(entry, column) DatumGetInt32((entry)->values[(column) - 1])

/* Lock the entry of a run; if there is one, store_row_end() must follow. */
static bool
entry_lock(Entry *entry, const pg_uuid_t *run_id, LockWaitPolicy policy)
{
	if (store_row_lock(&entry->row, STORE_QUEUE_ENTRY, UUIDPGetDatum(run_id), policy) !=
		STORE_LOCKED)
		return false;
	store_row_read(&entry->row, entry->values, entry->nulls);
	entry->task = task_find(TextDatumGetCString(entry->values[ENTRY_TASK_ID - 1]));
	return true;
}

/*
 * How long to wait before the next attempt: the task's minimum, times its
 * factor for every failure but the first, at most its maximum; with jitter,
 * between half of that and all of it.
 */
static int64
backoff_ms(const Task *task, int failures)
{
	double		ms;

	if (task == NULL)
		return 0;
	ms = (double) interval_to_ms(&task->min_backoff) *
		pow(task->backoff_factor, failures - 1);
	ms = Min(ms, (double) interval_to_ms(&task->max_backoff));
	if (task->backoff_jitter)
		ms *= 0.5 + pg_prng_double(&pg_global_prng_state) / 2;
	return (int64) ms;
}

/* Decide what becomes of the run of an attempt that has so many failures before. */
static void
outcome_decide(const Task *task, int failures, int max_attempts, const AttemptResult *result,
			   RunOutcome *outcome)
{
	bool		may_retry = result->end == ATTEMPT_FAILED || result->end == ATTEMPT_CRASHED;
	int64		wait_ms = 0;

	outcome->status = ends[result->end].run_status;
	outcome->visible_from = GetCurrentTimestamp();
	if (result->end != ATTEMPT_RELEASED && !(may_retry && failures + 1 < max_attempts))
		return;

	if (result->retry_after_ms >= 0)
		wait_ms = result->retry_after_ms;
	else if (result->end == ATTEMPT_FAILED)
		wait_ms = backoff_ms(task, failures + 1);
	outcome->status = wait_ms > 0 ? RUN_DELAYED : RUN_QUEUED;
	outcome->visible_from = TimestampTzPlusMilliseconds(outcome->visible_from, wait_ms);
}

/* The same for whoever wants to know before it is done; entry is a row. */
void
run_judge(const Datum *entry, const AttemptResult *result, RunOutcome *outcome)
{
	outcome_decide(task_find(TextDatumGetCString(entry[ENTRY_TASK_ID - 1])),
				   DatumGetInt32(entry[ENTRY_FAILURES - 1]),
				   DatumGetInt32(entry[ENTRY_MAX_ATTEMPTS - 1]), result, outcome);
	if (result->retry_after_ms == RETRY_IN_PLACE)
		outcome->visible_from = DatumGetTimestampTz(entry[ENTRY_VISIBLE_FROM - 1]);
}

/* The place of an entry in its queue */
static TimestampTz
entry_ord(const Entry *entry, TimestampTz visible_from)
{
	if (TIMESTAMP_NOT_FINITE(visible_from))
		return visible_from;
	return visible_from - ENTRY_INT(entry, ENTRY_PRIORITY) * USECS_PER_SEC;
}

/* Back into the queue, at once or later, or to wait */
static void
entry_requeue(Entry *entry, const AttemptResult *result, const RunOutcome *outcome)
{
	TimestampTz ord = entry_ord(entry, outcome->visible_from);
	Datum		values[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];

	memcpy(values, entry->values, sizeof(values));
	memcpy(nulls, entry->nulls, sizeof(nulls));
	values[ENTRY_ORD - 1] = TimestampTzGetDatum(ord);
	values[ENTRY_VISIBLE_FROM - 1] = TimestampTzGetDatum(outcome->visible_from);
	if (result->end == ATTEMPT_WAITING)
	{
		values[ENTRY_WAIT_ID - 1] = UUIDPGetDatum(&result->wait_id);
		values[ENTRY_WAIT_OVER - 1] = BoolGetDatum(true);
		values[ENTRY_WAIT_ATTEMPT - 1] = values[ENTRY_ATTEMPT - 1];
		nulls[ENTRY_WAIT_ID - 1] = nulls[ENTRY_WAIT_ATTEMPT - 1] = false;
		nulls[ENTRY_WAIT_OVER - 1] = outcome->status == RUN_WAITING;
	}
	if (ends[result->end].counts)
	{
		values[ENTRY_FAILURES - 1] = Int32GetDatum(ENTRY_INT(entry, ENTRY_FAILURES) + 1);
		values[ENTRY_STEADY_ATTEMPT - 1] = Int32GetDatum(ENTRY_INT(entry, ENTRY_ATTEMPT) + 1);
	}
	nulls[ENTRY_WORKER_ID - 1] = nulls[ENTRY_WORKER_TOKEN - 1] = true;
	nulls[ENTRY_STARTED_AT - 1] = nulls[ENTRY_LEASE_EXPIRES_AT - 1] = true;
	store_row_update(&entry->row, values, nulls);
}

/* Is it the key of a schedule's tick?  That is never given up. */
static bool
key_is_of_tick(const Datum *values, const bool *nulls)
{
	return !nulls[KEY_SCOPE - 1] &&
		strcmp(TextDatumGetCString(values[KEY_SCOPE - 1]), KEY_SCOPE_TICK) == 0;
}

/*
 * Hits on a finished run read its status in its key; or it gives its key up.  A
 * key that has expired is left alone: nobody will hit it any more, and somebody
 * may be taking it over, for whom we must not wait.
 */
static void
key_finish(Datum key_id, const pg_uuid_t *run_id, RunStatus status, bool release)
{
	Snapshot	snapshot = store_latest_snapshot();
	StoreRow	row;
	Datum		values[KEY_COLUMNS];
	bool		nulls[KEY_COLUMNS];
	bool		is_ours;

#define KEY_IS_OURS() \
	(memcmp(DatumGetUUIDP(values[KEY_RUN_ID - 1]), run_id, sizeof(pg_uuid_t)) == 0 && \
	 (nulls[KEY_EXPIRES_AT - 1] || \
	  DatumGetTimestampTz(values[KEY_EXPIRES_AT - 1]) > GetCurrentTimestamp()))

	is_ours = store_fetch(STORE_IDEMPOTENCY_KEY, key_id, snapshot, values, nulls) && KEY_IS_OURS();
	UnregisterSnapshot(snapshot);
	if (!is_ours ||
		store_row_lock(&row, STORE_IDEMPOTENCY_KEY, key_id, LockWaitBlock) != STORE_LOCKED)
		return;
	store_row_read(&row, values, nulls);
	if (KEY_IS_OURS() && release && !key_is_of_tick(values, nulls))
		store_row_delete(&row);
	else if (KEY_IS_OURS())
	{
		values[KEY_STATUS - 1] = ObjectIdGetDatum(run_status_oid(status));
		nulls[KEY_STATUS - 1] = false;
		store_row_update(&row, values, nulls);
	}
	store_row_end(&row);
#undef KEY_IS_OURS
}

static Statement end_wait = {
	.sql = "UPDATE trigger_idem.wait SET ended_at = $3, timed_out = $4 "
	"WHERE run_id OPERATOR(pg_catalog.=) $1 AND wait_id OPERATOR(pg_catalog.=) $2"
	"  AND ended_at IS NULL",
	.expected = SPI_OK_UPDATE,
	.argtypes = {UUIDOID, UUIDOID, TIMESTAMPTZOID, BOOLOID}
};

/*
 * The entry forgets its last wait: what it knows of that goes into the wait's own
 * row.  A run that is canceled while it waits has no answer.
 */
static void
entry_end_wait(const pg_uuid_t *run_id, const Entry *entry, TimestampTz now)
{
	OwnerScope	scope;
	EndedWait	wait;
	Datum		values[4];
	char		nulls[] = "    ";

	if (entry->nulls[ENTRY_WAIT_ID - 1])
		return;
	run_entry_wait(entry->values, entry->nulls, &wait);
	values[0] = UUIDPGetDatum(run_id);
	values[1] = entry->values[ENTRY_WAIT_ID - 1];
	values[2] = TimestampTzGetDatum(wait.has_ended ? wait.ended_at : now);
	values[3] = BoolGetDatum(wait.has_ended && wait.timed_out);
	nulls[3] = wait.has_ended ? ' ' : 'n';
	owner_begin(&scope);
	scope_see_latest(&scope);
	statement_run(&end_wait, values, nulls);
	owner_end(&scope);
}

/*
 * Does what the entry knows of its last wait have to be kept in the wait's row?  If
 * the run waits for something else, or is due at another time, it is overwritten.
 */
static bool
entry_leaves_wait(const Entry *entry, const AttemptResult *result, const RunOutcome *outcome)
{
	if (result->end != ATTEMPT_WAITING)
		return outcome->visible_from != DatumGetTimestampTz(entry->values[ENTRY_VISIBLE_FROM - 1]);
	return !entry->nulls[ENTRY_WAIT_ID - 1] &&
		memcmp(DatumGetUUIDP(entry->values[ENTRY_WAIT_ID - 1]), &result->wait_id,
			   sizeof(pg_uuid_t)) != 0;
}

/* Out of the queue, to a final state */
static void
run_finish(const pg_uuid_t *run_id, Entry *entry, RunStatus status, const AttemptResult *result,
		   TimestampTz now)
{
	StoreRow	row;
	Datum		values[RUN_COLUMNS];
	bool		nulls[RUN_COLUMNS];

	Assert(RUN_STATUS_IS_FINAL(status));
	stats_count_end(status);
	store_row_delete(&entry->row);

	if (store_row_lock(&row, STORE_RUN, UUIDPGetDatum(run_id), LockWaitBlock) != STORE_LOCKED)
		elog(ERROR, "queue entry has no run");
	store_row_read(&row, values, nulls);
	if (!nulls[RUN_STATUS - 1])
		elog(ERROR, "unfinished run is final already");
#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
	SET(RUN_STATUS, ObjectIdGetDatum(run_status_oid(status)));
	SET(RUN_ATTEMPT, entry->values[ENTRY_ATTEMPT - 1]);
	values[RUN_STARTED_AT - 1] = entry->values[ENTRY_FIRST_STARTED_AT - 1];
	nulls[RUN_STARTED_AT - 1] = entry->nulls[ENTRY_FIRST_STARTED_AT - 1];
	SET(RUN_FINISHED_AT, TimestampTzGetDatum(now));
	if (result->output)
		SET(RUN_OUTPUT, PointerGetDatum(result->output));
	if (result->error)
		SET(RUN_ERROR, PointerGetDatum(result->error));
#undef SET
	if (!nulls[RUN_KEY_ID - 1])
		key_finish(values[RUN_KEY_ID - 1], run_id, status,
				   entry->task && (entry->task->release_key_on & (1 << status)));
	store_row_update(&row, values, nulls);
	store_row_end(&row);
	entry_end_wait(run_id, entry, now);
	if (!entry->nulls[ENTRY_IS_AWAITED - 1])
		awaited_ended(run_id);
	wake_watchers(run_id);
}

static void
attempt_record(const pg_uuid_t *run_id, const Entry *entry, const AttemptResult *result,
			   TimestampTz now)
{
	Datum		values[ATTEMPT_COLUMNS];
	bool		nulls[ATTEMPT_COLUMNS];

	memset(nulls, true, sizeof(nulls));
#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
	SET(ATTEMPT_RUN_ID, UUIDPGetDatum(run_id));
	SET(ATTEMPT_ATTEMPT, entry->values[ENTRY_ATTEMPT - 1]);
	SET(ATTEMPT_STATUS, CStringGetTextDatum(ends[result->end].attempt_status));
	SET(ATTEMPT_WORKER_ID, entry->values[ENTRY_WORKER_ID - 1]);
	SET(ATTEMPT_STARTED_AT, entry->values[ENTRY_STARTED_AT - 1]);
	SET(ATTEMPT_FINISHED_AT, TimestampTzGetDatum(now));
	if (result->steps_done >= 0)
	{
		SET(ATTEMPT_STEPS_DONE, Int32GetDatum(result->steps_done));
		SET(ATTEMPT_STEPS_REPLAYED, Int32GetDatum(result->steps_replayed));
		if (result->replayed)
			SET(ATTEMPT_REPLAYED, result->replayed);
	}
	if (result->error)
		SET(ATTEMPT_ERROR, PointerGetDatum(result->error));
#undef SET
	store_insert(STORE_ATTEMPT, values, nulls);
}

/* Has somebody locked the key of this run, or of another that has it now? */
static bool
key_is_busy(const pg_uuid_t *run_id)
{
	Snapshot	snapshot = store_latest_snapshot();
	StoreRow	row;
	Datum		values[RUN_COLUMNS];
	bool		nulls[RUN_COLUMNS];
	StoreLock	lock = STORE_GONE;

	if (store_fetch(STORE_RUN, UUIDPGetDatum(run_id), snapshot, values, nulls) &&
		!nulls[RUN_KEY_ID - 1])
		lock = store_row_lock(&row, STORE_IDEMPOTENCY_KEY, values[RUN_KEY_ID - 1], LockWaitSkip);
	if (lock == STORE_LOCKED)
		store_row_end(&row);
	UnregisterSnapshot(snapshot);
	return lock == STORE_BUSY;
}

static bool
end_attempt(LockWaitPolicy policy, const pg_uuid_t *run_id, int attempt,
			const AttemptResult *result, const RunOutcome *decided)
{
	TimestampTz now = GetCurrentTimestamp();
	RunOutcome	outcome;
	Entry		entry;
	bool		owned;

	store_pin();
	if (!entry_lock(&entry, run_id, policy))
		return false;
	owned = !entry.nulls[ENTRY_WORKER_TOKEN - 1] && ENTRY_INT(&entry, ENTRY_ATTEMPT) == attempt;
	if (owned)
	{
		if (decided)
			outcome = *decided;
		else
			run_judge(entry.values, result, &outcome);
		/* who takes it away waits for nobody: the next look will do it */
		if (policy == LockWaitSkip && RUN_STATUS_IS_FINAL(outcome.status) && key_is_busy(run_id))
		{
			store_row_end(&entry.row);
			return false;
		}
		transition_check(RUN_EXECUTING, outcome.status);
		attempt_record(run_id, &entry, result, now);
		if (RUN_STATUS_IS_FINAL(outcome.status))
			run_finish(run_id, &entry, outcome.status, result, now);
		else
		{
			if (entry_leaves_wait(&entry, result, &outcome))
				entry_end_wait(run_id, &entry, now);
			entry_requeue(&entry, result, &outcome);
			if (outcome.status == RUN_QUEUED)
				wake_workers(TextDatumGetCString(entry.values[ENTRY_QUEUE - 1]), entry.task);
			else if (!TIMESTAMP_NOT_FINITE(outcome.visible_from))
				wake_later(outcome.visible_from);
		}
		CommandCounterIncrement();
	}
	store_row_end(&entry.row);
	return owned;
}

/*
 * End an attempt, for the worker that executes it: the run becomes final or goes
 * back into the queue, as it was decided before, or else is now.  False, and
 * nothing is changed, when the attempt no longer owns the run.
 */
bool
run_end_attempt(const pg_uuid_t *run_id, int attempt, const AttemptResult *result,
				const RunOutcome *outcome)
{
	return end_attempt(LockWaitBlock, run_id, attempt, result, outcome);
}

/*
 * The same for somebody else.  False, too, when the entry is locked: its worker
 * may just be committing.
 */
bool
run_take_away(const pg_uuid_t *run_id, int attempt, const AttemptResult *result)
{
	return end_attempt(LockWaitSkip, run_id, attempt, result, NULL);
}

/*
 * End a run that nobody works: it is canceled, or it has expired.  False when
 * there is no such run; one that somebody has locked, itself or its key, is
 * waited for, or not.
 */
bool
run_end_unclaimed(const pg_uuid_t *run_id, RunStatus status, bool wait)
{
	static const AttemptResult nothing = {.output = NULL};
	Entry		entry;
	bool		has_expired;
	bool		ended;

	store_pin();
	if (!entry_lock(&entry, run_id, wait ? LockWaitBlock : LockWaitSkip))
		return false;
	has_expired = run_has_expired(entry.values, entry.nulls);
	ended = entry.nulls[ENTRY_WORKER_TOKEN - 1] && (status == RUN_EXPIRED) == has_expired &&
		(wait || !key_is_busy(run_id));
	if (ended)
	{
		transition_check(RUN_QUEUED, status);
		run_finish(run_id, &entry, status, &nothing,
				   has_expired ? DatumGetTimestampTz(entry.values[ENTRY_EXPIRES_AT - 1]) :
				   GetCurrentTimestamp());
		CommandCounterIncrement();
	}
	store_row_end(&entry.row);
	return ended;
}

/*
 * What a run waits for has happened: it is due.  False when somebody has locked
 * its entry, who may be about to change that.
 */
bool
run_wake(const pg_uuid_t *run_id, const pg_uuid_t *wait_id)
{
	Datum		values[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];
	StoreRow	row;
	Entry		entry;
	StoreLock	lock = store_row_lock(&row, STORE_QUEUE_ENTRY, UUIDPGetDatum(run_id), LockWaitSkip);

	if (lock != STORE_LOCKED)
		return lock == STORE_GONE;
	store_row_read(&row, entry.values, entry.nulls);
	if (run_entry_is_waiting(entry.values, entry.nulls) &&
		memcmp(DatumGetUUIDP(entry.values[ENTRY_WAIT_ID - 1]), wait_id, sizeof(pg_uuid_t)) == 0)
	{
		TimestampTz now = GetCurrentTimestamp();

		memcpy(values, entry.values, sizeof(values));
		memcpy(nulls, entry.nulls, sizeof(nulls));
		values[ENTRY_WAIT_OVER - 1] = BoolGetDatum(true);
		nulls[ENTRY_WAIT_OVER - 1] = false;
		values[ENTRY_VISIBLE_FROM - 1] = TimestampTzGetDatum(now);
		values[ENTRY_ORD - 1] = TimestampTzGetDatum(entry_ord(&entry, now));
		store_row_update(&row, values, nulls);
		wake_workers(TextDatumGetCString(values[ENTRY_QUEUE - 1]),
					 task_find(TextDatumGetCString(values[ENTRY_TASK_ID - 1])));
	}
	store_row_end(&row);
	return true;
}
