/*-------------------------------------------------------------------------
 *
 * takeover.c
 *	  Taking over: ending the attempts of workers that are gone.
 *
 * Whoever looks for work does this once in a while, and whenever he finds none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "awaited.h"
#include "failure.h"
#include "run.h"
#include "store.h"
#include "takeover.h"
#include "task.h"
#include "worker.h"

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
static int64
lease_ms(const char *task_id)
{
	const Task *task = task_find(task_id);

	return task ? interval_to_ms(&task->lease_duration) : 30 * INT64CONST(1000);
}

/*
 * Of the runs that a dead worker had in hand it has begun one, unless it was in a
 * group: the first, for it works them in their order and commits one after the
 * other.
 */
static bool
executing_was_begun(const Executing *executing, const List *list)
{
	ListCell   *cell;

	foreach(cell, list)
	{
		const Executing *other = lfirst(cell);

		if (other->token == executing->token && other->started_at < executing->started_at)
			return false;
	}
	return true;
}

/* The same as executing_is_over() for a worker inside the database */
static bool
executing_inside_is_over(const Executing *executing, const List *list, AttemptResult *result)
{
	WorkerAnswer answer = worker_take(executing->token, &executing->run_id, executing->attempt,
									  lease_ms(executing->task_id));

	if (answer == WORKER_KEEPS)
		return false;
	if (answer != WORKER_GIVES && executing_was_begun(executing, list))
	{
		result->end = ATTEMPT_CRASHED;
		result->error = failure_worker_died();
	}
	else
	{
		result->end = ATTEMPT_RELEASED;
		result->retry_after_ms = RETRY_IN_PLACE;
	}
	return true;
}

/* Has an attempt of this list to be ended by somebody else?  How, is in result. */
static bool
executing_is_over(const Executing *executing, const List *list, AttemptResult *result)
{
	const Task *task = task_find(executing->task_id);
	TimestampTz now = GetCurrentTimestamp();

	if (executing->token != WORKER_OUTSIDE)
		return executing_inside_is_over(executing, list, result);
	if (task && task->max_duration &&
		timestamp_plus(executing->started_at, task->max_duration) <= now)
	{
		result->end = ATTEMPT_TIMED_OUT;
		result->error = failure_timed_out();
		return true;
	}
	if (executing->lease_expires_at > now)
		return false;
	result->end = ATTEMPT_CRASHED;
	result->error = failure_worker_died();
	return true;
}

/*
 * Look at every attempt that is executing, and end those whose worker is gone
 * or was silent for longer than its lease, or has had them in hand for long
 * without beginning them.  Workers inside the database see to max_duration
 * themselves.  Check waits, too, that whoever ended them could not see to.  Returns
 * how many runs may be due now.
 */
int
take_over_dead(void)
{
	int			taken = 0;
	List	   *list;
	ListCell   *cell;

	/*
	 * before the tables: who drops the extension locks it first, and then
	 * them
	 */
	store_pin();
	list = executing_list();
	foreach(cell, list)
	{
		Executing  *executing = lfirst(cell);
		AttemptResult result = {.steps_done = -1,.retry_after_ms = RETRY_AS_TASK_SAYS};

		CHECK_FOR_INTERRUPTS();
		if (executing_is_over(executing, list, &result))
			taken += run_take_away(&executing->run_id, executing->attempt, &result);
	}
	return taken + awaited_check();
}
