/*-------------------------------------------------------------------------
 *
 * work.c
 *	  CALL work(): claims due runs and runs their handlers in this session.
 *
 * Each run takes two transactions of ours: one claims it, one runs the handler
 * and records the run's end.  A handler that is a function lives in the second;
 * one that is a procedure may commit as often as it likes, and its last
 * transaction is the one in which the run's end is recorded.
 *
 * A claim is flushed to disk before its handler starts.  So that short handlers
 * do not wait for that each time, several runs are claimed together as long as
 * handlers are short; and if one of them takes long after all, others may take
 * those that have not begun (worker.c).
 *
 * With trigger_idem.runs_per_commit, at least that many are claimed at a time, and
 * those of functions are worked in one transaction, as long as all goes well.  If
 * it does not, nothing has happened, and each is worked in one of its own.
 *
 * A procedure that may COMMIT cannot run in a subtransaction, so its error is
 * survived the way the server's own main loop does it: abort whatever
 * transaction is there, clean up what an abort leaves to that loop, begin a new
 * transaction, record the failure.  This needs a stack that is empty but for
 * us, which is why work() insists on being called at top level and why no SPI
 * connection of ours is open while a handler runs.
 *
 * Memory: what lasts as long as the call is in the portal's context, which
 * survives commits.  An attempt has a context of its own, which also stands in
 * for PortalContext while the handler runs: what the handler's language leaves
 * there goes with the attempt.  It is a child of TopMemoryContext, for when the
 * session ends in the middle, portals are freed before the transaction aborts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "background.h"
#include "claim.h"
#include "compat.h"
#include "current.h"
#include "environment.h"
#include "failure.h"
#include "interrupt.h"
#include "limit.h"
#include "memo.h"
#include "routine.h"
#include "run.h"
#include "settings.h"
#include "statement.h"
#include "step.h"
#include "store.h"
#include "suspend.h"
#include "task.h"
#include "wait.h"
#include "work.h"
#include "worker.h"

/* One call of work() */
typedef struct Work
{
	MemoryContext attempt_context;	/* reset after every attempt */
	Claimer		claimer;
	List	   *settings;		/* of the session, before the first handler */
	SettingsMark mark;			/* before the present handler */
	bool		check_settings; /* what it has set cannot be rolled back */
	bool		has_timeout;	/* statement_timeout runs for the CALL */
	bool		is_counted;		/* by track_functions */
	WorkGoesOn	goes_on;		/* NULL: always */
	TimestampTz looked_for_dead;	/* last look for dead workers; 0: none yet */
	int			claim_size;		/* how many runs to claim next */
	int			max_runs;		/* attempts that may still be made */
	int			processed;		/* attempts that were made */
} Work;

/*
 * So many runs are claimed together at most, and no more than can be worked in
 * this time if they take as long as the last ones.
 */
#define CLAIM_MAX		16
#define CLAIM_MAX_US	5000

PG_FUNCTION_INFO_V1(trigger_idem_work);

/* ---------- Transactions ---------- */

static void
work_begin(Work *work)
{
	/* so that now() is the time of this transaction, not of the CALL */
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(work->attempt_context);
}

/* Commit, as SPI_commit() does it, and begin the next transaction. */
static void
work_commit(Work *work)
{
	ForgetPortalSnapshots();
	CommitTransactionCommand();
	/* who counts the CALL has counters in hand, which this would free */
	if (!work->is_counted)
		pgstat_report_stat(false);
	work_begin(work);
}

/* The next handler is not to find what another one has set, nor who it has become. */
static void
work_restore_settings(Work *work)
{
	if (work->check_settings && settings_restore(work->settings))
		work_commit(work);
	work->check_settings = false;
}

/*
 * The transactions in which we only keep our books: they need to see what is
 * committed now, whatever the session's default.
 */
static void
work_use_read_committed(void)
{
	XactIsoLevel = XACT_READ_COMMITTED;
}

/*
 * After an error anywhere in the code of a user: copy it into the attempt's
 * context and get to the state after work_begin().  See PostgresMain() for
 * what an error in the main loop cleans up.
 */
static ErrorData *
work_recover(Work *work, Portal portal)
{
	ErrorData  *error;

	MemoryContextSwitchTo(work->attempt_context);
	error = CopyErrorData();
	FlushErrorState();

	HOLD_INTERRUPTS();
	AbortOutOfAnyTransaction();
	PortalErrorCleanup();
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
	compat_replication_slot_cleanup();
	jit_reset_after_error();
	ActivePortal = portal;
	portal->portalSnapshot = NULL;
	RESUME_INTERRUPTS();

	work_begin(work);
	return error;
}

/* ---------- One attempt ---------- */

/*
 * Find the handler and check anew that it may do this run.  Returns in the
 * current context.
 */
static void
work_find_handler(const ClaimedRun *claimed, const Task *task, Handler *handler)
{
	if (task->handler_name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("task \"%s\" has no handler", claimed->task_id)));
	handler_find(task->handler_schema, task->handler_name, handler);
	task_check_handler(task, handler);
}

/* Check deferred constraints now, as part of the attempt. */
static void
work_check_constraints(void)
{
	ConstraintsSetStmt *set = makeNode(ConstraintsSetStmt);

	set->constraints = NIL;
	set->deferred = false;
	AfterTriggerSetState(set);
}

typedef enum WorkExecuted
{
	EXECUTED,
	NOT_EXECUTED,				/* somebody else has taken it */
	NOT_IN_GROUP,				/* a procedure, which may commit */
} WorkExecuted;

/* Run the handler and record its output, all but the last commit. */
static WorkExecuted
work_execute(Work *work, const ClaimedRun *claimed, CurrentRun *run, bool in_group)
{
	AttemptResult result = {.end = ATTEMPT_COMPLETED,.retry_after_ms = RETRY_AS_TASK_SAYS};
	const Task *task;
	Handler		handler;
	NullableDatum made;
	Datum		output;
	bool		isnull;
	bool		is_read_only;

	store_pin();
	task = task_require(claimed->task_id);
	work_find_handler(claimed, task, &handler);
	if (in_group && !OidIsValid(handler.result_type))
		return NOT_IN_GROUP;
	if (!worker_begin_attempt(&run->run_id, run->attempt, interval_to_ms(&task->lease_duration)))
		return NOT_EXECUTED;
	current_run_set(run);
	settings_mark(&work->mark);
	handler_begins(task);
	output = handler_call(&handler, claimed->payload, claimed->payload_isnull, &isnull);
	made.value = output;
	made.isnull = isnull;
	limit_output("output of the run", made);
	MemoryContextSwitchTo(work->attempt_context);
	/* it may have caught the error by which it was to be left */
	wait_check_not_begun();
	work_check_constraints();
	handler_ends();
	/* it may have caught the cancel */
	if (duration_is_over)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("the attempt took longer than max_duration")));
	current_run_clear();
	/* a cursor WITH HOLD may enter another one yet */
	step_forget_run();

	result.output = isnull ? NULL : DatumGetJsonbP(output);
	memo_count(run, &result);

	/*
	 * a transaction that the handler has made READ ONLY is not for what we
	 * record
	 */
	is_read_only = XactReadOnly;
	XactReadOnly = false;
	if (!run_end_attempt(&run->run_id, run->attempt, &result, NULL))
		current_stale_error(&run->run_id, run->attempt);
	XactReadOnly = is_read_only;
	if (!settings_mark_is_valid(&work->mark))
		work->check_settings = true;
	else if (in_group)
		settings_roll_back(&work->mark, true);
	else
		settings_roll_back_at_commit(&work->mark, false);
	return EXECUTED;
}

/*
 * Was it the CALL that was cancelled or ran out of time?  A handler may raise
 * 57014 itself, which is an error like others.
 */
static bool
is_real_cancel(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED && error->funcname != NULL &&
		strcmp(error->funcname, "ProcessInterrupts") == 0;
}

/* Does an error of a handler end the CALL, too? */
static bool
ends_call(const ErrorData *error, bool was_canceled)
{
	return is_real_cancel(error) && !duration_is_over && !was_canceled && !work_stop;
}

/*
 * Record that an attempt failed.  One that has lost its run has nothing to
 * record.
 */
static void
work_record_failure(Work *work, const CurrentRun *run, const ErrorData *error)
{
	AttemptResult result = {.end = ATTEMPT_FAILED,.retry_after_ms = RETRY_AS_TASK_SAYS};

	if (duration_is_over)
		result.end = ATTEMPT_TIMED_OUT;
	else if (work_stop && is_real_cancel(error))
		result.end = ATTEMPT_RELEASED;
	else if (error->sqlerrcode == ERRCODE_ABORT_RUN)
		result.end = ATTEMPT_ABORTED;
	result.error = duration_is_over ? failure_timed_out() : failure_from_error(error);
	memo_count(run, &result);
	work_use_read_committed();
	if (run_end_attempt(&run->run_id, run->attempt, &result, NULL))
		suspend_record_remembered(run);
	work_commit(work);
}

/* What is done after a handler, however it ended */
static void
work_leave_handler(void)
{
	handler_ends();
	current_run_clear();
	step_forget_run();
}

/*
 * Suspend the run of a handler that has asked for it.  What it wants to trigger
 * may turn out to be impossible, or it may have lost its run: that is the answer.
 */
static ErrorData *
work_suspend(Work *work, CurrentRun *run)
{
	Portal		portal = ActivePortal;
	MemoryContext portal_context = PortalContext;
	AttemptResult result = {.retry_after_ms = RETRY_AS_TASK_SAYS};
	ErrorData  *volatile error = NULL;

	memo_count(run, &result);
	PortalContext = work->attempt_context;
	handler_begins(NULL);
	PG_TRY();
	{
		work_use_read_committed();
		suspend_run(run, &result);
		work_commit(work);
	}
	PG_CATCH();
	{
		PortalContext = portal_context;
		error = work_recover(work, portal);
	}
	PG_END_TRY();
	PortalContext = portal_context;
	work_leave_handler();
	return error;
}

/* Let pg_stat_activity tell what is being worked; NULL: the CALL itself */
static void
work_show(const ClaimedRun *claimed)
{
	if (claimed)
		pgstat_report_activity(STATE_RUNNING,
							   psprintf("trigger_idem: task %s, run %s, attempt %d",
										claimed->task_id, run_id_text(&claimed->run_id),
										claimed->attempt));
	else
		pgstat_report_activity(STATE_RUNNING, debug_query_string);
}

static void
current_run_fill(const Work *work, const ClaimedRun *claimed, CurrentRun *run)
{
	memset(run, 0, sizeof(*run));
	run->run_id = claimed->run_id;
	run->attempt = claimed->attempt;
	run->steady_attempt = claimed->steady_attempt;
	run->environment = claimed->environment;
	run->context = work->attempt_context;
	run->last_wait = claimed->wait;
}

/* The same, and for its attempt; was that canceled? */
static bool
work_leave_attempt(void)
{
	work_leave_handler();
	return worker_end_attempt();
}

/* Has the timeout of the CALL been there?  A handler may have kept it to itself. */
static bool
work_time_is_over(const Work *work)
{
	return work->has_timeout && !get_timeout_active(STATEMENT_TIMEOUT);
}

static ErrorData *
work_timeout_error(const Work *work)
{
	ErrorData  *error = NULL;

	if (!work_time_is_over(work))
		return NULL;
	PG_TRY();
	{
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling statement due to statement timeout")));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(work->attempt_context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return error;
}

/*
 * Work one claimed run, from one transaction of ours to the next.  Errors of
 * the handler are recorded.  A cancel of the CALL is recorded, too, and is the
 * answer: it ends the call.
 */
static ErrorData *
work_attempt(Work *work, const ClaimedRun *claimed)
{
	Portal		portal = ActivePortal;
	MemoryContext portal_context = PortalContext;
	CurrentRun	run;
	ErrorData  *volatile error = NULL;
	ErrorData  *failure;
	volatile WorkExecuted executed = EXECUTED;
	bool		was_canceled;

	current_run_fill(work, claimed, &run);
	PortalContext = work->attempt_context;
	duration_is_over = false;
	work_show(claimed);
	PG_TRY();
	{
		executed = work_execute(work, claimed, &run, false);
		work_commit(work);
	}
	PG_CATCH();
	{
		PortalContext = portal_context;
		/* an abort rolls back what was set in its transaction */
		work->check_settings |= !settings_mark_is_valid(&work->mark);
		error = work_recover(work, portal);
	}
	PG_END_TRY();
	PortalContext = portal_context;
	work_leave_handler();
	/* a cancel of the run may come this late, and is not one of the CALL */
	HOLD_INTERRUPTS();
	work_restore_settings(work);
	RESUME_INTERRUPTS();
	failure = error;
	if (error && wait_has_begun(&run) && !duration_is_over)
		failure = work_suspend(work, &run);
	was_canceled = worker_end_attempt();
	work_show(NULL);

	if (executed == EXECUTED)
		work->processed++;
	if (failure)
		work_record_failure(work, &run, failure);
	if (error && ends_call(error, was_canceled))
		return error;
	if (failure && ends_call(failure, was_canceled))
		return failure;
	return work_timeout_error(work);
}

/* ---------- Groups ---------- */

/* Give back a run that was claimed and not worked. */
static void
work_give_back(Work *work, List *claimed, int from)
{
	AttemptResult result = {.end = ATTEMPT_RELEASED,.steps_done = -1,.retry_after_ms = RETRY_IN_PLACE};

	if (from >= list_length(claimed))
		return;
	work_use_read_committed();
	for (int i = from; i < list_length(claimed); i++)
	{
		const ClaimedRun *run = list_nth(claimed, i);

		(void) run_end_attempt(&run->run_id, run->attempt, &result, NULL);
	}
	work_commit(work);
}

/*
 * Work a group of the claimed runs in one transaction, at most size of them,
 * beginning with one.  All of these are completed and the answer is how many they
 * are; or nothing has happened, and it is 0: the first is for a procedure, or one
 * has failed.  Then each must have a transaction of its own.  A cancel of the CALL
 * fails the run in hand and is the interrupt.
 */
static int
work_group(Work *work, List *claimed, int from, int size, ErrorData **interrupt)
{
	Portal		portal = ActivePortal;
	MemoryContext portal_context = PortalContext;
	CurrentRun	current;
	ErrorData  *volatile error = NULL;
	volatile bool was_canceled = false;
	volatile int count = 0;
	volatile int executed = 0;

	PortalContext = work->attempt_context;
	duration_is_over = false;
	PG_TRY();
	{
		while (count < size && !work_stop && !work_time_is_over(work))
		{
			const ClaimedRun *run = list_nth(claimed, from + count);
			WorkExecuted how;
			bool		is_canceled PG_USED_FOR_ASSERTS_ONLY;

			current_run_fill(work, run, &current);
			current.is_grouped = true;
			work_show(run);
			how = work_execute(work, run, &current, true);
			if (how == NOT_IN_GROUP)
				break;

			/*
			 * who cancels it has locked its entry first, and we would have
			 * lost it
			 */
			is_canceled = work_leave_attempt();
			Assert(!is_canceled);
			executed += how == EXECUTED;
			count++;
		}
		if (count > 0)
		{
			/* cursors WITH HOLD are executed by the commit */
			settings_mark(&work->mark);
			settings_roll_back_at_commit(&work->mark, true);
			work_commit(work);
		}
	}
	PG_CATCH();
	{
		PortalContext = portal_context;
		error = work_recover(work, portal);
		count = executed = 0;
		was_canceled = work_leave_attempt();
		worker_hand_restart();
	}
	PG_END_TRY();
	PortalContext = portal_context;
	work_show(NULL);
	work->processed += executed;
	if (error && ends_call(error, was_canceled))
	{
		work_record_failure(work, &current, error);
		*interrupt = error;
	}
	return count;
}

/*
 * Work all claimed runs.  What is left when the call ends early is given back,
 * and the answer is the error that ends it, or NULL.
 */
static ErrorData *
work_all(Work *work, List *claimed)
{
	int			next = 0;
	int			alone_to = 0;	/* up to here, each has its own transaction */
	ErrorData  *error = NULL;

	while (next < list_length(claimed) && !work_stop && error == NULL)
	{
		int			group = Min(trigger_idem_runs_per_commit, list_length(claimed) - next);
		int			done = 0;

		if (group > 1 && next >= alone_to)
		{
			done = work_group(work, claimed, next, group, &error);
			/* a group that failed would do so again */
			alone_to = done > 0 ? 0 : next + group;
			if (error == NULL)
				error = work_timeout_error(work);
		}
		if (done == 0 && error == NULL)
		{
			error = work_attempt(work, list_nth(claimed, next));
			done = 1;
		}
		next += done;
	}
	work_give_back(work, claimed, next);
	return error;
}

/* ---------- The loop ---------- */

/* Claim what comes next and commit that; NIL: nothing is due. */
static List *
work_claim(Work *work)
{
	int			most = Min(Max(work->claim_size, trigger_idem_runs_per_commit),
						   work->max_runs - work->processed);
	List	   *claimed;
	ListCell   *cell;

	work_use_read_committed();
	worker_hand_clear();
	(void) claim_take_over_dead(&work->looked_for_dead, false);
	claimed = claim_runs(&work->claimer, most);
	if (claimed == NIL && claim_take_over_dead(&work->looked_for_dead, true))
		claimed = claim_runs(&work->claimer, most);
	foreach(cell, claimed)
	{
		const ClaimedRun *run = lfirst(cell);

		worker_hand_add(&run->run_id, run->attempt);
	}

	/* the attempt number must be on disk before anything is done under it */
	if (claimed != NIL)
		ForceSyncCommit();
	work_commit(work);
	if (work->claimer.more_is_due && background_is_there())
		background_wake(GetUserId());
	return claimed;
}

/* So many runs took so long together: how many may be claimed next? */
static void
work_adapt(Work *work, int runs, TimestampTz began)
{
	int64		us_a_run = (GetCurrentTimestamp() - began) / runs + 1;

	work->claim_size = (int) Min(CLAIM_MAX_US / us_a_run, Min(runs * 2, CLAIM_MAX));
	work->claim_size = Max(work->claim_size, 1);
}

/* Work until no run is due or as many attempts were made as are wanted. */
static void
work_loop(Work *work)
{
	List	   *claimed;

	work_commit(work);
	while (work->processed < work->max_runs && !work_stop &&
		   (work->goes_on == NULL || work->goes_on()) && (claimed = work_claim(work)) != NIL)
	{
		TimestampTz began = GetCurrentTimestamp();
		ErrorData  *error = work_all(work, claimed);

		if (error)
			ReThrowError(error);
		work_adapt(work, list_length(claimed), began);
		MemoryContextReset(work->attempt_context);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Refuse to be called where a transaction is not ours to end: 25001.  This
 * must be the case before there is a run to work, not only when there is one.
 */
static void
work_require_top_level(FunctionCallInfo fcinfo)
{
	CallContext *call = (CallContext *) fcinfo->context;

	PreventInTransactionBlock(true, "CALL trigger_idem.work()");
	if (call == NULL || !IsA(call, CallContext) || call->atomic || SPI_inside_nonatomic_context())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("CALL trigger_idem.work() must be a statement of its own"),
				 errdetail("It cannot be executed from a function, a DO block or another procedure.")));
}

/*
 * Handlers run as the role that logged in.  After SET ROLE or SET SESSION
 * AUTHORIZATION a handler could go back to who the session was before: 42501.
 */
static void
work_require_own_role(void)
{
	if (GetUserId() != GetSessionUserId() || GetSessionUserId() != GetAuthenticatedUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("work() must be called by the role that logged in"),
				 errhint("Log in as the role that the tasks run as, without SET ROLE or SET SESSION AUTHORIZATION.")));
}

/* The argument max_runs; NULL is no limit. */
static int
max_runs_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		return PG_INT32_MAX;
	if (PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_runs must be at least 1")));
	return PG_GETARG_INT32(1);
}

static void
work_arguments(FunctionCallInfo fcinfo, Claimer *claimer)
{
	if (!PG_ARGISNULL(0))
	{
		claimer->queue = text_to_cstring(PG_GETARG_TEXT_PP(0));
		identifier_check("queue", claimer->queue);
	}
	if (!PG_ARGISNULL(2))
		claimer->environment = environment_to_work(PG_GETARG_TEXT_PP(2));
	claimer->worker_id = psprintf("backend %d", MyProcPid);
}

/*
 * Work as the claimer, inside the active portal, from a transaction that is
 * there to one that is.  How many attempts were made?  A background worker, which
 * may be told to leave, shows its sign of life already, and goes on to.
 */
static int
work_as(const Claimer *claimer, int max_runs, bool is_counted, WorkGoesOn goes_on)
{
	Work		work = {.claimer = *claimer,.claim_size = 1,.max_runs = max_runs,
	.is_counted = is_counted,.goes_on = goes_on};
	MemoryContext portal_context = PortalContext;

	MemoryContextSwitchTo(portal_context);
	work.claimer.run_as = GetUserNameFromId(GetUserId(), false);
	work.claimer.context = portal_context;
	work.settings = settings_save();
	work.has_timeout = get_timeout_active(STATEMENT_TIMEOUT);
	work.attempt_context = AllocSetContextCreate(TopMemoryContext, "trigger_idem attempt",
												 ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		work.claimer.worker_token = worker_begin();
		work_loop(&work);
	}
	PG_FINALLY();
	{
		if (goes_on == NULL)
			worker_end();
		current_run_clear();
		step_forget_run();
		PortalContext = portal_context;
		/* an error on its way out has its strings there */
		MemoryContextSetParent(work.attempt_context, portal_context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(portal_context);
	return work.processed;
}

/*
 * Work whatever is due for the role of this background worker.  Handlers need a
 * portal around them, as a CALL has one.
 */
int
work_everything(const char *worker_id, WorkGoesOn goes_on)
{
	Claimer		claimer = {.worker_id = worker_id};
	Portal		portal;
	int			processed;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	work_require_own_role();
	portal = CreatePortal("trigger_idem", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, "trigger_idem", CMDTAG_CALL, NIL, NULL);
	portal->status = PORTAL_ACTIVE;
	ActivePortal = portal;
	PortalContext = portal->portalContext;
	processed = work_as(&claimer, PG_INT32_MAX, false, goes_on);
	ActivePortal = NULL;
	PortalContext = NULL;
	MemoryContextSwitchTo(TopTransactionContext);
	MarkPortalDone(portal);
	PortalDrop(portal, false);
	CommitTransactionCommand();
	return processed;
}

/* work(queue text, max_runs int, environment text, INOUT processed int) */
Datum
trigger_idem_work(PG_FUNCTION_ARGS)
{
	Claimer		claimer = {0};
	bool		is_counted = pgstat_track_functions > fcinfo->flinfo->fn_stats;
	TupleDesc	desc;
	int			max_runs;
	Datum		values[1];
	bool		nulls[1] = {false};

	PreventCommandDuringRecovery("CALL trigger_idem.work()");
	work_require_top_level(fcinfo);
	work_require_own_role();

	/* what the call needs to the end must survive commits */
	MemoryContextSwitchTo(PortalContext);
	max_runs = max_runs_argument(fcinfo);
	work_arguments(fcinfo, &claimer);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "work() does not return a row");
	desc = BlessTupleDesc(desc);

	values[0] = Int32GetDatum(work_as(&claimer, max_runs, is_counted, NULL));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
