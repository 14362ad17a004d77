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

extern const char *environment_choose(text *given);

#endif							/* TRIGGER_IDEM_ENVIRONMENT_H */
