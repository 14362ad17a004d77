/*-------------------------------------------------------------------------
 *
 * application.c
 *	  Workers outside the database, which work runs over plain SQL.
 *
 * An application claims runs of tasks that have no handler and then names a run
 * and its attempt in every call.  A call looks at once whether that attempt owns
 * the run, and again just before the commit of its transaction: there the lease
 * is renewed and the attempt is ended, if that was asked for, with the newest
 * version of the queue entry, whatever the isolation level.  So an application
 * holds no lock on its run while it works: one that was stopped or cut off in
 * the middle of a transaction loses the run when its lease is over, and cannot
 * commit any more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "access.h"
#include "answer.h"
#include "application.h"
#include "claim.h"
#include "current.h"
#include "environment.h"
#include "key.h"
#include "limit.h"
#include "memo.h"
#include "run.h"
#include "statement.h"
#include "stats.h"
#include "step.h"
#include "store.h"
#include "suspend.h"
#include "task.h"
#include "wait.h"
#include "worker.h"

#define CLAIM_MAX_RUNS	10000
#define LEASE_MIN_US	USECS_PER_SEC

PG_FUNCTION_INFO_V1(trigger_idem_run_claim);
PG_FUNCTION_INFO_V1(trigger_idem_run_heartbeat);
PG_FUNCTION_INFO_V1(trigger_idem_run_enter);
PG_FUNCTION_INFO_V1(trigger_idem_run_once_begin);
PG_FUNCTION_INFO_V1(trigger_idem_run_once_end);
PG_FUNCTION_INFO_V1(trigger_idem_run_complete);
PG_FUNCTION_INFO_V1(trigger_idem_run_fail);
PG_FUNCTION_INFO_V1(trigger_idem_run_release);

/* ---------- What this transaction will do when it commits ---------- */

/* An attempt that was named in this transaction */
typedef struct NamedAttempt
{
	pg_uuid_t	run_id;
	int			attempt;
	int			nest_level;		/* of the (sub)transaction that named it */
	TimestampTz lease_expires_at;	/* to be renewed at least to this; or
									 * -infinity */
	bool		lease_is_exact; /* to this and no other */
	bool		ends;
	AttemptResult result;		/* if it ends */
	RunOutcome	outcome;
	struct WaitRequest *wait;	/* if it ends by that */
	struct WaitRequest *passed; /* a wait that was over */
	bool		was_over;		/* when it was asked for */
} NamedAttempt;

/* In TopTransactionContext, in the order in which they were named */
static List *named = NIL;

static NamedAttempt *
name_attempt(const pg_uuid_t *run_id, int attempt)
{
	MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);
	NamedAttempt *name = palloc0(sizeof(NamedAttempt));

	name->run_id = *run_id;
	name->attempt = attempt;
	name->nest_level = GetCurrentTransactionNestLevel();
	name->lease_expires_at = DT_NOBEGIN;
	named = lappend(named, name);
	MemoryContextSwitchTo(caller);
	return name;
}

static bool
names_same(const NamedAttempt *name, const pg_uuid_t *run_id, int attempt)
{
	return name->attempt == attempt && memcmp(&name->run_id, run_id, sizeof(pg_uuid_t)) == 0;
}

/* Has this transaction ended the attempt already?  Then how, else NULL. */
static const NamedAttempt *
named_end(const pg_uuid_t *run_id, int attempt)
{
	ListCell   *cell;

	foreach(cell, named)
	{
		const NamedAttempt *name = lfirst(cell);

		if (name->ends && names_same(name, run_id, attempt))
			return name;
	}
	return NULL;
}

static Statement renew_lease = {
	.sql = "UPDATE trigger_idem.queue_entry SET lease_expires_at = CASE"
	"  WHEN $4 OR lease_expires_at OPERATOR(pg_catalog.<) $3 THEN $3 ELSE lease_expires_at END "
	"WHERE run_id OPERATOR(pg_catalog.=) $1 AND attempt OPERATOR(pg_catalog.=) $2"
	"  AND worker_token OPERATOR(pg_catalog.=) 0",
	.expected = SPI_OK_UPDATE,
	.argtypes = {UUIDOID, INT4OID, TIMESTAMPTZOID, BOOLOID}
};

/* The fence of an attempt that goes on: it must still own its run. */
static void
named_renew(const NamedAttempt *name)
{
	OwnerScope	scope;
	Datum		values[4] = {UUIDPGetDatum(&name->run_id), Int32GetDatum(name->attempt),
		TimestampTzGetDatum(name->lease_expires_at), BoolGetDatum(name->lease_is_exact)
	};
	bool		owned;

	owner_begin(&scope);
	scope_see_latest(&scope);
	owned = statement_run(&renew_lease, values, NULL) == 1;
	owner_end(&scope);
	if (!owned)
		current_stale_error(&name->run_id, name->attempt);
}

/* Just before the commit: ends last, for an attempt may be named before it ends. */
static void
named_before_commit(void)
{
	ListCell   *cell;

	if (named == NIL)
		return;
	/* an index that an administrator has added may run SQL */
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(cell, named)
	{
		const NamedAttempt *name = lfirst(cell);

		if (!name->ends && !named_end(&name->run_id, name->attempt))
			named_renew(name);
	}
	foreach(cell, named)
	{
		NamedAttempt *name = lfirst(cell);

		if (name->wait)
			suspend_record(name->wait, &name->result, &name->outcome);
		if (name->ends &&
			!run_end_attempt(&name->run_id, name->attempt, &name->result, &name->outcome))
			current_stale_error(&name->run_id, name->attempt);
	}
	/* with the locks that this has brought */
	foreach(cell, named)
	{
		const NamedAttempt *name = lfirst(cell);

		if (name->passed)
			suspend_record_passed(name->passed, name->was_over);
	}
	PopActiveSnapshot();
}

static void
application_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT)
		named_before_commit();
	else if (event == XACT_EVENT_PRE_PREPARE && named != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that works a run")));
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		named = NIL;
}

/* What a rolled-back savepoint has named is forgotten, and what it has ended. */
static void
application_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
							 void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *cell;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	foreach(cell, named)
	{
		NamedAttempt *name = lfirst(cell);

		if (name->nest_level < level)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			name->nest_level = level - 1;
		else
			named = foreach_delete_current(named, cell);
	}
}

/* Called once, when the library is loaded. */
void
application_init(void)
{
	RegisterXactCallback(application_xact_callback, NULL);
	RegisterSubXactCallback(application_subxact_callback, NULL);
}

/* ---------- The attempt that a call names ---------- */

/* What a call is about */
typedef struct ApplicationCall
{
	pg_uuid_t	run_id;
	int			attempt;
	const Task *task;
	Datum		run[RUN_COLUMNS];
	bool		run_nulls[RUN_COLUMNS];
	bool		is_owner;
	Datum		entry[ENTRY_COLUMNS];	/* if it is */
	bool		entry_nulls[ENTRY_COLUMNS];
} ApplicationCall;

/* May the caller work the run?  Its task's owner may, in every environment. */
static bool
call_may_work(const ApplicationCall *call)
{
	return access_may_work(call->task) &&
		(environment_is_open(TextDatumGetCString(call->run[RUN_ENVIRONMENT - 1])) ||
		 access_is_member(GetUserId(), call->task->owner));
}

/*
 * Read the arguments run_id and attempt, which come first, and find out whether
 * the attempt owns the run.  42704 for a run that the caller may not work.
 */
static void
call_begin(FunctionCallInfo fcinfo, const char *function, ApplicationCall *call)
{
	Snapshot	snapshot;
	bool		found;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "run_id" : "attempt")));
	call->run_id = *PG_GETARG_UUID_P(0);
	call->attempt = PG_GETARG_INT32(1);
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);

	snapshot = store_latest_snapshot();
	found = store_fetch(STORE_RUN, UUIDPGetDatum(&call->run_id), snapshot, call->run,
						call->run_nulls);
	if (found)
		call->task = task_find(TextDatumGetCString(call->run[RUN_TASK_ID - 1]));
	if (!found || call->task == NULL ||
		!call_may_work(call))
		run_unknown_error(&call->run_id);
	call->is_owner = store_fetch(STORE_QUEUE_ENTRY, UUIDPGetDatum(&call->run_id), snapshot,
								 call->entry, call->entry_nulls) &&
		!call->entry_nulls[ENTRY_WORKER_TOKEN - 1] &&
		DatumGetInt64(call->entry[ENTRY_WORKER_TOKEN - 1]) == WORKER_OUTSIDE &&
		DatumGetInt32(call->entry[ENTRY_ATTEMPT - 1]) == call->attempt;
	UnregisterSnapshot(snapshot);
}

/* TI002, unless the attempt owns its run and was not ended in this transaction. */
static void
call_require_owner(const ApplicationCall *call)
{
	if (!call->is_owner || named_end(&call->run_id, call->attempt))
		current_stale_error(&call->run_id, call->attempt);
}

/* The lease that a call renews to */
static TimestampTz
call_lease(const ApplicationCall *call, const Interval *given)
{
	return timestamp_plus(GetCurrentTimestamp(), given ? given : &call->task->lease_duration);
}

/* Go on working: have the commit renew the lease. */
static void
call_renew(const ApplicationCall *call)
{
	name_attempt(&call->run_id, call->attempt)->lease_expires_at = call_lease(call, NULL);
}

/* A jsonb argument, or NULL */
static Jsonb *
jsonb_arg(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : PG_GETARG_JSONB_P(argument);
}

static bool
outputs_equal(Jsonb *one, Jsonb *other)
{
	if (one == NULL || other == NULL)
		return one == other;
	return compareJsonbContainers(&one->root, &other->root) == 0;
}

pg_noreturn static void
output_mismatch_error(const char *of)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUTPUT_MISMATCH),
			 errmsg("%s has another output already", of),
			 errdetail("What is stored stays as it is.")));
}

/* ---------- Claiming ---------- */

/* An array of names of tasks; NIL for null */
static List *
task_ids_arg(FunctionCallInfo fcinfo, int argument)
{
	List	   *task_ids = NIL;
	Datum	   *values;
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(argument))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argument), TEXTOID, -1, false, TYPALIGN_INT,
					  &values, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		char	   *task_id = nulls[i] ? NULL : TextDatumGetCString(values[i]);

		identifier_check("task", task_id);
		task_ids = lappend(task_ids, (char *) task_require(task_id)->task_id);
	}
	/* none, as opposed to all */
	return task_ids == NIL ? list_make1("") : task_ids;
}

static void
claim_arguments(FunctionCallInfo fcinfo, Claimer *claimer)
{
	if (!PG_ARGISNULL(0))
		claimer->worker_id = text_to_cstring(PG_GETARG_TEXT_PP(0));
	identifier_check("worker_id", claimer->worker_id);
	if (!PG_ARGISNULL(1))
	{
		claimer->queue = text_to_cstring(PG_GETARG_TEXT_PP(1));
		identifier_check("queue", claimer->queue);
	}
	if (!PG_ARGISNULL(3))
	{
		claimer->lease = PG_GETARG_INTERVAL_P(3);
		interval_check("lease_duration", claimer->lease, LEASE_MIN_US);
	}
	if (!PG_ARGISNULL(4))
		claimer->environment = environment_to_work(PG_GETARG_TEXT_PP(4));
	claimer->task_ids = task_ids_arg(fcinfo, 5);
	claimer->worker_token = WORKER_OUTSIDE;
	claimer->context = CurrentMemoryContext;
}

static int
claim_max_runs(FunctionCallInfo fcinfo)
{
	int			max_runs = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);

	if (max_runs < 1 || max_runs > CLAIM_MAX_RUNS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_runs is out of range"),
				 errdetail("It must be between 1 and %d.", CLAIM_MAX_RUNS)));
	return max_runs;
}

/* run_claim(worker_id, queue, max_runs, lease_duration, environment, task_ids) */
Datum
trigger_idem_run_claim(PG_FUNCTION_ARGS)
{
	static TimestampTz looked_for_dead = 0;
	ReturnSetInfo *answer = (ReturnSetInfo *) fcinfo->resultinfo;
	Claimer		claimer = {0};
	List	   *claimed;
	ListCell   *cell;
	int			max_runs;

	InitMaterializedSRF(fcinfo, 0);
	claim_arguments(fcinfo, &claimer);
	max_runs = claim_max_runs(fcinfo);
	PreventCommandDuringRecovery("run_claim()");
	PreventCommandIfReadOnly("run_claim()");

	(void) claim_take_over_dead(&looked_for_dead, false);
	claimed = claim_runs(&claimer, max_runs);
	if (claimed == NIL && claim_take_over_dead(&looked_for_dead, true))
	{
		claimer.looked_at = 0;
		claimed = claim_runs(&claimer, max_runs);
	}
	/* an attempt number that was handed out must not be handed out again */
	if (claimed != NIL)
		ForceSyncCommit();
	foreach(cell, claimed)
	{
		ClaimedRun *run = lfirst(cell);
		Datum		values[6];
		bool		nulls[6] = {false};

		values[0] = UUIDPGetDatum(&run->run_id);
		values[1] = Int32GetDatum(run->attempt);
		values[2] = CStringGetTextDatum(run->task_id);
		values[3] = run->payload;
		nulls[3] = run->payload_isnull;
		values[4] = CStringGetTextDatum(run->environment);
		values[5] = TimestampTzGetDatum(run->lease_expires_at);
		tuplestore_putvalues(answer->setResult, answer->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* run_heartbeat(run_id uuid, attempt int, lease_duration interval) */
Datum
trigger_idem_run_heartbeat(PG_FUNCTION_ARGS)
{
	ApplicationCall call;
	NamedAttempt *name;
	Interval   *lease = PG_ARGISNULL(2) ? NULL : PG_GETARG_INTERVAL_P(2);

	if (lease)
		interval_check("lease_duration", lease, LEASE_MIN_US);
	call_begin(fcinfo, "run_heartbeat()", &call);
	call_require_owner(&call);
	name = name_attempt(&call.run_id, call.attempt);
	name->lease_expires_at = call_lease(&call, lease);
	name->lease_is_exact = true;
	PG_RETURN_TIMESTAMPTZ(name->lease_expires_at);
}

/* run_enter(run_id uuid, attempt int) */
Datum
trigger_idem_run_enter(PG_FUNCTION_ARGS)
{
	ApplicationCall call;
	CurrentRun *run;

	if (current_run())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a run is being executed in this transaction already"),
				 errdetail("It is run %s.", run_id_text(&current_run()->run_id))));
	call_begin(fcinfo, "run_enter()", &call);
	call_require_owner(&call);
	store_pin();
	call_renew(&call);
	run = current_run_enter(&call.run_id, call.attempt,
							DatumGetInt32(call.entry[ENTRY_STEADY_ATTEMPT - 1]),
							TextDatumGetCString(call.entry[ENTRY_ENVIRONMENT - 1]));
	run_entry_wait(call.entry, call.entry_nulls, &run->last_wait);
	PG_RETURN_VOID();
}

/* ---------- Steps ---------- */

static Statement find_memo = {
	.sql = "SELECT s.output FROM trigger_idem.step s "
	"WHERE s.run_id OPERATOR(pg_catalog.=) $1 AND s.step_id OPERATOR(pg_catalog.=) $2 "
	"ORDER BY s.attempt LIMIT 1",
	.expected = SPI_OK_SELECT,
	.argtypes = {UUIDOID, BYTEAOID}
};

static Statement insert_memo = {
	.sql = "INSERT INTO trigger_idem.step (run_id, step_id, attempt, started_at, finished_at, path,"
	"  output) VALUES ($1, $2, $3, $4, $4, $5, $6) ON CONFLICT DO NOTHING",
	.expected = SPI_OK_INSERT,
	.argtypes = {UUIDOID, BYTEAOID, INT4OID, TIMESTAMPTZOID, TEXTARRAYOID, JSONBOID}
};

/* The output of a finished step of the call's run; false when there is none. */
static bool
memo_read(const ApplicationCall *call, const Key *step_id, Jsonb **output)
{
	OwnerScope	scope;
	Datum		values[2] = {UUIDPGetDatum(&call->run_id), key_to_bytea(step_id)};
	bool		found;

	*output = NULL;
	owner_begin(&scope);
	scope_see_latest(&scope);
	found = statement_run(&find_memo, values, NULL) == 1;
	if (found)
	{
		bool		isnull;
		Datum		value = statement_value(0, 1, &isnull);

		if (!isnull)
		{
			MemoryContext spi = MemoryContextSwitchTo(scope.caller);

			*output = (Jsonb *) PG_DETOAST_DATUM_COPY(value);
			MemoryContextSwitchTo(spi);
		}
	}
	owner_end(&scope);
	return found;
}

/* Store the output of a step; false when it has one already. */
static bool
memo_write(const ApplicationCall *call, const Key *step_id, text *key, Jsonb *output)
{
	OwnerScope	scope;
	Datum		path = PointerGetDatum(key);
	Datum		values[6] = {UUIDPGetDatum(&call->run_id), key_to_bytea(step_id)};
	char		nulls[6] = {' ', ' ', ' ', ' ', ' ', output ? ' ' : 'n'};
	bool		written;

	values[2] = Int32GetDatum(call->attempt);
	values[3] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[4] = PointerGetDatum(construct_array(&path, 1, TEXTOID, -1, false, TYPALIGN_INT));
	values[5] = PointerGetDatum(output);
	owner_begin(&scope);
	scope_see_latest(&scope);
	written = statement_run(&insert_memo, values, nulls) == 1;
	owner_end(&scope);
	if (written)
		stats_count(STAT_STEPS_DONE);
	return written;
}

/* The key of a step, from argument 2: what it was given as, and its hash */
static text *
step_arg(FunctionCallInfo fcinfo, const ApplicationCall *call, Key *step_id)
{
	text	   *key = PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2);

	key_check_text(key);
	step_key(&call->run_id, TextDatumGetCString(call->run[RUN_ENVIRONMENT - 1]), NULL, key,
			 step_id);
	return key;
}

/* run_once_begin(run_id uuid, attempt int, key text) */
Datum
trigger_idem_run_once_begin(PG_FUNCTION_ARGS)
{
	ApplicationCall call;
	Jsonb	   *output;
	Key			step_id;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	bool		is_cached;

	call_begin(fcinfo, "run_once_begin()", &call);
	(void) step_arg(fcinfo, &call, &step_id);
	call_require_owner(&call);
	call_renew(&call);

	is_cached = memo_read(&call, &step_id, &output);
	if (is_cached)
		stats_count(STAT_STEPS_REPLAYED);
	else
		limit_steps_of_run(&call.run_id, false);
	values[0] = BoolGetDatum(is_cached);
	values[1] = PointerGetDatum(output);
	nulls[1] = output == NULL;
	values[2] = PointerGetDatum(key_to_hex(&step_id));
	PG_RETURN_DATUM(answer_row(fcinfo, values, nulls));
}

/* run_once_end(run_id uuid, attempt int, key text, output jsonb) */
Datum
trigger_idem_run_once_end(PG_FUNCTION_ARGS)
{
	ApplicationCall call;
	Jsonb	   *output = jsonb_arg(fcinfo, 3);
	Jsonb	   *stored;
	Key			step_id;
	text	   *key;
	bool		is_current;

	call_begin(fcinfo, "run_once_end()", &call);
	limit_output("output of the step", fcinfo->args[3]);
	key = step_arg(fcinfo, &call, &step_id);
	call_require_owner(&call);
	call_renew(&call);
	is_current = current_run() != NULL &&
		memcmp(&current_run()->run_id, &call.run_id, sizeof(pg_uuid_t)) == 0;
	if (is_current)
		memo_prepare();
	if (!memo_read(&call, &step_id, &stored))
	{
		limit_steps_of_run(&call.run_id, true);
		if (memo_write(&call, &step_id, key, output))
		{
			/* run_once() of the entered run shall see it */
			if (is_current)
				memo_add(&step_id, PointerGetDatum(output), output == NULL);
			PG_RETURN_VOID();
		}
	}

	/* it was there before, or somebody with the same attempt was faster */
	(void) memo_read(&call, &step_id, &stored);
	if (!outputs_equal(stored, output))
		output_mismatch_error("the step");
	PG_RETURN_VOID();
}

/* ---------- The end of an attempt ---------- */

static Jsonb *
copy_jsonb(Jsonb *value)
{
	return value ? (Jsonb *) PG_DETOAST_DATUM_COPY(PointerGetDatum(value)) : NULL;
}

/* Have the commit end the attempt. */
static NamedAttempt *
call_end(const ApplicationCall *call, const AttemptResult *result)
{
	NamedAttempt *name = name_attempt(&call->run_id, call->attempt);
	MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);

	name->result = *result;
	name->result.output = copy_jsonb(result->output);
	name->result.error = copy_jsonb(result->error);
	name->result.steps_done = -1;
	run_judge(call->entry, result, &name->outcome);
	name->ends = true;
	MemoryContextSwitchTo(caller);
	return name;
}

/* Has the attempt completed its run before?  Then with which output? */
static bool
call_was_completed(const ApplicationCall *call, Jsonb **output)
{
	const NamedAttempt *end = named_end(&call->run_id, call->attempt);

	if (end)
	{
		*output = end->result.output;
		return end->result.end == ATTEMPT_COMPLETED;
	}
	*output = call->run_nulls[RUN_OUTPUT - 1] ? NULL :
		DatumGetJsonbP(call->run[RUN_OUTPUT - 1]);
	return !call->run_nulls[RUN_STATUS - 1] &&
		run_status_from_oid(DatumGetObjectId(call->run[RUN_STATUS - 1])) == RUN_COMPLETED &&
		DatumGetInt32(call->run[RUN_ATTEMPT - 1]) == call->attempt;
}

/* Have the commit end the attempt of the run that was entered, to wait. */
void
application_wait(struct WaitRequest *request)
{
	const CurrentRun *run = current_run();
	NamedAttempt *name;

	if (named_end(&run->run_id, run->attempt))
		current_stale_error(&run->run_id, run->attempt);
	name = name_attempt(&run->run_id, run->attempt);
	name->result.end = ATTEMPT_WAITING;
	name->result.steps_done = -1;
	name->wait = request;
	name->ends = true;
}

/* Have the commit record that the run that was entered has passed a wait. */
void
application_pass(struct WaitRequest *request, bool was_over)
{
	const CurrentRun *run = current_run();
	NamedAttempt *name = name_attempt(&run->run_id, run->attempt);

	name->passed = request;
	name->was_over = was_over;
}

/* run_complete(run_id uuid, attempt int, output jsonb) */
Datum
trigger_idem_run_complete(PG_FUNCTION_ARGS)
{
	ApplicationCall call;
	AttemptResult result = {.end = ATTEMPT_COMPLETED,.retry_after_ms = RETRY_AS_TASK_SAYS};
	Jsonb	   *stored;

	call_begin(fcinfo, "run_complete()", &call);
	limit_output("output of the run", fcinfo->args[2]);
	result.output = jsonb_arg(fcinfo, 2);
	if (call_was_completed(&call, &stored))
	{
		if (!outputs_equal(stored, result.output))
			output_mismatch_error("the run");
		PG_RETURN_VOID();
	}
	call_require_owner(&call);
	(void) call_end(&call, &result);
	PG_RETURN_VOID();
}

/* An interval argument in milliseconds; -1 for null */
static int64
wait_arg(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		return RETRY_AS_TASK_SAYS;
	interval_check(name, PG_GETARG_INTERVAL_P(argument), 0);
	return interval_to_ms(PG_GETARG_INTERVAL_P(argument));
}

/* run_fail(run_id uuid, attempt int, error jsonb, retry boolean, retry_after interval) */
Datum
trigger_idem_run_fail(PG_FUNCTION_ARGS)
{
	ApplicationCall call;
	AttemptResult result = {.end = ATTEMPT_FAILED};
	NamedAttempt *name;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("retry must not be null")));
	if (!PG_GETARG_BOOL(3))
		result.end = ATTEMPT_ABORTED;
	result.retry_after_ms = wait_arg(fcinfo, 4, "retry_after");
	result.error = jsonb_arg(fcinfo, 2);
	call_begin(fcinfo, "run_fail()", &call);
	limit_output("error", fcinfo->args[2]);
	call_require_owner(&call);
	name = call_end(&call, &result);

	values[0] = ObjectIdGetDatum(run_status_oid(name->outcome.status));
	values[1] = TimestampTzGetDatum(name->outcome.visible_from);
	nulls[1] = RUN_STATUS_IS_FINAL(name->outcome.status);
	PG_RETURN_DATUM(answer_row(fcinfo, values, nulls));
}

/* run_release(run_id uuid, attempt int, delay interval) */
Datum
trigger_idem_run_release(PG_FUNCTION_ARGS)
{
	ApplicationCall call;
	AttemptResult result = {.end = ATTEMPT_RELEASED};

	result.retry_after_ms = wait_arg(fcinfo, 2, "delay");
	call_begin(fcinfo, "run_release()", &call);
	call_require_owner(&call);
	(void) call_end(&call, &result);
	PG_RETURN_VOID();
}
