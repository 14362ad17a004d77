/*-------------------------------------------------------------------------
 *
 * access.c
 *	  Who may do what: the rules for functions, and access_grant().
 *
 * The table access_entry says what a role may do, for one task or for all; the
 * members that inherit from it may do the same.  Superusers and the owner of the
 * extension may do everything, and the owner of a task everything with it.  The
 * rules for views are in views.sql, and the same.
 *
 * access_grant() also gives the role the privileges on functions and views that
 * it needs to get here.  These decide nothing: whoever was granted EXECUTE by
 * hand still needs an entry.
 *
 * Each session keeps what it has read, for the roles that it was, until the
 * table, a role, a membership or the privileges on a schema change.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "access.h"
#include "environment.h"
#include "statement.h"
#include "store.h"
#include "task.h"

PG_FUNCTION_INFO_V1(trigger_idem_access_grant);
PG_FUNCTION_INFO_V1(trigger_idem_access_revoke);

#define ACCESS_ALL (ACCESS_TRIGGER | ACCESS_MONITOR | ACCESS_WORK | ACCESS_ADMIN)

/* What can be granted, and all that each includes */
static const struct
{
	const char *name;
	Access		access;
	uint32		includes;
}			accesses[] = {
	{"trigger", ACCESS_TRIGGER, ACCESS_TRIGGER},
	{"monitor", ACCESS_MONITOR, ACCESS_MONITOR},
	{"work", ACCESS_WORK, ACCESS_TRIGGER | ACCESS_MONITOR | ACCESS_WORK},
	{"admin", ACCESS_ADMIN, ACCESS_ALL},
};

/* What one of them allows: 22004, 22023 for what is none */
static uint32
access_parse(const char *name)
{
	for (size_t i = 0; name && i < lengthof(accesses); i++)
		if (strcmp(name, accesses[i].name) == 0)
			return accesses[i].includes;
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("access must not be null")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown access \"%s\"", name),
			 errhint("It is \"trigger\", \"monitor\", \"work\" or \"admin\".")));
}

static const char *
access_name(Access access)
{
	for (size_t i = 0; i < lengthof(accesses); i++)
		if (accesses[i].access == access)
			return accesses[i].name;
	pg_unreachable();
}

/* ---------- What a role may do ---------- */

/* What a role may do with one task */
typedef struct TaskAccess
{
	char	   *task_id;
	uint32		allowed;
} TaskAccess;

/* All that a role may do */
typedef struct RoleAccess
{
	Oid			role;			/* hash key */
	bool		is_unlimited;	/* a superuser, or the extension's owner */
	uint32		for_all;		/* with all tasks */
	uint32		for_any;		/* with at least one */
	List	   *tasks;
} RoleAccess;

#define READ_TRIES	10

static HTAB *cache = NULL;
static MemoryContext cache_context = NULL;
static bool cache_stale = true;

static void
cache_invalidate(void)
{
	cache_stale = true;
}

/* Syscache callback: a role, a membership, or privileges on a schema changed. */
static void
role_changed(Datum arg, int cacheid, uint32 hash)
{
	cache_stale = true;
}

/* Called once, when the library is loaded. */
void
access_init(void)
{
	store_on_invalidation(STORE_ACCESS_ENTRY, cache_invalidate);
	CacheRegisterSyscacheCallback(AUTHOID, role_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, role_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, role_changed, (Datum) 0);
	/* whose owner has a role of its own */
	CacheRegisterSyscacheCallback(DATABASEOID, role_changed, (Datum) 0);
}

static void
cache_reset(void)
{
	HASHCTL		info = {.keysize = sizeof(Oid),.entrysize = sizeof(RoleAccess)};

	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(TopMemoryContext, "trigger_idem access",
											  ALLOCSET_SMALL_SIZES);
	MemoryContextReset(cache_context);
	info.hcxt = cache_context;
	cache = hash_create("trigger_idem access", 8, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	cache_stale = false;
}

static Statement read_entries = {
	.sql = "SELECT e.access, e.task_id FROM trigger_idem.access_in_force e "
	"WHERE pg_catalog.pg_has_role($1, e.role_id, 'USAGE')",
	.expected = SPI_OK_SELECT,
	.argtypes = {OIDOID}
};

static void
role_access_add(RoleAccess *role, const char *task_id, uint32 allowed)
{
	ListCell   *cell;
	TaskAccess *task;

	role->for_any |= allowed;
	if (task_id[0] == '\0')
	{
		role->for_all |= allowed;
		return;
	}
	foreach(cell, role->tasks)
	{
		task = lfirst(cell);
		if (strcmp(task->task_id, task_id) == 0)
		{
			task->allowed |= allowed;
			return;
		}
	}
	task = palloc(sizeof(TaskAccess));
	task->task_id = pstrdup(task_id);
	task->allowed = allowed;
	role->tasks = lappend(role->tasks, task);
}

/* Read what a role may do, into the context of the cache. */
static void
role_access_read(RoleAccess *role)
{
	OwnerScope	scope;
	Datum		values[1] = {ObjectIdGetDatum(role->role)};
	uint64		count;

	role->is_unlimited = has_privs_of_role(role->role, store_owner());
	if (role->is_unlimited)
	{
		role->for_all = role->for_any = ACCESS_ALL;
		return;
	}
	owner_begin(&scope);
	scope_see_latest(&scope);
	count = statement_run(&read_entries, values, NULL);
	for (uint64 i = 0; i < count; i++)
	{
		char	   *name = TextDatumGetCString(statement_value(i, 1, NULL));
		char	   *task_id = TextDatumGetCString(statement_value(i, 2, NULL));
		MemoryContext spi = MemoryContextSwitchTo(cache_context);

		role_access_add(role, task_id, access_parse(name));
		MemoryContextSwitchTo(spi);
	}
	owner_end(&scope);
}

/* All that the caller may do; good until the next call */
static const RoleAccess *
caller_access(void)
{
	Oid			user = GetUserId();
	RoleAccess *known;
	RoleAccess	read;

	/*
	 * what was revoked since is not to be used in a transaction under way
	 * either
	 */
	AcceptInvalidationMessages();
	if (likely(!cache_stale))
	{
		known = hash_search(cache, &user, HASH_FIND, NULL);
		if (likely(known != NULL))
			return known;
	}

	/*
	 * Reading may bring in an invalidation, and then begins anew; but not for
	 * ever, for with debug_discard_caches it always does.  What is read is
	 * entered as a whole, for it may fail.
	 */
	for (int tries = 0; tries == 0 || (cache_stale && tries < READ_TRIES); tries++)
	{
		if (cache_stale)
			cache_reset();
		memset(&read, 0, sizeof(read));
		read.role = user;
		role_access_read(&read);
	}
	known = hash_search(cache, &user, HASH_ENTER, NULL);
	*known = read;
	return known;
}

/* Is user a member of the role with this name?  Superusers always are. */
bool
access_is_member(Oid user, const char *role)
{
	Oid			oid = get_role_oid(role, true);

	return superuser_arg(user) || (OidIsValid(oid) && compat_is_member(user, oid));
}

/* May the caller do everything, in every environment? */
bool
access_is_unlimited(void)
{
	return caller_access()->is_unlimited;
}

/* Was the caller granted an access, for this task or for all? */
bool
access_allows(Access access, const char *task_id)
{
	const RoleAccess *caller = caller_access();
	ListCell   *cell;

	if (caller->for_all & access)
		return true;
	foreach(cell, caller->tasks)
	{
		const TaskAccess *task = lfirst(cell);

		if ((task->allowed & access) && strcmp(task->task_id, task_id) == 0)
			return true;
	}
	return false;
}

static bool
owns_task(const Task *task)
{
	return task != NULL && access_is_member(GetUserId(), task->owner);
}

static Statement read_owners = {
	.sql = "SELECT DISTINCT owner FROM trigger_idem.task",
	.expected = SPI_OK_SELECT
};

/* Does the caller own any task? */
bool
access_owns_a_task(void)
{
	OwnerScope	scope;
	Oid			user = GetUserId();
	uint64		count;
	bool		found = false;

	owner_begin(&scope);
	count = statement_run(&read_owners, NULL, NULL);
	for (uint64 i = 0; i < count && !found; i++)
		found = access_is_member(user, TextDatumGetCString(statement_value(i, 1, NULL)));
	owner_end(&scope);
	return found;
}

/* ---------- Runs ---------- */

/*
 * May the caller do something with a run?  The task's owner may, in every
 * environment; in one that is open to the caller, whoever may do that with all
 * runs of the task, and whoever may trigger it with those that his roles have
 * triggered.
 */
static bool
may_use_run(Access access, const char *task_id, const char *triggered_by,
			const char *environment)
{
	if (access_is_unlimited() || owns_task(task_find(task_id)))
		return true;
	return environment_is_open(environment) &&
		(access_allows(access, task_id) ||
		 (access_allows(ACCESS_TRIGGER, task_id) && access_is_member(GetUserId(), triggered_by)));
}

bool
access_may_see_run(const char *task_id, const char *triggered_by, const char *environment)
{
	return may_use_run(ACCESS_MONITOR, task_id, triggered_by, environment);
}

/* May the caller cancel and replay a run, and reset its key? */
bool
access_may_control_run(const char *task_id, const char *triggered_by, const char *environment)
{
	return may_use_run(ACCESS_ADMIN, task_id, triggered_by, environment);
}

/*
 * May the caller work runs of a task from outside the database, in environments
 * that are open to him?  Whom its owner has named may, too.
 */
bool
access_may_work(const Task *task)
{
	return access_allows(ACCESS_WORK, task->task_id) || owns_task(task) ||
		access_is_member(GetUserId(), task->run_as);
}

/* ---------- Requirements ---------- */

/* 42501, unless the caller may do this with a task */
void
access_require(Access access, const Task *task)
{
	if (likely(access_allows(access, task->task_id)) || owns_task(task))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for task \"%s\"", task->task_id),
			 errdetail("This needs the access \"%s\".", access_name(access)),
			 errhint("trigger_idem.access_grant() grants it.")));
}

/* 42501, unless the caller may do this with all tasks */
void
access_require_for_all(Access access, const char *function)
{
	if (caller_access()->for_all & access)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to call %s", function),
			 errdetail("This needs the access \"%s\" for all tasks.", access_name(access)),
			 errhint("trigger_idem.access_grant() grants it.")));
}

/* 42501, unless the caller may do this with any task */
void
access_require_for_any(Access access, const char *function)
{
	if (caller_access()->for_any & access)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to call %s", function),
			 errdetail("This needs the access \"%s\", for a task or for all.", access_name(access)),
			 errhint("trigger_idem.access_grant() grants it.")));
}

/* 42501: who may see a run of others need not be one who may control it. */
void
access_control_error(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for a run of another role"),
			 errdetail("This needs the access \"%s\", or to own its task.",
					   access_name(ACCESS_ADMIN)),
			 errhint("trigger_idem.access_grant() grants it.")));
}

/* ---------- Privileges ---------- */

/* The functions and procedures, and with which accesses one may call them */
static const struct
{
	uint32		accesses;
	const char *routines[48];
}			privileges[] = {

	{ACCESS_TRIGGER | ACCESS_MONITOR, {
			"idempotency_key_create", "idempotency_key_from_payload",
			"current_run_id", "current_attempt", "cron_next_tick",
			"run_timeline", "run_page", "runs_page", "run_progress_of"
	}},
	/* what the pages are made of */
	{ACCESS_TRIGGER | ACCESS_MONITOR, {
			"run_require", "runs_walk", "idempotency_key_holder",
			"error_summary", "duration_text", "progress_text",
			"html_fact", "html_jsonb", "html_page", "html_query_value", "html_status", "html_style",
			"html_text", "html_time",
			"page_bar", "page_error", "page_events", "page_facts", "page_key", "page_key_state",
			"page_lane", "page_lane_name", "page_lanes", "page_progress", "page_run_lane",
			"list_chart", "list_counts", "list_filter", "list_form", "list_options", "list_query",
			"list_queues", "list_rows", "list_statuses", "list_value"
	}},
	{ACCESS_MONITOR, {
			"stats", "stats_shared", "stats_tables"
	}},
	{ACCESS_TRIGGER, {
			"trigger_task", "batch_trigger_task",
			"trigger_task_and_wait", "batch_trigger_task_and_wait", "run_wait",
			"wait_for", "wait_until", "wait_token_create", "wait_token_complete", "wait_for_token",
			"run_once", "run_once_sql", "run_once_local_only", "run_progress",
			"idempotency_key_reset", "run_cancel", "run_replay",
			"schedule_create", "schedule_drop", "schedule_fire"
	}},
	{ACCESS_WORK, {
			"task_create", "task_drop", "access_grant", "access_revoke",
			"work", "work_schedule", "run_claim", "run_heartbeat", "run_enter",
			"run_once_begin", "run_once_end", "run_complete", "run_fail", "run_release"
	}},
	{ACCESS_ADMIN, {
			"queue_pause", "queue_resume", "prune", "environment_create", "environment_drop"
	}},
};

/* With any of them one may read these; the views decide what is shown. */
#define ACCESS_VIEWS \
	"trigger_idem.runs, trigger_idem.attempts, trigger_idem.steps, trigger_idem.waits," \
	" trigger_idem.wait_tokens, trigger_idem.idempotency_keys, trigger_idem.tasks," \
	" trigger_idem.queues, trigger_idem.paused_queues, trigger_idem.schedules," \
	" trigger_idem.environments, trigger_idem.grants"

/* The signatures of routines with these names, as GRANT takes them */
static Statement find_routines = {
	.sql = "SELECT pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::pg_catalog.text, ', ')"
	"  FROM pg_catalog.pg_proc p"
	"  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace"
	"  WHERE n.nspname OPERATOR(pg_catalog.=) 'trigger_idem'"
	"    AND p.proname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1)",
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTARRAYOID}
};

/* The signatures of what these accesses need, or do not need; NULL: nothing */
static char *
access_routines(OwnerScope *scope, uint32 allowed, bool is_needed)
{
	Datum		names[lengthof(privileges) * lengthof(privileges[0].routines)];
	int			count = 0;
	Datum		values[1];

	for (size_t i = 0; i < lengthof(privileges); i++)
	{
		if (((privileges[i].accesses & allowed) != 0) != is_needed)
			continue;
		for (size_t j = 0; j < lengthof(privileges[i].routines) && privileges[i].routines[j]; j++)
			names[count++] = CStringGetTextDatum(privileges[i].routines[j]);
	}
	values[0] = PointerGetDatum(construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT));
	statement_run(&find_routines, values, NULL);
	return statement_text(scope, 0, 1);
}

static Statement read_own_entries = {
	.sql = "SELECT DISTINCT e.access FROM trigger_idem.access_entry e "
	"WHERE e.role OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_SELECT,
	.argtypes = {TEXTOID}
};

/* Give a role the privileges that its entries need, and take away the others. */
static void
privileges_set(OwnerScope *scope, const char *role)
{
	const char *name = quote_identifier(role);
	Datum		values[1] = {CStringGetTextDatum(role)};
	uint64		count = statement_run(&read_own_entries, values, NULL);
	uint32		allowed = 0;
	char	   *routines;

	for (uint64 i = 0; i < count; i++)
		allowed |= access_parse(TextDatumGetCString(statement_value(i, 1, NULL)));
	routines = access_routines(scope, allowed, false);
	if (routines)
		statement_command(psprintf("REVOKE EXECUTE ON ROUTINE %s FROM %s", routines, name));
	if (allowed == 0)
	{
		statement_command(psprintf("REVOKE SELECT ON " ACCESS_VIEWS " FROM %s", name));
		statement_command(psprintf("REVOKE USAGE ON TYPE trigger_idem.run_status FROM %s", name));
		statement_command(psprintf("REVOKE USAGE ON SCHEMA trigger_idem FROM %s", name));
		return;
	}
	routines = access_routines(scope, allowed, true);
	statement_command(psprintf("GRANT EXECUTE ON ROUTINE %s TO %s", routines, name));
	statement_command(psprintf("GRANT SELECT ON " ACCESS_VIEWS " TO %s", name));
	statement_command(psprintf("GRANT USAGE ON TYPE trigger_idem.run_status TO %s", name));
	statement_command(psprintf("GRANT USAGE ON SCHEMA trigger_idem TO %s", name));
}

/* ---------- access_grant, access_revoke ---------- */

static Statement insert_entry = {
	.sql = "INSERT INTO trigger_idem.access_entry (role, access, task_id, granted_by, granted_at) "
	"VALUES ($1, $2, $3, $4, pg_catalog.clock_timestamp()) ON CONFLICT DO NOTHING",
	.expected = SPI_OK_INSERT,
	.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID}
};

/* What another role of that name was granted */
static Statement delete_stale_entries = {
	.sql = "DELETE FROM trigger_idem.access_entry e WHERE e.role OPERATOR(pg_catalog.=) $1"
	"  AND NOT EXISTS (SELECT FROM trigger_idem.access_in_force f"
	"    WHERE f.role OPERATOR(pg_catalog.=) e.role AND f.access OPERATOR(pg_catalog.=) e.access)",
	.expected = SPI_OK_DELETE,
	.argtypes = {TEXTOID}
};

/* For all tasks: that for single tasks goes, too, as with columns of a table */
static Statement delete_entries = {
	.sql = "DELETE FROM trigger_idem.access_entry WHERE role OPERATOR(pg_catalog.=) $1"
	"  AND access OPERATOR(pg_catalog.=) $2"
	"  AND (task_id OPERATOR(pg_catalog.=) $3 OR $3 OPERATOR(pg_catalog.=) '')",
	.expected = SPI_OK_DELETE,
	.argtypes = {TEXTOID, TEXTOID, TEXTOID}
};

/* GRANT fails where two transactions do it to one object: they take turns. */
static Statement lock_entries = {
	.sql = "LOCK TABLE trigger_idem.access_entry IN SHARE ROW EXCLUSIVE MODE",
	.expected = SPI_OK_UTILITY
};

/* The name of the role that is the first argument: 22004, 42704 */
static char *
role_arg(FunctionCallInfo fcinfo)
{
	char	   *name;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("role must not be null")));
	name = GetUserNameFromId(PG_GETARG_OID(0), true);
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", PG_GETARG_OID(0))));
	return name;
}

/*
 * The task that is the third argument, empty for all of them.  Its administrators
 * may grant access to it, all others only those of everything: 42501, 42704
 */
static Datum
task_arg(FunctionCallInfo fcinfo, const char *function)
{
	char	   *task_id;
	const Task *task;

	if (PG_ARGISNULL(2))
	{
		access_require_for_all(ACCESS_ADMIN, function);
		return CStringGetTextDatum("");
	}
	task_id = text_to_cstring(PG_GETARG_TEXT_PP(2));
	identifier_check("task", task_id);
	/* of one that was dropped, too, for its runs are still there */
	task = task_find(task_id);
	access_require(ACCESS_ADMIN, task ? task : task_require(task_id));
	return PG_GETARG_DATUM(2);
}

/* What both have in common: change the entries, and then the privileges. */
static void
access_change(FunctionCallInfo fcinfo, Statement *change, const char *function)
{
	OwnerScope	scope;
	Datum		values[4];
	char	   *role = role_arg(fcinfo);

	(void) access_parse(PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)));
	values[0] = CStringGetTextDatum(role);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = task_arg(fcinfo, function);
	values[3] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));

	owner_begin(&scope);
	statement_run(&lock_entries, NULL, NULL);
	/* what is to be set depends on what others have committed by now */
	scope_see_latest(&scope);
	if (statement_run(&delete_stale_entries, values, NULL) > 0)
		ereport(NOTICE,
				(errmsg("accesses of role \"%s\" without the privileges that belong to them were removed", role),
				 errdetail("They were granted to another role of that name, or restored without privileges.")));
	statement_run(change, values, NULL);
	privileges_set(&scope, role);
	owner_end(&scope);
	CacheInvalidateRelcacheByRelid(store_table_id(STORE_ACCESS_ENTRY));
	CommandCounterIncrement();
}

/* access_grant(role regrole, access text, task_id text) */
Datum
trigger_idem_access_grant(PG_FUNCTION_ARGS)
{
	access_change(fcinfo, &insert_entry, "access_grant() for all tasks");
	PG_RETURN_VOID();
}

/* access_revoke(role regrole, access text, task_id text) */
Datum
trigger_idem_access_revoke(PG_FUNCTION_ARGS)
{
	access_change(fcinfo, &delete_entries, "access_revoke() for all tasks");
	PG_RETURN_VOID();
}

static Statement delete_task_entries = {
	.sql = "DELETE FROM trigger_idem.access_entry WHERE task_id OPERATOR(pg_catalog.=) $1",
	.expected = SPI_OK_DELETE,
	.argtypes = {TEXTOID}
};

/*
 * A task's name gets a new owner, inside an owner scope: what the old one has
 * granted is not his any more.  The privileges stay, and allow nothing.
 */
void
access_forget_task(Datum task_id)
{
	if (statement_run(&delete_task_entries, &task_id, NULL) > 0)
		CacheInvalidateRelcacheByRelid(store_table_id(STORE_ACCESS_ENTRY));
}
