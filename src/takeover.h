/*-------------------------------------------------------------------------
 *
 * takeover.h
 *	  Taking over: ending the attempts of workers that are gone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_TAKEOVER_H
#define TRIGGER_IDEM_TAKEOVER_H

extern int	take_over_dead(void);

#endif							/* TRIGGER_IDEM_TAKEOVER_H */
