/*-------------------------------------------------------------------------
 *
 * answer.h
 *	  The answer of a function with several OUT parameters.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_ANSWER_H
#define TRIGGER_IDEM_ANSWER_H

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"

/* A row of the type that the function returns */
static inline Datum
answer_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "function does not return a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

#endif							/* TRIGGER_IDEM_ANSWER_H */
