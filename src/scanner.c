/*-------------------------------------------------------------------------
 *
 * scanner.c
 *	  The scanner: looks at one database, and ends.
 *
 * As a superuser who runs no code but ours, it finds out which roles have
 * something due, and when something is due next.  It also ends the attempts of
 * workers that are gone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "background.h"
#include "background_shared.h"
#include "run.h"
#include "store.h"
#include "takeover.h"
#include "task.h"

/* A scan looks at no more entries of a queue than this. */
#define SCAN_MAX_ENTRIES 100000

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
	const char *queue = "";

	(void) take_over_dead();
	CommandCounterIncrement();
	now = GetCurrentTimestamp();
	snapshot = store_latest_snapshot();
	store_walk_begin(&queues, STORE_QUEUE_ORDER, snapshot);
	store_walk_begin(&walk, STORE_QUEUE_ORDER, snapshot);
	for (;;)
	{
		bool		isnull;
		TimestampTz due;

		store_walk_seek_queues(&queues, queue, NULL);
		if (!store_walk_next(&queues))
			break;
		queue = TextDatumGetCString(slot_getattr(queues.slot, ENTRY_QUEUE, &isnull));
		due = scan_queue(&walk, CStringGetTextDatum(queue), now, roles);
		next = Min(next, due);
	}
	store_walk_end(&walk);
	store_walk_end(&queues);
	UnregisterSnapshot(snapshot);
	return next;
}

/* Scan the database that this process is connected to. */
void
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
	LWLockAcquire(background->lock, LW_EXCLUSIVE);
	served = background_find_database(MyDatabaseId);
	if (served)
	{
		foreach(cell, roles)
			background_demand(MyDatabaseId, lfirst_oid(cell));
		if (next < served->scan_at)
		{
			served->scan_at = next;
			background_wake_launcher();
		}
	}
	LWLockRelease(background->lock);
	PopActiveSnapshot();
	CommitTransactionCommand();
}
