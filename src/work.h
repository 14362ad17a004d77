/*-------------------------------------------------------------------------
 *
 * work.h
 *	  Working runs in this session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_WORK_H
#define TRIGGER_IDEM_WORK_H

/* Shall it go on?  Asked before each claim. */
typedef bool (*WorkGoesOn) (void);

extern int	work_everything(const char *worker_id, WorkGoesOn goes_on);

#endif							/* TRIGGER_IDEM_WORK_H */
