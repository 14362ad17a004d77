/*-------------------------------------------------------------------------
 *
 * suspend.h
 *	  Suspending runs: recording what they wait for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_SUSPEND_H
#define TRIGGER_IDEM_SUSPEND_H

#include "wait.h"

extern void suspend_trigger(WaitRequest *request);
extern void suspend_record(WaitRequest *request, AttemptResult *result, RunOutcome *outcome);
extern void suspend_record_passed(const WaitRequest *request, bool was_over);
extern void suspend_record_remembered(const CurrentRun *run);
extern void suspend_run(CurrentRun *run, AttemptResult *result);

#endif							/* TRIGGER_IDEM_SUSPEND_H */
