/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Differences between PostgreSQL versions, and the only place that asks
 *	  for PG_VERSION_NUM.
 *
 * Each wrapper has the signature of the newest server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_COMPAT_H
#define TRIGGER_IDEM_COMPAT_H

#include "access/amapi.h"
#include "access/genam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "catalog/pg_proc.h"
#include "nodes/execnodes.h"
#include "replication/slot.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/jsonb.h"

#if PG_VERSION_NUM < 150000
#error "trigger_idem needs PostgreSQL 15 or later"
#endif

/* die(), called by another signal handler */
#if PG_VERSION_NUM >= 190000
#define COMPAT_DIE() die(postgres_signal_arg, pg_siginfo)
#else
#define COMPAT_DIE() die(postgres_signal_arg)
#endif

/* Before a function that does not return */
#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/* Is role allowed to execute the function? */
static inline bool
compat_may_execute(Oid function, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(function, role, ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

static inline bool
compat_owns_database(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, role);
#else
	return pg_database_ownercheck(database, role);
#endif
}

/* May member SET ROLE to role? */
static inline bool
compat_may_set_role(Oid member, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return member_can_set_role(member, role);
#else
	return is_member_of_role(member, role);
#endif
}

/*
 * Is member one of role's, by SET ROLE or by inheritance?  From 16 on there are
 * memberships that give neither.
 */
static inline bool
compat_is_member(Oid member, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return member_can_set_role(member, role) || has_privs_of_role(member, role);
#else
	return is_member_of_role(member, role);
#endif
}

/* The list of all settings */
static inline struct config_generic **
compat_get_guc_variables(int *count)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(count);
#else
	*count = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

/* Does an SQL function that is called again execute a plan that may be out of date? */
static inline bool
compat_sql_plans_are_kept(void)
{
	return PG_VERSION_NUM < 180000;
}

/* Which transaction of this process is it? */
static inline LocalTransactionId
compat_lxid(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProc->vxid.lxid;
#else
	return MyProc->lxid;
#endif
}

static inline IndexScanDesc
compat_index_beginscan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 190000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0, 0);
#elif PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

/* Which indexes need a new entry after an update */
#if PG_VERSION_NUM < 160000
typedef enum TU_UpdateIndexes
{
	TU_None,
	TU_All,
	TU_Summarizing
} TU_UpdateIndexes;
#endif

static inline void
compat_simple_table_tuple_update(Relation rel, ItemPointer tid, TupleTableSlot *slot,
								 Snapshot snapshot, TU_UpdateIndexes *update_indexes)
{
#if PG_VERSION_NUM >= 160000
	simple_table_tuple_update(rel, tid, slot, snapshot, update_indexes);
#else
	bool		all;

	simple_table_tuple_update(rel, tid, slot, snapshot, &all);
	*update_indexes = all ? TU_All : TU_None;
#endif
}

static inline bool
compat_index_is_summarizing(Relation index)
{
#if PG_VERSION_NUM >= 160000
	return index->rd_indam->amsummarizing;
#else
	return false;
#endif
}

/* After the last insert; since 17 a BRIN index keeps pages pinned until then. */
static inline void
compat_index_insert_cleanup(Relation index, IndexInfo *info)
{
#if PG_VERSION_NUM >= 170000
	index_insert_cleanup(index, info);
#endif
}

/*
 * Pin the search path to pg_catalog, temporary tables not included, until
 * compat_unpin_search_path(); an error unpins it with its (sub)transaction.
 */
static inline int
compat_pin_search_path(void)
{
#if PG_VERSION_NUM >= 170000
	int			nest_level = NewGUCNestLevel();

	RestrictSearchPath();
	return nest_level;
#else
	OverrideSearchPath path = {.schemas = NIL,.addCatalog = true,.addTemp = false};

	PushOverrideSearchPath(&path);
	return 0;
#endif
}

static inline void
compat_unpin_search_path(int nest_level)
{
#if PG_VERSION_NUM >= 170000
	AtEOXact_GUC(false, nest_level);
#else
	PopOverrideSearchPath();
#endif
}

/* Drop the temporary replication slots of this session. */
static inline void
compat_replication_slot_cleanup(void)
{
#if PG_VERSION_NUM >= 170000
	ReplicationSlotCleanup(false);
#else
	ReplicationSlotCleanup();
#endif
}

/* What a jsonb is built in, and the value when that is complete; zeroes to begin with */
#if PG_VERSION_NUM >= 190000
typedef JsonbInState JsonbBuilder;
#else
typedef struct JsonbBuilder
{
	JsonbValue *result;
	JsonbParseState *state;
} JsonbBuilder;
#endif

static inline void
compat_push_jsonb(JsonbBuilder *builder, JsonbIteratorToken token, JsonbValue *value)
{
#if PG_VERSION_NUM >= 190000
	pushJsonbValue(builder, token, value);
#else
	builder->result = pushJsonbValue(&builder->state, token, value);
#endif
}

#endif							/* TRIGGER_IDEM_COMPAT_H */
