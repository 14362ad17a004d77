/*-------------------------------------------------------------------------
 *
 * background.c
 *	  Background workers, where the library is preloaded.
 *
 *	launcher.c			one for the server, which starts the others
 *	scanner.c			looks at one database: which roles have something due?
 *	background_worker.c	works what is due for one role in one database
 *
 * Who makes a run runnable wakes an idle worker of its role when he commits, or
 * asks the launcher for one.  What is missed, or becomes due by the clock, the
 * next scan finds.
 *
 * All of this stands in shared memory, under one lock that nobody holds while he
 * does anything else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "background.h"
#include "background_shared.h"
#include "compat.h"
#include "trigger_idem.h"

/* After DROP DATABASE was tried, nothing is started there for so long. */
#define STEP_ASIDE_MS	10000

Shared	   *background = NULL;

/* Settings */
char	   *background_databases = NULL;
int			background_max_workers = 8;
int			background_max_workers_per_database = 4;
int			background_worker_idle_time = 10000;
int			background_poll_interval = 5000;

static shmem_request_hook_type previous_shmem_request = NULL;
static shmem_startup_hook_type previous_shmem_startup = NULL;
static ProcessUtility_hook_type previous_process_utility = NULL;

/* Of a worker or a scanner: which slot is ours */
WorkerSlot *background_slot = NULL;

/* Of a session that waits: which of the watchers it is */
static Watcher *my_watcher = NULL;

/* ---------- Shared memory ---------- */

static void
background_shmem_request(void)
{
	if (previous_shmem_request)
		previous_shmem_request();
	RequestAddinShmemSpace(sizeof(Shared));
	RequestNamedLWLockTranche(EXTENSION_NAME, 1);
}

static void
background_shmem_startup(void)
{
	bool		found;

	if (previous_shmem_startup)
		previous_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	background = ShmemInitStruct(EXTENSION_NAME, sizeof(Shared), &found);
	if (!found)
	{
		memset(background, 0, sizeof(Shared));
		background->lock = &GetNamedLWLockTranche(EXTENSION_NAME)->lock;
		background->started_at = GetCurrentTimestamp();
		pg_atomic_init_u32(&background->watching, 0);
		for (int i = 0; i < MAX_DATABASES; i++)
			for (int stat = 0; stat < STATS; stat++)
				pg_atomic_init_u64(&background->stats[i].counts[stat], 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Are there background workers in this server? */
bool
background_is_there(void)
{
	return background != NULL;
}

/* May a role log in? */
bool
background_role_may_log_in(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		may = false;

	if (HeapTupleIsValid(tuple))
	{
		may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
		ReleaseSysCache(tuple);
	}
	return may;
}

/* May a background worker of ours be this role? */
bool
background_may_be(Oid role)
{
#ifdef BGWORKER_BYPASS_ROLELOGINCHECK
	return true;
#else
	return background_role_may_log_in(role);
#endif
}

/* The served database with this OID, or NULL; the lock is held. */
ServedDatabase *
background_find_database(Oid database)
{
	for (int i = 0; i < MAX_DATABASES; i++)
		if (background->databases[i].database == database)
			return &background->databases[i];
	return NULL;
}

void
background_wake_launcher(void)
{
	/* read once, for a signal handler comes here without the lock */
	Latch	   *latch = *(Latch *volatile *) &background->launcher;

	if (latch)
		SetLatch(latch);
}

/*
 * A role has something due in a database: wake an idle worker, or remember that
 * one is needed.  The lock is held.  Where there is no room to remember it, the
 * next scan will find it again.
 */
void
background_demand(Oid database, Oid role)
{
	Demand	   *unused = NULL;

	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &background->workers[i];

		if (worker->state == WORKER_IDLE && worker->database == database &&
			worker->role == role && !worker->stop && worker->latch)
		{
			worker->state = WORKER_BUSY;
			worker->woken_at = GetCurrentTimestamp();
			SetLatch(worker->latch);
			return;
		}
	}
	for (int i = 0; i < MAX_DEMANDS; i++)
	{
		Demand	   *demand = &background->demands[i];

		if (demand->database == database && demand->role == role)
			return;
		if (!OidIsValid(demand->database) && unused == NULL)
			unused = demand;
	}
	if (unused)
	{
		unused->database = database;
		unused->role = role;
		background_wake_launcher();
	}
}

/* Withdraw a demand; true when there was one.  The lock is held. */
bool
background_take_demand(Oid database, Oid role)
{
	for (int i = 0; i < MAX_DEMANDS; i++)
	{
		Demand	   *demand = &background->demands[i];

		if (demand->database == database && demand->role == role)
		{
			demand->database = InvalidOid;
			return true;
		}
	}
	return false;
}

/*
 * Something is runnable for this role, and committed.  Must not raise an error.
 */
void
background_wake(Oid role)
{
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	if (background_find_database(MyDatabaseId))
		background_demand(MyDatabaseId, role);
	LWLockRelease(background->lock);
}

/* The same for one that has made a run runnable from some time on. */
void
background_scan_at(TimestampTz due)
{
	ServedDatabase *served;

	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	served = background_find_database(MyDatabaseId);
	if (served && due < served->scan_at)
	{
		served->scan_at = due;
		background_wake_launcher();
	}
	LWLockRelease(background->lock);
}

/*
 * This worker has runs in hand that it will not begin soon: let a scan find out
 * who else can work them.  Called from a signal handler.
 */
void
background_want_scan(void)
{
	if (background_slot)
	{
		background_slot->wants_scan = true;
		background_wake_launcher();
	}
}

/* ---------- Sessions that wait ---------- */

/* Runs when the session ends in the middle of its wait, too. */
static void
watcher_exit(int code, Datum arg)
{
	background_watch_end();
}

/*
 * Have our latch set when this has happened.  Where there is no room, or no
 * preloading, we have to look ourselves.
 */
void
background_watch(const pg_uuid_t *target)
{
	static bool registered = false;

	if (background == NULL)
		return;
	if (!registered)
		before_shmem_exit(watcher_exit, (Datum) 0);
	registered = true;
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_WATCHERS && my_watcher == NULL; i++)
		if (background->watchers[i].latch == NULL)
		{
			my_watcher = &background->watchers[i];
			my_watcher->latch = MyLatch;
			my_watcher->target = *target;
			pg_atomic_fetch_add_u32(&background->watching, 1);
		}
	LWLockRelease(background->lock);
}

void
background_watch_end(void)
{
	if (my_watcher == NULL)
		return;
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	my_watcher->latch = NULL;
	my_watcher = NULL;
	pg_atomic_fetch_sub_u32(&background->watching, 1);
	LWLockRelease(background->lock);
}

bool
background_has_watchers(void)
{
	return pg_atomic_read_u32(&background->watching) > 0;
}

/* This has happened, and is committed.  Must not raise an error. */
void
background_tell_watchers(const pg_uuid_t *target)
{
	LWLockAcquire(background->lock, LW_SHARED);
	for (int i = 0; i < MAX_WATCHERS; i++)
	{
		Watcher    *watcher = &background->watchers[i];

		if (watcher->latch && memcmp(&watcher->target, target, sizeof(pg_uuid_t)) == 0)
			SetLatch(watcher->latch);
	}
	LWLockRelease(background->lock);
}

/* ---------- Stepping aside ---------- */

/*
 * End the idle workers of a database, and start none there for a while; for its
 * owner, who alone can do what that is for.
 */
static void
leave_database(const char *name)
{
	Oid			database = get_database_oid(name, true);
	ServedDatabase *served;

	if (!OidIsValid(database) || !compat_owns_database(database, GetUserId()))
		return;
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	served = background_find_database(database);
	if (served)
		served->stay_away_until =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STEP_ASIDE_MS);
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &background->workers[i];

		if (worker->state != WORKER_UNUSED && worker->database == database)
		{
			worker->stop = true;
			if (worker->latch)
				SetLatch(worker->latch);
		}
	}
	LWLockRelease(background->lock);
}

/* The option of a command with this name, or NULL */
static DefElem *
option_find(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

/*
 * Commands that need a database without sessions: a worker that has nothing to
 * do shall not be in their way.
 */
static void
background_process_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
						   ProcessUtilityContext context, ParamListInfo params,
						   QueryEnvironment *environment, DestReceiver *receiver,
						   QueryCompletion *completion)
{
	Node	   *command = statement->utilityStmt;

	if (IsA(command, DropdbStmt))
		leave_database(((DropdbStmt *) command)->dbname);
	else if (IsA(command, RenameStmt) &&
			 ((RenameStmt *) command)->renameType == OBJECT_DATABASE)
		leave_database(((RenameStmt *) command)->subname);
	else if (IsA(command, AlterDatabaseStmt) &&
			 option_find(((AlterDatabaseStmt *) command)->options, "tablespace"))
		leave_database(((AlterDatabaseStmt *) command)->dbname);
	else if (IsA(command, CreatedbStmt))
	{
		DefElem    *template = option_find(((CreatedbStmt *) command)->options, "template");

		if (template && template->arg)
			leave_database(defGetString(template));
	}

	if (previous_process_utility)
		previous_process_utility(statement, query, read_only_tree, context, params, environment,
								 receiver, completion);
	else
		standard_ProcessUtility(statement, query, read_only_tree, context, params, environment,
								receiver, completion);
}

/* ---------- Loading ---------- */

/* A list of names, or an asterisk */
static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *names;

	if (SplitIdentifierString(copy, ',', &names))
		return true;
	GUC_check_errdetail("List syntax is invalid.");
	return false;
}

/* Called once, when the library is loaded. */
void
background_init(void)
{
	BackgroundWorker launcher;

	DefineCustomStringVariable("trigger_idem.databases",
							   "Databases that background workers serve, separated by commas; * is all.",
							   NULL,
							   &background_databases,
							   "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_databases, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.max_workers",
							"Most background workers of the server.",
							NULL,
							&background_max_workers,
							8, 0, MAX_WORKERS / 2,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.max_workers_per_database",
							"Most background workers of one database.",
							NULL,
							&background_max_workers_per_database,
							4, 0, MAX_WORKERS / 2,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.worker_idle_time",
							"How long a background worker waits for work before it ends.",
							NULL,
							&background_worker_idle_time,
							10000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.poll_interval",
							"How often the databases are looked at for work that nobody was woken for.",
							NULL,
							&background_poll_interval,
							5000, 10, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_shmem_request = shmem_request_hook;
	shmem_request_hook = background_shmem_request;
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = background_shmem_startup;
	previous_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = background_process_utility;

	memset(&launcher, 0, sizeof(launcher));
	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_RecoveryFinished;
	launcher.bgw_restart_time = 1;
	strlcpy(launcher.bgw_library_name, EXTENSION_NAME, sizeof(launcher.bgw_library_name));
	strlcpy(launcher.bgw_function_name, "trigger_idem_launcher_main",
			sizeof(launcher.bgw_function_name));
	strlcpy(launcher.bgw_name, "trigger_idem launcher", BGW_MAXLEN);
	strlcpy(launcher.bgw_type, "trigger_idem launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&launcher);
}
