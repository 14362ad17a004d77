-- What the pages are made of.  Every value on a page comes through html_text(),
-- or from a function here that calls it; nothing else may put a value between
-- two tags.  The bodies of RETURN are bound when the extension is installed, with
-- pg_catalog alone on the search path, so that their functions are the server's.

CREATE FUNCTION trigger_idem.html_text(value text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN replace(replace(replace(replace(replace(value, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'),
	'"', '&quot;'), '''', '&#39;');
COMMENT ON FUNCTION trigger_idem.html_text(text) IS
	'A text as HTML shows it, in an element or in a quoted attribute';

-- Percent-encoded, byte by byte, unless there is no need to
CREATE FUNCTION trigger_idem.html_query_value(value text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
	WHEN value ~ '^[-A-Za-z0-9_.~]*$' THEN value
	ELSE regexp_replace(encode(convert_to(value, 'UTF8'), 'hex'), '(..)', '%\1', 'g')
END;
COMMENT ON FUNCTION trigger_idem.html_query_value(text) IS
	'A text as a value in the query of a link';

CREATE FUNCTION trigger_idem.html_time(value timestamptz)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
	WHEN isfinite(value) THEN format('<time datetime="%s">%s</time>',
		to_char(value AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
		to_char(value, 'YYYY-MM-DD HH24:MI:SS.MS'))
	WHEN value IS NOT NULL THEN 'never'
END;
COMMENT ON FUNCTION trigger_idem.html_time(timestamptz) IS
	'A time, in the time zone of the session';

CREATE FUNCTION trigger_idem.duration_text(value interval)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
	WHEN value IS NULL THEN NULL
	WHEN abs(extract(epoch FROM value)) < 1 THEN
		trim_scale(round(extract(epoch FROM value) * 1000, 1)) || ' ms'
	WHEN abs(extract(epoch FROM value)) < 60 THEN
		trim_scale(round(extract(epoch FROM value), 2)) || ' s'
	WHEN abs(extract(epoch FROM value)) < 3600 THEN format('%s min %s s',
		trunc(extract(epoch FROM value) / 60), trunc(extract(epoch FROM value) % 60))
	WHEN abs(extract(epoch FROM value)) < 86400 THEN format('%s h %s min',
		trunc(extract(epoch FROM value) / 3600), trunc(extract(epoch FROM value) / 60 % 60))
	ELSE format('%s d %s h',
		trunc(extract(epoch FROM value) / 86400), trunc(extract(epoch FROM value) / 3600 % 24))
END;
COMMENT ON FUNCTION trigger_idem.duration_text(interval) IS
	'A duration, as short as people want it';

-- The colour says nothing that the words do not say.
CREATE FUNCTION trigger_idem.html_status(status text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN format('<span class="status %s">%s</span>', trigger_idem.html_text(replace(status, '_', '-')),
	trigger_idem.html_text(status));
COMMENT ON FUNCTION trigger_idem.html_status(text) IS
	'Where a run or an attempt stands';

CREATE FUNCTION trigger_idem.html_fact(name text, value text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN value <> '' THEN
	format('<div><dt>%s</dt><dd>%s</dd></div>', trigger_idem.html_text(name), value) END;
COMMENT ON FUNCTION trigger_idem.html_fact(text, text) IS
	'A name and its value, which is HTML; nothing where there is no value';

-- Readable, and folded where it is long.  Of one that is huge the beginning is
-- shown, as it is: a browser has no use for megabytes of text.  MATERIALIZED, so that
-- nothing is written out twice.
CREATE FUNCTION trigger_idem.html_jsonb(value jsonb, name text, max_lines int)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	WITH plain AS MATERIALIZED (
		SELECT value::text AS whole),
	part AS MATERIALIZED (
		SELECT length(p.whole) AS number, left(p.whole, 100) AS beginning,
			CASE WHEN length(p.whole) <= 100000 THEN jsonb_pretty(value) ELSE left(p.whole, 100000) END AS shown
		FROM plain p WHERE p.whole IS NOT NULL),
	block AS MATERIALIZED (
		SELECT p.*, format('<pre tabindex="0" aria-label="%s">%s%s</pre>', trigger_idem.html_text(name),
			trigger_idem.html_text(p.shown),
			CASE WHEN p.number > 100000 THEN format(E'\n&hellip; (the first 100000 of %s characters)', p.number) END) AS html
		FROM part p)
	SELECT CASE
		WHEN length(b.shown) <= max_lines * 60 AND length(b.shown) - length(replace(b.shown, E'\n', '')) <= max_lines THEN b.html
		ELSE format('<details><summary><span>%s, %s characters</span> <code>%s &hellip;</code></summary>%s</details>',
			trigger_idem.html_text(name), b.number, trigger_idem.html_text(b.beginning), b.html)
		END
	FROM block b;
END;
COMMENT ON FUNCTION trigger_idem.html_jsonb(jsonb, text, int) IS
	'A payload, output or error to read; long ones are folded';

CREATE FUNCTION trigger_idem.html_style()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN $css$
:root { color-scheme: light dark;
	--page: #f5f6f8; --card: #fff; --ink: #171a20; --soft: #566070; --line: #dfe3e9; --code: #f1f3f6; --link: #1d4fc4;
	--grey: #8b95a5; --grey-bg: #eceff3; --grey-ink: #3d4654; --blue: #2f6bea; --blue-bg: #e2ebfe; --blue-ink: #1b3f94;
	--violet: #8250df; --violet-bg: #efe7fd; --violet-ink: #56309f; --green: #1f9254; --green-bg: #dcf3e4; --green-ink: #14532d;
	--red: #d1293d; --red-bg: #fde4e6; --red-ink: #8c1422; --amber: #b7791f; --amber-bg: #fbeecd; --amber-ink: #6b4508; }
@media (prefers-color-scheme: dark) { :root {
	--page: #0f1217; --card: #171b22; --ink: #e7eaf0; --soft: #a3adbb; --line: #2a303b; --code: #11151b; --link: #8fb4ff;
	--grey: #7a8494; --grey-bg: #262c36; --grey-ink: #c5ccd8; --blue: #5b8dff; --blue-bg: #1b2b50; --blue-ink: #bcd2ff;
	--violet: #a884f3; --violet-bg: #2f2350; --violet-ink: #d9c8ff; --green: #3fb874; --green-bg: #12351f; --green-ink: #a6e9c0;
	--red: #f4606f; --red-bg: #45171d; --red-ink: #ffc2c8; --amber: #d9a441; --amber-bg: #3b2b0c; --amber-ink: #f6d999; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
code, pre, .mono { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
a { color: var(--link); text-underline-offset: 2px; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 4px; }
.skip { position: absolute; left: -100rem; } .skip:focus { left: 1rem; top: .5rem; background: var(--card); padding: .25rem .75rem; z-index: 1; }
.top { background: var(--card); border-bottom: 1px solid var(--line); }
.top > div, main, footer { max-width: 74rem; margin: 0 auto; padding: 0 1.25rem; }
.top > div { display: flex; align-items: baseline; gap: 1.25rem; padding-block: .7rem; }
.top b { letter-spacing: -.01em; } .top a { color: inherit; }
footer { color: var(--soft); font-size: 13px; padding-block: .5rem 2rem; }
h1 { font-size: 1.6rem; line-height: 1.2; letter-spacing: -.02em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 0 0 .75rem; }
.head { display: flex; flex-wrap: wrap; align-items: center; gap: .6rem .9rem; margin: 1.6rem 0 .35rem; }
.under { margin: 0 0 1.25rem; color: var(--soft); overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.25rem; margin: 0 0 1rem; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 1rem; } .two > section { min-width: 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .85rem 1.25rem; margin: 0; }
.facts div { min-width: 0; } .facts .all { grid-column: 1 / -1; }
dt { color: var(--soft); font-size: 13px; } dd { margin: 0; overflow-wrap: anywhere; }
time { font-variant-numeric: tabular-nums; white-space: nowrap; }
.soft { color: var(--soft); } .num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.status { display: inline-flex; align-items: center; gap: .4em; padding: .1rem .6rem; border-radius: 99px; font-size: 13px; font-weight: 600; white-space: nowrap; background: var(--grey-bg); color: var(--grey-ink); }
.status::before { content: ""; width: .55em; height: .55em; border-radius: 50%; background: var(--grey); }
.executing { background: var(--blue-bg); color: var(--blue-ink); } .executing::before { background: var(--blue); }
.waiting { background: var(--violet-bg); color: var(--violet-ink); } .waiting::before { background: var(--violet); }
.completed, .live { background: var(--green-bg); color: var(--green-ink); } .completed::before, .live::before { background: var(--green); }
.failed, .crashed, .timed-out { background: var(--red-bg); color: var(--red-ink); } .failed::before, .crashed::before, .timed-out::before { background: var(--red); border-radius: 1px; }
.delayed, .paused, .canceled, .expired { background: var(--amber-bg); color: var(--amber-ink); } .delayed::before, .paused::before, .canceled::before, .expired::before { background: var(--amber); }
.tag { display: inline-block; border: 1px solid var(--line); border-radius: 6px; padding: 0 .45rem; font-size: 13px; margin: 0 .3rem .2rem 0; }
pre { margin: .5rem 0 0; padding: .75rem .9rem; background: var(--code); border-radius: 8px; overflow: auto; max-height: 32rem; white-space: pre-wrap; overflow-wrap: anywhere; }
td pre { margin: 0; } details pre { margin-top: .6rem; }
summary { cursor: pointer; overflow-wrap: anywhere; } summary code { color: var(--soft); }
.error { border-left: 4px solid var(--red); } .error p { margin: 0; }
progress { width: 100%; height: .7rem; accent-color: var(--blue); }
.lanes { list-style: none; margin: 0; padding: 0; }
.lanes li { display: grid; grid-template-columns: 16rem 1fr 6rem; gap: 0 1rem; align-items: center; min-height: 1.9rem; border-top: 1px solid var(--line); }
.lanes li:first-child { border-top: 0; }
.lanes svg { display: block; width: 100%; height: 1rem; overflow: hidden; }
.lanes .name { overflow-wrap: anywhere; padding: .15rem 0; }
.lanes .d1 .name { padding-left: 1rem; } .lanes .d2 .name { padding-left: 2rem; } .lanes .d3 .name { padding-left: 3rem; } .lanes .d4 .name { padding-left: 4rem; } .lanes .d5 .name { padding-left: 5rem; }
.axis text { fill: var(--soft); font-size: 12px; }
rect { fill: var(--grey); stroke: var(--grey); } .b-executing { fill: var(--blue); stroke: var(--blue); } .b-step { fill: var(--blue); stroke: var(--blue); fill-opacity: .55; }
.b-waiting { fill: var(--violet-bg); stroke: var(--violet); } .b-completed { fill: var(--green); stroke: var(--green); } .b-bad { fill: var(--red); stroke: var(--red); }
.b-delayed { fill: var(--amber-bg); stroke: var(--amber); } .b-queued { fill: var(--grey-bg); stroke: var(--grey); } .b-grid { fill: var(--line); stroke: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th { text-align: left; font-weight: 600; font-size: 13px; color: var(--soft); } th.num { text-align: right; }
th, td { padding: .45rem .75rem .45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; } tr:last-child td { border-bottom: 0; }
td { overflow-wrap: anywhere; } .events td:last-child { min-width: 14rem; width: 45%; } .events td { white-space: normal; }
.chips { display: flex; flex-wrap: wrap; gap: .4rem .5rem; margin: 0; padding: 0; list-style: none; } .chips a { text-decoration: none; } .chips a:hover .status { text-decoration: underline; }
.chips [aria-current] .status { outline: 2px solid var(--link); outline-offset: 1px; }
.chart { width: 100%; height: 96px; display: block; } .chart rect { stroke: none; }
.ends { display: flex; flex-wrap: wrap; gap: 0 1rem; justify-content: space-between; color: var(--soft); font-size: 13px; margin-top: .35rem; }
form.filter { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .7rem 1rem; align-items: end; }
label { display: block; font-size: 13px; color: var(--soft); }
input, select, button, .button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--grey); border-radius: 7px; padding: .35rem .6rem; min-height: 2.3rem; max-width: 100%; } label input, label select { display: block; width: 100%; }
button, .button { display: inline-flex; align-items: center; line-height: 1.2; cursor: pointer; font-weight: 600; text-decoration: none; } .primary { background: var(--link); border-color: var(--link); color: var(--page); } .danger { border-color: var(--red); color: var(--red-ink); }
.actions { display: flex; flex-wrap: wrap; gap: .5rem; } .actions:empty { display: none; } .head .actions { margin-left: auto; }
.actions form { margin: 0; } .older { margin: .9rem 0 0; } .notice { border-left: 4px solid var(--blue); }
@media (max-width: 46rem) { .wide { display: none; } td time, dd time { white-space: normal; } .facts { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); } td { overflow-wrap: normal; } form.filter { grid-template-columns: 1fr 1fr; } .top > div, main, footer { padding-inline: .8rem; } section { padding: .9rem; }
	.lanes li { grid-template-columns: 1fr auto; padding: .3rem 0; } .lanes .name { grid-column: 1; } .lanes .num { grid-column: 2; grid-row: 1; } .lanes svg { grid-column: 1 / -1; }
	.axis text:nth-child(even) { display: none; }
	.events td { display: inline; border: 0; padding: 0 .6rem 0 0; } .events tr { display: block; border-top: 1px solid var(--line); padding: .4rem 0; } .events thead { position: absolute; left: -100rem; }
	.events td:nth-child(2) { font-weight: 600; } .events td:nth-child(3):not(:empty)::before { content: "attempt "; } .events td:last-child { display: block; width: auto; min-width: 0; } }
@media print { body { background: #fff; } .actions, form.filter { display: none; } }
$css$;
COMMENT ON FUNCTION trigger_idem.html_style() IS
	'The style sheet of the pages';

-- Without scripts, and nothing from outside: the policy says so to the browser.  A
-- server that adds to a page replaces the policy, which stands between two comments;
-- no value can look like one.
CREATE FUNCTION trigger_idem.html_page(title text, main text, is_live boolean)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN concat('<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<!--policy--><meta http-equiv="Content-Security-Policy" content="default-src ''none''; style-src ''unsafe-inline''; form-action ''self''; base-uri ''none''"><!--/policy-->
<meta name="referrer" content="same-origin">
<title>', trigger_idem.html_text(title), '</title>
<style>', trigger_idem.html_style(), '</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top"><div><b>trigger_idem</b><nav aria-label="Pages"><a href="runs.html">Runs</a></nav></div></header>
<main id="main" tabindex="-1"', CASE WHEN is_live THEN ' data-live' END, '>
', main, '
</main>
<footer>Times are in the zone ', trigger_idem.html_text(current_setting('TimeZone')), '. Made <span data-now>',
trigger_idem.html_time(clock_timestamp()), '</span> by ', trigger_idem.html_text(current_user), ' in ', trigger_idem.html_text(current_database()), '.</footer>
</body>
</html>
');
COMMENT ON FUNCTION trigger_idem.html_page(text, text, boolean) IS
	'A whole page; main is HTML';
