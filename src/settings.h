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

/* Where the settings stood before a handler */
typedef struct SettingsMark
{
	LocalTransactionId transaction;
	int			nest_level;
} SettingsMark;

extern void settings_init(void);
extern void settings_mark(SettingsMark *mark);
extern bool settings_mark_is_valid(const SettingsMark *mark);
extern void settings_roll_back(const SettingsMark *mark, bool in_group);
extern void settings_roll_back_at_commit(const SettingsMark *mark, bool in_group);

extern List *settings_save(void);
extern bool settings_restore(List *saved);

#endif							/* TRIGGER_IDEM_SETTINGS_H */
