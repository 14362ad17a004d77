#!/usr/bin/perl
# A stand-in for a payment service:  service.pl PORT_FILE
#
#	POST /charges	with the header Idempotency-Key and a body
#					{"delivery": ..., "amount": ...}: charges once per key; the same
#					key again is answered with the same charge
#	GET /counts		{"calls": requests for a charge, "keys": different keys in them}
#
# Listens on 127.0.0.1, at a port that the kernel chooses and PORT_FILE tells.
# It is a process of its own with its state in memory, so the database can crash
# without its noticing.
use strict;
use warnings;

use IO::Socket::INET;
use JSON::PP;

my $MAX_LENGTH = 1_000_000;    # of a request's body
my $PATIENCE   = 5;            # seconds for one request

my $json  = JSON::PP->new->utf8->canonical;
my $calls = 0;
my %charge_of;                 # key => { request, answer }

# Charge, once per key.  Returns status and answer.
sub charge
{
	my ($key, $body) = @_;
	my $order = eval { $json->decode($body) };

	return (400, { error => 'the header Idempotency-Key is missing' })
	  unless defined $key && length $key;
	return (400, { error => 'the body is not {"delivery": ..., "amount": ...}' })
	  unless ref $order eq 'HASH' && defined $order->{delivery} && defined $order->{amount};

	$calls++;
	my $request = $json->encode($order);
	$charge_of{$key} //= {
		request => $request,
		answer  => { %$order, id => sprintf('ch_%06d', 1 + keys %charge_of) },
	};
	return (409, { error => 'this key was used for another charge' })
	  unless $charge_of{$key}{request} eq $request;

	# a real service takes a while to answer, and its client may die meanwhile
	select(undef, undef, undef, 0.05);
	return (200, $charge_of{$key}{answer});
}

sub answer
{
	my ($method, $path, $key, $body) = @_;

	return charge($key, $body) if $method eq 'POST' && $path eq '/charges';
	return (200, { calls => $calls, keys => scalar keys %charge_of })
	  if $method eq 'GET' && $path eq '/counts';
	return (404, { error => 'no such thing' });
}

# Read one request.  Returns method, path, key and body; nothing when the client
# went away.
sub read_request
{
	my ($client) = @_;
	my ($method, $path) = (<$client> // '') =~ m{^([A-Z]+) (/\S*) HTTP/1} or return;
	my %header;

	while (defined(my $line = <$client>))
	{
		last unless $line =~ /^([^:\s]+):\s*(.*?)\s*$/;
		$header{ lc $1 } = $2;
	}

	my $length = $header{'content-length'} // 0;
	return unless $length =~ /^\d+$/ && $length <= $MAX_LENGTH;
	my $got = read($client, my $body, $length) // return;
	return unless $got == $length;
	return ($method, $path, $header{'idempotency-key'}, $body);
}

sub serve
{
	my ($client) = @_;

	local $SIG{ALRM} = sub { die "too slow\n" };
	alarm $PATIENCE;
	if (my @request = read_request($client))
	{
		my ($status, $answer) = answer(@request);
		my $content = $json->encode($answer);

		printf $client "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
		  . "Content-Length: %d\r\nConnection: close\r\n\r\n%s",
		  $status, ($status == 200 ? 'OK' : 'Refused'), length $content, $content;
	}
	alarm 0;
}

sub tell_port
{
	my ($file, $port) = @_;

	open(my $out, '>', "$file.new") or die "$file.new: $!\n";
	print $out "$port\n";
	close($out) or die "$file.new: $!\n";
	rename("$file.new", $file) or die "$file: $!\n";
}

my $port_file = shift or die "usage: service.pl PORT_FILE\n";
my $listener  = IO::Socket::INET->new(
	LocalAddr => '127.0.0.1',
	LocalPort => 0,
	Proto     => 'tcp',
	Listen    => 64,
) or die "cannot listen on 127.0.0.1: $@\n";

$SIG{PIPE} = 'IGNORE';    # clients may die before they are answered
tell_port($port_file, $listener->sockport);
while (1)
{
	my $client = $listener->accept or next;

	eval { serve($client); 1 } or alarm 0;
	close $client;
}
