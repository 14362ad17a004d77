# One suite for all the ways to work a run: a session's CALL work() and background
# workers, each with a procedure and with a function as handler, and an application
# over SQL.
#
# Each scenario is run by all of them, at the same time and with the same
# expectations; Conformance.pm says where a kind really differs.  Promised:
#
# - a run is worked as the task's role, is current while that is done, and ends with
#   the status, output and attempts that its job had
# - what fails is tried again after its backoff, as often as it may be
# - a run that waits is worked again when that is over, from where it was
# - wherever a worker's backend or the whole server is killed with kill -9, the run is
#   completed; every effect in the database is there exactly once, those outside at
#   least once, with a key that is the same in every attempt
# - what was committed is not repeated
# - a worker that has lost its run, be it stopped, canceled or too slow, commits
#   nothing more of it, and nobody waits for it
# - a key is free again when its run was in vain, and is kept otherwise
# - a paused queue and a concurrency_limit hold runs back, and no others

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use Conformance;
use TriggerIdem;

# polling takes what is written to stderr for a failure; warnings are looked for
# in the log, at the end
$ENV{PGOPTIONS} = '-c client_min_messages=error';

my ($node, @workers) = new_conformance_server();

# Processes that are still stopped when the test dies would outlive it.
my @stopped;
END { kill 'CONT', @stopped if @stopped; }

# ---------- What is done in the middle of a scenario ----------

# Each gets the works of the scenario: for each kind of worker a hash with worker,
# run_id, key, what, and where there are some gate, session, and pid.

sub kill_backends
{
	my @works = @_;
	my $log_offset = -s $node->logfile;

	kill 'KILL', map { $_->{pid} } @works;
	wait_for_restart($node, $log_offset);
	return;
}

sub kill_server
{
	my @works = @_;
	my @pids = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity');
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my $tries = 10 * $PostgreSQL::Test::Utils::timeout_default;

	# The workers shall die where they are.  Those that outlive the postmaster may
	# still go on and complete their runs: one that waits for a standby, and one whose
	# gate was open before it noticed, for the session that keeps it closed ends, too.
	my @pids_of_workers = map { $_->{pid} } @works;
	kill 'STOP', @pids_of_workers;
	$node->kill9;
	kill 'KILL', @pids_of_workers;

	# the others end by themselves
	while (kill 0, $postmaster, @pids)
	{
		die 'something of the old server is left' if $tries-- == 0;
		usleep(100_000);
	}
	$node->start;
	return;
}

sub stop_backends
{
	my @works = @_;

	@stopped = map { $_->{pid} } @works;
	kill 'STOP', @stopped;
	foreach my $work (@works)
	{
		ok(work_until($work->{worker}, "status_of('$work->{run_id}') = 'completed'"),
			"$work->{what}: somebody else completes it");
	}
	return;
}

sub continue_backends
{
	kill 'CONT', @stopped;
	@stopped = ();
	return;
}

sub wait_for_timeout
{
	foreach my $work (@_)
	{
		ok(work_until($work->{worker}, "status_of('$work->{run_id}') = 'timed_out'"),
			"$work->{what}: noticed");
	}
	return;
}

sub cancel_runs
{
	foreach my $work (@_)
	{
		is(query($work->{worker}, "SELECT trigger_idem.run_cancel('$work->{run_id}')"),
			't', "$work->{what}: it was not final");
	}
	return;
}

# Another run is worked, and this one is not.
sub is_held_back
{
	my ($work, @run_ids) = @_;
	my $marker_id = trigger($work->{worker}, 'marker', '{}');

	ok(work_until($work->{worker}, "status_of('$marker_id') = 'completed'"),
		"$work->{what}: others are worked");
	is( query(
			$work->{worker},
			"SELECT DISTINCT status, attempt FROM trigger_idem.runs WHERE run_id IN ('"
			  . join("', '", @run_ids) . "')"),
		'queued|0',
		"$work->{what}: held back");
	return;
}

sub pause_queue
{
	query($_, q[SELECT trigger_idem.queue_pause('slow')]) foreach @workers;
	return;
}

sub resume_queue
{
	foreach my $work (@_)
	{
		is_held_back($work, $work->{run_id});
		query($work->{worker}, q[SELECT trigger_idem.queue_resume('slow')]);
	}
	return;
}

# Each crash ends everything that is executing, so there shall be nothing else.
sub crash_one_by_one
{
	foreach my $work (@_)
	{
		# it may be so fast that this is not answered
		$node->psql($work->{worker}{name}, q[SELECT trigger_idem.queue_resume('slow')]);
		ok(work_until($work->{worker}, "status_of('$work->{run_id}') = 'crashed'"),
			"$work->{what}: given up");
	}
	return;
}

# One of a limit of one is in the middle of its work.
sub trigger_more
{
	foreach my $work (@_)
	{
		my @run_ids = map { trigger($work->{worker}, 'deliver_alone', '{"alone": true}') } 1 .. 6;

		is_held_back($work, @run_ids);
	}
	return;
}

# Several workers, and each run of these fails if it meets another one.
sub work_at_once
{
	foreach my $work (@_)
	{
		my $worker = $work->{worker};

		trigger($worker, 'deliver_alone', '{"alone": true}') foreach 1 .. 9;
		my @sessions = grep { defined } map { start_worker($worker) } 1 .. 3;
		finish_sql($_) foreach @sessions;
		ok(work_until($worker, "count_of('deliver_alone', 'completed') = 16"),
			"$work->{what}: all are completed");
		is( query(
				$worker,
				"SELECT DISTINCT a.status FROM trigger_idem.attempts a
				 JOIN trigger_idem.runs r USING (run_id) WHERE task_id = 'deliver_alone'"),
			'completed',
			"$work->{what}: never two at once");
	}
	return;
}

# Alice is neither the role of the task nor its owner, and bob cannot log in yet.
sub lock_bob_out
{
	$node->safe_psql('postgres', 'ALTER ROLE bob NOLOGIN');
	return;
}

# Since 17 a background worker is a role that may not log in.
sub work_as_stranger
{
	foreach my $work (@_)
	{
		if ($work->{worker}{name} =~ /^background/ && $node->pg_version >= 17)
		{
			ok(work_until($work->{worker}, "status_of('$work->{run_id}') = 'completed'"),
				"$work->{what}: worked without login");
			next;
		}
		my $session = start_worker($work->{worker});

		finish_sql($session) if defined $session;
		is_held_back($work, $work->{run_id});
	}
	$node->safe_psql('postgres', 'ALTER ROLE bob LOGIN');
	return;
}

sub children_are_canceled
{
	foreach my $work (@_)
	{
		is( query(
				$work->{worker},
				"SELECT status FROM trigger_idem.runs WHERE parent_run_id = '$work->{run_id}'"),
			$work->{worker}{commits} ? 'canceled' : '',
			"$work->{what}: the child that it has committed is canceled, too");
	}
	return;
}

# What was waited for was done, in its own time, and the nap was long enough.
sub has_waited
{
	foreach my $work (@_)
	{
		is( query(
				$work->{worker}, "
				SELECT c.status, c.attempt, string_agg(e.what || ' ' || e.attempt, ', ' ORDER BY e.what)
				FROM trigger_idem.runs c JOIN effect e USING (run_id)
				WHERE c.parent_run_id = '$work->{run_id}' GROUP BY c.run_id, 1, 2"),
			'completed|1|book 1, charge 1, ship 1',
			"$work->{what}: its child is done once");
		is( query(
				$work->{worker}, "
				SELECT two.started_at >= c.finished_at, three.started_at - two.started_at >= '300 ms'
				FROM trigger_idem.runs c, trigger_idem.attempts two, trigger_idem.attempts three
				WHERE c.parent_run_id = '$work->{run_id}' AND two.run_id = c.parent_run_id AND two.attempt = 2
					AND three.run_id = two.run_id AND three.attempt = 3"),
			't|t',
			"$work->{what}: its attempts begin when the waits are over");
	}
	return;
}

# ---------- The scenarios ----------

# How many of the two steps have called outside at a place, and how many are done;
# with one transaction, none is.
my %places = (
	claimed => [ 0, 0 ],    # nothing of the job is begun
	entered => [ 0, 0 ],
	'in charge' => [ 1, 0 ],
	'after charge' => [ 1, 1 ],
	'in ship' => [ 2, 1 ],
	'before the end' => [ 2, 2 ],
	completion => [ 2, 2 ],    # it is written, but not committed
);

# name; attempts and status in the end; and where that is not completed in the first
# attempt of a run of the task deliver:
#
# task, payload, options, user	of the run
# place			that its first attempt comes to; and stops, if no payload says otherwise
# before		done first
# triggered		done when it is triggered and nobody was asked to work it
# there			done when all are at the place
# open			done when their gates are open again
# last			done in the end
# ends			how the workers that were asked to work it end; see has_ended()
# goes_on		they go on from the place to their next commit
# triggers_more	other runs are worked, too
# waits			at the place; with one transaction, before that begins
my @scenarios = (
	{ name => 'completes', attempts => 'completed', ends => 'done' },

	# ---- Waiting ----
	{
		name => 'waits for a child and sleeps',
		payload => '{"wait": true}',
		place => 'after charge',
		waits => 1,
		triggers_more => 1,
		attempts => 'waiting, waiting, completed',
		ends => 'done',
		last => \&has_waited
	},

	# ---- Failing ----
	(
		map {
			+{
				name => "fails: $_",
				payload => qq[{"fail_at": "$_"}],
				place => $_,
				attempts => 'failed P0001, completed'
			}
		} ('in charge', 'after charge', 'before the end')),
	{
		name => 'fails every time',
		payload => '{"fail_at": "in ship", "attempts": 9}',
		options => 'max_attempts => 2',
		place => 'in ship',
		attempts => 'failed P0001, failed P0001',
		status => 'failed'
	},
	{
		name => 'fails for good',
		payload => '{"fail_at": "in ship", "code": "TI006"}',
		place => 'in ship',
		attempts => 'failed TI006',
		status => 'failed'
	},

	# ---- Dying ----
	(
		map {
			+{
				name => "killed: $_",
				place => $_,
				there => \&kill_backends,
				ends => 'died',
				attempts => 'crashed 57P02, completed'
			}
		} sort keys %places),
	(
		map {
			+{
				name => "server killed: $_",
				place => $_,
				there => \&kill_server,
				ends => 'died',
				attempts => 'crashed 57P02, completed'
			}
		} sort keys %places),
	{
		name => 'kills its worker every time',
		payload => '{"kill_at": "in ship", "attempts": 9}',
		options => q[max_attempts => 2, queue => 'slow'],
		place => 'in ship',
		before => \&pause_queue,
		triggered => \&crash_one_by_one,
		attempts => 'crashed 57P02, crashed 57P02',
		status => 'crashed'
	},

	# ---- Losing the run ----
	(
		map {
			+{
				name => "stopped: $_",
				task => 'deliver_leased',
				place => $_,
				there => \&stop_backends,
				open => \&continue_backends,
				goes_on => 1,
				ends => 'lost',
				attempts => 'crashed 57P02, completed'
			}
		} ('in charge', 'in ship', 'before the end')),
	{
		name => 'canceled',
		payload => '{"stop_at": "in ship", "child": true}',
		place => 'in ship',
		there => \&cancel_runs,
		ends => 'lost',
		attempts => 'canceled',
		status => 'canceled',
		last => \&children_are_canceled
	},
	{
		name => 'takes too long',
		task => 'deliver_limited',
		place => 'in ship',
		there => \&wait_for_timeout,
		ends => 'lost',
		attempts => 'timed_out 57014',
		status => 'timed_out'
	},

	# ---- Held back ----
	{
		name => 'in a paused queue',
		options => q[queue => 'slow'],
		before => \&pause_queue,
		triggered => \&resume_queue,
		triggers_more => 1,
		attempts => 'completed'
	},
	{
		name => 'one at a time',
		task => 'deliver_alone',
		payload => '{"stop_at": "entered", "alone": true}',
		place => 'entered',
		there => \&trigger_more,
		triggers_more => 1,
		attempts => 'completed',
		ends => 'done',
		last => \&work_at_once
	},
	{
		name => 'as another role',
		task => 'deliver_bob',
		user => 'bob',
		before => \&lock_bob_out,
		triggered => \&work_as_stranger,
		triggers_more => 1,
		attempts => 'completed',
		ends => 'done'
	});

# ---------- What is expected in the end ----------

# Of the two steps: whether the first attempt's is kept, and how often it calls
# outside.
sub expected_step
{
	my ($worker, $scenario, $step) = @_;
	my $place = $scenario->{waits} && !$worker->{commits} ? 'claimed' : $scenario->{place};
	my ($called, $done) = @{ $places{ $place // 'claimed' } };
	my $calls = ($called >= $step || ($scenario->{goes_on} && !$worker->{commits})) ? 1 : 0;
	my $is_kept = $worker->{commits} && $done >= $step;

	return ($is_kept, $calls + ($is_kept ? 0 : 1));
}

sub check
{
	my ($work, $scenario) = @_;
	my ($worker, $what) = @{$work}{qw(worker what)};
	my $status = $scenario->{status} // 'completed';
	my $last = () = $scenario->{attempts} =~ /\w+( \w+)?/g;
	my %facts = facts($worker, $work->{run_id}, $work->{key});
	my %calls = outside_calls($node);
	my (@effects, @steps);

	foreach my $step (1, 2)
	{
		my $name = ('charge', 'ship')[ $step - 1 ];
		my ($is_kept, $calls) = expected_step($worker, $scenario, $step);
		my $attempt = $is_kept ? 1 : $last;

		next unless $is_kept || $status eq 'completed';
		push @effects, "$name $attempt";
		push @steps, qq[$name $attempt "$name $attempt"];
		is($calls{ $facts{keys}{$name} // '' }, $calls, "$what: calls outside of $name, with one key")
		  if $status eq 'completed';
	}
	unshift @effects, "book $last" if $status eq 'completed';

	is($facts{attempts}, $scenario->{attempts}, "$what: attempts");
	is( $facts{run},
		join('|', $status, $last, $status eq 'completed' && $worker->{output} ne '' ? $worker->{output} : ()),
		"$what: status, attempt and output");
	is($facts{effects}, join(', ', @effects), "$what: effects and the attempt that each is from");
	is($facts{steps}, join(', ', @steps), "$what: steps, the attempt that each is from, and its memo");
	my $user = $scenario->{user} // 'alice';
	is($facts{by}, "$user $user", "$what: current_user and session_user") if @effects;
	is($facts{key}, $status =~ /completed|canceled/ ? 'held' : 'free', "$what: its key");
	if ($scenario->{attempts} =~ /^failed/)
	{
		is($facts{failure}, 'failed on purpose', "$what: the error is stored");
		is($facts{waited}, $last > 1 ? 't' : '', "$what: the backoff is waited for");
	}
	return values %{ $facts{keys} };
}

# ---------- Running them ----------

# Trigger a run for each kind; what is needed for it to stop at its place is done.
sub trigger_works
{
	my ($scenario, $payload, $gates_are_closed) = @_;
	my $name = $scenario->{name};
	my $options = join ', ', "idempotency_key => '$name'", $scenario->{options} // ();
	my @works = map { +{ worker => $_, what => "$_->{name}, $name", key => $name } } @workers;

	foreach my $work (@works)
	{
		my $worker = $work->{worker};

		$work->{gate} = close_gate($node, 1, $worker->{name}) if $gates_are_closed;
		$work->{run_id} = trigger($worker, $scenario->{task} // 'deliver', $payload, $options);
	}
	return @works;
}

# Have all of them worked, and see them at their place, if they are to stop there.
sub start_works
{
	my ($scenario, $stops, @works) = @_;

	foreach my $work (@works)
	{
		$work->{session} = start_worker($work->{worker}, user => $scenario->{user});
	}
	return unless $stops;
	if ($scenario->{place} eq 'claimed')
	{
		my @pids = wait_at_claims(scalar @works);

		$_->{pid} = shift @pids foreach @works;
		release_claims();
		return;
	}
	$_->{pid} = wait_at_place($_->{worker}, $_->{run_id}) foreach @works;
	return;
}

# Work what is left, and compare what was done.
sub finish_works
{
	my ($scenario, @works) = @_;
	my $status = $scenario->{status} // 'completed';

	if ($scenario->{ends})
	{
		has_ended(@{$_}{qw(worker session run_id)}, $scenario->{ends}, $_->{what}) foreach @works;
	}
	foreach my $work (@works)
	{
		ok( work_until(
				$work->{worker}, "status_of('$work->{run_id}') = '$status'", $scenario->{user}),
			"$work->{what}: ends as $status");
	}
	return map { check($_, $scenario) } @works;
}

sub run_scenario
{
	my ($scenario) = @_;
	my $place = $scenario->{place};
	my $payload = $scenario->{payload} // (defined $place ? qq[{"stop_at": "$place"}] : '{}');
	my $stops = $payload =~ /stop_at/;
	my $at_claim = $stops && $place eq 'claimed';
	my %calls_before = outside_calls($node);

	$scenario->{before}->() if $scenario->{before};
	hold_claims() if $at_claim;
	my @works = trigger_works($scenario, $payload, $stops && !$at_claim);
	$scenario->{triggered}->(@works) if $scenario->{triggered};

	start_works($scenario, $stops, @works) if $scenario->{ends};
	$scenario->{there}->(@works) if $scenario->{there};
	foreach my $work (@works)
	{
		open_gate($work->{gate}) if $work->{gate};
	}
	$scenario->{open}->(@works) if $scenario->{open};

	my @keys = finish_works($scenario, @works);
	my %calls = outside_calls($node);
	delete @calls{ keys %calls_before };
	is( join(' ', sort keys %calls),
		join(' ', sort @keys),
		"$scenario->{name}: outside saw the keys of the steps and no others")
	  if ($scenario->{status} // 'completed') eq 'completed' && !$scenario->{triggers_more};
	$scenario->{last}->(@works) if $scenario->{last};
	return;
}

# The argument is a pattern of names; none: all.
my $wanted = shift // '';
run_scenario($_) foreach grep { $_->{name} =~ /$wanted/ } @scenarios;

unlike(slurp_file($node->logfile),
	qr/still active|leak|not closed|TRAP|PANIC|XX000/, 'no internal error, and nothing is left over at a commit');

$node->stop;
done_testing();
