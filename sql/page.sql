-- run_page() and runs_page(): HTML, with everything escaped, and no more than one may see.

-- A page as lines of text: without the style sheet, one line a tag's end, times and
-- ids replaced.  What a script would see is what the tests look for.
CREATE FUNCTION helper.page_text(page text) RETURNS text LANGUAGE sql RETURN
	regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(page,
		'<style>.*</style>', ''),
		'<[^>]*>', ' ', 'g'),
		'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'ID', 'g'),
		'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?', 'TIME', 'g'),
		'\s+', ' ', 'g');
CREATE FUNCTION helper.page_count(page text, pattern text) RETURNS bigint LANGUAGE sql RETURN
	(SELECT count(*) FROM regexp_matches(page, pattern, 'g'));

-- ---------- Values ----------

SELECT trigger_idem.html_text($$</script><script>alert("it's" & more)</script>$$);
SELECT trigger_idem.html_text(NULL) IS NULL AS is_null;
SELECT trigger_idem.html_query_value(value) FROM unnest(ARRAY['plain-1_.~', 'a b&c=d', '%41', 'ü"<']) value;
SELECT d, trigger_idem.duration_text(d) FROM unnest('{0,0.4 ms,1.25 ms,999.9 ms,1.234 s,59.99 s,61 s,59 min 59 s,2 h 30 min,3 days 5 h,-5 s}'::interval[]) d;
SELECT trigger_idem.duration_text(NULL) IS NULL AS is_null;
SET TimeZone = 'America/New_York';
SELECT trigger_idem.html_time('2026-01-31 12:00:00.5+00');
RESET TimeZone;
SELECT trigger_idem.html_time('infinity'), trigger_idem.html_time(NULL) IS NULL AS is_null;
SELECT trigger_idem.html_jsonb('{"a": "</pre><script>"}', 'Payload', 30);
SELECT trigger_idem.html_jsonb(to_jsonb(repeat('x', 200) || '</pre>'), 'Output <', 2) ~ '^<details><summary><span>Output &lt;, 208 characters</span> <code>&quot;x{99} &hellip;</code></summary><pre [^<]*>&quot;x{200}&lt;/pre&gt;&quot;</pre></details>$' AS is_folded;
SELECT length(trigger_idem.html_jsonb(to_jsonb(repeat('x', 200000)), 'Output', 2)) BETWEEN 100000 AND 101000 AS is_cut;
SELECT trigger_idem.html_jsonb('null', 'Payload', 30), trigger_idem.html_jsonb(NULL, 'Payload', 30) IS NULL AS is_null;
SELECT trigger_idem.page_error('{"code": "<", "message": ">", "detail": "&", "hint": "\"", "context": "''"}');
SELECT trigger_idem.page_error('"</pre>"'), trigger_idem.page_error(NULL) IS NULL AS is_null;

-- ---------- A run ----------

CREATE FUNCTION helper.page_inner(idempotency_key text) RETURNS text LANGUAGE sql RETURN '</script><script>evil()</script>';
CREATE FUNCTION helper.page_outer(idempotency_key text) RETURNS jsonb LANGUAGE sql AS
	$$ SELECT trigger_idem.run_once('<b>inner</b>', 'helper.page_inner') $$;
CREATE FUNCTION helper.page_handler(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('<i>outer</i>', 'helper.page_outer');
	IF trigger_idem.current_attempt() = 1 THEN
		RAISE EXCEPTION '<u>no luck</u>' USING ERRCODE = '58000';
	END IF;
	RETURN payload;
END $$;
SELECT trigger_idem.environment_create('<em>page</em>');
SELECT trigger_idem.task_create('<h6>page</h6>', 'helper.page_handler', queue => '<q>page</q>', min_backoff => '0');
CREATE TABLE helper.page AS
SELECT run_id FROM trigger_idem.trigger_task('<h6>page</h6>', '{"<s>key</s>": "</script><script>evil()</script>"}',
	'<kbd>key</kbd>', tags => '{<sup>tag</sup>}', metadata => '{"<var>": "</style>"}', concurrency_key => '<sub>', environment => '<em>page</em>');
CALL trigger_idem.work('<q>page</q>');
SELECT trigger_idem.run_page(run_id) AS page FROM helper.page \gset
\a\t
SELECT helper.page_text(regexp_replace(regexp_replace(regexp_replace(regexp_replace(:'page', '[\d.]+ (ms|s)\M', 'TIME', 'g'), 'backend \d+', 'backend N', 'g'), '[0-9a-f]{64}', 'HASH', 'g'), ' in [a-z]+\.</footer>', ' in DATABASE.</footer>'));
\a\t
-- it is one document, and no tag is of a value
SELECT :'page' LIKE '<!DOCTYPE html>%</html>_' AS is_whole,
	helper.page_count(:'page', '<(script|i|u|s|em|h6|q|kbd|sup|var|sub)\M') AS tags_of_values, helper.page_count(:'page', '<style>') AS styles,
	helper.page_count(:'page', '(src|href)="(?!runs\.html|#|[0-9a-f-]+\.html)') AS links_outside;
-- a bar for the run, each attempt and each step; the step of the attempt that failed was undone
SELECT helper.page_count(:'page', '<rect class="b-bad"') AS bad, helper.page_count(:'page', '<rect class="b-completed"') AS completed,
	helper.page_count(:'page', '<rect class="b-step"') AS steps, helper.page_count(:'page', '<li class="d2">') AS nested;
-- the whole of the time is on the page, and nothing beside it
SELECT bool_and(x >= 0 AND x + width <= 100.01) AS within, min(x) AS first, max(x + width) BETWEEN 99.9 AND 100.01 AS to_the_end
FROM (SELECT m[1]::numeric AS x, m[2]::numeric AS width FROM regexp_matches(:'page', '<rect class="b-[a-z]+" x="([-\d.]+)%" y="3" width="([-\d.]+)%"', 'g') m) r;
-- also of one that took no more than a part of a millisecond, or no time at all
SELECT trigger_idem.page_bar('step', '2026-01-01 00:00:00.0002', '2026-01-01 00:00:00.0004', '2026-01-01 00:00:00', last, '') AS bar
FROM unnest('{2026-01-01 00:00:00.0004,2026-01-01 00:00:00}'::timestamptz[]) last;
SELECT trigger_idem.page_bar('step', '2026-01-01 00:00:25', '2026-01-01 00:00:50', '2026-01-01 00:00:00', '2026-01-01 00:01:40', '<');
-- the key: live, released, expired
SELECT trigger_idem.page_key_state(r) FROM trigger_idem.runs r JOIN helper.page USING (run_id);
SELECT (regexp_match(trigger_idem.run_page(run_id), '<div class="actions" data-run="[^"]*" data-final="([a-z]*)" data-key="([0-9a-f]*)"'))[1:2] = ARRAY['t', trigger_idem.idempotency_key_create('<kbd>key</kbd>', 'global')] AS can_be_reset FROM helper.page;
SELECT trigger_idem.idempotency_key_reset('<h6>page</h6>', '<kbd>key</kbd>', '<em>page</em>');
SELECT trigger_idem.page_key_state(r), r.idempotency_key_hex FROM trigger_idem.runs r JOIN helper.page USING (run_id);
SELECT run_id FROM trigger_idem.trigger_task('<h6>page</h6>', idempotency_key => 'short', delay => '1 hour') \gset
UPDATE trigger_idem.run SET idempotency_key_expires_at = '2001-01-01' WHERE run_id = :'run_id';
SELECT trigger_idem.page_key_state(r) FROM trigger_idem.runs r WHERE run_id = :'run_id';
-- parent and child are links
CREATE FUNCTION helper.page_parent() RETURNS void LANGUAGE plpgsql AS $$
BEGIN PERFORM trigger_idem.trigger_task('<h6>page</h6>', tags => '{child}', delay => '1 hour'); END $$;
SELECT trigger_idem.task_create('page_parent', 'helper.page_parent', queue => 'page_parent');
SELECT FROM trigger_idem.trigger_task('page_parent');
CALL trigger_idem.work('page_parent');
SELECT trigger_idem.run_page(p.run_id) LIKE '%<a href="' || c.run_id || '.html">%' AS has_child,
	trigger_idem.run_page(c.run_id) LIKE '%<a class="mono" href="' || p.run_id || '.html">%' AS has_parent
FROM trigger_idem.runs p, trigger_idem.runs c WHERE p.task_id = 'page_parent' AND c.tags = '{child}';
-- a page that refreshes itself is that of a run that is not over
SELECT r.status, trigger_idem.run_page(r.run_id) LIKE '%<main id="main" tabindex="-1" data-live>%' AS is_live
FROM trigger_idem.runs r WHERE r.task_id = 'page_parent' OR r.tags = '{child}' ORDER BY r.run_id;
SELECT helper.error_of($$SELECT trigger_idem.run_page(NULL)$$);
SELECT helper.error_of($$SELECT trigger_idem.run_page('00000000-0000-7000-8000-000000000000')$$);

-- ---------- The list ----------

SELECT trigger_idem.task_create('page_list', queue => 'page_list', idempotency_group => 'page_group');
SELECT count(trigger_idem.trigger_task('page_list', to_jsonb(n), 'list ' || n, tags => CASE WHEN n < 7 THEN ARRAY['n' || n % 3] END)) FROM generate_series(1, 7) n;
SELECT trigger_idem.run_fail(run_id, attempt, '"<s>failed</s>"', retry => false) IS NOT NULL AS failed FROM trigger_idem.run_claim('w', 'page_list', 2);
SELECT count(*) FROM trigger_idem.run_claim('w', 'page_list', 1, '1 hour');
-- which runs a filter lists, by the number that is their payload
CREATE FUNCTION helper.page_list(filter jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', (SELECT string_agg(COALESCE(r.payload::text, '?'), ' ' ORDER BY m.n)
			FROM regexp_matches(p.page, '<td><a href="([-0-9a-f]+)\.html">', 'g') WITH ORDINALITY m(run_id, n)
				JOIN trigger_idem.runs r ON r.run_id = m.run_id[1]::uuid),
		CASE WHEN p.page LIKE '%>Older</a>%' THEN 'and older ones' END)
	FROM trigger_idem.runs_page('{"task_id": "page_list"}' || filter) p(page) $$;
SELECT filter, helper.page_list(filter) FROM (VALUES (1, '{}'::jsonb), (2, '{"status": "queued"}'), (3, '{"status": "failed"}'), (4, '{"status": "executing,failed"}'),
	(5, '{"status": ["queued", "executing"], "limit": 3}'), (6, '{"tag": "n1"}'), (7, '{"tag": "n"}'), (8, '{"idempotency_key": "list 5"}'), (9, '{"idempotency_key": "list 8"}'),
	(10, '{"queue": "page_list", "limit": "2"}'), (11, '{"queue": "default"}'), (12, '{"environment": "default", "status": ""}'), (13, '{"environment": "nowhere"}'),
	(14, '{"since": "-infinity", "until": "infinity"}'), (15, '{"since": "2100-01-01"}'), (19, '{"since": "infinity"}'), (16, '{"until": "2000-01-01"}'), (17, '{"tag": null}'),
	(18, '{"status": "queued", "idempotency_key": "list 1"}')) f(n, filter) ORDER BY n;
SELECT helper.page_list(jsonb_build_object('idempotency_key', trigger_idem.idempotency_key_create('list 6', 'global'))) AS by_its_digits;
SELECT helper.page_list(jsonb_build_object('since', created_at)) AS since, helper.page_list(jsonb_build_object('until', created_at)) AS until,
	helper.page_list(jsonb_build_object('before', run_id, 'limit', 2)) AS before
FROM trigger_idem.runs WHERE task_id = 'page_list' AND payload = '4';
SELECT helper.page_text((regexp_match(trigger_idem.runs_page('{"task_id": "page_list"}'), '<ul class="chips">.*?</ul>'))[1]) AS counts;
-- a filter that was chosen stands in the form, and in the links
SELECT helper.page_count(page, '<option value="a&quot;b" selected>') AS chosen, helper.page_count(page, 'task_id=%61%22%62') AS in_links,
	helper.page_count(page, 'value="&lt;x&gt;"') AS typed
FROM trigger_idem.runs_page('{"task_id": "a\"b", "tag": "<x>"}') page;
-- the newest first, and no more than may be read; then where to go on
SELECT (SELECT payload FROM trigger_idem.runs r WHERE r.run_id = w.run_id), status, queue_of_run FROM trigger_idem.runs_walk(false, NULL, NULL, NULL, NULL, 'page_list', NULL, NULL, NULL, 3) w;
SELECT count(status) AS found, count(*) FILTER (WHERE status IS NULL) AS cut FROM trigger_idem.runs_walk(true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2);
-- times that no id has
SELECT n, (SELECT count(*) > 0 FROM trigger_idem.runs_walk(false, NULL, since, until, NULL, NULL, NULL, NULL, NULL, 3)) AS found
FROM (VALUES (1, '10900-01-01'::timestamptz, NULL::timestamptz), (2, '294276-12-31 23:59:59.9+00', NULL), (3, 'infinity', NULL), (4, NULL, '-infinity'),
	(5, '-infinity', '10900-01-01'), (6, '1960-01-01', 'infinity')) t(n, since, until);
-- queues, one of them paused
SELECT trigger_idem.queue_pause('<q>page</q>');
SELECT queue, paused_at IS NOT NULL AS paused FROM trigger_idem.paused_queues;
SELECT page LIKE '%&lt;q&gt;page&lt;/q&gt;</a> <span class="status paused">paused</span>%' AS paused, page LIKE '%data-queue="&lt;q&gt;page&lt;/q&gt;" data-paused="t"%' AS can_be_resumed,
	page LIKE '%data-queue="page_list" data-paused="f"%' AS can_be_paused FROM trigger_idem.runs_page() page;
SELECT trigger_idem.queue_resume('<q>page</q>');

SELECT helper.error_of(format('SELECT trigger_idem.runs_page(%L)', filter)) AS error FROM unnest(ARRAY['[]', '"x"', '{"stauts": "failed"}', '{"status": "done"}', '{"status": "failed,"}',
	'{"status": {}}', '{"task_id": ["x"]}', '{"since": "soon"}', '{"before": "x"}', '{"limit": 0}', '{"limit": 501}', '{"limit": "many"}', '{"limit": 1.5}']) filter;
SELECT trigger_idem.runs_page(NULL) LIKE '<!DOCTYPE html>%' AS without_a_filter;

-- ---------- Who sees what ----------

CREATE ROLE regress_page;
GRANT USAGE ON SCHEMA helper TO regress_page;
SELECT trigger_idem.access_grant('regress_page', 'trigger');
SET ROLE regress_page;
SELECT FROM trigger_idem.trigger_task('page_list', '"mine"', 'mine');
SELECT helper.page_list('{}'), helper.page_list('{"idempotency_key": "list 3"}') AS of_others, helper.page_list('{"idempotency_key": "mine"}') AS mine;
SELECT helper.page_text((regexp_match(trigger_idem.runs_page(), '<ul class="chips">.*?</ul>'))[1]) AS counts;
SELECT count(*) AS walked, count(*) FILTER (WHERE status IS NULL AND run_id::text NOT LIKE '%-0000-000000000000') AS ids_of_others
FROM trigger_idem.runs_walk(false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 3);
SELECT trigger_idem.idempotency_key_holder('page_list', 'list 3', 'default') IS NULL AS hidden, trigger_idem.idempotency_key_holder('page_list', 'mine', 'default') IS NULL AS shown;
RESET ROLE;
DROP OWNED BY regress_page;
DROP ROLE regress_page;

SELECT trigger_idem.idempotency_key_holder(task, key, environment) FROM (VALUES (NULL, 'k', 'default'), ('page_list', NULL, 'default'), ('page_list', 'k', NULL), ('page_nothing', 'k', 'default')) v(task, key, environment);

-- ---------- A search path of others ----------

CREATE SCHEMA page_path;
CREATE FUNCTION page_path.replace(text, text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'replace() of others'; END $$;
CREATE FUNCTION page_path.concat(text, text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'concat() of others'; END $$;
CREATE FUNCTION page_path.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'clock_timestamp() of others'; END $$;
CREATE FUNCTION page_path.append(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE '|| of others'; END $$;
CREATE OPERATOR page_path.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = page_path.append);
CREATE FUNCTION page_path.equal(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE '= of others'; END $$;
CREATE OPERATOR page_path.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = page_path.equal);
CREATE TABLE page_path.runs (LIKE trigger_idem.runs);
SELECT run_id FROM helper.page \gset
SET search_path = page_path, pg_catalog;
SELECT replace('is', 'it', 'called');
RESET search_path;
SET search_path = page_path, pg_catalog;
SELECT 'a'::text || 'b'::text;
RESET search_path;
SET search_path = page_path, pg_catalog;
SELECT length(trigger_idem.run_page(:'run_id')) > 0 AS run_page, length(trigger_idem.runs_page()) > 0 AS runs_page,
	(SELECT count(*) FROM trigger_idem.run_timeline(:'run_id')) > 0 AS run_timeline, (SELECT count(*) FROM trigger_idem.stats()) > 0 AS stats;
RESET search_path;
