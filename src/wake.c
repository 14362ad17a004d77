/*-------------------------------------------------------------------------
 *
 * wake.c
 *	  Telling workers that there is something to do.
 *
 * Whose run it is wakes a background worker of that role, when the transaction
 * commits; a savepoint that is rolled back wakes nobody.  With the setting
 * trigger_idem.notify, NOTIFY tells those outside the database, once for each
 * queue in which the transaction made a run runnable.  What becomes due later,
 * by the clock, is found by a scan of the database at that time, and tells nobody
 * outside.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "utils/acl.h"
#include "utils/memutils.h"

#include "background.h"
#include "trigger_idem.h"
#include "wake.h"

/* A role to wake a worker of */
typedef struct WakeRole
{
	Oid			role;
	int			nest_level;		/* of the (sub)transaction that wants it */
} WakeRole;

/* In TopTransactionContext */
static List *roles = NIL;

/* What others may be waiting for and has happened; in the same context */
static List *targets = NIL;

/* When the first of what this transaction has delayed is due */
static TimestampTz first_due = DT_NOEND;

static void
wake_role(Oid role)
{
	MemoryContext caller;
	WakeRole   *wake;
	ListCell   *cell;
	int			level = GetCurrentTransactionNestLevel();

	foreach(cell, roles)
	{
		wake = lfirst(cell);
		/* those of inner levels are gone, or are their outer level's now */
		Assert(wake->nest_level <= level);
		if (wake->role == role)
			return;
	}
	caller = MemoryContextSwitchTo(TopTransactionContext);
	wake = palloc(sizeof(WakeRole));
	wake->role = role;
	wake->nest_level = level;
	roles = lappend(roles, wake);
	MemoryContextSwitchTo(caller);
}

/*
 * A run in this queue, of this task, is runnable from the commit of this
 * transaction on.
 */
void
wake_workers(const char *queue, const Task *task)
{
	if (trigger_idem_notify)
		Async_Notify(EXTENSION_NAME, queue);
	if (background_is_there() && task && !task->dropped && task->handler_name)
	{
		Oid			role = get_role_oid(task->run_as, true);

		if (OidIsValid(role) && background_may_be(role))
			wake_role(role);
	}
}

/*
 * A run is going to be runnable: the database shall be looked at then.  (If it
 * was in a savepoint that is rolled back, that is one look too many.)
 */
void
wake_later(TimestampTz due)
{
	if (background_is_there())
		first_due = Min(first_due, due);
}

/*
 * Sessions that wait for this run or token shall look again when the transaction
 * commits.  (Or a savepoint: that is one look too many.)
 */
void
wake_watchers(const pg_uuid_t *target)
{
	MemoryContext caller;
	pg_uuid_t  *copy;

	if (!background_is_there())
		return;
	caller = MemoryContextSwitchTo(TopTransactionContext);
	copy = palloc(sizeof(pg_uuid_t));
	*copy = *target;
	targets = lappend(targets, copy);
	MemoryContextSwitchTo(caller);
}

static void
wake_xact_callback(XactEvent event, void *arg)
{
	ListCell   *cell;

	if (event == XACT_EVENT_COMMIT)
		foreach(cell, roles)
			background_wake(((WakeRole *) lfirst(cell))->role);
	if (event == XACT_EVENT_COMMIT && first_due != DT_NOEND)
		background_scan_at(first_due);
	if (event == XACT_EVENT_COMMIT && targets != NIL && background_has_watchers())
		foreach(cell, targets)
			background_tell_watchers(lfirst(cell));
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
	{
		roles = NIL;
		targets = NIL;
		first_due = DT_NOEND;
	}
}

static void
wake_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
					  void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *cell;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	foreach(cell, roles)
	{
		WakeRole   *wake = lfirst(cell);

		if (wake->nest_level < level)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			wake->nest_level = level - 1;
		else
			roles = foreach_delete_current(roles, cell);
	}
}

/* Called once, when the library is loaded. */
void
wake_init(void)
{
	RegisterXactCallback(wake_xact_callback, NULL);
	RegisterSubXactCallback(wake_subxact_callback, NULL);
}
