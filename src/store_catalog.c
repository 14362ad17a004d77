/*-------------------------------------------------------------------------
 *
 * store_catalog.c
 *	  Which tables, indexes and types are the extension's own.
 *
 * OIDs are looked up by name and remembered until the relation cache says that
 * one of the tables changed, so DROP EXTENSION and CREATE EXTENSION in one
 * session work.  The names cannot be spoofed: the install script creates the
 * schema itself and nobody else may create objects in it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "run.h"
#include "store.h"
#include "store_catalog.h"
#include "trigger_idem.h"

const StoreTableInfo store_tables[STORE_TABLES] = {
	[STORE_ENVIRONMENT] = {"environment", "environment_pkey", F_TEXTEQ, ENVIRONMENT_COLUMNS},
	[STORE_TASK] = {"task", "task_pkey", F_TEXTEQ, TASK_COLUMNS},
	[STORE_IDEMPOTENCY_KEY] = {"idempotency_key", "idempotency_key_pkey", F_UUID_EQ, KEY_COLUMNS},
	[STORE_RUN] = {"run", "run_pkey", F_UUID_EQ, RUN_COLUMNS},
	[STORE_QUEUE_ENTRY] = {"queue_entry", "queue_entry_pkey", F_UUID_EQ, ENTRY_COLUMNS},
	[STORE_STEP] = {"step", "step_pkey", F_UUID_EQ, STEP_COLUMNS},
	[STORE_GLOBAL_STEP] = {"global_step", "global_step_pkey", F_BYTEAEQ, GLOBAL_STEP_COLUMNS},
	[STORE_ATTEMPT] = {"attempt", "attempt_pkey", F_UUID_EQ, ATTEMPT_COLUMNS},
	[STORE_PAUSED_QUEUE] = {"paused_queue", "paused_queue_pkey", F_TEXTEQ, PAUSED_QUEUE_COLUMNS},
	[STORE_WAIT] = {"wait", "wait_pkey", F_UUID_EQ, WAIT_COLUMNS},
	[STORE_AWAITED] = {"awaited", "awaited_pkey", F_UUID_EQ, AWAITED_COLUMNS},
	[STORE_WAIT_TOKEN] = {"wait_token", "wait_token_pkey", F_UUID_EQ, WAIT_TOKEN_COLUMNS},
	[STORE_ACCESS_ENTRY] = {"access_entry", "access_entry_pkey", F_TEXTEQ, ACCESS_ENTRY_COLUMNS},
};

const StoreIndexInfo store_indexes[STORE_INDEXES] = {
	[STORE_QUEUE_ORDER] = {"queue_entry_queue_ord_idx", STORE_QUEUE_ENTRY, 0},
	[STORE_EXECUTING] = {"queue_entry_executing_idx", STORE_QUEUE_ENTRY, ENTRY_WORKER_TOKEN},
	[STORE_CHILDREN] = {"queue_entry_parent_idx", STORE_QUEUE_ENTRY, ENTRY_PARENT_RUN_ID},
	[STORE_TARGET] = {"awaited_target_idx", STORE_AWAITED, 0},
	[STORE_PENDING] = {"awaited_pending_idx", STORE_AWAITED, AWAITED_IS_PENDING},
	[STORE_UNCHECKED] = {"awaited_unchecked_idx", STORE_AWAITED, AWAITED_NEEDS_CHECK},
	[STORE_ALL_CHILDREN] = {"run_parent_idx", STORE_RUN, RUN_PARENT_RUN_ID},
};

StoreCatalog store_catalog;

/* How often something has changed, ours or not */
static uint32 changes = 0;

static StoreInvalidationCallback invalidation_callback[STORE_TABLES];

/*
 * Relation cache callback: forget the OIDs when one of our tables changed, and
 * tell the room that keeps a copy of the table's rows.  relid is InvalidOid
 * when everything must be forgotten.
 */
static void
store_relation_changed(Datum arg, Oid relid)
{
	changes++;
	for (int i = 0; i < STORE_INDEXES; i++)
		if (relid == store_catalog.index[i])
			store_catalog.valid = false;
	for (int i = 0; i < STORE_TABLES; i++)
	{
		if (OidIsValid(relid) && store_catalog.valid &&
			relid != store_catalog.table[i] && relid != store_catalog.primary[i])
			continue;
		store_catalog.valid = false;
		if (invalidation_callback[i])
			invalidation_callback[i] ();
	}
}

/* Called once, when the library is loaded. */
void
store_init(void)
{
	for (int i = 0; i < STORE_TABLES; i++)
		Assert(store_tables[i].columns <= STORE_MAX_COLUMNS);
	CacheRegisterRelcacheCallback(store_relation_changed, (Datum) 0);
}

/* Have callback called whenever the table may have changed its shape. */
void
store_on_invalidation(StoreTable table, StoreInvalidationCallback callback)
{
	Assert(invalidation_callback[table] == NULL);
	invalidation_callback[table] = callback;
}

/* Look the OIDs up; false when the extension is not installed (any more). */
static bool
store_look_up(StoreCatalog *catalog)
{
	Oid			namespace;
	HeapTuple	tuple;

	namespace = get_namespace_oid(EXTENSION_NAME, true);
	catalog->extension = get_extension_oid(EXTENSION_NAME, true);
	if (!OidIsValid(namespace) || !OidIsValid(catalog->extension))
		return false;
	for (int i = 0; i < STORE_TABLES; i++)
	{
		catalog->table[i] = get_relname_relid(store_tables[i].name, namespace);
		catalog->primary[i] = get_relname_relid(store_tables[i].index, namespace);
		if (!OidIsValid(catalog->table[i]) || !OidIsValid(catalog->primary[i]))
			return false;
	}
	for (int i = 0; i < STORE_INDEXES; i++)
	{
		catalog->index[i] = get_relname_relid(store_indexes[i].name, namespace);
		if (!OidIsValid(catalog->index[i]))
			return false;
	}
	catalog->run_status_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
											   PointerGetDatum("run_status"),
											   ObjectIdGetDatum(namespace));
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(catalog->table[STORE_RUN]));
	if (!HeapTupleIsValid(tuple) || !OidIsValid(catalog->run_status_type))
		return false;
	catalog->owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	for (int i = 0; i < RUN_STATUSES; i++)
		catalog->run_status[i] = GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
												 ObjectIdGetDatum(catalog->run_status_type),
												 CStringGetDatum(run_status_name(i)));
	return true;
}

/*
 * Know the OIDs; false when the extension is not installed (any more).  What has
 * changed while they were looked up is looked up again the next time: whoever locks
 * a table looks then.  A lookup that fails has found nothing.
 */
static bool
store_load(void)
{
	StoreCatalog found;
	uint32		before = changes;

	if (likely(store_catalog.valid))
		return true;
	if (!store_look_up(&found))
		return false;
	store_catalog = found;
	store_catalog.valid = before == changes;
	return true;
}

static void
store_require(void)
{
	if (!store_load())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" is not installed in this database", EXTENSION_NAME),
				 errhint("It was dropped while a session was using it.")));
}

pg_noreturn static void
store_outdated_error(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("extension \"%s\" is older than its library", EXTENSION_NAME),
			 errhint("Run ALTER EXTENSION %s UPDATE.", EXTENSION_NAME)));
}

/* Is the extension there? */
bool
store_exists(void)
{
	return store_load();
}

/*
 * Keep the extension from being dropped until the end of the transaction.
 * DROP EXTENSION locks the extension before anything else, so whoever has come
 * here first never meets a half-dropped one, nor deadlocks with the drop.
 */
void
store_pin(void)
{
	Oid			pinned;

	do
	{
		store_require();
		pinned = store_catalog.extension;
		LockDatabaseObject(ExtensionRelationId, pinned, 0, AccessShareLock);
		/* we may have waited for a drop, and for another one to be created */
		store_require();
	} while (store_catalog.extension != pinned);
}

/* The owner of the extension's tables */
Oid
store_owner(void)
{
	store_require();
	return store_catalog.owner;
}

/* The type trigger_idem.run_status */
Oid
store_run_status_type(void)
{
	store_require();
	return store_catalog.run_status_type;
}

/* The value of that type with this number; see RunStatus */
Oid
store_run_status(int number)
{
	store_require();
	if (!OidIsValid(store_catalog.run_status[number]))
		store_outdated_error();
	return store_catalog.run_status[number];
}

Oid
store_table_id(StoreTable table)
{
	store_require();
	return store_catalog.table[table];
}

/*
 * Open one of the tables; its columns must be those that this library knows.
 * Once it is locked, what we know of its indexes stays good: whoever replaces
 * one keeps the old one as long as the table is in use.
 */
Relation
store_open(StoreTable table, LOCKMODE lockmode)
{
	Relation	rel;

	for (;;)
	{
		store_require();
		rel = try_table_open(store_catalog.table[table], lockmode);
		if (rel == NULL)
		{
			/* dropped before we had the lock */
			store_catalog.valid = false;
			continue;
		}
		/* the lock may have brought the news that something has changed */
		store_require();
		if (likely(RelationGetRelid(rel) == store_catalog.table[table]))
			break;
		table_close(rel, lockmode);
	}
	if (RelationGetNumberOfAttributes(rel) < store_tables[table].columns)
		store_outdated_error();
	return rel;
}
