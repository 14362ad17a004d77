/*-------------------------------------------------------------------------
 *
 * work.h
 *	  Working runs in this session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_WORK_H
#define TRIGGER_IDEM_WORK_H

#include <signal.h>

/* Set by a signal handler: give back what is being executed, and return. */
extern volatile sig_atomic_t work_stop;

extern void work_request_stop(void);
extern int	work_everything(const char *worker_id);

#endif							/* TRIGGER_IDEM_WORK_H */
