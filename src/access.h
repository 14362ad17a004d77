/*-------------------------------------------------------------------------
 *
 * access.h
 *	  Who may see what.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_ACCESS_H
#define TRIGGER_IDEM_ACCESS_H

#include "task.h"

extern bool access_is_member(Oid user, const char *role);
extern bool access_may_work(const Task *task, const char *environment);
extern bool access_may_see_run(const char *task_id, const char *triggered_by,
							   const char *environment);

#endif							/* TRIGGER_IDEM_ACCESS_H */
