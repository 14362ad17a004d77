/*-------------------------------------------------------------------------
 *
 * awaited.c
 *	  What is awaited: telling those who wait when a run or a token has ended.
 *
 * Who waits marks the queue entry of a target as awaited, under its lock, so that
 * either its end sees that it is awaited, or he sees that it has ended.  The end
 * makes the waiter due in its own transaction.
 *
 * Nobody waits for a lock of somebody else here.  What could not be locked, and the
 * case that the last items of a batch end at the same time, when neither end knows
 * of the other, is marked for a check, by whoever next looks for dead workers.  So
 * is what may end by the clock, and nobody would notice.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "awaited.h"
#include "run.h"
#include "statement.h"
#include "store.h"
#include "token.h"
#include "wake.h"

/* ---------- Being awaited ---------- */

/*
 * Find out whether a target has ended.  If not, have its end see that it is
 * awaited: until our commit we hold its lock.
 */
void
awaited_mark(WaitTarget *target, bool is_token)
{
	StoreTable	table = is_token ? STORE_WAIT_TOKEN : STORE_QUEUE_ENTRY;
	Datum		values[STORE_MAX_COLUMNS];
	bool		nulls[STORE_MAX_COLUMNS];
	StoreRow	row;

	target->needs_check = false;
	switch (store_row_lock(&row, table, UUIDPGetDatum(&target->id), LockWaitSkip))
	{
		case STORE_BUSY:
			target->needs_check = true;
			return;
		case STORE_GONE:
			target->has_ended = true;
			break;
		case STORE_LOCKED:
			store_row_read(&row, values, nulls);
			if (is_token)
				target->has_ended = token_is_over(values, nulls);
			else if (nulls[ENTRY_FIRST_STARTED_AT - 1] && !nulls[ENTRY_EXPIRES_AT - 1])
			{
				/* nobody may start it, but somebody has to notice */
				target->needs_check = true;
				wake_later(DatumGetTimestampTz(values[ENTRY_EXPIRES_AT - 1]));
			}
			if (!is_token && nulls[ENTRY_IS_AWAITED - 1])
			{
				values[ENTRY_IS_AWAITED - 1] = BoolGetDatum(true);
				nulls[ENTRY_IS_AWAITED - 1] = false;
				store_row_update(&row, values, nulls);
				/* it may be a target once more, or be claimed */
				CommandCounterIncrement();
			}
			store_row_end(&row);
	}
	if (target->has_ended && !is_token)
	{
		Snapshot	snapshot = store_latest_snapshot();

		(void) run_find_status(&target->id, snapshot, &target->status);
		UnregisterSnapshot(snapshot);
	}
}

/* ---------- Those who wait ---------- */

/* Somebody who waits for something */
typedef struct Waiter
{
	pg_uuid_t	wait_id;
	int			index;
	pg_uuid_t	run_id;
	pg_uuid_t	target;
	bool		is_batch;
	bool		is_pending;
} Waiter;

static List *
waiters_list(StoreIndex index, const pg_uuid_t *target)
{
	Snapshot	snapshot = store_latest_snapshot();
	StoreWalk	walk;
	List	   *waiters = NIL;

	store_walk_begin(&walk, index, snapshot);
	if (target)
		store_walk_seek_uuid(&walk, UUIDPGetDatum(target));
	else
		store_walk_seek_all(&walk);
	while (store_walk_next(&walk))
	{
		Waiter	   *waiter = palloc(sizeof(Waiter));
		bool		isnull;

#define COLUMN(column) slot_getattr(walk.slot, (column), &isnull)
		waiter->wait_id = *DatumGetUUIDP(COLUMN(AWAITED_WAIT_ID));
		waiter->index = DatumGetInt32(COLUMN(AWAITED_INDEX));
		waiter->run_id = *DatumGetUUIDP(COLUMN(AWAITED_RUN_ID));
		waiter->target = *DatumGetUUIDP(COLUMN(AWAITED_TARGET));
		waiter->is_batch = DatumGetBool(COLUMN(AWAITED_IS_BATCH));
		waiter->is_pending = !slot_attisnull(walk.slot, AWAITED_IS_PENDING);
#undef COLUMN
		waiters = lappend(waiters, waiter);
	}
	store_walk_end(&walk);
	UnregisterSnapshot(snapshot);
	return waiters;
}

static Statement change_awaited = {
	.sql = "UPDATE trigger_idem.awaited SET is_pending = $3, needs_check = $4 "
	"WHERE wait_id OPERATOR(pg_catalog.=) $1 AND index OPERATOR(pg_catalog.=) $2",
	.expected = SPI_OK_UPDATE,
	.argtypes = {UUIDOID, INT4OID, BOOLOID, BOOLOID}
};

static void
waiter_change(const Waiter *waiter, bool is_pending, bool needs_check)
{
	OwnerScope	scope;
	Datum		values[4] = {UUIDPGetDatum(&waiter->wait_id), Int32GetDatum(waiter->index),
	BoolGetDatum(true), BoolGetDatum(true)};
	char		nulls[] = "    ";

	nulls[2] = is_pending ? ' ' : 'n';
	nulls[3] = needs_check ? ' ' : 'n';
	owner_begin(&scope);
	scope_see_latest(&scope);
	statement_run(&change_awaited, values, nulls);
	owner_end(&scope);
	CommandCounterIncrement();
}

static Statement lock_unchecked = {
	.sql = "SELECT FROM trigger_idem.awaited "
	"WHERE wait_id OPERATOR(pg_catalog.=) $1 AND index OPERATOR(pg_catalog.=) $2"
	"  AND needs_check FOR UPDATE SKIP LOCKED",
	.expected = SPI_OK_SELECT,
	.argtypes = {UUIDOID, INT4OID}
};

/* Lock what needs a check; false when somebody else is at it. */
static bool
waiter_lock(const Waiter *waiter)
{
	OwnerScope	scope;
	Datum		values[2] = {UUIDPGetDatum(&waiter->wait_id), Int32GetDatum(waiter->index)};
	bool		locked;

	owner_begin(&scope);
	scope_see_latest(&scope);
	locked = statement_run(&lock_unchecked, values, NULL) == 1;
	owner_end(&scope);
	return locked;
}

typedef enum BatchState
{
	BATCH_ENDED,
	BATCH_ENDING,				/* by transactions that may not commit */
	BATCH_PENDING,
} BatchState;

/*
 * Do other items of a batch keep it waiting?  One that another transaction is just
 * ending may be the last one, or not; neither of the two can know.
 */
static BatchState
batch_look(const pg_uuid_t *wait_id)
{
	SnapshotData dirty;
	StoreWalk	walk;
	BatchState	state = BATCH_ENDED;

	InitDirtySnapshot(dirty);
	store_walk_begin(&walk, STORE_PENDING, &dirty);
	store_walk_seek_uuid(&walk, UUIDPGetDatum(wait_id));
	while (state != BATCH_PENDING && store_walk_next(&walk))
		state = TransactionIdIsValid(dirty.xmax) ? BATCH_ENDING : BATCH_PENDING;
	store_walk_end(&walk);
	return state;
}

/* A target has ended: wake its waiter if that was all; was it woken, or is not yet? */
static bool
waiter_tell(const Waiter *waiter)
{
	BatchState	state = BATCH_ENDED;

	if (waiter->is_batch)
	{
		if (waiter->is_pending)
			waiter_change(waiter, false, false);
		state = batch_look(&waiter->wait_id);
	}
	if (state == BATCH_PENDING || (state == BATCH_ENDED && run_wake(&waiter->run_id, &waiter->wait_id)))
		return true;
	waiter_change(waiter, false, true);
	wake_later(GetCurrentTimestamp());
	return false;
}

/* A run that is awaited is final, or a token is completed: tell those who wait. */
void
awaited_ended(const pg_uuid_t *target)
{
	ListCell   *cell;

	foreach(cell, waiters_list(STORE_TARGET, target))
	{
		const Waiter *waiter = lfirst(cell);

		/* an item may have been over by the clock only, and passed */
		if (!waiter->is_batch || waiter->is_pending)
			(void) waiter_tell(waiter);
	}
}

/*
 * Has this run or token ended?  If not, its end will tell those who wait, unless
 * it still needs a check.
 */
static void
target_look(WaitTarget *target)
{
	Snapshot	snapshot = store_latest_snapshot();
	Datum		values[STORE_MAX_COLUMNS];
	bool		nulls[STORE_MAX_COLUMNS];
	bool		is_token = store_fetch(STORE_WAIT_TOKEN, UUIDPGetDatum(&target->id), snapshot,
									   values, nulls);
	bool		may_expire = !is_token &&
		store_fetch(STORE_QUEUE_ENTRY, UUIDPGetDatum(&target->id), snapshot, values, nulls) &&
		nulls[ENTRY_FIRST_STARTED_AT - 1] && !nulls[ENTRY_EXPIRES_AT - 1];

	UnregisterSnapshot(snapshot);
	target->needs_check = may_expire && !run_has_expired(values, nulls) &&
		!nulls[ENTRY_IS_AWAITED - 1];
	if (target->needs_check)
		return;
	if (may_expire && run_has_expired(values, nulls))
		(void) run_end_unclaimed(&target->id, RUN_EXPIRED, false);
	awaited_mark(target, is_token);
}

/*
 * Check what could not be told, or not be marked, at its time.  Returns how many
 * waiters were told now.
 */
int
awaited_check(void)
{
	ListCell   *cell;
	int			told = 0;

	foreach(cell, waiters_list(STORE_UNCHECKED, NULL))
	{
		const Waiter *waiter = lfirst(cell);
		WaitTarget	target = {.id = waiter->target};

		CHECK_FOR_INTERRUPTS();
		if (!waiter_lock(waiter))
			continue;
		target_look(&target);
		if (target.has_ended && waiter_tell(waiter))
		{
			waiter_change(waiter, false, false);
			told++;
		}
		else if (!target.has_ended && !target.needs_check)
			waiter_change(waiter, waiter->is_batch, false);
	}
	return told;
}

/* Does this one wait for it at the moment? */
static bool
waiter_waits(const Waiter *waiter, Snapshot snapshot)
{
	Datum		values[ENTRY_COLUMNS];
	bool		nulls[ENTRY_COLUMNS];

	return store_fetch(STORE_QUEUE_ENTRY, UUIDPGetDatum(&waiter->run_id), snapshot, values, nulls) &&
		run_entry_is_waiting(values, nulls) &&
		memcmp(DatumGetUUIDP(values[ENTRY_WAIT_ID - 1]), &waiter->wait_id, sizeof(pg_uuid_t)) == 0;
}

/* Does a run that is none of these wait for a target? */
bool
awaited_by_others(const pg_uuid_t *target, const List *runs)
{
	Snapshot	snapshot = store_latest_snapshot();
	ListCell   *cell;
	ListCell   *run;
	bool		is_awaited = false;

	foreach(cell, waiters_list(STORE_TARGET, target))
	{
		const Waiter *waiter = lfirst(cell);
		bool		is_one_of_these = false;

		foreach(run, runs)
			if (memcmp(lfirst(run), &waiter->run_id, sizeof(pg_uuid_t)) == 0)
			is_one_of_these = true;
		if (!is_one_of_these && waiter_waits(waiter, snapshot))
			is_awaited = true;
	}
	UnregisterSnapshot(snapshot);
	return is_awaited;
}
