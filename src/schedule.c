/*-------------------------------------------------------------------------
 *
 * schedule.c
 *	  Schedules: one run for each tick of an expression.
 *
 * pg_cron tells a job nothing of its tick, forgets those it missed, and may start
 * a job late or twice.  So a firing finds its tick by itself: the last one that
 * the clock has passed.  The tick is the key of its run, together with environment
 * and schedule; that key has no end, and neither a state of the run nor another
 * task frees it.
 *
 * A firing locks the schedule's row, and changes it in the transaction in which it
 * triggers: firings come one after the other, and each knows what was fired before.
 * Order of locks: schedule, then keys.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "access.h"
#include "answer.h"
#include "compat.h"
#include "cron.h"
#include "cronjob.h"
#include "environment.h"
#include "limit.h"
#include "statement.h"
#include "task.h"
#include "trigger.h"

/* The most missed ticks that one firing makes up */
#define CATCH_UP_MAX 1000

/* What of the ticks missed a firing makes up */
typedef enum CatchUp
{
	CATCH_UP_NONE,
	CATCH_UP_LATEST,
	CATCH_UP_ALL,
} CatchUp;

static const char *const catch_up_names[] = {
	[CATCH_UP_NONE] = "none",
	[CATCH_UP_LATEST] = "latest",
	[CATCH_UP_ALL] = "all",
};

/* A schedule's row */
typedef struct Schedule
{
	char	   *schedule_id;
	char	   *environment;
	char	   *owner;
	char	   *cron;
	char	   *task_id;
	NullableDatum payload;
	CatchUp		catch_up;
	bool		cron_job;
	TimestampTz made_up_to;		/* DT_NOBEGIN: null */
	TimestampTz last_tick;		/* DT_NOBEGIN: null */
	TimestampTz before;			/* the tick before one that is made up late;
								 * DT_NOBEGIN: none */
} Schedule;

PG_FUNCTION_INFO_V1(trigger_idem_schedule_create);
PG_FUNCTION_INFO_V1(trigger_idem_schedule_drop);
PG_FUNCTION_INFO_V1(trigger_idem_schedule_fire);
PG_FUNCTION_INFO_V1(trigger_idem_work_schedule);

/* ---------- The row ---------- */

static CatchUp
catch_up_parse(const char *name)
{
	for (size_t i = 0; name && i < lengthof(catch_up_names); i++)
		if (strcmp(name, catch_up_names[i]) == 0)
			return (CatchUp) i;
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("catch_up must not be null")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown catch_up \"%s\"", name),
			 errhint("It is \"none\", \"latest\" or \"all\".")));
}

#define READ_SCHEDULE \
	"SELECT s.environment, s.owner, s.cron, s.task_id, s.catch_up, s.cron_job, s.made_up_to," \
	"  s.last_tick, s.payload FROM trigger_idem.schedule s " \
	"WHERE s.schedule_id OPERATOR(pg_catalog.=) $1"

static Statement read_schedule = {
	.sql = READ_SCHEDULE,
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTOID}
};

static Statement lock_schedule = {
	.sql = READ_SCHEDULE " FOR UPDATE",
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTOID}
};

/* A time of the last result; DT_NOBEGIN for null */
static TimestampTz
time_or_none(int column)
{
	bool		isnull;
	Datum		value = statement_value(0, column, &isnull);

	return isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
}

/* Read a schedule's row, in the current context, and maybe lock it; false: no such row */
static bool
schedule_read(Statement *statement, char *schedule_id, Schedule *schedule)
{
	OwnerScope	scope;
	Datum		values[1] = {CStringGetTextDatum(schedule_id)};
	bool		found;

	owner_begin(&scope);
	found = statement_run(statement, values, NULL) == 1;
	if (found)
	{
		MemoryContext spi;
		Datum		payload = statement_value(0, 9, &schedule->payload.isnull);

		schedule->schedule_id = schedule_id;
		schedule->environment = statement_text(&scope, 0, 1);
		schedule->owner = statement_text(&scope, 0, 2);
		schedule->cron = statement_text(&scope, 0, 3);
		schedule->task_id = statement_text(&scope, 0, 4);
		schedule->catch_up = catch_up_parse(statement_text(&scope, 0, 5));
		schedule->cron_job = DatumGetBool(statement_value(0, 6, NULL));
		schedule->made_up_to = time_or_none(7);
		schedule->last_tick = time_or_none(8);
		spi = MemoryContextSwitchTo(scope.caller);
		if (!schedule->payload.isnull)
			schedule->payload.value = PointerGetDatum(PG_DETOAST_DATUM_COPY(payload));
		MemoryContextSwitchTo(spi);
	}
	owner_end(&scope);
	return found;
}

/* ---------- Who may ---------- */

pg_noreturn static void
not_owner_error(const char *schedule_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("must be owner of schedule \"%s\"", schedule_id)));
}

/*
 * Is a schedule the caller's?  One that he may not see is as unknown, which is
 * false; one that he only sees is not his: 42501.  Administrators may drop it.
 */
static bool
schedule_is_ours(const Schedule *schedule, bool to_drop)
{
	if (!access_may_see_run(schedule->task_id, schedule->owner, schedule->environment))
		return false;
	if (!access_is_member(GetUserId(), schedule->owner) &&
		!(to_drop && access_allows(ACCESS_ADMIN, schedule->task_id)))
		not_owner_error(schedule->schedule_id);
	(void) environment_choose(cstring_to_text(schedule->environment),
							  task_find(schedule->task_id));
	return true;
}

/*
 * Lock the schedule that the first argument names; false: unknown.  Nobody gets to
 * lock what is not his, and whose it is may have changed while the lock was waited
 * for.
 */
static bool
schedule_lock_ours(FunctionCallInfo fcinfo, bool to_drop, Schedule *schedule)
{
	char	   *schedule_id = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));

	identifier_check("schedule", schedule_id);
	return schedule_read(&read_schedule, schedule_id, schedule) &&
		schedule_is_ours(schedule, to_drop) &&
		schedule_read(&lock_schedule, schedule_id, schedule) &&
		schedule_is_ours(schedule, to_drop);
}

/*
 * Lock a schedule that is to be replaced; false: its name is free.  A name is no
 * secret: 42501 when it is another role's.
 */
static bool
schedule_lock_name(char *schedule_id, Schedule *schedule)
{
	Statement  *statements[] = {&read_schedule, &lock_schedule};

	for (size_t i = 0; i < lengthof(statements); i++)
	{
		if (!schedule_read(statements[i], schedule_id, schedule))
			return false;
		if (!access_is_member(GetUserId(), schedule->owner))
			not_owner_error(schedule_id);
	}
	return true;
}

/* The role of a schedule's job: its owner, or the caller when that role is gone */
static Oid
schedule_role(const char *owner)
{
	Oid			role = get_role_oid(owner, true);

	return OidIsValid(role) ? role : GetUserId();
}

/* ---------- schedule_create ---------- */

/* The arguments of schedule_create(), in their order */
enum
{
	ARG_SCHEDULE_ID,
	ARG_CRON,
	ARG_TASK_ID,
	ARG_PAYLOAD,
	ARG_CATCH_UP,
	ARG_ENVIRONMENT,
	ARG_CRON_JOB,
};

static char *
text_arg(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

/* An expression that pg_cron may accept: 22004, 22023 */
static char *
cron_arg(FunctionCallInfo fcinfo, int argument)
{
	char	   *expression = text_arg(fcinfo, argument);
	Cron		cron;

	if (expression == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("cron must not be null")));
	cron_require(expression, &cron);
	return expression;
}

static void
payload_check(FunctionCallInfo fcinfo)
{
	limit_payload(fcinfo->args[ARG_PAYLOAD]);
	if (!PG_ARGISNULL(ARG_PAYLOAD) && !JB_ROOT_IS_OBJECT(PG_GETARG_JSONB_P(ARG_PAYLOAD)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("payload of a schedule must be an object"),
				 errdetail("schedule_id, tick and last_tick are set in it.")));
}

/* The job that fires a schedule */
static void
schedule_job(const char *schedule_id, const char *cron, CronJob *job)
{
	job->kind = CRONJOB_SCHEDULE;
	job->subject = schedule_id;
	job->cron = cron;
	job->command = psprintf("SELECT trigger_idem.schedule_fire(%s)",
							quote_literal_cstr(schedule_id));
}

/*
 * What was fired, and what is to be made up, stays as long as the expression and the
 * environment are the same.
 */
static Statement upsert_schedule = {
	.sql = "INSERT INTO trigger_idem.schedule AS s (schedule_id, environment, owner, cron, task_id,"
	"  payload, catch_up, cron_job, created_at, made_up_to) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) "
	"ON CONFLICT (schedule_id) DO UPDATE SET environment = excluded.environment,"
	"  owner = excluded.owner, cron = excluded.cron, task_id = excluded.task_id,"
	"  payload = excluded.payload, catch_up = excluded.catch_up, cron_job = excluded.cron_job,"
	"  made_up_to = CASE WHEN s.cron OPERATOR(pg_catalog.=) excluded.cron"
	"    AND s.environment OPERATOR(pg_catalog.=) excluded.environment"
	"    THEN s.made_up_to ELSE excluded.made_up_to END,"
	"  last_tick = CASE WHEN s.environment OPERATOR(pg_catalog.=) excluded.environment"
	"    THEN s.last_tick END,"
	"  last_run_id = CASE WHEN s.environment OPERATOR(pg_catalog.=) excluded.environment"
	"    THEN s.last_run_id END "
	/* without a row to lock before, another session may have been first */
	"WHERE $10 OR s.owner OPERATOR(pg_catalog.=) excluded.owner",
	.expected = SPI_OK_INSERT,
	.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, BOOLOID,
	TIMESTAMPTZOID, BOOLOID}
};

/* Write the row of a schedule. */
static void
schedule_write(FunctionCallInfo fcinfo, const char *environment, Oid owner, bool is_locked)
{
	OwnerScope	scope;
	Datum		values[10];
	char		nulls[] = "          ";

	values[0] = PG_GETARG_DATUM(ARG_SCHEDULE_ID);
	values[1] = CStringGetTextDatum(environment);
	values[2] = CStringGetTextDatum(GetUserNameFromId(owner, false));
	values[3] = PG_GETARG_DATUM(ARG_CRON);
	values[4] = PG_GETARG_DATUM(ARG_TASK_ID);
	values[5] = PG_GETARG_DATUM(ARG_PAYLOAD);
	nulls[5] = PG_ARGISNULL(ARG_PAYLOAD) ? 'n' : ' ';
	values[6] = PG_GETARG_DATUM(ARG_CATCH_UP);
	values[7] = PG_GETARG_DATUM(ARG_CRON_JOB);
	values[8] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[9] = BoolGetDatum(is_locked);
	owner_begin(&scope);
	if (statement_run(&upsert_schedule, values, nulls) != 1)
		not_owner_error(TextDatumGetCString(values[0]));
	owner_end(&scope);
}

/*
 * schedule_create(schedule_id text, cron text, task_id text, payload jsonb,
 * catch_up text, environment text, cron_job boolean)
 *
 * The caller becomes the owner; of a schedule that is there, everything but the
 * owner is replaced.
 */
Datum
trigger_idem_schedule_create(PG_FUNCTION_ARGS)
{
	char	   *schedule_id = text_arg(fcinfo, ARG_SCHEDULE_ID);
	char	   *task_id = text_arg(fcinfo, ARG_TASK_ID);
	Schedule	before;
	bool		exists;
	const Task *task;
	const char *environment;
	CronJob		job;
	bool		cron_job;
	Oid			owner = GetUserId();

	identifier_check("schedule", schedule_id);
	identifier_check("task", task_id);
	schedule_job(schedule_id, cron_arg(fcinfo, ARG_CRON), &job);
	(void) catch_up_parse(text_arg(fcinfo, ARG_CATCH_UP));
	payload_check(fcinfo);
	if (PG_ARGISNULL(ARG_CRON_JOB))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("cron_job must not be null")));
	cron_job = PG_GETARG_BOOL(ARG_CRON_JOB);
	if (cron_job)
		cronjob_require_extension(&job);
	task = task_require(task_id);
	access_require(ACCESS_TRIGGER, task);
	environment = environment_choose(PG_ARGISNULL(ARG_ENVIRONMENT) ? NULL :
									 PG_GETARG_TEXT_PP(ARG_ENVIRONMENT), task);

	exists = schedule_lock_name(schedule_id, &before);
	if (exists)
		owner = schedule_role(before.owner);
	schedule_write(fcinfo, environment, owner, exists);
	environment_keep(environment, task);
	/* the job of a role that is gone is not replaced by the caller's */
	if (exists && before.cron_job &&
		(!cron_job || strcmp(before.owner, GetUserNameFromId(owner, false)) != 0))
		cronjob_drop(&job, before.owner);
	if (cron_job)
		cronjob_create(&job, owner);
	PG_RETURN_VOID();
}

/* ---------- schedule_drop ---------- */

static Statement delete_schedule = {
	.sql = "DELETE FROM trigger_idem.schedule WHERE schedule_id OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_DELETE,
	.argtypes = {TEXTOID}
};

/*
 * schedule_drop(schedule_id text): true when there was such a schedule.  The keys of
 * its ticks stay: made again, it does not fire them again.
 */
Datum
trigger_idem_schedule_drop(PG_FUNCTION_ARGS)
{
	OwnerScope	scope;
	Schedule	schedule;
	CronJob		job;
	Datum		values[1];

	if (!schedule_lock_ours(fcinfo, true, &schedule))
		PG_RETURN_BOOL(false);
	values[0] = PG_GETARG_DATUM(0);
	owner_begin(&scope);
	statement_run(&delete_schedule, values, NULL);
	owner_end(&scope);
	schedule_job(schedule.schedule_id, schedule.cron, &job);
	if (schedule.cron_job)
		cronjob_drop(&job, schedule.owner);
	PG_RETURN_BOOL(true);
}

/* ---------- A tick ---------- */

/* A tick as users see it: its time in UTC, as ISO 8601 has it */
static char *
tick_text(TimestampTz tick)
{
	char		iso[MAXDATELEN + 1];
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(tick, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("tick is out of range")));
	EncodeDateTime(&tm, fsec, false, 0, NULL, USE_XSD_DATES, iso);
	return psprintf("%sZ", iso);
}

/* What the key of a tick was made from, for views */
static text *
tick_typed(const Schedule *schedule, TimestampTz tick)
{
	Datum		parts[2] = {CStringGetTextDatum(schedule->schedule_id),
	CStringGetTextDatum(tick_text(tick))};
	ArrayType  *array = construct_array(parts, 2, TEXTOID, -1, false, TYPALIGN_INT);

	return cstring_to_text(OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array)));
}

/* Set a text, or for NULL a null, in an object that is being built. */
static void
object_set(JsonbBuilder *builder, const char *name, const char *value)
{
	JsonbValue	key = {.type = jbvString};
	JsonbValue	item = {.type = jbvNull};

	key.val.string.val = pstrdup(name);
	key.val.string.len = (int) strlen(name);
	if (value)
	{
		item.type = jbvString;
		item.val.string.val = pstrdup(value);
		item.val.string.len = (int) strlen(value);
	}
	compat_push_jsonb(builder, WJB_KEY, &key);
	compat_push_jsonb(builder, WJB_VALUE, &item);
}

/* The payload of a tick's run: the schedule's, which tells of schedule and ticks, too */
static Datum
tick_payload(const Schedule *schedule, TimestampTz tick)
{
	JsonbBuilder builder = {0};
	TimestampTz last_tick = schedule->last_tick;
	Datum		set;

	compat_push_jsonb(&builder, WJB_BEGIN_OBJECT, NULL);
	object_set(&builder, "schedule_id", schedule->schedule_id);
	object_set(&builder, "tick", tick_text(tick));
	if (!TIMESTAMP_NOT_FINITE(last_tick) && last_tick >= tick)
		last_tick = schedule->before;
	object_set(&builder, "last_tick", TIMESTAMP_NOT_FINITE(last_tick) ? NULL : tick_text(last_tick));
	compat_push_jsonb(&builder, WJB_END_OBJECT, NULL);
	set = JsonbPGetDatum(JsonbValueToJsonb(builder.result));
	return schedule->payload.isnull ? set :
		DirectFunctionCall2(jsonb_concat, schedule->payload.value, set);
}

/* Trigger the run of a tick, unless it was before. */
static void
tick_trigger(const Schedule *schedule, TimestampTz tick, TriggerResult *result)
{
	NullableDatum options[TRIGGER_OPTIONS];
	TriggerCall trigger;

#define SET(option, datum) (options[option].value = (datum), options[option].isnull = false)
	for (int i = 0; i < TRIGGER_OPTIONS; i++)
		options[i].isnull = true;
	SET(OPTION_TASK_ID, CStringGetTextDatum(schedule->task_id));
	SET(OPTION_PAYLOAD, tick_payload(schedule, tick));
	SET(OPTION_ENVIRONMENT, CStringGetTextDatum(schedule->environment));
	SET(OPTION_IDEMPOTENCY_KEY_SCOPE, CStringGetTextDatum("global"));
#undef SET
	trigger_prepare(options, TRIGGER_TICK, &trigger);
	trigger.has_key = true;
	trigger.key_ttl = NULL;
	trigger.key_typed = tick_typed(schedule, tick);
	trigger.key_scope = KEY_SCOPE_TICK;
	key_of_tick(schedule->environment, schedule->schedule_id, tick, &trigger.key, &trigger.key_id);
	trigger_one(&trigger, result);
}

/* ---------- schedule_fire ---------- */

static Statement mark_fired = {
	.sql = "UPDATE trigger_idem.schedule SET made_up_to = $2, last_tick = $3, last_run_id = $4 "
	"WHERE schedule_id OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_UPDATE,
	.argtypes = {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, UUIDOID}
};

/* Trigger the run of a tick, and let the ticks that follow know of it. */
static void
tick_fire(Schedule *schedule, TimestampTz tick, TriggerResult *result)
{
	tick_trigger(schedule, tick, result);
	schedule->last_tick = Max(schedule->last_tick, tick);
}

/* Write down how far a schedule has come.  A tick of the past leaves it as it was. */
static void
schedule_mark(const Schedule *schedule, TimestampTz tick, const pg_uuid_t *run_id)
{
	OwnerScope	scope;
	Datum		values[4] = {CStringGetTextDatum(schedule->schedule_id),
		TimestampTzGetDatum(schedule->made_up_to), TimestampTzGetDatum(tick),
	UUIDPGetDatum(run_id)};
	char		nulls[] = "    ";

	if (tick < schedule->last_tick)
		return;
	nulls[1] = TIMESTAMP_NOT_FINITE(schedule->made_up_to) ? 'n' : ' ';
	owner_begin(&scope);
	statement_run(&mark_fired, values, nulls);
	owner_end(&scope);
}

/* The tick to fire: the one given, which must be one, or that of this moment */
static TimestampTz
tick_choose(const Schedule *schedule, const Cron *cron, NullableDatum given, TimestampTz now)
{
	TimestampTz at = given.isnull ? now : DatumGetTimestampTz(given.value);
	TimestampTz tick;
	bool		found = cron_previous_tick(cron, at, &tick);

	if (!given.isnull && (!found || tick != at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is no tick of schedule \"%s\"", timestamptz_to_str(at),
						schedule->schedule_id),
				 found ? errhint("The last one before it is %s.", tick_text(tick)) : 0));
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schedule \"%s\" has no ticks", schedule->schedule_id),
				 errdetail("No time matches the expression \"%s\".", schedule->cron)));
	return tick;
}

/* Make up the last of the ticks missed before the one that is fired. */
static void
catch_up_latest(Schedule *schedule, const Cron *cron, TimestampTz after, TimestampTz fired)
{
	TimestampTz tick;
	TriggerResult result;

	if (cron_previous_tick(cron, fired - 1, &tick) && tick > after)
		tick_fire(schedule, tick, &result);
}

/*
 * Make up all of them, the oldest first.  Where they are too many, the next firing
 * goes on: made_up_to says where.
 */
static void
catch_up_all(Schedule *schedule, const Cron *cron, TimestampTz after, TimestampTz fired)
{
	TimestampTz tick = after;
	TriggerResult result;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext tick_context = AllocSetContextCreate(caller, "trigger_idem tick",
													   ALLOCSET_DEFAULT_SIZES);

	for (int i = 0; cron_next_tick(cron, tick, &tick) && tick < fired; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i == CATCH_UP_MAX)
		{
			ereport(WARNING,
					(errmsg("schedule \"%s\" has missed more than %d ticks", schedule->schedule_id,
							CATCH_UP_MAX),
					 errdetail("Those up to %s were made up.", tick_text(schedule->made_up_to)),
					 errhint("The next firing goes on.")));
			return;
		}

		/*
		 * a firing before this one has come as far as made_up_to, which is a
		 * tick
		 */
		schedule->before = schedule->made_up_to;
		schedule->made_up_to = tick;
		MemoryContextSwitchTo(tick_context);
		tick_fire(schedule, tick, &result);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(tick_context);
	}
	schedule->made_up_to = DT_NOBEGIN;
}

/* Make up what the schedule wants of the ticks missed before the one that is fired. */
static void
schedule_catch_up(Schedule *schedule, const Cron *cron, TimestampTz fired)
{
	TimestampTz after = TIMESTAMP_NOT_FINITE(schedule->made_up_to) ? schedule->last_tick :
		schedule->made_up_to;

	/* a tick of the past, fired by hand, is no sign that others were missed */
	if (fired <= after && !TIMESTAMP_NOT_FINITE(schedule->last_tick))
		return;
	if (schedule->catch_up == CATCH_UP_ALL)
		catch_up_all(schedule, cron, after, fired);
	else
	{
		schedule->made_up_to = DT_NOBEGIN;
		if (schedule->catch_up == CATCH_UP_LATEST)
			catch_up_latest(schedule, cron, after, fired);
	}
}

/* schedule_fire(schedule_id text, tick timestamptz) */
Datum
trigger_idem_schedule_fire(PG_FUNCTION_ARGS)
{
	/* before the row is locked, which may take a while */
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz tick;
	Schedule	schedule;
	Cron		cron;
	TriggerResult result;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	PreventCommandDuringRecovery("schedule_fire()");
	PreventCommandIfReadOnly("schedule_fire()");
	if (!schedule_lock_ours(fcinfo, false, &schedule))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("schedule \"%s\" does not exist", text_to_cstring(PG_GETARG_TEXT_PP(0))),
				 errhint("Create it with trigger_idem.schedule_create().")));
	cron_require(schedule.cron, &cron);
	tick = tick_choose(&schedule, &cron, fcinfo->args[1], now);
	schedule.before = DT_NOBEGIN;
	if (tick > now)
		/* one to come, ahead of its time: says nothing of those before it */
		tick_trigger(&schedule, tick, &result);
	else
	{
		schedule_catch_up(&schedule, &cron, tick);
		tick_fire(&schedule, tick, &result);
		schedule_mark(&schedule, tick, &result.run_id);
	}

	values[0] = UUIDPGetDatum(&result.run_id);
	values[1] = BoolGetDatum(result.is_cached);
	PG_RETURN_DATUM(answer_row(fcinfo, values, nulls));
}

/* ---------- work_schedule ---------- */

/* work_schedule(cron text, queue text): one job for each role and queue */
Datum
trigger_idem_work_schedule(PG_FUNCTION_ARGS)
{
	char	   *queue = text_arg(fcinfo, 1);
	CronJob		job = {.kind = CRONJOB_WORK,.subject = queue};

	job.cron = cron_arg(fcinfo, 0);
	if (queue)
		identifier_check("queue", queue);
	job.command = queue ?
		psprintf("CALL trigger_idem.work(queue => %s)", quote_literal_cstr(queue)) :
		"CALL trigger_idem.work()";
	cronjob_create(&job, GetUserId());
	PG_RETURN_VOID();
}
