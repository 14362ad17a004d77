/*-------------------------------------------------------------------------
 *
 * statement.h
 *	  SQL of our own, run through SPI as the owner of the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_STATEMENT_H
#define TRIGGER_IDEM_STATEMENT_H

#include "executor/spi.h"

#define STATEMENT_MAX_ARGS 24

/*
 * A statement: constant text, in which everything is schema-qualified.  The
 * plan is made at first use and kept for the session.
 */
typedef struct Statement
{
	const char *sql;
	int			expected;		/* what SPI must answer: SPI_OK_... */
	int			cursor_options;
	Oid			argtypes[STATEMENT_MAX_ARGS];	/* up to an InvalidOid */
	SPIPlanPtr	plan;
} Statement;

/*
 * Between owner_begin() and owner_end() we act as the extension's owner; after
 * role_begin(), as another role.
 */
typedef struct OwnerScope
{
	Oid			user;
	int			security_context;
	int			path;
	bool		pushed_snapshot;
	bool		see_latest;		/* of the scope around it, while one is open */
	MemoryContext caller;
} OwnerScope;

extern void owner_begin(OwnerScope *scope);
extern void role_begin(OwnerScope *scope, Oid role);
extern void owner_end(OwnerScope *scope);
extern void scope_see_latest(OwnerScope *scope);
extern void statement_command(const char *command);
extern uint64 statement_run(Statement *statement, Datum *values, const char *nulls);
extern Datum statement_value(uint64 row, int column, bool *isnull);
extern char *statement_text(OwnerScope *scope, uint64 row, int column);

#endif							/* TRIGGER_IDEM_STATEMENT_H */
