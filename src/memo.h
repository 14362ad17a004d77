/*-------------------------------------------------------------------------
 *
 * memo.h
 *	  What the current run knows of its finished steps.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_MEMO_H
#define TRIGGER_IDEM_MEMO_H

#include "current.h"
#include "key.h"

/* The output of a finished step of the current run */
typedef struct Memo
{
	Key			step_id;		/* hash key */
	bool		isnull;
	bool		is_replayed;	/* this attempt got it */
	Datum		output;
} Memo;

extern void memo_init(void);
extern void memo_prepare(void);
extern Memo *memo_find(const Key *step_id);
extern int64 memo_number(void);
extern void memo_add(const Key *step_id, Datum output, bool isnull);
extern void memo_note_replay(Memo *memo);
extern void memo_count(const CurrentRun *run, AttemptResult *result);
extern void memo_forget_run(void);

#endif							/* TRIGGER_IDEM_MEMO_H */
