/*-------------------------------------------------------------------------
 *
 * access.c
 *	  Who may see what: the rule of the views, for functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"

#include "access.h"
#include "environment.h"
#include "task.h"

/* Is user a member of the role with this name?  Superusers always are. */
bool
access_is_member(Oid user, const char *role)
{
	Oid			oid = get_role_oid(role, true);

	return superuser_arg(user) || (OidIsValid(oid) && is_member_of_role(user, oid));
}

/*
 * May the caller see a run?  Those of tasks that the caller's roles own, and
 * what these roles have triggered in environments that are open to the caller.
 */
bool
access_may_see_run(const char *task_id, const char *triggered_by, const char *environment)
{
	const Task *task = task_find(task_id);

	return (task != NULL && access_is_member(GetUserId(), task->owner)) ||
		(access_is_member(GetUserId(), triggered_by) && environment_is_open(environment));
}

/*
 * May the caller work runs of a task from outside the database?  Its owner may,
 * in every environment, and members of its run_as in those that are open to them.
 */
bool
access_may_work(const Task *task, const char *environment)
{
	return access_is_member(GetUserId(), task->owner) ||
		(access_is_member(GetUserId(), task->run_as) && environment_is_open(environment));
}
