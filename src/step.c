/*-------------------------------------------------------------------------
 *
 * step.c
 *	  Steps: run_once() and its relatives.
 *
 * A step of a run is named by the path of keys from the outermost step to it,
 * and its idempotency key is a hash over environment, run, the step around it
 * and its own key.  Its memo is inserted in the transaction of the callback, so
 * both commit together or not at all.
 *
 * A step of scope global is looked up in its table at every call, and locked
 * while it is made, under a lock tag that no SQL function can take.  A second
 * session waits for the lock, then finds the memo.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "current.h"
#include "environment.h"
#include "key.h"
#include "limit.h"
#include "lock.h"
#include "memo.h"
#include "routine.h"
#include "statement.h"
#include "stats.h"
#include "step.h"
#include "store.h"
#include "task.h"
#include "wait.h"

#define STEP_DOMAIN			"trigger_idem step v1"
#define GLOBAL_STEP_DOMAIN	"trigger_idem global step v1"

/* A step being made; the ones around it are on the stack of its callers */
typedef struct Step
{
	Key			id;
	text	   *key;
	bool		is_global;
	const char *environment;
	struct Step *parent;		/* the step around it, or NULL */
} Step;

/* What a step does: call a function, or run a command */
typedef struct StepAction
{
	Oid			callback;
	char	   *command;
	Datum		args;
	bool		args_isnull;
} StepAction;

static Step *innermost = NULL;

PG_FUNCTION_INFO_V1(trigger_idem_run_once);
PG_FUNCTION_INFO_V1(trigger_idem_run_once_sql);
PG_FUNCTION_INFO_V1(trigger_idem_run_once_local_only);

/* ---------- The step being made ---------- */

/* The run is no longer current; its memory context is about to go. */
void
step_forget_run(void)
{
	memo_forget_run();
	innermost = NULL;
}

static void
step_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		innermost = NULL;
}

/* Called once, when the library is loaded. */
void
step_init(void)
{
	RegisterXactCallback(step_xact_callback, NULL);
}

/* ---------- The identity of a step ---------- */

/* The step around a new one: a global step counts only the global ones. */
static Step *
step_parent(bool is_global)
{
	Step	   *parent = innermost;

	while (parent && is_global && !parent->is_global)
		parent = parent->parent;
	return parent;
}

/* The idempotency key of a step of a run; parent is the step around it, or NULL. */
void
step_key(const pg_uuid_t *run_id, const char *environment, const Key *parent, text *key,
		 Key *result)
{
	KeyMaterial material;

	key_material_begin(&material, STEP_DOMAIN);
	key_material_cstring(&material, environment);
	key_material_bytes(&material, run_id->data, UUID_LEN);
	key_material_bytes(&material, parent ? parent->bytes : NULL, parent ? KEY_BYTES : 0);
	key_material_text(&material, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	key_material_hash(&material, result);
}

static void
step_identify(Step *step, text *key, bool is_global)
{
	CurrentRun *run = current_run();
	KeyMaterial material;

	step->key = key;
	step->is_global = is_global;
	step->parent = step_parent(is_global);
	if (!is_global)
	{
		step->environment = run->environment;
		step_key(&run->run_id, run->environment, step->parent ? &step->parent->id : NULL, key,
				 &step->id);
		return;
	}
	step->environment = environment_choose(NULL, NULL);
	key_material_begin(&material, GLOBAL_STEP_DOMAIN);
	key_material_cstring(&material, step->environment);
	key_material_cstring(&material, GetUserNameFromId(GetUserId(), false));
	key_material_bytes(&material, step->parent ? step->parent->id.bytes : NULL,
					   step->parent ? KEY_BYTES : 0);
	key_material_text(&material, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	key_material_hash(&material, &step->id);
}

/* The keys from the outermost step to this one, as text[] */
static Datum
step_path(const Step *step)
{
	int			depth = 0;
	Datum	   *keys;

	for (const Step *s = step; s; s = s->parent)
		depth++;
	keys = palloc(depth * sizeof(Datum));
	for (const Step *s = step; s; s = s->parent)
		keys[--depth] = PointerGetDatum(s->key);
	for (const Step *s = step; s; s = s->parent)
		depth++;
	return PointerGetDatum(construct_array(keys, depth, TEXTOID, -1, false, TYPALIGN_INT));
}

/* The step of the current run that is being made, or NULL */
const Key  *
step_around(void)
{
	Step	   *parent = step_parent(false);

	return parent ? &parent->id : NULL;
}

/* The path to something with a name in that step, as text[] */
Datum
step_path_to(text *name)
{
	Step		step = {.key = name,.parent = step_parent(false)};

	return step_path(&step);
}

/* ---------- Doing a step ---------- */

/*
 * Run one SQL command of the user, as the user, with the key as $1 and the
 * arguments as $2; its first column of its first row is the result.
 */
static Datum
command_run(const char *command, text *key, Datum args, bool args_isnull, bool *isnull)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[2] = {TEXTOID, JSONBOID};
	Datum		values[2] = {PointerGetDatum(key), args};
	char		nulls[2] = {' ', args_isnull ? 'n' : ' '};
	Datum		result = (Datum) 0;
	SPIPlanPtr	plan;
	int			code;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = SPI_prepare(command, lengthof(types), types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	if (list_length(SPI_plan_get_plan_sources(plan)) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("run_once_sql() takes exactly one SQL command")));
	code = SPI_execute_plan(plan, values, nulls, false, 0);
	if (code == SPI_ERROR_TRANSACTION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("run_once_sql() cannot run a transaction command")));
	if (code < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("run_once_sql() cannot run the command: %s",
						SPI_result_code_string(code))));

	*isnull = true;
	if (SPI_tuptable && SPI_tuptable->numvals > 0 && SPI_tuptable->tupdesc->natts > 0)
		result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, isnull);
	if (!*isnull)
	{
		Oid			type = SPI_gettypeid(SPI_tuptable->tupdesc, 1);

		result = value_to_jsonb(result, type);
		MemoryContextSwitchTo(caller);
		result = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
	}
	SPI_finish();
	return result;
}

/*
 * Refuse to begin a step whose memo could not be stored: 25006.  The callback
 * must not be called in vain.
 */
static void
step_prevent_read_only(void)
{
	PreventCommandDuringRecovery("run_once() of a new step");
	PreventCommandIfReadOnly("run_once() of a new step");
}

/* Do what the step is about, as the innermost step. */
static Datum
step_call(Step *step, const StepAction *action, bool *isnull)
{
	Step	   *outer = innermost;
	text	   *key = key_to_hex(&step->id);
	Datum		output = (Datum) 0;
	NullableDatum made;

	PG_TRY();
	{
		innermost = step;
		if (action->command)
			output = command_run(action->command, key, action->args, action->args_isnull, isnull);
		else
			output = callback_call(action->callback, key, action->args, action->args_isnull,
								   isnull);
	}
	PG_FINALLY();
	{
		innermost = outer;
	}
	PG_END_TRY();
	made.value = output;
	made.isnull = *isnull;
	limit_output("output of the step", made);
	return output;
}

/* A step of the current run */
static Datum
step_once(Step *step, const StepAction *action, bool *isnull)
{
	CurrentRun *run = current_run();
	Memo	   *memo = memo_find(&step->id);
	Datum		values[STEP_COLUMNS];
	bool		nulls[STEP_COLUMNS] = {false};
	Datum		output;

	if (memo)
	{
		memo_note_replay(memo);
		*isnull = memo->isnull;
		return memo->output;
	}

	step_prevent_read_only();
	limit_steps(memo_number());
	values[STEP_STARTED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	output = step_call(step, action, isnull);

	values[STEP_RUN_ID - 1] = UUIDPGetDatum(&run->run_id);
	values[STEP_STEP_ID - 1] = key_to_bytea(&step->id);
	values[STEP_ATTEMPT - 1] = Int32GetDatum(run->attempt);
	values[STEP_FINISHED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[STEP_PATH - 1] = step_path(step);
	values[STEP_OUTPUT - 1] = output;
	nulls[STEP_OUTPUT - 1] = *isnull;
	store_insert(STORE_STEP, values, nulls);

	memo_add(&step->id, output, *isnull);
	stats_count(STAT_STEPS_DONE);
	return output;
}

/*
 * Look a global step up as snapshot sees it; false when there is no memo that
 * is still good.
 */
static bool
global_memo_find(const Key *step_id, Snapshot snapshot, Datum *output, bool *isnull)
{
	Datum		values[GLOBAL_STEP_COLUMNS];
	bool		nulls[GLOBAL_STEP_COLUMNS];

	if (!store_fetch(STORE_GLOBAL_STEP, key_to_bytea(step_id), snapshot, values, nulls))
		return false;
	if (!nulls[GLOBAL_STEP_EXPIRES_AT - 1] &&
		DatumGetTimestampTz(values[GLOBAL_STEP_EXPIRES_AT - 1]) <= GetCurrentTimestamp())
		return false;
	*isnull = nulls[GLOBAL_STEP_OUTPUT - 1];
	*output = *isnull ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM_COPY(values[GLOBAL_STEP_OUTPUT - 1]));
	return true;
}

/* Wait until no other session makes this global step; kept until commit. */
static void
global_step_lock(const Key *step_id)
{
	LOCKTAG		tag = lock_tag(LOCK_GLOBAL_STEP, step_id);

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

static Statement upsert_global_step = {
	.sql = "INSERT INTO trigger_idem.global_step (step_id, environment, role, path, run_id, attempt,"
	"  started_at, finished_at, expires_at, output) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
	"ON CONFLICT (step_id) DO UPDATE SET run_id = excluded.run_id, attempt = excluded.attempt,"
	"  started_at = excluded.started_at, finished_at = excluded.finished_at,"
	"  expires_at = excluded.expires_at, output = excluded.output",
	.expected = SPI_OK_INSERT,
	.argtypes = {BYTEAOID, TEXTOID, TEXTOID, TEXTARRAYOID, UUIDOID, INT4OID, TIMESTAMPTZOID,
	TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID}
};

/* A step of scope global */
static Datum
step_once_global(Step *step, const StepAction *action, const Interval *ttl, bool *isnull)
{
	CurrentRun *run = current_run();
	Snapshot	snapshot = store_snapshot();
	OwnerScope	scope;
	Datum		values[GLOBAL_STEP_COLUMNS];
	char		nulls[GLOBAL_STEP_COLUMNS];
	Datum		output;
	TimestampTz finished_at;
	bool		found = global_memo_find(&step->id, snapshot, &output, isnull);

	UnregisterSnapshot(snapshot);
	if (found)
	{
		stats_count(STAT_STEPS_REPLAYED);
		return output;
	}

	step_prevent_read_only();
	global_step_lock(&step->id);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = global_memo_find(&step->id, snapshot, &output, isnull);
	UnregisterSnapshot(snapshot);
	if (found && IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent run of the same step"),
				 errhint("The transaction might succeed if retried.")));
	if (found)
	{
		stats_count(STAT_STEPS_REPLAYED);
		return output;
	}

	values[GLOBAL_STEP_STARTED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	output = step_call(step, action, isnull);
	finished_at = GetCurrentTimestamp();

	memset(nulls, ' ', sizeof(nulls));
	values[GLOBAL_STEP_STEP_ID - 1] = key_to_bytea(&step->id);
	values[GLOBAL_STEP_ENVIRONMENT - 1] = CStringGetTextDatum(step->environment);
	values[GLOBAL_STEP_ROLE - 1] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	values[GLOBAL_STEP_PATH - 1] = step_path(step);
	if (run)
	{
		values[GLOBAL_STEP_RUN_ID - 1] = UUIDPGetDatum(&run->run_id);
		values[GLOBAL_STEP_ATTEMPT - 1] = Int32GetDatum(run->attempt);
	}
	else
		nulls[GLOBAL_STEP_RUN_ID - 1] = nulls[GLOBAL_STEP_ATTEMPT - 1] = 'n';
	values[GLOBAL_STEP_FINISHED_AT - 1] = TimestampTzGetDatum(finished_at);
	if (ttl)
		values[GLOBAL_STEP_EXPIRES_AT - 1] =
			TimestampTzGetDatum(timestamp_plus(finished_at, ttl));
	else
		nulls[GLOBAL_STEP_EXPIRES_AT - 1] = 'n';
	values[GLOBAL_STEP_OUTPUT - 1] = output;
	nulls[GLOBAL_STEP_OUTPUT - 1] = *isnull ? 'n' : ' ';

	owner_begin(&scope);
	statement_run(&upsert_global_step, values, nulls);
	owner_end(&scope);
	environment_keep(step->environment, NULL);
	CommandCounterIncrement();
	stats_count(STAT_STEPS_DONE);
	return output;
}

/* ---------- The SQL functions ---------- */

static void
require_run(const char *function)
{
	if (current_run() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_CURRENT_RUN),
				 errmsg("%s is called outside a run", function),
				 errhint("Call it in the handler of a task, or with scope => 'global'.")));
}

/* The arguments key, scope and ttl, which two functions have in common */
static bool
scope_arguments(FunctionCallInfo fcinfo, const Interval **ttl)
{
	KeyScope	scope;

	key_check_text(PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0));
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("step scope must not be null")));
	scope = key_scope_parse(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	if (scope == KEY_SCOPE_ATTEMPT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a step cannot have scope \"attempt\""),
				 errhint("Its scope is \"run\" or \"global\".")));
	*ttl = NULL;
	if (!PG_ARGISNULL(4))
	{
		*ttl = PG_GETARG_INTERVAL_P(4);
		if (scope != KEY_SCOPE_GLOBAL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("ttl needs scope \"global\""),
					 errdetail("A step of a run is kept as long as the run.")));
		interval_check("ttl", *ttl, 1);
	}
	return scope == KEY_SCOPE_GLOBAL;
}

static void
action_arguments(FunctionCallInfo fcinfo, StepAction *action)
{
	action->callback = InvalidOid;
	action->command = NULL;
	action->args_isnull = PG_ARGISNULL(2);
	action->args = action->args_isnull ? (Datum) 0 : PG_GETARG_DATUM(2);
}

static void
callback_argument(FunctionCallInfo fcinfo, StepAction *action)
{
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("callback must not be null")));
	action->callback = PG_GETARG_OID(1);
}

/* What run_once() and run_once_sql() have in common */
static Datum
run_once(FunctionCallInfo fcinfo, const StepAction *action, const char *function)
{
	const Interval *ttl;
	bool		is_global = scope_arguments(fcinfo, &ttl);
	Step		step;
	Datum		output;
	bool		isnull;

	wait_check_not_begun();
	if (is_global)
		access_require_for_any(ACCESS_TRIGGER, function);
	else
		require_run(function);
	step_identify(&step, PG_GETARG_TEXT_PP(0), is_global);
	output = is_global ? step_once_global(&step, action, ttl, &isnull) :
		step_once(&step, action, &isnull);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(output);
}

/* run_once(key text, callback regproc, args jsonb, scope text, ttl interval) */
Datum
trigger_idem_run_once(PG_FUNCTION_ARGS)
{
	StepAction	action;

	action_arguments(fcinfo, &action);
	callback_argument(fcinfo, &action);
	return run_once(fcinfo, &action, "run_once()");
}

/* run_once_sql(key text, command text, args jsonb, scope text, ttl interval) */
Datum
trigger_idem_run_once_sql(PG_FUNCTION_ARGS)
{
	StepAction	action;

	action_arguments(fcinfo, &action);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("command must not be null")));
	action.command = text_to_cstring(PG_GETARG_TEXT_PP(1));
	return run_once(fcinfo, &action, "run_once_sql()");
}

/* run_once_local_only(key text, callback regproc, args jsonb) */
Datum
trigger_idem_run_once_local_only(PG_FUNCTION_ARGS)
{
	StepAction	action;
	Step		step;
	Datum		output;
	bool		isnull;

	wait_check_not_begun();
	key_check_text(PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0));
	action_arguments(fcinfo, &action);
	callback_argument(fcinfo, &action);
	require_run("run_once_local_only()");
	step_identify(&step, PG_GETARG_TEXT_PP(0), false);
	output = step_call(&step, &action, &isnull);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(output);
}
