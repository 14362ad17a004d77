-- Every table and index of the extension, entry by entry
\set ON_ERROR_STOP on
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS amcheck;
SELECT bt_index_parent_check(c.oid, true, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'trigger_idem'::regnamespace;
SELECT c.relname, v.* FROM pg_class c, verify_heapam(c.oid, check_toast => true) v
WHERE c.relnamespace = 'trigger_idem'::regnamespace AND c.relkind = 'r';
