/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Keeping the settings of a session over the code of users.
 *
 * A handler's SET outlives its transaction, and in a group of runs so does SET LOCAL.
 * So what it sets is rolled back, role and session authorization included, as it is
 * for a function that has settings of its own: just before the commit, when cursors
 * WITH HOLD have been executed; in a group at the end of each handler, and once more
 * before the commit.
 *
 * What a procedure has set before it committed cannot be rolled back.  Then all
 * settings are compared with the values that this session had set before the first
 * handler, which takes a while: they are many, and since 16 they are sorted first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"

#include "compat.h"
#include "settings.h"

/* ---------- Rolling back ---------- */

/* From here on, in this transaction */
void
settings_mark(SettingsMark *mark)
{
	mark->transaction = compat_lxid();
	mark->nest_level = NewGUCNestLevel();
}

/* Has that transaction not ended? */
bool
settings_mark_is_valid(const SettingsMark *mark)
{
	return mark->transaction == compat_lxid();
}

/*
 * Roll back what was set since, but for one thing that is meant for the commit: how
 * durable it is to be.  Of several handlers, the one that wants most decides.
 */
void
settings_roll_back(const SettingsMark *mark, bool in_group)
{
	int			wanted = synchronous_commit;
	char	   *wanted_name = pstrdup(GetConfigOption("synchronous_commit", false, false));

	AtEOXact_GUC(false, mark->nest_level);
	if (wanted > synchronous_commit || (wanted < synchronous_commit && !in_group))
		(void) set_config_option("synchronous_commit", wanted_name, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, ERROR, false);
	pfree(wanted_name);
}

/* Where to roll back to before the commit; nest_level 0: nothing to do */
static SettingsMark commit_mark;
static bool commits_group;

/* By now, cursors WITH HOLD have been executed, and what they have triggered. */
static void
settings_xact_callback(XactEvent event, void *arg)
{
	if (commit_mark.nest_level > 0 && event == XACT_EVENT_PRE_COMMIT)
		settings_roll_back(&commit_mark, commits_group);
	commit_mark.nest_level = 0;
}

/* Called once, when the library is loaded. */
void
settings_init(void)
{
	RegisterXactCallback(settings_xact_callback, NULL);
}

/* The next commit is to roll back what was set since. */
void
settings_roll_back_at_commit(const SettingsMark *mark, bool in_group)
{
	commit_mark = *mark;
	commits_group = in_group;
}

/* ---------- Putting back ---------- */

/* A setting that the session had set itself */
typedef struct SavedSetting
{
	const char *name;
	char	   *value;
	bool		is_lost;		/* it cannot be put back */
} SavedSetting;

/* Does it end with the transaction, however it was set? */
static bool
is_of_transaction(const char *name)
{
	return strcmp(name, "transaction_isolation") == 0 || strcmp(name, "transaction_read_only") == 0 ||
		strcmp(name, "transaction_deferrable") == 0;
}

/* Was it set by SET in this session, and can that be undone? */
static bool
is_session_setting(const struct config_generic *setting)
{
#ifdef GUC_NO_RESET
	if (setting->flags & GUC_NO_RESET)
		return false;
#endif
	return setting->source == PGC_S_SESSION && setting->context != PGC_INTERNAL &&
		!is_of_transaction(setting->name);
}

/* The settings of this session, in the current context */
List *
settings_save(void)
{
	List	   *saved = NIL;
	int			count;
	struct config_generic **settings = compat_get_guc_variables(&count);

	for (int i = 0; i < count; i++)
		if (is_session_setting(settings[i]))
		{
			SavedSetting *setting = palloc0(sizeof(SavedSetting));

			setting->name = pstrdup(settings[i]->name);
			setting->value = pstrdup(GetConfigOption(settings[i]->name, false, false));
			saved = lappend(saved, setting);
		}
	return saved;
}

static bool
is_identity(const char *name)
{
	return strcmp(name, "role") == 0 || strcmp(name, "session_authorization") == 0;
}

static SavedSetting *
saved_find(List *saved, const char *name)
{
	ListCell   *cell;

	foreach(cell, saved)
	{
		SavedSetting *setting = lfirst(cell);

		if (strcmp(setting->name, name) == 0)
			return setting;
	}
	return NULL;
}

/*
 * Set a setting to a value that the session had before, which needs no rights:
 * a handler may have changed it through a function that had them.  A handler may
 * also have loaded a library that has other rules for a name that was made up, or
 * dropped what a value names; then there is a warning, and the answer is false.
 * But nothing goes on as somebody else.
 */
static bool
setting_set(const char *name, const char *value)
{
	return set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SET, true,
							 is_identity(name) ? ERROR : WARNING, false) > 0;
}

/*
 * Put the settings back to what settings_save() found.  True when something
 * had to be changed, which the next commit makes last.
 */
bool
settings_restore(List *saved)
{
	bool		changed = false;
	int			count;
	struct config_generic **settings = compat_get_guc_variables(&count);
	ListCell   *cell;

	/* what was set in addition; who we are comes first */
	for (int identity = true; identity >= false; identity--)
		for (int i = 0; i < count; i++)
			if (is_session_setting(settings[i]) && is_identity(settings[i]->name) == identity &&
				saved_find(saved, settings[i]->name) == NULL)
				changed |= setting_set(settings[i]->name, NULL);

	/* what was set to something else, or reset */
	foreach(cell, saved)
	{
		SavedSetting *setting = lfirst(cell);
		const char *value = GetConfigOption(setting->name, true, false);

		if (setting->is_lost || (value && strcmp(value, setting->value) == 0))
			continue;
		setting->is_lost = !setting_set(setting->name, setting->value);
		changed |= !setting->is_lost;
	}
	return changed;
}
