-- The page of a run.  Read through the views, with the rights of the caller, like
-- run_timeline(); what html.sql says of values and of names holds here, too.

-- A bar of the timeline, in percent of the time that it shows.  Attributes, not
-- styles: a policy that forbids inline styles does not touch them.
CREATE FUNCTION trigger_idem.page_bar(kind text, since timestamptz, until timestamptz,
	first timestamptz, last timestamptz, title text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT format('<rect class="b-%s" x="%s%%" y="3" width="%s%%" height="10" rx="2"><title>%s</title></rect>',
		kind, round(b.x, 3), round(greatest(b.x_end - b.x, 0), 3), trigger_idem.html_text(title))
	FROM (SELECT
		100 * extract(epoch FROM least(greatest(since, first), last) - first) / s.span AS x,
		100 * extract(epoch FROM least(greatest(until, first), last) - first) / s.span AS x_end
		FROM (SELECT greatest(extract(epoch FROM last - first), 0.000001) AS span) s) b;
END;
COMMENT ON FUNCTION trigger_idem.page_bar(text, timestamptz, timestamptz, timestamptz, timestamptz, text) IS
	'A bar of the timeline of a run';

CREATE FUNCTION trigger_idem.page_lane(depth int, name text, bars text, label text, duration interval)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN format('<li class="d%s"><div class="name">%s</div><svg role="img" aria-label="%s">%s</svg><div class="num soft">%s</div></li>',
	least(depth, 5), name, trigger_idem.html_text(label), bars, trigger_idem.duration_text(duration));
COMMENT ON FUNCTION trigger_idem.page_lane(int, text, text, text, interval) IS
	'A line of the timeline of a run; name and bars are HTML';

-- The name of a line, by what it is of; extra and target are as page_lanes() has them
CREATE FUNCTION trigger_idem.page_lane_name(kind text, name text, extra text, target uuid)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE kind
	WHEN 'attempt' THEN format('Attempt %s %s', name, trigger_idem.html_status(extra))
	WHEN 'step' THEN concat(trigger_idem.html_text(name),
		CASE WHEN extra <> '0' THEN format(' <span class="soft">replayed %s&times;</span>', extra) END)
	WHEN 'wait' THEN format('<span class="soft">waits for %s</span> %s', trigger_idem.html_text(extra),
		CASE WHEN extra IN ('run', 'task') THEN format('<a href="%s.html">%s</a>', target, trigger_idem.html_text(name))
		ELSE trigger_idem.html_text(name) END)
	WHEN 'run' THEN format('<span class="soft">run</span> <a href="%s.html">%s</a> %s', target, trigger_idem.html_text(name),
		trigger_idem.html_status(extra))
END;
COMMENT ON FUNCTION trigger_idem.page_lane_name(text, text, text, uuid) IS
	'What a line of the timeline of a run is of';

-- The bar of the run itself: what it did, or what it was waiting for
CREATE FUNCTION trigger_idem.page_run_lane(this trigger_idem.runs, last timestamptz)
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	due constant timestamptz := greatest(this.created_at, this.first_run_at);
	lane text;
BEGIN
	WITH attempt AS (
		SELECT a.attempt, a.status, a.started_at, COALESCE(a.finished_at, last) AS finished_at,
			CASE WHEN a.finished_at IS NOT NULL THEN
				COALESCE(lead(a.started_at) OVER (ORDER BY a.attempt),
					CASE WHEN this.finished_at IS NULL THEN last END) END AS next_at
		FROM trigger_idem.attempts a WHERE a.run_id = this.run_id),
	segment (since, until, kind, title) AS (
		SELECT this.created_at, least(due, last), 'delayed', 'delayed'
		WHERE due > this.created_at
		UNION ALL
		SELECT due, COALESCE(min(a.started_at), last), 'queued', 'in the queue'
		FROM attempt a HAVING due < COALESCE(min(a.started_at), last)
		UNION ALL
		SELECT a.started_at, a.finished_at, 'executing', 'attempt ' || a.attempt FROM attempt a
		UNION ALL
		SELECT a.finished_at, a.next_at, t.kind, t.title
		FROM attempt a, LATERAL (SELECT
				CASE a.status WHEN 'waiting' THEN 'waiting' WHEN 'released' THEN 'queued' ELSE 'delayed' END AS kind,
				CASE a.status WHEN 'waiting' THEN 'waiting' WHEN 'released' THEN 'in the queue' ELSE 'before the next attempt' END AS title) t
		WHERE a.next_at IS NOT NULL)
	SELECT trigger_idem.page_lane(0, 'Run',
		string_agg(trigger_idem.page_bar(s.kind, s.since, s.until, this.created_at, last,
			s.title || ', ' || trigger_idem.duration_text(s.until - s.since)), '' ORDER BY s.since),
		string_agg(s.title || ' for ' || trigger_idem.duration_text(s.until - s.since), ', ' ORDER BY s.since),
		last - this.created_at)
	INTO lane
	FROM segment s;
	RETURN lane;
END $$;
COMMENT ON FUNCTION trigger_idem.page_run_lane(trigger_idem.runs, timestamptz) IS
	'The line of the run itself in its timeline';

-- The lanes of a run's timeline: the run, its attempts, each with its steps and waits
-- in the order in which they began, and the runs that it triggered.  HTML is made of
-- those that are shown only.
CREATE FUNCTION trigger_idem.page_lanes(this trigger_idem.runs, present timestamptz, max_lanes int)
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	first constant timestamptz := this.created_at;
	last constant timestamptz := COALESCE(this.finished_at, present);
	lanes text;
	number bigint;
BEGIN
	WITH lane (kind, part, since, until, depth, name, extra, target, bar) AS (
		SELECT 'attempt', a.attempt * 2, a.started_at, COALESCE(a.finished_at, last), 0, a.attempt::text, a.status, NULL::uuid,
			CASE WHEN a.status IN ('completed', 'executing') THEN a.status
				WHEN a.status IN ('failed', 'crashed', 'timed_out') THEN 'bad'
				WHEN a.status = 'waiting' THEN 'executing' ELSE 'queued' END
		FROM trigger_idem.attempts a WHERE a.run_id = this.run_id
		UNION ALL
		SELECT 'step', s.attempt * 2 + 1, s.started_at, s.finished_at, cardinality(s.step), s.key, s.replayed::text, NULL, 'step'
		FROM trigger_idem.steps s WHERE s.run_id = this.run_id
		UNION ALL
		SELECT 'wait', w.attempt * 2 + 1, w.started_at, COALESCE(w.ended_at, last), cardinality(w.wait),
			w.wait[cardinality(w.wait)], w.kind, w.target, 'waiting'
		FROM trigger_idem.waits w WHERE w.run_id = this.run_id
		UNION ALL
		SELECT 'run', NULL, c.created_at, COALESCE(c.finished_at, last), 1, c.task_id, c.status::text, c.run_id,
			CASE WHEN c.status = 'completed' THEN 'completed'
				WHEN c.status IN ('failed', 'crashed', 'timed_out') THEN 'bad' ELSE 'queued' END
		FROM trigger_idem.runs c WHERE c.parent_run_id = this.run_id),
	numbered AS (
		SELECT l.*, row_number() OVER (ORDER BY l.part, l.since, l.depth) AS n, count(*) OVER () AS number FROM lane l)
	SELECT string_agg(trigger_idem.page_lane(l.depth, trigger_idem.page_lane_name(l.kind, l.name, l.extra, l.target),
			trigger_idem.page_bar(l.bar, l.since, l.until, first, last, l.kind || ' ' || l.name),
			format('%s began after %s', l.kind, trigger_idem.duration_text(l.since - first)), l.until - l.since),
			E'\n' ORDER BY l.n), max(l.number)
	INTO lanes, number
	FROM (SELECT * FROM numbered ORDER BY n LIMIT max_lanes) l;
	RETURN concat('<ol class="lanes">
<li class="axis"><div class="name soft">', trigger_idem.html_time(first), '</div><svg aria-hidden="true">',
		(SELECT string_agg(format('<text x="%s%%" y="12" text-anchor="%s">%s</text>', n * 25,
			CASE n WHEN 0 THEN 'start' WHEN 4 THEN 'end' ELSE 'middle' END,
			CASE n WHEN 0 THEN '0' ELSE trigger_idem.duration_text((last - first) * n / 4) END), '' ORDER BY n)
		 FROM generate_series(0, 4) n),
		'</svg><div></div></li>', E'\n', trigger_idem.page_run_lane(this, last), E'\n', lanes, '
</ol>', CASE WHEN number > max_lanes THEN format('<p class="soft">And %s more, see <code>run_timeline()</code>.</p>', number - max_lanes) END);
END $$;
COMMENT ON FUNCTION trigger_idem.page_lanes(trigger_idem.runs, timestamptz, int) IS
	'The timeline of a run as bars';

CREATE FUNCTION trigger_idem.page_events(run_id uuid, max_events int)
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT concat('<div class="scroll" tabindex="0" role="region" aria-label="Table of events"><table class="events"><thead><tr><th scope="col">Time</th><th scope="col">Event</th><th scope="col" class="num">Attempt</th><th scope="col" class="num">Duration</th><th scope="col">What</th></tr></thead><tbody>
', string_agg(format('<tr><td>%s</td><td>%s</td><td class="num">%s</td><td class="num">%s</td><td>%s</td></tr>',
			trigger_idem.html_time(t.at), trigger_idem.html_text(t.event), t.attempt, trigger_idem.duration_text(t.duration),
			concat_ws(' ', '<b>' || trigger_idem.html_text(array_to_string(t.step, ' > ', '')) || '</b>',
				trigger_idem.html_text(t.description), trigger_idem.html_jsonb(t.data, 'Data', 6))),
			E'\n' ORDER BY t.n) FILTER (WHERE t.n <= max_events), '
</tbody></table></div>', CASE WHEN count(*) > max_events THEN
		format('<p class="soft">And %s more, see <code>run_timeline()</code>.</p>', count(*) - max_events) END)
	FROM (SELECT e.*, row_number() OVER () AS n FROM trigger_idem.run_timeline(run_id) e) t;
END;
COMMENT ON FUNCTION trigger_idem.page_events(uuid, int) IS
	'What happened to a run, as a table';

CREATE FUNCTION trigger_idem.page_error(error jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
	WHEN error ->> 'message' IS NOT NULL THEN concat(
		'<section class="error"><h2>Error</h2><p><b>', trigger_idem.html_text(error ->> 'message'), '</b> <code>',
		trigger_idem.html_text(error ->> 'code'), '</code></p>',
		'<p>' || trigger_idem.html_text(error ->> 'detail') || '</p>',
		'<p class="soft">' || trigger_idem.html_text(error ->> 'hint') || '</p>',
		'<pre tabindex="0" aria-label="Context of the error">' || trigger_idem.html_text(error ->> 'context') || '</pre>',
		'</section>')
	WHEN error IS NOT NULL THEN concat(
		'<section class="error"><h2>Error</h2>', trigger_idem.html_jsonb(error, 'Error', 30), '</section>')
END;
COMMENT ON FUNCTION trigger_idem.page_error(jsonb) IS
	'The error of a run';

CREATE FUNCTION trigger_idem.page_progress(run_id uuid)
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT format('<section aria-labelledby="progress"><h2 id="progress">Progress</h2><progress aria-labelledby="progress" max="1" value="%s"></progress><p class="ends"><span>%s</span>%s</p></section>',
		p.fraction, concat_ws(', ', trigger_idem.progress_text(p.fraction), trigger_idem.html_text(p.message)),
		trigger_idem.html_time(p.reported_at))
	FROM trigger_idem.run_progress_of(run_id) p
	WHERE p.reported_at IS NOT NULL;
END;
COMMENT ON FUNCTION trigger_idem.page_progress(uuid) IS
	'How far a run has come, if it has said so';

-- The key, and whether it still stands for this run.  One that gives its key up
-- when it expires has done so, whether a worker has noticed or not.
CREATE FUNCTION trigger_idem.page_key_state(this trigger_idem.runs)
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
RETURN CASE
	WHEN this.idempotency_key IS NULL THEN NULL
	WHEN this.idempotency_key_hex IS NULL THEN
		CASE WHEN this.idempotency_key_expires_at <= clock_timestamp() THEN 'expired' ELSE 'released' END
	WHEN this.idempotency_key_expires_at <= clock_timestamp() THEN 'expired'
	WHEN this.status = 'expired' AND EXISTS (SELECT FROM trigger_idem.tasks t
		WHERE t.task_id = this.task_id AND 'expired' = ANY (t.release_key_on)) THEN 'released'
	ELSE 'live'
END;
COMMENT ON FUNCTION trigger_idem.page_key_state(trigger_idem.runs) IS
	'Does the key of a run still stand for it: live, expired or released; NULL without a key';

CREATE FUNCTION trigger_idem.page_facts(this trigger_idem.runs, present timestamptz)
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
RETURN concat('<dl class="facts">',
	trigger_idem.html_fact('Triggered', trigger_idem.html_time(this.created_at)),
	trigger_idem.html_fact('Due', CASE WHEN this.finished_at IS NULL THEN trigger_idem.html_time(this.run_at) END),
	trigger_idem.html_fact('Started', trigger_idem.html_time(this.started_at)),
	trigger_idem.html_fact('Finished', trigger_idem.html_time(this.finished_at)),
	trigger_idem.html_fact('Took', trigger_idem.duration_text(COALESCE(this.finished_at, present) - this.created_at)),
	trigger_idem.html_fact('Attempt', format('%s, at most %s may fail', this.attempt, this.max_attempts)),
	trigger_idem.html_fact('Environment', trigger_idem.html_text(this.environment)),
	trigger_idem.html_fact('Queue', trigger_idem.html_text(this.queue)),
	trigger_idem.html_fact('Priority', CASE WHEN this.priority <> 0 THEN this.priority || ' s' END),
	trigger_idem.html_fact('Triggered by', trigger_idem.html_text(this.triggered_by)),
	trigger_idem.html_fact('Concurrency key', trigger_idem.html_text(this.concurrency_key)),
	trigger_idem.html_fact('Must start within', trigger_idem.duration_text(this.ttl)),
	trigger_idem.html_fact('Parent', CASE WHEN this.parent_run_id IS NOT NULL THEN
		format('<a class="mono" href="%1$s.html">%1$s</a>', this.parent_run_id) END),
	trigger_idem.html_fact('Tags', (SELECT string_agg(format('<span class="tag">%s</span>', trigger_idem.html_text(tag)), '')
		FROM unnest(this.tags) tag)),
	'</dl>');
COMMENT ON FUNCTION trigger_idem.page_facts(trigger_idem.runs, timestamptz) IS
	'What is known of a run';

CREATE FUNCTION trigger_idem.page_key(this trigger_idem.runs)
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
RETURN CASE WHEN this.idempotency_key IS NOT NULL THEN concat(
	'<section aria-labelledby="key"><h2 id="key">Idempotency key</h2><dl class="facts">',
	replace(trigger_idem.html_fact('As typed', '<code>' || trigger_idem.html_text(this.idempotency_key) || '</code>'), '<div>', '<div class="all">'),
	trigger_idem.html_fact('State', trigger_idem.html_status(trigger_idem.page_key_state(this))),
	trigger_idem.html_fact('Scope', trigger_idem.html_text(this.idempotency_key_scope)),
	trigger_idem.html_fact('Expires', COALESCE(trigger_idem.html_time(this.idempotency_key_expires_at), 'never')),
	replace(trigger_idem.html_fact('Hash', '<code>' || this.idempotency_key_hex || '</code>'), '<div>', '<div class="all">'),
	'</dl></section>') END;
COMMENT ON FUNCTION trigger_idem.page_key(trigger_idem.runs) IS
	'The idempotency key of a run';

CREATE FUNCTION trigger_idem.run_page(run_id uuid)
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
	present constant timestamptz := clock_timestamp();
	this trigger_idem.runs%ROWTYPE;
BEGIN
	this := trigger_idem.run_require(run_page.run_id);
	RETURN trigger_idem.html_page(
		concat_ws(' - ', this.task_id, this.status),
		concat('<div class="head"><h1>', trigger_idem.html_text(this.task_id), '</h1>',
			trigger_idem.html_status(this.status::text),
			format('<div class="actions" data-run="%s" data-final="%s" data-key="%s" data-task="%s" data-environment="%s"></div>',
				this.run_id, this.finished_at IS NOT NULL,
				CASE WHEN trigger_idem.page_key_state(this) = 'live' THEN this.idempotency_key_hex END,
				trigger_idem.html_text(this.task_id), trigger_idem.html_text(this.environment)),
			'</div><p class="under">Run <span class="mono">', this.run_id, '</span></p>
',
			'<section class="notice">' || trigger_idem.html_text(this.held_because) || '</section>',
			trigger_idem.page_progress(this.run_id),
			trigger_idem.page_error(this.error),
			'<section aria-labelledby="facts"><h2 id="facts">Run</h2>', trigger_idem.page_facts(this, present), '</section>
<section aria-labelledby="timeline"><h2 id="timeline">Timeline</h2>', trigger_idem.page_lanes(this, present, 200), '</section>
<div class="two">',
			'<section aria-labelledby="payload"><h2 id="payload">Payload</h2>',
			COALESCE(trigger_idem.html_jsonb(this.payload, 'Payload', 30), '<p class="soft">None</p>'), '</section>',
			'<section aria-labelledby="output"><h2 id="output">Output</h2>',
			COALESCE(trigger_idem.html_jsonb(this.output, 'Output', 30), '<p class="soft">None' ||
				CASE WHEN this.finished_at IS NULL THEN ' yet' ELSE '' END || '</p>'), '</section>',
			trigger_idem.page_key(this),
			'<section aria-labelledby="metadata"><h2 id="metadata">Metadata</h2>' ||
				trigger_idem.html_jsonb(this.metadata, 'Metadata', 30) || '</section>', '</div>
<section aria-labelledby="events"><h2 id="events">Events</h2>', trigger_idem.page_events(this.run_id, 500), '</section>'),
		this.finished_at IS NULL);
END $$;
COMMENT ON FUNCTION trigger_idem.run_page(uuid) IS
	'The page of a run: whole and self-contained HTML';
