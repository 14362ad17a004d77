/*-------------------------------------------------------------------------
 *
 * cronjob.c
 *	  Jobs of pg_cron: making and dropping them.
 *
 * pg_cron lives in one database of the server, cron.database_name, and can be
 * called there only.  It has a job executed as the role that has scheduled it, so
 * we call it as that role, whose rights it checks, and not as our owner.  All that
 * is used of it is in every version since 1.3.
 *
 * A job is known by its name and its role, and replaced by one that has the same.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "background.h"
#include "cron.h"
#include "cronjob.h"
#include "key.h"
#include "statement.h"

/* ---------- Names and expressions ---------- */

/*
 * The name of a job; with the database that it is executed in where that is another
 * one than pg_cron's, which knows one job of each name and role.  Some versions of pg_cron keep no more of it than fits into a
 * type name: what is longer is replaced by its hash.
 */
static char *
job_name(const CronJob *job, const char *database)
{
	char	   *name = psprintf("trigger_idem %s%s%s%s%s", database ? database : "",
								database ? " " : "", job->kind, job->subject ? " " : "",
								job->subject ? job->subject : "");
	KeyMaterial material;
	Key			hash;

	if (strlen(name) < NAMEDATALEN)
		return name;
	key_material_begin(&material, "trigger_idem job v1");
	if (database)
		key_material_cstring(&material, database);
	key_material_cstring(&material, job->subject ? job->subject : "");
	key_material_hash(&material, &hash);
	return psprintf("trigger_idem %s %.32s", job->kind, text_to_cstring(key_to_hex(&hash)));
}

/*
 * The expression as pg_cron is to have it.  It accepts names for once a year, but
 * from 1.5 on never fires them.
 */
static const char *
job_expression(const CronJob *job)
{
	bool		is_yearly = strcmp(job->cron, "@yearly") == 0 || strcmp(job->cron, "@annually") == 0;

	return is_yearly ? "0 0 1 1 *" : job->cron;
}

/* ---------- Is pg_cron there? ---------- */

/* What to run where pg_cron is, to make a job that is executed here */
static char *
job_elsewhere(const CronJob *job)
{
	char	   *database = get_database_name(MyDatabaseId);

	return psprintf("SELECT cron.schedule_in_database(%s, %s, %s, %s);",
					quote_literal_cstr(job_name(job, database)),
					quote_literal_cstr(job_expression(job)),
					quote_literal_cstr(job->command), quote_literal_cstr(database));
}

/* Can a job be made here?  0A000, with what to do instead. */
void
cronjob_require_extension(const CronJob *job)
{
	const char *database = cron_setting("cron.database_name");

	if (database == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("pg_cron is not loaded"),
				 errhint("Add pg_cron to shared_preload_libraries, set cron.database_name, restart the server and CREATE EXTENSION pg_cron.")));
	if (OidIsValid(get_extension_oid("pg_cron", true)))
		return;
	if (strcmp(database, get_database_name(MyDatabaseId)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("extension pg_cron is not installed"),
				 errhint("CREATE EXTENSION pg_cron, as a superuser.")));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("pg_cron is in another database"),
			 errdetail("It is in database \"%s\", and makes jobs from there only.", database),
			 strcmp(job->kind, CRONJOB_SCHEDULE) == 0 ?
			 errhint("Create the schedule with cron_job => false, and in \"%s\", as \"%s\", run: %s",
					 database, GetUserNameFromId(GetUserId(), false), job_elsewhere(job)) :
			 errhint("In \"%s\", as \"%s\", run: %s",
					 database, GetUserNameFromId(GetUserId(), false), job_elsewhere(job))));
}

static Statement may_call = {
	.sql = "SELECT pg_catalog.has_schema_privilege($1, n.oid, 'USAGE') AND COALESCE(("
	"  SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege($1, p.oid, 'EXECUTE'))"
	"  FROM pg_catalog.pg_proc p WHERE p.pronamespace OPERATOR(pg_catalog.=) n.oid"
	"    AND p.proname OPERATOR(pg_catalog.=) ANY ('{schedule,unschedule}')), false) "
	"FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) 'cron'",
	.expected = SPI_OK_SELECT,
	.argtypes = {OIDOID}
};

/* May a role use pg_cron?  42501 */
static void
role_check(Oid role)
{
	OwnerScope	scope;
	Datum		value = ObjectIdGetDatum(role);
	bool		may;

	owner_begin(&scope);
	may = statement_run(&may_call, &value, NULL) == 1 && DatumGetBool(statement_value(0, 1, NULL));
	owner_end(&scope);
	if (!may)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not use pg_cron", GetUserNameFromId(role, false)),
				 errhint("GRANT USAGE ON SCHEMA cron TO %s.",
						 quote_identifier(GetUserNameFromId(role, false)))));
}

/* ---------- Jobs ---------- */

static Statement schedule_job = {
	.sql = "SELECT cron.schedule($1, $2, $3)",
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTOID, TEXTOID, TEXTOID}
};

static Statement unschedule_job = {
	.sql = "SELECT cron.unschedule(j.jobid) FROM cron.job j"
	"  WHERE j.jobname::pg_catalog.text OPERATOR(pg_catalog.=) $1"
	"    AND j.username::pg_catalog.text OPERATOR(pg_catalog.=) $2"
	"    AND j.database::pg_catalog.text OPERATOR(pg_catalog.=)"
	"      pg_catalog.current_database()::pg_catalog.text",
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTOID, TEXTOID}
};

/*
 * Have pg_cron execute a command as a role, which the caller is or may become.  An
 * expression that pg_cron does not accept is refused by itself, with 22023.
 */
void
cronjob_create(const CronJob *job, Oid role)
{
	OwnerScope	scope;
	Datum		values[3] = {CStringGetTextDatum(job_name(job, NULL)),
	CStringGetTextDatum(job_expression(job)), CStringGetTextDatum(job->command)};

	cronjob_require_extension(job);
	role_check(role);
	/* those of pg_cron have to, on all versions */
	if (!background_role_may_log_in(role))
		ereport(WARNING,
				(errmsg("pg_cron cannot execute the job"),
				 errdetail("Role \"%s\" may not log in.", GetUserNameFromId(role, false))));
	role_begin(&scope, role);
	statement_run(&schedule_job, values, NULL);
	owner_end(&scope);
}

/*
 * Drop a job that a role has, if there is one.  The caller may become that role, or
 * is a superuser, who needs neither its rights nor that it is still there.  Where
 * pg_cron is gone its jobs are gone with it.
 */
void
cronjob_drop(const CronJob *job, const char *owner)
{
	OwnerScope	scope;
	Datum		values[2] = {CStringGetTextDatum(job_name(job, NULL)), CStringGetTextDatum(owner)};
	Oid			role;

	if (!OidIsValid(get_extension_oid("pg_cron", true)))
		return;
	role = superuser() ? GetUserId() : get_role_oid(owner, false);
	role_check(role);
	role_begin(&scope, role);
	statement_run(&unschedule_job, values, NULL);
	owner_end(&scope);
}
