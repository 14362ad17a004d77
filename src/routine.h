/*-------------------------------------------------------------------------
 *
 * routine.h
 *	  Handlers and callbacks: finding, checking and calling them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_ROUTINE_H
#define TRIGGER_IDEM_ROUTINE_H

#include "fmgr.h"

extern void routine_init(void);

/* Handlers */
typedef struct Handler
{
	Oid			oid;
	Oid			owner;
	Oid			result_type;	/* InvalidOid for a procedure */
	int			nargs;			/* 0 or 1, the payload */
	char	   *schema;
	char	   *name;
} Handler;

extern void handler_describe(Oid oid, Handler *handler);
extern void handler_find(const char *schema, const char *name, Handler *handler);
extern void handler_check_role(const Handler *handler, Oid run_as);
extern Datum handler_call(const Handler *handler, Datum payload, bool payload_isnull,
						  bool *isnull);

/* Callbacks */
extern Datum callback_call(Oid oid, text *key, Datum args, bool args_isnull, bool *isnull);
extern Datum value_to_jsonb(Datum value, Oid type);

#endif							/* TRIGGER_IDEM_ROUTINE_H */
