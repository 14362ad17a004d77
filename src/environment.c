/*-------------------------------------------------------------------------
 *
 * environment.c
 *	  Environments: isolated key and run spaces of one database.
 *
 * Whoever makes something in one holds its lock in ShareLock until the end of his
 * transaction, and whoever drops it, in ExclusiveLock; both look at what is there
 * only then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "current.h"
#include "environment.h"
#include "key.h"
#include "lock.h"
#include "statement.h"
#include "store.h"
#include "task.h"

#define DEFAULT_ENVIRONMENT "default"

PG_FUNCTION_INFO_V1(trigger_idem_environment_create);
PG_FUNCTION_INFO_V1(trigger_idem_environment_drop);

/* What the table says of an environment */
typedef enum EnvironmentAccess
{
	ENVIRONMENT_UNKNOWN,
	ENVIRONMENT_OPEN,
	ENVIRONMENT_CLOSED,			/* the caller is no member of its role */
} EnvironmentAccess;

bool
environment_is_default(const char *environment)
{
	return strcmp(environment, DEFAULT_ENVIRONMENT) == 0;
}

/*
 * Is there such an environment, which is not the default one, as of now at every
 * isolation level?  role is that of its members, or NULL for all.
 */
static bool
environment_find(const char *environment, char **role)
{
	Datum		values[ENVIRONMENT_COLUMNS];
	bool		nulls[ENVIRONMENT_COLUMNS];
	Snapshot	snapshot = store_latest_snapshot();
	bool		found;

	*role = NULL;
	found = store_fetch(STORE_ENVIRONMENT, CStringGetTextDatum(environment), snapshot,
						values, nulls);
	UnregisterSnapshot(snapshot);
	if (found && !nulls[ENVIRONMENT_ROLE - 1])
		*role = TextDatumGetCString(values[ENVIRONMENT_ROLE - 1]);
	return found;
}

/* May the caller use an environment?  role is set when it has one. */
static EnvironmentAccess
environment_access(const char *environment, char **role)
{
	if (environment_is_default(environment))
		return ENVIRONMENT_OPEN;
	if (!environment_find(environment, role))
		return ENVIRONMENT_UNKNOWN;
	return *role == NULL || access_is_member(GetUserId(), *role) || access_is_unlimited() ?
		ENVIRONMENT_OPEN : ENVIRONMENT_CLOSED;
}

/* May the caller see what is in this environment? */
bool
environment_is_open(const char *environment)
{
	char	   *role;

	return environment_access(environment, &role) == ENVIRONMENT_OPEN;
}

pg_noreturn static void
environment_unknown_error(const char *environment)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("environment \"%s\" does not exist", environment),
			 errhint("Create it with trigger_idem.environment_create().")));
}

pg_noreturn static void
environment_closed_error(const char *environment, const char *role)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for environment \"%s\"", environment),
			 errdetail("Members of role \"%s\" may use it.", role)));
}

/* Is this the environment of the run being executed? */
bool
environment_is_of_run(const char *environment)
{
	return current_run() && strcmp(environment, current_run()->environment) == 0;
}

/*
 * The environment must exist (42704) and be one that the caller may use (42501):
 * any, if he owns the task that the call is about; that of the run which he executes,
 * if it is about nothing but himself, which is task NULL.
 */
static void
environment_require(const char *environment, const Task *task)
{
	char	   *role = NULL;
	EnvironmentAccess access = environment_access(environment, &role);

	if (access == ENVIRONMENT_UNKNOWN)
		environment_unknown_error(environment);
	if (access == ENVIRONMENT_CLOSED &&
		!(task ? access_is_member(GetUserId(), task->owner) : environment_is_of_run(environment)))
		environment_closed_error(environment, role);
}

/*
 * The environment that a call is about: the one given, else that of the run
 * being executed, else the setting.  See environment_require().  It is not the
 * setting's own string, for code of a user may set that.
 */
const char *
environment_choose(text *given, const Task *task)
{
	const CurrentRun *run = current_run();
	const char *environment = given ? text_to_cstring(given) :
		run ? run->environment : pstrdup(trigger_idem_environment());

	environment_require(environment, task);
	return environment;
}

/*
 * The environment that a worker names.  In one that is closed to him he works the
 * tasks that he owns; without any, he has come to the wrong place: 42501
 */
const char *
environment_to_work(text *given)
{
	const char *environment = text_to_cstring(given);
	char	   *role = NULL;
	EnvironmentAccess access = environment_access(environment, &role);

	if (access == ENVIRONMENT_UNKNOWN)
		environment_unknown_error(environment);
	if (access == ENVIRONMENT_CLOSED && !access_owns_a_task())
		environment_closed_error(environment, role);
	return environment;
}

/*
 * A run that its worker may not work in this environment would wait for ever:
 * 42501.  The worker is the task's run_as, or an application of which nobody knows.
 */
void
environment_check_run_as(const char *environment, const Task *task)
{
	char	   *role;
	Oid			run_as;

	if (task->handler_name == NULL || environment_is_default(environment))
		return;
	(void) environment_find(environment, &role);
	run_as = get_role_oid(task->run_as, true);
	if (role == NULL || !OidIsValid(run_as) || access_is_member(run_as, role) ||
		access_is_member(run_as, task->owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("task \"%s\" cannot be worked in environment \"%s\"",
					task->task_id, environment),
			 errdetail("It runs as \"%s\", which is no member of role \"%s\".",
					   task->run_as, role)));
}

/* ---------- Coming and going ---------- */

static LOCKTAG
environment_lock_tag(const char *environment)
{
	KeyMaterial material;
	Key			hash;

	key_material_begin(&material, "trigger_idem environment v1");
	key_material_cstring(&material, environment);
	key_material_hash(&material, &hash);
	return lock_tag(LOCK_ENVIRONMENT, &hash);
}

/*
 * Something is being made in an environment that was chosen: keep it from being
 * dropped until the end of the transaction.  42704 and 42501 when somebody else was
 * faster.
 */
void
environment_keep(const char *environment, const Task *task)
{
	LOCKTAG		tag;

	if (environment_is_default(environment))
		return;
	tag = environment_lock_tag(environment);
	(void) LockAcquire(&tag, ShareLock, false, false);
	environment_require(environment, task);
}

static Statement upsert_environment = {
	.sql = "INSERT INTO trigger_idem.environment (environment, role) VALUES ($1, $2) "
	"ON CONFLICT (environment) DO UPDATE SET role = excluded.role",
	.expected = SPI_OK_INSERT,
	.argtypes = {TEXTOID, TEXTOID}
};

/* A name that an environment can be created or dropped by: 22004, 22023 */
static void
environment_check_name(const char *environment)
{
	identifier_check("environment", environment);
	if (environment_is_default(environment))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("environment \"%s\" always exists", environment),
				 errdetail("It is open to everyone with access, and can neither be given to a role nor dropped.")));
}

/* environment_create(environment text, role regrole) */
Datum
trigger_idem_environment_create(PG_FUNCTION_ARGS)
{
	OwnerScope	scope;
	Datum		values[2];
	char		nulls[2] = {' ', PG_ARGISNULL(1) ? 'n' : ' '};
	char	   *environment = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));

	environment_check_name(environment);
	access_require_for_all(ACCESS_ADMIN, "environment_create()");
	values[0] = CStringGetTextDatum(environment);
	values[1] = PG_ARGISNULL(1) ? (Datum) 0 :
		CStringGetTextDatum(GetUserNameFromId(PG_GETARG_OID(1), false));

	owner_begin(&scope);
	statement_run(&upsert_environment, values, nulls);
	owner_end(&scope);
	PG_RETURN_VOID();
}

/* What is still going on in an environment, or needs what is in it */
static Statement environment_in_use = {
	.sql = "SELECT"
	"  (SELECT pg_catalog.count(*) FROM trigger_idem.queue_entry e"
	"    WHERE e.environment OPERATOR(pg_catalog.=) $1),"
	"  (SELECT pg_catalog.count(*) FROM trigger_idem.schedule s"
	"    WHERE s.environment OPERATOR(pg_catalog.=) $1),"
	"  (SELECT pg_catalog.count(DISTINCT a.run_id) FROM trigger_idem.awaited a"
	"    JOIN trigger_idem.queue_entry e ON e.run_id OPERATOR(pg_catalog.=) a.run_id"
	"    LEFT JOIN trigger_idem.run r ON r.run_id OPERATOR(pg_catalog.=) a.target"
	"    LEFT JOIN trigger_idem.wait_token k ON k.token OPERATOR(pg_catalog.=) a.target"
	"    WHERE COALESCE(r.environment, k.environment) OPERATOR(pg_catalog.=) $1"
	"      AND e.environment OPERATOR(pg_catalog.<>) $1)",
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTOID}
};

/* prune() leaves what is locked */
static Statement lock_environment = {
	.sql = "SELECT FROM trigger_idem.run WHERE environment OPERATOR(pg_catalog.=) $1"
	"  ORDER BY run_id FOR UPDATE",
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTOID}
};

/* What has ended, in this order */
static Statement delete_environment[] = {
	{
		.sql = "DELETE FROM trigger_idem.step s USING trigger_idem.run r"
		"  WHERE r.run_id OPERATOR(pg_catalog.=) s.run_id AND r.environment OPERATOR(pg_catalog.=) $1",
		.expected = SPI_OK_DELETE,
		.argtypes = {TEXTOID}
	},
	{
		.sql = "DELETE FROM trigger_idem.attempt a USING trigger_idem.run r"
		"  WHERE r.run_id OPERATOR(pg_catalog.=) a.run_id AND r.environment OPERATOR(pg_catalog.=) $1",
		.expected = SPI_OK_DELETE,
		.argtypes = {TEXTOID}
	},
	{
		.sql = "DELETE FROM trigger_idem.awaited a USING trigger_idem.run r"
		"  WHERE r.run_id OPERATOR(pg_catalog.=) a.run_id AND r.environment OPERATOR(pg_catalog.=) $1",
		.expected = SPI_OK_DELETE,
		.argtypes = {TEXTOID}
	},
	{
		.sql = "DELETE FROM trigger_idem.wait w USING trigger_idem.run r"
		"  WHERE r.run_id OPERATOR(pg_catalog.=) w.run_id AND r.environment OPERATOR(pg_catalog.=) $1",
		.expected = SPI_OK_DELETE,
		.argtypes = {TEXTOID}
	},
	{
		.sql = "DELETE FROM trigger_idem.run WHERE environment OPERATOR(pg_catalog.=) $1",
		.expected = SPI_OK_DELETE,
		.argtypes = {TEXTOID}
	},
	{
		.sql = "DELETE FROM trigger_idem.idempotency_key WHERE environment OPERATOR(pg_catalog.=) $1",
		.expected = SPI_OK_DELETE,
		.argtypes = {TEXTOID}
	},
	{
		.sql = "DELETE FROM trigger_idem.global_step WHERE environment OPERATOR(pg_catalog.=) $1",
		.expected = SPI_OK_DELETE,
		.argtypes = {TEXTOID}
	},
	{
		.sql = "DELETE FROM trigger_idem.wait_token WHERE environment OPERATOR(pg_catalog.=) $1",
		.expected = SPI_OK_DELETE,
		.argtypes = {TEXTOID}
	},
	{
		.sql = "DELETE FROM trigger_idem.environment WHERE environment OPERATOR(pg_catalog.=) $1",
		.expected = SPI_OK_DELETE,
		.argtypes = {TEXTOID}
	},
};

/* Refuse to drop an environment that is in use, inside an owner scope: 2BP01 */
static void
environment_require_unused(const char *environment, Datum *values)
{
	int64		runs;
	int64		schedules;
	int64		waiting;

	statement_run(&environment_in_use, values, NULL);
	runs = DatumGetInt64(statement_value(0, 1, NULL));
	schedules = DatumGetInt64(statement_value(0, 2, NULL));
	waiting = DatumGetInt64(statement_value(0, 3, NULL));
	if (runs == 0 && schedules == 0 && waiting == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("environment \"%s\" is in use", environment),
			 errdetail("Unfinished runs: %lld; schedules: %lld; runs elsewhere that wait or have waited for something in it: %lld.",
					   (long long) runs, (long long) schedules, (long long) waiting),
			 errhint("Cancel or finish the runs, and drop the schedules.")));
}

/*
 * environment_drop(environment text): true when there was such an environment.
 * What has ended in it goes along, live keys too.
 */
Datum
trigger_idem_environment_drop(PG_FUNCTION_ARGS)
{
	OwnerScope	scope;
	Datum		values[1];
	LOCKTAG		tag;
	uint64		dropped = 0;
	char	   *environment = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));

	environment_check_name(environment);
	access_require_for_all(ACCESS_ADMIN, "environment_drop()");
	PreventCommandDuringRecovery("environment_drop()");
	PreventCommandIfReadOnly("environment_drop()");
	values[0] = PG_GETARG_DATUM(0);

	/* wait for whoever is making something in it, and let nobody begin to */
	tag = environment_lock_tag(environment);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	owner_begin(&scope);
	scope_see_latest(&scope);
	environment_require_unused(environment, values);
	statement_run(&lock_environment, values, NULL);
	for (size_t i = 0; i < lengthof(delete_environment); i++)
		dropped = statement_run(&delete_environment[i], values, NULL);
	owner_end(&scope);
	PG_RETURN_BOOL(dropped > 0);
}
