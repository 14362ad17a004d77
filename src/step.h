/*-------------------------------------------------------------------------
 *
 * step.h
 *	  Steps: run_once() and its relatives.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_STEP_H
#define TRIGGER_IDEM_STEP_H

extern void step_init(void);
extern void step_forget_run(void);

#endif							/* TRIGGER_IDEM_STEP_H */
