/*-------------------------------------------------------------------------
 *
 * run.c
 *	  Runs: their ids, their status, and the one place that changes it.
 *
 * A run that is not final has a queue entry, and its status follows from it:
 *
 *	executing	the entry has a worker
 *	expired		it never had one, and expires_at has passed
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

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include <math.h>

#include "failure.h"
#include "run.h"
#include "statement.h"
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
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		left = sizeof(pool);
	}
	left -= count;
	memcpy(bytes, pool + left, count);
}

/* The part of a UUIDv7 that is the time: milliseconds, and 12 bits of a fraction */
static void
uuid_set_time(pg_uuid_t *uuid, TimestampTz time)
{
	int64		us = time + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
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

/* No run that is made at this time or later has a lower id than this. */
void
run_id_first(pg_uuid_t *run_id, TimestampTz time)
{
	memset(run_id, 0, sizeof(pg_uuid_t));
	/* before 1970 there were none */
	if (time > -(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)
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
	for (int i = 0; i < RUN_STATUSES; i++)
		if (store_run_status(i) == oid)
			return (RunStatus) i;
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
	if (DatumGetTimestampTz(slot_getattr(entry, ENTRY_VISIBLE_FROM, &isnull)) > now)
		return RUN_DELAYED;
	return RUN_QUEUED;
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
static const bits32 transitions[RUN_STATUSES] = {
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

	transition_check(run_entry_status(entry->slot, now), RUN_EXECUTING);
	slot_getallattrs(entry->slot);
	memcpy(values, entry->slot->tts_values, sizeof(values));
	memcpy(nulls, entry->slot->tts_isnull, sizeof(nulls));

	claimed->run_id = *DatumGetUUIDP(values[ENTRY_RUN_ID - 1]);
	claimed->attempt = DatumGetInt32(values[ENTRY_ATTEMPT - 1]) + 1;
	claimed->steady_attempt = DatumGetInt32(values[ENTRY_STEADY_ATTEMPT - 1]);
	claimed->environment = TextDatumGetCString(values[ENTRY_ENVIRONMENT - 1]);
	claimed->task_id = TextDatumGetCString(values[ENTRY_TASK_ID - 1]);

#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
	SET(ENTRY_ATTEMPT, Int32GetDatum(claimed->attempt));
	SET(ENTRY_WORKER_ID, CStringGetTextDatum(worker_id));
	SET(ENTRY_WORKER_TOKEN, Int64GetDatum(worker_token));
	SET(ENTRY_STARTED_AT, TimestampTzGetDatum(now));
	if (!TIMESTAMP_NOT_FINITE(lease_expires_at))
		SET(ENTRY_LEASE_EXPIRES_AT, TimestampTzGetDatum(lease_expires_at));
	if (nulls[ENTRY_FIRST_STARTED_AT - 1])
		SET(ENTRY_FIRST_STARTED_AT, TimestampTzGetDatum(now));
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

#define ENTRY_SELECT \
	"SELECT e.task_id, e.attempt, e.failures, e.max_attempts, e.priority, e.worker_id," \
	"  e.started_at, e.first_started_at, e.expires_at, e.queue " \
	"FROM trigger_idem.queue_entry e WHERE e.run_id OPERATOR(pg_catalog.=) $1"

#define OF_ATTEMPT \
	" AND e.attempt OPERATOR(pg_catalog.=) $2 AND e.worker_token IS NOT NULL"

/* For the worker that owns the attempt */
static Statement lock_entry = {
	.sql = ENTRY_SELECT OF_ATTEMPT " FOR UPDATE",
	.expected = SPI_OK_SELECT,
	.argtypes = {UUIDOID, INT4OID}
};

/* For whoever takes it away: never waits for a worker that is committing */
static Statement lock_entry_unless_locked = {
	.sql = ENTRY_SELECT OF_ATTEMPT " FOR UPDATE SKIP LOCKED",
	.expected = SPI_OK_SELECT,
	.argtypes = {UUIDOID, INT4OID}
};

/* For whoever ends a run that nobody works */
static Statement lock_unclaimed = {
	.sql = ENTRY_SELECT " AND e.worker_token IS NULL FOR UPDATE",
	.expected = SPI_OK_SELECT,
	.argtypes = {UUIDOID}
};

static Statement lock_unclaimed_unless_locked = {
	.sql = ENTRY_SELECT " AND e.worker_token IS NULL FOR UPDATE SKIP LOCKED",
	.expected = SPI_OK_SELECT,
	.argtypes = {UUIDOID}
};

static Statement insert_attempt = {
	.sql = "INSERT INTO trigger_idem.attempt (run_id, attempt, status, worker_id, started_at,"
	"  finished_at, steps_done, steps_replayed, error) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
	.expected = SPI_OK_INSERT,
	.argtypes = {UUIDOID, INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID,
	INT4OID, JSONBOID}
};

/* $4: failures, which are more than before if the attempt counts */
static Statement requeue_entry = {
	.sql = "UPDATE trigger_idem.queue_entry SET ord = $2, visible_from = $3,"
	"  steady_attempt = CASE WHEN failures OPERATOR(pg_catalog.<) $4"
	"    THEN attempt OPERATOR(pg_catalog.+) 1 ELSE steady_attempt END,"
	"  failures = $4, worker_id = NULL, worker_token = NULL, started_at = NULL,"
	"  lease_expires_at = NULL "
	"WHERE run_id OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_UPDATE,
	.argtypes = {UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID}
};

static Statement delete_entry = {
	.sql = "DELETE FROM trigger_idem.queue_entry WHERE run_id OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_DELETE,
	.argtypes = {UUIDOID}
};

static Statement finish_run = {
	.sql = "UPDATE trigger_idem.run SET status = $2::trigger_idem.run_status, attempt = $3,"
	"  started_at = $4, finished_at = $5, output = $6, error = $7 "
	"WHERE run_id OPERATOR(pg_catalog.=) $1 AND status IS NULL RETURNING key_id",
	.expected = SPI_OK_UPDATE_RETURNING,
	.argtypes = {UUIDOID, TEXTOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID, JSONBOID}
};

/*
 * The key of a run, unless it has expired: then nobody will hit it any more,
 * and somebody may be taking it over, for whom we must not wait.
 */
#define LIVE_KEY \
	"WHERE key_id OPERATOR(pg_catalog.=) $1 AND run_id OPERATOR(pg_catalog.=) $2" \
	"  AND (expires_at IS NULL" \
	"    OR expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())"

/* Hits on a finished run read its status here. */
static Statement finish_key = {
	.sql = "UPDATE trigger_idem.idempotency_key SET status = $3::trigger_idem.run_status "
	LIVE_KEY,
	.expected = SPI_OK_UPDATE,
	.argtypes = {UUIDOID, UUIDOID, TEXTOID}
};

static Statement release_key = {
	.sql = "DELETE FROM trigger_idem.idempotency_key " LIVE_KEY,
	.expected = SPI_OK_DELETE,
	.argtypes = {UUIDOID, UUIDOID}
};

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
};

/* What is known of a locked entry */
typedef struct Entry
{
	const Task *task;			/* or NULL */
	int			attempt;
	int			failures;
	int			max_attempts;
	int			priority;
	Datum		worker_id;
	Datum		started_at;
	NullableDatum first_started_at;
	NullableDatum expires_at;
	Datum		queue;
} Entry;

/* Read the row that one of the statements that lock has found. */
static void
entry_read(Entry *entry)
{
	bool		isnull;

	entry->task = task_find(TextDatumGetCString(statement_value(0, 1, NULL)));
	entry->attempt = DatumGetInt32(statement_value(0, 2, NULL));
	entry->failures = DatumGetInt32(statement_value(0, 3, NULL));
	entry->max_attempts = DatumGetInt32(statement_value(0, 4, NULL));
	entry->priority = DatumGetInt32(statement_value(0, 5, NULL));
	entry->worker_id = statement_value(0, 6, &isnull);
	entry->started_at = statement_value(0, 7, &isnull);
	entry->first_started_at.value = statement_value(0, 8, &entry->first_started_at.isnull);
	entry->expires_at.value = statement_value(0, 9, &entry->expires_at.isnull);
	entry->queue = statement_value(0, 10, &isnull);
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
}

/* Back into the queue */
static void
entry_requeue(const pg_uuid_t *run_id, const Entry *entry, int failures, TimestampTz visible_from)
{
	Datum		values[4] = {UUIDPGetDatum(run_id)};

	values[1] = TimestampTzGetDatum(visible_from - entry->priority * USECS_PER_SEC);
	values[2] = TimestampTzGetDatum(visible_from);
	values[3] = Int32GetDatum(failures);
	statement_run(&requeue_entry, values, NULL);
}

/* Out of the queue, to a final state */
static void
run_finish(const pg_uuid_t *run_id, const Entry *entry, RunStatus status,
		   const AttemptResult *result, TimestampTz now)
{
	Datum		values[7] = {UUIDPGetDatum(run_id)};
	char		nulls[7] = {' ', ' ', ' ', ' ', ' ', ' ', ' '};
	bool		has_no_key;
	Datum		key_id;

	Assert(RUN_STATUS_IS_FINAL(status));
	statement_run(&delete_entry, values, NULL);

	values[1] = CStringGetTextDatum(run_status_name(status));
	values[2] = Int32GetDatum(entry->attempt);
	values[3] = entry->first_started_at.value;
	nulls[3] = entry->first_started_at.isnull ? 'n' : ' ';
	values[4] = TimestampTzGetDatum(now);
	values[5] = PointerGetDatum(result->output);
	nulls[5] = result->output ? ' ' : 'n';
	values[6] = PointerGetDatum(result->error);
	nulls[6] = result->error ? ' ' : 'n';
	if (statement_run(&finish_run, values, nulls) != 1)
		elog(ERROR, "unfinished run is final already");

	key_id = statement_value(0, 1, &has_no_key);
	if (has_no_key)
		return;
	values[0] = key_id;
	values[2] = values[1];
	values[1] = UUIDPGetDatum(run_id);
	if (entry->task && (entry->task->release_key_on & (1 << status)))
		statement_run(&release_key, values, NULL);
	else
		statement_run(&finish_key, values, NULL);
}

static void
attempt_record(const pg_uuid_t *run_id, const Entry *entry, const AttemptResult *result,
			   TimestampTz now)
{
	Datum		values[9] = {UUIDPGetDatum(run_id), Int32GetDatum(entry->attempt)};
	char		nulls[9] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};

	values[2] = CStringGetTextDatum(ends[result->end].attempt_status);
	values[3] = entry->worker_id;
	values[4] = entry->started_at;
	values[5] = TimestampTzGetDatum(now);
	values[6] = Int32GetDatum(result->steps_done);
	values[7] = Int32GetDatum(result->steps_replayed);
	nulls[6] = nulls[7] = result->steps_done >= 0 ? ' ' : 'n';
	values[8] = PointerGetDatum(result->error);
	nulls[8] = result->error ? ' ' : 'n';
	statement_run(&insert_attempt, values, nulls);
}

static bool
end_attempt(Statement *lock, const pg_uuid_t *run_id, int attempt, const AttemptResult *result,
			const RunOutcome *decided)
{
	OwnerScope	scope;
	Datum		values[2] = {UUIDPGetDatum(run_id), Int32GetDatum(attempt)};
	bool		owned;

	owner_begin(&scope);
	scope_see_latest(&scope);
	owned = statement_run(lock, values, NULL) == 1;
	if (owned)
	{
		TimestampTz now = GetCurrentTimestamp();
		RunOutcome	outcome;
		Entry		entry;

		entry_read(&entry);
		if (decided)
			outcome = *decided;
		else
			outcome_decide(entry.task, entry.failures, entry.max_attempts, result, &outcome);
		transition_check(RUN_EXECUTING, outcome.status);
		attempt_record(run_id, &entry, result, now);
		if (RUN_STATUS_IS_FINAL(outcome.status))
			run_finish(run_id, &entry, outcome.status, result, now);
		else
		{
			entry_requeue(run_id, &entry, entry.failures + (ends[result->end].counts ? 1 : 0),
						  outcome.visible_from);
			if (outcome.status == RUN_QUEUED)
				wake_workers(TextDatumGetCString(entry.queue), entry.task);
			else
				wake_later(outcome.visible_from);
		}
	}
	owner_end(&scope);
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
	return end_attempt(&lock_entry, run_id, attempt, result, outcome);
}

/*
 * The same for somebody else.  False, too, when the entry is locked: its worker
 * may just be committing.
 */
bool
run_take_away(const pg_uuid_t *run_id, int attempt, const AttemptResult *result)
{
	return end_attempt(&lock_entry_unless_locked, run_id, attempt, result, NULL);
}

static Statement find_key = {
	.sql = "SELECT FROM trigger_idem.idempotency_key k JOIN trigger_idem.run r"
	"  ON k.key_id OPERATOR(pg_catalog.=) r.key_id AND k.run_id OPERATOR(pg_catalog.=) r.run_id "
	"WHERE r.run_id OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_SELECT,
	.argtypes = {UUIDOID}
};

static Statement lock_key_unless_locked = {
	.sql = "SELECT FROM trigger_idem.idempotency_key k JOIN trigger_idem.run r"
	"  ON k.key_id OPERATOR(pg_catalog.=) r.key_id AND k.run_id OPERATOR(pg_catalog.=) r.run_id "
	"WHERE r.run_id OPERATOR(pg_catalog.=) $1 FOR UPDATE OF k SKIP LOCKED",
	.expected = SPI_OK_SELECT,
	.argtypes = {UUIDOID}
};

/*
 * End a run that nobody works: it is canceled, or it has expired.  False when
 * there is no such run; one that somebody has locked, itself or its key, is
 * waited for, or not.
 */
bool
run_end_unclaimed(const pg_uuid_t *run_id, RunStatus status, bool wait)
{
	static const AttemptResult nothing = {.output = NULL};
	OwnerScope	scope;
	Datum		values[1] = {UUIDPGetDatum(run_id)};
	TimestampTz now = GetCurrentTimestamp();
	bool		ended = false;

	owner_begin(&scope);
	scope_see_latest(&scope);
	if (statement_run(wait ? &lock_unclaimed : &lock_unclaimed_unless_locked, values, NULL) == 1)
	{
		Entry		entry;
		bool		has_expired;

		entry_read(&entry);
		has_expired = entry.first_started_at.isnull && !entry.expires_at.isnull &&
			DatumGetTimestampTz(entry.expires_at.value) <= now;
		ended = (status == RUN_EXPIRED) == has_expired &&
			(wait || statement_run(&lock_key_unless_locked, values, NULL) ==
			 statement_run(&find_key, values, NULL));
		if (ended)
		{
			transition_check(RUN_QUEUED, status);
			run_finish(run_id, &entry, status, &nothing,
					   has_expired ? DatumGetTimestampTz(entry.expires_at.value) : now);
		}
	}
	owner_end(&scope);
	return ended;
}

/* ---------- Dead workers ---------- */

typedef struct Executing
{
	pg_uuid_t	run_id;
	int			attempt;
	int64		token;
	TimestampTz started_at;
	TimestampTz lease_expires_at;	/* of a worker outside */
	char	   *task_id;
} Executing;

/* The attempts that are executing */
static List *
executing_list(void)
{
	List	   *list = NIL;
	Snapshot	snapshot = store_latest_snapshot();
	StoreWalk	walk;

	store_walk_begin(&walk, STORE_EXECUTING, snapshot);
	store_walk_seek_all(&walk);
	while (store_walk_next(&walk))
	{
		Executing  *executing = palloc(sizeof(Executing));
		bool		isnull;
		Datum		lease;

#define COLUMN(column) slot_getattr(walk.slot, (column), &isnull)
		executing->run_id = *DatumGetUUIDP(COLUMN(ENTRY_RUN_ID));
		executing->attempt = DatumGetInt32(COLUMN(ENTRY_ATTEMPT));
		executing->token = DatumGetInt64(COLUMN(ENTRY_WORKER_TOKEN));
		executing->started_at = DatumGetTimestampTz(COLUMN(ENTRY_STARTED_AT));
		executing->task_id = TextDatumGetCString(COLUMN(ENTRY_TASK_ID));
		lease = COLUMN(ENTRY_LEASE_EXPIRES_AT);
		executing->lease_expires_at = isnull ? DT_NOEND : DatumGetTimestampTz(lease);
#undef COLUMN
		list = lappend(list, executing);
	}
	store_walk_end(&walk);
	UnregisterSnapshot(snapshot);
	return list;
}

/* How long a worker of this task may be silent */
int64
run_lease_ms(const char *task_id)
{
	const Task *task = task_find(task_id);

	return task ? interval_to_ms(&task->lease_duration) : 30 * 1000;
}

/* Has an attempt to be ended by somebody else?  How, is in result. */
static bool
executing_is_over(const Executing *executing, AttemptResult *result)
{
	const Task *task = task_find(executing->task_id);
	TimestampTz now = GetCurrentTimestamp();

	if (executing->token != WORKER_OUTSIDE)
	{
		if (worker_is_alive(executing->token, run_lease_ms(executing->task_id)))
			return false;
	}
	else if (task && task->max_duration &&
			 timestamp_plus(executing->started_at, task->max_duration) <= now)
	{
		result->end = ATTEMPT_TIMED_OUT;
		result->error = failure_timed_out();
		return true;
	}
	else if (executing->lease_expires_at > now)
		return false;
	result->end = ATTEMPT_CRASHED;
	result->error = failure_worker_died();
	return true;
}

/*
 * Look at every attempt that is executing, and end those whose worker is gone
 * or was silent for longer than its lease.  Workers inside the database see to
 * max_duration themselves.  Returns how many runs were taken away from their
 * workers.
 */
int
run_take_over_dead(void)
{
	int			taken = 0;
	ListCell   *cell;

	foreach(cell, executing_list())
	{
		Executing  *executing = lfirst(cell);
		AttemptResult result = {.steps_done = -1,.retry_after_ms = -1};

		CHECK_FOR_INTERRUPTS();
		if (executing_is_over(executing, &result))
			taken += run_take_away(&executing->run_id, executing->attempt, &result);
	}
	return taken;
}
