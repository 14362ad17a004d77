/*-------------------------------------------------------------------------
 *
 * environment.h
 *	  Environments: isolated key and run spaces of one database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_ENVIRONMENT_H
#define TRIGGER_IDEM_ENVIRONMENT_H

#include "postgres.h"

extern bool environment_is_default(const char *environment);
extern bool environment_is_open(const char *environment);
extern const char *environment_choose(text *given);

#endif							/* TRIGGER_IDEM_ENVIRONMENT_H */
