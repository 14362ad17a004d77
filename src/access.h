/*-------------------------------------------------------------------------
 *
 * access.h
 *	  Who may do what.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_ACCESS_H
#define TRIGGER_IDEM_ACCESS_H

#include "compat.h"
#include "task.h"

/* What a role can be allowed to do, for one task or for all; bits */
typedef enum Access
{
	ACCESS_TRIGGER = 1,			/* trigger; see and control what is one's own */
	ACCESS_MONITOR = 2,			/* see everything */
	ACCESS_WORK = 4,			/* create tasks, work their runs */
	ACCESS_ADMIN = 8,			/* control everything */
} Access;

extern void access_init(void);
extern bool access_is_member(Oid user, const char *role);
extern bool access_is_unlimited(void);
extern bool access_allows(Access access, const char *task_id);
extern bool access_owns_a_task(void);
extern bool access_may_work(const Task *task);
extern bool access_may_see_run(const char *task_id, const char *triggered_by,
							   const char *environment);
extern bool access_may_control_run(const char *task_id, const char *triggered_by,
								   const char *environment);
extern void access_require(Access access, const Task *task);
extern void access_require_for_all(Access access, const char *function);
extern void access_require_for_any(Access access, const char *function);
pg_noreturn extern void access_control_error(void);
extern void access_forget_task(Datum task_id);

#endif							/* TRIGGER_IDEM_ACCESS_H */
