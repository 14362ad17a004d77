-- What the extension consists of, line by line: two that are equal here behave the
-- same.
SET search_path = pg_catalog;
WITH member AS (
	SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
	WHERE e.extname = 'trigger_idem' AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
), relation AS (
	SELECT c.* FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
)
SELECT line FROM (
	SELECT concat_ws(' | ', 'member', pg_describe_object(classid, objid, 0), obj_description(objid, classid::regclass::name)) AS line FROM member
	UNION ALL
	SELECT concat_ws(' | ', 'relation', c.relname, c.relkind, c.relpersistence, c.reloptions, c.relacl::text, c.relowner::regrole, c.relrowsecurity,
		c.oid = ANY (e.extconfig), e.extcondition[array_position(e.extconfig, c.oid)])
	FROM relation c, pg_extension e WHERE e.extname = 'trigger_idem'
	UNION ALL
	SELECT concat_ws(' | ', 'column', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation::regcollation,
		a.attstorage, a.attcompression, a.attacl::text, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum))
	FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
	UNION ALL
	SELECT concat_ws(' | ', 'constraint', c.relname, k.conname, pg_get_constraintdef(k.oid)) FROM relation c JOIN pg_constraint k ON k.conrelid = c.oid
	UNION ALL
	SELECT concat_ws(' | ', 'index', pg_get_indexdef(i.indexrelid)) FROM relation c JOIN pg_index i ON i.indrelid = c.oid
	UNION ALL
	SELECT concat_ws(' | ', 'trigger', pg_get_triggerdef(t.oid)) FROM relation c JOIN pg_trigger t ON t.tgrelid = c.oid
	UNION ALL
	SELECT concat_ws(' | ', 'view', c.relname, pg_get_viewdef(c.oid)) FROM relation c WHERE c.relkind = 'v'
	UNION ALL
	SELECT concat_ws(' | ', 'routine', pg_get_functiondef(p.oid), p.proacl::text, p.proowner::regrole)
	FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
	UNION ALL
	SELECT concat_ws(' | ', 'type', t.typname, t.typacl::text, (SELECT array_agg(l.enumlabel ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = t.oid))
	FROM pg_type t JOIN member m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
	UNION ALL
	SELECT concat_ws(' | ', 'schema', n.nspname, n.nspacl::text) FROM pg_namespace n WHERE n.nspname = 'trigger_idem'
) described ORDER BY line COLLATE "C";
