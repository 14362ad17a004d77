/*-------------------------------------------------------------------------
 *
 * environment.h
 *	  Environments: isolated key and run spaces of one database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_ENVIRONMENT_H
#define TRIGGER_IDEM_ENVIRONMENT_H

#include "task.h"

extern bool environment_is_default(const char *environment);
extern bool environment_is_open(const char *environment);
extern const char *environment_choose(text *given, const Task *task);
extern const char *environment_to_work(text *given);
extern void environment_check_run_as(const char *environment, const Task *task);
extern bool environment_is_of_run(const char *environment);
extern void environment_keep(const char *environment, const Task *task);

#endif							/* TRIGGER_IDEM_ENVIRONMENT_H */
