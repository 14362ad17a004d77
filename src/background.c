/*-------------------------------------------------------------------------
 *
 * background.c
 *	  Background workers, where the library is preloaded.
 *
 *	launcher	one for the server; connected to no database.  Starts the others.
 *	scanner		looks at one database, as a superuser who runs no code but ours:
 *				which roles have something due, and when is something due next?
 *				Also ends the attempts of workers that are gone.
 *	worker		works what is due for one role in one database, connected as that
 *				role; waits for more when there is none, and ends when that takes
 *				long
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

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "background.h"
#include "compat.h"
#include "run.h"
#include "store.h"
#include "task.h"
#include "work.h"
#include "worker.h"

#define MAX_WORKERS		64
#define MAX_DATABASES	64
#define MAX_DEMANDS		256
#define MAX_WATCHERS	256

/* After DROP DATABASE was tried, nothing is started there for so long. */
#define STEP_ASIDE_MS	10000

/* A scan looks at no more entries of a queue than this. */
#define SCAN_MAX_ENTRIES 100000

/* A worker that has not begun after this time never will. */
#define START_MAX_MS	30000

/* A role that has something due in a database, and needs a worker */
typedef struct Demand
{
	Oid			database;		/* InvalidOid: unused */
	Oid			role;
} Demand;

typedef enum WorkerState
{
	WORKER_UNUSED,
	WORKER_STARTING,
	WORKER_BUSY,
	WORKER_IDLE,
} WorkerState;

typedef struct WorkerSlot
{
	WorkerState state;
	Oid			database;
	Oid			role;			/* InvalidOid: a scanner */
	pid_t		pid;			/* 0 while it starts */
	Latch	   *latch;
	bool		stop;			/* it shall end when it is idle */
	volatile bool wants_scan;	/* others could work what it has in hand */
	TimestampTz reserved_at;
} WorkerSlot;

typedef struct ServedDatabase
{
	Oid			database;		/* InvalidOid: unused */
	TimestampTz scan_at;
	TimestampTz stay_away_until;
} ServedDatabase;

/* A session that waits for a run or a token */
typedef struct Watcher
{
	Latch	   *latch;			/* NULL: unused */
	pg_uuid_t	target;
} Watcher;

typedef struct Shared
{
	LWLock	   *lock;
	Latch	   *launcher;		/* NULL: it does not run */
	ServedDatabase databases[MAX_DATABASES];
	Demand		demands[MAX_DEMANDS];
	WorkerSlot	workers[MAX_WORKERS];
	pg_atomic_uint32 watching;	/* how many of these are used */
	Watcher		watchers[MAX_WATCHERS];
} Shared;

static Shared *shared = NULL;

/* Settings */
static char *databases_setting = NULL;
static int	max_workers = 8;
static int	max_workers_per_database = 4;
static int	worker_idle_time = 10000;
static int	poll_interval = 5000;

static shmem_request_hook_type previous_shmem_request = NULL;
static shmem_startup_hook_type previous_shmem_startup = NULL;
static ProcessUtility_hook_type previous_process_utility = NULL;

/* Of a worker or a scanner: which slot is ours */
static WorkerSlot *my_slot = NULL;

/* Of a session that waits: which of the watchers it is */
static Watcher *my_watcher = NULL;

PGDLLEXPORT void trigger_idem_launcher_main(Datum arg);
PGDLLEXPORT void trigger_idem_worker_main(Datum arg);

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
	shared = ShmemInitStruct(EXTENSION_NAME, sizeof(Shared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(Shared));
		shared->lock = &GetNamedLWLockTranche(EXTENSION_NAME)->lock;
		pg_atomic_init_u32(&shared->watching, 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Are there background workers in this server? */
bool
background_is_there(void)
{
	return shared != NULL;
}

/* May a background worker be this role? */
bool
background_may_be(Oid role)
{
#ifdef BGWORKER_BYPASS_ROLELOGINCHECK
	return true;
#else
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		may = false;

	if (HeapTupleIsValid(tuple))
	{
		may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
		ReleaseSysCache(tuple);
	}
	return may;
#endif
}

/* The served database with this OID, or NULL; the lock is held. */
static ServedDatabase *
find_database(Oid database)
{
	for (int i = 0; i < MAX_DATABASES; i++)
		if (shared->databases[i].database == database)
			return &shared->databases[i];
	return NULL;
}

static void
wake_launcher(void)
{
	if (shared->launcher)
		SetLatch(shared->launcher);
}

/*
 * A role has something due in a database: wake an idle worker, or remember that
 * one is needed.  The lock is held.  Where there is no room to remember it, the
 * next scan will find it again.
 */
static void
demand_worker(Oid database, Oid role)
{
	Demand	   *unused = NULL;

	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &shared->workers[i];

		if (worker->state == WORKER_IDLE && worker->database == database &&
			worker->role == role && !worker->stop)
		{
			worker->state = WORKER_BUSY;
			SetLatch(worker->latch);
			return;
		}
	}
	for (int i = 0; i < MAX_DEMANDS; i++)
	{
		Demand	   *demand = &shared->demands[i];

		if (demand->database == database && demand->role == role)
			return;
		if (!OidIsValid(demand->database) && unused == NULL)
			unused = demand;
	}
	if (unused)
	{
		unused->database = database;
		unused->role = role;
		wake_launcher();
	}
}

/* Withdraw a demand; true when there was one.  The lock is held. */
static bool
take_demand(Oid database, Oid role)
{
	for (int i = 0; i < MAX_DEMANDS; i++)
	{
		Demand	   *demand = &shared->demands[i];

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
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (find_database(MyDatabaseId))
		demand_worker(MyDatabaseId, role);
	LWLockRelease(shared->lock);
}

/* The same for one that has made a run runnable from some time on. */
void
background_scan_at(TimestampTz due)
{
	ServedDatabase *served;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	served = find_database(MyDatabaseId);
	if (served && due < served->scan_at)
	{
		served->scan_at = due;
		wake_launcher();
	}
	LWLockRelease(shared->lock);
}

/*
 * This worker has runs in hand that it will not begin soon: let a scan find out
 * who else can work them.  Called from a signal handler.
 */
void
background_want_scan(void)
{
	if (my_slot)
	{
		my_slot->wants_scan = true;
		wake_launcher();
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

	if (shared == NULL)
		return;
	if (!registered)
		before_shmem_exit(watcher_exit, (Datum) 0);
	registered = true;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_WATCHERS && my_watcher == NULL; i++)
		if (shared->watchers[i].latch == NULL)
		{
			my_watcher = &shared->watchers[i];
			my_watcher->latch = MyLatch;
			my_watcher->target = *target;
			pg_atomic_fetch_add_u32(&shared->watching, 1);
		}
	LWLockRelease(shared->lock);
}

void
background_watch_end(void)
{
	if (my_watcher == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_watcher->latch = NULL;
	my_watcher = NULL;
	pg_atomic_fetch_sub_u32(&shared->watching, 1);
	LWLockRelease(shared->lock);
}

bool
background_has_watchers(void)
{
	return pg_atomic_read_u32(&shared->watching) > 0;
}

/* This has happened, and is committed.  Must not raise an error. */
void
background_tell_watchers(const pg_uuid_t *target)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_WATCHERS; i++)
	{
		Watcher    *watcher = &shared->watchers[i];

		if (watcher->latch && memcmp(&watcher->target, target, sizeof(pg_uuid_t)) == 0)
			SetLatch(watcher->latch);
	}
	LWLockRelease(shared->lock);
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
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	served = find_database(database);
	if (served)
		served->stay_away_until =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STEP_ASIDE_MS);
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &shared->workers[i];

		if (worker->state != WORKER_UNUSED && worker->database == database)
		{
			worker->stop = true;
			if (worker->latch)
				SetLatch(worker->latch);
		}
	}
	LWLockRelease(shared->lock);
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
	else if (IsA(command, CreatedbStmt))
	{
		ListCell   *cell;

		foreach(cell, ((CreatedbStmt *) command)->options)
		{
			DefElem    *option = lfirst(cell);

			if (strcmp(option->defname, "template") == 0 && option->arg)
				leave_database(defGetString(option));
		}
	}

	if (previous_process_utility)
		previous_process_utility(statement, query, read_only_tree, context, params, environment,
								 receiver, completion);
	else
		standard_ProcessUtility(statement, query, read_only_tree, context, params, environment,
								receiver, completion);
}

/* ---------- The launcher ---------- */

/* Is a database named by the setting? */
static bool
is_served(const char *database, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
		if (strcmp(lfirst(cell), "*") == 0 || strcmp(lfirst(cell), database) == 0)
		return true;
	return false;
}

/* The OIDs of the databases to serve, in the current context */
static List *
databases_to_serve(void)
{
	List	   *databases = NIL;
	List	   *names;
	char	   *setting = pstrdup(databases_setting);
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	/* the setting was checked when it was set */
	if (!SplitIdentifierString(setting, ',', &names) || names == NIL)
		return NIL;
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datallowconn && !database->datistemplate && database->datconnlimit != -2 &&
			is_served(NameStr(database->datname), names))
			databases = lappend_oid(databases, database->oid);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return databases;
}

/* Bring what is served up to date. */
static void
launcher_refresh_databases(MemoryContext context)
{
	List	   *databases;
	ListCell   *cell;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	MemoryContextSwitchTo(context);
	databases = databases_to_serve();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
		if (OidIsValid(shared->databases[i].database) &&
			!list_member_oid(databases, shared->databases[i].database))
			shared->databases[i].database = InvalidOid;
	foreach(cell, databases)
	{
		ServedDatabase *unused;

		if (find_database(lfirst_oid(cell)))
			continue;
		unused = find_database(InvalidOid);
		if (unused == NULL)
			break;
		unused->database = lfirst_oid(cell);
		unused->scan_at = 0;
		unused->stay_away_until = 0;
	}
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &shared->workers[i];

		if (worker->state != WORKER_UNUSED && worker->latch && !find_database(worker->database))
			SetLatch(worker->latch);
	}
	LWLockRelease(shared->lock);
	MemoryContextReset(context);
}

/* Reserve a slot for a worker or, without a role, a scanner; -1: there is none. */
static int
reserve_slot(Oid database, Oid role)
{
	int			slot = -1;
	int			workers = 0;
	int			here = 0;

	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &shared->workers[i];

		if (worker->state == WORKER_UNUSED)
		{
			if (slot < 0)
				slot = i;
			continue;
		}
		if (OidIsValid(worker->role))
			workers++;
		if (worker->database != database || OidIsValid(worker->role) != OidIsValid(role))
			continue;
		here++;
		/* one at a time: the next demand brings the next one */
		if (worker->role == role && worker->state == WORKER_STARTING)
			return -1;
	}
	if (slot < 0 || here >= (OidIsValid(role) ? max_workers_per_database : 1) ||
		(OidIsValid(role) && workers >= max_workers))
		return -1;
	memset(&shared->workers[slot], 0, sizeof(WorkerSlot));
	shared->workers[slot].state = WORKER_STARTING;
	shared->workers[slot].database = database;
	shared->workers[slot].role = role;
	shared->workers[slot].reserved_at = GetCurrentTimestamp();
	return slot;
}

/* Start the worker of a slot; false when the server has no room for it. */
static bool
start_worker(int slot, bool is_scanner)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, EXTENSION_NAME, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "trigger_idem_worker_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, is_scanner ? "trigger_idem scanner" : "trigger_idem worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, worker.bgw_name, BGW_MAXLEN);
	worker.bgw_main_arg = Int32GetDatum(slot);
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/*
 * Slots of workers that died before they could give them back: those whose
 * process is gone.
 */
static void
launcher_reclaim_slots(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &shared->workers[i];

		if (worker->state == WORKER_UNUSED)
			continue;
		if (worker->pid == 0 ?
			TimestampDifferenceExceeds(worker->reserved_at, GetCurrentTimestamp(), START_MAX_MS) :
			BackendPidGetProc(worker->pid) == NULL)
			worker->state = WORKER_UNUSED;
	}
	LWLockRelease(shared->lock);
}

/* Start what is needed; returns when to look again. */
static TimestampTz
launcher_start_workers(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = TimestampTzPlusMilliseconds(now, poll_interval);
	int			start[MAX_WORKERS];
	bool		is_scanner[MAX_WORKERS];
	int			count = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DEMANDS && count < MAX_WORKERS; i++)
	{
		Demand	   *demand = &shared->demands[i];
		ServedDatabase *served;
		int			slot;

		if (!OidIsValid(demand->database))
			continue;
		served = find_database(demand->database);
		slot = served && served->stay_away_until <= now ?
			reserve_slot(demand->database, demand->role) : -1;
		if (slot >= 0)
		{
			start[count] = slot;
			is_scanner[count++] = false;
			demand->database = InvalidOid;
		}
		else if (served == NULL)
			demand->database = InvalidOid;
	}
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &shared->workers[i];
		ServedDatabase *served = worker->wants_scan ? find_database(worker->database) : NULL;

		worker->wants_scan = false;
		if (served)
			served->scan_at = now;
	}
	for (int i = 0; i < MAX_DATABASES && count < MAX_WORKERS; i++)
	{
		ServedDatabase *served = &shared->databases[i];
		int			slot;

		if (!OidIsValid(served->database))
			continue;
		if (served->scan_at <= now && served->stay_away_until <= now &&
			(slot = reserve_slot(served->database, InvalidOid)) >= 0)
		{
			start[count] = slot;
			is_scanner[count++] = true;
			served->scan_at = TimestampTzPlusMilliseconds(now, poll_interval);
		}
		next = Min(next, Max(served->scan_at, served->stay_away_until));
	}
	LWLockRelease(shared->lock);

	for (int i = 0; i < count; i++)
		if (!start_worker(start[i], is_scanner[i]))
		{
			LWLockAcquire(shared->lock, LW_EXCLUSIVE);
			shared->workers[start[i]].state = WORKER_UNUSED;
			LWLockRelease(shared->lock);
			ereport(LOG,
					(errmsg("trigger_idem could not start a background worker"),
					 errhint("Raise max_worker_processes.")));
			next = TimestampTzPlusMilliseconds(now, 1000);
		}
	return Max(next, TimestampTzPlusMilliseconds(now, 1));
}

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = NULL;
	LWLockRelease(shared->lock);
}

/* The launcher's process */
void
trigger_idem_launcher_main(Datum arg)
{
	MemoryContext context;
	TimestampTz refresh_at = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	context = AllocSetContextCreate(TopMemoryContext, "trigger_idem launcher",
									ALLOCSET_DEFAULT_SIZES);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = MyLatch;
	LWLockRelease(shared->lock);
	before_shmem_exit(launcher_exit, (Datum) 0);

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz next;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			refresh_at = 0;
		}
		if (refresh_at <= now)
		{
			launcher_refresh_databases(context);
			refresh_at = TimestampTzPlusMilliseconds(now, poll_interval);
		}
		launcher_reclaim_slots();
		next = Min(launcher_start_workers(), refresh_at);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* ---------- The scanner ---------- */

/* The role that a due entry needs a worker for, or InvalidOid */
static Oid
scan_entry_role(TupleTableSlot *entry)
{
	bool		isnull;
	char	   *task_id = TextDatumGetCString(slot_getattr(entry, ENTRY_TASK_ID, &isnull));
	const Task *task = task_find(task_id);
	Oid			role = InvalidOid;

	pfree(task_id);
	if (task && !task->dropped && task->handler_name)
		role = get_role_oid(task->run_as, true);
	return OidIsValid(role) && background_may_be(role) ? role : InvalidOid;
}

/*
 * Walk along a queue: the roles of what is due are added to roles; the answer is
 * when something is due next.
 */
static TimestampTz
scan_queue(StoreWalk *walk, Datum queue, TimestampTz now, List **roles)
{
	bool		isnull;
	char		last_task[IDENTIFIER_MAX_BYTES + 1] = "";
	int			entries = 0;

	store_walk_seek_queue(walk, queue, DT_NOBEGIN, DT_NOEND);
	while (entries++ < SCAN_MAX_ENTRIES && store_walk_next(walk))
	{
		TimestampTz ord = DatumGetTimestampTz(slot_getattr(walk->slot, ENTRY_ORD, &isnull));
		TimestampTz visible_from =
			DatumGetTimestampTz(slot_getattr(walk->slot, ENTRY_VISIBLE_FROM, &isnull));

		if (TIMESTAMP_NOT_FINITE(ord))
			break;
		if (visible_from > now)
		{
			/*
			 * entries in their order, so what comes later is later, but for
			 * priorities
			 */
			if (ord > now)
				return visible_from;
			continue;
		}
		if (run_entry_status(walk->slot, now) == RUN_QUEUED)
		{
			char	   *task_id = TextDatumGetCString(slot_getattr(walk->slot, ENTRY_TASK_ID, &isnull));

			/* most entries are like the one before */
			if (strcmp(task_id, last_task) != 0)
			{
				Oid			role = scan_entry_role(walk->slot);

				strlcpy(last_task, task_id, sizeof(last_task));
				if (OidIsValid(role))
					*roles = list_append_unique_oid(*roles, role);
			}
			pfree(task_id);
		}
	}
	return DT_NOEND;
}

/* Look at the whole database; returns when something is due next. */
static TimestampTz
scan_database(List **roles)
{
	TimestampTz next = DT_NOEND;
	TimestampTz now;
	Snapshot	snapshot;
	StoreWalk	queues;
	StoreWalk	walk;
	Datum		queue = CStringGetTextDatum("");

	(void) run_take_over_dead();
	CommandCounterIncrement();
	now = GetCurrentTimestamp();
	snapshot = store_latest_snapshot();
	store_walk_begin(&queues, STORE_QUEUE_ORDER, snapshot);
	store_walk_begin(&walk, STORE_QUEUE_ORDER, snapshot);
	for (;;)
	{
		bool		isnull;
		TimestampTz due;

		store_walk_seek_after_queue(&queues, queue);
		if (!store_walk_next(&queues))
			break;
		queue = datumCopy(slot_getattr(queues.slot, ENTRY_QUEUE, &isnull), false, -1);
		due = scan_queue(&walk, queue, now, roles);
		next = Min(next, due);
	}
	store_walk_end(&walk);
	store_walk_end(&queues);
	UnregisterSnapshot(snapshot);
	return next;
}

static void
scanner_run(void)
{
	List	   *roles = NIL;
	ListCell   *cell;
	TimestampTz next = DT_NOEND;
	ServedDatabase *served;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (store_exists())
		next = scan_database(&roles);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	served = find_database(MyDatabaseId);
	if (served)
	{
		foreach(cell, roles)
			demand_worker(MyDatabaseId, lfirst_oid(cell));
		if (next < served->scan_at)
		{
			served->scan_at = next;
			wake_launcher();
		}
	}
	LWLockRelease(shared->lock);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* ---------- The worker ---------- */

/* SIGTERM: give back what is being executed, and end; the second time at once. */
static void
worker_terminate(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (work_stop)
		die(postgres_signal_arg);
	else
		work_request_stop();
	errno = save_errno;
}

static void
worker_exit(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->state = WORKER_UNUSED;
	my_slot->latch = NULL;
	/* somebody may wait for room, or this one has failed: look what there is */
	if (code != 0 && OidIsValid(my_slot->role))
	{
		ServedDatabase *served = find_database(my_slot->database);

		if (served)
			served->scan_at = Min(served->scan_at,
								  TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000));
	}
	wake_launcher();
	LWLockRelease(shared->lock);
}

/*
 * There is nothing to do at the moment: wait until somebody wakes us.  False when
 * that takes too long, or we shall end.
 */
static bool
worker_wait(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), worker_idle_time);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	/* what was triggered since we have looked */
	my_slot->state = take_demand(MyDatabaseId, my_slot->role) ? WORKER_BUSY : WORKER_IDLE;
	LWLockRelease(shared->lock);
	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		bool		is_idle;
		bool		stop;
		long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		is_idle = my_slot->state == WORKER_IDLE;
		stop = work_stop || my_slot->stop || !find_database(MyDatabaseId);
		/* nobody shall wake us any more once we have decided to end */
		if (is_idle && (stop || timeout <= 0))
			my_slot->state = WORKER_BUSY;
		LWLockRelease(shared->lock);
		if (stop)
			return false;
		if (!is_idle)
			return true;
		if (timeout <= 0)
			return false;

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (!work_stop)
			CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}

/* Is the extension there? */
static bool
worker_has_extension(void)
{
	bool		exists;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	exists = store_exists();
	CommitTransactionCommand();
	return exists;
}

/* The process of a worker or a scanner; arg is its slot */
void
trigger_idem_worker_main(Datum arg)
{
	WorkerSlot	slot;
	char	   *worker_id;

	my_slot = &shared->workers[DatumGetInt32(arg)];
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->pid = MyProcPid;
	my_slot->latch = MyLatch;
	my_slot->state = WORKER_BUSY;
	slot = *my_slot;
	LWLockRelease(shared->lock);
	before_shmem_exit(worker_exit, (Datum) 0);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, OidIsValid(slot.role) ? worker_terminate : die);
	BackgroundWorkerUnblockSignals();
#ifdef BGWORKER_BYPASS_ROLELOGINCHECK
	BackgroundWorkerInitializeConnectionByOid(slot.database, slot.role,
											  BGWORKER_BYPASS_ROLELOGINCHECK);
#else
	BackgroundWorkerInitializeConnectionByOid(slot.database, slot.role, 0);
#endif
	pgstat_report_appname(MyBgworkerEntry->bgw_name);
	if (!OidIsValid(slot.role))
	{
		scanner_run();
		proc_exit(0);
	}

	worker_id = psprintf("background worker %d", MyProcPid);
	worker_begin();
	do
	{
		if (!worker_has_extension())
			break;
		(void) work_everything(worker_id);
	} while (worker_wait());
	proc_exit(0);
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
							   &databases_setting,
							   "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_databases, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.max_workers",
							"Most background workers of the server.",
							NULL,
							&max_workers,
							8, 0, MAX_WORKERS / 2,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.max_workers_per_database",
							"Most background workers of one database.",
							NULL,
							&max_workers_per_database,
							4, 0, MAX_WORKERS / 2,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.worker_idle_time",
							"How long a background worker waits for work before it ends.",
							NULL,
							&worker_idle_time,
							10000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("trigger_idem.poll_interval",
							"How often the databases are looked at for work that nobody was woken for.",
							NULL,
							&poll_interval,
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
