/*-------------------------------------------------------------------------
 *
 * background_worker.c
 *	  The background worker: works what is due for one role in one database.
 *
 * It is connected as that role, waits for more when nothing is due, and ends when
 * that takes long.  A scanner is the same kind of process, without a role.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"

#include "background_shared.h"
#include "compat.h"
#include "interrupt.h"
#include "stats.h"
#include "store.h"
#include "work.h"
#include "worker.h"

/* SIGTERM: give back what is being executed, and end; the second time at once. */
static void
worker_terminate(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (work_stop)
		COMPAT_DIE();
	else
		work_request_stop();
	errno = save_errno;
}

/* When our slot was reserved, for us */
static TimestampTz reserved_at = 0;

/* Is it still ours?  One that takes long to begin may have lost it; lock held. */
static bool
slot_is_ours(void)
{
	return background_slot->latch == MyLatch && background_slot->reserved_at == reserved_at;
}

static void
worker_exit(int code, Datum arg)
{
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	if (!slot_is_ours())
	{
		LWLockRelease(background->lock);
		return;
	}
	background_slot->state = WORKER_UNUSED;
	background_slot->latch = NULL;
	/* somebody may wait for room, or this one has failed: look what there is */
	if (code != 0 && OidIsValid(background_slot->role))
	{
		ServedDatabase *served = background_find_database(background_slot->database);

		if (served)
			served->scan_at = Min(served->scan_at,
								  TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000));
	}
	background_wake_launcher();
	LWLockRelease(background->lock);
}

/* What the administrator has changed counts from now on. */
static void
worker_reload(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

/* We shall end, or nobody serves this database any more; lock held. */
static bool
worker_shall_leave(void)
{
	return background_slot->stop || !background_find_database(MyDatabaseId);
}

/* It has stopped working before nothing was due. */
static bool leaves_work = false;

/* Between two claims */
static bool
worker_goes_on(void)
{
	worker_reload();
	LWLockAcquire(background->lock, LW_SHARED);
	leaves_work = worker_shall_leave();
	LWLockRelease(background->lock);
	return !leaves_work;
}

/*
 * There is nothing to do at the moment: wait until somebody wakes us.  False when
 * that takes too long, or we shall end; what is left then is for another worker.
 */
static bool
worker_wait(void)
{
	TimestampTz until;
	bool		has_looked = !work_stop && !leaves_work;

	worker_reload();
	until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), background_worker_idle_time);
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	/* what was triggered since we have looked */
	background_slot->state = background_take_demand(MyDatabaseId, background_slot->role) ? WORKER_BUSY : WORKER_IDLE;
	LWLockRelease(background->lock);
	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		bool		is_idle;
		bool		stop;
		TimestampTz woken_at;
		long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		LWLockAcquire(background->lock, LW_EXCLUSIVE);
		is_idle = background_slot->state == WORKER_IDLE;
		woken_at = background_slot->woken_at;
		background_slot->woken_at = 0;
		stop = work_stop || worker_shall_leave();
		/* nobody shall wake us any more once we have decided to end */
		if (is_idle && (stop || timeout <= 0))
			background_slot->state = WORKER_BUSY;
		if (stop && !(is_idle && has_looked))
			background_demand(MyDatabaseId, background_slot->role);
		LWLockRelease(background->lock);
		if (stop)
			return false;
		if (woken_at != 0)
			stats_count_wakeup_now(woken_at);
		if (!is_idle)
			return true;
		if (timeout <= 0)
			return false;

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (!work_stop)
			CHECK_FOR_INTERRUPTS();
		worker_reload();
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

/*
 * The launcher starts one of a kind at a time, so it shall look whether others are
 * wanted.
 */
static void
worker_has_begun(void)
{
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	if (!slot_is_ours())
	{
		LWLockRelease(background->lock);
		proc_exit(0);
	}
	background_slot->state = WORKER_BUSY;
	background_wake_launcher();
	LWLockRelease(background->lock);
}

/*
 * ALTER ROLE .. SET role may have made us somebody else, whose tasks these are not.
 * As a setting of the session this also comes back after each handler.
 */
static void
worker_be_own_role(void)
{
	StartTransactionCommand();
	if (GetUserId() != GetSessionUserId())
		SetConfigOption("role", "none", PGC_USERSET, PGC_S_SESSION);
	CommitTransactionCommand();
}

/* The process of a worker or a scanner; arg is its slot */
void
trigger_idem_worker_main(Datum arg)
{
	WorkerSlot	slot;
	char	   *worker_id;

	background_slot = &background->workers[DatumGetInt32(arg)];
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	slot = *background_slot;
	if (slot.state == WORKER_STARTING && slot.latch == NULL)
	{
		background_slot->latch = MyLatch;
		reserved_at = slot.reserved_at;
	}
	LWLockRelease(background->lock);
	/* we have come too late, and it was given to another one */
	if (reserved_at == 0)
		proc_exit(0);
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
	worker_has_begun();
	pgstat_report_appname(MyBgworkerEntry->bgw_name);
	if (!OidIsValid(slot.role))
	{
		scanner_run();
		proc_exit(0);
	}

	worker_be_own_role();
	worker_id = psprintf("background worker %d", MyProcPid);
	worker_begin();
	do
	{
		if (!worker_has_extension())
			break;
		(void) work_everything(worker_id, worker_goes_on);
	} while (worker_wait());
	proc_exit(0);
}
