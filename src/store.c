/*-------------------------------------------------------------------------
 *
 * store.c
 *	  Direct access to the extension's own tables, without SPI.
 *
 * The paths that must be fast read through a primary key or insert a row; both
 * are done here with the server's own scan and insert functions, which neither
 * a search_path nor an invalidated plan can reach.  Everything else about the
 * tables is SQL text, run by statement.c.
 *
 * Nothing here checks privileges: the tables are granted to nobody, and the
 * caller has decided what the user may do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "store.h"
#include "store_catalog.h"

/*
 * A registered snapshot to read the tables with; the caller unregisters it.
 * At READ COMMITTED it sees what is committed now, not when the statement
 * began: whoever lost a race for a key looks at the winner's rows with it.
 */
Snapshot
store_snapshot(void)
{
	return RegisterSnapshot(IsolationUsesXactSnapshot() ?
							GetTransactionSnapshot() : GetLatestSnapshot());
}

/* A registered snapshot that sees what is committed now, at every level */
Snapshot
store_latest_snapshot(void)
{
	return RegisterSnapshot(GetLatestSnapshot());
}

/* Open what a lookup needs, with so many scan keys to come. */
static void
lookup_open(StoreLookup *lookup, StoreTable table, Snapshot snapshot, int nkeys)
{
	lookup->rel = store_open(table, AccessShareLock);
	lookup->index = index_open(store_catalog.primary[table], AccessShareLock);
	lookup->slot = table_slot_create(lookup->rel, NULL);
	lookup->scan = compat_index_beginscan(lookup->rel, lookup->index, snapshot, nkeys);
}

/*
 * Begin an index lookup of the rows whose first key column equals key, and go
 * to the first of them; false when there is none.  The row is in lookup->slot
 * until the next call.  store_lookup_end() must follow.
 */
bool
store_lookup(StoreLookup *lookup, StoreTable table, Datum key, Snapshot snapshot)
{
	store_lookup_begin(lookup, table, snapshot);
	return store_lookup_seek(lookup, table, key);
}

/* The same for many keys, one after the other: begin, seek each, end. */
void
store_lookup_begin(StoreLookup *lookup, StoreTable table, Snapshot snapshot)
{
	lookup_open(lookup, table, snapshot, 1);
}

bool
store_lookup_seek(StoreLookup *lookup, StoreTable table, Datum key)
{
	ScanKeyData scankey;

	ScanKeyInit(&scankey, 1, BTEqualStrategyNumber, store_tables[table].key_equal, key);
	scankey.sk_collation = lookup->index->rd_indcollation[0];
	index_rescan(lookup->scan, &scankey, 1, NULL, 0);
	return store_lookup_next(lookup);
}

/* Go to the next row; false when there is none. */
bool
store_lookup_next(StoreLookup *lookup)
{
	return index_getnext_slot(lookup->scan, ForwardScanDirection, lookup->slot);
}

/*
 * Begin a lookup of the rows with a run's id from one on and before another, the
 * newest first: store_lookup_previous() goes to the first of them, and on.
 * store_lookup_end() must follow.
 */
void
store_lookup_newest(StoreLookup *lookup, StoreTable table, const pg_uuid_t *from,
					const pg_uuid_t *before, Snapshot snapshot)
{
	ScanKeyData keys[2];

	lookup_open(lookup, table, snapshot, lengthof(keys));
	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_UUID_GE, UUIDPGetDatum(from));
	ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_UUID_LT, UUIDPGetDatum(before));
	index_rescan(lookup->scan, keys, lengthof(keys), NULL, 0);
}

bool
store_lookup_previous(StoreLookup *lookup)
{
	return index_getnext_slot(lookup->scan, BackwardScanDirection, lookup->slot);
}

/* The locks stay until the end of the transaction, as those of any query. */
void
store_lookup_end(StoreLookup *lookup)
{
	index_endscan(lookup->scan);
	ExecDropSingleTupleTableSlot(lookup->slot);
	index_close(lookup->index, NoLock);
	table_close(lookup->rel, NoLock);
}

/*
 * Copy a row into values and nulls, palloc'd in the current context.  The table may
 * have more columns than we know.
 */
static void
row_copy(Relation rel, StoreTable table, TupleTableSlot *row, Datum *values, bool *nulls)
{
	HeapTuple	copy = ExecCopySlotHeapTuple(row);
	int			columns = RelationGetNumberOfAttributes(rel);
	Datum	   *all_values;
	bool	   *all_nulls;

	if (likely(columns == store_tables[table].columns))
	{
		heap_deform_tuple(copy, RelationGetDescr(rel), values, nulls);
		return;
	}
	all_values = palloc(columns * sizeof(Datum));
	all_nulls = palloc(columns * sizeof(bool));
	heap_deform_tuple(copy, RelationGetDescr(rel), all_values, all_nulls);
	memcpy(values, all_values, store_tables[table].columns * sizeof(Datum));
	memcpy(nulls, all_nulls, store_tables[table].columns * sizeof(bool));
}

/*
 * Fetch the one row with this key into values and nulls, palloc'd in the
 * current context; false when there is none.
 */
bool
store_fetch(StoreTable table, Datum key, Snapshot snapshot, Datum *values, bool *nulls)
{
	StoreLookup lookup;
	bool		found = store_lookup(&lookup, table, key, snapshot);

	if (found)
		row_copy(lookup.rel, table, lookup.slot, values, nulls);
	store_lookup_end(&lookup);
	return found;
}

/* Is the row with this key one that our own transaction has inserted or changed? */
bool
store_is_uncommitted(StoreTable table, Datum key)
{
	Snapshot	snapshot = store_latest_snapshot();
	StoreLookup lookup;
	bool		isnull;
	bool		is_ours = store_lookup(&lookup, table, key, snapshot) &&
		TransactionIdIsCurrentTransactionId(DatumGetTransactionId(
																  slot_getsysattr(lookup.slot, MinTransactionIdAttributeNumber, &isnull)));

	store_lookup_end(&lookup);
	UnregisterSnapshot(snapshot);
	return is_ours;
}

/*
 * Lock the newest version of the row with this key FOR KEY SHARE, at every
 * isolation level, and fetch it as store_fetch() does; false when it is gone.
 */
bool
store_lock_latest(StoreTable table, Datum key, Datum *values, bool *nulls)
{
	Snapshot	snapshot = store_latest_snapshot();
	StoreLookup lookup;
	bool		locked = false;

	if (store_lookup(&lookup, table, key, snapshot))
	{
		TupleTableSlot *slot = table_slot_create(lookup.rel, NULL);
		ItemPointerData tid = lookup.slot->tts_tid;
		TM_FailureData failure;

		if (table_tuple_lock(lookup.rel, &tid, snapshot, slot, GetCurrentCommandId(true),
							 LockTupleKeyShare, LockWaitBlock,
							 TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure) == TM_Ok)
		{
			row_copy(lookup.rel, table, slot, values, nulls);
			locked = true;
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	store_lookup_end(&lookup);
	UnregisterSnapshot(snapshot);
	return locked;
}

/*
 * The column that must not be null in the rows that one of our own indexes has,
 * or 0.
 */
static int
index_wanted_column(Oid index_id)
{
	for (int i = 0; i < STORE_INDEXES; i++)
		if (index_id == store_catalog.index[i])
			return store_indexes[i].wanted;
	return 0;
}

/*
 * Is the row one for this index?  The predicates of ours we know; an
 * administrator may have added indexes of any kind.
 */
static bool
index_wants_row(Oid index_id, IndexInfo *info, TupleTableSlot *slot, EState **estate)
{
	if (!info->ii_ReadyForInserts)
		return false;
	if (info->ii_Expressions == NIL && info->ii_Predicate == NIL)
		return true;
	if (index_wanted_column(index_id) != 0)
		return !slot_attisnull(slot, index_wanted_column(index_id));
	if (*estate == NULL)
		*estate = CreateExecutorState();
	GetPerTupleExprContext(*estate)->ecxt_scantuple = slot;
	return ExecQual(ExecPrepareQual(info->ii_Predicate, *estate), GetPerTupleExprContext(*estate));
}

/*
 * Insert the entries of some rows into one index; false when there is a key like
 * one of theirs already, which is an error unless check is UNIQUE_CHECK_PARTIAL.
 */
static bool
index_insert_rows(Oid index_id, Relation rel, TupleTableSlot **rows, int count,
				  IndexUniqueCheck check, bool only_summarizing, EState **estate)
{
	Relation	index = index_open(index_id, RowExclusiveLock);
	IndexInfo  *info = BuildIndexInfo(index);
	bool		is_skipped = only_summarizing && !compat_index_is_summarizing(index);
	bool		are_new = true;

	if (!info->ii_Unique)
		check = UNIQUE_CHECK_NO;
	for (int i = 0; i < count && !is_skipped; i++)
	{
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];

		if (!index_wants_row(index_id, info, rows[i], estate))
			continue;
		FormIndexDatum(info, rows[i], *estate, values, nulls);
		if (!index_insert(index, values, nulls, &rows[i]->tts_tid, rel, check, false, info) &&
			check == UNIQUE_CHECK_PARTIAL)
			are_new = false;
	}
	compat_index_insert_cleanup(index, info);
	index_close(index, NoLock);
	return are_new;
}

/*
 * Insert the index entries of some rows; false when the primary key has such a
 * key already, which is an error unless check is UNIQUE_CHECK_PARTIAL.  After a
 * HOT update only summarizing indexes may get another entry.
 */
static bool
store_insert_index_entries(Relation rel, StoreTable table, TupleTableSlot **rows, int count,
						   IndexUniqueCheck check, bool only_summarizing)
{
	Oid			primary = store_catalog.primary[table];
	EState	   *estate = NULL;
	ListCell   *cell;

	if (!only_summarizing &&
		!index_insert_rows(primary, rel, rows, count, check, false, &estate))
		return false;
	foreach(cell, RelationGetIndexList(rel))
	{
		Oid			index = lfirst_oid(cell);

		if (index == primary)
			continue;
		/* saves opening it: rows that come together are alike in this */
		if (index_wanted_column(index) != 0 &&
			slot_attisnull(rows[0], index_wanted_column(index)))
			continue;
		index_insert_rows(index, rel, rows, count, UNIQUE_CHECK_YES, only_summarizing, &estate);
	}
	if (estate)
		FreeExecutorState(estate);
	return true;
}

/* Put a row of a table that is open for writing into a slot. */
static void
store_row(Relation rel, StoreTable table, Datum *values, bool *nulls, TupleTableSlot *slot)
{
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, RelationGetNumberOfAttributes(rel) * sizeof(bool));
	memcpy(slot->tts_values, values, store_tables[table].columns * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, store_tables[table].columns * sizeof(bool));
	ExecStoreVirtualTuple(slot);
}

/* Insert a row; a duplicate key is an error. */
void
store_insert(StoreTable table, Datum *values, bool *nulls)
{
	Relation	rel = store_open(table, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	store_row(rel, table, values, nulls, slot);
	table_tuple_insert(rel, slot, GetCurrentCommandId(true), 0, NULL);
	store_insert_index_entries(rel, table, &slot, 1, UNIQUE_CHECK_YES, false);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/*
 * Begin to insert many rows: they are collected and written together, those that
 * are left by store_writer_end(), which must follow.
 */
void
store_writer_begin(StoreWriter *writer, StoreTable table)
{
	writer->rel = store_open(table, RowExclusiveLock);
	writer->table = table;
	writer->context = CurrentMemoryContext;
	writer->slots = 0;
	writer->count = 0;
	writer->bytes = 0;
}

static void
store_writer_flush(StoreWriter *writer)
{
	if (writer->count == 0)
		return;
	table_multi_insert(writer->rel, writer->rows, writer->count, GetCurrentCommandId(true), 0,
					   NULL);
	store_insert_index_entries(writer->rel, writer->table, writer->rows, writer->count,
							   UNIQUE_CHECK_YES, false);
	for (int i = 0; i < writer->count; i++)
		ExecClearTuple(writer->rows[i]);
	writer->count = 0;
	writer->bytes = 0;
}

/* Insert a row; a duplicate key is an error, now or later. */
void
store_writer_insert(StoreWriter *writer, Datum *values, bool *nulls)
{
	MemoryContext caller = MemoryContextSwitchTo(writer->context);
	TupleTableSlot *slot;
	bool		should_free;

	if (writer->count == writer->slots)
		writer->rows[writer->slots++] = table_slot_create(writer->rel, NULL);
	slot = writer->rows[writer->count++];
	MemoryContextSwitchTo(caller);

	store_row(writer->rel, writer->table, values, nulls, slot);
	/* what the values point to need not last */
	ExecMaterializeSlot(slot);
	writer->bytes += ExecFetchSlotHeapTuple(slot, true, &should_free)->t_len;
	if (writer->count == STORE_WRITER_ROWS || writer->bytes > STORE_WRITER_BYTES)
		store_writer_flush(writer);
}

void
store_writer_end(StoreWriter *writer)
{
	store_writer_flush(writer);
	for (int i = 0; i < writer->slots; i++)
		ExecDropSingleTupleTableSlot(writer->rows[i]);
	table_close(writer->rel, NoLock);
}

/*
 * Insert a row unless there is one with its key, committed or not: INSERT ..
 * ON CONFLICT DO NOTHING, but for the waiting.  False when there is one; no
 * snapshot need see it.
 */
bool
store_insert_new(StoreTable table, Datum *values, bool *nulls)
{
	Relation	rel = store_open(table, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TransactionId xid = GetCurrentTransactionId();
	uint32		token;
	bool		inserted;

	store_row(rel, table, values, nulls, slot);

	/*
	 * As nodeModifyTable.c does it: the row goes in marked as tentative, and
	 * is taken back if its index entry turns out not to be the only one.
	 */
	token = SpeculativeInsertionLockAcquire(xid);
	table_tuple_insert_speculative(rel, slot, GetCurrentCommandId(true), 0, NULL, token);
	inserted = store_insert_index_entries(rel, table, &slot, 1, UNIQUE_CHECK_PARTIAL, false);
	table_tuple_complete_speculative(rel, slot, token, inserted);
	SpeculativeInsertionLockRelease(xid);

	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return inserted;
}

/* ---------- Changing a row ---------- */

/*
 * Lock the newest version of the row with this key FOR UPDATE, at every isolation
 * level.  If that succeeds, store_row_end() must follow.
 */
StoreLock
store_row_lock(StoreRow *row, StoreTable table, Datum key, LockWaitPolicy policy)
{
	StoreLookup lookup;
	StoreLock	lock = STORE_GONE;

	row->table = table;
	row->rel = store_open(table, RowExclusiveLock);
	row->snapshot = store_latest_snapshot();
	row->slot = table_slot_create(row->rel, NULL);
	if (store_lookup(&lookup, table, key, row->snapshot))
	{
		ItemPointerData tid = lookup.slot->tts_tid;
		TM_FailureData failure;
		TM_Result	result = table_tuple_lock(row->rel, &tid, row->snapshot, row->slot,
											  GetCurrentCommandId(true), LockTupleExclusive,
											  policy, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
											  &failure);

		lock = result == TM_Ok ? STORE_LOCKED : result == TM_WouldBlock ? STORE_BUSY : STORE_GONE;
	}
	store_lookup_end(&lookup);
	if (lock != STORE_LOCKED)
		store_row_end(row);
	return lock;
}

/* What the row has; valid until store_row_end(). */
void
store_row_read(StoreRow *row, Datum *values, bool *nulls)
{
	slot_getallattrs(row->slot);
	memcpy(values, row->slot->tts_values, store_tables[row->table].columns * sizeof(Datum));
	memcpy(nulls, row->slot->tts_isnull, store_tables[row->table].columns * sizeof(bool));
}

/* Replace a row that is locked. */
static void
row_replace(Relation rel, StoreTable table, TupleTableSlot *old, Snapshot snapshot,
			Datum *values, bool *nulls)
{
	ItemPointerData tid = old->tts_tid;
	TupleTableSlot *row = table_slot_create(rel, NULL);
	TU_UpdateIndexes update_indexes;

	store_row(rel, table, values, nulls, row);
	compat_simple_table_tuple_update(rel, &tid, row, snapshot, &update_indexes);
	if (update_indexes != TU_None)
		store_insert_index_entries(rel, table, &row, 1, UNIQUE_CHECK_YES,
								   update_indexes == TU_Summarizing);
	ExecDropSingleTupleTableSlot(row);
}

void
store_row_update(StoreRow *row, Datum *values, bool *nulls)
{
	row_replace(row->rel, row->table, row->slot, row->snapshot, values, nulls);
}

void
store_row_delete(StoreRow *row)
{
	simple_table_tuple_delete(row->rel, &row->slot->tts_tid, row->snapshot);
}

void
store_row_end(StoreRow *row)
{
	ExecDropSingleTupleTableSlot(row->slot);
	UnregisterSnapshot(row->snapshot);
	table_close(row->rel, NoLock);
}

/* ---------- Walks ---------- */

/*
 * Begin a walk that may lock and update what it finds.  Seek first, then go on
 * with store_walk_next(); store_walk_end() must follow.
 */
void
store_walk_begin(StoreWalk *walk, StoreIndex index, Snapshot snapshot)
{
	walk->rel = store_open(store_indexes[index].table, RowExclusiveLock);
	walk->index = index_open(store_catalog.index[index], AccessShareLock);
	walk->slot = table_slot_create(walk->rel, NULL);
	walk->snapshot = snapshot;
	walk->scan = NULL;
}

static void
walk_key(StoreWalk *walk, ScanKey key, int column, StrategyNumber strategy, RegProcedure function,
		 Datum value)
{
	ScanKeyInit(key, (AttrNumber) column, strategy, function, value);
	key->sk_collation = walk->index->rd_indcollation[column - 1];
}

/* Begin again, within the bounds of these keys. */
static void
walk_seek(StoreWalk *walk, ScanKey keys, int nkeys)
{
	walk->passed = 0;
	if (walk->scan && walk->scan->numberOfKeys != nkeys)
	{
		index_endscan(walk->scan);
		walk->scan = NULL;
	}
	if (walk->scan == NULL)
		walk->scan = compat_index_beginscan(walk->rel, walk->index, walk->snapshot, nkeys);
	index_rescan(walk->scan, keys, nkeys, NULL, 0);
}

/* All entries of the index */
void
store_walk_seek_all(StoreWalk *walk)
{
	walk_seek(walk, NULL, 0);
}

/* The entries of a queue, in the order in which they are to be claimed */
void
store_walk_seek_queue(StoreWalk *walk, Datum queue, TimestampTz from, TimestampTz to)
{
	ScanKeyData keys[3];

	walk_key(walk, &keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, queue);
	walk_key(walk, &keys[1], 2, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
			 TimestampTzGetDatum(from));
	walk_key(walk, &keys[2], 2, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
			 TimestampTzGetDatum(to));
	walk_seek(walk, keys, lengthof(keys));
}

/* The entries of all queues whose name comes after one, and before another or NULL */
void
store_walk_seek_queues(StoreWalk *walk, const char *after, const char *before)
{
	ScanKeyData keys[2];

	walk_key(walk, &keys[0], 1, BTGreaterStrategyNumber, F_TEXT_GT, CStringGetTextDatum(after));
	if (before)
		walk_key(walk, &keys[1], 1, BTLessStrategyNumber, F_TEXT_LT, CStringGetTextDatum(before));
	walk_seek(walk, keys, before ? 2 : 1);
}

/* The executing entries that share a concurrency limit; a null key is one too */
void
store_walk_seek_concurrent(StoreWalk *walk, Datum environment, Datum task_id,
						   NullableDatum concurrency_key)
{
	ScanKeyData keys[3];

	walk_key(walk, &keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, environment);
	walk_key(walk, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, task_id);
	if (concurrency_key.isnull)
		ScanKeyEntryInitialize(&keys[2], SK_ISNULL | SK_SEARCHNULL, 3, InvalidStrategy,
							   InvalidOid, InvalidOid, InvalidOid, (Datum) 0);
	else
		walk_key(walk, &keys[2], 3, BTEqualStrategyNumber, F_TEXTEQ, concurrency_key.value);
	walk_seek(walk, keys, lengthof(keys));
}

/* The rows with this id in the first column of the index */
void
store_walk_seek_uuid(StoreWalk *walk, Datum uuid)
{
	ScanKeyData keys[1];

	walk_key(walk, &keys[0], 1, BTEqualStrategyNumber, F_UUID_EQ, uuid);
	walk_seek(walk, keys, lengthof(keys));
}

/* Go to the next row that is visible; false when there is none. */
bool
store_walk_next(StoreWalk *walk)
{
	while (index_getnext_tid(walk->scan, ForwardScanDirection) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		walk->passed++;
		if (index_fetch_heap(walk->scan, walk->slot))
			return true;
	}
	return false;
}

/*
 * Lock the entry that the walk is at FOR UPDATE; false when somebody else has
 * locked or changed it.
 */
bool
store_walk_lock(StoreWalk *walk)
{
	ItemPointerData tid = walk->slot->tts_tid;
	TM_FailureData failure;

	return table_tuple_lock(walk->rel, &tid, walk->snapshot, walk->slot,
							GetCurrentCommandId(true), LockTupleExclusive, LockWaitSkip,
							0, &failure) == TM_Ok;
}

/* Replace the queue entry that the walk is at, which it has locked. */
void
store_walk_update(StoreWalk *walk, Datum *values, bool *nulls)
{
	row_replace(walk->rel, STORE_QUEUE_ENTRY, walk->slot, walk->snapshot, values, nulls);
}

void
store_walk_end(StoreWalk *walk)
{
	if (walk->scan)
		index_endscan(walk->scan);
	ExecDropSingleTupleTableSlot(walk->slot);
	index_close(walk->index, NoLock);
	table_close(walk->rel, NoLock);
}
