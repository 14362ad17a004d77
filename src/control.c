/*-------------------------------------------------------------------------
 *
 * control.c
 *	  Controlling runs and queues: run_cancel(), run_replay(), queue_pause().
 *
 * A cancel takes the run away from whoever works it, in the transaction of the
 * caller; from then on that worker cannot commit.  When the caller has committed,
 * a session that executes the run is told by the signal that cancels a query.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/dsm.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "access.h"
#include "awaited.h"
#include "control.h"
#include "current.h"
#include "run.h"
#include "statement.h"
#include "store.h"
#include "task.h"
#include "trigger.h"
#include "wake.h"
#include "worker.h"

/* How often, and how far apart in ms, to try when somebody is committing */
#define CANCEL_TRIES	100
#define CANCEL_WAIT_MS	10

PG_FUNCTION_INFO_V1(trigger_idem_run_cancel);
PG_FUNCTION_INFO_V1(trigger_idem_run_replay);
PG_FUNCTION_INFO_V1(trigger_idem_queue_pause);
PG_FUNCTION_INFO_V1(trigger_idem_queue_resume);

/* ---------- Sessions to tell when this transaction has committed ---------- */

typedef struct CanceledAttempt
{
	pg_uuid_t	run_id;
	int			attempt;
	int			nest_level;
	dsm_segment *worker;
} CanceledAttempt;

/* In TopTransactionContext */
static List *canceled = NIL;

/* An error is still possible here, so what may raise one is done now. */
static void
cancel_at_commit(const pg_uuid_t *run_id, int attempt, int64 token)
{
	dsm_segment *worker = token == WORKER_OUTSIDE ? NULL : worker_keep(token);
	MemoryContext caller;
	CanceledAttempt *cancel;

	if (worker == NULL)
		return;
	caller = MemoryContextSwitchTo(TopTransactionContext);
	cancel = palloc(sizeof(CanceledAttempt));
	cancel->run_id = *run_id;
	cancel->attempt = attempt;
	cancel->nest_level = GetCurrentTransactionNestLevel();
	cancel->worker = worker;
	canceled = lappend(canceled, cancel);
	MemoryContextSwitchTo(caller);
}

static void
control_xact_callback(XactEvent event, void *arg)
{
	ListCell   *cell;

	if (event == XACT_EVENT_PRE_PREPARE && canceled != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has canceled a run")));
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT)
		foreach(cell, canceled)
	{
		const CanceledAttempt *cancel = lfirst(cell);

		worker_cancel(cancel->worker, &cancel->run_id, cancel->attempt);
	}
	canceled = NIL;
	worker_let_go();
}

static void
control_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
						 void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *cell;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	foreach(cell, canceled)
	{
		CanceledAttempt *cancel = lfirst(cell);

		if (cancel->nest_level < level)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			cancel->nest_level = level - 1;
		else
			canceled = foreach_delete_current(canceled, cell);
	}
}

/* Called once, when the library is loaded. */
void
control_init(void)
{
	RegisterXactCallback(control_xact_callback, NULL);
	RegisterSubXactCallback(control_subxact_callback, NULL);
}

/* ---------- Runs ---------- */

/* The row of a run that the caller may see: 42704.  May he control it, too? */
static bool
run_find_visible(const pg_uuid_t *run_id, Datum *values, bool *nulls)
{
	Snapshot	snapshot = store_latest_snapshot();
	bool		found = store_fetch(STORE_RUN, UUIDPGetDatum(run_id), snapshot, values, nulls);
	char	   *task_id;
	char	   *triggered_by;
	char	   *environment;

	UnregisterSnapshot(snapshot);
	if (!found)
		run_unknown_error(run_id);
	task_id = TextDatumGetCString(values[RUN_TASK_ID - 1]);
	triggered_by = TextDatumGetCString(values[RUN_TRIGGERED_BY - 1]);
	environment = TextDatumGetCString(values[RUN_ENVIRONMENT - 1]);
	if (access_may_control_run(task_id, triggered_by, environment))
		return true;
	if (!access_may_see_run(task_id, triggered_by, environment))
		run_unknown_error(run_id);
	return false;
}

/* The row of a run that the caller may see: 42704 */
void
run_require_visible(const pg_uuid_t *run_id, Datum *values, bool *nulls)
{
	(void) run_find_visible(run_id, values, nulls);
}

/* The row of a run that the caller may control: 42704, 42501 */
static void
run_require_controllable(const pg_uuid_t *run_id, Datum *values, bool *nulls)
{
	if (!run_find_visible(run_id, values, nulls))
		access_control_error();
}

/* The first argument, a run's id */
static pg_uuid_t *
run_id_arg(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("run_id must not be null")));
	return PG_GETARG_UUID_P(0);
}

/* Cancel a run once; false when it is final, or somebody has locked it. */
static bool
run_cancel_once(const pg_uuid_t *run_id, bool *is_final)
{
	static const AttemptResult result = {.end = ATTEMPT_CANCELED,.steps_done = -1};
	Snapshot	snapshot = store_latest_snapshot();
	Datum		entry[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];
	bool		found;
	int			attempt;

	found = store_fetch(STORE_QUEUE_ENTRY, UUIDPGetDatum(run_id), snapshot, entry, nulls);
	UnregisterSnapshot(snapshot);
	*is_final = !found || run_has_expired(entry, nulls);
	if (*is_final)
		return false;
	if (nulls[ENTRY_WORKER_TOKEN - 1])
		return run_end_unclaimed(run_id, RUN_CANCELED, false);
	attempt = DatumGetInt32(entry[ENTRY_ATTEMPT - 1]);
	if (!run_take_away(run_id, attempt, &result))
		return false;
	cancel_at_commit(run_id, attempt, DatumGetInt64(entry[ENTRY_WORKER_TOKEN - 1]));
	return true;
}

/* The ids of a run's unfinished children */
static List *
run_children(const pg_uuid_t *run_id)
{
	List	   *children = NIL;
	Snapshot	snapshot = store_latest_snapshot();
	StoreWalk	walk;
	bool		isnull;

	store_walk_begin(&walk, STORE_CHILDREN, snapshot);
	store_walk_seek_uuid(&walk, UUIDPGetDatum(run_id));
	while (store_walk_next(&walk))
	{
		pg_uuid_t  *child = palloc(sizeof(pg_uuid_t));

		*child = *DatumGetUUIDP(slot_getattr(walk.slot, ENTRY_RUN_ID, &isnull));
		children = lappend(children, child);
	}
	store_walk_end(&walk);
	UnregisterSnapshot(snapshot);
	return children;
}

static bool
is_in_list(const List *runs, const pg_uuid_t *run_id)
{
	ListCell   *cell;

	foreach(cell, runs)
		if (memcmp(lfirst(cell), run_id, sizeof(pg_uuid_t)) == 0)
		return true;
	return false;
}

/*
 * A run with its unfinished children, and theirs, but for those that another run
 * waits for, which is none of these.
 */
static List *
run_family(pg_uuid_t *run_id)
{
	List	   *family = list_make1(run_id);
	bool		has_grown;
	ListCell   *cell;
	ListCell   *child;

	do
	{
		List	   *found = NIL;

		foreach(cell, family)
			foreach(child, run_children(lfirst(cell)))
			if (!is_in_list(family, lfirst(child)) && !awaited_by_others(lfirst(child), family))
			found = lappend(found, lfirst(child));
		has_grown = found != NIL;
		family = list_concat(family, found);
		CHECK_FOR_INTERRUPTS();
	} while (has_grown);
	return family;
}

/*
 * Is a member of a family, the first apart, waited for by others?  Its lock is ours
 * after that, so that nobody begins to.  False, too, when somebody else has it.
 */
static bool
run_is_kept(const pg_uuid_t *run_id, const List *family)
{
	StoreRow	row;

	if (memcmp(run_id, linitial(family), sizeof(pg_uuid_t)) == 0)
		return false;
	if (awaited_by_others(run_id, family))
		return true;
	if (store_row_lock(&row, STORE_QUEUE_ENTRY, UUIDPGetDatum(run_id), LockWaitSkip) != STORE_LOCKED)
		return false;
	store_row_end(&row);
	return awaited_by_others(run_id, family);
}

/*
 * Cancel a member of a family; false when it is final, or kept.  Whoever is just
 * committing gets a second.
 */
static bool
run_cancel_one(const pg_uuid_t *run_id, const List *family)
{
	bool		is_final = false;

	for (int i = 0; i <= CANCEL_TRIES; i++)
	{
		if (run_is_kept(run_id, family))
			return false;
		if (run_cancel_once(run_id, &is_final))
		{
			CommandCounterIncrement();
			return true;
		}
		if (is_final)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, CANCEL_WAIT_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("run %s is locked", run_id_text(run_id)),
			 errdetail("Whoever has locked it is about to commit."),
			 errhint("Try again.")));
}

/*
 * Cancel a run and its family; false when it was final.  A worker's transaction is
 * not waited for.
 */
static bool
run_cancel_family(pg_uuid_t *run_id)
{
	List	   *family = run_family(run_id);
	ListCell   *cell;

	if (current_run() && is_in_list(family, &current_run()->run_id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a run cannot cancel itself"),
				 errhint("Raise an error with SQLSTATE TI006, or call run_fail(), to end it.")));
	if (!run_cancel_one(run_id, family))
		return false;
	for_each_from(cell, family, 1)
		(void) run_cancel_one(lfirst(cell), family);
	return true;
}

/* run_cancel(run_id uuid): true if the run was not final */
Datum
trigger_idem_run_cancel(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *run_id = run_id_arg(fcinfo);
	Datum		values[RUN_COLUMNS];
	bool		nulls[RUN_COLUMNS];

	PreventCommandDuringRecovery("run_cancel()");
	PreventCommandIfReadOnly("run_cancel()");
	store_pin();
	run_require_controllable(run_id, values, nulls);
	PG_RETURN_BOOL(run_cancel_family(run_id));
}

/* The options of a run that exists; what is to be due is due now. */
static void
replay_options(const Datum *values, const bool *nulls, NullableDatum *options)
{
	static const struct
	{
		TriggerOption option;
		int			column;
	}			kept[] = {
		{OPTION_TASK_ID, RUN_TASK_ID},
		{OPTION_PAYLOAD, RUN_PAYLOAD},
		{OPTION_TTL, RUN_TTL},
		{OPTION_PRIORITY, RUN_PRIORITY},
		{OPTION_QUEUE, RUN_QUEUE},
		{OPTION_CONCURRENCY_KEY, RUN_CONCURRENCY_KEY},
		{OPTION_MAX_ATTEMPTS, RUN_MAX_ATTEMPTS},
		{OPTION_TAGS, RUN_TAGS},
		{OPTION_METADATA, RUN_METADATA},
		{OPTION_ENVIRONMENT, RUN_ENVIRONMENT},
	};

	for (int i = 0; i < TRIGGER_OPTIONS; i++)
		options[i].isnull = true;
	for (size_t i = 0; i < lengthof(kept); i++)
	{
		options[kept[i].option].value = values[kept[i].column - 1];
		options[kept[i].option].isnull = nulls[kept[i].column - 1];
	}
	options[OPTION_IDEMPOTENCY_KEY_SCOPE].value = CStringGetTextDatum("global");
	options[OPTION_IDEMPOTENCY_KEY_SCOPE].isnull = false;
}

/* run_replay(run_id uuid): the id of a new run like it */
Datum
trigger_idem_run_replay(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *run_id = run_id_arg(fcinfo);
	NullableDatum options[TRIGGER_OPTIONS];
	TriggerCall trigger;
	TriggerResult result;
	Datum		values[RUN_COLUMNS];
	bool		nulls[RUN_COLUMNS];
	pg_uuid_t  *new_id = palloc(sizeof(pg_uuid_t));

	run_require_controllable(run_id, values, nulls);
	replay_options(values, nulls, options);
	trigger_prepare(options, TRIGGER_REPLAY, &trigger);
	trigger_one(&trigger, &result);
	*new_id = result.run_id;
	PG_RETURN_UUID_P(new_id);
}

/* ---------- Queues ---------- */

static Statement pause_queue = {
	.sql = "INSERT INTO trigger_idem.paused_queue (queue, paused_at)"
	"  VALUES ($1, pg_catalog.clock_timestamp()) ON CONFLICT DO NOTHING",
	.expected = SPI_OK_INSERT,
	.argtypes = {TEXTOID}
};

static Statement resume_queue = {
	.sql = "DELETE FROM trigger_idem.paused_queue WHERE queue OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_DELETE,
	.argtypes = {TEXTOID}
};

/* Run a statement about the queue that is the first argument. */
static void
queue_run(FunctionCallInfo fcinfo, Statement *statement, const char *function)
{
	OwnerScope	scope;
	Datum		values[1];

	identifier_check("queue", PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	access_require_for_all(ACCESS_ADMIN, function);
	values[0] = PG_GETARG_DATUM(0);
	owner_begin(&scope);
	statement_run(statement, values, NULL);
	owner_end(&scope);
}

/* queue_pause(queue text) */
Datum
trigger_idem_queue_pause(PG_FUNCTION_ARGS)
{
	queue_run(fcinfo, &pause_queue, "queue_pause()");
	PG_RETURN_VOID();
}

/* queue_resume(queue text) */
Datum
trigger_idem_queue_resume(PG_FUNCTION_ARGS)
{
	queue_run(fcinfo, &resume_queue, "queue_resume()");
	/* who is to work it, a scan finds out */
	wake_workers(text_to_cstring(PG_GETARG_TEXT_PP(0)), NULL);
	wake_later(GetCurrentTimestamp());
	PG_RETURN_VOID();
}
