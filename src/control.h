/*-------------------------------------------------------------------------
 *
 * control.h
 *	  Controlling runs and queues from outside.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_CONTROL_H
#define TRIGGER_IDEM_CONTROL_H

extern void control_init(void);

#endif							/* TRIGGER_IDEM_CONTROL_H */
