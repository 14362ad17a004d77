/*-------------------------------------------------------------------------
 *
 * failure.h
 *	  Errors of handlers as they are stored.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_FAILURE_H
#define TRIGGER_IDEM_FAILURE_H

#include "utils/jsonb.h"

extern Jsonb *failure_from_error(const ErrorData *error);
extern Jsonb *failure_worker_died(void);
extern Jsonb *failure_timed_out(void);

#endif							/* TRIGGER_IDEM_FAILURE_H */
