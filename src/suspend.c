/*-------------------------------------------------------------------------
 *
 * suspend.c
 *	  Suspending runs: recording what they wait for.
 *
 * The worker does so in a transaction of its own, once the handler's is rolled back:
 * the trigger, if there is one, the wait and what it is for, and the end of the
 * attempt.  For an application it is done just before its commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "await.h"
#include "batch.h"
#include "lock.h"
#include "statement.h"
#include "store.h"
#include "suspend.h"
#include "token.h"
#include "trigger.h"
#include "wake.h"

/* ---------- Rows ---------- */

static Statement forget_awaited = {
	.sql = "DELETE FROM trigger_idem.awaited WHERE wait_id OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_DELETE,
	.argtypes = {UUIDOID}
};

static Statement forget_wait = {
	.sql = "DELETE FROM trigger_idem.wait WHERE run_id OPERATOR(pg_catalog.=) $1"
	"  AND wait_id OPERATOR(pg_catalog.=) $2",
	.expected = SPI_OK_DELETE,
	.argtypes = {UUIDOID, UUIDOID}
};

/* Forget an answer that does not hold any more. */
static void
wait_forget(const WaitRequest *request)
{
	OwnerScope	scope;
	Datum		values[2];

	owner_begin(&scope);
	scope_see_latest(&scope);
	values[0] = UUIDPGetDatum(&request->wait_id);
	statement_run(&forget_awaited, values, NULL);
	values[0] = UUIDPGetDatum(&request->run_id);
	values[1] = UUIDPGetDatum(&request->wait_id);
	statement_run(&forget_wait, values, NULL);
	owner_end(&scope);
}

static void
wait_insert(const WaitRequest *request, TimestampTz now, bool has_ended)
{
	Datum		values[WAIT_COLUMNS];
	bool		nulls[WAIT_COLUMNS];

	memset(nulls, true, sizeof(nulls));
#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
	SET(WAIT_RUN_ID, UUIDPGetDatum(&request->run_id));
	SET(WAIT_WAIT_ID, UUIDPGetDatum(&request->wait_id));
	SET(WAIT_ATTEMPT, Int32GetDatum(request->attempt));
	SET(WAIT_STEADY_ATTEMPT, Int32GetDatum(request->steady_attempt));
	SET(WAIT_KIND, CStringGetTextDatum(wait_kind_name(request->kind)));
	SET(WAIT_PATH, request->path);
	if (request->kind != WAIT_FOR_BATCH && request->count == 1)
	{
		SET(WAIT_TARGET, UUIDPGetDatum(&request->targets[0].id));
		if (request->kind == WAIT_FOR_TASK)
			SET(WAIT_IS_CACHED, BoolGetDatum(request->targets[0].is_cached));
		if (request->kind != WAIT_FOR_TOKEN && request->targets[0].has_ended)
			SET(WAIT_STATUS, ObjectIdGetDatum(run_status_oid(request->targets[0].status)));
	}
	SET(WAIT_STARTED_AT, TimestampTzGetDatum(now));
	if (!TIMESTAMP_NOT_FINITE(request->until))
		SET(WAIT_UNTIL, TimestampTzGetDatum(request->until));
	if (has_ended)
	{
		SET(WAIT_ENDED_AT, TimestampTzGetDatum(now));
		SET(WAIT_TIMED_OUT, BoolGetDatum(request->timed_out));
		SET(WAIT_PASSED_ATTEMPT, Int32GetDatum(request->attempt));
	}
	if (!request->what.isnull)
		SET(WAIT_WHAT, request->what.value);
	if (!request->keyless.isnull)
		SET(WAIT_KEYLESS, request->keyless.value);
#undef SET
	store_insert(STORE_WAIT, values, nulls);
}

static void
awaited_insert(const WaitRequest *request, int index)
{
	const WaitTarget *target = &request->targets[index];
	bool		is_batch = request->kind == WAIT_FOR_BATCH;
	Datum		values[AWAITED_COLUMNS];
	bool		nulls[AWAITED_COLUMNS];

	memset(nulls, true, sizeof(nulls));
#define SET(column, value) (values[(column) - 1] = (value), nulls[(column) - 1] = false)
	SET(AWAITED_WAIT_ID, UUIDPGetDatum(&request->wait_id));
	SET(AWAITED_INDEX, Int32GetDatum(index));
	SET(AWAITED_RUN_ID, UUIDPGetDatum(&request->run_id));
	SET(AWAITED_TARGET, UUIDPGetDatum(&target->id));
	SET(AWAITED_IS_BATCH, BoolGetDatum(is_batch));
	SET(AWAITED_IS_CACHED, BoolGetDatum(target->is_cached));
	if (is_batch && !target->has_ended)
		SET(AWAITED_IS_PENDING, BoolGetDatum(true));
	if (target->needs_check)
		SET(AWAITED_NEEDS_CHECK, BoolGetDatum(true));
	if (request->kind != WAIT_FOR_TOKEN && target->has_ended)
		SET(AWAITED_STATUS, ObjectIdGetDatum(run_status_oid(target->status)));
#undef SET
	store_insert(STORE_AWAITED, values, nulls);
}

/* ---------- Triggers ---------- */

/*
 * A new run that is not started in time expires by the clock, and nobody may
 * notice: then it has to be looked at.
 */
static void
target_may_expire(WaitTarget *target, const TriggerCall *trigger)
{
	if (!target->is_new || TIMESTAMP_NOT_FINITE(trigger->expires_at))
		return;
	target->needs_check = true;
	wake_later(trigger->expires_at);
}

/* Final, and not only by the clock */
static bool
run_status_is_settled(RunStatus status)
{
	return RUN_STATUS_IS_FINAL(status) && status != RUN_EXPIRED;
}

static void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

/* Fill in a target from what its trigger has answered. */
static void
target_of_trigger(WaitTarget *target, const TriggerCall *trigger, const TriggerResult *result)
{
	target->id = result->run_id;
	target->is_cached = result->is_cached;
	target->status = result->status;
	target->has_ended = result->is_cached && run_status_is_settled(result->status);
	/* of a key that is there twice in a batch, the run is new all the same */
	target->is_new = !result->is_cached ||
		store_is_uncommitted(STORE_RUN, UUIDPGetDatum(&result->run_id));
	target_may_expire(target, trigger);
}

static void
suspend_trigger_task(WaitRequest *request)
{
	TriggerCall trigger;
	TriggerResult result;

	trigger_prepare(request->arguments, TRIGGER_CALL, &trigger);
	trigger.is_awaited = true;
	trigger_one(&trigger, &result);
	request->count = 1;
	request->targets = MemoryContextAllocZero(current_run()->context, sizeof(WaitTarget));
	target_of_trigger(&request->targets[0], &trigger, &result);
}

/* A batch that is asked for anew: what has completed is not. */
static void
batch_settle(BatchItem *batch, int count, const pg_uuid_t *wait_id)
{
	int			settled;
	WaitTarget *targets = wait_batch_targets(wait_id, &settled);

	for (int i = 0; i < Min(count, settled); i++)
	{
		batch[i].is_settled = wait_run_has_completed(&targets[i].id, targets[i].status);
		batch[i].result.run_id = targets[i].id;
		batch[i].result.is_cached = targets[i].is_cached;
		batch[i].result.status = RUN_COMPLETED;
	}
}

static void
suspend_trigger_batch(WaitRequest *request)
{
	BatchItem  *batch = batch_prepare(request->arguments, &request->count);

	for (int i = 0; i < request->count; i++)
		batch[i].trigger.is_awaited = true;
	if (request->is_again)
		batch_settle(batch, request->count, &request->wait_id);
	batch_run(batch, request->count);
	request->targets = MemoryContextAllocExtended(current_run()->context,
												  Max(request->count, 1) * sizeof(WaitTarget),
												  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < request->count; i++)
	{
		target_of_trigger(&request->targets[i], &batch[i].trigger, &batch[i].result);
		if (batch[i].is_settled)
			request->targets[i].has_ended = true;
	}
}

/*
 * Do the trigger of a request; its targets are the runs.  If the worker does it,
 * it does so as the handler would have, which may have been in a function with
 * another role, and have set how it reads times.  No code of a user runs in here.
 */
void
suspend_trigger(WaitRequest *request)
{
	int			nest_level = NewGUCNestLevel();
	Oid			role;
	int			security_context;

	GetUserIdAndSecContext(&role, &security_context);
	SetUserIdAndSecContext(request->role,
						   request->security_context | SECURITY_LOCAL_USERID_CHANGE);
	set_local("TimeZone", request->time_zone);
	set_local("DateStyle", request->date_style);
	set_local("IntervalStyle", request->interval_style);
	if (request->kind == WAIT_FOR_TASK)
		suspend_trigger_task(request);
	else
		suspend_trigger_batch(request);
	AtEOXact_GUC(true, nest_level);
	SetUserIdAndSecContext(role, security_context);
}

/* ---------- The wait ---------- */

/*
 * Find out which targets have not ended.  Whoever waits for a run that was there
 * before does so under one lock, so that two cannot close a cycle together.
 */
static int
suspend_mark_targets(WaitRequest *request)
{
	bool		is_locked = false;
	int			pending = 0;

	for (int i = 0; i < request->count; i++)
	{
		WaitTarget *target = &request->targets[i];

		CHECK_FOR_INTERRUPTS();
		if (!target->is_new && !target->has_ended)
		{
			if (request->kind != WAIT_FOR_TOKEN && !is_locked)
			{
				Key			any = {{0}};
				LOCKTAG		tag = lock_tag(LOCK_WAITS, &any);

				(void) LockAcquire(&tag, ExclusiveLock, false, false);
				is_locked = true;
			}
			if (request->kind != WAIT_FOR_TOKEN)
				wait_check_cycle(&request->run_id, &target->id);
			awaited_mark(target, request->kind == WAIT_FOR_TOKEN);
		}
		pending += !target->has_ended;
	}
	return pending;
}

/* TI002, unless the attempt owns its run: nobody else ends it before we commit. */
static void
suspend_lock_own_run(const WaitRequest *request)
{
	Datum		values[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];
	StoreRow	row;
	bool		owned = false;

	if (store_row_lock(&row, STORE_QUEUE_ENTRY, UUIDPGetDatum(&request->run_id),
					   LockWaitBlock) == STORE_LOCKED)
	{
		store_row_read(&row, values, nulls);
		owned = !nulls[ENTRY_WORKER_TOKEN - 1] &&
			DatumGetInt32(values[ENTRY_ATTEMPT - 1]) == request->attempt;
		store_row_end(&row);
	}
	if (!owned)
		current_stale_error(&request->run_id, request->attempt);
}

/*
 * Record what a run waits for.  How its attempt is to be ended is in result and
 * outcome: if all has ended already, the run is due again at once.  TI002 when the
 * attempt has lost its run.
 */
void
suspend_record(WaitRequest *request, AttemptResult *result, RunOutcome *outcome)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		is_over;
	int			pending;

	store_pin();
	/* this may have to wait for another holder of the key */
	if (request->arguments && request->targets == NULL)
		suspend_trigger(request);
	else
		/* an application may have ended them in the meantime */
		for (int i = 0; i < request->count; i++)
			request->targets[i].is_new = false;
	suspend_lock_own_run(request);
	pending = suspend_mark_targets(request);
	is_over = request->kind != WAIT_FOR_TIME && pending == 0;
	if (request->is_again)
		wait_forget(request);
	wait_insert(request, now, false);
	for (int i = 0; i < request->count; i++)
	{
		if (request->targets[i].needs_check)
			wake_later(now);
		awaited_insert(request, i);
	}
	CommandCounterIncrement();

	result->end = ATTEMPT_WAITING;
	result->wait_id = request->wait_id;
	outcome->status = is_over ? RUN_QUEUED : RUN_WAITING;
	outcome->visible_from = is_over ? now : request->until;
}

/* ---------- Waits that were over ---------- */

static Statement pass_wait = {
	.sql = "UPDATE trigger_idem.wait SET passed_attempt = $3 "
	"WHERE run_id OPERATOR(pg_catalog.=) $1 AND wait_id OPERATOR(pg_catalog.=) $2",
	.expected = SPI_OK_UPDATE,
	.argtypes = {UUIDOID, UUIDOID, INT4OID}
};

/*
 * An application passes a wait, in one of the transactions of its attempt: the
 * next one goes on counting there.
 */
static void
suspend_mark_passed(const WaitRequest *request)
{
	OwnerScope	scope;
	Datum		values[3] = {UUIDPGetDatum(&request->run_id), UUIDPGetDatum(&request->wait_id),
	Int32GetDatum(request->attempt)};

	owner_begin(&scope);
	scope_see_latest(&scope);
	statement_run(&pass_wait, values, NULL);
	owner_end(&scope);
}

/* Record a wait that was over when it was asked for. */
static void
suspend_record_over(const WaitRequest *request)
{
	wait_forget(request);
	wait_insert(request, GetCurrentTimestamp(), true);
	for (int i = 0; i < request->count; i++)
		awaited_insert(request, i);
	CommandCounterIncrement();
}

/*
 * An application has passed a wait, which was recorded before or not.  This is done
 * when it commits, with the lock of its queue entry, so that it holds none before.
 */
void
suspend_record_passed(const WaitRequest *request, bool was_over)
{
	if (was_over)
		suspend_record_over(request);
	else
		suspend_mark_passed(request);
}

/* Is it still over, or was that undone with what the handler had done? */
static bool
request_is_over(const WaitRequest *request)
{
	for (int i = 0; i < request->count; i++)
		if (!(request->kind == WAIT_FOR_TOKEN ? token_has_ended : await_run_has_ended) (&request->targets[i].id))
			return false;
	return true;
}

/*
 * Record the waits of a handler that were over when it asked for them, with the end
 * of its attempt.  The next one asks for the others again.
 */
void
suspend_record_remembered(const CurrentRun *run)
{
	List	   *remembered = wait_take_remembered(run);
	ListCell   *cell;

	if (remembered == NIL)
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(cell, remembered)
	{
		if (request_is_over(lfirst(cell)))
			suspend_record_over(lfirst(cell));
	}
	PopActiveSnapshot();
}

/* ---------- Suspending ---------- */

/*
 * Suspend the run of a handler that has asked for it, and has ended; in a
 * transaction that is the worker's.  TI002 when the attempt has lost its run.
 */
void
suspend_run(CurrentRun *run, AttemptResult *result)
{
	RunOutcome	outcome;
	WaitRequest *request = wait_take_request(run);
	bool		ended PG_USED_FOR_ASSERTS_ONLY;

	PushActiveSnapshot(GetTransactionSnapshot());
	/* what is triggered is triggered by this run */
	current_run_set(run);
	suspend_record(request, result, &outcome);
	current_run_clear();
	suspend_record_remembered(run);
	ended = run_end_attempt(&run->run_id, run->attempt, result, &outcome);
	Assert(ended);				/* suspend_record() has locked the run */
	PopActiveSnapshot();
}
