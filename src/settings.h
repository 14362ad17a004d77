/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  Keeping the settings of a session over the code of users.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_SETTINGS_H
#define TRIGGER_IDEM_SETTINGS_H

#include "nodes/pg_list.h"

extern List *settings_save(void);
extern bool settings_restore(List *saved);

#endif							/* TRIGGER_IDEM_SETTINGS_H */
