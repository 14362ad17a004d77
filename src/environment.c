/*-------------------------------------------------------------------------
 *
 * environment.c
 *	  Environments: isolated key and run spaces of one database.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "current.h"
#include "environment.h"
#include "statement.h"
#include "store.h"
#include "task.h"

#define DEFAULT_ENVIRONMENT "default"

PG_FUNCTION_INFO_V1(trigger_idem_environment_create);

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

/* May the caller use an environment?  role is set when it has one. */
static EnvironmentAccess
environment_access(const char *environment, char **role)
{
	Datum		values[ENVIRONMENT_COLUMNS];
	bool		nulls[ENVIRONMENT_COLUMNS];
	Snapshot	snapshot;
	bool		found;

	if (environment_is_default(environment))
		return ENVIRONMENT_OPEN;
	snapshot = store_snapshot();
	found = store_fetch(STORE_ENVIRONMENT, CStringGetTextDatum(environment), snapshot,
						values, nulls);
	UnregisterSnapshot(snapshot);
	if (!found)
		return ENVIRONMENT_UNKNOWN;
	if (nulls[ENVIRONMENT_ROLE - 1])
		return ENVIRONMENT_OPEN;
	*role = TextDatumGetCString(values[ENVIRONMENT_ROLE - 1]);
	return access_is_member(GetUserId(), *role) ? ENVIRONMENT_OPEN : ENVIRONMENT_CLOSED;
}

/* May the caller see what is in this environment? */
bool
environment_is_open(const char *environment)
{
	char	   *role;

	return environment_access(environment, &role) != ENVIRONMENT_CLOSED;
}

/*
 * The environment that a call is about: the one given, else that of the run
 * being executed, else the setting.  It must exist (42704) and be one that the
 * caller may use (42501).
 */
const char *
environment_choose(text *given)
{
	const char *environment = given ? text_to_cstring(given) :
		current_run() ? current_run()->environment : trigger_idem_environment();
	char	   *role = NULL;
	EnvironmentAccess access = environment_access(environment, &role);

	if (access == ENVIRONMENT_UNKNOWN)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("environment \"%s\" does not exist", environment),
				 errhint("Create it with trigger_idem.environment_create().")));
	if (access == ENVIRONMENT_CLOSED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for environment \"%s\"", environment),
				 errdetail("Members of role \"%s\" may use it.", role)));
	return environment;
}

static Statement upsert_environment = {
	.sql = "INSERT INTO trigger_idem.environment (environment, role) VALUES ($1, $2) "
	"ON CONFLICT (environment) DO UPDATE SET role = excluded.role",
	.expected = SPI_OK_INSERT,
	.argtypes = {TEXTOID, TEXTOID}
};

/* environment_create(environment text, role regrole) */
Datum
trigger_idem_environment_create(PG_FUNCTION_ARGS)
{
	OwnerScope	scope;
	Datum		values[2];
	char		nulls[2] = {' ', PG_ARGISNULL(1) ? 'n' : ' '};
	char	   *environment = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));

	identifier_check("environment", environment);
	if (strcmp(environment, DEFAULT_ENVIRONMENT) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("environment \"%s\" always exists", environment),
				 errdetail("It is open to everyone with access, and cannot be given to a role.")));
	values[0] = CStringGetTextDatum(environment);
	values[1] = PG_ARGISNULL(1) ? (Datum) 0 :
		CStringGetTextDatum(GetUserNameFromId(PG_GETARG_OID(1), false));

	owner_begin(&scope);
	statement_run(&upsert_environment, values, nulls);
	owner_end(&scope);
	PG_RETURN_VOID();
}
