/*-------------------------------------------------------------------------
 *
 * routine.c
 *	  Handlers and callbacks: finding, checking and calling them.
 *
 * Both are code of users.  They are called as the user that is current,
 * through the server's function manager, after a check of the EXECUTE
 * privilege and the signature; what they return is converted by to_jsonb as
 * that user.  A handler is found again by its qualified name at every attempt.
 * How to call a callback is remembered for the session, and forgotten whenever
 * pg_proc says that the function changed.  One in SQL is looked up for each call:
 * before 18 what is remembered of it has a plan that lasts as long as the
 * transaction, whoever has become the user, and whatever has changed meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "routine.h"
#include "trigger_idem.h"

/* A callback and how to call it */
typedef struct Callback
{
	Oid			oid;			/* hash key */
	uint32		hash;			/* in the system cache */
	bool		valid;			/* false: pg_proc changed, or a call failed */
	bool		in_use;			/* a call is in progress */
	bool		once;			/* not to be remembered */
	int			nargs;
	Oid			result_type;
	FmgrInfo	function;
	MemoryContext context;
} Callback;

/* With more than these, those that have changed or are gone are forgotten. */
#define CALLBACKS_MAX	256

static HTAB *callbacks = NULL;

/* How often one of them may have changed */
static uint32 callback_changes = 0;

/* Syscache callback: a function changed, or (hash 0) any may have. */
static void
callback_changed(Datum arg, int cacheid, uint32 hash)
{
	HASH_SEQ_STATUS status;
	Callback   *callback;

	callback_changes++;
	if (callbacks == NULL)
		return;
	hash_seq_init(&status, callbacks);
	while ((callback = hash_seq_search(&status)) != NULL)
		if (hash == 0 || callback->hash == hash)
			callback->valid = false;
}

/* Called once, when the library is loaded. */
void
routine_init(void)
{
	CacheRegisterSyscacheCallback(PROCOID, callback_changed, (Datum) 0);
}

/* Raise 42883 for a handler or callback of the wrong shape. */
pg_noreturn static void
signature_error(Form_pg_proc proc, const char *what, const char *problem, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("%s cannot be used as a %s",
					quote_qualified_identifier(get_namespace_name(proc->pronamespace),
											   NameStr(proc->proname)), what),
			 errdetail_internal("%s", problem),
			 errhint("%s", hint)));
}

/*
 * The checks that handlers and callbacks share: neither STRICT (a null argument
 * would skip the work), nor a set, nor with arguments that are not plain input,
 * nor with a result that is no value.
 */
static void
signature_check(HeapTuple tuple, const char *what, const char *hint)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);

	if (proc->prokind != PROKIND_FUNCTION && proc->prokind != PROKIND_PROCEDURE)
		signature_error(proc, what, _("It is an aggregate or a window function."), hint);
	if (proc->proretset)
		signature_error(proc, what, _("It returns a set."), hint);
	if (proc->proisstrict)
		signature_error(proc, what, _("It is STRICT, and would not be called with a null argument."), hint);
	if (OidIsValid(proc->provariadic))
		signature_error(proc, what, _("It is variadic."), hint);
	if (proc->prokind == PROKIND_PROCEDURE && proc->prorettype != VOIDOID)
		signature_error(proc, what, _("It has output arguments."), hint);
	if (get_typtype(proc->prorettype) == TYPTYPE_PSEUDO &&
		proc->prorettype != VOIDOID && proc->prorettype != RECORDOID)
		signature_error(proc, what, _("It does not return a value."), hint);
}

static HeapTuple
routine_tuple(Oid oid, const char *what)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("%s with OID %u does not exist", what, oid)));
	return tuple;
}

/*
 * Convert a value of any type to jsonb, as to_jsonb() does; the result is in
 * the current memory context.
 */
Datum
value_to_jsonb(Datum value, Oid type)
{
	FmgrInfo	to_jsonb;
	Param	   *argument = makeNode(Param);

	if (type == JSONBOID)
		return PointerGetDatum(PG_DETOAST_DATUM_COPY(value));

	/* to_jsonb() asks its call expression for the type of its argument */
	argument->paramkind = PARAM_EXTERN;
	argument->paramtype = type;
	argument->paramtypmod = -1;
	argument->paramcollid = get_typcollation(type);
	argument->location = -1;
	fmgr_info(F_TO_JSONB, &to_jsonb);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(argument),
											 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
					   &to_jsonb);
	return FunctionCall1(&to_jsonb, value);
}

/* ---------- Handlers ---------- */

#define HANDLER_HINT \
	_("A handler is a function or procedure that takes (payload jsonb) or nothing.")

/* Describe a handler by its OID, in the current context; 42883, 42725. */
void
handler_describe(Oid oid, Handler *handler)
{
	HeapTuple	tuple = routine_tuple(oid, "handler");
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	CatCList   *same_name;
	int			overloads = 0;

	signature_check(tuple, "handler", HANDLER_HINT);
	if (proc->pronargs > 1 ||
		(proc->pronargs == 1 && proc->proargtypes.values[0] != JSONBOID))
		signature_error(proc, "handler", _("It takes other arguments."), HANDLER_HINT);

	same_name = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(NameStr(proc->proname)));
	for (int i = 0; i < same_name->n_members; i++)
		if (((Form_pg_proc) GETSTRUCT(&same_name->members[i]->tuple))->pronamespace ==
			proc->pronamespace)
			overloads++;
	ReleaseSysCacheList(same_name);

	handler->oid = oid;
	handler->owner = proc->proowner;
	handler->result_type = proc->prokind == PROKIND_PROCEDURE ? InvalidOid : proc->prorettype;
	handler->nargs = proc->pronargs;
	handler->schema = get_namespace_name(proc->pronamespace);
	handler->name = pstrdup(NameStr(proc->proname));
	ReleaseSysCache(tuple);

	if (overloads > 1)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
				 errmsg("handler name %s is not unique",
						quote_qualified_identifier(handler->schema, handler->name)),
				 errhint("A handler is stored by name: give it a name that no other function of its schema has.")));
}

/*
 * Find the handler that is stored under this name.  The qualified name is all
 * that counts: neither search path nor temporary schema can put another
 * function in its place.
 */
void
handler_find(const char *schema, const char *name, Handler *handler)
{
	Oid			namespace = get_namespace_oid(schema, true);
	Oid			found = InvalidOid;
	CatCList   *same_name = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));

	for (int i = 0; i < same_name->n_members; i++)
	{
		Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(&same_name->members[i]->tuple);

		if (OidIsValid(namespace) && proc->pronamespace == namespace)
			found = proc->oid;
	}
	ReleaseSysCacheList(same_name);
	if (!OidIsValid(found))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("handler %s does not exist", quote_qualified_identifier(schema, name)),
				 errhint("Create it again, or give the task another one with task_create().")));
	handler_describe(found, handler);
}

/* May run_as work with this handler?  42501 */
void
handler_check_role(const Handler *handler, Oid run_as)
{
	if (!compat_may_execute(handler->oid, run_as))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not execute handler %s",
						GetUserNameFromId(run_as, false),
						quote_qualified_identifier(handler->schema, handler->name)),
				 errhint("GRANT EXECUTE on it to the role that the task runs as.")));
	if (superuser_arg(run_as) && !superuser_arg(handler->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a task that runs as a superuser needs a handler that a superuser owns"),
				 errdetail("Handler %s is owned by \"%s\".",
						   quote_qualified_identifier(handler->schema, handler->name),
						   GetUserNameFromId(handler->owner, false))));
}

/*
 * Call a procedure that may COMMIT.  No SPI connection of ours may be open; the
 * snapshot that it starts with is the portal's, as for any CALL, so that its
 * COMMIT can let go of it.
 */
static void
handler_call_procedure(const Handler *handler, Datum payload, bool payload_isnull)
{
	CallStmt   *call = makeNode(CallStmt);
	List	   *args = NIL;

	if (handler->nargs == 1)
		args = list_make1(makeConst(JSONBOID, -1, InvalidOid, -1, payload, payload_isnull, false));
	call->funcexpr = makeFuncExpr(handler->oid, VOIDOID, args, InvalidOid, InvalidOid,
								  COERCE_EXPLICIT_CALL);
	EnsurePortalSnapshotExists();
	ExecuteCallStmt(call, NULL, false, None_Receiver);
}

static Datum
handler_call_function(const Handler *handler, Datum payload, bool payload_isnull, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 1);
	FmgrInfo	function;
	PgStat_FunctionCallUsage usage;
	Datum		result;

	InvokeFunctionExecuteHook(handler->oid);
	fmgr_info(handler->oid, &function);
	InitFunctionCallInfoData(*fcinfo, &function, handler->nargs, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = payload;
	fcinfo->args[0].isnull = payload_isnull;

	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_init_function_usage(fcinfo, &usage);
	result = FunctionCallInvoke(fcinfo);
	pgstat_end_function_usage(&usage, true);

	*isnull = fcinfo->isnull || handler->result_type == VOIDOID;
	if (!*isnull)
		result = value_to_jsonb(result, handler->result_type);
	PopActiveSnapshot();
	return result;
}

/*
 * Call a handler as the current user and return its output as jsonb.  After a
 * procedure the transaction may be another one than before; the result is in
 * the current context, which must outlive the transaction.
 */
Datum
handler_call(const Handler *handler, Datum payload, bool payload_isnull, bool *isnull)
{
	if (OidIsValid(handler->result_type))
		return handler_call_function(handler, payload, payload_isnull, isnull);
	handler_call_procedure(handler, payload, payload_isnull);
	*isnull = true;
	return (Datum) 0;
}

/* ---------- Callbacks ---------- */

#define CALLBACK_HINT \
	_("A callback is a function that takes (idempotency_key text) or (idempotency_key text, args jsonb).")

/* Fill in how to call a function as a callback; 42883 when it cannot be one. */
static void
callback_prepare(Callback *callback)
{
	uint32		changes = callback_changes;
	HeapTuple	tuple = routine_tuple(callback->oid, "callback");
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);

	signature_check(tuple, "callback", CALLBACK_HINT);
	if (proc->prokind != PROKIND_FUNCTION)
		signature_error(proc, "callback", _("It is a procedure."), CALLBACK_HINT);
	if (proc->pronargs < 1 || proc->pronargs > 2 || proc->proargtypes.values[0] != TEXTOID ||
		(proc->pronargs == 2 && proc->proargtypes.values[1] != JSONBOID))
		signature_error(proc, "callback", _("It takes other arguments."), CALLBACK_HINT);

	callback->once = compat_sql_plans_are_kept() && proc->prolang == SQLlanguageId;
	callback->nargs = proc->pronargs;
	callback->result_type = proc->prorettype;
	ReleaseSysCache(tuple);
	fmgr_info_cxt(callback->oid, &callback->function, callback->context);
	/* what has changed while it was read is read again for the next call */
	callback->valid = changes == callback_changes;
}

/* Forget those that nothing is known of any more. */
static void
callbacks_forget(void)
{
	HASH_SEQ_STATUS status;
	Callback   *callback;

	hash_seq_init(&status, callbacks);
	while ((callback = hash_seq_search(&status)) != NULL)
		if (!callback->valid && !callback->in_use)
		{
			if (callback->context)
				MemoryContextDelete(callback->context);
			(void) hash_search(callbacks, &callback->oid, HASH_REMOVE, NULL);
		}
}

/*
 * Find what is remembered of a callback, or look it up.  One that is being
 * called further up the stack is left alone: temporary, of the caller, then
 * takes its place for the inner call.
 */
static pg_noinline Callback *
callback_find(Oid oid, Callback *temporary)
{
	Callback   *callback;
	bool		found;

	if (callbacks == NULL)
	{
		HASHCTL		info = {.keysize = sizeof(Oid),.entrysize = sizeof(Callback)};

		callbacks = hash_create("trigger_idem callbacks", 16, &info, HASH_ELEM | HASH_BLOBS);
	}
	if (hash_get_num_entries(callbacks) > CALLBACKS_MAX)
		callbacks_forget();
	callback = hash_search(callbacks, &oid, HASH_ENTER, &found);
	if (!found)
	{
		callback->valid = callback->in_use = false;
		callback->context = NULL;
		callback->hash = GetSysCacheHashValue1(PROCOID, ObjectIdGetDatum(oid));
	}
	if (callback->in_use)
	{
		temporary->oid = oid;
		temporary->context = CurrentMemoryContext;
		callback_prepare(temporary);
		return temporary;
	}
	if (!callback->valid)
	{
		if (callback->context == NULL)
			callback->context = AllocSetContextCreate(TopMemoryContext, "trigger_idem callback",
													  ALLOCSET_SMALL_SIZES);
		else
			MemoryContextReset(callback->context);
		callback_prepare(callback);
	}
	return callback;
}

/*
 * Call a callback as the current user, with the step's idempotency key and, if
 * it takes them, the arguments; return its result as jsonb.
 */
Datum
callback_call(Oid oid, text *key, Datum args, bool args_isnull, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 2);
	Callback	temporary;
	Callback   *const callback = callback_find(oid, &temporary);
	PgStat_FunctionCallUsage usage;
	Datum		result = (Datum) 0;

	if (!compat_may_execute(oid, GetUserId()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(oid));
	InvokeFunctionExecuteHook(oid);
	InitFunctionCallInfoData(*fcinfo, &callback->function, callback->nargs,
							 DEFAULT_COLLATION_OID, NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(key);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = args;
	fcinfo->args[1].isnull = args_isnull;

	callback->in_use = true;
	PG_TRY();
	{
		pgstat_init_function_usage(fcinfo, &usage);
		result = FunctionCallInvoke(fcinfo);
		pgstat_end_function_usage(&usage, true);
	}
	PG_CATCH();
	{
		/* what the function kept in fn_extra may be in pieces */
		callback->valid = callback->in_use = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	callback->in_use = false;
	callback->valid &= !callback->once;

	*isnull = fcinfo->isnull || callback->result_type == VOIDOID;
	return *isnull ? (Datum) 0 : value_to_jsonb(result, callback->result_type);
}
