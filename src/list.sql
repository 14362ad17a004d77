-- The page of all runs.  How many there are makes no difference to what it costs:
-- runs_walk() reads the newest of them, so many at most, and the page says where
-- it has stopped.

CREATE VIEW trigger_idem.paused_queues AS
SELECT p.queue, p.paused_at FROM trigger_idem.paused_queue p;
COMMENT ON VIEW trigger_idem.paused_queues IS 'Queues from which nothing is claimed';

CREATE FUNCTION trigger_idem.runs_walk(
	unfinished boolean,
	before uuid,
	since timestamptz,
	until timestamptz,
	environment text,
	task_id text,
	queue text,
	idempotency_key text,
	tag text,
	max_read int)
RETURNS TABLE (
	run_id uuid,
	status trigger_idem.run_status,
	queue_of_run text,
	created_at timestamptz)
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'trigger_idem_runs_walk';
COMMENT ON FUNCTION trigger_idem.runs_walk(boolean, uuid, timestamptz, timestamptz, text, text, text, text, text, int) IS
	'The newest runs that one may see, reading so many at most; a last row without a status: there are more';

CREATE FUNCTION trigger_idem.idempotency_key_holder(task_id text, idempotency_key text, environment text)
RETURNS uuid
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'trigger_idem_idempotency_key_holder';
COMMENT ON FUNCTION trigger_idem.idempotency_key_holder(text, text, text) IS
	'The run that a key stands for, or stood for when it expired, if one may see it';

-- The query of a link to the list with this filter
CREATE FUNCTION trigger_idem.list_query(filter jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT COALESCE('?' || string_agg(trigger_idem.html_query_value(f.key) || '=' || trigger_idem.html_query_value(f.value),
		'&amp;' ORDER BY f.key), '?')
	FROM jsonb_each_text(jsonb_strip_nulls(filter)) f WHERE f.value <> '';
END;
COMMENT ON FUNCTION trigger_idem.list_query(jsonb) IS
	'The query of a link to the page of runs with a filter';

-- A filter as the page wants it: every value a text, without those not given.
CREATE FUNCTION trigger_idem.list_filter(filter jsonb)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known constant text[] := ARRAY['environment', 'task_id', 'status', 'queue', 'idempotency_key', 'tag',
		'since', 'until', 'before', 'limit'];
	given jsonb := COALESCE(filter, '{}'::jsonb);
	name text;
	value jsonb;
	result jsonb := '{}'::jsonb;
BEGIN
	IF jsonb_typeof(given) <> 'object' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'filter must be a JSON object';
	END IF;
	FOR name, value IN SELECT f.key, f.value FROM jsonb_each(given) f LOOP
		IF name <> ALL (known) THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown filter "%s"', name),
				HINT = format('Known are %s.', array_to_string(known, ', '));
		END IF;
		IF name = 'status' AND jsonb_typeof(value) = 'array' THEN
			value := to_jsonb((SELECT string_agg(s, ',') FROM jsonb_array_elements_text(value) s));
		END IF;
		IF jsonb_typeof(value) NOT IN ('string', 'number', 'null') THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('invalid value for filter "%s"', name), DETAIL = 'It must be a string.';
		END IF;
		IF value #>> '{}' <> '' THEN
			result := result || jsonb_build_object(name, value #>> '{}');
		END IF;
	END LOOP;
	RETURN result;
END $$;
COMMENT ON FUNCTION trigger_idem.list_filter(jsonb) IS
	'Check the filter of the page of runs';

CREATE FUNCTION trigger_idem.list_statuses(filter jsonb)
RETURNS trigger_idem.run_status[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN string_to_array(filter ->> 'status', ',')::trigger_idem.run_status[];
EXCEPTION WHEN invalid_text_representation THEN
	RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
		MESSAGE = 'invalid value for filter "status"',
		DETAIL = format('It must be one or several of %s, separated by commas.',
			array_to_string(enum_range(NULL::trigger_idem.run_status), ', '));
END $$;
COMMENT ON FUNCTION trigger_idem.list_statuses(jsonb) IS
	'The states that the page of runs is to show; NULL: all';

-- A value of the filter, if it can be of the type that it must have
CREATE FUNCTION trigger_idem.list_value(filter jsonb, name text, type pg_catalog.regtype)
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF type = 'timestamptz'::regtype THEN
		PERFORM (filter ->> name)::timestamptz;
	ELSIF type = 'uuid'::regtype THEN
		PERFORM (filter ->> name)::uuid;
	ELSE
		PERFORM (filter ->> name)::int;
	END IF;
	RETURN filter ->> name;
EXCEPTION WHEN data_exception THEN
	RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
		MESSAGE = format('invalid value for filter "%s"', name),
		DETAIL = format('It must be of type %s.', type);
END $$;
COMMENT ON FUNCTION trigger_idem.list_value(jsonb, text, pg_catalog.regtype) IS
	'A value of the filter of the page of runs, checked';

CREATE FUNCTION trigger_idem.list_options(names text[], chosen text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT string_agg(format('<option value="%1$s"%2$s>%1$s</option>', trigger_idem.html_text(n.name),
		CASE WHEN n.name = chosen THEN ' selected' END), '' ORDER BY n.number)
	FROM unnest(CASE WHEN chosen = ANY (names) OR chosen IS NULL THEN names ELSE chosen || names END)
		WITH ORDINALITY n(name, number);
END;
COMMENT ON FUNCTION trigger_idem.list_options(text[], text) IS
	'The options of a choice';

CREATE FUNCTION trigger_idem.list_form(filter jsonb)
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT concat('<form class="filter" method="get" action="runs.html">
<label>Status<select name="status"><option value="">all</option>', trigger_idem.list_options(
			enum_range(NULL::trigger_idem.run_status)::text[], filter ->> 'status'), '</select></label>
<label>Task<select name="task_id"><option value="">all</option>', trigger_idem.list_options(
			ARRAY(SELECT t.task_id FROM trigger_idem.tasks t ORDER BY t.task_id LIMIT 1000), filter ->> 'task_id'), '</select></label>
<label>Environment<select name="environment"><option value="">all</option>', trigger_idem.list_options(
			ARRAY(SELECT v.environment FROM trigger_idem.environments v ORDER BY v.environment LIMIT 1000), filter ->> 'environment'), '</select></label>
', (SELECT string_agg(format('<label>%s<input type="%s" name="%s" value="%s"%s></label>', i.label, i.type, i.name,
			trigger_idem.html_text(filter ->> i.name), i.more), E'\n' ORDER BY i.number)
			FROM (VALUES
				(1, 'Queue', 'text', 'queue', ''),
				(2, 'Idempotency key', 'search', 'idempotency_key', ' placeholder="as typed, or 64 digits"'),
				(3, 'Tag', 'text', 'tag', ''),
				(4, 'Triggered since', 'text', 'since', ' placeholder="2026-01-31 14:00"'),
				(5, 'Triggered before', 'text', 'until', ' placeholder="today"')) i(number, label, type, name, more)), '
<div class="actions"><button class="primary">Show</button><a class="button" href="runs.html">Clear</a></div>
</form>');
END;
COMMENT ON FUNCTION trigger_idem.list_form(jsonb) IS
	'The form of the filter of the page of runs';

CREATE FUNCTION trigger_idem.list_counts(counts jsonb, filter jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT concat('<ul class="chips">', string_agg(format('<li><a href="runs.html%s"%s>%s <span class="num">%s</span></a></li>',
		trigger_idem.list_query(filter - 'before' || jsonb_build_object('status', s.status)),
		CASE WHEN filter ->> 'status' = s.status::text THEN ' aria-current="true"' END,
		trigger_idem.html_status(s.status::text), COALESCE(counts ->> s.status::text, '0')), E'\n' ORDER BY s.status), '</ul>')
	FROM unnest(enum_range(NULL::trigger_idem.run_status)) s(status);
END;
COMMENT ON FUNCTION trigger_idem.list_counts(jsonb, jsonb) IS
	'How many runs are in each state, as links';

-- Bars of what was triggered over time; the part that failed is at the bottom.
CREATE FUNCTION trigger_idem.list_chart(buckets jsonb, first timestamptz, last timestamptz, number int)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT concat('<svg class="chart" role="img" aria-label="', format(
			'%s runs triggered from %s to %s, of which %s failed; at most %s within %s',
			sum(b.total), to_char(first, 'YYYY-MM-DD HH24:MI'), to_char(last, 'YYYY-MM-DD HH24:MI'), sum(b.bad), max(b.total),
			trigger_idem.duration_text((last - first) / number)), '">',
		'<rect class="b-grid" x="0" y="99%" width="100%" height="1"/>',
		string_agg(format('<rect class="b-executing" x="%1$s%%" y="%2$s%%" width="%3$s%%" height="%4$s%%"><title>%5$s</title></rect><rect class="b-bad" x="%1$s%%" y="%6$s%%" width="%3$s%%" height="%7$s%%"><title>%8$s failed</title></rect>',
			round(100.0 * (b.n - 1) / number, 2), round(99 - 96.0 * b.total / m.most, 2), round(80.0 / number, 2),
			round(96.0 * b.total / m.most, 2),
			format('%s: %s runs', to_char(first + (last - first) * (b.n - 1) / number, 'YYYY-MM-DD HH24:MI:SS'), b.total),
			round(99 - 96.0 * b.bad / m.most, 2), round(96.0 * b.bad / m.most, 2), b.bad), '' ORDER BY b.n),
		'</svg><div class="ends"><span>', trigger_idem.html_time(first), '</span><span>at most ', max(b.total), ' in ',
		trigger_idem.duration_text((last - first) / number), '</span><span>', trigger_idem.html_time(last), '</span></div>')
	FROM jsonb_to_recordset(buckets) b(n int, total int, bad int),
		(SELECT max(c.total) AS most FROM jsonb_to_recordset(buckets) c(total int)) m
	HAVING count(*) > 0;
END;
COMMENT ON FUNCTION trigger_idem.list_chart(jsonb, timestamptz, timestamptz, int) IS
	'A chart of what was triggered and what failed over time';

CREATE FUNCTION trigger_idem.list_rows(run_ids uuid[])
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT concat('<div class="scroll" tabindex="0" role="region" aria-label="Table of runs"><table><thead><tr><th scope="col">Status</th><th scope="col">Task</th><th scope="col" class="wide">Key</th><th scope="col" class="wide">Environment</th><th scope="col">Triggered</th><th scope="col" class="num wide">Attempt</th><th scope="col" class="num">Took</th></tr></thead><tbody>
', string_agg(format('<tr><td>%s</td><td><a href="%s.html">%s</a><br><span class="mono soft wide">%s</span>%s</td><td class="wide">%s</td><td class="wide">%s</td><td>%s</td><td class="num wide">%s</td><td class="num">%s</td></tr>',
			trigger_idem.html_status(r.status::text), r.run_id, trigger_idem.html_text(r.task_id), '&hellip;' || right(r.run_id::text, 12),
			CASE WHEN r.error IS NOT NULL THEN '<br><span class="soft">' ||
				trigger_idem.html_text(left(trigger_idem.error_summary(r.error), 120)) || '</span>' END,
			COALESCE('<code>' || trigger_idem.html_text(left(r.idempotency_key, 40))
				|| CASE WHEN length(r.idempotency_key) > 40 THEN '&hellip;' ELSE '' END || '</code>', ''),
			trigger_idem.html_text(r.environment), trigger_idem.html_time(r.created_at), r.attempt,
			trigger_idem.duration_text(r.finished_at - r.created_at)), E'\n' ORDER BY r.run_id DESC), '
</tbody></table></div>')
	FROM trigger_idem.runs r WHERE r.run_id = ANY (run_ids) HAVING count(*) > 0;
END;
COMMENT ON FUNCTION trigger_idem.list_rows(uuid[]) IS
	'A table of runs';

CREATE FUNCTION trigger_idem.list_queues(counts jsonb)
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT concat('<div class="scroll" tabindex="0" role="region" aria-label="Table of queues"><table><thead><tr><th scope="col">Queue</th>',
		(SELECT string_agg(format('<th scope="col" class="num">%s</th>', s), '' ORDER BY s.s)
			FROM unnest(enum_range(NULL, 'waiting'::trigger_idem.run_status)) s),
		'<td></td></tr></thead><tbody>
', string_agg(format('<tr><td><a href="runs.html%s">%s</a> %s</td>%s<td><div class="actions" data-queue="%s" data-paused="%s"></div></td></tr>',
			trigger_idem.list_query(jsonb_build_object('queue', q.queue)), trigger_idem.html_text(q.queue),
			CASE WHEN p.queue IS NOT NULL THEN trigger_idem.html_status('paused') END,
			(SELECT string_agg(format('<td class="num">%s</td>', COALESCE(counts -> q.queue ->> s::text, '0')), '' ORDER BY s.s)
				FROM unnest(enum_range(NULL, 'waiting'::trigger_idem.run_status)) s),
			trigger_idem.html_text(q.queue), p.queue IS NOT NULL), E'\n' ORDER BY q.queue), '
</tbody></table></div>')
	FROM (SELECT t.queue FROM trigger_idem.tasks t
			UNION SELECT x.queue FROM trigger_idem.paused_queues x
			UNION SELECT jsonb_object_keys(counts)) q
		LEFT JOIN trigger_idem.paused_queues p ON p.queue = q.queue
	HAVING count(*) > 0;
END;
COMMENT ON FUNCTION trigger_idem.list_queues(jsonb) IS
	'A table of queues';

CREATE FUNCTION trigger_idem.runs_page(filter jsonb DEFAULT '{}')
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
	-- so many runs are read at most, of all and of the unfinished
	max_read constant int := 10000;
	buckets constant int := 48;
	f constant jsonb := trigger_idem.list_filter(filter);
	statuses constant trigger_idem.run_status[] := trigger_idem.list_statuses(f);
	only_unfinished constant boolean := 'completed' > ALL (statuses);
	before constant uuid := trigger_idem.list_value(f, 'before', 'uuid')::uuid;
	since constant timestamptz := trigger_idem.list_value(f, 'since', 'timestamptz')::timestamptz;
	until constant timestamptz := trigger_idem.list_value(f, 'until', 'timestamptz')::timestamptz;
	max_rows constant int := COALESCE(trigger_idem.list_value(f, 'limit', 'int')::int, 50);
	counts jsonb;
	queues jsonb;
	chart text;
	run_ids uuid[];
	older uuid;
	cut_at uuid;
	is_cut boolean;
BEGIN
	IF max_rows NOT BETWEEN 1 AND 500 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'invalid value for filter "limit"', DETAIL = 'It must be between 1 and 500.';
	END IF;
	WITH newest AS MATERIALIZED (
		SELECT w.* FROM trigger_idem.runs_walk(false, NULL, since, until, f ->> 'environment', f ->> 'task_id',
			f ->> 'queue', f ->> 'idempotency_key', f ->> 'tag', max_read) w),
	unfinished AS MATERIALIZED (
		SELECT w.* FROM trigger_idem.runs_walk(true, NULL, since, until, f ->> 'environment', f ->> 'task_id',
			f ->> 'queue', f ->> 'idempotency_key', f ->> 'tag', max_read) w),
	older_page AS MATERIALIZED (
		SELECT w.* FROM trigger_idem.runs_walk(only_unfinished, before, since, until, f ->> 'environment', f ->> 'task_id',
			f ->> 'queue', f ->> 'idempotency_key', f ->> 'tag', max_read) w
		WHERE before IS NOT NULL),
	page AS (
		SELECT o.* FROM older_page o
		UNION ALL
		SELECT n.* FROM newest n WHERE before IS NULL AND only_unfinished IS NOT TRUE
		UNION ALL
		SELECT u.* FROM unfinished u WHERE before IS NULL AND only_unfinished),
	listed AS (
		SELECT l.run_id, row_number() OVER (ORDER BY l.run_id DESC) AS n
		FROM (SELECT p.run_id FROM page p
				WHERE p.status IS NOT NULL AND (statuses IS NULL OR p.status = ANY (statuses))
			UNION
			-- older than what was read, but its key is still there
			SELECT r.run_id FROM trigger_idem.runs r
			WHERE before IS NULL AND f ? 'idempotency_key' AND r.run_id = ANY (ARRAY(
				SELECT trigger_idem.idempotency_key_holder(t.task_id, f ->> 'idempotency_key', v.environment)
				FROM trigger_idem.tasks t, trigger_idem.environments v
				WHERE COALESCE(t.task_id = f ->> 'task_id', true) AND COALESCE(v.environment = f ->> 'environment', true)))
				AND (statuses IS NULL OR r.status = ANY (statuses))
				AND COALESCE(r.created_at >= since, true) AND COALESCE(r.created_at < until, true)
				AND COALESCE(r.queue = f ->> 'queue', true) AND COALESCE(f ->> 'tag' = ANY (r.tags), true)) l),
	span AS (
		SELECT CASE WHEN isfinite(since) THEN since ELSE min(n.created_at) END AS first,
			least(until, clock_timestamp()) AS last
		FROM newest n)
	SELECT (SELECT jsonb_object_agg(c.status, c.number) FROM (
				SELECT n.status, count(*) AS number FROM newest n WHERE n.status >= 'completed' GROUP BY n.status
				UNION ALL
				SELECT u.status, count(*) FROM unfinished u WHERE u.status < 'completed' GROUP BY u.status) c),
		(SELECT jsonb_object_agg(q.queue_of_run, q.counts) FROM (
			SELECT c.queue_of_run, jsonb_object_agg(c.status, c.number) AS counts FROM (
				SELECT u.queue_of_run, u.status, count(*) AS number FROM unfinished u
				WHERE u.status < 'completed' GROUP BY u.queue_of_run, u.status) c
			GROUP BY c.queue_of_run) q),
		(SELECT trigger_idem.list_chart((SELECT jsonb_agg(jsonb_build_object('n', b.n, 'total', b.total, 'bad', b.bad)) FROM (
				SELECT least(width_bucket(extract(epoch FROM n.created_at), extract(epoch FROM s.first), extract(epoch FROM s.last), buckets), buckets) AS n,
					count(*) AS total, count(*) FILTER (WHERE n.status IN ('failed', 'crashed', 'timed_out')) AS bad
				FROM newest n WHERE n.status IS NOT NULL GROUP BY 1) b), s.first, s.last, buckets)
			FROM span s WHERE s.last > s.first),
		(SELECT array_agg(l.run_id) FROM listed l WHERE l.n <= max_rows),
		(SELECT min(l.run_id::text)::uuid FROM listed l WHERE l.n = max_rows AND EXISTS (SELECT FROM listed m WHERE m.n > max_rows)),
		(SELECT p.run_id FROM page p WHERE p.status IS NULL),
		EXISTS (SELECT FROM newest n WHERE n.status IS NULL) OR EXISTS (SELECT FROM unfinished u WHERE u.status IS NULL)
	INTO counts, queues, chart, run_ids, older, cut_at, is_cut;

	RETURN trigger_idem.html_page('Runs', concat('<div class="head"><h1>Runs</h1></div>
<p class="under">', CASE WHEN is_cut THEN format('Counted and drawn are the newest %s runs, and the newest %1$s unfinished ones.', max_read)
			ELSE 'Counted and drawn are all runs' || CASE WHEN f - 'before' - 'limit' - 'status' <> '{}' THEN ' that match.' ELSE '.' END END, '</p>
<section aria-label="Filter">', trigger_idem.list_form(f), '</section>
<section aria-labelledby="counts"><h2 id="counts">By state</h2>', trigger_idem.list_counts(COALESCE(counts, '{}'), f), '</section>',
		'<section aria-labelledby="chart"><h2 id="chart">Triggered, and failed of these</h2>' || chart || '</section>', '
<section aria-labelledby="list"><h2 id="list">', CASE WHEN before IS NULL THEN 'Newest' ELSE 'Older' END, '</h2>',
		COALESCE(trigger_idem.list_rows(run_ids), '<p class="soft">None' ||
			CASE WHEN cut_at IS NOT NULL THEN format(' of the %s that were looked at', max_read) ELSE '' END || '.</p>'),
		CASE WHEN COALESCE(older, cut_at) IS NOT NULL THEN format('<p class="older"><a class="button" href="runs.html%s">Older</a></p>',
			trigger_idem.list_query(f || jsonb_build_object('before', COALESCE(older, cut_at)))) END, '</section>
',
		CASE WHEN f - 'limit' = '{}' THEN '<section aria-labelledby="queues"><h2 id="queues">Queues</h2>' ||
			trigger_idem.list_queues(COALESCE(queues, '{}')) || '</section>' END), before IS NULL);
END $$;
COMMENT ON FUNCTION trigger_idem.runs_page(jsonb) IS
	'The page of all runs, or of those that match a filter: whole and self-contained HTML';
