/*-------------------------------------------------------------------------
 *
 * store_catalog.h
 *	  Which tables, indexes and types are the extension's own, for store.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_STORE_CATALOG_H
#define TRIGGER_IDEM_STORE_CATALOG_H

#include "run.h"
#include "store.h"

typedef struct StoreTableInfo
{
	const char *name;
	const char *index;
	RegProcedure key_equal;		/* of the index's first column */
	int			columns;
} StoreTableInfo;

typedef struct StoreIndexInfo
{
	const char *name;
	StoreTable	table;
	int			wanted;			/* column that is not null in what it has; 0:
								 * has all */
} StoreIndexInfo;

/* What is remembered of the server's catalogs */
typedef struct StoreCatalog
{
	bool		valid;
	Oid			extension;
	Oid			owner;
	Oid			run_status_type;
	Oid			run_status[RUN_STATUSES];
	Oid			table[STORE_TABLES];
	Oid			primary[STORE_TABLES];
	Oid			index[STORE_INDEXES];
} StoreCatalog;

extern const StoreTableInfo store_tables[STORE_TABLES];
extern const StoreIndexInfo store_indexes[STORE_INDEXES];
extern StoreCatalog store_catalog;

extern Relation store_open(StoreTable table, LOCKMODE lockmode);

#endif							/* TRIGGER_IDEM_STORE_CATALOG_H */
