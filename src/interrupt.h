/*-------------------------------------------------------------------------
 *
 * interrupt.h
 *	  What interrupts a handler: its time is over, or the worker is to stop.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_INTERRUPT_H
#define TRIGGER_IDEM_INTERRUPT_H

#include <signal.h>

#include "task.h"

/* Give back what is being executed, and return. */
extern volatile sig_atomic_t work_stop;
extern void work_request_stop(void);

/* The present attempt has taken longer than its task allows; unset for the next. */
extern volatile sig_atomic_t duration_is_over;

extern void handler_begins(const Task *task);
extern void handler_ends(void);

#endif							/* TRIGGER_IDEM_INTERRUPT_H */
