/*-------------------------------------------------------------------------
 *
 * statement.c
 *	  SQL of our own, run through SPI as the owner of the extension.
 *
 * This is the only file that runs our statements.  owner_begin() becomes the
 * owner of the extension's tables and pins the search path, owner_end() goes
 * back; nothing between the two calls a function of a user.  An error in
 * between is undone by the abort of the (sub)transaction, which restores user,
 * search path and SPI stack.
 *
 * The statements name everything with its schema, operators too, for the path
 * alone would not be enough if one of them ever ran unpinned.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "statement.h"
#include "store.h"

/* Do the statements of this scope see what is committed now? */
static bool see_latest = false;

static void
scope_begin(OwnerScope *scope, Oid role)
{
	scope->see_latest = see_latest;
	see_latest = false;
	scope->caller = CurrentMemoryContext;
	scope->pushed_snapshot = !ActiveSnapshotSet();
	if (scope->pushed_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	GetUserIdAndSecContext(&scope->user, &scope->security_context);
	SetUserIdAndSecContext(role, scope->security_context | SECURITY_LOCAL_USERID_CHANGE);
	scope->path = compat_pin_search_path();
}

void
owner_begin(OwnerScope *scope)
{
	store_pin();
	scope_begin(scope, store_owner());
}

/*
 * The same as another role than the owner, which the caller may become: for
 * statements that call another extension, as nobody else may tell what they do.
 */
void
role_begin(OwnerScope *scope, Oid role)
{
	store_pin();
	scope_begin(scope, role);
}

void
owner_end(OwnerScope *scope)
{
	compat_unpin_search_path(scope->path);
	SetUserIdAndSecContext(scope->user, scope->security_context);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	if (scope->pushed_snapshot)
		PopActiveSnapshot();
	see_latest = scope->see_latest;
}

/*
 * Have the statements of this scope see what is committed now, at every isolation
 * level: as foreign keys do it, for what must not fail because a heartbeat came
 * after the transaction's snapshot.
 */
void
scope_see_latest(OwnerScope *scope)
{
	see_latest = IsolationUsesXactSnapshot();
}

static void
statement_prepare(Statement *statement)
{
	int			nargs = 0;

	Assert(!OidIsValid(statement->argtypes[STATEMENT_MAX_ARGS - 1]));
	while (OidIsValid(statement->argtypes[nargs]))
		nargs++;
	statement->plan = SPI_prepare_cursor(statement->sql, nargs, statement->argtypes,
										 statement->cursor_options);
	if (statement->plan == NULL || SPI_keepplan(statement->plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", statement->sql);
}

/*
 * Run a statement inside an owner scope and return the number of its rows,
 * which are in SPI_tuptable.  nulls may be NULL when no value is null.
 */
uint64
statement_run(Statement *statement, Datum *values, const char *nulls)
{
	int			result;

	if (statement->plan == NULL)
		statement_prepare(statement);
	if (see_latest)
	{
		Snapshot	latest = RegisterSnapshot(GetLatestSnapshot());

		result = SPI_execute_snapshot(statement->plan, values, nulls, latest, InvalidSnapshot,
									  false, true, 0);
		UnregisterSnapshot(latest);
	}
	else
		result = SPI_execute_plan(statement->plan, values, nulls, false, 0);
	if (result != statement->expected)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(result), statement->sql);
	return SPI_processed;
}

/*
 * Run a command without a result, inside an owner scope: GRANT and its like, which
 * take no parameters.  What is not constant in it has been quoted.
 */
void
statement_command(const char *command)
{
	int			result = SPI_execute(command, false, 0);

	if (result != SPI_OK_UTILITY)
		elog(ERROR, "unexpected result %s of \"%s\"", SPI_result_code_string(result), command);
}

/* A value of the last statement's result; valid until owner_end(). */
Datum
statement_value(uint64 row, int column, bool *isnull)
{
	bool		null_here;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
						 isnull ? isnull : &null_here);
}

/* A text value of the last result, copied for the scope's caller; or NULL. */
char *
statement_text(OwnerScope *scope, uint64 row, int column)
{
	bool		isnull;
	Datum		value = statement_value(row, column, &isnull);
	char	   *plain;

	if (isnull)
		return NULL;
	plain = TextDatumGetCString(value);
	return MemoryContextStrdup(scope->caller, plain);
}
