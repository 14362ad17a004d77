/*-------------------------------------------------------------------------
 *
 * application.h
 *	  Workers outside the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_APPLICATION_H
#define TRIGGER_IDEM_APPLICATION_H

extern void application_init(void);

#endif							/* TRIGGER_IDEM_APPLICATION_H */
