/*-------------------------------------------------------------------------
 *
 * await.c
 *	  The functions that wait: trigger_task_and_wait(), run_wait(), wait_for().
 *
 * In a run they suspend it, unless what they wait for is over, or was waited for
 * before; see wait.c.  Outside a run, run_wait() and its like block the session:
 * they look, and sleep until whoever ends the target sets their latch.  Where the
 * library is not preloaded nobody does, and they look every now and then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"

#include "answer.h"
#include "await.h"
#include "background.h"
#include "batch.h"
#include "control.h"
#include "key.h"
#include "stats.h"
#include "store.h"
#include "task.h"
#include "trigger.h"

/* A session that blocks looks again after this time, then twice that, and so on */
#define LOOK_FIRST_MS	1
#define LOOK_MAX_MS		1000

PG_FUNCTION_INFO_V1(trigger_idem_trigger_task_and_wait);
PG_FUNCTION_INFO_V1(trigger_idem_batch_trigger_task_and_wait);
PG_FUNCTION_INFO_V1(trigger_idem_run_wait);
PG_FUNCTION_INFO_V1(trigger_idem_wait_for);
PG_FUNCTION_INFO_V1(trigger_idem_wait_until);

/* ---------- Outside a run ---------- */

static void
look_until(const pg_uuid_t *target, AwaitLook has_ended, TimestampTz until)
{
	long		interval = LOOK_FIRST_MS;
	TimestampTz now;

	while (!has_ended(target) && (now = GetCurrentTimestamp()) < until)
	{
		long		timeout = interval;

		if (!TIMESTAMP_NOT_FINITE(until))
			timeout = Min(timeout, TimestampDifferenceMilliseconds(now, until));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		interval = Min(interval * 2, LOOK_MAX_MS);
	}
}

/*
 * Block until a run or token has ended, or a time has come.  The caller has seen
 * to it that it can end.
 */
void
await_end(const pg_uuid_t *target, AwaitLook has_ended, TimestampTz until)
{
	background_watch(target);
	PG_TRY();
	{
		look_until(target, has_ended, until);
	}
	PG_FINALLY();
	{
		background_watch_end();
	}
	PG_END_TRY();
}

/* 55000: nobody else can end what only this transaction knows. */
void
await_refuse_own(StoreTable table, const pg_uuid_t *target, const char *what)
{
	if (store_is_uncommitted(table, UUIDPGetDatum(target)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for a %s of the same transaction", what),
				 errhint("COMMIT first.")));
}

/* A run that is gone has ended, too. */
bool
await_run_has_ended(const pg_uuid_t *run_id)
{
	Snapshot	snapshot = store_latest_snapshot();
	RunStatus	status;
	bool		found = run_find_status(run_id, snapshot, &status);

	UnregisterSnapshot(snapshot);
	return !found || RUN_STATUS_IS_FINAL(status);
}

static void
await_run(const pg_uuid_t *run_id, TimestampTz until)
{
	if (await_run_has_ended(run_id))
		return;
	await_refuse_own(STORE_QUEUE_ENTRY, run_id, "run");
	await_end(run_id, await_run_has_ended, until);
}

/* ---------- Answers ---------- */

/* Fill in status, output and error, which come last. */
static void
answer_values(const RunAnswer *answer, Datum *values, bool *nulls)
{
	values[0] = ObjectIdGetDatum(run_status_oid(answer->status));
	nulls[0] = false;
	values[1] = answer->output.value;
	nulls[1] = answer->output.isnull;
	values[2] = answer->error.value;
	nulls[2] = answer->error.isnull;
}

/* ---------- trigger_task_and_wait ---------- */

static Datum
task_answer(FunctionCallInfo fcinfo, const WaitTarget *target)
{
	RunAnswer	answer;
	Datum		values[5];
	bool		nulls[5] = {false};

	wait_run_answer(&target->id, target->status, &answer);
	values[0] = UUIDPGetDatum(&target->id);
	values[1] = BoolGetDatum(target->is_cached);
	answer_values(&answer, values + 2, nulls + 2);
	return answer_row(fcinfo, values, nulls);
}

pg_noreturn static void
new_run_error(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot wait for a new run outside a run"),
			 errdetail("It is not there for others before this transaction commits."),
			 errhint("Call trigger_task(), COMMIT, and then run_wait().")));
}

/* How an argument is kept; all others are of variable length */
typedef enum ArgumentKind
{
	ARGUMENT_VARLENA,
	ARGUMENT_BY_VALUE,
	ARGUMENT_INTERVAL,
} ArgumentKind;

static const ArgumentKind task_arguments[TRIGGER_OPTIONS] = {
	[OPTION_IDEMPOTENCY_KEY_TTL] = ARGUMENT_INTERVAL,
	[OPTION_DELAY] = ARGUMENT_INTERVAL,
	[OPTION_RUN_AT] = ARGUMENT_BY_VALUE,
	[OPTION_TTL] = ARGUMENT_INTERVAL,
	[OPTION_PRIORITY] = ARGUMENT_BY_VALUE,
	[OPTION_MAX_ATTEMPTS] = ARGUMENT_BY_VALUE,
};

static const ArgumentKind batch_arguments[BATCH_ARGUMENTS] = {ARGUMENT_VARLENA};

/* Keep arguments for the worker, as long as the run. */
static NullableDatum *
arguments_copy(const NullableDatum *arguments, const ArgumentKind *kinds, int count)
{
	MemoryContext caller = MemoryContextSwitchTo(current_run()->context);
	NullableDatum *copy = palloc(count * sizeof(NullableDatum));

	for (int i = 0; i < count; i++)
	{
		copy[i] = arguments[i];
		if (copy[i].isnull)
			continue;
		if (kinds[i] == ARGUMENT_INTERVAL)
			copy[i].value = datumCopy(copy[i].value, false, sizeof(Interval));
		else if (kinds[i] == ARGUMENT_VARLENA)
			copy[i].value = PointerGetDatum(PG_DETOAST_DATUM_COPY(copy[i].value));
	}
	MemoryContextSwitchTo(caller);
	return copy;
}

/* Give a trigger that has no key one of the run; was there none? */
static bool
set_keyless_key(NullableDatum *key, NullableDatum task_id, pg_uuid_t *keyless)
{
	if (current_run() == NULL || !key->isnull || task_id.isnull)
		return false;
	key->value = PointerGetDatum(wait_keyless_key(TextDatumGetCString(task_id.value), keyless));
	key->isnull = false;
	return true;
}

/* Outside a run it can only be waited for a run that is there. */
static Datum
task_and_wait_outside(FunctionCallInfo fcinfo, TriggerCall *trigger)
{
	TriggerResult result;
	WaitTarget	target;

	if (!trigger_peek(trigger, &result))
		new_run_error();
	stats_count(STAT_HITS);
	await_run(&result.run_id, DT_NOEND);
	target.id = result.run_id;
	target.is_cached = true;
	target.status = result.status;
	return task_answer(fcinfo, &target);
}

/* What a trigger of the current run would wait for, as far as can be seen now */
static bool
task_is_over(TriggerCall *trigger, const WaitRequest *request, WaitTarget *target)
{
	TriggerResult result;

	memset(target, 0, sizeof(*target));
	if (!trigger_peek(trigger, &result))
		return false;
	target->id = result.run_id;
	target->is_cached = true;
	target->status = result.status;
	target->has_ended = RUN_STATUS_IS_FINAL(result.status);
	if (target->has_ended)
	{
		/* else that is a trigger of the suspension */
		stats_count(STAT_HITS);
		wait_remember(request, target, 1);
	}
	else
	{
		await_refuse_own(STORE_RUN, &target->id, "run");
		wait_check_cycle(&current_run()->run_id, &target->id);
	}
	return target->has_ended;
}

/* trigger_task_and_wait(task_id text, payload jsonb, idempotency_key text, ...) */
Datum
trigger_idem_trigger_task_and_wait(PG_FUNCTION_ARGS)
{
	CurrentRun *run = current_run();
	NullableDatum options[TRIGGER_OPTIONS];
	pg_uuid_t	keyless;
	bool		is_keyless;
	TriggerCall trigger;
	WaitRequest *request;
	WaitAnswer	answer;
	WaitTarget	target;

	wait_check_not_begun();
	memcpy(options, fcinfo->args, sizeof(options));
	is_keyless = set_keyless_key(&options[OPTION_IDEMPOTENCY_KEY], options[OPTION_TASK_ID],
								 &keyless);
	trigger_prepare(options, TRIGGER_CALL, &trigger);
	if (run == NULL)
		return task_and_wait_outside(fcinfo, &trigger);

	request = wait_request(WAIT_FOR_TASK, trigger.key_id.data, UUID_LEN, true,
						   cstring_to_text(trigger.task->task_id));
	if (is_keyless)
		wait_is_keyless(request, &keyless);
	if (wait_find_answer(request, &answer))
	{
		target.id = answer.target;
		target.is_cached = answer.is_cached;
		target.status = answer.status;
		return task_answer(fcinfo, &target);
	}
	if (task_is_over(&trigger, request, &target))
		return task_answer(fcinfo, &target);
	request->arguments = arguments_copy(options, task_arguments, TRIGGER_OPTIONS);
	wait_begin(request);
	return task_answer(fcinfo, &request->targets[0]);
}

/* ---------- batch_trigger_task_and_wait ---------- */

static void
batch_answer(FunctionCallInfo fcinfo, const WaitTarget *targets, int count)
{
	ReturnSetInfo *rows = (ReturnSetInfo *) fcinfo->resultinfo;

	for (int i = 0; i < count; i++)
	{
		RunAnswer	answer;
		Datum		values[6];
		bool		nulls[6] = {false};

		CHECK_FOR_INTERRUPTS();
		wait_run_answer(&targets[i].id, targets[i].status, &answer);
		values[0] = Int32GetDatum(i);
		values[1] = UUIDPGetDatum(&targets[i].id);
		values[2] = BoolGetDatum(targets[i].is_cached);
		answer_values(&answer, values + 3, nulls + 3);
		tuplestore_putvalues(rows->setResult, rows->setDesc, values, nulls);
	}
}

/*
 * Are all items hits on runs that have ended?  Where one is a hit on a run that
 * has not, it must not wait for the current one.
 */
static bool
batch_is_over(BatchItem *batch, int count, WaitTarget *targets)
{
	bool		is_over = true;

	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		memset(&targets[i], 0, sizeof(WaitTarget));
		if (!trigger_peek(&batch[i].trigger, &batch[i].result))
		{
			is_over = false;
			continue;
		}
		targets[i].id = batch[i].result.run_id;
		targets[i].is_cached = true;
		targets[i].status = batch[i].result.status;
		targets[i].has_ended = RUN_STATUS_IS_FINAL(targets[i].status);
		if (targets[i].has_ended)
			continue;
		is_over = false;
		await_refuse_own(STORE_RUN, &targets[i].id, "run");
		if (current_run())
			wait_check_cycle(&current_run()->run_id, &targets[i].id);
	}
	for (int i = 0; i < count && is_over && current_run(); i++)
		stats_count(STAT_HITS);
	return is_over;
}

/* Outside a run it can only be waited for runs that are there. */
static void
batch_and_wait_outside(FunctionCallInfo fcinfo, const WaitTarget *targets,
					   const BatchItem *batch, int count)
{
	for (int i = 0; i < count; i++)
		if (!batch[i].result.is_cached)
			new_run_error();
	for (int i = 0; i < count; i++)
	{
		stats_count(STAT_HITS);
		await_run(&targets[i].id, DT_NOEND);
	}
	batch_answer(fcinfo, targets, count);
}

/* batch_trigger_task_and_wait(task_id text, items jsonb, idempotency_key text, environment text) */
Datum
trigger_idem_batch_trigger_task_and_wait(PG_FUNCTION_ARGS)
{
	CurrentRun *run = current_run();
	NullableDatum arguments[BATCH_ARGUMENTS];
	pg_uuid_t	keyless;
	bool		is_keyless;
	BatchItem  *batch;
	WaitTarget *targets;
	WaitRequest *request;
	WaitAnswer	answer;
	char	   *task_id;
	text	   *key;
	int			count;

	wait_check_not_begun();
	InitMaterializedSRF(fcinfo, 0);
	memcpy(arguments, fcinfo->args, sizeof(arguments));
	is_keyless = set_keyless_key(&arguments[BATCH_IDEMPOTENCY_KEY], arguments[BATCH_TASK_ID],
								 &keyless);
	batch = batch_prepare(arguments, &count);
	targets = palloc_extended(Max(count, 1) * sizeof(WaitTarget), MCXT_ALLOC_HUGE);
	if (run == NULL)
	{
		(void) batch_is_over(batch, count, targets);
		batch_and_wait_outside(fcinfo, targets, batch, count);
		return (Datum) 0;
	}

	task_id = TextDatumGetCString(arguments[BATCH_TASK_ID].value);
	key = DatumGetTextPP(arguments[BATCH_IDEMPOTENCY_KEY].value);
	request = wait_request(WAIT_FOR_BATCH, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), true,
						   cstring_to_text(task_id));
	if (is_keyless)
		wait_is_keyless(request, &keyless);
	if (wait_find_answer(request, &answer))
		targets = wait_batch_targets(&answer.wait_id, &count);
	else if (!batch_is_over(batch, count, targets))
	{
		request->arguments = arguments_copy(arguments, batch_arguments, BATCH_ARGUMENTS);
		wait_begin(request);
		targets = request->targets;
	}
	else
		wait_remember(request, targets, count);
	batch_answer(fcinfo, targets, count);
	return (Datum) 0;
}

/* ---------- run_wait ---------- */

/* How a wait for a run has ended, or not yet */
typedef enum RunWaitEnd
{
	RUN_WAIT_FINAL,
	RUN_WAIT_TIMED_OUT,
	RUN_WAIT_BEGINS,			/* an application is told so */
} RunWaitEnd;

/* The answer of run_wait(); status is that of the timeout, if it is known. */
static Datum
run_wait_answer(FunctionCallInfo fcinfo, const pg_uuid_t *run_id, RunWaitEnd end,
				const RunStatus *status)
{
	RunAnswer	answer;
	Datum		values[4];
	bool		nulls[4];

	wait_run_answer(run_id, RUN_COMPLETED, &answer);
	if (status)
		answer.status = *status;
	if (end != RUN_WAIT_FINAL)
		answer.output.isnull = answer.error.isnull = true;
	answer_values(&answer, values, nulls);
	values[3] = BoolGetDatum(end == RUN_WAIT_TIMED_OUT);
	nulls[3] = end == RUN_WAIT_BEGINS;
	return answer_row(fcinfo, values, nulls);
}

/* Outside a run, the session blocks. */
static Datum
run_wait_outside(FunctionCallInfo fcinfo, const pg_uuid_t *run_id, TimestampTz until)
{
	await_run(run_id, until);
	return run_wait_answer(fcinfo, run_id,
						   await_run_has_ended(run_id) ? RUN_WAIT_FINAL : RUN_WAIT_TIMED_OUT, NULL);
}

/* run_wait(run_id uuid, timeout interval) */
Datum
trigger_idem_run_wait(PG_FUNCTION_ARGS)
{
	Interval   *timeout = PG_ARGISNULL(1) ? NULL : PG_GETARG_INTERVAL_P(1);
	TimestampTz until = DT_NOEND;
	Datum		values[RUN_COLUMNS];
	bool		nulls[RUN_COLUMNS];
	WaitTarget	target = {0};
	WaitRequest *request;
	WaitAnswer	answer;

	wait_check_not_begun();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("run_id must not be null")));
	target.id = *PG_GETARG_UUID_P(0);
	if (timeout)
	{
		interval_check("timeout", timeout, 0);
		until = timestamp_plus(GetCurrentTimestamp(), timeout);
	}
	run_require_visible(&target.id, values, nulls);
	if (current_run() == NULL)
		return run_wait_outside(fcinfo, &target.id, until);

	request = wait_request(WAIT_FOR_RUN, target.id.data, UUID_LEN, true,
						   cstring_to_text(run_id_text(&target.id)));
	if (wait_find_answer(request, &answer))
		return run_wait_answer(fcinfo, &target.id,
							   answer.timed_out ? RUN_WAIT_TIMED_OUT : RUN_WAIT_FINAL,
							   answer.has_status ? &answer.status : NULL);
	if (await_run_has_ended(&target.id))
	{
		RunAnswer	ended;

		wait_run_answer(&target.id, RUN_COMPLETED, &ended);
		target.has_ended = true;
		target.status = ended.status;
		wait_remember(request, &target, 1);
		return run_wait_answer(fcinfo, &target.id, RUN_WAIT_FINAL, NULL);
	}
	await_refuse_own(STORE_QUEUE_ENTRY, &target.id, "run");
	request->until = until;
	request->targets = MemoryContextAlloc(current_run()->context, sizeof(WaitTarget));
	request->targets[0] = target;
	request->count = 1;
	wait_check_cycle(&current_run()->run_id, &target.id);
	wait_begin(request);
	return run_wait_answer(fcinfo, &target.id, RUN_WAIT_BEGINS, NULL);
}

/* ---------- wait_for, wait_until ---------- */

/* Sleep until a time, under a key of the run. */
static TimestampTz
sleep_until(text *key, TimestampTz until, const char *function)
{
	WaitRequest *request;
	WaitAnswer	answer;

	if (current_run() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_CURRENT_RUN),
				 errmsg("%s is called outside a run", function),
				 errhint("Outside a run, pg_sleep_for() and pg_sleep_until() wait.")));
	request = wait_request(WAIT_FOR_TIME, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), false, key);
	if (wait_find_answer(request, &answer))
		return answer.until;
	request->until = until;
	if (until <= GetCurrentTimestamp())
		wait_remember(request, NULL, 0);
	else
		wait_begin(request);
	return until;
}

static text *
key_argument(FunctionCallInfo fcinfo)
{
	text	   *key = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);

	wait_check_not_begun();
	key_check_text(key);
	return key;
}

/* wait_for(key text, duration interval) */
Datum
trigger_idem_wait_for(PG_FUNCTION_ARGS)
{
	text	   *key = key_argument(fcinfo);

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("duration must not be null")));
	interval_check("duration", PG_GETARG_INTERVAL_P(1), 0);
	PG_RETURN_TIMESTAMPTZ(sleep_until(key, timestamp_plus(GetCurrentTimestamp(),
														  PG_GETARG_INTERVAL_P(1)), "wait_for()"));
}

/* wait_until(key text, wake_at timestamptz) */
Datum
trigger_idem_wait_until(PG_FUNCTION_ARGS)
{
	text	   *key = key_argument(fcinfo);

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("wake_at must not be null")));
	if (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(1)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("wake_at must be finite")));
	PG_RETURN_TIMESTAMPTZ(sleep_until(key, PG_GETARG_TIMESTAMPTZ(1), "wait_until()"));
}
