/*-------------------------------------------------------------------------
 *
 * current.c
 *	  The run that this session is executing, and the fence around it.
 *
 * While a handler runs, every transaction that commits in this session passes
 * the fence: just before the commit, the queue entry is looked up with the
 * latest snapshot, locked FOR KEY SHARE and its attempt compared with ours (one
 * that wrote nothing is looked up without the lock, and stays read-only).
 * Whoever takes a run over locks the entry FOR UPDATE first, so either the
 * taker waits (it skips the entry) or we see the new attempt and fail with
 * TI002.  No lock is held while the handler works: a stopped process cannot
 * keep its run, and cannot commit once it has lost it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/memutils.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"

#include "current.h"
#include "memo.h"
#include "run.h"
#include "store.h"
#include "wait.h"

static CurrentRun *current = NULL;

/* Nesting level of the (sub)transaction that has entered the current run */
static int	entered_level = 0;

PG_FUNCTION_INFO_V1(trigger_idem_current_run_id);
PG_FUNCTION_INFO_V1(trigger_idem_current_attempt);

/* The run being executed, or NULL */
CurrentRun *
current_run(void)
{
	return current;
}

/* From here on the session executes run, until current_run_clear(). */
void
current_run_set(CurrentRun *run)
{
	Assert(current == NULL);
	current = run;
}

void
current_run_clear(void)
{
	current = NULL;
}

/*
 * A run that an application works becomes current in this session, until the
 * (sub)transaction ends.
 */
CurrentRun *
current_run_enter(const pg_uuid_t *run_id, int attempt, int steady_attempt,
				  const char *environment)
{
	CurrentRun *run = MemoryContextAllocZero(TopTransactionContext, sizeof(CurrentRun));

	run->run_id = *run_id;
	run->attempt = attempt;
	run->steady_attempt = steady_attempt;
	run->environment = MemoryContextStrdup(TopTransactionContext, environment);
	run->context = TopTransactionContext;
	run->is_entered = true;
	entered_level = GetCurrentTransactionNestLevel();
	current_run_set(run);
	return run;
}

static void
current_run_leave(void)
{
	current_run_clear();
	/* a global step may be going on, around what has entered the run */
	memo_forget_run();
}

/* TI002: the attempt has lost its run. */
void
current_stale_error(const pg_uuid_t *run_id, int attempt)
{
	ereport(ERROR,
			(errcode(ERRCODE_STALE_ATTEMPT),
			 errmsg("attempt %d no longer owns its run", attempt),
			 errdetail("Run %s was taken over, canceled or finished in the meantime.",
					   run_id_text(run_id))));
}

/* The fence; see the head of this file. */
static void
current_check_fence(void)
{
	Datum		values[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];
	bool		found;

	if (!store_exists())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot drop extension \"%s\" while it executes this run",
						EXTENSION_NAME)));
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		found = store_lock_latest(STORE_QUEUE_ENTRY, UUIDPGetDatum(&current->run_id),
								  values, nulls);
	else
	{
		Snapshot	snapshot = store_latest_snapshot();

		found = store_fetch(STORE_QUEUE_ENTRY, UUIDPGetDatum(&current->run_id), snapshot,
							values, nulls);
		UnregisterSnapshot(snapshot);
	}
	if (!found ||
		DatumGetInt32(values[ENTRY_ATTEMPT - 1]) != current->attempt ||
		nulls[ENTRY_WORKER_ID - 1])
		current_stale_error(&current->run_id, current->attempt);
}

static void
current_xact_callback(XactEvent event, void *arg)
{
	if (current == NULL)
		return;
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		wait_check_not_begun();
		current_check_fence();
	}
	else if (event == XACT_EVENT_PRE_PREPARE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction inside a run")));
	else if (current->is_entered)
		current_run_leave();
}

static void
current_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
						 void *arg)
{
	if (current && current->is_entered && entered_level == GetCurrentTransactionNestLevel() &&
		(event == SUBXACT_EVENT_COMMIT_SUB || event == SUBXACT_EVENT_ABORT_SUB))
		current_run_leave();
}

void
current_init(void)
{
	RegisterXactCallback(current_xact_callback, NULL);
	RegisterSubXactCallback(current_subxact_callback, NULL);
}

/* current_run_id() */
Datum
trigger_idem_current_run_id(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *run_id;

	if (current == NULL)
		PG_RETURN_NULL();
	run_id = palloc(sizeof(pg_uuid_t));
	*run_id = current->run_id;
	PG_RETURN_UUID_P(run_id);
}

/* current_attempt() */
Datum
trigger_idem_current_attempt(PG_FUNCTION_ARGS)
{
	if (current == NULL)
		PG_RETURN_NULL();
	PG_RETURN_INT32(current->attempt);
}
