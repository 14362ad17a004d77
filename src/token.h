/*-------------------------------------------------------------------------
 *
 * token.h
 *	  Tokens: what runs can wait for and others complete.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRIGGER_IDEM_TOKEN_H
#define TRIGGER_IDEM_TOKEN_H

extern bool token_is_over(const Datum *values, const bool *nulls);

#endif							/* TRIGGER_IDEM_TOKEN_H */
