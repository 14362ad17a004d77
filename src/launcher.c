/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The launcher: one for the server, which starts workers and scanners.
 *
 * It is connected to no database.  It knows which databases are served, starts a
 * scanner in each when that is due, and a worker where one is asked for and there
 * is room.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#include "background_shared.h"
#include "trigger_idem.h"

/* A worker that has not begun after this time never will. */
#define START_MAX_MS	30000

/* ---------- Databases ---------- */

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
	char	   *setting = pstrdup(background_databases);
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	/* the setting was checked when it was set */
	(void) SplitIdentifierString(setting, ',', &names);
	if (names == NIL)
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

	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
		if (OidIsValid(background->databases[i].database) &&
			!list_member_oid(databases, background->databases[i].database))
			background->databases[i].database = InvalidOid;
	foreach(cell, databases)
	{
		ServedDatabase *unused;

		if (background_find_database(lfirst_oid(cell)))
			continue;
		unused = background_find_database(InvalidOid);
		if (unused == NULL)
			break;
		unused->database = lfirst_oid(cell);
		unused->scan_at = 0;
		unused->stay_away_until = 0;
	}
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &background->workers[i];

		if (worker->state != WORKER_UNUSED && worker->latch && !background_find_database(worker->database))
			SetLatch(worker->latch);
	}
	LWLockRelease(background->lock);
	MemoryContextReset(context);
}

/* ---------- Workers ---------- */

/* Reserve a slot for a worker or, without a role, a scanner; -1: there is none. */
static int
reserve_slot(Oid database, Oid role)
{
	int			slot = -1;
	int			workers = 0;
	int			here = 0;

	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &background->workers[i];

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
	if (slot < 0 || here >= (OidIsValid(role) ? background_max_workers_per_database : 1) ||
		(OidIsValid(role) && workers >= background_max_workers))
		return -1;
	memset(&background->workers[slot], 0, sizeof(WorkerSlot));
	background->workers[slot].state = WORKER_STARTING;
	background->workers[slot].database = database;
	background->workers[slot].role = role;
	background->workers[slot].reserved_at = GetCurrentTimestamp();
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
	elog(DEBUG1, "starting %s in slot %d", worker.bgw_name, slot);
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/*
 * Slots of workers that have not begun in time.  A process that has given its slot
 * back in no other way has crashed, and the server begins anew.
 */
static void
launcher_reclaim_slots(void)
{
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &background->workers[i];

		if (worker->state == WORKER_STARTING &&
			TimestampDifferenceExceeds(worker->reserved_at, GetCurrentTimestamp(), START_MAX_MS))
			worker->state = WORKER_UNUSED;
	}
	LWLockRelease(background->lock);
}

/* Start what is needed; returns when to look again. */
static TimestampTz
launcher_start_workers(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = TimestampTzPlusMilliseconds(now, background_poll_interval);
	int			start[MAX_WORKERS]; /* each slot once at most */
	bool		is_scanner[MAX_WORKERS];
	int			count = 0;

	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DEMANDS; i++)
	{
		Demand	   *demand = &background->demands[i];
		ServedDatabase *served;
		int			slot;

		if (!OidIsValid(demand->database))
			continue;
		served = background_find_database(demand->database);
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
		WorkerSlot *worker = &background->workers[i];
		ServedDatabase *served;

		if (!worker->wants_scan)
			continue;
		worker->wants_scan = false;
		served = background_find_database(worker->database);
		if (served)
			served->scan_at = now;
	}
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		ServedDatabase *served = &background->databases[i];
		int			slot;

		if (!OidIsValid(served->database))
			continue;
		if (served->scan_at <= now && served->stay_away_until <= now &&
			(slot = reserve_slot(served->database, InvalidOid)) >= 0)
		{
			start[count] = slot;
			is_scanner[count++] = true;
			served->scan_at = TimestampTzPlusMilliseconds(now, background_poll_interval);
		}
		/* a scan that is due waits for a slot, whose exit wakes us */
		if (served->stay_away_until > now)
			next = Min(next, served->stay_away_until);
		else if (served->scan_at > now)
			next = Min(next, served->scan_at);
	}
	LWLockRelease(background->lock);

	for (int i = 0; i < count; i++)
		if (!start_worker(start[i], is_scanner[i]))
		{
			LWLockAcquire(background->lock, LW_EXCLUSIVE);
			background->workers[start[i]].state = WORKER_UNUSED;
			LWLockRelease(background->lock);
			ereport(LOG,
					(errmsg("trigger_idem could not start a background worker"),
					 errhint("Raise max_worker_processes.")));
			next = TimestampTzPlusMilliseconds(now, 1000);
		}
	return Max(next, TimestampTzPlusMilliseconds(now, 1));
}

/* ---------- The process ---------- */

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	background->launcher = NULL;
	LWLockRelease(background->lock);
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

	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	background->launcher = MyLatch;
	LWLockRelease(background->lock);
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
			refresh_at = TimestampTzPlusMilliseconds(now, background_poll_interval);
		}
		launcher_reclaim_slots();
		next = Min(launcher_start_workers(), refresh_at);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
