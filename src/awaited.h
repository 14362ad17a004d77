/*-------------------------------------------------------------------------
 *
 * awaited.h
 *	  What is awaited: telling those who wait when a run or a token has ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_AWAITED_H
#define TRIGGER_IDEM_AWAITED_H

#include "run.h"

/* What is waited for: a run or a token */
typedef struct WaitTarget
{
	pg_uuid_t	id;
	bool		is_cached;
	bool		is_new;			/* of this transaction, marked as awaited */
	bool		has_ended;
	bool		needs_check;	/* somebody had locked it */
	RunStatus	status;			/* of a run that has ended */
} WaitTarget;

extern void awaited_mark(WaitTarget *target, bool is_token);
extern void awaited_ended(const pg_uuid_t *target);
extern int	awaited_check(void);
extern bool awaited_by_others(const pg_uuid_t *target, const List *runs);

#endif							/* TRIGGER_IDEM_AWAITED_H */
