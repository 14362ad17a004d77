#!/usr/bin/env perl
# The names of our own typedefs, for pgindent.  Usage: typedefs.pl FILE...
use strict;
use warnings;

my %names;
local $/;
foreach my $file (@ARGV)
{
	open(my $handle, '<', $file) or die "$file: $!\n";
	my $code = <$handle>;
	$code =~ s{/\*.*?\*/}{}gs;
	my $braces = qr/\{(?:[^{}]|\{[^{}]*\})*\}/;
	$names{$1} = 1 while $code =~ /\btypedef\s+(?:struct|enum|union)\s*\w*\s*$braces?\s*(\w+)\s*;/g;
	$names{$1} = 1 while $code =~ /\btypedef\s[^;{}()]*\(\s*\*\s*(\w+)\s*\)/g;
	$names{$1} = 1 while $code =~ /\btypedef\s+\w+[\s*]+(\w+)\s*;/g;
}
print "$_\n" foreach sort keys %names;
